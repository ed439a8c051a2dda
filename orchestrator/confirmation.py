"""Confirmations: the scores that matter are scored again by the reference scorer, and on images kept apart."""

from collections.abc import Callable
from functools import partial

from cluster.executor import Ref
from cluster.lanes import LIGHT
from orchestrator.accuracies import Accuracies
from orchestrator.space import REFERENCE
from orchestrator.workshop import Workshop
from results.sweep_record import variant_key
from tasks.identity import key_of
from tasks.steps import accuracies as steps
from tasks.types import Accuracy, Artifact, Failure, Variant

_SCORE = 3

Continuation = Callable[["tuple[str, Failure] | None"], None]
"""Gets the key under which a failure is stored and the failure, or None if all is well."""


class Confirmation:
    """Confirms the scores of the winner and of the reference."""

    def __init__(self, workshop: Workshop) -> None:
        """Takes what scores.

        Args:
            workshop: Where the variants were measured.
        """
        self._shop = workshop
        self._elsewhere = _accuracies_elsewhere(workshop)

    def score(self, variant: Variant, artifact: Artifact, then: Continuation) -> None:
        """Has the reference scorer confirm a score on the evaluation images, once.

        Args:
            variant: What was scored; its accuracy is stored.
            artifact: What was made of it.
            then: Called afterwards.
        """
        accuracy_key = self._shop.plan.accuracy_key(artifact, variant.settings)
        self._score_again(accuracy_key, self._shop.truth, then)

    def score_elsewhere(self, variant: Variant, artifact: Artifact, reference: Artifact, then: Continuation) -> None:
        """Scores a variant and the reference on the confirmation images, if the spec has some, and compares them.

        Args:
            variant: The winner.
            artifact: What was made of it.
            reference: The LiteRT float32 build.
            then: Called afterwards.
        """
        if self._elsewhere is None:
            then(None)
            return
        accuracies, truth = self._elsewhere

        def take_reference(key: str, found: Accuracy | Failure) -> None:
            if isinstance(found, Failure):
                then((key, found))
                return
            self._note(REFERENCE, key)
            accuracies.evaluate(artifact, variant.settings, partial(take, key, found))

        def take(reference_key: str, before: Accuracy, key: str, found: Accuracy | Failure) -> None:
            if isinstance(found, Failure):
                then((key, found))
                return
            self._note(variant, key)
            accuracies.compare((reference_key, before), (key, found), partial(compared, reference_key, key))

        def compared(reference_key: str, key: str, interval_key: str, failure: Failure | None) -> None:
            if failure is not None:
                then((interval_key, failure))
                return
            self._score_again(
                reference_key, truth, lambda failed: then(failed) if failed else self._score_again(key, truth, then)
            )

        accuracies.evaluate(reference, REFERENCE.settings, take_reference)

    def _score_again(self, accuracy_key: str, truth: Ref, then: Continuation) -> None:
        store, storage = self._shop.store, self._shop.plan.storage

        def take(result: str | Failure) -> None:
            if isinstance(result, Failure):
                failure_key = key_of("confirmation", accuracy_key)
                store.put_failure(failure_key, result)
                then((failure_key, result))
            else:
                store.confirm_accuracy(accuracy_key, result)
                then(None)

        if store.confirmed_by(accuracy_key) is not None:
            then(None)
            return
        self._shop.graph.once(
            f"confirm {accuracy_key}", _SCORE, LIGHT, "score", steps.confirm, storage, truth,
            store.accuracy_of(accuracy_key), then=take,
        )  # fmt: skip

    def _note(self, variant: Variant, accuracy_key: str) -> None:
        record = self._shop.record
        self._shop.store.put_confirmation(record.key, variant_key(record.detector_sha256, variant), accuracy_key)


def _accuracies_elsewhere(shop: Workshop) -> tuple[Accuracies, Ref] | None:
    """What scores on the confirmation images, with a ref to their annotations."""
    if shop.plan_elsewhere is None or shop.images_elsewhere is None:
        return None
    truth = shop.graph.executor.put(shop.plan_elsewhere.evaluation.ground_truth())
    return Accuracies(shop.plan_elsewhere, shop.graph, shop.store, truth, shop.images_elsewhere, shop.observer), truth
