"""The toolchain `litert_quantizer`: the LiteRT quantizer, which rewrites a float flatbuffer by a recipe."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from typing import Any

import numpy as np

from tasks.detector.weights import Detector
from tasks.quantize.builders import Builder, register
from tasks.quantize.depthwise_scales import with_scale_of_each_channel
from tasks.quantize.flatbuffer import constant, read, text
from tasks.quantize.float_flatbuffer import float_flatbuffer
from tasks.quantize.kernels import Kernel, kernels
from tasks.quantize.ranges import Ranges, calibrate
from tasks.quantize.schemes import DynamicInt8, Float16, Granularity, Scheme, StaticInt8

# The float flatbuffer that the recipe is applied to comes from TFLiteConverter, so its versions count too.
_PACKAGES = ("ai-edge-litert", "litert-quantizer", "tensorflow", "tf-keras")
_EVERYTHING = ".*"

_BIAS_HALF_RANGE = 2**30
"""Greatest magnitude of a quantized bias: half of int32, so that the sum of products has the other half. The margin
is that of TensorFlow's first quantizer: tensorflow/lite/tools/optimize/quantization_utils.cc,
`AdjustWeightsForBiasScale`."""


def build_float16(detector: Detector, scheme: Float16, calibration: None) -> bytes:
    """Makes an artifact with half-precision weights, widened to float32 when it is loaded."""
    from litert_quantizer import Quantizer
    from litert_quantizer.qtyping import TFLOperationName
    from litert_quantizer.quantizer import AlgorithmName

    quantizer = Quantizer(float_flatbuffer(detector))
    quantizer.add_weight_only_config(
        _EVERYTHING, TFLOperationName.ALL_SUPPORTED, num_bits=16, algorithm_key=AlgorithmName.FLOAT_CASTING
    )
    return _quantized(quantizer)


def build_dynamic_int8(detector: Detector, scheme: DynamicInt8, calibration: None) -> bytes:
    """Makes an artifact with int8 weights in every kernel, however small."""
    from litert_quantizer import Quantizer
    from litert_quantizer.qtyping import TFLOperationName

    quantizer = Quantizer(float_flatbuffer(detector))
    quantizer.add_dynamic_config(
        _EVERYTHING, TFLOperationName.ALL_SUPPORTED, num_bits=8, granularity=_granularity(scheme.granularity)
    )
    return with_scale_of_each_channel(_quantized(quantizer))


def build_static_int8(detector: Detector, scheme: StaticInt8, calibration: Ranges) -> bytes:
    """Makes an artifact with int8 weights and activations and float32 input and output.

    Args:
        detector: Architecture and weights.
        scheme: What to make.
        calibration: Activation ranges over the scheme's sample, from `calibrate`.

    Returns:
        Content of the .tflite file.
    """
    from litert_quantizer import Quantizer
    from litert_quantizer.qtyping import TFLOperationName
    from litert_quantizer.quantizer import AlgorithmName

    model = float_flatbuffer(detector)
    quantizer = Quantizer(model)
    quantizer.add_static_config(
        _EVERYTHING,
        TFLOperationName.ALL_SUPPORTED,
        activation_num_bits=8,
        weight_num_bits=8,
        weight_granularity=_granularity(scheme.granularity),
    )
    for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        quantizer.update_quantization_recipe(_EVERYTHING, end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    return _quantized(quantizer, _statistics(model, calibration, scheme.granularity))


def weight_ranges(model: bytes, ranges: Ranges, granularity: Granularity) -> dict[str, np.ndarray]:
    """Chooses the range of each kernel's weights: their own, but wide enough that the bias fits 32 bits.

    An int32 bias counts in steps of input scale * weight scale. Where a channel's weights are all zero and only its
    bias is not (class channels that were never trained), the library takes a weight scale near 1e-11 and clips the
    bias. A floor under the scale leaves such weights at zero and the others untouched:

        |bias| / (input scale * range / 127) <= 2^30   =>   range >= 127 |bias| / (2^30 * input scale)

    Args:
        model: The float .tflite.
        ranges: Range of each activation, by tensor name.
        granularity: Whether each output channel has its own range.

    Returns:
        The greatest magnitude of the weights, by name of the weights' tensor, with all their axes kept at length 1
        but for the channels' if `per_channel`.
    """
    tree = read(model)
    # Tensors with equal content share a buffer, and the library quantizes a buffer once: so they share the range too.
    shared: dict[int, np.ndarray] = {}
    found = kernels(tree)
    for kernel in found:
        bound = np.maximum(_magnitudes(tree, kernel), _bias_floor(tree, kernel, ranges))
        bound = bound if granularity == "per_channel" else np.full_like(bound, bound.max())
        shared[kernel.weights.buffer] = np.maximum(bound, shared.get(kernel.weights.buffer, 0.0))
    return {text(kernel.weights.name): _spread(kernel, shared[kernel.weights.buffer], granularity) for kernel in found}


def _magnitudes(tree: Any, kernel: Kernel) -> np.ndarray:
    """Greatest weight of each output channel, (channels,) float32."""
    weights = np.frombuffer(constant(tree, kernel.weights) or b"", np.float32).reshape(kernel.weights.shape)
    others = tuple(axis for axis in range(weights.ndim) if axis != kernel.channel_axis)
    return np.abs(weights).max(axis=others)


def _bias_floor(tree: Any, kernel: Kernel, ranges: Ranges) -> np.ndarray:
    """Least weight range of each output channel with which its bias fits, (channels,) float32."""
    if kernel.bias is None:
        return np.zeros(kernel.channels, np.float32)
    bias = np.frombuffer(constant(tree, kernel.bias) or b"", np.float32)
    low, high = ranges[text(kernel.activations.name)]
    # Activations are asymmetric over 256 steps and their range holds zero.
    input_scale = max(max(high, 0.0) - min(low, 0.0), 1e-9) / 255
    return (127 * np.abs(bias) / (_BIAS_HALF_RANGE * input_scale)).astype(np.float32)


def _spread(kernel: Kernel, bound: np.ndarray, granularity: Granularity) -> np.ndarray:
    shape = [1] * len(kernel.weights.shape)
    if granularity == "per_channel":
        shape[kernel.channel_axis] = kernel.channels
    return np.resize(bound, shape) if granularity == "per_channel" else np.full(shape, bound.max(), np.float32)


def _statistics(model: bytes, ranges: Ranges, granularity: Granularity) -> dict[str, dict[str, np.ndarray]]:
    """The library's form of ranges, of activations and weights: arrays of the tensor's rank, by tensor name."""
    found = {}
    for tensor in read(model).subgraphs[0].tensors:
        if text(tensor.name) in ranges:
            low, high = (np.full([1] * len(tensor.shape), limit, np.float32) for limit in ranges[text(tensor.name)])
            found[text(tensor.name)] = {"min": low, "max": high}
    bounds = weight_ranges(model, ranges, granularity)
    return found | {name: {"min": -bound, "max": bound} for name, bound in bounds.items()}


def _granularity(granularity: Granularity) -> Any:
    from litert_quantizer.qtyping import QuantGranularity

    return {"per_channel": QuantGranularity.CHANNELWISE, "per_tensor": QuantGranularity.TENSORWISE}[granularity]


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


def _register(scheme: type[Scheme], build: Any, needs_calibration: bool = False) -> None:
    register(
        Builder(
            scheme=scheme,
            toolchain="litert_quantizer",
            runtime="litert",
            framework="tensorflow",
            build=build,
            calibrate=calibrate if needs_calibration else None,
            packages=_PACKAGES,
        )
    )


_register(Float16, build_float16)
_register(DynamicInt8, build_dynamic_int8)
_register(StaticInt8, build_static_int8, needs_calibration=True)
