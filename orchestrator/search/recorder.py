"""The recorder: every verdict of a search into our database, in one transaction."""

from collections import Counter
from collections.abc import Mapping

from orchestrator.search.candidate import Candidate
from orchestrator.search.cluster_laboratory import ClusterLaboratory, subject_of
from orchestrator.search.observer import Unobserved
from orchestrator.search.rung_accuracies import RungAccuracies
from orchestrator.space import REFERENCE
from orchestrator.workshop import Workshop
from results.sweep_record import variant_key
from tasks.identity import key_of
from tasks.types import Accuracy, Artifact, Variant, Verdict


class Recorder(Unobserved):
    """Writes down what became of candidates."""

    def __init__(
        self,
        workshop: Workshop,
        accuracies: RungAccuracies,
        laboratory: ClusterLaboratory,
        earlier: Mapping[Variant, int],
    ) -> None:
        """Takes what it needs to know.

        Args:
            workshop: Where the database is.
            accuracies: Who counts inferred images.
            laboratory: Who knows the keys of latencies.
            earlier: Images inferred for each variant by earlier runs, as far as the database knows.
        """
        self._shop, self._accuracies, self._laboratory = workshop, accuracies, laboratory
        self._inferred = Counter(earlier)
        self._told: Counter[str] = Counter()
        self._reference_written: tuple[int, bool] | None = None

    def settled(self, candidate: Candidate) -> None:
        """Writes a verdict; see `SearchObserver`."""
        verdict, shop, variant = candidate.verdict, self._shop, candidate.variant
        assert verdict is not None
        made = candidate.artifact is not None and not candidate.is_untrained
        is_scored = verdict.images == verdict.all_images
        accuracy_key = shop.plan.accuracy_key(*subject_of(candidate)) if made else None
        failure_key = self._failure_key(candidate) if verdict.kind in ("failed", "unsupported") else None
        if failure_key is not None and candidate.failure is not None:
            shop.store.put_failure(failure_key, candidate.failure)
        has_accuracy = is_scored and accuracy_key is not None
        shop.store.settle_variant(
            shop.record.key,
            self._key(variant),
            "failed" if failure_key else "done" if is_scored else "stopped",
            request_key=shop.plan.request_key(variant.scheme) if made else None,
            accuracy_key=accuracy_key if has_accuracy else None,
            latency_key=self._laboratory.latency_keys.get(variant) if candidate.latency else None,
            failure_key=failure_key,
            training_key=shop.plan.key_of_training(variant.scheme),
            verdict=verdict,
            trial=None if candidate.ask.is_warm else candidate.ask.number,
            inferred=self._inferred_for(variant, accuracy_key),
        )
        self.write_reference()

    def write_reference(self) -> None:
        """Writes how far the reference is, if that has changed."""
        shop, laboratory = self._shop, self._laboratory
        reference, latency_key = laboratory.reference, laboratory.reference_latency_key
        if not isinstance(reference, Artifact) or latency_key is None:
            return
        accuracy_key = shop.plan.accuracy_key(reference, REFERENCE.settings)
        inferred, is_scored = self._accuracies.inferred[accuracy_key], self._is_scored(accuracy_key)
        if self._reference_written == (inferred, is_scored):
            return
        self._reference_written = inferred, is_scored
        everything = laboratory.images
        shop.store.settle_variant(
            shop.record.key,
            self._key(REFERENCE),
            "done" if is_scored else "stopped",
            request_key=shop.plan.request_key(REFERENCE.scheme),
            accuracy_key=accuracy_key if is_scored else None,
            latency_key=latency_key,
            verdict=Verdict(
                "feasible" if is_scored else "unsettled", everything if is_scored else inferred, everything, None,
                "the reference: losses refer to it",
            ),
            inferred=inferred,
        )  # fmt: skip

    def _is_scored(self, accuracy_key: str) -> bool:
        return isinstance(self._shop.store.accuracy_of(accuracy_key), Accuracy)

    def _inferred_for(self, variant: Variant, accuracy_key: str | None) -> int:
        """Images inferred for a variant; those of equal bytes are told of the first of them alone."""
        reference = self._laboratory.reference
        is_reference = isinstance(reference, Artifact) and accuracy_key == self._shop.plan.accuracy_key(
            reference, REFERENCE.settings
        )
        if accuracy_key is not None and not is_reference:
            total = self._accuracies.inferred[accuracy_key]
            self._inferred[variant] += total - self._told[accuracy_key]
            self._told[accuracy_key] = total
        return self._inferred[variant]

    def _failure_key(self, candidate: Candidate) -> str:
        return key_of("search failure", self._shop.record.key, self._key(candidate.variant))

    def _key(self, variant: Variant) -> str:
        return variant_key(self._shop.record.detector_sha256, variant)
