"""The winner of a sweep: measured a second time, on its own bytes, and scored again by the reference scorer."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Engine

from cluster.executor import Ref
from cluster.lanes import LIGHT
from orchestrator.graph import Graph
from orchestrator.latencies import Latencies
from orchestrator.plan import Plan
from orchestrator.progress import Observer
from orchestrator.space import REFERENCE
from results.queries import leaderboard
from results.store import Store
from results.sweep_record import SweepRecord
from tasks import steps
from tasks.identity import key_of
from tasks.types import Artifact, Failure, Latency, Variant

_SCORE = 3


class Winner:
    """Sees to it that the best row of a sweep is what it seems to be."""

    def __init__(
        self, plan: Plan, graph: Graph, engine: Engine, record: SweepRecord, latencies: Latencies, ground_truth: Ref,
        observer: Observer,
    ) -> None:  # fmt: skip
        """Takes what is needed.

        Args:
            plan: What was done.
            graph: Where the work goes.
            engine: The database.
            record: The sweep in it.
            latencies: Who measures.
            ground_truth: A ref to the annotations of the evaluation images.
            observer: Who wants to know.
        """
        self._plan, self._graph, self._engine, self._record = plan, graph, engine, record
        self._latencies, self._truth, self._observer = latencies, ground_truth, observer
        self._store = Store(engine)

    def settle(self) -> None:
        """Measures the fastest feasible variant again until it stays the fastest; confirms its score and the
        reference's.
        """
        while (best := self._best()) is not None and best["own_latency_ratio"] is None:
            self._observer.stage(f"measuring the fastest again: {best['variant']}")
            self._measure_again(best)
            self._graph.run()
        for row in self._rows():
            is_best = best is not None and row["variant_key"] == best["variant_key"]
            if (is_best or row["is_reference"]) and row["confirmed_by"] is None:
                self._confirm(row)
        self._graph.run()

    def _rows(self) -> list[dict[str, Any]]:
        return [row for row in leaderboard(self._engine, self._record.key) if row["status"] == "done"]

    def _best(self) -> dict[str, Any] | None:
        """Returns the fastest row within the budget whose latency can be trusted."""
        allowed = [row for row in self._rows() if row["feasible"] is not False and not row["latency_noisy"]]
        return min(allowed, key=lambda row: (row["latency_ratio"], row["ap_loss"] or 0.0), default=None)

    def _measure_again(self, row: dict[str, Any]) -> None:
        variant = self._variant_of(row)
        artifact, reference = self._artifact_of(variant), self._artifact_of(REFERENCE)

        def take(key: str, result: Latency | Failure) -> None:
            if isinstance(result, Failure):
                self._fail(row, variant, key, result)
                return
            apart = result.ratio_low > row["latency_ratio_high"] or result.ratio_high < row["latency_ratio_low"]
            # Apart, the structure's latency is not this artifact's: its values make a difference.
            replaces = apart and not result.noisy
            self._store.put_own_latency(self._record.key, row["variant_key"], key, replaces)

        self._latencies.measure_again(reference, artifact, variant.settings, take)

    def _confirm(self, row: dict[str, Any]) -> None:
        variant = self._variant_of(row)
        accuracy_key = self._plan.accuracy_key(self._artifact_of(variant), variant.settings)

        def take(result: str | Failure) -> None:
            if isinstance(result, Failure):
                failure_key = key_of("confirmation", accuracy_key)
                self._store.put_failure(failure_key, result)
                self._fail(row, variant, failure_key, result)
            else:
                self._store.confirm_accuracy(accuracy_key, result)

        self._graph.once(
            f"confirm {accuracy_key}", _SCORE, LIGHT, "score", steps.confirm, self._plan.storage, self._truth,
            self._store.accuracy_of(accuracy_key), then=take,
        )  # fmt: skip

    def _fail(self, row: dict[str, Any], variant: Variant, failure_key: str, failure: Failure) -> None:
        request_key = self._plan.request_key(variant.scheme)
        self._store.settle_variant(
            self._record.key, row["variant_key"], "failed", request_key=request_key, failure_key=failure_key
        )
        self._observer.settled(variant, None, None, failure)

    def _variant_of(self, row: dict[str, Any]) -> Variant:
        return next(variant for variant, key in self._keyed() if key == row["variant_key"])

    def _keyed(self) -> Iterator[tuple[Variant, str]]:
        return zip(self._plan.spec.space.variants, self._record.variant_keys, strict=True)

    def _artifact_of(self, variant: Variant) -> Artifact:
        artifact = self._store.artifact_of(self._plan.request_key(variant.scheme))
        assert isinstance(artifact, Artifact)
        return artifact
