"""The toolchain `converter`: TensorFlow's TFLiteConverter."""

from typing import Any

from tasks.detector.weights import Detector
from tasks.quantize.builders import Builder, register
from tasks.quantize.depthwise_scales import with_scale_of_each_channel
from tasks.quantize.flatbuffer import read, text, write
from tasks.quantize.float_flatbuffer import converter, float_flatbuffer
from tasks.quantize.ranges import Ranges, calibrate
from tasks.quantize.schemes import DynamicInt8, Float16, Float32, Scheme, StaticInt8

_PACKAGES = ("tensorflow", "tf-keras")


def build_float32(detector: Detector, scheme: Float32, calibration: None) -> bytes:
    """Makes the float32 artifact, the reference of every other."""
    return float_flatbuffer(detector)


def build_float16(detector: Detector, scheme: Float16, calibration: None) -> bytes:
    """Makes an artifact with half-precision weights, widened to float32 when it is loaded."""
    import tensorflow as tf

    settings = converter(detector)
    settings.optimizations = [tf.lite.Optimize.DEFAULT]
    settings.target_spec.supported_types = [tf.float16]
    return bytes(settings.convert())


def build_dynamic_int8(detector: Detector, scheme: DynamicInt8, calibration: None) -> bytes:
    """Makes an artifact with int8 weights; kernels of fewer than 1024 elements stay float, as TFLiteConverter does."""
    import tensorflow as tf

    settings = converter(detector)
    settings.optimizations = [tf.lite.Optimize.DEFAULT]
    # There is no public setting; the attribute has been there since TensorFlow 2.4.
    settings._experimental_disable_per_channel = scheme.granularity == "per_tensor"
    return with_scale_of_each_channel(bytes(settings.convert()))


def build_static_int8(detector: Detector, scheme: StaticInt8, calibration: Ranges) -> bytes:
    """Makes an artifact with int8 weights and activations and float32 input and output.

    Args:
        detector: Architecture and weights.
        scheme: What to make.
        calibration: Activation ranges over the scheme's sample, from `calibrate`.

    Returns:
        Content of the .tflite file, the same as `TFLiteConverter.convert` makes of these ranges.
    """
    calibrated = with_ranges(float_flatbuffer(detector), calibration)
    return _quantized(calibrated, per_tensor=scheme.granularity == "per_tensor")


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


def _quantized(calibrated: bytes, per_tensor: bool) -> bytes:
    """Runs the quantizer of TFLiteConverter on a calibrated flatbuffer.

    `TFLiteConverter.convert` calibrates and quantizes in one go, with `_quantize` and `_optimize_tflite_model` of
    `tensorflow/lite/python/lite.py`. Calling their second halves alone makes every further granularity and sample
    size cost a third of a second. These functions are private: written for TensorFlow 2.21, and a test holds the
    result equal to `convert` to the byte.
    """
    from tensorflow.lite.python.convert import mlir_quantize
    from tensorflow.lite.python.lite import _deduplicate_readonly_buffers

    return bytes(_deduplicate_readonly_buffers(mlir_quantize(calibrated, per_tensor)))


def _register(scheme: type[Scheme], build: Any, needs_calibration: bool = False) -> None:
    register(
        Builder(
            scheme=scheme,
            toolchain="converter",
            runtime="litert",
            framework="tensorflow",
            build=build,
            calibrate=calibrate if needs_calibration else None,
            packages=(*_PACKAGES, "ai-edge-litert") if needs_calibration else _PACKAGES,
        )
    )


_register(Float32, build_float32)
_register(Float16, build_float16)
_register(DynamicInt8, build_dynamic_int8)
_register(StaticInt8, build_static_int8, needs_calibration=True)
