"""Profiles of a plan: where the time of each timed structure goes, operator by operator."""

from collections.abc import Callable

from cluster.lanes import BENCHMARK
from orchestrator.graph import Graph
from orchestrator.plan import Plan
from results.store import Store
from tasks.identity import key_of
from tasks.runtimes.base import runtime_of
from tasks.steps import latencies as steps
from tasks.types import Artifact, Failure, RuntimeSettings

PROFILE_SECONDS = 10.0
"""Time to spend on one profile, about."""

_PRIORITY = 9


class Profiles:
    """Takes what the database does not have yet."""

    def __init__(self, plan: Plan, graph: Graph, store: Store) -> None:
        """Takes what is needed.

        Args:
            plan: What is to be done; its scene is in storage.
            graph: Where the work goes.
            store: Where results go.
        """
        self._plan, self._graph, self._store = plan, graph, store

    def take(self, latency_key: str, artifact: Artifact, settings: RuntimeSettings, then: Callable[[], None]) -> None:
        """Sees to it that the profile of a latency is stored, if its runtime can tell.

        Args:
            latency_key: Key of the latency that it belongs to.
            artifact: What is profiled.
            settings: How it is run.
            then: Called afterwards. A profile that fails is recorded as a failure under a key of its own; the variant
                has all its results without it.
        """
        if runtime_of(settings.runtime).profile is None or self._store.profile_of(latency_key) is not None:
            then()
            return

        def stored(result: steps.Profiled | Failure) -> None:
            if isinstance(result, Failure):
                self._store.put_failure(profile_key(latency_key), result)
            else:
                self._store.put_profile(latency_key, result.profile)
            then()

        self._graph.once(
            profile_key(latency_key), _PRIORITY, BENCHMARK, "profile", steps.take_profile, self._plan.storage, artifact,
            settings, self._plan.scene_key, PROFILE_SECONDS, then=stored,
        )  # fmt: skip


def profile_key(latency_key: str) -> str:
    """Returns the key under which the failure of a profile is stored."""
    return key_of("profile", latency_key)
