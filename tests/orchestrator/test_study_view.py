"""What a person sees while a search runs."""

import io

import pytest
from rich.console import Console

from orchestrator.budget import Budget
from orchestrator.search.candidate import Ask, Candidate
from orchestrator.search.stops import StopRules
from orchestrator.study_view import (
    Leader,
    LiveSearchView,
    PlainSearchView,
    SearchView,
    Standing,
    open_search_view,
    rows_of,
)
from tasks.quantize.schemes import StaticInt8
from tasks.types import LossInterval, RuntimeSettings, Variant, Verdict, VerdictKind
from tests.results import samples


class _Time:
    """A clock that tests set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def _candidate(number: int, is_warm: bool = False) -> Candidate:
    return Candidate(Ask(number, Variant(StaticInt8(), RuntimeSettings(threads=number + 1)), is_warm))


def _decide(view: SearchView, candidate: Candidate, kind: VerdictKind, ratio: float) -> None:
    candidate.artifact, candidate.latency = samples.artifact("a"), samples.latency(ratio)
    candidate.interval = LossInterval(0.004, -0.01, 0.02, 0.95, 100, 0, 80)
    candidate.verdict = Verdict(kind, 80, 80, candidate.interval, "loses 0.0040 on all 80 images")
    view.settled(candidate)


def _standing(clock: _Time, **limits: object) -> Standing:
    return Standing("fast", 20, Budget("AP", 0.01, False), StopRules(**limits), clock=clock)


def _search(view: SearchView, clock: _Time) -> None:
    """Two verdicts, the first of which is the best; three in flight at different stages."""
    candidates = [_candidate(number) for number in range(5)]
    view.stages.began(20, 0, 80)
    view.stages.stage("preparing images")
    for candidate in candidates:
        view.asked(candidate)
    view.stages.inferred(160)
    clock.now = 40.0
    _decide(view, candidates[0], "feasible", 0.5)
    _decide(view, candidates[1], "infeasible", 0.4)
    candidates[2].artifact, candidates[2].latency = samples.artifact("b"), samples.latency(0.6)
    candidates[3].artifact = samples.artifact("c")
    for candidate in candidates[2:4]:
        view.noted(candidate)


def test_plain_lines_tell_each_verdict_and_each_improvement(capsys):
    clock = _Time()
    view = PlainSearchView(_standing(clock))
    _search(view, clock)
    better = _candidate(9)
    view.asked(better)
    _decide(view, better, "feasible", 0.3)
    view.confirmed(better)
    view.stopped("3 trials, as many as the study may have")
    view.close()
    lines = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    first, second, third = (f"litert-static_int8-converter-per_channel-cal64-seed0-t{count}" for count in (1, 2, 10))
    assert lines == [
        "a space of 20 variants, on 80 images",
        "preparing images",
        f"1/20 {first}: feasible: loses 0.0040 on all 80 images",
        f"best so far: {first}: 0.500 of float32's time, loss +0.0040",
        f"2/20 {second}: infeasible: loses 0.0040 on all 80 images",
        f"3/20 {third}: feasible: loses 0.0040 on all 80 images",
        f"best so far: {third}: 0.300 of float32's time, loss +0.0040",
        f"measured again and confirmed: {third}: 0.300 of float32's time, loss +0.0040",
        "no more variants are asked for: 3 trials, as many as the study may have",
    ]


def test_the_live_view_shows_the_best_what_was_spent_and_what_is_in_flight():
    clock, stream = _Time(), io.StringIO()
    view = LiveSearchView(
        _standing(clock, trials=10, images=8000), Console(file=stream, force_terminal=True, width=160)
    )
    _search(view, clock)
    shown = dict(rows_of(view.standing))
    view.close()
    assert shown == {
        "fast": "20 variants, AP loss <= 0.01; preparing images",
        "best": "litert-static_int8-converter-per_channel-cal64-seed0-t1: 0.500 of float32's time, loss +0.0040",
        "spent": "5 of 10 trials, 40 s, 160 of 8,000 images; 4 images/s",
        "verdicts": "1 feasible, 1 infeasible",
        "in flight": "3: 1 to be scored, 1 to be timed, 1 to be built",
        "left": "at most about 160 s left: 10 trials",
    }
    written = stream.getvalue()
    assert "2/20 litert-static_int8" in written
    assert "in flight" in written


def test_a_view_that_is_closed_leaves_no_table_running():
    view = LiveSearchView(_standing(_Time()), Console(file=io.StringIO(), force_terminal=True))
    view.close()
    assert not view._live.is_started


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({}, "at most about 360 s left: then every variant is decided"),
        ({"seconds": 100.0}, "at most about 60 s left: then its time is over"),
        ({"images": 240}, "at most about 20 s left: 240 images"),
        ({"trials": 6}, "at most about 80 s left: 6 trials"),
        ({"patience": 3}, "at most about 40 s left: unless a better one is found"),
    ],
)
def test_the_time_left_is_that_of_the_rule_that_ends_it_first(limits, left):
    clock = _Time()
    view = PlainSearchView(_standing(clock, **limits))
    _search(view, clock)
    assert view.standing.left() == left


def test_before_the_first_verdict_there_is_no_pace_to_go_by():
    assert _standing(_Time(), trials=10, patience=5).left() is None


def test_a_candidate_that_was_known_before_is_no_trial():
    standing = _standing(_Time())
    standing.ask(_candidate(0, is_warm=True))
    standing.ask(_candidate(1))
    assert standing.trials == 1


def test_a_second_measurement_can_make_another_one_the_best():
    clock = _Time()
    view = PlainSearchView(_standing(clock))
    first, second = _candidate(0), _candidate(1)
    for candidate, ratio in ((first, 0.5), (second, 0.6)):
        view.asked(candidate)
        _decide(view, candidate, "feasible", ratio)
    first.latency = samples.latency(0.7)
    assert view.standing.best == Leader.of(second)


def test_a_resumed_study_goes_on_from_what_earlier_runs_found(capsys):
    clock = _Time()
    view = PlainSearchView(_standing(clock, trials=10))
    earlier = _standing(clock, trials=10)
    earlier.verdicts, earlier.trials, earlier.images, earlier.earlier_seconds = {"a": "feasible"}, 3, 400, 60.0
    earlier.earlier_best = Leader("a", 0.45, 0.001)
    view.resume(earlier)
    _search(view, clock)
    told = capsys.readouterr().err
    assert "going on from what is decided: 1 feasible" in told
    assert told.count("best so far") == 1
    assert "best so far: a: 0.450 of float32's time, loss +0.0010" in told
    assert view.standing.spent() == ["8 of 10 trials", "100 s", "560 images"]
    assert view.standing.counts == {"feasible": 2, "infeasible": 1}


def test_without_a_terminal_the_view_is_plain():
    assert isinstance(open_search_view(_standing(_Time())), PlainSearchView)


def test_a_second_measurement_on_a_busy_machine_is_called_so(capsys):
    view = PlainSearchView(_standing(_Time()))
    candidate = _candidate(0)
    view.asked(candidate)
    _decide(view, candidate, "feasible", 0.5)
    candidate.own_latency = samples.latency(0.5, noisy=samples.NOISE)
    view.confirmed(candidate)
    assert "measured again and confirmed, though the machine was not quiet: " in capsys.readouterr().err
