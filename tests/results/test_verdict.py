"""Sentences on which of two variants is faster."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.verdict import Evidence, difference, verdict

FASTER = Evidence(1.12, 1.10, 1.14, "timed in turn")
SLOWER = Evidence(0.90, 0.85, 0.95, "timed beside the reference")


@pytest.mark.parametrize(
    ("ratio", "low", "high", "sentence"),
    [
        (1.123, 1.101, 1.144, "A is 12.3 % faster than B [10.1, 14.4]"),
        (0.8, 0.75, 0.85, "B is 25.0 % faster than A [17.6, 33.3]"),
        (20.0, 19.0, 21.0, "A is 20.00 times as fast as B [19.00, 21.00]"),
        (0.25, 0.2, 0.3, "B is 4.00 times as fast as A [3.33, 5.00]"),
        (1.01, 0.99, 1.03, "no difference can be told: B takes 0.990 to 1.030 of the time of A"),
        (1.01, 1.0, 1.03, "no difference can be told: B takes 1.000 to 1.030 of the time of A"),
    ],
)
def test_a_difference_is_a_speed_with_its_interval_or_cannot_be_told(
    ratio: float, low: float, high: float, sentence: str
) -> None:
    assert difference("A", "B", ratio, low, high) == sentence


@given(st.floats(0.01, 100), st.floats(0.001, 0.5))
def test_who_is_named_first_does_not_matter(ratio: float, width: float) -> None:
    low, high = ratio * (1 - width), ratio / (1 - width)
    one = difference("A", "B", ratio, low, high)
    other = difference("B", "A", 1 / ratio, 1 / high, 1 / low)
    if one.startswith("no difference"):
        assert other.startswith("no difference")
    else:
        assert one.split()[0] == other.split()[0] == ("A" if ratio > 1 else "B")


def test_the_best_evidence_is_what_counts() -> None:
    told = verdict("A", "B", [FASTER, SLOWER])
    assert told == "A is 12.0 % faster than B [10.0, 14.0] (timed in turn)"


def test_noise_makes_no_winner_and_is_told() -> None:
    noisy = Evidence(1.5, 1.4, 1.6, "timed in turn", "others used 50%")
    assert verdict("A", "B", [noisy]) == "no difference can be told: noisy when timed in turn: others used 50%"
    told = verdict("A", "B", [noisy, SLOWER])
    assert told.startswith("B is 11.1 % faster than A [5.3, 17.6] (timed beside the reference; noisy when timed in")
    both = verdict("A", "B", [noisy, Evidence(0.5, 0.4, 0.6, "timed beside the reference", "steal")])
    assert both.startswith("no difference can be told: noisy when timed in turn: others used 50%; noisy when timed b")


def test_without_evidence_the_reason_is_told() -> None:
    assert verdict("A", "B", [], "A has no latency") == "no difference can be told: A has no latency"
