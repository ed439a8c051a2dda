"""Explanations of a sweep: why integer variants are not faster than float32 of their runtime, a line each."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine

from results import queries
from results.store import Store
from results.subject import find_subject
from tasks.profiles.explanation import explanation
from tasks.types import Latency


def explanations(engine: Engine, sweep: str | None = None, variant: str | None = None) -> dict[str, str]:
    """Explains the variants that gain nothing.

    Args:
        engine: A database.
        sweep: Name or start of the key; None for the latest.
        variant: Key of a variant: only this one; None for all.

    Returns:
        A line by label of the variant, for each that stores integers, has a latency, and is not faster than float32 of
        the same runtime and number of threads on the same host.

    Raises:
        UserMistake: If there is no such sweep.
    """
    rows = [row for row in queries.leaderboard(engine, sweep) if row["latency_ratio"] is not None]
    asked = [row for row in rows if variant in (None, row["variant_key"])]
    chosen = [row for row in asked if row["quantized_mac_share"] and row["scheme"] != "float32"]
    found = {row["variant"]: _explained(engine, row, _float32_beside(row, rows)) for row in chosen}
    return {label: line for label, line in found.items() if line is not None}


def _float32_beside(row: Mapping[str, Any], rows: list[dict[str, Any]]) -> float | None:
    """Returns the ratio of the fastest float32 that a variant may be measured by."""
    same = ("runtime", "threads", "host")
    ratios = [
        other["latency_ratio"]
        for other in rows
        if other["scheme"] == "float32"
        and not other["runtime_options"]
        and all(other[name] == row[name] for name in same)
    ]
    return min(ratios, default=None)


def _explained(engine: Engine, row: Mapping[str, Any], float_ratio: float | None) -> str | None:
    if float_ratio is None:
        return None
    store, subject = Store(engine), find_subject(engine, row["variant_key"], row["sweep_key"])
    latency = store.latency_of(row["latency_key"])
    assert isinstance(latency, Latency)
    return explanation(
        row["latency_ratio"],
        float_ratio,
        subject.artifact.audit,
        latency.executed_mac_share,
        tuple(queries.host_of(engine, row["host"]).get("isa", ())),
        row["runtime"],
        store.profile_of(row["latency_key"]),
    )
