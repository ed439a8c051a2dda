"""The real detector on every runtime: the tables of docs/runtimes.md.

Run: `python -m tests.benchmarks.cross_runtime [--write docs/runtimes.md] [--threshold 0.01]` with
QUANTSWEEP_REFERENCE_DATA set; about half an hour on 2 cores, most of it torch's compiler. `--write` puts the tables in
place of those between the file's markers.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.quantization_table import replaced
from tests.benchmarks.zoo import swept, zoo_folder

SPEC = Path(__file__).parents[2] / "orchestrator" / "examples" / "cross-runtime.yaml"

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]

NAME: Column = ("variant", lambda row: row["variant"])
AP: Column = ("AP", lambda row: f"{row['ap']:.4f}")
AP50: Column = ("AP50", lambda row: f"{row['ap50']:.3f}")
LOSS: Column = (
    "AP loss [interval]",
    lambda row: f"{row['ap_loss']:+.4f} [{row['ap_loss_low']:+.3f}, {row['ap_loss_high']:+.3f}]",
)
RATIO: Column = (
    "latency ratio [interval]",
    lambda row: f"{row['latency_ratio']:.3f} [{row['latency_ratio_low']:.3f}, {row['latency_ratio_high']:.3f}]",
)
MILLISECONDS: Column = ("ms", lambda row: f"{row['latency_ms_p50']:.1f}")
MEGABYTES: Column = ("stored MB", lambda row: f"{row['size_bytes'] / 1e6:.1f}")
MEMORY: Column = ("peak memory MiB", lambda row: f"{row['peak_memory_bytes'] / 2**20:.0f}")
HELD: Column = ("int8 MACs in the artifact", lambda row: f"{row['int8_mac_share']:.3f}")
EXECUTED: Column = (
    "executed",
    lambda row: "not told" if row["executed_int8_mac_share"] is None else f"{row['executed_int8_mac_share']:.3f}",
)
IMPORT: Column = ("import ms", lambda row: f"{row['import_ms']:.0f}")
LOAD: Column = ("load ms", lambda row: f"{row['load_ms']:.0f}")
FIRST: Column = ("first image ms", lambda row: f"{row['first_inference_ms']:.0f}")
STATUS: Column = ("within .01", lambda row: {True: "yes", False: "no", None: ""}[row["feasible"]])


def main() -> None:
    """Runs the sweep and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--threshold", type=float, default=0.01)
    arguments = parser.parse_args()
    with zoo_folder() as folder:
        start = time.perf_counter()
        rows = swept(folder, f"{SPEC.read_text()}\npostprocessing: {{score_threshold: {arguments.threshold}}}\n")
        print(f"{time.perf_counter() - start:.0f} s")
    text = arguments.write.read_text() if arguments.write else ""
    for name, table in tables(rows).items():
        print(f"\n{name}\n\n{table}")
        text = replaced(text, name, table) if text else text
    if arguments.write:
        arguments.write.write_text(text)


def tables(rows: list[Row]) -> dict[str, str]:
    """Makes the tables of a finished sweep, in Markdown, by the name of their markers."""
    done = sorted((row for row in rows if row["status"] == "done"), key=lambda row: row["latency_ratio"])
    floats = [row for row in done if row["scheme"] == "float32" and not row["runtime_options"]]
    others = [row for row in done if row not in floats]
    static = [row for row in others if row["scheme"] == "static_int8"]
    layouts = [row for row in done if row["runtime"] == "torch" and _has_a_twin(row, done)]
    return {
        "float32": _table(floats, NAME, AP, AP50, MILLISECONDS, RATIO, MEGABYTES, MEMORY),
        "variants": _table(others, NAME, AP, LOSS, RATIO, MILLISECONDS, MEGABYTES, HELD, EXECUTED, STATUS),
        "loading": _table([*floats, *static], NAME, IMPORT, LOAD, FIRST),
        "layouts": _table(layouts, NAME, AP, RATIO, MILLISECONDS),
        "failures": "\n".join(
            f"- `{row['variant']}`: {row['failure_reason']}: {row['failure_message']}"
            for row in rows
            if row["status"] == "failed"
        ),
        "best": _best(done),
    }


def _has_a_twin(row: Row, rows: list[Row]) -> bool:
    """Whether the same variant is there in the other memory layout."""
    name = row["variant"].replace("-contiguous", "")
    return {f"{name[:-3]}-contiguous{name[-3:]}", name} <= {other["variant"] for other in rows}


def _best(done: list[Row]) -> str:
    """Compares the fastest variant within the budget with the fastest on LiteRT, by their ratios to the reference."""
    allowed = [row for row in done if row["feasible"]]
    best = allowed[0]
    lite = next(row for row in allowed if row["runtime"] == "litert")
    low = best["latency_ratio_low"] / lite["latency_ratio_high"]
    high = best["latency_ratio_high"] / lite["latency_ratio_low"]
    return (
        f"Fastest within .01 AP: `{best['variant']}` at {best['latency_ratio']:.3f} of float32's time, "
        f"{best['latency_ratio'] / lite['latency_ratio']:.2f} [{low:.2f}, {high:.2f}] of the fastest LiteRT variant's "
        f"(`{lite['variant']}`, {lite['latency_ratio']:.3f})."
    )


def _table(rows: list[Row], *columns: Column) -> str:
    lines = ["| " + " | ".join(title for title, _ in columns) + " |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(show(row) for _, show in columns) + " |" for row in rows)])


if __name__ == "__main__":
    main()
