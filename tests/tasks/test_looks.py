"""Looks: all together, they rarely end what is within the budget."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.average_precision import average_precision
from tasks.looks import FEW_IMAGES, spent_levels
from tasks.uncertainty import loss_interval
from tests.benchmarks.uncertainty import sample_matches

plans = st.integers(100, 10_000).flatmap(
    lambda images: st.tuples(
        st.lists(st.integers(20, images - 1), min_size=1, max_size=8, unique=True), st.just(images)
    )
)


@given(plans, st.floats(0.001, 0.49))
def test_every_level_is_one_that_an_interval_can_have(plan, error_rate):
    assert all(0 < level < 1 for level in spent_levels(*plan, error_rate))


@given(plans, st.floats(0.01, 0.2))
def test_a_lower_error_rate_asks_for_surer_looks(plan, error_rate):
    strict, lax = spent_levels(*plan, error_rate / 2), spent_levels(*plan, error_rate)
    assert all(one > other for one, other in zip(strict, lax, strict=True))


@given(plans)
def test_looks_at_more_of_the_images_need_not_be_as_sure(plan):
    """More of the truth itself has been seen."""
    sizes, images = sorted(plan[0]), plan[1]
    levels = spent_levels(sizes, images, 0.05)
    assert list(levels) == sorted(levels, reverse=True)


def test_one_look_at_few_of_many_images_has_the_error_rate_on_its_side():
    """Without the corrections: 5 % to one side are a two-sided 90 %."""
    (level,) = spent_levels([100 * FEW_IMAGES], 10**9, 0.05)
    assert level == pytest.approx(0.9, abs=2e-3)


def test_no_looks_need_no_levels():
    assert spent_levels([], 80, 0.05) == ()


@pytest.mark.parametrize(
    "wrong", [([80], 80, 0.05), ([0], 80, 0.05), ([40], 80, 0.0), ([40], 80, 0.5), ([90], 80, 0.05)]
)
def test_looks_at_everything_or_nothing_and_meaningless_error_rates_are_refused(wrong):
    with pytest.raises(ValueError, match="may not err in a share of"):
        spent_levels(*wrong)


def brownian_bridges(sizes: tuple[int, ...], images: int, count: int) -> np.ndarray:
    """(count, looks) how far the mean of each look is from that of all images, in standard errors of the bootstrap."""
    random = np.random.default_rng(0)
    walks = np.cumsum(random.normal(size=(count, images)), axis=1)
    seen = np.array(sizes)
    means = walks[:, seen - 1] / seen
    return (means - walks[:, -1:] / images) * np.sqrt(seen)


def test_means_of_nested_random_subsets_are_ended_wrongly_as_seldom_as_promised_and_not_much_seldomer():
    """The promise on normal data, where no correction for few images is needed: that one only lowers the rate."""
    sizes, images = (63, 125, 250, 500), 1000
    limits = [NormalDist().inv_cdf((1 + level) / 2) for level in spent_levels(sizes, images, 0.05)]
    wrong = (brownian_bridges(sizes, images, 4000) > limits).any(axis=1).mean()
    assert 0.02 < wrong < 0.05


def test_detectors_right_at_the_budget_are_seldom_ended_early_but_those_far_over_it_are():
    """Resampled sets of 160 synthetic images, budgets equal to the true loss and far below it."""
    random = np.random.default_rng(0)
    reference, variant = sample_matches(0.72, 1, images=60), sample_matches(0.69, 1, images=60)
    sizes, images = (40, 80), 160
    levels = spent_levels(sizes, images, 0.05)
    wrong = right = 0
    for _ in range(60):
        order = random.integers(60, size=images)
        everything = np.bincount(order, minlength=60)
        truth = average_precision(reference, everything) - average_precision(variant, everything)
        lows = [
            loss_interval(reference, variant, 100, level=level, weights=np.bincount(order[:size], minlength=60)).low
            for size, level in zip(sizes, levels, strict=True)
        ]
        wrong += max(lows) > truth
        right += max(lows) > truth - 0.05
    assert wrong <= 6
    assert right >= 50
