"""Profiles as tables: where the time of one variant goes."""

import textwrap
from collections.abc import Sequence

from orchestrator.cli.output import TABLE_WIDTH, Column, Row, number_of, print_line, print_rows, text_of


def print_profile(rows: Sequence[Row], header: Row, why: str | None) -> None:
    """Prints a profile for people.

    Args:
        rows: What `results.queries.profile` lists.
        header: What `results.queries.profile_header` tells.
        why: Why the variant gains nothing, if it gains nothing: a line of `orchestrator.explanations`.
    """
    machine = header["cpu"] or f"host {header['host'][:12]}"
    title = f"{header['variant']}: {header['total_ms']:.2f} ms an inference on {machine}"
    print_rows(rows, OPERATORS, title=title, empty="no operator takes time")
    print_line("")
    print_rows(summed_up(rows), SUMS, title="by operator, kernel and arithmetic", empty="nothing to sum up")
    print_line("")
    total = sum(row["time_ms"] for row in rows)
    print_line(
        f"operators: {total:.2f} of {header['total_ms']:.2f} ms, over {header['repeats']} "
        f"inferences, by {header['method']}"
    )
    print_line(f"fallbacks: {header['fallback_share']:.1%} of the operators' time ({_FALLBACK})")
    print_line(f"conversions: {header['conversion_share']:.1%} of the operators' time ({_CONVERSION})")
    if why:
        print_line(textwrap.fill(why, TABLE_WIDTH, subsequent_indent="  ", break_on_hyphens=False))


def summed_up(rows: Sequence[Row]) -> list[Row]:
    """Sums up operators by kind, kernel and arithmetic.

    Args:
        rows: What `results.queries.profile` lists.

    Returns:
        `operator`, `kernel`, `arithmetic`, `operators` (their number), `time_ms`, `time_share`, `macs` and `note`; what
        takes most time first.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["operator"], row["kernel"], row["arithmetic"], _note(row)), []).append(row)
    sums = [
        {
            **dict(zip(("operator", "kernel", "arithmetic", "note"), key, strict=True)),
            "operators": len(members),
            **{name: sum(row[name] or 0 for row in members) for name in ("time_ms", "time_share", "macs")},
        }
        for key, members in groups.items()
    ]
    return sorted(sums, key=lambda row: -row["time_ms"])


def _note(row: Row) -> str:
    if row["is_fallback"]:
        return "fallback"
    return "conversion" if row["role"] == "conversion" else ""


def _speed(row: Row) -> str:
    """GMAC/s: MACs a millisecond are 10^3 a second."""
    return "-" if not row["macs"] or not row["time_ms"] else f"{row['macs'] / row['time_ms'] / 1e6:.1f}"


_FALLBACK = "float though weights are integers, or reference kernels"
_CONVERSION = "of types or memory layouts"

OPERATORS = (
    number_of("position", "#", ".0f"),
    text_of("operator"),
    Column("layer", lambda row: str(row["layer"] or row["name"])),
    text_of("arithmetic"),
    text_of("kernel"),
    number_of("time_ms", "ms", ".3f"),
    number_of("time_share", "share", ".1%"),
    Column("GMAC/s", _speed, "right"),
    Column("note", _note),
)
"""Columns of a list of operators; where one belongs to no layer, its own name stands there."""

SUMS = (
    text_of("operator"),
    text_of("kernel"),
    text_of("arithmetic"),
    number_of("operators", "number", ".0f"),
    number_of("time_ms", "ms", ".3f"),
    number_of("time_share", "share", ".1%"),
    Column("GMAC/s", _speed, "right"),
    text_of("note"),
)
"""Columns of the sums."""
