"""Ratios of times: what an interval promises, and that it keeps it where processes differ by chance."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tasks.latency.ratio import LEVEL, QUANTILE, Round, _t_quantile, ratio_of

TIMES = st.floats(0.01, 1e4)
ROUNDS = st.lists(
    st.lists(st.tuples(TIMES, TIMES), min_size=1, max_size=6).map(tuple), min_size=2, max_size=8
).map(tuple)  # fmt: skip

PROCESS_EFFECT = 0.008
"""Standard deviation of the log time that a process has for as long as it lives."""

PAIR_NOISE = 0.02
"""Standard deviation of the log ratio of one pair."""


def simulated(random: np.random.Generator, rounds: int, pairs: int) -> np.ndarray:
    """Log ratios (rounds, pairs) of an artifact beside itself: each round has two processes of its own."""
    luck = random.normal(0, PROCESS_EFFECT, (rounds, 2)) @ [1, -1]
    return luck[:, None] + random.normal(0, PAIR_NOISE, (rounds, pairs))


def as_rounds(logs: np.ndarray) -> tuple[Round, ...]:
    return tuple(tuple((1.0, math.exp(value)) for value in each) for each in logs.tolist())


@given(ROUNDS)
def test_the_interval_holds_the_estimate(rounds):
    found = ratio_of(rounds)
    assert 0 <= found.low <= found.ratio <= found.high


@given(ROUNDS, st.floats(1e-3, 1e3))
def test_the_unit_of_time_does_not_matter(rounds, unit):
    found, other = ratio_of(rounds), ratio_of(tuple(tuple((a * unit, b * unit) for a, b in each) for each in rounds))
    assert [other.ratio, other.low, other.high] == pytest.approx([found.ratio, found.low, found.high], rel=1e-9)


@given(ROUNDS)
def test_the_other_way_round_it_is_the_inverse(rounds):
    found, other = ratio_of(rounds), ratio_of(tuple(tuple((b, a) for a, b in each) for each in rounds))
    # To rounding: the logarithm of b / a is not to the bit that of a / b with another sign. Ends may be beyond floats.
    logs = [math.log(found.ratio), math.log(max(found.low, 1e-300)), math.log(min(found.high, 1e300))]
    inverse = [-math.log(other.ratio), -math.log(min(other.high, 1e300)), -math.log(max(other.low, 1e-300))]
    assert inverse == pytest.approx(logs, rel=1e-9, abs=1e-9)


@given(ROUNDS, st.randoms(use_true_random=False))
def test_the_order_of_rounds_and_of_their_pairs_does_not_matter(rounds, random):
    mixed = [list(each) for each in rounds]
    random.shuffle(mixed)
    for each in mixed:
        random.shuffle(each)
    found, other = ratio_of(rounds), ratio_of(tuple(map(tuple, mixed)))
    assert [other.ratio, other.low, other.high] == pytest.approx([found.ratio, found.low, found.high], rel=1e-9)


@given(st.lists(st.tuples(TIMES, TIMES), min_size=1, max_size=9).map(tuple))
def test_one_round_bounds_nothing(each):
    found = ratio_of((each,))
    assert (found.low, found.high, found.half_width) == (0, math.inf, math.inf)


@settings(max_examples=30)
@given(st.floats(0.1, 10), st.integers(2, 9))
def test_rounds_that_agree_leave_no_doubt(ratio, count):
    found = ratio_of((((2.0, 2 * ratio),),) * count)
    assert [found.low, found.ratio, found.high] == pytest.approx([ratio] * 3)
    assert found.half_width == pytest.approx(0, abs=1e-12)


def test_half_the_width_is_a_share_of_the_ratio():
    found = ratio_of((((10.0, 20.0),), ((10.0, 21.0),)))
    assert found.half_width == pytest.approx((found.high - found.low) / 2 / found.ratio)
    tenfold = ratio_of((((1.0, 20.0),), ((1.0, 21.0),)))
    assert tenfold.half_width == pytest.approx(found.half_width)


def test_a_stray_pair_does_not_move_a_round():
    steady = ((10.0, 12.0),) * 4
    assert ratio_of(((*steady, (10.0, 500.0)),) * 3).ratio == pytest.approx(1.2)


@pytest.mark.parametrize("freedom", [*range(1, 41), 60, 100, 1000])
def test_the_quantiles_are_those_of_students_distribution(freedom):
    assert _t_quantile(freedom) == pytest.approx(stats.t.ppf(QUANTILE, freedom), rel=1e-4)


def test_the_interval_covers_the_truth_as_often_as_it_says_though_its_width_ends_the_measurement():
    random = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        rounds = as_rounds(simulated(random, rounds=14, pairs=8))
        founds = (ratio_of(rounds[:count]) for count in range(6, 15))
        found = next((each for each in founds if each.half_width <= 0.01), ratio_of(rounds))
        held += found.low <= 1 <= found.high
    assert LEVEL - 0.02 < held / 1000 < LEVEL + 0.02


def test_resampling_pairs_would_promise_too_much():
    """The textbook's way: a percentile bootstrap over all pairs, as if one process did not make them alike."""
    random = np.random.default_rng(0)
    logs = np.stack([simulated(random, rounds=8, pairs=8).ravel() for _ in range(500)])
    drawn = random.integers(logs.shape[1], size=(300, logs.shape[1]))
    medians = np.stack([np.median(each[drawn], axis=1) for each in logs])
    low, high = np.percentile(medians, [2.5, 97.5], axis=1)
    assert ((low <= 0) & (high >= 0)).mean() < 0.88
