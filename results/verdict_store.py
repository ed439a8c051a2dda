"""Verdicts of searches: what was decided about each variant, and what the winner's confirmation gave."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, func, select

from results.schema import sweep_variants, verdicts
from results.transactions import Transactions, change, upsert
from tasks.types import LossInterval, Verdict


@dataclass(frozen=True)
class StoredVerdict:
    """A verdict and what led to it."""

    verdict: Verdict
    """The verdict."""

    trial: int | None
    """Number of the trial that asked for it; None if none did."""

    inferred: int
    """Images that went through the artifact for its sake in this search."""


class VerdictStore(Transactions):
    """Writes verdicts and confirmations, and finds verdicts by search."""

    def put_verdict(self, sweep_key: str, variant_key: str, verdict: Verdict, trial: int | None, inferred: int) -> None:
        """Stores what was decided about a variant; replaces what was decided before.

        Args:
            sweep_key: The study or search.
            variant_key: A variant of it.
            verdict: The verdict; the interval is of the images that it names.
            trial: Number of the trial that asked for it; None if none did.
            inferred: Images that went through the artifact for its sake in this search so far, those of the verdict
                that is replaced included.

        Raises:
            ValueError: If the interval is of other images.
            KeyError: If the variant is not in the search.
        """
        with self.writing() as connection:
            _check_member(connection, sweep_key, variant_key)
            write_verdict(connection, sweep_key, variant_key, StoredVerdict(verdict, trial, inferred))

    def put_confirmation(self, sweep_key: str, variant_key: str, accuracy_key: str) -> None:
        """Says where the accuracy of a variant on the confirmation images is.

        Args:
            sweep_key: The study or search.
            variant_key: A variant of it, or its reference.
            accuracy_key: Key of an accuracy that is stored.

        Raises:
            KeyError: If the variant is not in the search.
        """
        with self.writing() as connection:
            keys = {"sweep_key": sweep_key, "variant_key": variant_key}
            change(connection, sweep_variants, keys, {"confirm_accuracy_key": accuracy_key})

    def verdicts_of(self, sweep_key: str) -> dict[str, StoredVerdict]:
        """Finds what a search decided.

        Args:
            sweep_key: The study or search.

        Returns:
            Verdicts by variant key, in the order of the list; none for variants that nothing was decided about.
        """
        listed = (verdicts.c.sweep_key == sweep_variants.c.sweep_key) & (
            verdicts.c.variant_key == sweep_variants.c.variant_key
        )
        query = select(verdicts).join(sweep_variants, listed).where(verdicts.c.sweep_key == sweep_key)
        with self.reading() as connection:
            rows = connection.execute(query.order_by(sweep_variants.c.position)).mappings().all()
        return {row["variant_key"]: _stored(row) for row in rows}

    def inferred_images(self, sweep_key: str) -> int:
        """Sums up the images that went through artifacts for the verdicts of a search."""
        total = func.coalesce(func.sum(verdicts.c.inferred), 0)
        with self.reading() as connection:
            return int(connection.execute(select(total).where(verdicts.c.sweep_key == sweep_key)).scalar_one())


def write_verdict(connection: Connection, sweep_key: str, variant_key: str, stored: StoredVerdict) -> None:
    """Writes a verdict within a transaction.

    Args:
        connection: The transaction.
        sweep_key: The study or search.
        variant_key: A variant of it.
        stored: What to write.

    Raises:
        ValueError: If the interval is of other images than the verdict.
    """
    verdict, interval = stored.verdict, stored.verdict.interval
    if interval is not None and interval.images != verdict.images:
        raise ValueError(f"the verdict is on {verdict.images} images and its interval on {interval.images}")
    row = {
        "sweep_key": sweep_key,
        "variant_key": variant_key,
        "kind": verdict.kind,
        "images": verdict.images,
        "all_images": verdict.all_images,
        "loss": interval.loss if interval else None,
        "loss_low": interval.low if interval else None,
        "loss_high": interval.high if interval else None,
        "level": interval.level if interval else None,
        "resamples": interval.resamples if interval else None,
        "seed": interval.seed if interval else None,
        "because": verdict.because,
        "trial": stored.trial,
        "inferred": stored.inferred,
        "decided_at": datetime.now(UTC),
    }
    upsert(connection, verdicts, row)


def forget_verdict(connection: Connection, sweep_key: str, variant_key: str) -> None:
    """Takes a verdict back within a transaction, if there is one."""
    connection.execute(delete(verdicts).where(verdicts.c.sweep_key == sweep_key, verdicts.c.variant_key == variant_key))


def _check_member(connection: Connection, sweep_key: str, variant_key: str) -> None:
    query = select(sweep_variants.c.position).where(
        sweep_variants.c.sweep_key == sweep_key, sweep_variants.c.variant_key == variant_key
    )
    if connection.execute(query).first() is None:
        raise KeyError(f"the search {sweep_key} has no variant {variant_key}")


def _stored(row: Mapping[Any, Any]) -> StoredVerdict:
    interval = None
    if row["loss"] is not None:
        interval = LossInterval(
            row["loss"], row["loss_low"], row["loss_high"], row["level"], row["resamples"], row["seed"], row["images"]
        )
    verdict = Verdict(row["kind"], row["images"], row["all_images"], interval, row["because"])
    return StoredVerdict(verdict, row["trial"], row["inferred"])
