"""The sweep: every variant of a plan through the task graph, every result into the database as it comes."""

from dataclasses import dataclass
from functools import partial

from sqlalchemy import Engine

from cluster.executor import Executor
from orchestrator.artifacts import Foundation
from orchestrator.plan import Plan
from orchestrator.progress import Observer
from orchestrator.space import REFERENCE
from orchestrator.winner import Winner
from orchestrator.workshop import Gate, open_workshop
from results.store import Store
from results.sweep_record import SweepRecord, variant_key
from tasks.quantize.schemes import Scheme
from tasks.types import Accuracy, Artifact, Failure, Latency, Variant


@dataclass
class _Run:
    """How far one variant is."""

    variant: Variant
    """The variant."""

    request_key: str
    """Key of its artifact request."""

    artifact: Artifact | None = None
    accuracy: tuple[str, Accuracy] | None = None
    """Key and accuracy."""

    latency: tuple[str, Latency] | None = None
    """Key and latency."""

    failure: tuple[str, Failure] | None = None
    """Key and failure of the first step that failed."""

    awaited: int = 3
    """Results still missing: accuracy, its comparison with the reference's, and latency."""


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep did."""

    sweep_key: str
    """The sweep in the database."""

    submitted: int
    """Tasks that were run for it this time."""

    failed: int
    """Variants without a result."""


def record_of(plan: Plan, kind: str = "sweep") -> SweepRecord:
    """Describes a plan to the database.

    Args:
        plan: What is to be done.
        kind: Who does it: one of `results.schema.KINDS`.

    Returns:
        The record, whose key names the sweep.
    """
    budget = plan.spec.budget
    return SweepRecord(
        name=plan.spec.name,
        spec=plan.spec.text,
        detector_sha256=plan.detector.sha256,
        dataset_fingerprint=plan.evaluation.fingerprint,
        variants=plan.spec.space.variants,
        reference=REFERENCE,
        artifacts_url=plan.storage.url,
        provenance=plan.provenance,
        budget_metric=budget.metric if budget else None,
        budget_max_loss=budget.limit if budget else None,
        budget_relative=budget.is_relative if budget else False,
        kind=kind,
        confirm_fingerprint=plan.confirmation.fingerprint if plan.confirmation else None,
    )


class Sweep:
    """One run of a plan on an executor."""

    def __init__(self, plan: Plan, engine: Engine, observer: Observer) -> None:
        """Finds out what is left to do.

        Args:
            plan: What is to be done.
            engine: A database that can be written to, of `results.connect.open_database`.
            observer: Who wants to know.
        """
        self._plan, self._engine, self._store, self._observer = plan, engine, Store(engine), observer
        self._record = record_of(plan)
        self.key = self._record.key
        statuses = self._store.statuses(self.key)
        self.unsettled = tuple(
            variant
            for variant, key in zip(plan.spec.space.variants, self._record.variant_keys, strict=True)
            if statuses.get(key) != "done" and not (statuses.get(key) == "failed" and self._is_final(variant))
        )
        self.unanalysed = tuple(
            scheme
            for scheme in plan.spec.sensitivity
            if self._store.sensitivity_of(plan.sensitivity_key(scheme, scored=True)) is None
        )

    @property
    def is_finished(self) -> bool:
        """Whether everything is known already."""
        return not (self.unsettled or self.unanalysed)

    def _is_final(self, variant: Variant) -> bool:
        """Whether a failure of the variant is kept, so that trying again would only give it again."""
        made = self._store.artifact_of(self._plan.request_key(variant.scheme))
        if isinstance(made, Artifact):
            return isinstance(self._store.accuracy_of(self._plan.accuracy_key(made, variant.settings)), Failure)
        return isinstance(made, Failure)

    def run(self, executor: Executor) -> SweepOutcome:
        """Runs what is left.

        Args:
            executor: Where tasks run.

        Returns:
            What was done.

        Raises:
            DataMistake: If an image is damaged.
        """
        observer, variants = self._observer, self._plan.spec.space.variants
        observer.began(len(variants), len(variants) - len(self.unsettled), len(self._plan.evaluation))
        workshop = self._workshop = open_workshop(
            self._plan, self._record, self._store, executor, observer, self.unsettled, self.unanalysed
        )
        plan = self._plan = workshop.plan
        graph, artifacts = workshop.graph, workshop.artifacts
        observer.stage("building, scoring and timing")
        self._reference = _Run(REFERENCE, plan.request_key(REFERENCE.scheme))
        self._reference_made, self._reference_scored = Gate(), Gate()
        runs = [_Run(variant, plan.request_key(variant.scheme)) for variant in self.unsettled]
        artifacts.request(REFERENCE.scheme, self._take_reference)
        for run in runs:
            artifacts.request(run.variant.scheme, partial(self._take_artifact, run))
        unanalysed = self._analyse()
        graph.run()
        Winner(workshop, self._engine).settle()
        self._store.finish_sweep(self.key)
        return SweepOutcome(
            self.key, graph.submitted, sum(run.failure is not None for run in runs) + len(unanalysed)
        )  # fmt: skip

    def _analyse(self) -> list[Scheme]:
        """Starts the analyses of the spec; returns those that failed, once the graph has run."""
        artifacts, sensitivities = self._workshop.artifacts, self._workshop.sensitivities
        failed: list[Scheme] = []

        def take(scheme: Scheme, ranking: tuple[str, ...] | Failure) -> None:
            if isinstance(ranking, Failure):
                failed.append(scheme)
                self._observer.stage(f"the layers of {scheme.name} could not be analysed: {ranking.message}")

        def begin(scheme: Scheme, foundation: Foundation | Failure) -> None:
            if isinstance(foundation, Failure):
                take(scheme, foundation)
            else:
                assert foundation.source is not None
                sensitivities.ranking(scheme, foundation.source, foundation.statistics, partial(take, scheme))

        for scheme in self.unanalysed:
            artifacts.with_foundation(scheme, partial(begin, scheme))
        return failed

    def _take_reference(self, result: Artifact | Failure) -> None:
        reference = self._reference

        def take(key: str, accuracy: Accuracy | Failure) -> None:
            if isinstance(accuracy, Failure):
                reference.failure = reference.failure or (key, accuracy)
            else:
                reference.accuracy = key, accuracy
            self._reference_scored.open()

        if isinstance(result, Failure):
            reference.failure = reference.request_key, result
            self._reference_scored.open()
        else:
            reference.artifact = result
            self._workshop.accuracies.evaluate(result, REFERENCE.settings, take)
        self._reference_made.open()

    def _take_artifact(self, run: _Run, result: Artifact | Failure) -> None:
        if isinstance(result, Failure):
            run.failure = run.request_key, result
            self._settle(run)
            return
        run.artifact = result
        self._workshop.accuracies.evaluate(result, run.variant.settings, partial(self._take_accuracy, run))
        self._reference_made.after(partial(self._measure, run))

    def _take_accuracy(self, run: _Run, key: str, result: Accuracy | Failure) -> None:
        if isinstance(result, Failure):
            run.failure = run.failure or (key, result)
            self._awaited(run)
        else:
            run.accuracy = key, result
            self._reference_scored.after(partial(self._compare, run))
        self._awaited(run)

    def _compare(self, run: _Run) -> None:
        assert run.accuracy is not None

        def take(key: str, failure: Failure | None) -> None:
            if failure is not None:
                run.failure = run.failure or (key, failure)
            self._awaited(run)

        if self._reference.accuracy is None:
            run.failure = run.failure or self._reference.failure
            self._awaited(run)
        else:
            self._workshop.accuracies.compare(self._reference.accuracy, run.accuracy, take)

    def _measure(self, run: _Run) -> None:
        assert run.artifact is not None

        def take(key: str, result: Latency | Failure) -> None:
            if isinstance(result, Failure):
                run.failure = run.failure or (key, result)
            else:
                run.latency = key, result
            self._awaited(run)

        if self._reference.artifact is None:
            run.failure = run.failure or self._reference.failure
            self._awaited(run)
        else:
            self._workshop.latencies.measure(self._reference.artifact, run.artifact, run.variant.settings, take)

    def _awaited(self, run: _Run) -> None:
        run.awaited -= 1
        if run.awaited == 0:
            self._settle(run)

    def _settle(self, run: _Run) -> None:
        failure_key, failure = run.failure if run.failure else (None, None)
        self._store.settle_variant(
            self.key,
            variant_key(self._plan.detector.sha256, run.variant),
            "failed" if failure else "done",
            request_key=run.request_key if run.artifact else None,
            accuracy_key=run.accuracy[0] if run.accuracy else None,
            latency_key=run.latency[0] if run.latency else None,
            failure_key=failure_key,
            training_key=self._plan.key_of_training(run.variant.scheme),
        )
        accuracy, latency = run.accuracy[1] if run.accuracy else None, run.latency[1] if run.latency else None
        self._observer.settled(run.variant, accuracy, latency, failure)
