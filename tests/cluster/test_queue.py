"""When a queue has stalled."""

import time

import pytest

from cluster.journal import Stay
from cluster.lanes import BENCHMARK, LIGHT
from cluster.queue import Queue, limit_seconds
from tasks.errors import ClusterMistake


def waiting(limit: float = 0.05) -> tuple[Queue, Stay]:
    """A queue whose one task was submitted longer ago than the limit, and the stay it would have."""
    queue = Queue(limit)
    ticket = queue.ticket(LIGHT, "detect")
    queue.add("ref", ticket)
    time.sleep(2 * limit)
    return queue, Stay(ticket.number, "detect", "light", "node", 0.0)


def test_a_task_that_waits_while_nothing_runs_stalls():
    queue, _ = waiting()
    assert queue.has_stalled(0, [], {"node"})


def test_a_task_that_runs_is_no_stall_however_long():
    queue, stay = waiting()
    assert not queue.has_stalled(1, [stay], {"node"})
    time.sleep(0.1)
    assert not queue.has_stalled(1, [stay], {"node"})


def test_a_task_that_ran_on_a_dead_node_stalls():
    queue, stay = waiting()
    queue.has_stalled(1, [stay], {"node"})
    time.sleep(0.1)
    assert queue.has_stalled(1, [stay], {"other"})


def test_a_task_that_started_since_the_last_look_starts_the_clock_again():
    queue, _ = waiting()
    assert not queue.has_stalled(3, [], {"node"})
    time.sleep(0.1)
    assert queue.has_stalled(3, [], {"node"})


def test_a_benchmark_is_open_until_it_is_settled():
    queue = Queue(1.0)
    queue.add("ref", queue.ticket(BENCHMARK, "benchmark"))
    assert queue.has_benchmark
    queue.settle("ref")
    assert not queue.has_benchmark


def test_the_limit_is_what_the_caller_says_then_the_environment_then_ten_minutes(monkeypatch):
    assert limit_seconds() == 600
    monkeypatch.setenv("QUANTSWEEP_QUEUE_SECONDS", "30")
    assert (limit_seconds(), limit_seconds(7)) == (30, 7)


@pytest.mark.parametrize("said", ["soon", "0", "-1", "nan"])
def test_a_limit_that_is_no_positive_number_is_refused(monkeypatch, said):
    monkeypatch.setenv("QUANTSWEEP_QUEUE_SECONDS", said)
    with pytest.raises(ClusterMistake, match="choices: a number of seconds above 0"):
        limit_seconds()
