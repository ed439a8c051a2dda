"""The toolchain `nncf`: OpenVINO's Neural Network Compression Framework, post-training quantization on images."""

import io
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from tasks.errors import QuantizationFailed
from tasks.quantize import openvino_archive
from tasks.quantize.builders import Builder, Limit, Material, register
from tasks.quantize.openvino_graph import KERNELS, layer_of_operation
from tasks.quantize.schemes import StaticInt8
from tasks.runtimes.base import input_table
from tasks.runtimes.openvino import imported, opened

_PRESETS = {"symmetric": "performance", "asymmetric": "mixed"}
"""NNCF's presets by symmetry of activations; weights are symmetric in both."""

_ESTIMATORS = ("min_max", "mean_min_max")
"""The range estimators that NNCF has. The second one is its default: the mean over images of the least and greatest
value; where each channel has a range of its own, as at the inputs of depthwise layers, the least and greatest of all
(means there as well would cost the real detector .009 AP)."""

_NUMBERED = re.compile(r"[A-Za-z]+_\d+")
"""Names that OpenVINO gives, which count the operators that the process has made so far."""


def build(material: Material, scheme: StaticInt8) -> bytes:
    """Quantizes a float32 .onnx file.

    Args:
        material: With the float32 .onnx as its source, and calibration images.
        scheme: What to make.

    Returns:
        Content of an OpenVINO archive; the same bytes for the same material.

    Raises:
        QuantizationFailed: If the source or images are missing, or a layer that is to stay float is not in the source.
    """
    if material.source is None or material.pixels is None or not len(material.pixels):
        raise QuantizationFailed("nncf starts from the float32 .onnx and calibration images, and they were not given")
    model = opened(material.source)
    # Else biases and depthwise weights hang on computations of shapes, where NNCF neither corrects nor stores them.
    _fold_constants(model)
    quantized = _quantized(model, _ignored(model, material.kept_float), material.pixels, scheme)
    _fold_constants(quantized)
    return _serialized(quantized)


def _fold_constants(model: Any) -> None:
    from openvino.passes import ConstantFolding, Manager

    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(model)


def _ignored(model: Any, kept_float: Sequence[str]) -> list[str]:
    """Names of the operators that do the convolutions of the kept layers."""
    found = {
        layer_of_operation(operation): str(operation.get_friendly_name())
        for operation in model.get_ordered_ops()
        if operation.get_type_name() in KERNELS
    }
    lost = [layer for layer in kept_float if layer not in found]
    if lost:
        raise QuantizationFailed(f"the float32 .onnx has no convolution {', '.join(lost)} that could stay float")
    return [found[layer] for layer in kept_float]


def _quantized(model: Any, ignored: list[str], pixels: np.ndarray, scheme: StaticInt8) -> Any:
    with _quiet():
        import nncf
        from nncf.quantization.advanced_parameters import QuantizationParameters
        from nncf.quantization.range_estimator import RangeEstimatorParameters, RangeEstimatorParametersSet

        extremes = scheme.range_estimator == "min_max"

        return nncf.quantize(
            model,
            _dataset(nncf, pixels),
            preset=nncf.QuantizationPreset(_PRESETS[scheme.symmetry]),
            subset_size=len(pixels),
            fast_bias_correction=scheme.bias_correction != "accurate",
            ignored_scope=nncf.IgnoredScope(names=ignored) if ignored else None,
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                disable_bias_correction=scheme.bias_correction == "none",
                weights_quantization_params=QuantizationParameters(per_channel=scheme.granularity == "per_channel"),
                activations_range_estimator_params=(
                    RangeEstimatorParametersSet.MINMAX if extremes else RangeEstimatorParameters()
                ),
            ),
        )


def _dataset(nncf: Any, pixels: np.ndarray) -> Any:
    """One image at a time, as every runtime is handed it."""
    table = input_table(np.dtype(np.float32))
    return nncf.Dataset(pixels, lambda image: np.ascontiguousarray(table[image].transpose(2, 0, 1)[None]))


@contextmanager
def _quiet() -> Iterator[None]:
    """Drops progress bars, log lines and warnings, and undoes what importing NNCF does to all later loggers."""
    imported()
    logger, logger_class = logging.getLogger("nncf"), logging.getLoggerClass()
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.setLoggerClass(logger_class)
        # Its handler writes to whatever was standard output during the import.
        logger.handlers = []


def _serialized(model: Any) -> bytes:
    _name(model)
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.xml"
        imported().serialize(model, graph)
        return openvino_archive.packed(_without_notes(graph.read_bytes()), graph.with_suffix(".bin").read_bytes())


def _name(model: Any) -> None:
    """Gives each operator that has no name of its own one by its place."""
    for place, operation in enumerate(model.get_ordered_ops()):
        if layer_of_operation(operation) is None and _NUMBERED.fullmatch(operation.get_friendly_name()):
            operation.set_friendly_name(f"{operation.get_type_name()}_{place}")


def _without_notes(graph: bytes) -> bytes:
    """Drops the model's notes about the tools that made it and their versions."""
    root = ElementTree.fromstring(graph)
    for notes in root.findall("rt_info"):
        root.remove(notes)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


register(
    Builder(
        scheme=StaticInt8,
        toolchain="nncf",
        runtimes=("openvino",),
        framework="torch",
        build=build,
        format="openvino.zip",
        source="onnx",
        calibration="images",
        packages=("nncf", "openvino"),
        limits=(
            Limit("range_estimator", _ESTIMATORS, "nncf observes activations itself, by minimum and maximum"),
            Limit("weight_algorithm", ("min_max",), "nncf takes the greatest magnitude of the weights"),
            Limit("input_type", ("float32",), "nncf quantizes inside the graph, between float ends"),
            Limit("output_type", ("float32",), "nncf quantizes inside the graph, between float ends"),
        ),
    )
)
