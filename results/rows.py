"""Rows: values of `tasks.types` as columns hold them, and back."""

import math
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Double, Integer, Table, Text

from results.sweep_record import SweepRecord, variant_key
from tasks.identity import canonical
from tasks.types import Audit, Variant


def variant_row(detector_sha256: str, variant: Variant) -> dict[str, Any]:
    """Writes a variant of a detector as a row of `variants`.

    Args:
        detector_sha256: The detector.
        variant: The variant.

    Returns:
        Values by column name.
    """
    axes = variant.scheme.axes()
    return {
        "key": variant_key(detector_sha256, variant),
        "detector_sha256": detector_sha256,
        "label": variant.label,
        "runtime": variant.settings.runtime,
        "scheme": variant.scheme.name,
        "toolchain": variant.scheme.toolchain,
        **{axis: axes.get(axis) for axis in ("granularity", "calibration_images", "calibration_seed")},
        "threads": variant.settings.threads,
        "scheme_json": {"name": variant.scheme.name, **axes},
        "settings_json": _values_of(variant.settings),
    }


def sweep_row(sweep: SweepRecord, now: datetime) -> dict[str, Any]:
    """Writes a sweep that starts as a row of `sweeps`.

    Args:
        sweep: What is swept.
        now: The time.

    Returns:
        Values by column name.
    """
    return {
        "key": sweep.key,
        "name": sweep.name,
        "spec": sweep.spec,
        "detector_sha256": sweep.detector_sha256,
        "dataset_fingerprint": sweep.dataset_fingerprint,
        "provenance": canonical(sweep.provenance),
        **dict(zip(("budget_metric", "budget_max_loss", "budget_relative"), sweep.budget, strict=True)),
        "reference_variant_key": variant_key(sweep.detector_sha256, sweep.reference),
        "artifacts_url": sweep.artifacts_url,
        "started_at": now,
        "resumed_at": now,
        "finished_at": None,
    }


def audit_json(audit: Audit) -> dict[str, Any]:
    """Writes an audit as JSON, its shares and counts as Python's own numbers."""
    content = _values_of(audit)
    for name in ("mac_share", "weight_share"):
        content[name] = {kind: float(share) for kind, share in content[name].items()}
    content["operators"] = {name: int(number) for name, number in content["operators"].items()}
    return content


def row_of(value: Any, table: Table) -> dict[str, Any]:
    """Takes the fields of a dataclass that a table has columns for.

    Args:
        value: A dataclass of `tasks.types`.
        table: The table.

    Returns:
        Values by column name.
    """
    return {name: item for name, item in _values_of(value).items() if name in table.c}


def fields_in(kind: type, row: Mapping[Any, Any]) -> dict[str, Any]:
    """Takes the columns of a row that a dataclass has fields for: the way back of `row_of`.

    Args:
        kind: A dataclass of `tasks.types`.
        row: Values by column name.

    Returns:
        Arguments of the dataclass by name.
    """
    return {field.name: row[field.name] for field in fields(kind) if field.name in row}


def plain(table: Table, name: str, value: Any) -> Any:
    """Turns a value into what a column takes on both databases.

    Args:
        table: The table.
        name: Name of the column.
        value: The value; NumPy's scalars will do.

    Returns:
        The value as Python's own type.

    Raises:
        ValueError: For a number that is not finite.
    """
    # NumPy's scalars pass for numbers everywhere but in drivers, which store them as bytes or refuse them.
    kind = table.c[name].type
    if value is None:
        return None
    if isinstance(kind, Boolean):
        return bool(value)
    if isinstance(kind, Integer):
        return int(value)
    if isinstance(kind, Double):
        if not math.isfinite(value):
            raise ValueError(f"{table.name}.{name} is {value}; it must be finite")
        return float(value)
    if isinstance(kind, Text) and isinstance(value, str):
        # PostgreSQL's text holds neither NUL nor halves of surrogate pairs; logs of crashed tools may.
        return value.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
    return value


def _values_of(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}
