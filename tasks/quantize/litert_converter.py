"""The toolchain `converter`: TensorFlow's TFLiteConverter."""

from typing import Any

from tasks.quantize import qat
from tasks.quantize.builders import Builder, Limit, Material, decline, register
from tasks.quantize.depthwise_scales import with_scale_of_each_channel
from tasks.quantize.flatbuffer import read, text, write
from tasks.quantize.float_flatbuffer import converter, float_flatbuffer
from tasks.quantize.kernels import kernels
from tasks.quantize.layer_names import layer_names
from tasks.quantize.layer_ranges import tensor_ranges
from tasks.quantize.observe import activations
from tasks.quantize.ranges import Ranges
from tasks.quantize.schemes import (
    DynamicInt8,
    Float16,
    Float32,
    QatInt4,
    QatInt8,
    Scheme,
    StaticInt4,
    StaticInt8,
    StaticInt8x16,
)


def build_float32(material: Material, scheme: Float32) -> bytes:
    """Makes the float32 artifact: the reference, and what what most LiteRT artifacts start from."""
    return float_flatbuffer(material.detector)


def build_float16(material: Material, scheme: Float16) -> bytes:
    """Makes an artifact with half-precision weights, widened to float32 when it is loaded."""
    import tensorflow as tf

    settings = converter(material.detector)
    settings.optimizations = [tf.lite.Optimize.DEFAULT]
    settings.target_spec.supported_types = [tf.float16]
    return bytes(settings.convert())


def build_dynamic_int8(material: Material, scheme: DynamicInt8) -> bytes:
    """Makes an artifact with int8 weights; kernels of fewer than 1024 elements stay float, as TFLiteConverter does."""
    import tensorflow as tf

    settings = converter(material.detector)
    settings.optimizations = [tf.lite.Optimize.DEFAULT]
    # There is no public setting; the attribute has been there since TensorFlow 2.4.
    settings._experimental_disable_per_channel = scheme.granularity == "per_tensor"
    return with_scale_of_each_channel(bytes(settings.convert()))


# `TFLiteConverter.convert` calibrates and quantizes in one go, with `_quantize` and `_optimize_tflite_model` of
# `tensorflow/lite/python/lite.py`. Calling their second halves alone makes every further granularity, sample or type of
# input cost a third of a second. These functions are private: written for TensorFlow 2.21, and a test holds the
# results equal to `convert` to the byte.


def build_static_int8(material: Material, scheme: StaticInt8) -> bytes:
    """Makes an artifact with int8 weights and activations.

    Args:
        material: The float32 .tflite, statistics of its activations, layers to keep in float.
        scheme: What to make.

    Returns:
        Content of the .tflite file, the same as `TFLiteConverter.convert` makes of these ranges.
    """
    return _static_int8(_source(material), _calibrated(material, scheme), material.kept_float, scheme)


def build_qat_int8(material: Material, scheme: QatInt8) -> bytes:
    """Makes an artifact as `build_static_int8` does, of trained weights and ranges.

    Args:
        material: The trained detector, its ranges, layers to keep in float.
        scheme: What to make.

    Returns:
        Content of the .tflite file; with the ranges of post-training quantization by `min_max` the same bytes.

    Raises:
        QuantizationFailed: If a layer has no range.
    """
    source = float_flatbuffer(material.detector)
    calibrated = with_ranges(source, tensor_ranges(source, material.ranges or {}))
    return _static_int8(source, calibrated, material.kept_float, scheme)


def _static_int8(source: bytes, calibrated: bytes, kept_float: tuple[str, ...], scheme: StaticInt8) -> bytes:
    from tensorflow import dtypes
    from tensorflow.lite.python.convert import mlir_quantize
    from tensorflow.lite.python.lite import _deduplicate_readonly_buffers

    quantized = mlir_quantize(
        calibrated,
        disable_per_channel=scheme.granularity == "per_tensor",
        input_data_type=dtypes.as_dtype(scheme.input_type),
        output_data_type=dtypes.as_dtype(scheme.output_type),
        denylisted_nodes=_outputs_of(source, kept_float) or None,
    )
    return bytes(_deduplicate_readonly_buffers(quantized))


def build_static_int8x16(material: Material, scheme: StaticInt8x16) -> bytes:
    """Makes an artifact with int8 weights, int16 activations, and float32 input and output.

    Args:
        material: The float32 .tflite, statistics of its activations.
        scheme: What to make.

    Returns:
        Content of the .tflite file, the same as `TFLiteConverter.convert` makes of these ranges.
    """
    import numpy as np
    from tensorflow.lite.python.lite import _deduplicate_readonly_buffers
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    def number(element_type: type[np.generic]) -> int:
        return np.dtype(element_type).num

    # A calibrator that has seen no image leaves the ranges that are there. What it wraps reads the model from the
    # calibrator's own bytes, so that the calibrator has to outlive the call.
    calibrator = Calibrator(_calibrated(material, scheme))
    quantized = calibrator._calibrator.QuantizeModel(
        number(np.float32),  # input
        number(np.float32),  # output
        False,  # no operator may stay in float
        number(np.int16),  # activations
        number(np.int64),  # biases
        False,  # per-tensor scales: it fails on depthwise kernels
        False,  # per-tensor scales in fully connected layers alone
    )
    return bytes(_deduplicate_readonly_buffers(quantized))


def with_ranges(model: bytes, ranges: Ranges) -> bytes:
    """Writes activation ranges into a float flatbuffer, where TFLiteConverter's quantizer looks for them.

    Args:
        model: A float .tflite.
        ranges: Range of each activation, by tensor name.

    Returns:
        The calibrated .tflite.
    """
    from ai_edge_litert.schema_py_generated import QuantizationParametersT

    tree = read(model)
    for tensor in tree.subgraphs[0].tensors:
        if text(tensor.name) in ranges:
            low, high = ranges[text(tensor.name)]
            tensor.quantization = QuantizationParametersT()
            tensor.quantization.min, tensor.quantization.max = [low], [high]
    return write(tree)


def _calibrated(material: Material, scheme: Scheme) -> bytes:
    model, statistics = _source(material), material.statistics
    if statistics is None or set(statistics.tensors) != set(activations(read(model))):
        raise ValueError(f"{scheme.name} needs statistics of the float32 artifact's own activations")
    # TensorFlow's calibration: the true range of each tensor alone. Its quantizers join those that need one scale.
    lows, highs = statistics.minima.min(axis=0).tolist(), statistics.maxima.max(axis=0).tolist()
    return with_ranges(model, dict(zip(statistics.tensors, zip(lows, highs, strict=True), strict=True)))


def _source(material: Material) -> bytes:
    if material.source is None:
        raise ValueError("the float32 artifact is missing")
    return material.source


def _outputs_of(model: bytes, names: tuple[str, ...]) -> set[str]:
    """Names of the tensors that layers write, which are what TFLiteConverter's quantizer calls their nodes."""
    found = kernels(read(model))
    return {text(kernel.output.name) for kernel, name in zip(found, layer_names(found), strict=False) if name in names}


_MIN_MAX_WEIGHTS = Limit("weight_algorithm", ("min_max",), "TFLiteConverter scales weights by their greatest magnitude")
_MIN_MAX_RANGES = Limit("range_estimator", ("min_max",), "TFLiteConverter keeps its own calibration, the true range")
_ASYMMETRIC = Limit("symmetry", ("asymmetric",), "TFLiteConverter always chooses the zero points of 8-bit activations")


def _nothing_kept(reason: str) -> Limit:
    return Limit("keep_float", ("none",), reason)


_OF_DETECTORS = ("tensorflow", "tf-keras")
_OF_FLATBUFFERS = ("ai-edge-litert", "tensorflow")


def _register(
    scheme: type[Scheme],
    build: Any,
    limits: tuple[Limit, ...] = (),
    source: str | None = None,
    packages: tuple[str, ...] = _OF_DETECTORS,
) -> None:
    register(
        Builder(
            scheme=scheme,
            toolchain="converter",
            runtimes=("litert",),
            framework="tensorflow",
            build=build,
            source=source,
            packages=packages,
            limits=limits,
        )
    )


_register(Float32, build_float32)
_register(Float16, build_float16)
_register(
    DynamicInt8,
    build_dynamic_int8,
    (_MIN_MAX_WEIGHTS, _nothing_kept("TFLiteConverter's dynamic quantization takes no list of layers")),
)
_register(
    StaticInt8,
    build_static_int8,
    (_MIN_MAX_WEIGHTS, _MIN_MAX_RANGES, _ASYMMETRIC),
    source="converter",
    packages=_OF_FLATBUFFERS,
)
# It starts from the detector, and so makes the float .tflite itself.
_register(QatInt8, build_qat_int8, (*qat.LIMITS, _ASYMMETRIC), packages=(*_OF_DETECTORS, *_OF_FLATBUFFERS))
_register(
    StaticInt8x16,
    build_static_int8x16,
    (
        _MIN_MAX_WEIGHTS,
        _MIN_MAX_RANGES,
        Limit("granularity", ("per_channel",), "TFLiteConverter fails on per-tensor depthwise kernels"),
        _nothing_kept("TFLiteConverter's quantizer for 16-bit activations takes no list of layers"),
    ),
    source="converter",
    packages=_OF_FLATBUFFERS,
)

for _scheme in (StaticInt4, QatInt4):
    decline(_scheme, "the quantizer of TFLiteConverter stores 8-bit weights", "converter")
