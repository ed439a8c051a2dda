"""Connecting to Ray, and the executor on top of it."""

import contextlib
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from cluster.executor import Executor, refuse_claim, run_task, taken
from cluster.inprocess import InProcessExecutor
from cluster.journal import Journal, Stay, noted
from cluster.lanes import Lane, available_cpus
from cluster.nodes import BENCH_LABEL, HEAD, Node, benchmark_node, gpu_nodes, live_nodes
from cluster.queue import Queue, limit_seconds
from tasks.errors import ClusterMistake, NeverStarted, UnexpectedError, WorkerLost
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
_LOOK_SECONDS = 5.0
_NODES_SECONDS = 1.0
_JOURNAL_SECONDS = 3.0


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
    """Runs tasks on a Ray cluster: benchmarks alone on one node, everything else away from them."""

    def __init__(self, address: str, queue_seconds: float | None = None) -> None:
        """Connects to a cluster.

        Args:
            address: As in `connect`, other than `in-process`.
            queue_seconds: How long nothing may run while tasks wait before these are given up; None for what
                QUANTSWEEP_QUEUE_SECONDS says, or else 600.
        """
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self._queue = Queue(limit_seconds(queue_seconds))
        import ray

        _refuse_silent(address)
        own = {"include_dashboard": False, "num_cpus": available_cpus()} if address == LOCAL else {}
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise _no_cluster(address, reason) from error
        self._ray = ray
        self._nodes: list[Node] = []
        self._nodes_at = -math.inf
        try:
            self._benchmark = benchmark_node(self._live())
        except ClusterMistake:
            ray.shutdown()
            raise
        self._run = ray.remote(_run_noted)
        self._journal = ray.remote(Journal).options(**self._beside_the_head()).remote()
        self._given_up: dict[Any, Failure] = {}
        self._look_seconds = min(_LOOK_SECONDS, self._queue.limit_seconds / 4)
        self.benchmark_cpus, self.benchmark_node = self._benchmark.cpus, self._benchmark.id
        self.cpus = sum(node.cpus for node in self._live() if not node.is_bench)
        self.is_here = address == LOCAL

    @property
    def shares_benchmark_node(self) -> bool:
        """Whether there is one node for everything; see `Executor.shares_benchmark_node`."""
        return not self._others()

    @property
    def training_width(self) -> int:
        """GPUs, or else CPUs; see `Executor.training_width`."""
        gpus = sum(node.gpus for node in gpu_nodes(self._live(), cpus=1))
        return gpus or max(1, self.cpus)

    def put(self, value: Any) -> Any:
        """Puts a value in the object store; see `Executor.put`."""
        return self._ray.put(value)

    def submit(self, lane: Lane, stage: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Submits a Ray task; see `Executor.submit`."""
        ticket = self._queue.ticket(lane, stage)
        claim = self._alone() if lane.cpus is None else self._shared(lane, lane.cpus)
        # Ray shows a task the GPU that it claims. The others must see none: TensorFlow would take all its memory.
        gpus = {} if "num_gpus" in claim else {"CUDA_VISIBLE_DEVICES": ""}
        environment = {**lane.environment, **gpus, "QUANTSWEEP_LANE": lane.name}
        options = self._run.options(
            name=stage, max_retries=_RETRIES, runtime_env={"env_vars": environment}, **claim
        )  # fmt: skip
        ref = options.remote(self._journal, ticket.number, lane.name, stage, function, *arguments)
        self._queue.add(ref, ticket)
        return ref

    def wait(self, refs: Sequence[Any]) -> Any:
        """Waits for one ref, and gives all up where nothing runs any more; see `Executor.wait`."""
        while True:
            lost = next((ref for ref in refs if ref in self._given_up), None)
            if lost is not None:
                return lost
            done, _ = self._ray.wait(list(refs), num_returns=1, timeout=self._look_seconds)
            if done:
                self._queue.settle(done[0])
                return done[0]
            if self._has_stalled():
                for ref in refs:
                    self._give_up(ref)

    def result(self, ref: Any) -> Any:
        """Takes a result, or the failure of the worker process; see `Executor.result`."""
        errors = self._ray.exceptions
        if ref in self._given_up:
            return self._given_up[ref]
        try:
            value = self._ray.get(ref)
        except errors.TaskUnschedulableError as error:
            gone = WorkerLost(
                f"the benchmark node {self._benchmark.name} left the cluster; a rerun measures what is left"
            )
            return Failure.of("worker", gone, str(error))
        except errors.TaskCancelledError as error:
            return Failure.of("worker", NeverStarted("a task that it needs was given up"), str(error))
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

    def journal(self) -> list[Stay]:
        """Asks the journal, once the ends of what is done have reached it; see `Executor.journal`."""
        deadline = time.monotonic() + _JOURNAL_SECONDS
        while True:
            stays: list[Stay] = self._ray.get(self._journal.stays.remote())
            numbers = {ticket.number for ticket in self._queue.open.values()}
            if time.monotonic() > deadline or all(stay.ended_at or stay.ticket in numbers for stay in stays):
                return stays
            time.sleep(0.05)

    def close(self) -> None:
        """Ends a local Ray, or leaves a shared one; see `Executor.close`."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.shutdown()

    def _live(self) -> list[Node]:
        """The live nodes. Asking takes a millisecond, too long for each of many thousand tasks."""
        if time.monotonic() - self._nodes_at >= _NODES_SECONDS:
            self._nodes, self._nodes_at = live_nodes(self._ray.nodes()), time.monotonic()
        return self._nodes

    def _others(self) -> list[Node]:
        """Nodes that can do the other work while a benchmark runs."""
        return [node for node in self._live() if not node.is_bench and node.id != self._benchmark.id]

    def _alone(self) -> dict[str, Any]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # If the node is gone Ray fails the task at once; on any other node its latency could not be ranked.
        place = NodeAffinitySchedulingStrategy(self._benchmark.id, soft=False)
        return {"num_cpus": self._benchmark.cpus, "scheduling_strategy": place}

    def _shared(self, lane: Lane, cpus: int) -> dict[str, Any]:
        key, value = BENCH_LABEL
        selector = {key: f"!{value}"}
        nodes = [node for node in self._live() if not node.is_bench]
        if nodes:
            largest = max(nodes, key=lambda node: node.cpus)
            refuse_claim(lane, cpus, largest.cpus, largest.name)
        # Ray never empties a node for a task that claims all of it: what is submitted meanwhile must go elsewhere, but
        # for trainings whose only GPU is there: on CPUs they would take far longer than the benchmark has to wait.
        claim: dict[str, Any] = {"num_cpus": cpus}
        places = [node for node in self._others() if node.cpus >= cpus]
        with_gpu = gpu_nodes(self._live(), cpus) if lane.wants_gpu else []
        if with_gpu:
            claim["num_gpus"] = 1
            places = [node for node in with_gpu if node.id != self._benchmark.id]
        if self._queue.has_benchmark and places:
            selector["ray.io/node-id"] = f"!{self._benchmark.id}"
        return {**claim, "label_selector": selector}

    def _beside_the_head(self) -> dict[str, Any]:
        """Where the journal lives: it computes next to nothing, and must outlive the workers."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        heads = [node["NodeID"] for node in self._ray.nodes() if node["Alive"] and HEAD in node["Resources"]]
        place = {"scheduling_strategy": NodeAffinitySchedulingStrategy(heads[0], soft=True)} if heads else {}
        return {"num_cpus": 0, **place}

    def _has_stalled(self) -> bool:
        errors = self._ray.exceptions
        try:
            started, unfinished = self._ray.get(self._journal.progress.remote(), timeout=_LOOK_SECONDS)
        except errors.RayError:
            return False  # Who cannot know what runs must not give anything up.
        return self._queue.has_stalled(started, unfinished, {node.id for node in self._live()})

    def _give_up(self, ref: Any) -> None:
        ticket = self._queue.open.get(ref)
        if ticket is None:
            return
        self._ray.cancel(ref)
        self._queue.settle(ref)
        claim = f"all {self._benchmark.cpus}" if ticket.lane.cpus is None else ticket.lane.cpus
        nodes = [self._benchmark] if ticket.lane.cpus is None else [node for node in self._live() if not node.is_bench]
        gpu = " and, if a node had one when it was submitted, a GPU" if ticket.lane.wants_gpu else ""
        never = NeverStarted(
            f"no node started the task, which claims {claim} CPUs{gpu}, and nothing else ran for "
            f"{self._queue.limit_seconds:g} s (nodes for it: {', '.join(node.name for node in nodes) or 'none'}); "
            "QUANTSWEEP_QUEUE_SECONDS sets the limit"
        )
        self._given_up[ref] = Failure.of("worker", never)


def _run_noted(
    journal: Any, number: int, lane: str, stage: str, function: Callable[..., Any], *arguments: Any
) -> Any:  # fmt: skip
    """Runs a task in a worker of Ray."""
    import ray

    stay = Stay(number, stage, lane, ray.get_runtime_context().get_node_id(), time.time())
    with noted(journal.started.remote, journal.ended.remote, stay):
        return run_task(stage, function, *arguments)


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


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
