"""Connecting to Ray, and the executor on top of it."""

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from cluster.executor import Executor, run_task, taken
from cluster.inprocess import InProcessExecutor
from cluster.lanes import Lane
from tasks.errors import ClusterMistake, UnexpectedError, WorkerLost
from tasks.types import Failure

IN_PROCESS = "in-process"
"""The address of the in-process twin."""

LOCAL = "local"
"""The address that starts a Ray of one node for this command alone."""

_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Benchmarks inherit the niceness of their worker; Ray's default of 15 yields to everything else on the machine.
    "RAY_worker_niceness": "0",
    # Ray ends idle workers beyond one a CPU, and one of TensorFlow or torch takes seconds to start: keep one a lane.
    "RAY_num_workers_soft_limit": str(4 * (os.cpu_count() or 1)),
}
_RETRIES = 2
_CONNECT_SECONDS = 5


def connect(address: str) -> Executor:
    """Connects to where tasks run.

    Args:
        address: `local` (a Ray on this machine, ended with the command), `in-process` (no Ray: one task after the
            other in this process), or the address of a running Ray cluster (`auto`, `HOST:PORT`, `ray://HOST:PORT`).

    Returns:
        The executor.

    Raises:
        ClusterMistake: If there is no cluster at the address.
    """
    return InProcessExecutor() if address == IN_PROCESS else RayExecutor(address)


class RayExecutor:
    """Runs tasks on a Ray cluster."""

    def __init__(self, address: str) -> None:
        """Connects to a cluster.

        Args:
            address: As in `connect`, other than `in-process`.
        """
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import ray

        _refuse_silent(address)
        own = {"include_dashboard": False, "num_cpus": _available_cpus()} if address == LOCAL else {}
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise _no_cluster(address, reason) from error
        self._ray = ray
        self._run = ray.remote(run_task)
        self._nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        self.cpus = sum(self._nodes)
        self.is_here = address == LOCAL

    def put(self, value: Any) -> Any:
        """Puts a value in the object store; see `Executor.put`."""
        return self._ray.put(value)

    def submit(self, lane: Lane, stage: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Submits a Ray task; see `Executor.submit`."""
        largest = max(self._nodes)
        cpus = largest if lane.cpus is None else lane.cpus
        if cpus > largest:
            raise ClusterMistake(f"a {lane.name} task claims {cpus} CPUs; the largest node has {largest}")
        options = self._run.options(
            num_cpus=cpus,
            name=stage,
            max_retries=_RETRIES,
            runtime_env={"env_vars": {**lane.environment, "QUANTSWEEP_LANE": lane.name}},
        )
        return options.remote(stage, function, *arguments)

    def wait(self, refs: Sequence[Any]) -> Any:
        """Waits for one ref; see `Executor.wait`."""
        done, _ = self._ray.wait(list(refs), num_returns=1)
        return done[0]

    def result(self, ref: Any) -> Any:
        """Takes a result, or the failure of the worker process; see `Executor.result`."""
        errors = self._ray.exceptions
        try:
            value = self._ray.get(ref)
        except (
            errors.WorkerCrashedError,
            errors.OutOfMemoryError,
            errors.NodeDiedError,
            errors.ObjectLostError,
        ) as error:
            lost = WorkerLost(f"the worker process died {_RETRIES + 1} times: {_first_line(error)}")
            return Failure.of("worker", lost, str(error))
        except errors.RayError as error:
            return Failure.of("worker", UnexpectedError(_first_line(error)), str(error))
        return taken(value)

    def close(self) -> None:
        """Ends a local Ray, or leaves a shared one; see `Executor.close`."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.shutdown()


def _refuse_silent(address: str) -> None:
    """Ray waits for minutes at an address where nobody listens; a plain connection answers at once."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise _no_cluster(address, str(error)) from error


def _no_cluster(address: str, reason: str) -> ClusterMistake:
    return ClusterMistake(
        f"no Ray cluster answers at {address!r} ({reason}); choices for --address: local, in-process, auto, "
        "HOST:PORT or ray://HOST:PORT of a running cluster; if the cluster asks for a token, set RAY_AUTH_MODE=token"
    )


def _available_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
