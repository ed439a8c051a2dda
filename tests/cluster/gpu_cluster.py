"""A cluster whose second node says that it has a GPU: `python -m tests.cluster.gpu_cluster FILE`."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from cluster.connect import RayExecutor
from cluster.lanes import BENCHMARK, LIGHT, Lane
from tests.cluster.small_cluster import _FAST

TRAINING = Lane("training", wants_gpu=True)


def _place(seconds: float) -> dict[str, Any]:
    import ray

    time.sleep(seconds)
    return {"node": ray.get_runtime_context().get_node_id(), "visible": os.environ.get("CUDA_VISIBLE_DEVICES")}


def places(executor: RayExecutor, lane: Lane, tasks: int) -> list[Any]:
    refs = [executor.submit(lane, "stage", _place, 0.1) for _ in range(tasks)]
    found = []
    while refs:
        done = executor.wait(refs)
        refs.remove(done)
        found.append(executor.result(done))
    return found


def _beside_a_benchmark(executor: RayExecutor) -> list[Any]:
    """What is submitted while a benchmark waits or runs."""
    benchmark = executor.submit(BENCHMARK, "benchmark", _place, 1.0)
    found = places(executor, TRAINING, 2)
    executor.wait([benchmark])
    return found


def _main(place: Path) -> None:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "num_gpus": 0, "include_dashboard": False, "_system_config": _FAST}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    executor = RayExecutor(cluster.address)
    found: dict[str, Any] = {"none": places(executor, TRAINING, 1), "widths": [executor.training_width]}
    executor.close()
    # The largest node, too, so that benchmarks want it as well.
    with_gpu = cluster.add_node(num_cpus=3, num_gpus=1)
    executor = RayExecutor(cluster.address)
    found |= {"gpu_node": with_gpu.node_id, "benchmark_node": executor.benchmark_node}
    found |= {"training": places(executor, TRAINING, 4), "light": places(executor, LIGHT, 8)}
    found["widths"].append(executor.training_width)
    found["beside"] = _beside_a_benchmark(executor)
    cluster.remove_node(with_gpu, allow_graceful=False)
    while any(node.id == with_gpu.node_id for node in executor._live()):
        time.sleep(0.1)
    executor.close()
    cluster.add_node(num_cpus=1, num_gpus=1, labels={"quantsweep": "bench"})
    executor = RayExecutor(cluster.address)
    found["only_bench_has_one"] = places(executor, TRAINING, 2)
    found["last_benchmark_node"] = executor.benchmark_node
    executor.close()
    cluster.shutdown()
    place.write_text(json.dumps(found))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
