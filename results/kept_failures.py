"""Failures that a rerun keeps."""

from sqlalchemy import Connection, select

from results.rows import fields_in
from results.schema import failure_records
from tasks.errors import (
    AuditMismatch,
    InferenceFailed,
    QuantizationFailed,
    ScoringFailed,
    TrainingFailed,
    UnsupportedScheme,
)
from tasks.types import Failure

KEPT_FAILURES: frozenset[str] = frozenset(
    error.reason
    for error in (UnsupportedScheme, TrainingFailed, QuantizationFailed, AuditMismatch, InferenceFailed, ScoringFailed)
)
"""Reasons that follow from the key alone: the same request fails the same way again, so a rerun keeps the failure.
All others (`worker_lost`, `never_started`, `unexpected_error`, `benchmark_failed`, `artifact_unreadable`,
`training_image_unreadable`) depend on the machine or the moment: the store answers as if the key had never been asked
for, and a rerun tries again."""


def kept_failure(connection: Connection, key: str) -> Failure | None:
    """Finds a failure that a rerun keeps.

    Args:
        connection: Within a transaction.
        key: What was asked for.

    Returns:
        The failure; None if there is none, or one that may not happen twice.
    """
    row = connection.execute(select(failure_records).where(failure_records.c.key == key)).mappings().one_or_none()
    if row is None or row["reason"] not in KEPT_FAILURES:
        return None
    return Failure(**fields_in(Failure, row))
