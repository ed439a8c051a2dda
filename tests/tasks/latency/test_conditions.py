"""Conditions: what spoils a run is told, and counted from what the system counts."""

import os
import time

import pytest

from tasks.latency import conditions
from tasks.latency.conditions import Counters, complaints, frequency_mhz, idlest_cpus

GOOD = {
    "bound": 1.0,
    "preempted_share": 0.001,
    "steal_share": 0.0,
    "others_busy_share": 0.02,
    "resting_cpus": 0.01,
    "first_drift": 0.5,
    "load_average_1m": 9.0,
}


def counters(at_s: float = 0.0, **ticks: int) -> Counters:
    return Counters({0: dict(ticks), 1: {state: 2 * count for state, count in ticks.items()}}, at_s)


def test_nothing_is_wrong_with_good_conditions():
    assert complaints(GOOD) == ()


@pytest.mark.parametrize(
    "name, most, text",
    [
        ("preempted_share", conditions.MOST_PREEMPTED, "without a CPU for 30% of the time"),
        ("steal_share", conditions.MOST_STEAL, "the hypervisor took 30% of the CPU time"),
        ("others_busy_share", conditions.MOST_OTHERS, "other processes used 30% of the machine"),
        ("resting_cpus", conditions.MOST_RESTING, "a waiting pool of threads kept 0.30 CPUs busy"),
    ],
)
def test_each_limit_has_its_complaint(name, most, text):
    (found,) = complaints({**GOOD, name: 0.3})
    assert text in found
    assert complaints({**GOOD, name: most}) == ()
    assert len(complaints({**GOOD, name: most * 1.01})) == 1


def test_a_process_that_was_not_bound_is_a_complaint():
    assert complaints({**GOOD, "bound": 0.0}) == ("the process could not be bound to its CPUs",)


def test_every_complaint_is_made():
    worst = dict.fromkeys(GOOD, 1.0) | {"bound": 0.0}
    assert len(complaints(worst)) == 5


def test_what_the_system_does_not_tell_is_no_complaint():
    assert complaints({}) == ()


def test_time_by_state_is_summed_over_cpus_and_counted_from_before():
    tick = 1 / os.sysconf("SC_CLK_TCK")
    before = counters(user=100, system=50, idle=1000, iowait=5, steal=7)
    spent = counters(user=160, system=60, idle=1020, iowait=8, steal=17).since(before)
    # The second CPU counts twice what the first one does.
    assert spent["user"] == pytest.approx(3 * 60 * tick)
    assert spent["steal"] == pytest.approx(3 * 10 * tick)
    assert spent["total"] == pytest.approx(3 * (60 + 10 + 20 + 3 + 10) * tick)
    assert spent["busy"] == pytest.approx(3 * (60 + 10) * tick)


def test_time_of_one_cpu_can_be_asked_for():
    before, after = counters(user=0, idle=0), counters(user=100, idle=300)
    one, all_of_them = after.since(before, [0]), after.since(before)
    assert 3 * one["total"] == pytest.approx(all_of_them["total"])
    assert after.since(before, [])["total"] == 0


def test_the_real_counters_tell_about_as_much_time_as_has_passed():
    before = Counters.now()
    if not before.ticks:
        pytest.skip("this system does not tell the time of its CPUs")
    deadline = time.perf_counter() + 0.3
    while time.perf_counter() < deadline:
        pass
    after = Counters.now()
    spent = after.since(before)
    passed = after.at_s - before.at_s
    assert 0.3 <= passed < 60
    # Ticks are 10 ms, and a CPU of a virtual machine may not count what it does not get.
    assert 0.1 * passed < spent["total"] < 1.5 * passed * len(after.ticks)
    assert 0 < spent["busy"] <= spent["total"]


def test_the_idlest_cpus_are_allowed_ones():
    if not hasattr(os, "sched_getaffinity"):
        assert idlest_cpus(1) == []
        return
    allowed = os.sched_getaffinity(0)
    for count in (1, len(allowed), len(allowed) + 3):
        found = idlest_cpus(count)
        assert len(found) == min(count, len(allowed))
        assert set(found) <= allowed and found == sorted(found)


def test_a_busy_cpu_is_not_among_the_idlest(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    ticks = {cpu: {"user": 0, "idle": 0} for cpu in range(3)}
    busier = {0: {"user": 10, "idle": 0}, 1: {"user": 0, "idle": 10}, 2: {"user": 9, "idle": 1}}
    states = iter([Counters(ticks, 0.0), Counters(busier, 0.1)] * 2)
    monkeypatch.setattr(Counters, "now", classmethod(lambda _: next(states)))
    assert idlest_cpus(1) == [1]
    assert idlest_cpus(2) == [1, 2]


def test_of_equally_idle_cpus_the_last_is_taken(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    idle = Counters({cpu: {"user": 0, "idle": 5} for cpu in range(3)}, 0.0)
    monkeypatch.setattr(Counters, "now", classmethod(lambda _: idle))
    assert idlest_cpus(1) == [2]


def test_a_frequency_is_told_in_mhz_or_not_at_all():
    found = frequency_mhz(0)
    assert found is None or 100 < found < 10_000
    assert frequency_mhz(10**6) is None
