"""A cluster of two nodes, and of a third labelled bench: `python -m tests.cluster.small_cluster FILE`."""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

from cluster.connect import RayExecutor
from cluster.executor import refuse_threads
from cluster.journal import Stay
from cluster.lanes import BENCHMARK, LIGHT, Lane
from orchestrator.graph import Graph
from tasks.errors import ClusterMistake
from tasks.types import Failure

_FAST = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 200, "health_check_failure_threshold": 10}


def _sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def together(executor: RayExecutor) -> dict[str, Any]:
    """Ten shards and two benchmarks submitted at once, then shards without end until both benchmarks are done."""
    # Workers take a second or two to start; what is shown begins when there are some.
    first = [executor.submit(lane, "first", _sleep, 0.5) for lane in (BENCHMARK, *[LIGHT] * 4)]
    while first:
        first.remove(executor.wait(first))
    graph, since, done = Graph(executor), len(executor.journal()), []

    def more(order: int) -> None:
        if len(done) < 2 and order < 200:
            graph.once(f"later {order}", 4, LIGHT, "shard", _sleep, 0.25, then=lambda result: more(order + 10))

    for order in range(10):
        graph.once(f"shard {order}", 4, LIGHT, "shard", _sleep, 0.25, then=lambda result, order=order: more(order))
    for order in range(2):
        graph.once(f"benchmark {order}", 5, BENCHMARK, "benchmark", _sleep, 0.75, then=done.append)
    graph.run()
    stays: list[Stay] = executor.journal()[since:]
    nodes = {
        "benchmark_node": executor.benchmark_node,
        "cpus": executor.cpus,
        "benchmark_cpus": executor.benchmark_cpus,
    }
    return {**nodes, "stays": [dataclasses.asdict(stay) for stay in stays]}


def refused(executor: RayExecutor) -> dict[str, Any]:
    """Requests that no node can meet."""
    messages, start = [], time.monotonic()
    for ask in (
        lambda: executor.submit(Lane("wide", cpus=5), "shard", _sleep, 0.0),
        lambda: refuse_threads(executor, [1, 4]),
    ):
        try:
            ask()
        except ClusterMistake as mistake:
            messages.append(str(mistake))
    return {"messages": messages, "seconds": time.monotonic() - start}


def outcome(executor: RayExecutor, ref: Any) -> dict[str, Any]:
    """What became of a task, and how long it took."""
    start = time.monotonic()
    result = executor.result(executor.wait([ref]))
    found = dataclasses.asdict(result) if isinstance(result, Failure) else {"value": result}
    return {"seconds": time.monotonic() - start, **found}


def dead(executor: RayExecutor, remove: Any) -> list[dict[str, Any]]:
    """The benchmark node dies under a benchmark, while another waits; a third is asked for later."""
    refs = [executor.submit(BENCHMARK, "benchmark", _sleep, 60) for _ in range(2)]
    while not any(stay.ended_at is None for stay in executor.journal()):
        time.sleep(0.1)
    remove()
    found = [outcome(executor, ref) for ref in refs]
    return [*found, outcome(executor, executor.submit(BENCHMARK, "benchmark", _sleep, 0))]


def _main(place: Path) -> None:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "include_dashboard": False, "_system_config": _FAST}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=2)
    executor = RayExecutor(cluster.address)
    found: dict[str, Any] = {
        "two": together(executor),
        "refused": refused(executor),
    }
    executor.close()
    bench = cluster.add_node(num_cpus=1, labels={"quantsweep": "bench"})
    executor = RayExecutor(cluster.address)
    found["bench"] = together(executor)
    found["dead"] = dead(executor, lambda: cluster.remove_node(bench, allow_graceful=False))
    executor.close()
    cluster.shutdown()
    place.write_text(json.dumps(found))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
