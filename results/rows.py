"""Rows: values of `tasks.types` as columns hold them, and back."""

import math
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Double, Integer, Table, Text

from results.schema import AXES, comparisons, latencies
from results.sweep_record import SweepRecord, variant_key
from tasks.identity import canonical
from tasks.types import Audit, Comparison, Latency, Scheme, Variant


def variant_row(detector_sha256: str, variant: Variant) -> dict[str, Any]:
    """Writes a variant of a detector as a row of `variants`.

    Args:
        detector_sha256: The detector.
        variant: The variant.

    Returns:
        Values by column name.
    """
    return {
        "key": variant_key(detector_sha256, variant),
        "detector_sha256": detector_sha256,
        "label": variant.label,
        "runtime": variant.settings.runtime,
        **scheme_row(variant.scheme),
        "threads": variant.settings.threads,
        "runtime_options": ", ".join(f"{name}={value}" for name, value in variant.settings.options),
        "simulated": variant.scheme.is_simulated,
        "settings_json": _values_of(variant.settings),
    }


def scheme_row(scheme: Scheme) -> dict[str, Any]:
    """Writes a scheme as the columns that `variants` and `sensitivities` have for it.

    Args:
        scheme: The scheme.

    Returns:
        Values by column name; None for the axes that do not exist.
    """
    axes = scheme.axes()
    return {
        "scheme": scheme.name,
        "toolchain": scheme.toolchain,
        **{axis: axes.get(axis) for axis in AXES},
        "scheme_json": scheme_json(scheme),
    }


def scheme_json(scheme: Scheme) -> dict[str, Any]:
    """Writes a scheme as JSON: its name and the axes that exist."""
    return {"name": scheme.name, **scheme.axes()}


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
        "kind": sweep.kind,
        "confirm_fingerprint": sweep.confirm_fingerprint,
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
    content["codebook_size"] = int(content["codebook_size"])
    return content


def latency_row(latency: Latency) -> dict[str, Any]:
    """Writes a latency as the columns that `latencies` has for it."""
    executed = latency.executed_mac_share
    return (
        row_of(latency, latencies)
        | _timing_row(latency)
        | {
            "executed_mac_share": None
            if executed is None
            else {kind: float(share) for kind, share in executed.items()},
            "executed_int8_mac_share": None if executed is None else int8_share(executed),
        }
    )


def comparison_row(comparison: Comparison) -> dict[str, Any]:
    """Writes a comparison as the columns that `comparisons` has for it."""
    return row_of(comparison, comparisons) | _timing_row(comparison)


def timing_fields(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Reads the lists of a row of `latencies` or `comparisons`: the way back of what JSON makes of tuples.

    Args:
        row: Values by column name.

    Returns:
        `samples_ms` and `noisy`.
    """
    rounds = (tuple((first, second) for first, second in pairs) for pairs in row["samples_ms"])
    return {"samples_ms": tuple(rounds), "noisy": tuple(row["noisy"])}


def _timing_row(timed: Latency | Comparison) -> dict[str, Any]:
    return {
        "samples_ms": [[[float(first), float(second)] for first, second in pairs] for pairs in timed.samples_ms],
        "rounds": len(timed.samples_ms),
        "conditions": {name: float(value) for name, value in timed.conditions.items()},
        "noisy": list(timed.noisy),
    }


def int8_share(shares: Mapping[str, float]) -> float:
    """Sums up what is int8 arithmetic, static or dynamic, of shares by arithmetic."""
    return float(sum(shares.get(kind, 0.0) for kind in ("int8", "dynamic_int8")))


def quantized_mac_share(audit: Audit) -> float:
    """Returns the share of multiply-accumulates that are not in float arithmetic; weights widened to float are."""
    in_float = ("float", "bfloat", "weight_only_")
    return float(sum(share for kind, share in audit.mac_share.items() if not kind.startswith(in_float)))


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
