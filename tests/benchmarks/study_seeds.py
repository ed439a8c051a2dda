"""Whether studies of the real detector find what an exhaustive sweep found, seed by seed, and how much they infer.

Each study starts from the sweep's artifacts and latencies and knows no accuracy: it infers, looks, decides and confirms
for real, and times its winner a second time.

Run: `python -m tests.benchmarks.study_seeds DB SPEC [--artifacts FOLDER] [--seeds 20] [--max-loss 0.01]`, DB being
the database of a finished `quantsweep sweep SPEC`, FOLDER its artifacts. Half a minute a seed; keep the machine quiet.
"""

import argparse
import json
import os
import re
import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from results.connect import open_database
from results.queries import leaderboard
from tests.benchmarks.zoo import quantsweep

KNOWN_SUFFIXES = (".detection-shard",)
"""Kept results of inferences: these must not be known beforehand."""

FORGOTTEN = (
    "verdicts", "sweep_variants", "sweeps", "loss_intervals", "class_accuracies", "accuracies",
)  # fmt: skip
"""Tables of the copy that are emptied: everything that says what was scored."""

Row = dict[str, Any]


def main() -> None:
    """Runs the studies and prints what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("db", type=Path)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--artifacts", type=Path, default=Path("quantsweep-artifacts"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--max-loss", type=float, default=0.01)
    options = parser.parse_args()
    measured = _measured(options.db)
    optimum = min(_allowed(measured, options.max_loss), key=lambda row: row["latency_ratio"])
    print(f"optimum: {optimum['variant']} at {optimum['latency_ratio']:.4f}; budget {options.max_loss:g}\n")
    print("| search | winner | as fast as the optimum | within | images of the exhaustive | trials | verdicts |")
    print("|---|---|---|---|---|---|---|")
    commands = {"find-best": ("sweep", "--find-best")}
    commands |= {f"seed {seed}": ("study", "--seed", str(seed)) for seed in range(options.seeds)}
    outcomes: list[tuple[bool, float]] = []
    for name, command in commands.items():
        found = _searched(options, command)
        winner = next((row for row in measured if found["winner"] and row["variant"] == found["winner"]["variant"]), {})
        is_found = bool(winner) and winner["latency_ratio_low"] <= optimum["latency_ratio_high"]
        is_within = winner in _allowed(measured, options.max_loss)
        share = found["images_inferred"] / found["images_exhaustive"]
        if name != "find-best":
            outcomes.append((is_found and is_within, share))
        print(
            f"| {name} | `{winner.get('variant')}` | {is_found} | {is_within} | {found['images_inferred']} of "
            f"{found['images_exhaustive']} ({share:.1%}) | {found['trials']} | {_counted(found['verdicts'])} |",
            flush=True,
        )
    shares = sorted(share for _, share in outcomes)
    print(
        f"\n{sum(found for found, _ in outcomes)} of {len(outcomes)} studies found it; images: median "
        f"{shares[len(shares) // 2]:.1%}, most {shares[-1]:.1%}"
    )


def _measured(db: Path) -> list[Row]:
    engine = open_database(str(db), read_only=True)
    return [row for row in leaderboard(engine) if row["status"] == "done" and not row["is_reference"]]


def _allowed(rows: list[Row], max_loss: float) -> list[Row]:
    return [row for row in rows if row["ap_loss"] <= max_loss + 1e-12 and not row["latency_noisy"]]


def _searched(options: argparse.Namespace, command: tuple[str, ...]) -> dict[str, Any]:
    """Runs one search on a copy of the database that has forgotten every score."""
    with tempfile.TemporaryDirectory(dir=options.artifacts.resolve().parent) as name:
        folder = Path(name)
        with closing(sqlite3.connect(options.db)) as source, closing(sqlite3.connect(folder / "results.db")) as copy:
            source.backup(copy)
        open_database(str(folder / "results.db")).dispose()
        with closing(sqlite3.connect(folder / "results.db")) as copy:
            for table in FORGOTTEN:
                copy.execute(f"DELETE FROM {table}")
            copy.commit()
        ignored = shutil.ignore_patterns(*(f"*{suffix}" for suffix in KNOWN_SUFFIXES))
        shutil.copytree(options.artifacts, folder / "artifacts", copy_function=os.link, ignore=ignored)
        text = re.sub(r"max_loss: [0-9.e-]+", f"max_loss: {options.max_loss:g}", options.spec.read_text())
        spec = options.spec.resolve().parent / f".{folder.name}.yaml"
        spec.write_text(text)
        try:
            places = ("--db", str(folder / "results.db"), "--artifacts", str(folder / "artifacts"))
            printed = quantsweep(command[0], str(spec), *command[1:], *places, "--address", "in-process", "--json")
        finally:
            spec.unlink()
    found: dict[str, Any] = json.loads(printed)
    return found


def _counted(verdicts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in Counter(verdicts).most_common())


if __name__ == "__main__":
    main()
