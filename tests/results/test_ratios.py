"""Ratios of what was measured of two variants."""

import math

import numpy as np
import pytest

from results.ratios import derived_ratio, ratios

COLUMNS = ("load_ms", "first_inference_ms", "peak_memory_bytes", "images_per_second", "size_bytes", "compressed_bytes")


def _row(value: float | None, host: str | None = "here") -> dict[str, float | str | None]:
    return {**dict.fromkeys(COLUMNS, value), "host": host}


def test_half_widths_in_logarithms_add_up_in_squares() -> None:
    ratio, low, high = derived_ratio(
        (0.5, 0.5 / math.exp(0.03), 0.5 * math.exp(0.03)), (0.4, 0.4 / math.exp(0.04), 0.4 * math.exp(0.04))
    )
    assert (ratio, math.log(high / ratio), math.log(ratio / low)) == pytest.approx((0.8, 0.05, 0.05))


def test_a_first_that_may_be_slower_makes_a_ratio_that_may_be_lower() -> None:
    ratio, low, high = derived_ratio((1.0, 1.0, 1.5), (1.0, 1.0, 1.0))
    assert (ratio, low, high) == pytest.approx((1.0, 1 / 1.5, 1.0))


def test_a_derived_interval_covers_the_truth_as_often_as_those_it_comes_from() -> None:
    random, spread = np.random.default_rng(0), np.array([0.02, 0.05])
    drawn = np.exp(np.log([0.5, 0.6]) + random.normal(scale=spread, size=(4000, 2)))
    ends = np.exp(1.96 * spread)
    found = [
        derived_ratio((one, one / ends[0], one * ends[0]), (other, other / ends[1], other * ends[1]))
        for one, other in drawn.tolist()
    ]
    assert np.mean([low <= 1.2 <= high for _, low, high in found]) == pytest.approx(0.95, abs=0.015)


def test_what_is_unknown_has_no_ratio_and_hosts_are_not_mixed() -> None:
    assert set(ratios(_row(6.0), _row(3.0)).values()) == {2.0}
    assert set(ratios(_row(None), _row(3.0)).values()) == {None}
    assert set(ratios(_row(6.0), _row(0.0)).values()) == {None}
    elsewhere = ratios(_row(6.0), _row(3.0, "there"))
    assert {name for name, value in elsewhere.items() if value is not None} == {"size_ratio", "compressed_ratio"}
