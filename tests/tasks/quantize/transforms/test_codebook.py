"""A codebook is nearly the best one of its size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasks.quantize.transforms.codebook import codebook, nearest

_random = np.random.default_rng(0)
SAMPLES = {
    "normal": _random.standard_normal(900),
    "few large among many small": _random.standard_t(2, 900),
    "even": _random.random(900),
    "two heaps": np.concatenate([_random.normal(-3, 0.1, 300), _random.normal(3, 0.5, 600)]),
    "steps": np.round(_random.standard_normal(900) * 40) / 40,
}


def error_of(values: np.ndarray, codes: np.ndarray) -> float:
    return float(((nearest(values, codes).astype(np.float64) - values) ** 2).sum())


def least_error(values: np.ndarray, size: int) -> float:
    """The best error of `size` ranges of the sorted values, by trying all."""
    points, counts = np.unique(values.astype(np.float64), return_counts=True)
    count, first, second = (np.append(0, np.cumsum(x)) for x in (counts, counts * points, counts * points**2))
    start, end = np.ogrid[: len(points) + 1, : len(points) + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        alone = second[end] - second[start] - (first[end] - first[start]) ** 2 / (count[end] - count[start])
    alone = np.where(start < end, alone, np.inf)
    best = alone[0]
    for _ in range(size - 1):
        best = (best[:, None] + alone).min(axis=0)
    return float(best[-1])


@pytest.mark.parametrize("size", [2, 8, 32, 128])
@pytest.mark.parametrize("name", SAMPLES)
def test_its_error_is_within_one_percent_of_the_least(name: str, size: int) -> None:
    values = SAMPLES[name].astype(np.float32)
    codes = codebook(values, size)
    assert len(codes) <= size
    assert error_of(values, codes) <= 1.01 * least_error(values, size) + 1e-9


numbers = arrays(
    np.float32, st.integers(1, 60), elements=st.floats(-1e3, 1e3, width=32, allow_nan=False, allow_subnormal=False)
)


@settings(deadline=None, max_examples=60)
@given(numbers, st.sampled_from([1, 2, 3, 16, 256]))
def test_few_values_stand_for_all(values: np.ndarray, size: int) -> None:
    codes = codebook(values, size)
    assert codes.dtype == np.float32
    assert 1 <= len(codes) <= size
    assert (np.diff(codes) > 0).all()
    assert values.min() <= codes[0] and codes[-1] <= values.max()
    if len(np.unique(values)) <= size:
        np.testing.assert_array_equal(nearest(values, codes), values)


@settings(deadline=None, max_examples=60)
@given(numbers, st.sampled_from([2, 5, 16]))
def test_each_value_goes_to_a_nearest_code(values: np.ndarray, size: int) -> None:
    codes = codebook(values, size)
    distance = np.abs(values.astype(np.float64)[:, None] - codes.astype(np.float64))
    taken = np.abs(values.astype(np.float64) - nearest(values, codes).astype(np.float64))
    np.testing.assert_array_equal(taken, distance.min(axis=1))


def test_a_million_weights_take_a_moment_and_more_codes_err_less() -> None:
    values = np.random.default_rng(1).standard_normal(1_000_000).astype(np.float32)
    errors = [error_of(values, codebook(values, size)) for size in (2, 4, 16)]
    assert errors[0] > errors[1] > errors[2]
    # The least error of a normal distribution: Max 1960, "Quantizing for minimum distortion", table I.
    np.testing.assert_allclose(np.array(errors) / len(values), [0.3634, 0.1175, 0.009497], rtol=0.01)
