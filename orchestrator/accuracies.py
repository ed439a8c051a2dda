"""Accuracies of a plan: each artifact scored once, and compared with the reference."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from cluster.executor import Ref
from cluster.lanes import LANES_BY_FRAMEWORK, LIGHT
from orchestrator.graph import Graph
from orchestrator.images import PreparedImages
from orchestrator.plan import Plan
from orchestrator.progress import Observer
from results.store import Store
from tasks.runtimes.base import runtime_of
from tasks.steps import accuracies as steps
from tasks.types import Accuracy, Artifact, Failure, LossInterval, RuntimeSettings

_SCORE, _DETECT = 3, 4

Continuation = Callable[[str, "Accuracy | Failure"], None]
"""Gets the key and the accuracy, or why there is none."""


class Accuracies:
    """Scores what the database does not know yet."""

    def __init__(
        self, plan: Plan, graph: Graph, store: Store, ground_truth: Ref, images: PreparedImages, observer: Observer
    ) -> None:
        """Takes what artifacts are scored on.

        Args:
            plan: What is to be done.
            graph: Where the work goes.
            store: Where results go.
            ground_truth: A ref to the annotations of the evaluation images.
            images: Where preprocessed images come from.
            observer: Who counts inferences.
        """
        self._plan, self._graph, self._store = plan, graph, store
        self._truth, self._images, self._observer = ground_truth, images, observer
        self._waiting: dict[str, list[Continuation]] = {}

    def evaluate(self, artifact: Artifact, settings: RuntimeSettings, then: Continuation) -> None:
        """Asks for the accuracy of an artifact.

        Args:
            artifact: What is scored.
            settings: How it is run.
            then: Gets its key and the accuracy, or a `Failure`.
        """
        key = self._plan.accuracy_key(artifact, settings)
        known = self._store.accuracy_of(key)
        if known is not None:
            then(key, known)
            return
        waiting = self._waiting.setdefault(key, [])
        waiting.append(then)
        if len(waiting) == 1:
            self._detect(key, artifact, settings)

    def _detect(self, key: str, artifact: Artifact, settings: RuntimeSettings) -> None:
        plan, images = self._plan, self._images
        # A task claims one CPU; outputs do not depend on the number of threads.
        settings = replace(settings, threads=1)
        lane = LANES_BY_FRAMEWORK[runtime_of(settings.runtime).framework]
        shards: list[Ref] = []

        def take(count: int, shard: Ref) -> None:
            shards.append(shard)
            self._observer.inferred(count)
            if len(shards) == len(images.evaluation):
                self._graph.once(
                    f"score {key}", _SCORE, LIGHT, "score", steps.score_shards, plan.storage, self._truth, *shards,
                    then=lambda result: self._settle(key, artifact, settings, result),
                )  # fmt: skip

        for index, (part, count) in enumerate(zip(images.evaluation, images.counts, strict=True)):
            self._graph.once(
                f"detect {key} {index}", _DETECT, lane, "detect", steps.detect, plan.storage, artifact, settings,
                plan.detector.spec, plan.spec.postprocessing, part, then=partial(take, count), stays=True,
            )  # fmt: skip

    def _settle(self, key: str, artifact: Artifact, settings: RuntimeSettings, result: Accuracy | Failure) -> None:
        if isinstance(result, Failure):
            self._store.put_failure(key, result)
        else:
            fingerprint = self._plan.evaluation.fingerprint
            self._store.put_accuracy(key, artifact.sha256, fingerprint, result, self._plan.scoring(settings))
        for then in self._waiting.pop(key):
            then(key, result)

    def compare(
        self, reference: tuple[str, Accuracy], other: tuple[str, Accuracy], then: Callable[[str, Failure | None], None]
    ) -> None:
        """Sees to it that the interval of a loss is stored.

        Args:
            reference: Key and accuracy that the loss refers to.
            other: Key and accuracy that is compared with it.
            then: Gets the key of the interval, and why there is none, if there is none.
        """
        key = self._plan.interval_key(reference[0], other[0])
        if self._store.loss_interval_of(key) is not None:
            then(key, None)
            return

        def take(result: LossInterval | Failure) -> None:
            if isinstance(result, Failure):
                self._store.put_failure(key, result)
                then(key, result)
            else:
                self._store.put_loss_interval(key, other[0], reference[0], result)
                then(key, None)

        self._graph.once(
            key, _SCORE, LIGHT, "score", steps.compare, self._plan.storage, self._truth, reference[1], other[1],
            then=take,
        )  # fmt: skip
