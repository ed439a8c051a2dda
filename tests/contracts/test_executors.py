"""One suite over all executors."""

import os
import time

import numpy as np
import pytest

from cluster.executor import Executor, refuse_threads
from cluster.lanes import BENCHMARK, LIGHT, TENSORFLOW, Lane
from tasks.errors import AuditMismatch, ClusterMistake, DataMistake
from tasks.types import Failure


def _run(executor: Executor, function, *arguments, lane: Lane = LIGHT):
    ref = executor.submit(lane, "stage", function, *arguments)
    assert executor.wait([ref]) == ref
    return executor.result(ref)


def _double(value):
    return 2 * value


def _add(*values):
    return sum(values)


def _mismatch():
    raise AuditMismatch("half the model is float")


def _mistake():
    raise DataMistake("image 7 is truncated")


def _bug():
    return [][1]


def _sum(array):
    return float(array.sum())


def test_a_task_gets_values_and_gives_a_value(executor):
    assert _run(executor, _double, 21) == 42


def test_refs_are_replaced_by_their_results(executor):
    refs = [executor.submit(LIGHT, "double", _double, value) for value in (1, 2, 3)]
    assert _run(executor, _add, *refs) == 12


def test_a_shared_value_reaches_every_task(executor):
    shared = executor.put(np.ones(1000))
    assert _run(executor, _sum, shared) == _run(executor, _sum, shared) == 1000


def test_a_planned_error_is_a_failure_with_its_reason_and_traceback(executor):
    failure = _run(executor, _mismatch)
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.reason, failure.message) == ("stage", "audit_mismatch", "half the model is float")
    assert "_mismatch" in failure.detail


def test_an_unplanned_error_is_a_failure_that_names_it(executor):
    failure = _run(executor, _bug)
    assert (failure.reason, failure.message) == ("unexpected_error", "IndexError: list index out of range")


def test_a_failure_among_the_arguments_is_the_result_and_the_function_does_not_run(executor):
    first = executor.submit(LIGHT, "first", _mismatch)
    assert _run(executor, _add, first, 1).reason == "audit_mismatch"


def test_a_users_mistake_is_raised_in_the_driver_also_through_later_tasks(executor):
    first = executor.submit(LIGHT, "first", _mistake)
    later = executor.submit(LIGHT, "later", _add, first)
    executor.wait([later])
    with pytest.raises(DataMistake, match="image 7 is truncated"):
        executor.result(later)


def _environment():
    return os.environ.get("OMP_NUM_THREADS"), os.environ.get("QUANTSWEEP_LANE"), os.getpid()


def test_lanes_have_their_own_environment_and_processes_on_ray(ray_executor):
    light, tensorflow = _run(ray_executor, _environment), _run(ray_executor, _environment, lane=TENSORFLOW)
    assert (light[:2], tensorflow[:2]) == (("1", "light"), ("1", "tensorflow"))
    assert light[2] != tensorflow[2]


def test_nothing_runs_beside_a_benchmark(executor):
    known = len(executor.journal())
    refs = [executor.submit(lane, "sleep", time.sleep, 0.2) for lane in (LIGHT, BENCHMARK, LIGHT, BENCHMARK, LIGHT)]
    while refs:
        refs.remove(executor.wait(refs))
    stays = executor.journal()[known:]
    assert sorted(stay.lane for stay in stays) == ["benchmark"] * 2 + ["light"] * 3
    for benchmark in (stay for stay in stays if stay.lane == "benchmark"):
        assert benchmark.node == executor.benchmark_node
        others = [stay for stay in stays if stay != benchmark]
        assert all(stay.ended_at <= benchmark.started_at or stay.started_at >= benchmark.ended_at for stay in others)


def test_the_journal_tells_when_and_where_a_task_ran(executor):
    known, before = len(executor.journal()), time.time()
    _run(executor, _mismatch, lane=TENSORFLOW)
    (stay,) = executor.journal()[known:]
    assert (stay.stage, stay.lane) == ("stage", "tensorflow")
    assert stay.node
    assert before - 1 <= stay.started_at <= stay.ended_at <= time.time() + 1


def test_a_claim_that_no_node_can_meet_is_refused_with_the_choices(executor):
    with pytest.raises(ClusterMistake, match=r"a wide task claims 4096 CPUs, .* choices: claim 1 to \d+, or join"):
        executor.submit(Lane("wide", cpus=4096), "stage", _double, 1)


def test_more_threads_than_the_benchmark_node_has_cpus_are_refused_with_the_choices(executor):
    refuse_threads(executor, [1, executor.benchmark_cpus])
    with pytest.raises(ClusterMistake, match=rf"4096 threads .* choices: threads 1 to {executor.benchmark_cpus}, or"):
        refuse_threads(executor, [1, 4096])


def test_an_executor_of_one_node_says_that_benchmarks_share_it(executor):
    assert executor.shares_benchmark_node


def _die():
    os._exit(3)


def test_a_worker_that_keeps_dying_is_a_failure_on_ray(ray_executor):
    assert _run(ray_executor, _die).reason == "worker_lost"


def test_a_task_that_waits_for_a_dead_worker_is_lost_with_it_on_ray(ray_executor):
    dead = ray_executor.submit(LIGHT, "die", _die)
    assert _run(ray_executor, _add, dead, 1).reason == "worker_lost"
