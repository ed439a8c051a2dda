"""What happens on a node that another program keeps full: `python -m tests.cluster.full_node FILE`."""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

from cluster.connect import RayExecutor
from cluster.lanes import BENCHMARK, LIGHT
from tasks.types import Failure

QUEUE_SECONDS = 5.0


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def outcome(executor: RayExecutor, ref: Any) -> dict[str, Any]:
    """What became of a task, and how long it took."""
    start = time.monotonic()
    result = executor.result(executor.wait([ref]))
    found = dataclasses.asdict(result) if isinstance(result, Failure) else {"value": result}
    return {"seconds": time.monotonic() - start, **found}


def _main(place: Path) -> None:
    import ray

    executor = RayExecutor("local", QUEUE_SECONDS)
    long = executor.submit(BENCHMARK, "benchmark", sleep, 2 * QUEUE_SECONDS)
    behind = executor.submit(BENCHMARK, "benchmark", sleep, 0.0)
    found = {"long": outcome(executor, long), "behind": outcome(executor, behind)}
    hogs = [ray.remote(sleep).remote(600) for _ in range(executor.cpus)]
    while ray.available_resources().get("CPU", 0) > 0:
        time.sleep(0.1)
    waiting = executor.submit(LIGHT, "shard", sleep, 0.0)
    dependent = executor.submit(LIGHT, "score", sleep, waiting)
    found["given_up"] = outcome(executor, waiting)
    for each in hogs:
        ray.cancel(each, force=True)
    found["dependent"] = outcome(executor, dependent)
    found["afterwards"] = outcome(executor, executor.submit(LIGHT, "shard", sleep, 0.0))
    executor.close()
    place.write_text(json.dumps(found))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
