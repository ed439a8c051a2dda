"""The toolchain `litert_quantizer`: the LiteRT quantizer, which rewrites a float flatbuffer by a recipe."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from typing import Any

import numpy as np

from tasks.errors import QuantizationFailed
from tasks.quantize import qat
from tasks.quantize.builders import Builder, BuildFunction, Material, register
from tasks.quantize.depthwise_scales import with_scale_of_each_channel
from tasks.quantize.float_flatbuffer import float_flatbuffer
from tasks.quantize.float_scopes import float_scopes
from tasks.quantize.layer_ranges import tensor_ranges
from tasks.quantize.ranges import Ranges, ranges_for
from tasks.quantize.recipe import Recipe, add_recipe, recipe_of
from tasks.quantize.schemes import (
    DynamicInt4,
    DynamicInt8,
    Float16,
    Qat,
    QatInt4,
    QatInt8,
    Scheme,
    StaticInt4,
    StaticInt8,
    StaticInt8x16,
    WeightOnlyInt4,
    WeightOnlyInt8,
)
from tasks.quantize.weight_ranges import weight_ranges

_PACKAGES = ("ai-edge-litert", "litert-quantizer")


def build_float16(material: Material, scheme: Float16) -> bytes:
    """Makes an artifact with half-precision weights, widened to float32 when it is loaded.

    Args:
        material: With the float32 .tflite.
        scheme: What to make.

    Returns:
        Content of the .tflite file.

    Raises:
        QuantizationFailed: If there is no float32 .tflite.
    """
    from litert_quantizer import Quantizer
    from litert_quantizer.qtyping import TFLOperationName
    from litert_quantizer.quantizer import AlgorithmName

    quantizer = Quantizer(_source(material))
    quantizer.add_weight_only_config(
        ".*", TFLOperationName.ALL_SUPPORTED, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING
    )
    return _quantized(quantizer)


def build_integer(material: Material, scheme: Scheme) -> bytes:
    """Makes an artifact with integer weights, in every kernel but for the kept layers, however small.

    With the weight algorithms `gptq` and `oscar` the library leaves convolutions in float without a word, so that the
    audit refuses what is made of a detector.

    Args:
        material: With the float32 .tflite, and the statistics of its activations if the scheme is calibrated.
        scheme: What to make.

    Returns:
        Content of the .tflite file.

    Raises:
        QuantizationFailed: If the float32 .tflite or statistics are missing, or do not belong together.
    """
    source, recipe = _source(material), recipe_of(scheme)
    ranges = ranges_for(scheme, source, material.statistics) if recipe.is_static else {}
    data = _integer(source, recipe, ranges, material.kept_float)
    return with_scale_of_each_channel(data) if recipe.is_dynamic else data


def build_qat(material: Material, scheme: Qat) -> bytes:
    """Makes an artifact as `build_integer` does, of trained weights and ranges.

    Args:
        material: The trained detector, its ranges, layers to keep in float.
        scheme: What to make.

    Returns:
        Content of the .tflite file; with the ranges of post-training quantization the same bytes.

    Raises:
        QuantizationFailed: If a layer has no range.
    """
    source = float_flatbuffer(material.detector)
    return _integer(source, recipe_of(scheme), tensor_ranges(source, material.ranges or {}), material.kept_float)


def _integer(source: bytes, recipe: Recipe, ranges: Ranges, kept_float: tuple[str, ...]) -> bytes:
    from litert_quantizer import Quantizer

    quantizer = Quantizer(source)
    add_recipe(quantizer, recipe, float_scopes(source, kept_float))
    return _quantized(quantizer, _statistics(source, recipe, ranges))


def _source(material: Material) -> bytes:
    if material.source is None:
        raise QuantizationFailed("litert-quantizer starts from the float32 artifact, and none was given")
    return material.source


def _statistics(source: bytes, recipe: Recipe, ranges: Ranges) -> dict[str, dict[str, np.ndarray]]:
    """The library's form of ranges, of activations and weights: by tensor name, arrays that spread over the tensor."""
    activations = {
        name: {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}
        for name, (low, high) in ranges.items()
    }
    bounds = weight_ranges(source, recipe, ranges)
    return activations | {name: {"min": -bound, "max": bound} for name, bound in bounds.items()}


def _quantized(quantizer: Any, statistics: dict[str, dict[str, np.ndarray]] | None = None) -> bytes:
    with _quiet():
        result = quantizer.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


@contextmanager
def _quiet() -> Iterator[None]:
    """Drops a progress bar that has no switch, and warnings about settings that are meant as they are."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stderr(StringIO()):
            yield
    finally:
        root.setLevel(before)


def _register(build: BuildFunction, *schemes: type[Scheme]) -> None:
    for scheme in schemes:
        register(
            Builder(
                scheme=scheme,
                toolchain="litert_quantizer",
                runtimes=("litert",),
                framework="none",
                build=build,
                source="converter",
                packages=_PACKAGES,
            )
        )


_register(build_float16, Float16)
_register(
    build_integer,
    DynamicInt8, DynamicInt4, WeightOnlyInt8, WeightOnlyInt4, StaticInt8, StaticInt4, StaticInt8x16,
)  # fmt: skip
# They start from the detector, and so make the float .tflite themselves.
for _scheme in (QatInt8, QatInt4):
    register(
        Builder(
            scheme=_scheme,
            toolchain="litert_quantizer",
            runtimes=("litert",),
            framework="tensorflow",
            build=build_qat,
            packages=(*_PACKAGES, "tensorflow", "tf-keras"),
            limits=qat.LIMITS,
        )
    )
