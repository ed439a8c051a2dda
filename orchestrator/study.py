"""The study: the least latency under a budget, searched by Optuna; every verdict into the database as it comes."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, select

from cluster.executor import Executor
from orchestrator.artifacts import known_artifact
from orchestrator.plan import Plan
from orchestrator.progress import Observer
from orchestrator.search.candidate import Ask, Candidate
from orchestrator.search.cluster_laboratory import ClusterLaboratory, subject_of
from orchestrator.search.image_order import ImageOrder
from orchestrator.search.objectives import objective_of
from orchestrator.search.observer import SearchObserver, Unobserved
from orchestrator.search.recorder import Recorder
from orchestrator.search.rung_accuracies import RungAccuracies
from orchestrator.search.rungs import Rung, rungs
from orchestrator.search.search import EXHAUSTED, Rules, Search
from orchestrator.search.stops import StopRules
from orchestrator.search.strategy import Listed, Strategy
from orchestrator.search.watchers import Watchers
from orchestrator.space import REFERENCE
from orchestrator.sweep import record_of
from orchestrator.workshop import Workshop, open_workshop
from results.queries import leaderboard, sweeps
from results.reading import rows_of
from results.schema import verdicts
from results.store import KEPT_FAILURES, Store
from results.sweep_record import variant_key
from results.verdict_store import StoredVerdict
from tasks.types import Accuracy, Artifact, Failure, Latency, Variant

if TYPE_CHECKING:
    from orchestrator.search.optuna_study import OptunaStudy


@dataclass(frozen=True)
class StudyOutcome:
    """What a study, or `sweep --find-best`, has found so far; earlier runs of it included."""

    sweep_key: str
    """The study in the database: its leaderboard, its nearest variants (`results.queries.nearest`)."""

    submitted: int
    """Tasks that were run for it this time."""

    winner_key: str | None
    """Variant key of the fastest feasible variant, confirmed; None if nothing is feasible."""

    trials: int
    """Variants that were tried, without those that were known before it began."""

    verdicts: dict[str, int]
    """How many variants got each kind of verdict, the reference not counted."""

    images_inferred: int
    """Images that went through an artifact for it, the reference's included; those of the confirmation set are not."""

    images_exhaustive: int
    """Images that scoring every build of the space takes, the reference included."""

    stopped_by: str | None
    """Why it ended; None if it did not end."""

    seconds: float
    """Wall time of all its runs."""


class Study:
    """One study of a plan. `FindBest` of `orchestrator.find_best` has the same interface."""

    kind = "study"
    """Kind of the row in `sweeps`."""

    def __init__(
        self, plan: Plan, engine: Engine, database_url: str, observer: Observer, watcher: SearchObserver | None = None,
        stops: StopRules | None = None,
    ) -> None:  # fmt: skip
        """Finds out what is known already.

        Args:
            plan: What is to be done.
            engine: A database that can be written to, of `results.connect.open_database`.
            database_url: Its URL or path, for Optuna's own tables in it.
            observer: Who wants to know of stages and inferred images (`began`, `stage`, `inferred`; its `settled` is
                never called).
            watcher: Who wants to know of candidates and verdicts.
            stops: When it ends; what the spec says if None.
        """
        self._plan, self._engine, self._store, self._observer = plan, engine, Store(engine), observer
        self._url, self._watcher = database_url, watcher or Unobserved()
        self._record = record_of(plan, self.kind)
        self.key = self._record.key
        """The study in the database; known before it runs."""
        self.stops = stops or StopRules(**plan.spec.study.stop.model_dump())
        """When it ends."""
        self.variants = tuple(variant for variant in plan.spec.space.variants if variant != REFERENCE)
        """The candidates."""
        self._submitted = 0

    @property
    def is_finished(self) -> bool:
        """Whether it has ended by its stop rules, so that nothing is left to do and no executor is needed.

        If the whole space was asked for, what failed for reasons that may be gone is tried again.
        """
        if not self._has_ended:
            return False
        ended = self._optuna.user_attrs.get("ended") or {}
        if ended.get("by") == EXHAUSTED:
            return not any(each.verdict.kind == "failed" for each in self._stored.values())
        return bool(ended.get("stops") == asdict(self.stops))

    @property
    def _has_ended(self) -> bool:
        row = self._row
        return row is not None and row["finished_at"] is not None

    @property
    def _row(self) -> dict[str, Any] | None:
        return next((row for row in sweeps(self._engine) if row["sweep_key"] == self.key), None)

    @property
    def outcome(self) -> StudyOutcome:
        """What it has found so far, from the database; also before and after `run`."""
        stored = self._stored
        counts = Counter[str](each.verdict.kind for each in stored.values())
        has_ended = self._has_ended
        return StudyOutcome(
            sweep_key=self.key,
            submitted=self._submitted,
            winner_key=self._winner_key if has_ended else None,
            trials=sum(each.trial is not None for each in stored.values()),
            verdicts=dict(counts),
            images_inferred=self._store.inferred_images(self.key),
            images_exhaustive=images_exhaustive(self._plan),
            stopped_by=self._stopped_by if has_ended else None,
            seconds=self._seconds,
        )

    @property
    def _winner_key(self) -> str | None:
        rows = [] if self._row is None else leaderboard(self._engine, self.key)
        feasible = [row for row in rows if row["verdict"] == "feasible" and not row["is_reference"]]
        best = min(feasible, key=_merit, default=None)
        return None if best is None else best["variant_key"]

    @property
    def _stored(self) -> dict[Variant, StoredVerdict]:
        """Verdicts on candidates, the earliest first."""
        query = select(verdicts.c.variant_key).where(verdicts.c.sweep_key == self.key).order_by(verdicts.c.decided_at)
        found = self._store.verdicts_of(self.key)
        named = {variant_key(self._plan.detector.sha256, variant): variant for variant in self.variants}
        keys = [row["variant_key"] for row in rows_of(self._engine, query)]
        return {named[key]: found[key] for key in keys if key in named}

    def run(self, executor: Executor) -> StudyOutcome:
        """Searches on from where it stopped.

        Args:
            executor: Where tasks run.

        Returns:
            What was found.

        Raises:
            DataMistake: If an image is damaged.
            KeyboardInterrupt: If Ctrl-C was pressed. The database is consistent then; the next run goes on.
        """
        plan, began, stored = self._plan, time.monotonic(), self._stored
        seconds, is_resumed = self._seconds, self._row is not None
        self._observer.began(len(self.variants), len(stored), len(plan.evaluation))
        looks = self._rungs
        order = ImageOrder.of(plan.evaluation, plan.spec.study.seed, looks, executor.cpus)
        workshop = open_workshop(
            plan, self._record, self._store, executor, self._observer, (REFERENCE, *self.variants),
            shards=order.shards, scoring=partial(RungAccuracies, order=order, owner=self.key, level=looks[-1].level),
        )  # fmt: skip
        accuracies = workshop.accuracies
        assert isinstance(accuracies, RungAccuracies)
        inferred = {variant: each.inferred for variant, each in stored.items()}
        laboratory = ClusterLaboratory(workshop, accuracies, order, looks[0], sum(inferred.values()), is_resumed)
        strategy, told = self._strategy(workshop, stored)
        earlier = list(self._earlier(workshop, laboratory, stored, told))
        for candidate in earlier:
            if candidate.artifact and candidate.verdict:
                images = candidate.verdict.images
                # More than its verdict is of: looks that a killed driver could not make use of.
                is_more = inferred[candidate.variant] > images
                accuracies.note_counted(subject_of(candidate), len(plan.evaluation) if is_more else images)
        self._observer.stage("searching")
        laboratory.begin()
        recorder = Recorder(workshop, accuracies, laboratory, inferred)
        clock = _Clock(self, began, seconds)
        search = Search(
            strategy, laboratory, self._rules(looks), Watchers((recorder, clock, self._watcher)), earlier=earlier,
            seconds=seconds,
        )  # fmt: skip
        try:
            search.run()
        finally:
            # Also after Ctrl-C: a training may have run for long since the last verdict.
            clock.write()
        recorder.write_reference()
        self._submitted = workshop.graph.submitted
        self._note_end(search.stopped_by)
        self._store.finish_sweep(self.key)
        return self.outcome

    @property
    def _rungs(self) -> tuple[Rung, ...]:
        study = self._plan.spec.study
        return rungs(len(self._plan.evaluation), study.error_rate, study.stop_early)

    def _rules(self, looks: tuple[Rung, ...]) -> Rules:
        study = self._plan.spec.study
        return Rules(
            looks, self._plan.spec.budget, objective_of(tuple(study.objectives)), study.in_flight, self.stops,
            ends_trainings=study.stop_early, is_own_fault=is_final,
        )  # fmt: skip

    @cached_property
    def _optuna(self) -> "OptunaStudy":
        from orchestrator.search.optuna_storage import open_study

        study = self._plan.spec.study
        name = f"{self._plan.spec.name}-{self.key[:12]}"
        return open_study(self._url, name, study.sampler, study.seed, tuple(study.objectives))

    def _strategy(self, workshop: Workshop, stored: dict[Variant, StoredVerdict]) -> tuple[Strategy, set[Variant]]:
        """Returns the strategy, and the variants whose verdicts it knows."""
        from orchestrator.search.optuna_strategy import OptunaStrategy

        if not self.variants:
            return Listed(()), set()
        budget = self._plan.spec.budget
        strategy = OptunaStrategy(
            self._optuna, self.variants, limit=budget.limit if budget else None, known=known_variants(workshop)
        )
        return strategy, {each.variant for each in strategy.settled()}

    def _earlier(
        self,
        workshop: Workshop,
        laboratory: ClusterLaboratory,
        stored: dict[Variant, StoredVerdict],
        told: set[Variant],
    ) -> Iterable[Candidate]:
        """Makes the candidates of earlier runs again."""
        latency_keys = {row["variant_key"]: row["latency_key"] for row in leaderboard(self._engine, self.key)}
        for variant, each in stored.items():
            is_told = variant in told
            # What the strategy will ask for again, under a new number, is not settled.
            if not is_told and (each.trial is None or each.verdict.kind in ("failed", "unsettled")):
                continue
            key = latency_keys[variant_key(self._plan.detector.sha256, variant)]
            if key is not None:
                laboratory.latency_keys[variant] = key
            yield _candidate(workshop, variant, each, key, is_told)

    @property
    def _seconds(self) -> float:
        return float(self._optuna.user_attrs.get("seconds", 0.0)) if self._row is not None else 0.0

    def write_seconds(self, seconds: float) -> None:
        """Notes how long all runs took so far."""
        self._optuna.set_user_attr("seconds", seconds)

    @property
    def _stopped_by(self) -> str | None:
        ended: dict[str, Any] = self._optuna.user_attrs.get("ended") or {}
        return ended.get("by")

    def _note_end(self, stopped_by: str | None) -> None:
        self._optuna.set_user_attr("ended", {"by": stopped_by, "stops": asdict(self.stops)})


class _Clock(Unobserved):
    """Notes the time whenever something is known of a candidate: a killed driver loses what came after."""

    def __init__(self, study: Study, began: float, seconds: float) -> None:
        self._study, self._began, self._earlier = study, began, seconds

    def noted(self, candidate: Candidate) -> None:
        self.write()

    def settled(self, candidate: Candidate) -> None:
        self.write()

    def write(self) -> None:
        self._study.write_seconds(self._earlier + time.monotonic() - self._began)


def _merit(row: dict[str, Any]) -> tuple[float, float, bool]:
    """As `Search.best` has it: the fastest, of these the one that loses least; of equal ones the confirmed one."""
    return row["latency_ratio"], row["verdict_loss"] or 0.0, row["own_latency_ratio"] is None


def is_final(failure: Failure) -> bool:
    """Tells whether a failure follows from what was asked for: asked again, it would fail the same way."""
    return failure.reason in KEPT_FAILURES


def images_exhaustive(plan: Plan) -> int:
    """Counts the images that scoring every build of a plan takes.

    Args:
        plan: What is to be done.

    Returns:
        Evaluation images times builds: distinct schemes, runtimes and runtime options, the reference's among them.
        Thread counts share a score.
    """
    variants = (REFERENCE, *plan.spec.space.variants)
    builds = {(each.scheme, each.settings.runtime, each.settings.options) for each in variants}
    return len(builds) * len(plan.evaluation)


def known_variants(workshop: Workshop) -> list[Variant]:
    """Finds variants that a search can judge without making, timing or inferring anything.

    Args:
        workshop: Of the search.

    Returns:
        Those that are known to fail, or whose artifact, latency on this host and accuracy are stored, as the
        reference's are.
    """
    plan, store = workshop.plan, workshop.store
    reference = known_artifact(plan, store, plan.request_key(REFERENCE.scheme))
    if not isinstance(reference, Artifact):
        return []
    has_reference = isinstance(store.accuracy_of(plan.accuracy_key(reference, REFERENCE.settings)), Accuracy)

    def is_known(variant: Variant) -> bool:
        artifact = known_artifact(plan, store, plan.request_key(variant.scheme))
        if not isinstance(artifact, Artifact):
            return artifact is not None
        accuracy = store.accuracy_of(plan.accuracy_key(artifact, variant.settings))
        latency = store.latency_of(plan.latency_key(reference, artifact, variant.settings, workshop.host))
        return has_reference and accuracy is not None and isinstance(latency, Latency)

    return [variant for variant in plan.spec.space.variants if variant != REFERENCE and is_known(variant)]


def _candidate(
    workshop: Workshop, variant: Variant, stored: StoredVerdict, latency_key: str | None, is_told: bool
) -> Candidate:
    artifact = workshop.store.artifact_of(workshop.plan.request_key(variant.scheme))
    latency = None if latency_key is None else workshop.store.latency_of(latency_key)
    return Candidate(
        Ask(-1 if stored.trial is None else stored.trial, variant, is_warm=stored.trial is None),
        artifact=artifact if isinstance(artifact, Artifact) else None,
        latency=latency if isinstance(latency, Latency) else None,
        interval=stored.verdict.interval,
        rungs=0,
        verdict=stored.verdict,
        is_told=is_told,
    )
