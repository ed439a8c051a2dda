"""The task graph."""

from dataclasses import replace

import pytest

from cluster.inprocess import InProcessExecutor
from cluster.lanes import BENCHMARK, LIGHT
from orchestrator.graph import Graph
from tasks.errors import DataMistake


def _identity(value):
    return value


def _mistake():
    raise DataMistake("no")


class _Recording(InProcessExecutor):
    def __init__(self):
        super().__init__()
        self.order, self.lanes, self.most, self.open = [], [], 0, set()

    def submit(self, lane, stage, function, *arguments):
        ref = super().submit(lane, stage, function, *arguments)
        self.order.append(arguments)
        self.lanes.append(lane.name)
        if lane.cpus is not None:
            self.open.add(ref)
            self.most = max(self.most, len(self.open))
        return ref

    def wait(self, refs):
        ref = super().wait(refs)
        self.open.discard(ref)
        return ref


def test_a_step_runs_once_however_many_ask_for_it():
    graph, seen = Graph(InProcessExecutor()), []
    for _ in range(3):
        graph.once("key", 0, LIGHT, "stage", _identity, 7, then=seen.append)
    graph.run()
    graph.once("key", 0, LIGHT, "stage", _identity, 7, then=seen.append)
    assert (seen, graph.submitted) == ([7] * 4, 1)


def test_continuations_may_add_steps():
    graph, seen = Graph(InProcessExecutor()), []

    def then(value):
        seen.append(value)
        if value < 5:
            graph.once(f"key{value + 1}", 0, LIGHT, "stage", _identity, value + 1, then=then)

    graph.once("key0", 0, LIGHT, "stage", _identity, 0, then=then)
    graph.run()
    assert seen == [0, 1, 2, 3, 4, 5]


def test_lower_priorities_are_submitted_first_and_equal_ones_in_order():
    executor = _Recording()
    graph = Graph(executor)
    for order, priority in enumerate((3, 1, 2, 1)):
        graph.once(str(order), priority, LIGHT, "stage", _identity, order, then=lambda value: None)
    graph.run()
    assert [arguments[0] for arguments in executor.order] == [1, 3, 2, 0]


def test_steps_in_flight_are_capped_but_those_that_claim_a_node_do_not_count():
    executor = _Recording()
    graph = Graph(executor)
    for order in range(50):
        graph.once(f"light{order}", 0, LIGHT, "stage", _identity, order, then=lambda value: None)
        graph.once(f"bench{order}", 0, BENCHMARK, "stage", _identity, order, then=lambda value: None)
    graph.run()
    assert executor.most == 2 * executor.cpus + 2
    assert graph.submitted == 100


def _asked_together(shares: bool) -> list[str]:
    """The lanes of steps better, equal and worse than a benchmark, in the order of submission."""
    executor = _Recording()
    executor.shares_benchmark_node = shares
    graph = Graph(executor)
    graph.once("worse", 6, replace(LIGHT, name="worse"), "stage", _identity, 0, then=lambda value: None)
    graph.once("better", 4, replace(LIGHT, name="better"), "stage", _identity, 0, then=lambda value: None)
    graph.once("bench", 5, BENCHMARK, "stage", _identity, 0, then=lambda value: executor.lanes.append("timed"))
    graph.run()
    return executor.lanes


def test_on_one_node_steps_worse_than_a_benchmark_are_held_back_until_it_ran():
    assert _asked_together(shares=True) == ["benchmark", "better", "timed", "worse"]


def test_where_there_are_other_nodes_nothing_is_held_back():
    assert _asked_together(shares=False) == ["benchmark", "better", "worse", "timed"]


def test_a_users_mistake_ends_the_run():
    graph = Graph(InProcessExecutor())
    graph.once("key", 0, LIGHT, "stage", _mistake, then=lambda value: None)
    with pytest.raises(DataMistake):
        graph.run()


def test_a_result_that_stays_is_handed_on_as_a_ref():
    graph, seen = Graph(InProcessExecutor()), []

    def then(ref):
        graph.once("next", 0, LIGHT, "stage", _identity, ref, then=seen.append)

    graph.once("key", 0, LIGHT, "stage", _identity, 7, then=then, stays=True)
    graph.run()
    assert seen == [7]
