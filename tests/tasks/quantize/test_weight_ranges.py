"""The algorithms that choose the range of weights do what they say, on the weights of every kernel."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.quantize.clipping import limits, min_max, mse, octav, squared_errors
from tasks.quantize.flatbuffer import read, scales
from tasks.quantize.kernels import kernels, weights_of
from tasks.quantize.schemes import (
    DynamicInt4,
    DynamicInt8,
    Scheme,
    StaticInt4,
    StaticInt8,
    StaticInt8x16,
    WeightOnlyInt4,
    WeightOnlyInt8,
)

INTEGER: list[Any] = [
    WeightOnlyInt8(),
    WeightOnlyInt4(),
    DynamicInt8(toolchain="litert_quantizer"),
    DynamicInt4(),
    StaticInt8(toolchain="litert_quantizer", calibration_images=4),
    StaticInt4(calibration_images=4),
    StaticInt8x16(toolchain="litert_quantizer", calibration_images=4),
]
every_scheme = pytest.mark.parametrize("scheme", INTEGER, ids=lambda scheme: scheme.name)
every_granularity = pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
every_width = pytest.mark.parametrize("bits", [4, 8])


def laplacian(channels: int = 16, size: int = 4000) -> np.ndarray:
    """Weights with long tails, and one channel of zeros."""
    weights = np.random.default_rng(0).laplace(size=(channels, size)).astype(np.float32)
    weights[3] = 0
    return weights


def dequantized(data: bytes) -> list[np.ndarray]:
    """(channels, weights of one) of each kernel as the runtime sees them."""
    model = read(data)
    return [weights_of(model, kernel) * scales(kernel.weights).reshape(-1, 1) for kernel in kernels(model)]


def by_brute_force(errors: Callable[[np.ndarray], np.ndarray], greatest: np.ndarray) -> np.ndarray:
    """The least error over 400 bounds."""
    tries = [errors((greatest * share).astype(np.float32)) for share in np.linspace(0.02, 1, 400)]
    return np.min(tries, axis=0)


@every_width
def test_min_max_clips_nothing(bits: int) -> None:
    weights = laplacian()
    assert (min_max(weights, bits) == np.abs(weights).max(axis=1)).all()


@every_width
def test_mse_finds_the_least_squared_error(bits: int) -> None:
    weights = laplacian()
    found = squared_errors(weights, bits, mse(weights, bits))
    least = by_brute_force(lambda bound: squared_errors(weights, bits, bound), min_max(weights, bits))
    assert (found <= least * 1.02).all()


@every_width
@pytest.mark.parametrize("size", [1, 9, 27, 500])
def test_mse_is_never_worse_than_min_max(bits: int, size: int) -> None:
    weights = laplacian(64, size)
    errors = squared_errors(weights, bits, mse(weights, bits))
    assert (errors <= squared_errors(weights, bits, min_max(weights, bits))).all()


@every_width
def test_octav_solves_its_equation(bits: int) -> None:
    weights = laplacian()

    def expected_error(bound: np.ndarray) -> np.ndarray:
        magnitudes, bounds = np.abs(weights).astype(np.float64), bound[:, None].astype(np.float64)
        rounding = bounds**2 * 4.0**-bits / 3
        return np.where(magnitudes > bounds, (magnitudes - bounds) ** 2, rounding).mean(axis=1)

    least = by_brute_force(expected_error, min_max(weights, bits))
    assert (expected_error(octav(weights, bits)) <= least * 1.001).all()


@every_width
@pytest.mark.parametrize("algorithm", [min_max, mse, octav])
def test_a_channel_of_zeros_has_no_range(algorithm: Any, bits: int) -> None:
    assert algorithm(laplacian(), bits)[3] == 0


@every_scheme
@every_granularity
def test_the_algorithm_acts_on_every_kernel(
    scheme: Any, granularity: str, source: Callable[..., bytes], built: Callable[[Scheme], bytes]
) -> None:
    model = read(source())
    widths = [4 if "int4" in scheme.name and kernel.operator == "CONV_2D" else 8 for kernel in kernels(model)]
    original = [weights_of(model, kernel) for kernel in kernels(model)]
    errors = {}
    for algorithm in ("min_max", "mse", "octav"):
        stored = dequantized(built(replace(scheme, granularity=granularity, weight_algorithm=algorithm)))
        errors[algorithm] = [
            float(((one - other) ** 2).sum(dtype=np.float64)) for one, other in zip(stored, original, strict=True)
        ]
        choose = {"min_max": min_max, "mse": mse, "octav": octav}[algorithm]
        for weights, bits, found in zip(original, widths, errors[algorithm], strict=True):
            rows = weights if granularity == "per_channel" else weights.reshape(1, -1)
            wanted = float(squared_errors(rows, bits, choose(rows, bits)).sum(dtype=np.float64))
            assert found == pytest.approx(wanted, rel=1e-3)
    assert all(one <= other * 1.001 for one, other in zip(errors["mse"], errors["min_max"], strict=True))
    for operator in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        positions = [position for position, kernel in enumerate(kernels(model)) if kernel.operator == operator]
        totals = {name: sum(errors[name][position] for position in positions) for name in errors}
        assert totals["mse"] < totals["min_max"]
        assert len(set(totals.values())) == 3


@every_scheme
def test_stored_weights_stay_within_their_limits(scheme: Any, built: Callable[[Scheme], bytes]) -> None:
    model = read(built(replace(scheme, weight_algorithm="octav")))
    for kernel in kernels(model):
        least, greatest = limits(4 if "int4" in scheme.name and kernel.operator == "CONV_2D" else 8)
        stored = weights_of(model, kernel)
        assert least <= stored.min() and stored.max() <= greatest
