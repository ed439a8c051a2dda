import pytest

from orchestrator.search.candidate import Ask, Candidate
from orchestrator.search.objectives import VALUES, LeastLatency, Pareto, objective_of
from tasks.types import Artifact, LossInterval
from tests.orchestrator.search.fake_laboratory import AUDIT, latency, variant


def candidate(ratio: float, half_width: float = 0.0, loss: float | None = None, doubt: float = 0.0, size: int = 1):
    interval = None if loss is None else LossInterval(loss, loss - doubt, loss + doubt, 0.95, 200, 0, 80)
    artifact = Artifact("0" * 64, "tflite", size, size, "0" * 64, AUDIT)
    return Candidate(Ask(0, variant(0)), artifact, latency(ratio, half_width), interval=interval)


def test_the_latency_alone_gives_up_whatever_is_not_faster_than_the_fastest():
    rivals = [candidate(0.5), candidate(0.3), candidate(0.4)]

    assert LeastLatency().beaten_by(candidate(0.35), rivals) is rivals[1]
    assert LeastLatency().beaten_by(candidate(0.3), rivals) is rivals[1]
    assert LeastLatency().beaten_by(candidate(0.29), rivals) is None
    assert LeastLatency().beaten_by(candidate(0.29), []) is None


def test_several_values_give_up_only_what_is_surely_behind_in_all_of_them():
    both, rival = Pareto(("latency", "ap_loss")), candidate(0.3, 0.01, loss=0.01)

    assert both.beaten_by(candidate(0.4, 0.01, loss=0.05, doubt=0.03), [rival]) is rival
    assert both.beaten_by(candidate(0.31, 0.01, loss=0.05, doubt=0.03), [rival]) is None, "latencies overlap"
    assert both.beaten_by(candidate(0.4, 0.01, loss=0.05, doubt=0.05), [rival]) is None, "the loss may be as small"
    assert both.beaten_by(candidate(0.2, 0.01, loss=0.9), [rival]) is None, "it is faster"


def test_a_loss_that_is_not_known_yet_may_be_the_smallest():
    assert Pareto(("latency", "ap_loss")).beaten_by(candidate(0.9), [candidate(0.3, loss=0.0)]) is None


def test_a_size_is_known_exactly_so_that_an_equal_one_is_no_reason_to_go_on():
    both, rival = Pareto(("latency", "size")), candidate(0.3, 0.01, size=5)

    assert both.beaten_by(candidate(0.4, 0.01, size=5), [rival]) is rival
    assert both.beaten_by(candidate(0.4, 0.01, size=4), [rival]) is None


def test_values_of_a_candidate():
    found = candidate(0.4, loss=0.02, size=7)

    assert {name: value(found) for name, value in VALUES.items()} == {"latency": 0.4, "ap_loss": 0.02, "size": 7.0}


@pytest.mark.parametrize("names", [("latency",), ("latency", "ap_loss"), ("ap_loss", "size")])
def test_an_objective_knows_its_names(names):
    assert objective_of(names).names == names
    assert isinstance(objective_of(names), LeastLatency if names == ("latency",) else Pareto)
