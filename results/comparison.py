"""Comparison: two variants of one sweep side by side, from what is stored."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, and_, or_, select

from results import schema
from results.queries import find_variant
from results.ratios import derived_ratio, ratios
from results.reading import rows_of
from results.verdict import Evidence, verdict
from tasks.errors import UserMistake

DIRECT = "timed in turn"
DERIVED = "timed beside the reference"

_SIDE = (
    "runtime", "scheme", "toolchain", "threads", "status", "ap", "ap_loss", "ap_loss_low", "ap_loss_high",
    "latency_ms_p50", "latency_ratio", "latency_ratio_low", "latency_ratio_high", "latency_noisy", "latency_attempts",
    "import_ms", "load_ms", "first_inference_ms", "peak_memory_bytes", "images_per_second", "copies",
    "executed_int8_mac_share", "fallback_share", "conversion_share", "size_bytes", "compressed_bytes", "host",
)  # fmt: skip
"""Columns of the leaderboard that are told of each side."""

_MEASURED = (
    "key", "first_ms_p50", "second_ms_p50", "ratio", "ratio_low", "ratio_high", "pairs", "rounds", "converged", "noisy",
    "created_at",
)  # fmt: skip


def compare(engine: Engine, first: str, second: str, sweep: str | None = None) -> dict[str, Any]:
    """Sets two variants side by side. Ratios are of the second to the first: below 1, the second needs less.

    Args:
        engine: A database.
        first: See `results.queries.find_variant`.
        second: Likewise.
        sweep: Name or start of the key; None for the latest.

    Returns:
        `sweep`, `sweep_key`, `first` and `second` (their labels); what the leaderboard says of each as `first_ap`,
        `second_latency_ratio`, ...; what was wrong while each was measured as `first_noisy` and `second_noisy`;
        `latency_ratio` with `latency_ratio_low` and `latency_ratio_high`, derived from both ratios to the reference
        (None if a side has none, they share one latency, or hosts differ); `load_ratio`, `first_inference_ratio`,
        `peak_memory_ratio`, `throughput_ratio`, `size_ratio`, `compressed_ratio` (None where unknown); `measured`, the
        latest direct comparison of these two artifacts on any host (a dictionary: `ratio`, `ratio_low`, `ratio_high`,
        `first_ms_p50`, `second_ms_p50`, `pairs`, `rounds`, `converged`, `noisy`, `host`, `created_at`, `key`) or None;
        and `verdict`, one line.

    Raises:
        UserMistake: If there is no such sweep or variant, or both are one; or if the latencies come from different
            hosts and the two were never timed directly.
    """
    sides = {"first": find_variant(engine, first, sweep), "second": find_variant(engine, second, sweep)}
    one, other = sides["first"], sides["second"]
    if one["variant_key"] == other["variant_key"]:
        raise UserMistake(f"both names stand for {one['variant']}; name two variants")
    measured = _measured(engine, one, other)
    is_one_host = one["host"] == other["host"]
    if None not in (one["host"], other["host"]) and not is_one_host and measured is None:
        raise UserMistake(
            f"{one['variant']} and {other['variant']} were measured on different hosts, and latencies of different "
            "hosts are never compared; add --measure to time the two in turn on one"
        )
    noise = {name: _noise_of(engine, row) for name, row in sides.items()}
    derived = _derived(one, other) if is_one_host else None
    named = ("latency_ratio", "latency_ratio_low", "latency_ratio_high")
    return {
        **{name: one[name] for name in ("sweep", "sweep_key")},
        **{name: row["variant"] for name, row in sides.items()},
        **{f"{name}_{column}": row[column] for name, row in sides.items() for column in _SIDE},
        **{f"{name}_noisy": found for name, found in noise.items()},
        **dict(zip(named, derived or (None, None, None), strict=True)),
        **ratios(other, one),
        "measured": measured,
        "verdict": _verdict(one, other, measured, derived, noise),
    }


def _derived(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float, float, float] | None:
    if None in (one["latency_key"], other["latency_key"]) or one["latency_key"] == other["latency_key"]:
        return None
    names = ("latency_ratio", "latency_ratio_low", "latency_ratio_high")
    first, second = ((row[names[0]], row[names[1]], row[names[2]]) for row in (one, other))
    return derived_ratio(first, second)


def _verdict(
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    measured: Mapping[str, Any] | None,
    derived: tuple[float, float, float] | None,
    noise: Mapping[str, str],
) -> str:
    evidence = []
    if measured is not None:
        found = (measured["ratio"], measured["ratio_low"], measured["ratio_high"])
        evidence.append(Evidence(*found, DIRECT, measured["noisy"]))
    if derived is not None:
        labels = {"first": one["variant"], "second": other["variant"]}
        text = "; ".join(f"{labels[name]}: {complaints}" for name, complaints in noise.items() if complaints)
        evidence.append(Evidence(*derived, DERIVED, text))
    return verdict(one["variant"], other["variant"], evidence, _why_none(one, other))


def _why_none(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Says why nothing is known of the times of two variants."""
    if one["latency_key"] is not None and one["latency_key"] == other["latency_key"]:
        return "they share their structure and so one latency; --measure times the two in turn"
    without = [row for row in (one, other) if row["latency_key"] is None]
    return "; ".join(f"{row['variant']} has no latency, its status is {row['status']}" for row in without)


def _noise_of(engine: Engine, row: Mapping[str, Any]) -> str:
    query = select(schema.latencies.c.noisy).where(schema.latencies.c.key == row["latency_key"])
    return "; ".join(line for found in rows_of(engine, query) for line in found["noisy"])


def _measured(engine: Engine, one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any] | None:
    """Finds the latest direct comparison of two variants; labels are unique among those of one detector."""
    table = schema.comparisons

    def between(first: Mapping[str, Any], second: Mapping[str, Any]) -> Any:
        return and_(
            *(
                table.c[f"{side}_{column}"] == row[name]
                for side, row in (("first", first), ("second", second))
                for column, name in (("label", "variant"), ("artifact_sha256", "artifact_sha256"))
            )
        )

    query = (
        select(
            table.c.first_label,
            table.c.host_fingerprint.label("host"),
            *(table.c[name] for name in _MEASURED),
        )
        .where(or_(between(one, other), between(other, one)))
        .order_by(table.c.created_at.desc(), table.c.key)
        .limit(1)
    )
    rows = rows_of(engine, query)
    if not rows:
        return None
    found = rows[0] | {"noisy": "; ".join(rows[0]["noisy"])}
    return found if found.pop("first_label") == one["variant"] else _turned(found)


def _turned(found: Mapping[str, Any]) -> dict[str, Any]:
    """Turns a comparison around."""
    return {
        **found,
        "first_ms_p50": found["second_ms_p50"],
        "second_ms_p50": found["first_ms_p50"],
        "ratio": 1 / found["ratio"],
        "ratio_low": 1 / found["ratio_high"],
        "ratio_high": 1 / found["ratio_low"],
    }
