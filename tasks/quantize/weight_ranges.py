"""Weight ranges: what the weights of each kernel are quantized over."""

from functools import lru_cache
from typing import Any

import numpy as np

from tasks.quantize.clipping import CLIPPINGS, limits
from tasks.quantize.flatbuffer import constant, read, text
from tasks.quantize.kernels import Kernel, kernels, weights_of
from tasks.quantize.ranges import Ranges
from tasks.quantize.recipe import Recipe
from tasks.quantize.schemes import Granularity

_BIAS_HALF_RANGE = 2**30
"""Greatest magnitude of a quantized bias: half of int32, so that the sum of products has the other half. The margin
is that of TensorFlow's first quantizer: tensorflow/lite/tools/optimize/quantization_utils.cc,
`AdjustWeightsForBiasScale`."""


def weight_ranges(model: bytes, recipe: Recipe, ranges: Ranges) -> dict[str, np.ndarray]:
    """Chooses the range of each kernel's weights: by the recipe's algorithm, but wide enough that the bias fits.

    An integer bias counts in steps of input scale * weight scale. Where a channel's weights are all zero and only its
    bias is not (class channels that were never trained), the library takes a weight scale near 1e-11 and clips the
    bias. A floor under the scale leaves such weights at zero and the others untouched:

        |bias| / (input scale * range / greatest weight) <= 2^30
            =>   range >= greatest weight * |bias| / (2^30 * input scale),   greatest weight 127 or 7

    The same holds beside 16-bit activations: the library clips their biases to 32 bits before it stores them in 64.

    Args:
        model: The float .tflite.
        recipe: How it is quantized.
        ranges: Range of each activation, by tensor name; empty if the recipe does not quantize them.

    Returns:
        The greatest magnitude of the weights, by name of the weights' tensor, with all their axes kept at length 1
        but for the channels' if `per_channel`.
    """
    tree, found = _kernels(model)
    clipped = _clipped(model, recipe.weight_algorithm, recipe.granularity, recipe.weight_bits, recipe.depthwise_bits)
    # Tensors with equal content share a buffer, and the library quantizes a buffer once: so they share the range too.
    shared: dict[int, np.ndarray] = {}
    for kernel, bound in zip(found, clipped, strict=True):
        floor = _bias_floor(tree, kernel, recipe, ranges)
        wanted = np.maximum(bound, floor if recipe.granularity == "per_channel" else floor.max())
        shared[kernel.weights.buffer] = np.maximum(wanted, shared.get(kernel.weights.buffer, 0.0))
    return {text(kernel.weights.name): _spread(kernel, shared[kernel.weights.buffer]) for kernel in found}


@lru_cache(maxsize=2)
def _kernels(model: bytes) -> tuple[Any, tuple[Kernel, ...]]:
    tree = read(model)
    return tree, kernels(tree)


@lru_cache(maxsize=16)
def _clipped(
    model: bytes, algorithm: str, granularity: Granularity, weight_bits: int, depthwise_bits: int
) -> tuple[np.ndarray, ...]:
    """Bounds of each kernel's weights, (channels,) or (1,); the same for all calibrations of a model."""
    tree, found = _kernels(model)
    # GPTQ and OSCAR take no ranges, and the library starts from the weights' own where it falls back.
    clip = CLIPPINGS.get(algorithm, CLIPPINGS["min_max"])
    bounds = []
    for kernel in found:
        weights = weights_of(tree, kernel)
        rows = weights if granularity == "per_channel" else weights.reshape(1, -1)
        bounds.append(clip(rows, depthwise_bits if kernel.operator == "DEPTHWISE_CONV_2D" else weight_bits))
    return tuple(bounds)


def _bias_floor(tree: Any, kernel: Kernel, recipe: Recipe, ranges: Ranges) -> np.ndarray:
    """Least weight range of each output channel with which its bias fits, (channels,) float32."""
    if kernel.bias is None or not recipe.is_static:
        return np.zeros(kernel.channels, np.float32)
    bias = np.frombuffer(constant(tree, kernel.bias) or b"", np.float32)
    _, greatest = limits(recipe.depthwise_bits if kernel.operator == "DEPTHWISE_CONV_2D" else recipe.weight_bits)
    input_scale = recipe.activation_scale(*ranges[text(kernel.activations.name)])
    return (greatest * np.abs(bias) / (_BIAS_HALF_RANGE * input_scale)).astype(np.float32)


def _spread(kernel: Kernel, bound: np.ndarray) -> np.ndarray:
    shape = [1] * len(kernel.weights.shape)
    shape[kernel.channel_axis] = len(bound)
    return bound.reshape(shape)
