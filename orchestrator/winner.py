"""The winner of a sweep: measured a second time, on its own bytes, and scored again by the reference scorer."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from sqlalchemy import Engine

from orchestrator.confirmation import Confirmation
from orchestrator.space import REFERENCE
from orchestrator.workshop import Workshop
from results.queries import leaderboard
from tasks.types import Artifact, Failure, Latency, Variant


class Winner:
    """Sees to it that the best row of a sweep is what it seems to be."""

    def __init__(self, workshop: Workshop, engine: Engine) -> None:
        """Takes what is needed.

        Args:
            workshop: Where the sweep was measured.
            engine: The database.
        """
        self._shop, self._engine = workshop, engine
        self._plan, self._record, self._store = workshop.plan, workshop.record, workshop.store
        self._confirmation = Confirmation(workshop)

    def settle(self) -> None:
        """Measures the fastest feasible variant again until it stays the fastest; confirms its score and the
        reference's, and scores both on the confirmation images if there are some.
        """
        while (best := self._best()) is not None and best["own_latency_ratio"] is None:
            self._shop.observer.stage(f"measuring the fastest again: {best['variant']}")
            self._measure_again(best)
            self._shop.graph.run()
        for row in self._rows():
            is_best = best is not None and row["variant_key"] == best["variant_key"]
            if is_best or row["is_reference"]:
                self._confirm(row)
            if is_best and row["confirm_ap_loss_low"] is None:
                self._confirm_elsewhere(row)
        self._shop.graph.run()

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

        self._shop.latencies.measure_again(reference, artifact, variant.settings, take)

    def _confirm(self, row: dict[str, Any]) -> None:
        variant = self._variant_of(row)
        self._confirmation.score(variant, self._artifact_of(variant), partial(self._take, row, variant))

    def _confirm_elsewhere(self, row: dict[str, Any]) -> None:
        variant, reference = self._variant_of(row), self._artifact_of(REFERENCE)
        artifact = self._artifact_of(variant)
        self._confirmation.score_elsewhere(variant, artifact, reference, partial(self._take, row, variant))

    def _take(self, row: dict[str, Any], variant: Variant, failed: tuple[str, Failure] | None) -> None:
        if failed is not None:
            self._fail(row, variant, *failed)

    def _fail(self, row: dict[str, Any], variant: Variant, failure_key: str, failure: Failure) -> None:
        request_key = self._plan.request_key(variant.scheme)
        self._store.settle_variant(
            self._record.key, row["variant_key"], "failed", request_key=request_key, failure_key=failure_key
        )
        self._shop.observer.settled(variant, None, None, failure)

    def _variant_of(self, row: dict[str, Any]) -> Variant:
        return next(variant for variant, key in self._keyed() if key == row["variant_key"])

    def _keyed(self) -> Iterator[tuple[Variant, str]]:
        return zip(self._plan.spec.space.variants, self._record.variant_keys, strict=True)

    def _artifact_of(self, variant: Variant) -> Artifact:
        artifact = self._store.artifact_of(self._plan.request_key(variant.scheme))
        assert isinstance(artifact, Artifact)
        return artifact
