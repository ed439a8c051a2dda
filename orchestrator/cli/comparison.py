"""Comparisons as tables: two variants side by side."""

from collections.abc import Iterator

from orchestrator.cli.leaderboard import NOISY_MARK
from orchestrator.cli.output import Column, Row, print_line, print_rows, text_of

_SIDES = {"first": "A", "second": "B"}

_LINES: tuple[tuple[str, str, str, float, str | None], ...] = (
    ("AP", "ap", ".3f", 1.0, None),
    ("AP loss", "ap_loss", "+.3f", 1.0, None),
    ("ms", "latency_ms_p50", ".2f", 1.0, "latency_ratio"),
    ("ratio to float32", "latency_ratio", ".3f", 1.0, None),
    ("images/s", "images_per_second", ".1f", 1.0, "throughput_ratio"),
    ("load ms", "load_ms", ".1f", 1.0, "load_ratio"),
    ("first inference ms", "first_inference_ms", ".1f", 1.0, "first_inference_ratio"),
    ("peak memory MiB", "peak_memory_bytes", ".1f", 2**-20, "peak_memory_ratio"),
    ("stored MB", "size_bytes", ".2f", 1e-6, "size_ratio"),
    ("compressed MB", "compressed_bytes", ".2f", 1e-6, "compressed_ratio"),
)
"""What is shown: heading, column of the leaderboard, form, factor, and the ratio of the second to the first."""


def print_comparison(found: Row) -> None:
    """Prints a comparison for people.

    Args:
        found: What `results.comparison.compare` tells.
    """
    for side, name in _SIDES.items():
        print_line(f"{name}: {found[side]}")
    print_rows(list(_rows(found)), COMPARISON)
    if found["first_noisy"] or found["second_noisy"] or (found["measured"] or {}).get("noisy"):
        print_line(f"{NOISY_MARK} noisy: the machine was disturbed, and such times make no winner")
    if found["measured"] is None:
        print_line("never timed in turn; --measure does that")
    print_line(found["verdict"])


def _rows(found: Row) -> Iterator[Row]:
    for what, column, form, factor, ratio in _LINES:
        sides = {name: _cell(found[f"{side}_{column}"], form, factor) for side, name in _SIDES.items()}
        if column.startswith("latency"):
            sides = {
                name: (NOISY_MARK if found[f"{side}_noisy"] else "") + sides[name] for side, name in _SIDES.items()
            }
        yield {"what": what, **sides, "ratio": "" if ratio is None else _ratio(found, ratio)}
    measured = found["measured"]
    if measured is not None:
        yield {
            "what": "ms, timed in turn",
            **{name: _cell(measured[f"{side}_ms_p50"], ".2f", 1.0) for side, name in _SIDES.items()},
            "ratio": (NOISY_MARK if measured["noisy"] else "") + _ratio(measured, "ratio"),
        }


def _ratio(row: Row, name: str) -> str:
    text = _cell(row[name], ".3f", 1.0)
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return text if low is None or high is None else f"{text} [{low:.3f}, {high:.3f}]"


def _cell(value: float | None, form: str, factor: float) -> str:
    return "-" if value is None else format(value * factor, form)


COMPARISON = (
    text_of("what", ""),
    Column("A", lambda row: str(row["A"]), "right"),
    Column("B", lambda row: str(row["B"]), "right"),
    Column("B / A", lambda row: str(row["ratio"]), "right"),
)
"""Columns of a comparison."""
