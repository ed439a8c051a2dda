"""Latencies of a plan: each structure timed once on the benchmark node, beside the reference."""

from collections.abc import Callable

from cluster.executor import Executor
from cluster.lanes import BENCHMARK
from orchestrator.graph import Graph
from orchestrator.images import PreparedImages
from orchestrator.plan import Plan
from results.store import Store
from tasks import steps
from tasks.benchmark import BenchmarkOptions
from tasks.errors import ClusterMistake
from tasks.host import this_host
from tasks.types import Artifact, Failure, Host, Latency, RuntimeSettings

_PRIORITY = 5

Continuation = Callable[[str, "Latency | Failure"], None]
"""Gets the key and the latency, or why there is none."""


class Latencies:
    """Measures what the database does not know yet."""

    def __init__(self, plan: Plan, graph: Graph, store: Store, images: PreparedImages, host: Host) -> None:
        """Takes what is needed to measure.

        Args:
            plan: What is to be done.
            graph: Where the work goes.
            store: Where results go.
            images: Where preprocessed images come from.
            host: The benchmark node.
        """
        self._plan, self._graph, self._store, self._images, self._host = plan, graph, store, images, host

    def measure(self, reference: Artifact, artifact: Artifact, settings: RuntimeSettings, then: Continuation) -> None:
        """Asks for the latency of an artifact.

        Args:
            reference: The LiteRT float32 build.
            artifact: What is timed.
            settings: How it is run.
            then: Gets its key and the latency, or a `Failure`.
        """
        plan = self._plan
        key = plan.latency_key(reference, artifact, settings, self._host)
        known = self._store.latency_of(key)
        if known is not None:
            then(key, known)
            return

        def take(result: steps.Measured | Failure) -> None:
            if isinstance(result, Failure):
                self._store.put_failure(key, result)
                then(key, result)
                return
            measured = plan.latency_key(reference, artifact, settings, result.host)
            timing = plan.timing(settings)
            self._store.put_latency(measured, artifact.structure_sha256, timing, result.host, result.latency)
            then(measured, result.latency)

        options = BenchmarkOptions(
            max_seconds=plan.spec.latency.max_seconds, target_half_width=plan.spec.latency.target_half_width
        )
        self._graph.once(
            key, _PRIORITY, BENCHMARK, "benchmark", steps.measure, plan.storage, reference, artifact, settings,
            plan.detector.spec, plan.spec.postprocessing, options, self._images.evaluation[0], then=take,
        )  # fmt: skip


def benchmark_host(executor: Executor) -> Host:
    """Asks the benchmark node what it is.

    Args:
        executor: Where tasks run.

    Returns:
        The machine.

    Raises:
        ClusterMistake: If it does not answer.
    """
    if executor.is_here:
        return this_host()
    ref = executor.submit(BENCHMARK, "host", this_host)
    host = executor.result(executor.wait([ref]))
    if isinstance(host, Failure):
        raise ClusterMistake(f"the benchmark node did not answer: {host.message}")
    assert isinstance(host, Host)
    return host
