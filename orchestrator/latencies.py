"""Latencies of a plan: each structure timed on the benchmark node, beside the reference; noisy ones again, later."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from cluster.executor import Executor
from cluster.lanes import BENCHMARK
from orchestrator.graph import Graph
from orchestrator.plan import Plan
from orchestrator.profiles import Profiles
from orchestrator.progress import Observer
from results.store import Store
from tasks.errors import ClusterMistake
from tasks.host import this_host
from tasks.latency.duel import DuelOptions
from tasks.steps import latencies as steps
from tasks.types import Artifact, Failure, Host, Latency, RuntimeSettings

_PRIORITY = 5
_PRIORITY_AGAIN = 8
"""After everything else: what made the machine noisy may be over by then."""

Continuation = Callable[[str, "Latency | Failure"], None]
"""Gets the key and the latency, or why there is none."""


@dataclass(frozen=True)
class _Request:
    """A latency that is asked for."""

    key: str
    reference: Artifact
    artifact: Artifact
    settings: RuntimeSettings
    key_on: Callable[[Host], str]
    """Key of the measurement, by the machine that it is made on."""

    then: Continuation


class Latencies:
    """Measures what the database does not know yet."""

    def __init__(self, plan: Plan, graph: Graph, store: Store, host: Host, observer: Observer) -> None:
        """Takes what is needed to measure.

        Args:
            plan: What is to be done; its scene is in storage.
            graph: Where the work goes.
            store: Where results go.
            host: The benchmark node.
            observer: Who wants to know of noise.
        """
        self._plan, self._graph, self._store, self._host, self._observer = plan, graph, store, host, observer
        self._profiles = Profiles(plan, graph, store) if plan.spec.latency.profile else None

    def measure(self, reference: Artifact, artifact: Artifact, settings: RuntimeSettings, then: Continuation) -> None:
        """Asks for the latency of an artifact.

        Args:
            reference: The LiteRT float32 build.
            artifact: What is timed.
            settings: How it is run.
            then: Gets its key and the latency, or a `Failure`. The latency is noisy if it was in all its attempts.
        """
        key_on = partial(self._plan.latency_key, reference, artifact, settings)
        self._ask(
            _Request(
                key_on(self._host), reference, artifact, settings, key_on, self._profiled(artifact, settings, then)
            )
        )

    def measure_again(
        self, reference: Artifact, artifact: Artifact, settings: RuntimeSettings, then: Continuation
    ) -> None:
        """Asks for a second latency of an artifact that won: of its own bytes, whatever its structure's latency is of.

        Args:
            reference: The LiteRT float32 build.
            artifact: What is timed.
            settings: How it is run.
            then: As `measure` has it.
        """
        key_on = partial(self._plan.own_latency_key, reference, artifact, settings)
        self._ask(_Request(key_on(self._host), reference, artifact, settings, key_on, then))

    def _ask(self, request: _Request) -> None:
        known = self._store.latency_of(request.key)
        if known is None:
            self._attempt(request, 1, _PRIORITY)
        elif isinstance(known, Latency) and self._is_to_be_repeated(known):
            self._attempt(request, known.attempts + 1, _PRIORITY)
        else:
            request.then(request.key, known)

    def _attempt(self, request: _Request, number: int, priority: int) -> None:
        plan, latency = self._plan, self._plan.spec.latency

        def take(result: steps.Measured | Failure) -> None:
            if isinstance(result, Failure):
                self._store.put_failure(request.key, result)
                request.then(request.key, result)
                return
            measured = replace(result.latency, attempts=number)
            key = request.key_on(result.host)
            timing = plan.timing(request.settings)
            self._store.put_latency(key, request.artifact.structure_sha256, timing, result.host, measured)
            if self._is_to_be_repeated(measured):
                self._observer.stage(f"a noisy measurement, to be repeated later: {measured.noisy[0]}")
                self._attempt(request, number + 1, _PRIORITY_AGAIN)
            else:
                request.then(key, measured)

        # The seed differs from attempt to attempt, or a repetition would repeat the order of pairs, too.
        options = DuelOptions(
            max_seconds=latency.max_seconds, target_half_width=latency.target_half_width, seed=number - 1
        )
        self._graph.once(
            f"{request.key} attempt {number}", priority, BENCHMARK, "benchmark", steps.measure, plan.storage,
            request.reference, request.artifact, request.settings, plan.scene_key, plan.spec.postprocessing, options,
            then=take,
        )  # fmt: skip

    def _is_to_be_repeated(self, latency: Latency) -> bool:
        return bool(latency.noisy) and latency.attempts <= self._plan.spec.latency.retries

    def _profiled(self, artifact: Artifact, settings: RuntimeSettings, then: Continuation) -> Continuation:
        """Puts the profile between a latency and what follows it, if the spec wants profiles."""
        profiles = self._profiles
        if profiles is None:
            return then

        def take(key: str, result: Latency | Failure) -> None:
            if isinstance(result, Failure):
                then(key, result)
            else:
                profiles.take(key, artifact, settings, lambda: then(key, result))

        return take


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
