"""Where tasks run on clusters of several nodes, by the timestamps of the journal."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import full_node

pytestmark = pytest.mark.slow


def observed(script: str, folder: Path) -> dict[str, Any]:
    """Runs a script that needs a Ray of its own, beside that of the test session."""
    place = folder / "observed.json"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    # Modules of other tests hide GPUs from this process; the script's Ray has some of its own making.
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    command = [sys.executable, "-m", f"tests.cluster.{script}", str(place)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, Any] = json.loads(place.read_text())
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return observed("small_cluster", tmp_path_factory.mktemp("small"))


def benchmarks(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [stay for stay in found["stays"] if stay["lane"] == "benchmark"]


def others(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [stay for stay in found["stays"] if stay["lane"] != "benchmark"]


@pytest.mark.parametrize("cluster", ["two", "bench"])
def test_every_task_of_two_benchmarks_and_ten_shards_ran_and_ended(small, cluster):
    assert len(benchmarks(small[cluster])) == 2
    assert len(others(small[cluster])) >= 10
    assert all(stay["started_at"] < stay["ended_at"] for stay in small[cluster]["stays"])


@pytest.mark.parametrize("cluster", ["two", "bench"])
def test_nothing_overlaps_a_benchmark_on_its_node(small, cluster):
    for benchmark in benchmarks(small[cluster]):
        for stay in small[cluster]["stays"]:
            if stay["node"] == benchmark["node"] and stay != benchmark:
                ended, began = stay["ended_at"], stay["started_at"]
                assert ended <= benchmark["started_at"] or began >= benchmark["ended_at"]


@pytest.mark.parametrize("cluster", ["two", "bench"])
def test_all_benchmarks_run_on_one_node(small, cluster):
    assert {stay["node"] for stay in benchmarks(small[cluster])} == {small[cluster]["benchmark_node"]}


@pytest.mark.parametrize("cluster", ["two", "bench"])
def test_benchmarks_get_their_turn_though_shards_never_end(small, cluster):
    last = max(stay["ended_at"] for stay in others(small[cluster]))
    assert max(stay["started_at"] for stay in benchmarks(small[cluster])) < last


def test_shards_go_on_elsewhere_while_benchmarks_run(small):
    first = min(stay["started_at"] for stay in benchmarks(small["two"]))
    last = max(stay["ended_at"] for stay in benchmarks(small["two"]))
    assert any(first < stay["started_at"] < last for stay in others(small["two"]))


def test_a_node_labelled_bench_takes_benchmarks_alone_however_few_its_cpus(small):
    found = small["bench"]
    assert (found["benchmark_cpus"], found["cpus"]) == (1, 4)
    assert found["benchmark_node"] not in {stay["node"] for stay in others(found)}


def test_requests_that_no_node_can_meet_are_refused_at_once_with_the_choices(small):
    wide, threads = small["refused"]["messages"]
    assert "claims 5 CPUs" in wide and "has 2; choices: claim 1 to 2" in wide
    assert threads.startswith("4 threads cannot be timed") and "choices: threads 1 to 2" in threads
    assert small["refused"]["seconds"] < 5


def test_the_death_of_the_benchmark_node_is_a_failure_of_all_its_benchmarks(small):
    assert {failure["reason"] for failure in small["dead"]} == {"worker_lost"}
    assert all("left the cluster" in failure["message"] for failure in small["dead"])
    assert max(failure["seconds"] for failure in small["dead"]) < 50


def test_tasks_wait_for_what_runs_and_are_given_up_where_nothing_of_ours_does(tmp_path):
    found = observed("full_node", tmp_path)
    limit = full_node.QUEUE_SECONDS
    assert (found["long"]["value"], found["behind"]["value"], found["afterwards"]["value"]) == (2 * limit, 0.0, 0.0)
    assert "no node started the task, which claims 1 CPUs" in found["given_up"]["message"]
    assert limit <= found["given_up"]["seconds"] < 3 * limit
    assert found["dependent"]["reason"] == "never_started"


def test_trainings_claim_a_gpu_where_a_node_has_one_and_run_on_cpus_elsewhere(tmp_path):
    found = observed("gpu_cluster", tmp_path)
    gpu_node = found["gpu_node"]
    assert found["benchmark_node"] == gpu_node
    (without,) = found["none"]
    assert without["visible"] == ""
    # One GPU: one after the other, and never on a free CPU elsewhere.
    assert found["widths"] == [2, 1]
    assert [(place["node"], place["visible"]) for place in found["training"]] == [(gpu_node, "0")] * 4
    assert {place["visible"] for place in found["light"]} == {""}
    # The only GPU is where the benchmark runs: they wait for it there.
    assert [(place["node"], place["visible"]) for place in found["beside"]] == [(gpu_node, "0")] * 2
    assert found["only_bench_has_one"][0]["visible"] == ""
    assert found["last_benchmark_node"] not in {place["node"] for place in found["only_bench_has_one"]}
