"""Artifacts of a plan: each made once, after what it starts from."""

from collections.abc import Callable
from functools import partial

from cluster.executor import Ref
from cluster.lanes import LANES_BY_FRAMEWORK, Lane
from orchestrator.calibration import Calibration
from orchestrator.graph import Graph
from orchestrator.plan import Plan
from orchestrator.sensitivity import Sensitivities
from results.store import Store
from tasks import steps
from tasks.quantize.artifact import source_of, toolchain_versions
from tasks.quantize.builders import builder_of
from tasks.quantize.kept_layers import NONE
from tasks.quantize.schemes import Scheme
from tasks.quantize.transforms.base import transform_of
from tasks.types import Artifact, Failure

_PRIORITY = 2

Continuation = Callable[["Artifact | Failure"], None]
"""Gets the artifact, or why there is none."""


class Artifacts:
    """Makes what the database does not know yet."""

    def __init__(
        self, plan: Plan, graph: Graph, store: Store, detector: Ref, calibration: Calibration, rankings: Sensitivities
    ) -> None:
        """Takes what artifacts are made from.

        Args:
            plan: What is to be done.
            graph: Where the work goes.
            store: Where results go.
            detector: A ref to the detector.
            calibration: Where statistics come from.
            rankings: Where rankings of layers come from.
        """
        self._plan, self._graph, self._store, self._detector = plan, graph, store, detector
        self._calibration, self._rankings = calibration, rankings
        self._waiting: dict[str, list[Continuation]] = {}

    def request(self, scheme: Scheme, then: Continuation) -> None:
        """Asks for an artifact.

        Args:
            scheme: How it is made.
            then: Gets the artifact, or a `Failure`.
        """
        key = self._plan.request_key(scheme)
        known = known_artifact(self._plan, self._store, key)
        if known is not None:
            then(known)
            return
        waiting = self._waiting.setdefault(key, [])
        waiting.append(then)
        if len(waiting) == 1:
            self.with_foundation(scheme, partial(self._ranked, scheme))

    def with_foundation(
        self, scheme: Scheme, then: Callable[["Artifact | Failure | None", "Ref | Failure | None"], None]
    ) -> None:
        """Asks for what an artifact starts from.

        Args:
            scheme: How it is made.
            then: Gets the float32 .tflite and a ref to the statistics, each None if the scheme needs none, or a
                `Failure`.
        """
        source = source_of(scheme)
        if source is None:
            then(None, None)
            return

        def calibrated(made: Artifact | Failure) -> None:
            if isinstance(made, Failure) or not scheme.is_calibrated:
                then(made, None)
                return
            axes = scheme.axes()
            self._calibration.statistics(
                made, axes["calibration_seed"], axes["calibration_images"], lambda found: then(made, found)
            )

        self.request(source, calibrated)

    def _ranked(self, scheme: Scheme, source: Artifact | Failure | None, statistics: Ref | Failure | None) -> None:
        if isinstance(source, Failure):
            self._settle(scheme, source)
        elif isinstance(statistics, Failure):
            self._settle(scheme, statistics)
        elif scheme.needs_ranking and source is not None:
            self._rankings.ranking(
                scheme.keeping(NONE), source, statistics, partial(self._build, scheme, source, statistics)
            )
        else:
            self._build(scheme, source, statistics, ())

    def _build(
        self, scheme: Scheme, source: Artifact | None, statistics: Ref | None, ranking: tuple[str, ...] | Failure
    ) -> None:
        if isinstance(ranking, Failure):
            self._settle(scheme, ranking)
            return
        self._graph.once(
            self._plan.request_key(scheme), _PRIORITY, _lane_of(scheme), "quantize", steps.build, self._detector,
            scheme, source, statistics, ranking, self._plan.storage, then=partial(self._settle, scheme),
        )  # fmt: skip

    def _settle(self, scheme: Scheme, result: steps.Built | Failure) -> None:
        key = self._plan.request_key(scheme)
        if isinstance(result, Failure):
            self._store.put_failure(key, result)
            made: Artifact | Failure = result
        else:
            made = result.artifact
            self._store.put_artifact(
                key, self._plan.detector.sha256, scheme, toolchain_versions(scheme), made, result.seconds
            )
        for then in self._waiting.pop(key):
            then(made)


def known_artifact(plan: Plan, store: Store, request_key: str) -> Artifact | Failure | None:
    """Finds what an earlier run made, if its file is still there.

    Args:
        plan: What is to be done.
        store: Where results are.
        request_key: Key of the request.

    Returns:
        The artifact, a failure that a rerun keeps, or None if it must be made.
    """
    known = store.artifact_of(request_key)
    is_gone = isinstance(known, Artifact) and not plan.storage.has(known.sha256, known.format)
    return None if is_gone else known


def _lane_of(scheme: Scheme) -> Lane:
    """The lane of the builder; a builder that starts from the detector does the scheme's transform, too."""
    builder, transform = builder_of(scheme), transform_of(scheme.transform)
    frameworks = {builder.framework} | ({transform.framework} if transform and not builder.from_float32 else set())
    return LANES_BY_FRAMEWORK[max(frameworks, key=lambda framework: framework != "none")]
