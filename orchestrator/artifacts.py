"""Artifacts of a plan: each made once, after what it starts from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from cluster.executor import Ref
from cluster.lanes import LANES_BY_FRAMEWORK
from orchestrator.block import DEFAULT_RUNTIME
from orchestrator.calibration import Calibration
from orchestrator.graph import Graph
from orchestrator.images import PreparedImages
from orchestrator.plan import TRAINED_FOR, Plan
from orchestrator.sensitivity import Sensitivities
from orchestrator.trainings import Trainings, Watch, patient
from results.store import Store
from tasks.errors import TrainingStopped
from tasks.quantize.artifact import observed_by, source_of, toolchain_versions
from tasks.quantize.builders import builder_of
from tasks.quantize.kept_layers import NONE
from tasks.quantize.schemes import TRAINING_AXES, Qat, Scheme
from tasks.quantize.transforms.base import transform_of
from tasks.steps import artifacts as steps
from tasks.types import Artifact, Failure, TrainingProgress

_PRIORITY = 2

Continuation = Callable[["Artifact | Failure"], None]
"""Gets the artifact, or why there is none."""


@dataclass(frozen=True)
class Foundation:
    """What an artifact starts from besides the detector."""

    source: Artifact | None
    """The float32 artifact, if the toolchain starts from one."""

    statistics: Ref | None = None
    """A ref to the statistics of activations, if the toolchain is calibrated with them."""

    images: Ref | None = None
    """A ref to the shard of calibration images, if the toolchain is calibrated with those."""


class Artifacts:
    """Makes what the database does not know yet."""

    def __init__(
        self,
        plan: Plan,
        graph: Graph,
        store: Store,
        detector: Ref,
        images: PreparedImages,
        calibration: Calibration,
        rankings: Sensitivities,
        trainings: Trainings,
    ) -> None:
        """Takes what artifacts are made from.

        Args:
            plan: What is to be done.
            graph: Where the work goes.
            store: Where results go.
            detector: A ref to the detector.
            images: Where calibration images come from.
            calibration: Where statistics come from.
            rankings: Where rankings of layers come from.
            trainings: Where trained weights come from.
        """
        self._plan, self._graph, self._store, self._detector = plan, graph, store, detector
        self._images, self._calibration, self._rankings = images, calibration, rankings
        self._trainings = trainings
        self._waiting: dict[str, list[tuple[Watch, Continuation]]] = {}

    def request(self, scheme: Scheme, then: Continuation, watch: Watch = patient) -> None:
        """Asks for an artifact.

        Args:
            scheme: How it is made.
            then: Gets the artifact, or a `Failure`.
            watch: Hears of its training, if it is trained, and may end it.
        """
        key = self._plan.request_key(scheme)
        known = known_artifact(self._plan, self._store, key)
        if known is not None:
            then(known)
            return
        waiting = self._waiting.setdefault(key, [])
        waiting.append((watch, then))
        if len(waiting) == 1:
            self.with_foundation(scheme, partial(self._founded, scheme))

    def with_foundation(self, scheme: Scheme, then: Callable[["Foundation | Failure"], None]) -> None:
        """Asks for what an artifact starts from.

        Args:
            scheme: How it is made.
            then: Gets it, or a `Failure`.
        """
        source = source_of(scheme)
        if source is None:
            self._calibrated(scheme, None, then)
        else:
            self.request(source, lambda made: self._calibrated(scheme, made, then))

    def _calibrated(
        self, scheme: Scheme, source: Artifact | Failure | None, then: Callable[["Foundation | Failure"], None]
    ) -> None:
        observed = observed_by(scheme)
        axes = scheme.axes()
        if isinstance(source, Failure):
            then(source)
        elif observed is not None:
            self.request(observed, lambda made: self._observed(scheme, source, made, then))
        elif scheme.is_calibrated:
            images = self._images.sample(axes["calibration_seed"], axes["calibration_images"])
            then(Foundation(source, images=images))
        else:
            then(Foundation(source))

    def _observed(
        self,
        scheme: Scheme,
        source: Artifact | None,
        observed: Artifact | Failure,
        then: Callable[["Foundation | Failure"], None],
    ) -> None:
        def take(found: Ref | Failure) -> None:
            then(found if isinstance(found, Failure) else Foundation(source, statistics=found))

        if isinstance(observed, Failure):
            then(observed)
            return
        axes = scheme.axes()
        self._calibration.statistics(observed, axes["calibration_seed"], axes["calibration_images"], take)

    def _founded(self, scheme: Scheme, foundation: "Foundation | Failure") -> None:
        """Goes on from what the artifact starts from to the ranking of layers, if it needs one."""

        def rank(basis: Foundation | Failure) -> None:
            if isinstance(basis, Failure):
                self._settle(scheme, basis)
                return
            assert isinstance(foundation, Foundation) and basis.source is not None
            self._rankings.ranking(
                ranked_by(scheme), basis.source, basis.statistics, partial(self._ranked, scheme, foundation)
            )

        if isinstance(foundation, Failure):
            self._settle(scheme, foundation)
        elif scheme.needs_ranking:
            self.with_foundation(ranked_by(scheme), rank)
        else:
            self._ranked(scheme, foundation, ())

    def _ranked(self, scheme: Scheme, foundation: "Foundation", ranking: tuple[str, ...] | Failure) -> None:
        transform = transform_of(scheme.transform)
        if isinstance(ranking, Failure):
            self._settle(scheme, ranking)
        elif isinstance(scheme, Qat) and scheme.is_trained:
            self._trainings.train(
                scheme, foundation.statistics, ranking, partial(self._watched, scheme),
                partial(self._trained, scheme, foundation, ranking),
            )  # fmt: skip
        elif transform is None:
            self._build(scheme, foundation, ranking, self._detector)
        else:
            self._graph.once(
                f"transform {scheme.transform}", _PRIORITY, LANES_BY_FRAMEWORK[transform.framework], "transform",
                steps.transform, self._detector, scheme.transform,
                then=partial(self._build, scheme, foundation, ranking), stays=True,
            )  # fmt: skip

    def _watched(self, scheme: Scheme, progress: TrainingProgress) -> str | None:
        """Tells those who wait for an artifact how its training goes; it ends once none of them waits any longer."""
        reasons = [watch(progress) for watch, _ in self._waiting[self._plan.request_key(scheme)]]
        return reasons[0] if all(reasons) else None

    def _trained(
        self, scheme: Scheme, foundation: "Foundation", ranking: tuple[str, ...], result: TrainingProgress | Failure
    ) -> None:
        if isinstance(result, Failure):
            self._settle(scheme, result)
        else:
            self._build(scheme, foundation, ranking, self._detector, result.trained_sha256)

    def _build(
        self, scheme: Scheme, foundation: "Foundation", ranking: tuple[str, ...], detector: Ref,
        trained_sha256: str | None = None,
    ) -> None:  # fmt: skip
        lane = LANES_BY_FRAMEWORK[builder_of(scheme).framework]
        self._graph.once(
            self._plan.request_key(scheme), _PRIORITY, lane, "quantize", steps.build, detector, scheme,
            foundation.source, foundation.statistics, foundation.images, ranking, self._plan.storage, trained_sha256,
            then=partial(self._settle, scheme),
        )  # fmt: skip

    def _settle(self, scheme: Scheme, result: steps.Built | Failure) -> None:
        key = self._plan.request_key(scheme)
        if isinstance(result, Failure):
            if result.reason != TrainingStopped.reason:
                self._store.put_failure(key, result)
            made: Artifact | Failure = result
        else:
            made = result.artifact
            training = self._plan.key_of_training(scheme)
            self._store.put_artifact(
                key, self._plan.detector.sha256, scheme, toolchain_versions(scheme), made, result.seconds, training
            )
        for _, then in self._waiting.pop(key):
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


def ranked_by(scheme: Scheme) -> Scheme:
    """Tells which scheme's ranking of layers serves another one.

    How much noise a layer's numbers suffer lies in the numbers, not in who rounds them: litert-quantizer, which makes
    an artifact in a tenth of a second, ranks for every toolchain of other runtimes, and for every training, whose
    layers must be kept before anybody knows who makes what of it.

    Args:
        scheme: One that needs a ranking.

    Returns:
        Itself without kept layers if it is made for LiteRT by post-training quantization, else what litert-quantizer
        makes so of the same axes; of a training, of those axes that it depends on.
    """
    values: dict[str, Any] = {"keep_float": NONE}
    if isinstance(scheme, Qat):
        shared = {name: value for name, value in scheme.axes().items() if name in TRAINED_FOR - set(TRAINING_AXES)}
        return scheme.post_training(**{**shared, **values, "toolchain": "litert_quantizer"})
    if DEFAULT_RUNTIME not in builder_of(scheme).runtimes:
        values["toolchain"] = "litert_quantizer"
    return replace(scheme, **values)
