"""Promise: which trainings are ended early."""

from orchestrator.search.promise import why_unpromising
from tests.orchestrator.search.fake_laboratory import progress


def test_a_training_that_gets_better_goes_on():
    assert why_unpromising(progress(1.0, 0.9, 0.8, 0.7, 0.6, steps=8)) is None


def test_nothing_is_judged_before_the_first_update_or_after_the_last():
    assert why_unpromising(progress(1.0, steps=8)) is None
    assert why_unpromising(progress(1.0, 9.0, 9.0)) is None


def test_a_training_that_diverges_ends_after_an_eighth():
    assert "diverges" in (why_unpromising(progress(1.0, 2.1, steps=8)) or "")
    assert why_unpromising(progress(1.0, 2.1, steps=16)) is None
    assert why_unpromising(progress(1.0, 1.9, steps=8)) is None


def test_where_rounding_costs_next_to_nothing_a_bump_is_no_divergence():
    """Measured: the demo detector, 8-bit weights per tensor, distilled at a peak rate of 1e-3; it ends at .59 of it."""
    assert why_unpromising(progress(0.0436, 0.087, 0.1034, 0.09, 0.05, steps=8)) is None
    assert "diverges" in (why_unpromising(progress(0.0436, 2.1, steps=8)) or "")
    assert why_unpromising(progress(0.0, 0.1, steps=8)) is None


def test_a_training_that_was_never_better_than_untrained_weights_ends_after_three_quarters():
    never = (1.0, 1.1, 1.2, 1.1, 1.1, 1.1, 1.1)
    assert why_unpromising(progress(*never[:-1], steps=8)) is None
    assert "never below the 1.000" in (why_unpromising(progress(*never, steps=8)) or "")
    assert why_unpromising(progress(1.0, 1.1, 0.99, *never[3:], steps=8)) is None


def test_a_training_worse_than_the_median_of_three_others_ends_after_a_quarter():
    others = [progress(1.0, first, 0.4, 0.3, 0.2) for first in (0.5, 0.6, 0.8)]
    slow = progress(1.0, 0.9, 0.9, steps=8)
    assert "above the median of 3 other trainings, 0.600" in (why_unpromising(slow, others) or "")
    assert why_unpromising(slow, others[:2]) is None
    assert why_unpromising(progress(1.0, 0.7, 0.59, steps=8), others) is None


def test_others_count_from_where_they_have_come_so_far_and_by_what_they_had_then():
    behind = progress(1.0, 0.1, steps=100)
    late = progress(1.0, 0.95, 0.95, 0.95, 0.1)
    slow = progress(1.0, 0.9, 0.9, steps=8)
    assert why_unpromising(slow, [behind, behind, behind]) is None
    assert why_unpromising(slow, [late, late, late]) is None
