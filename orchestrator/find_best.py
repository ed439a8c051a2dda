"""`sweep --find-best`: the exact optimum of a grid without scoring all of it."""

from datetime import datetime

from sqlalchemy import Engine

from orchestrator.plan import Plan
from orchestrator.progress import Observer
from orchestrator.search.observer import SearchObserver
from orchestrator.search.rungs import Rung, rungs
from orchestrator.search.search import Rules
from orchestrator.search.stops import StopRules
from orchestrator.search.strategy import Listed, Strategy
from orchestrator.study import Study, is_final
from orchestrator.workshop import Workshop
from results.verdict_store import StoredVerdict
from tasks.types import Variant


class FindBest(Study):
    """Times every variant, then scores the fastest first, on every image, until one is feasible."""

    kind = "find_best"

    def __init__(self, plan: Plan, engine: Engine, observer: Observer, watcher: SearchObserver | None = None) -> None:
        """Finds out what is known already; see `Study`.

        Args:
            plan: What is to be done.
            engine: A database that can be written to.
            observer: Who wants to know of stages and inferred images.
            watcher: Who wants to know of candidates and verdicts.
        """
        super().__init__(plan, engine, "", observer, watcher, StopRules())

    @property
    def is_finished(self) -> bool:
        """Whether every variant has its verdict."""
        settled = {variant for variant, each in self._stored.items() if each.verdict.kind != "failed"}
        return self._has_ended and settled == set(self.variants)

    @property
    def _rungs(self) -> tuple[Rung, ...]:
        return rungs(len(self._plan.evaluation), self._plan.spec.study.error_rate, looks_early=False)

    def _rules(self, looks: tuple[Rung, ...]) -> Rules:
        in_flight = max(1, len(self.variants))
        return Rules(
            looks, self._plan.spec.budget, in_flight=in_flight, ends_trainings=False, is_own_fault=is_final
        )  # fmt: skip

    def _strategy(self, workshop: Workshop, stored: dict[Variant, StoredVerdict]) -> tuple[Strategy, set[Variant]]:
        told = {variant for variant, each in stored.items() if each.verdict.kind not in ("failed", "unsettled")}
        return Listed(variant for variant in self.variants if variant not in told), told

    @property
    def _seconds(self) -> float:
        row = self._row
        if row is None or row["finished_at"] is None:
            return 0.0
        ended, began = (datetime.fromisoformat(str(row[name])) for name in ("finished_at", "started_at"))
        return (ended - began).total_seconds()

    def write_seconds(self, seconds: float) -> None:
        """Does nothing: the database has the time of the beginning and of the end."""

    @property
    def _stopped_by(self) -> str | None:
        return "every variant has its verdict"

    def _note_end(self, stopped_by: str | None) -> None:
        """Does nothing: it ends when every variant has its verdict."""
