"""Accuracies in rungs: detections of each shard are kept, so that a look never infers an image a second time."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from cluster.executor import Ref
from cluster.lanes import LANES_BY_FRAMEWORK, LIGHT
from orchestrator.accuracies import Accuracies
from orchestrator.budget import Budget
from orchestrator.graph import Graph
from orchestrator.images import PreparedImages
from orchestrator.plan import Plan
from orchestrator.progress import Observer
from orchestrator.search.image_order import ImageOrder
from orchestrator.search.rungs import Rung
from results.store import Store
from tasks.identity import key_of
from tasks.runtimes.base import runtime_of
from tasks.steps import accuracies as steps
from tasks.types import Accuracy, Artifact, Failure, LossInterval, RuntimeSettings

_SCORE, _DETECT = 3, 4

Subject = tuple[Artifact, RuntimeSettings]
"""What is scored, and how it is run."""

Continuation = Callable[[LossInterval | Failure], None]
"""Gets the loss on the images of a rung, or why there is none."""

_ANY_LOSS = Budget("AP", 1.0, is_relative=False)
"""Where there is no budget, losses are of AP."""

_POSITIONS = {"AP": 0, "AP50": 1, "AP75": 2}


class RungAccuracies(Accuracies):
    """Scores what is not known yet, on as many images as are asked for. Made by the `scoring` of a workshop."""

    def __init__(
        self, plan: Plan, graph: Graph, store: Store, ground_truth: Ref, images: PreparedImages, observer: Observer,
        order: ImageOrder, owner: str, level: float,
    ) -> None:  # fmt: skip
        """Takes what artifacts are scored on.

        Args:
            plan: What is to be done.
            graph: Where the work goes.
            store: Where results go.
            ground_truth: A ref to the annotations of the evaluation images.
            images: The evaluation images, prepared shard by shard of the order.
            observer: Who counts inferences.
            order: Order of the images.
            owner: Key of the study.
            level: Level of the intervals of whole scores, in (0, 1).
        """
        super().__init__(plan, graph, store, ground_truth, images, observer)
        self._order, self._owner, self._level = order, owner, level
        self._budget = plan.spec.budget or _ANY_LOSS
        self.inferred: Counter[str] = Counter()
        """Images inferred for the study since this driver began, or by earlier ones that did not get to count them, by
        the key of the accuracy that they are for."""
        self._counted: set[str] = set()

    def note_counted(self, subject: Subject, images: int) -> None:
        """Says that the inferences of earlier drivers of this study are counted already.

        Args:
            subject: What was looked at.
            images: On how many images, at most: the end of a rung.
        """
        self._counted.update(self._shard_keys(subject, images))

    def count_earlier(self, subject: Subject, then: Callable[[], None]) -> None:
        """Counts what earlier drivers of this study inferred and did not get to count.

        Args:
            subject: What they may have looked at.
            then: Called when it is counted.
        """
        key = self._plan.accuracy_key(*subject)

        def take(result: tuple[str, ...] | Failure) -> None:
            if not isinstance(result, Failure):
                self.inferred[key] += sum(sizes[each] for each in result if each not in self._counted)
                self._counted.update(result)
            then()

        sizes = dict(zip(self._shard_keys(subject), self._images.counts, strict=True))
        self._graph.once(
            f"count {key}", _SCORE, LIGHT, "count", steps.kept_for, self._plan.storage, self._owner, tuple(sizes),
            then=take,
        )  # fmt: skip

    def look(self, reference: Subject, subject: Subject, rung: Rung, then: Continuation) -> None:
        """Asks for the loss on the first images of the order.

        Args:
            reference: The LiteRT float32 build.
            subject: What is compared with it.
            rung: How many images, and how sure.
            then: Gets the loss of the budget's metric as the budget counts it, on the images of the rung, or on all
                images if that is known already.
        """
        known = self._store.accuracy_of(self._plan.accuracy_key(*subject))
        if isinstance(known, Failure):
            then(known)
        elif rung.is_last or known is not None:
            self._whole(reference, subject, then)
        else:
            self._part(reference, subject, rung, then)

    def _part(self, reference: Subject, subject: Subject, rung: Rung, then: Continuation) -> None:
        keys = tuple(tuple(self._shard_keys(each, rung.images)) for each in (reference, subject))
        missing = 2

        def take(accuracy_key: str, failure: Failure | None) -> None:
            nonlocal missing
            missing -= 1
            if failure is not None:
                self._store.put_failure(accuracy_key, failure)
                if missing >= 0:
                    missing = -1
                    then(failure)
            elif missing == 0:
                self._graph.once(
                    f"look {key_of(keys)}", _SCORE, LIGHT, "score", steps.look, self._plan.storage, self._truth, *keys,
                    rung.level, self._budget.metric, self._budget.is_relative, then=then,
                )  # fmt: skip

        for each in (reference, subject):
            self._detected(each, rung.images, partial(take, self._plan.accuracy_key(*each)))

    def _whole(self, reference: Subject, subject: Subject, then: Continuation) -> None:
        def take_reference(key: str, before: Accuracy | Failure) -> None:
            if isinstance(before, Failure):
                then(before)
            else:
                self.evaluate(*subject, lambda *scored: take(key, before, *scored))

        def take(reference_key: str, before: Accuracy, key: str, after: Accuracy | Failure) -> None:
            if isinstance(after, Failure):
                then(after)
            else:
                self.compare((reference_key, before), (key, after), partial(self._judge, before, after, then))

        self.evaluate(*reference, take_reference)

    def _judge(self, before: Accuracy, after: Accuracy, then: Continuation, key: str, failure: Failure | None) -> None:
        """Goes on from the stored interval of the AP loss to that of the budget's metric."""
        budget = self._budget
        loss = _loss(before, after, budget)
        stored = self._store.loss_interval_of(key)
        if failure is not None:
            then(failure)
        elif loss is None:
            then(
                Failure("score", "scoring_failed", f"the reference's {budget.metric} is 0: no share of it can be lost")
            )
        elif stored is not None and (budget.metric, budget.is_relative, stored.level) == ("AP", False, self._level):
            then(replace(stored, loss=loss))
        else:
            self._graph.once(
                f"{key} {budget.metric} {budget.is_relative} {self._level}", _SCORE, LIGHT, "score", steps.compare,
                self._plan.storage, self._truth, before, after, self._level, budget.metric, budget.is_relative,
                then=lambda found: then(found if isinstance(found, Failure) else replace(found, loss=loss)),
            )  # fmt: skip

    def _detect(self, key: str, artifact: Artifact, settings: RuntimeSettings) -> None:
        """Scores on all images, as `Accuracies` has it, from kept detections."""
        keys = tuple(self._shard_keys((artifact, settings)))

        def take(failure: Failure | None) -> None:
            if failure is not None:
                self._settle(key, artifact, settings, failure)
                return
            self._graph.once(
                f"score {key}", _SCORE, LIGHT, "score", steps.score_kept, self._plan.storage, self._truth, keys,
                then=lambda result: self._settle(key, artifact, settings, result),
            )  # fmt: skip

        self._detected((artifact, settings), len(self._plan.evaluation), take)

    def _detected(self, subject: Subject, images: int, then: Callable[[Failure | None], None]) -> None:
        """Sees to it that the detections on the first images are kept; calls back once, when all tasks have ended."""
        plan, (artifact, settings) = self._plan, subject
        accuracy_key = plan.accuracy_key(artifact, settings)
        # A task claims one CPU; outputs do not depend on the number of threads.
        settings = replace(settings, threads=1)
        lane = LANES_BY_FRAMEWORK[runtime_of(settings.runtime).framework]
        keys = self._shard_keys(subject, images)
        missing, failed = len(keys), None

        def take(key: str, result: int | Failure) -> None:
            nonlocal missing, failed
            missing -= 1
            if isinstance(result, Failure):
                failed = failed or result
            elif key not in self._counted:
                self._counted.add(key)
                self.inferred[accuracy_key] += result
                self._observer.inferred(result)
            if missing == 0:
                then(failed)

        for key, shard in zip(keys, self._images.evaluation, strict=False):
            self._graph.once(
                f"detect {key}", _DETECT, lane, "detect", steps.detect_and_keep, plan.storage, key, self._owner,
                artifact, settings, plan.detector.spec, plan.spec.postprocessing, shard, then=partial(take, key),
            )  # fmt: skip

    def _shard_keys(self, subject: Subject, images: int | None = None) -> list[str]:
        """Keys of the kept detections on the first images, on all if None."""
        plan, (artifact, settings) = self._plan, subject
        wanted = self._order.within(len(plan.evaluation) if images is None else images)
        scoring = plan.scoring(settings)
        shards = [[file.image_id for file in self._order.shards[position]] for position in wanted]
        return [
            key_of("detections", artifact.sha256, plan.evaluation.fingerprint, scoring, image_ids)
            for image_ids in shards
        ]


def _loss(before: Accuracy, after: Accuracy, budget: Budget) -> float | None:
    """The loss as the leaderboard has it; None of a share of nothing."""
    position = _POSITIONS[budget.metric]
    reference, lost = before.statistics[position], before.statistics[position] - after.statistics[position]
    if not budget.is_relative:
        return lost
    return lost / reference if reference > 0 else None
