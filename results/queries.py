"""What readers ask: lists of flat dictionaries of plain JSON values, from the views."""

import difflib
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, Select, Table, func, select
from sqlalchemy.exc import DBAPIError, ResourceClosedError

from results import schema
from results.connect import mistake_of
from results.store import KEPT_FAILURES
from tasks.errors import UserMistake

Rows = list[dict[str, Any]]

_SHORTEST_PREFIX = 4


def sweeps(engine: Engine) -> Rows:
    """Lists all sweeps, the latest first.

    Args:
        engine: A database.

    Returns:
        Name, key, detector, evaluation set, times, budget, artifact storage, and the number of variants by status.
    """
    table, listed = schema.sweeps, schema.sweep_variants
    counts = [func.count().filter(listed.c.status == status).label(status) for status in schema.STATUSES]
    query = (
        select(
            table.c.name.label("sweep"),
            table.c.key.label("sweep_key"),
            schema.detectors.c.name.label("detector"),
            schema.detectors.c.sha256.label("detector_sha256"),
            schema.datasets.c.name.label("dataset"),
            schema.datasets.c.fingerprint.label("dataset_fingerprint"),
            schema.datasets.c.images,
            func.count().label("variants"),
            *counts,
            table.c.budget_metric,
            table.c.budget_max_loss,
            table.c.budget_relative,
            table.c.artifacts_url,
            table.c.started_at,
            table.c.resumed_at,
            table.c.finished_at,
        )
        .join(schema.detectors, schema.detectors.c.sha256 == table.c.detector_sha256)
        .join(schema.datasets, schema.datasets.c.fingerprint == table.c.dataset_fingerprint)
        .join(listed, listed.c.sweep_key == table.c.key)
        .group_by(table.c.key, schema.detectors.c.sha256, schema.datasets.c.fingerprint)
        .order_by(table.c.resumed_at.desc(), table.c.key)
    )
    return _rows(engine, query)


def find_sweep(engine: Engine, sweep: str | None = None) -> dict[str, Any]:
    """Finds one sweep.

    Args:
        engine: A database.
        sweep: A name (the latest of that name is meant) or the start of a key; None for the latest of all.

    Returns:
        Its row of `sweeps`.

    Raises:
        UserMistake: If there is none; the message names near matches.
    """
    found = sweeps(engine)
    if not found:
        raise UserMistake("the database holds no sweep yet; run: quantsweep sweep SPEC")
    if sweep is None:
        return found[0]
    for row in found:
        if row["sweep"] == sweep:
            return row
    by_key = [row for row in found if len(sweep) >= _SHORTEST_PREFIX and row["sweep_key"].startswith(sweep)]
    if len(by_key) == 1:
        return by_key[0]
    raise UserMistake(f"there is no sweep {sweep!r}; {_choices(sweep, [row['sweep'] for row in found])}")


def leaderboard(engine: Engine, sweep: str | None = None) -> Rows:
    """Lists the variants of a sweep, best first.

    Rows with a latency and within the budget come first, by rising latency ratio and, where they share
    a structure and so a ratio, by rising AP loss; then those over the budget, those
    without a latency, pending and failed ones. Ratios of different hosts are not compared: each host, the one with
    the most rows first, has its own run of rows.

    Args:
        engine: A database.
        sweep: Name or start of the key; None for the latest.

    Returns:
        Rows of the view `leaderboard`.

    Raises:
        UserMistake: If there is no such sweep.
    """
    rows = _of_sweep(engine, schema.leaderboard, sweep)
    rows_of_host = {host: sum(row["host"] == host for row in rows) for host in {row["host"] for row in rows}}

    def rank(row: dict[str, Any]) -> tuple[Any, ...]:
        timed = row["status"] == "done" and row["latency_ratio"] is not None
        host = (-rows_of_host[row["host"]], row["host"]) if timed else (0, "")
        within = row["feasible"] is not False
        return (
            ("done", "pending", "failed").index(row["status"]),
            not timed,
            host,
            not within,
            row["latency_ratio"] if timed else 0.0,
            row["ap_loss"] or 0.0,
            row["position"],
        )

    return sorted(rows, key=rank)


def pareto_front(engine: Engine, sweep: str | None = None) -> Rows:
    """Lists the variants of a sweep that no other beats in AP and latency at once, fastest first.

    Args:
        engine: A database.
        sweep: Name or start of the key; None for the latest.

    Returns:
        Rows of the view `pareto_front`.

    Raises:
        UserMistake: If there is no such sweep.
    """
    rows = _of_sweep(engine, schema.pareto_front, sweep)
    return sorted(rows, key=lambda row: (row["host"] or "", row["latency_ratio"], row["position"]))


def failures(engine: Engine, sweep: str | None = None) -> Rows:
    """Lists the failed variants of a sweep.

    Args:
        engine: A database.
        sweep: Name or start of the key; None for the latest.

    Returns:
        Rows of the view `failures`, and `kept`: whether a rerun keeps the failure instead of trying again.

    Raises:
        UserMistake: If there is no such sweep.
    """
    rows = _of_sweep(engine, schema.failures, sweep)
    return sorted(({**row, "kept": row["reason"] in KEPT_FAILURES} for row in rows), key=lambda row: row["variant"])


def class_losses(engine: Engine, sweep: str | None = None, variant: str | None = None) -> Rows:
    """Lists AP and loss of each category, the largest loss first.

    Args:
        engine: A database.
        sweep: Name or start of the key; None for the latest.
        variant: Only this one (see `find_variant`); None for all.

    Returns:
        Rows of the view `class_losses`.

    Raises:
        UserMistake: If there is no such sweep or variant.
    """
    key = None if variant is None else find_variant(engine, variant, sweep)["variant_key"]
    rows = [row for row in _of_sweep(engine, schema.class_losses, sweep) if key in (None, row["variant_key"])]
    return sorted(rows, key=lambda row: (row["variant"], -(row["ap_loss"] or 0.0), row["category_id"]))


def find_variant(engine: Engine, variant: str, sweep: str | None = None) -> dict[str, Any]:
    """Finds one variant of a sweep.

    Args:
        engine: A database.
        variant: Its label, or the start of its key or of its artifact's sha256 (at least 4 digits).
        sweep: Name or start of the key; None for the latest.

    Returns:
        Its row of the view `leaderboard`.

    Raises:
        UserMistake: If there is no such sweep, or not one such variant; the message names near matches.
    """
    rows = sorted(_of_sweep(engine, schema.leaderboard, sweep), key=lambda row: row["position"])
    found = [row for row in rows if row["variant"] == variant]
    if not found and len(variant) >= _SHORTEST_PREFIX:
        found = [row for row in rows if row["variant_key"].startswith(variant)]
        found = found or [row for row in rows if (row["artifact_sha256"] or "").startswith(variant)]
    if len(found) == 1:
        return found[0]
    if found:
        labels = ", ".join(row["variant"] for row in found)
        raise UserMistake(f"{variant!r} stands for {len(found)} variants; choices: {labels}")
    name = find_sweep(engine, sweep)["sweep"]
    choices = _choices(variant, [row["variant"] for row in rows])
    raise UserMistake(f"the sweep {name} has no variant {variant!r}; {choices}")


def show(engine: Engine, variant: str, sweep: str | None = None) -> dict[str, Any]:
    """Collects everything that is known of one variant.

    Args:
        engine: A database.
        variant: See `find_variant`.
        sweep: Name or start of the key; None for the latest.

    Returns:
        Its row of the leaderboard; all 12 statistics; detector, dataset, request and build time; and what is nested in
        the tables, with dots in the names: `mac_share.int8`, `operators.CONV_2D`, `host.cpu`, `conditions.load`, ...

    Raises:
        UserMistake: If there is no such sweep or variant.
    """
    found = find_variant(engine, variant, sweep)
    sweep_row = find_sweep(engine, found["sweep_key"])
    listed = schema.sweep_variants
    query = (
        select(
            listed.c.request_key,
            listed.c.accuracy_key,
            listed.c.latency_key,
            listed.c.settled_at,
            schema.artifact_requests.c.build_seconds,
            schema.artifact_requests.c.versions,
            *(getattr(schema.accuracies.c, name) for name in schema.STATISTICS[6:]),
            schema.accuracies.c.settings.label("evaluation"),
            schema.latencies.c.pairs.label("latency_pairs"),
            schema.latencies.c.settings.label("measurement"),
            schema.latencies.c.conditions,
            schema.hosts.c.properties.label("machine"),
            schema.artifacts.c.audit,
        )
        .outerjoin(schema.artifact_requests, schema.artifact_requests.c.key == listed.c.request_key)
        .outerjoin(schema.artifacts, schema.artifacts.c.sha256 == listed.c.artifact_sha256)
        .outerjoin(schema.accuracies, schema.accuracies.c.key == listed.c.accuracy_key)
        .outerjoin(schema.latencies, schema.latencies.c.key == listed.c.latency_key)
        .outerjoin(schema.hosts, schema.hosts.c.fingerprint == schema.latencies.c.host_fingerprint)
        .where(listed.c.sweep_key == found["sweep_key"], listed.c.variant_key == found["variant_key"])
    )
    (row,) = _rows(engine, query)
    for name in schema.STATISTICS[6:]:
        row[name] = None if row[name] == -1 else row[name]
    row |= row.pop("audit") or {}
    named = ("detector", "detector_sha256", "dataset", "dataset_fingerprint", "artifacts_url")
    return _flat({**found, **{name: sweep_row[name] for name in named}, **row})


def detections_sha256_of(engine: Engine, variant: str, sweep: str | None = None) -> str:
    """Finds the detections that a variant's accuracy was computed from.

    Args:
        engine: A database.
        variant: See `find_variant`.
        sweep: Name or start of the key; None for the latest.

    Returns:
        Content hash of the detections' file in artifact storage.

    Raises:
        UserMistake: If there is no such sweep or variant, or the variant has no accuracy.
    """
    row = find_variant(engine, variant, sweep)
    if row["detections_sha256"] is None:
        why = row["failure_message"] or f"its status is {row['status']}"
        raise UserMistake(f"{row['variant']} has no detections: {why}")
    return str(row["detections_sha256"])


def sql(engine: Engine, query: str) -> Rows:
    """Runs one statement of the user's.

    Args:
        engine: A database opened with `read_only`.
        query: Any SQL that only reads.

    Returns:
        The rows, by column name.

    Raises:
        UserMistake: If the statement is wrong, writes, or returns no rows.
    """
    try:
        with engine.connect() as connection:
            result = connection.execution_options(no_parameters=True).exec_driver_sql(query)
            return [_plain_row(row) for row in result]
    except ResourceClosedError as error:
        raise UserMistake("the statement returns no rows; name a SELECT") from error
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise UserMistake(f"the database refuses the statement: {reason}") from error


def _of_sweep(engine: Engine, view: Table, sweep: str | None) -> Rows:
    key = find_sweep(engine, sweep)["sweep_key"]
    return _rows(engine, select(view).where(view.c.sweep_key == key))


def _rows(engine: Engine, query: Select[Any]) -> Rows:
    try:
        with engine.execution_options(reads=True).connect() as connection:
            return [_plain_row(row) for row in connection.execute(query)]
    except DBAPIError as error:
        raise mistake_of(engine, error) from error


def _plain_row(row: Row[Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in row._mapping.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str | dict | list):
        return value
    return str(value)


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            flat[f"{prefix}{name}"] = ", ".join(str(item) for item in value)
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _choices(wanted: str, names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    near = difflib.get_close_matches(wanted, distinct, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    shown = distinct[:8]
    return f"choices: {', '.join(shown)}" + (f", and {len(distinct) - 8} more" if len(distinct) > 8 else "")
