"""Clipping: how far the weights of a channel reach before they are cut off, by algorithm."""

from collections.abc import Callable

import numpy as np

_COARSE = 2.0 ** (-np.arange(21) / 4)
"""Shares of the greatest magnitude that the first pass of the search tries: 1 to 1/32."""

_FINE = [2.0 ** (np.array([-3, -2, -1, 1, 2, 3]) / steps) for steps in (16, 64, 256)]
"""What each further pass multiplies the best of them by: the steps between it and its neighbours."""

_ITERATIONS = 50
_TOLERANCE = 1e-5


def min_max(weights: np.ndarray, bits: int) -> np.ndarray:
    """Takes the greatest magnitude: nothing is cut off.

    Args:
        weights: (channels, weights of one) float32.
        bits: Width of a quantized weight; of no matter here.

    Returns:
        (channels,) float32, the bound of each channel's weights on both sides of zero.
    """
    return np.abs(weights).max(axis=1)


def mse(weights: np.ndarray, bits: int) -> np.ndarray:
    """Searches for the bound with the least squared error of the weights, rounded and clipped as they will be.

    Source of the idea: Choukroun et al. 2019, "Low-bit Quantization of Neural Networks for Efficient Inference"; the
    search is ours, over shares of the greatest magnitude, which is among them: it is never worse than `min_max`.

    Args:
        weights: (channels, weights of one) float32.
        bits: Width of a quantized weight.

    Returns:
        (channels,) float32, the bounds.
    """
    greatest = min_max(weights, bits)
    best, least = greatest, np.full(len(weights), np.inf, np.float32)
    for share in _COARSE:
        best, least = _better(weights, bits, (greatest * share).astype(np.float32), best, least)
    for factors in _FINE:
        centre = best
        for factor in factors:
            best, least = _better(weights, bits, np.minimum(centre * factor, greatest).astype(np.float32), best, least)
    return best


def octav(weights: np.ndarray, bits: int) -> np.ndarray:
    """Solves for the bound with the least expected error: of rounding below it, and of clipping above it.

    Source: Sakr et al. 2022, "Optimal Clipping and Magnitude-aware Differentiation for Improved Quantization-aware
    Training", equation 6, Newton's method on s^2 4^-B / 3 P(|w| <= s) + E[(|w| - s)^2; |w| > s].

    Args:
        weights: (channels, weights of one) float32.
        bits: Width of a quantized weight.

    Returns:
        (channels,) float32, the bounds.
    """
    magnitudes, rounding = np.abs(weights), 4.0**-bits / 3
    bound = np.zeros(len(weights), np.float32)
    for _ in range(_ITERATIONS):
        above = magnitudes > bound[:, None]
        clipped = above.sum(axis=1)
        total = np.sum(magnitudes, axis=1, where=above, dtype=np.float32)
        following = (total / (rounding * (weights.shape[1] - clipped) + clipped)).astype(np.float32)
        if np.allclose(following, bound, rtol=_TOLERANCE, atol=0):
            break
        bound = following
    return bound


CLIPPINGS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {"min_max": min_max, "mse": mse, "octav": octav}
"""The algorithms that choose a bound, by the name of the axis `weight_algorithm`."""


def limits(bits: int) -> tuple[int, int]:
    """Returns the least and the greatest quantized weight.

    litert-quantizer leaves out the least integer of 8 bits, which LiteRT's kernels rely on, but not of fewer
    (`uniform_quantize` in its uniform_quantize_tensor.py).

    Args:
        bits: Width of a quantized weight.

    Returns:
        (-127, 127) of 8 bits, (-8, 7) of 4.
    """
    greatest = 2 ** (bits - 1) - 1
    return (-greatest if bits >= 8 else -greatest - 1), greatest


def squared_errors(weights: np.ndarray, bits: int, bound: np.ndarray) -> np.ndarray:
    """Measures what quantization over a bound does to weights.

    Args:
        weights: (channels, weights of one) float32.
        bits: Width of a quantized weight.
        bound: (channels,) float32.

    Returns:
        (channels,) float32, the sum of squared differences of each channel.
    """
    least, greatest = limits(bits)
    step = np.where(bound > 0, bound / np.float32(greatest), np.float32(1))[:, None]
    values = weights / step
    np.rint(values, out=values)
    np.clip(values, least, greatest, out=values)
    values *= step
    values -= weights
    np.square(values, out=values)
    return values.sum(axis=1)


def _better(
    weights: np.ndarray, bits: int, bound: np.ndarray, best: np.ndarray, least: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    errors = squared_errors(weights, bits, bound)
    wins = errors < least
    return np.where(wins, bound, best), np.where(wins, errors, least)
