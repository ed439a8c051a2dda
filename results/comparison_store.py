"""Comparisons: two artifacts that were timed in turn, directly, written and found by key."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from results.rows import comparison_row, fields_in, timing_fields
from results.schema import comparisons, hosts
from results.transactions import Transactions, upsert
from tasks.identity import canonical
from tasks.types import Artifact, Comparison, Host

Side = tuple[str, Artifact, Any]
"""Label of a variant, its artifact, and its settings: dataclasses or plain values."""


class ComparisonStore(Transactions):
    """Writes comparisons, and finds them by key."""

    def put_comparison(self, key: str, first: Side, second: Side, host: Host, comparison: Comparison) -> None:
        """Stores a comparison and the machine it was measured on.

        Args:
            key: Key of the measurement.
            first: Label, artifact and settings of the first variant; the artifact is stored already.
            second: Those of the second.
            host: The machine.
            comparison: The measurement.
        """
        row = comparison_row(comparison) | {
            "key": key,
            **_side_row("first", first),
            **_side_row("second", second),
            "host_fingerprint": host.fingerprint,
            "created_at": datetime.now(UTC),
        }
        with self.writing() as connection:
            upsert(connection, hosts, {"fingerprint": host.fingerprint, "properties": canonical(host.properties)})
            upsert(connection, comparisons, row)

    def comparison_of(self, key: str) -> Comparison | None:
        """Finds a comparison.

        Args:
            key: Key of the measurement.

        Returns:
            The comparison, or None if it must be measured.
        """
        with self.reading() as connection:
            row = connection.execute(select(comparisons).where(comparisons.c.key == key)).mappings().one_or_none()
        return None if row is None else Comparison(**fields_in(Comparison, row) | timing_fields(row))


def _side_row(name: str, side: Side) -> dict[str, Any]:
    label, artifact, settings = side
    return {
        f"{name}_label": label,
        f"{name}_artifact_sha256": artifact.sha256,
        f"{name}_structure_sha256": artifact.structure_sha256,
        f"{name}_settings": canonical(settings),
    }
