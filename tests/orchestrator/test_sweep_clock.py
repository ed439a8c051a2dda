"""How long a sweep says that it will go on."""

import pytest

from orchestrator import sweep_clock
from orchestrator.sweep_clock import SweepClock, seconds_left
from tasks.types import TrainingPoint, TrainingProgress


def at(step: int, seconds: float, steps: int = 100) -> TrainingProgress:
    points = [TrainingPoint(0, 4.0, None, None, None, None, None, None, 2.0, 2.0)]
    if step:
        points.append(TrainingPoint(step, 3.0, 3.0, 1.0, 1.0, 1.0, 1e-3, 10.0, 2.0 + seconds, 2.0))
    return TrainingProgress(tuple(points), steps, 90, 10, "cpu", 0, "0" * 64)


@pytest.fixture
def clock(monkeypatch) -> SweepClock:
    now = {"seconds": 0.0}
    monkeypatch.setattr(sweep_clock.time, "monotonic", lambda: now["seconds"])
    clock = SweepClock()
    clock.began(variants=6, settled=1)
    now["seconds"] = 20.0
    return clock


def test_a_training_takes_as_long_as_its_updates_so_far_say():
    assert seconds_left(at(25, 50.0)) == pytest.approx(150.0)
    assert seconds_left(at(0, 0.0)) is None


def test_variants_take_as_long_as_those_before_them(clock):
    clock.done += 2
    assert clock.left() == "about 30 s left"


def test_nothing_is_said_before_the_first_variant(clock):
    assert clock.left() == ""


def test_variants_that_wait_for_a_training_take_as_long_as_it(clock):
    clock.done += 2
    clock.trainings.note("one", at(25, 50.0))
    assert clock.left() == "about 170 s left"


def test_trainings_that_wait_are_expected_to_take_as_long_as_the_others_as_many_at_a_time(clock):
    clock.done += 1
    for name in ("one", "two", "three", "four"):
        clock.trainings.await_training(name)
    clock.trainings.note("one", at(50, 100.0))
    clock.trainings.note("two", at(50, 100.0))
    assert clock.left() == "about 300 s left"


def test_trainings_without_a_pace_are_only_counted(clock):
    clock.done += 2
    clock.trainings.await_training("one")
    clock.trainings.note("two", at(0, 0.0))
    assert clock.left() == "2 trainings left"


def test_a_training_that_ended_is_counted_no_longer_and_tells_how_long_others_take(clock):
    clock.done += 2
    clock.trainings.await_training("two")
    clock.trainings.note("one", at(50, 100.0))
    clock.trainings.forget("one")
    assert clock.left() == "about 220 s left"


def test_after_the_last_variant_it_is_done(clock):
    clock.done += 5
    assert clock.left() == "done"
