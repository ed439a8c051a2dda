"""The laboratory of studies: candidates are made, timed and scored by tasks on an executor."""

from collections.abc import Callable
from functools import partial

from orchestrator.artifacts import known_artifact
from orchestrator.confirmation import Confirmation
from orchestrator.search.candidate import Candidate
from orchestrator.search.image_order import ImageOrder
from orchestrator.search.rung_accuracies import RungAccuracies, Subject
from orchestrator.search.rungs import Rung
from orchestrator.space import REFERENCE
from orchestrator.workshop import Gate, Workshop
from results.sweep_record import variant_key
from tasks.quantize.schemes import Qat
from tasks.types import Artifact, Failure, Latency, LossInterval, TrainingProgress, Variant

Timed = Callable[[Latency | Failure], None]


class ClusterLaboratory:
    """Measures candidates with the tools of a workshop; see `orchestrator.search.laboratory.Laboratory`."""

    def __init__(
        self, workshop: Workshop, accuracies: RungAccuracies, order: ImageOrder, first: Rung, inferred: int,
        is_resumed: bool = False,
    ) -> None:  # fmt: skip
        """Takes the tools.

        Args:
            workshop: Where everything is.
            accuracies: Its accuracies.
            order: Order of the images.
            first: The first look at a candidate.
            inferred: Images that verdicts of earlier runs account for, the reference's not included.
            is_resumed: Whether there were earlier runs, which may have inferred what no verdict accounts for.
        """
        self._shop, self._accuracies, self._earlier = workshop, accuracies, inferred
        self._is_resumed = is_resumed
        executor = workshop.graph.executor
        self.images = len(workshop.plan.evaluation)
        """All evaluation images."""
        self.width = max(1, -(-executor.cpus // len(order.within(first.images))))
        """Candidates whose first looks have a shard for every CPU."""
        self.training_width = executor.training_width
        """More would take turns."""
        self.times_elsewhere = not executor.shares_benchmark_node
        """Whether latencies have a node of their own."""
        self.latency_keys: dict[Variant, str] = {}
        """Keys of the latencies that the search goes by."""
        self.reference: Artifact | Failure | None = None
        """The LiteRT float32 build, or why there is none; None until it is made."""
        self.reference_latency_key: str | None = None
        """Key of its latency, once it is measured."""
        self._confirmation = Confirmation(workshop)
        self._made = Gate()

    @property
    def images_inferred(self) -> int:
        """Images inferred for the search so far; see `Laboratory`."""
        return self._earlier + self._accuracies.inferred.total()

    def begin(self) -> None:
        """Asks for the reference, and counts what earlier runs of the search inferred with it."""
        self._shop.artifacts.request(REFERENCE.scheme, self._take_reference)
        if isinstance(self.reference, Artifact):
            self._accuracies.count_earlier((self.reference, REFERENCE.settings), lambda: None)
            self.run()

    def _take_reference(self, result: Artifact | Failure) -> None:
        def take(key: str, latency: Latency | Failure) -> None:
            if isinstance(latency, Latency):
                self.reference_latency_key = key

        self.reference = result
        if isinstance(result, Artifact):
            self._shop.latencies.measure(result, result, REFERENCE.settings, take)
        self._made.open()

    def needs_training(self, candidate: Candidate) -> bool:
        """Whether it is trained, and its artifact not known yet; see `Laboratory`."""
        scheme, plan = candidate.variant.scheme, self._shop.plan
        return scheme.is_trained and known_artifact(plan, self._shop.store, plan.request_key(scheme)) is None

    def training_key(self, candidate: Candidate) -> str:
        """Names its training; see `Laboratory`."""
        scheme = candidate.variant.scheme
        assert isinstance(scheme, Qat)
        return self._shop.plan.training_key(scheme)

    def make(self, candidate: Candidate, then: Callable[[Artifact | Failure], None]) -> None:
        """Makes its artifact or its untrained twin's; see `Laboratory`."""
        scheme = candidate.variant.scheme
        if candidate.is_untrained:
            assert isinstance(scheme, Qat)
            self._shop.artifacts.request(scheme.untrained, then)
        else:
            self._shop.artifacts.request(scheme, self._counted(candidate, then))

    def train(
        self,
        candidate: Candidate,
        watch: Callable[[TrainingProgress], str | None],
        then: Callable[[Artifact | Failure], None],
    ) -> None:
        """Trains it and makes its artifact; see `Laboratory`."""
        self._shop.observer.stage(f"training {candidate.variant.label}")
        self._shop.artifacts.request(candidate.variant.scheme, self._counted(candidate, then), watch)

    def _counted(
        self, candidate: Candidate, then: Callable[[Artifact | Failure], None]
    ) -> Callable[[Artifact | Failure], None]:
        """What an earlier driver inferred with its artifact is counted before anything else."""

        def take(result: Artifact | Failure) -> None:
            if isinstance(result, Failure) or not self._is_resumed:
                then(result)
            else:
                self._accuracies.count_earlier((result, candidate.variant.settings), lambda: then(result))

        return take

    def time(self, candidate: Candidate, then: Timed) -> None:
        """Measures its structure's latency; see `Laboratory`."""
        self._made.after(lambda: self._time(candidate, then))

    def _time(self, candidate: Candidate, then: Timed) -> None:
        assert candidate.artifact is not None and self.reference is not None

        def take(key: str, result: Latency | Failure) -> None:
            self.latency_keys[candidate.variant] = key
            then(result)

        if isinstance(self.reference, Failure):
            then(self.reference)
            return
        self._shop.latencies.measure(self.reference, candidate.artifact, candidate.variant.settings, take)

    def look(self, candidate: Candidate, rung: Rung, then: Callable[[LossInterval | Failure], None]) -> None:
        """Scores it on the first images; see `Laboratory`."""
        assert isinstance(self.reference, Artifact)
        self._accuracies.look((self.reference, REFERENCE.settings), subject_of(candidate), rung, then)

    def confirm(self, candidate: Candidate, then: Timed) -> None:
        """Measures its own bytes, and confirms its score and the reference's; see `Laboratory`."""
        self._shop.observer.stage(f"measuring the fastest again: {candidate.variant.label}")
        artifact, settings = subject_of(candidate)
        assert isinstance(self.reference, Artifact)
        self._shop.latencies.measure_again(
            self.reference, artifact, settings, partial(self._take_own, candidate, self.reference, then)
        )

    def _take_own(
        self, candidate: Candidate, reference: Artifact, then: Timed, key: str, result: Latency | Failure
    ) -> None:
        if isinstance(result, Failure):
            then(result)
            return
        assert candidate.latency is not None
        replaces = not result.noisy and result.is_apart_from(candidate.latency)
        record = self._shop.record
        self._shop.store.put_own_latency(
            record.key, variant_key(record.detector_sha256, candidate.variant), key, replaces
        )
        if replaces:
            self.latency_keys[candidate.variant] = key
        self._confirm_scores(candidate, reference, partial(then, result), lambda failure: then(failure))

    def _confirm_scores(
        self, candidate: Candidate, reference: Artifact, well: Callable[[], None], ill: Callable[[Failure], None]
    ) -> None:
        confirmation, variant, (artifact, _) = self._confirmation, candidate.variant, subject_of(candidate)
        steps = [
            partial(confirmation.score, variant, artifact),
            partial(confirmation.score, REFERENCE, reference),
            partial(confirmation.score_elsewhere, variant, artifact, reference),
        ]

        def go_on(failed: tuple[str, Failure] | None) -> None:
            if failed is not None:
                ill(failed[1])
            elif steps:
                steps.pop(0)(go_on)
            else:
                well()

        go_on(None)

    def run(self) -> None:
        """Runs tasks until none is left; see `Laboratory`."""
        self._shop.graph.run()


def subject_of(candidate: Candidate) -> Subject:
    """Says what is scored and timed of a candidate.

    Args:
        candidate: One that was made.

    Returns:
        Its artifact and how it is run.
    """
    assert candidate.artifact is not None
    return candidate.artifact, candidate.variant.settings
