"""What a study of a finished sweep would have found, and at what cost, by replay.

Part a: the study (TPE with constraints, dominance and intervals) over 20 seeds, on the sweep's own images and on 5000
drawn from them. Targets: the optimum, or a variant whose latency interval overlaps its, in at least 19 of 20 searches;
at most 25 % of the exhaustive sweep's image-inferences on the own images and at most 10 % on 5000.

Part b: samplers against each other over 50 seeds on 5000 images: images and latencies until the optimum is found, at
which each search ends.

Run: `python -m tests.benchmarks.replay DB [--artifacts FOLDER] [--out FOLDER]`, DB being that of an exhaustive sweep.
One core. Prints Markdown; with --out, plots and JSON of every search go there.
"""

import argparse
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchestrator.budget import Budget
from orchestrator.cli.output import plain
from orchestrator.replay.plot import write_plot
from orchestrator.replay.report import replay_all
from orchestrator.replay.run import ReplayOptions
from orchestrator.replay.strategies import strategies_of
from orchestrator.replay.table import Table, load_table
from results.connect import open_database

STUDY = ("exhaustive", "find_best", "tpe", "tpe-no-interval", "tpe-no-dominance", "tpe-no-stops")
SAMPLERS = ("random", "tpe_unconstrained", "tpe", "gp")
MANY_IMAGES = 5000
TARGETS = {None: 0.25, MANY_IMAGES: 0.10}
"""Largest share of the exhaustive sweep's image-inferences, by images drawn (None: the sweep's own)."""

FOUND_TARGET = 19 / 20


def main() -> None:
    """Replays both parts and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("db", type=Path)
    parser.add_argument("--sweep")
    parser.add_argument("--artifacts")
    parser.add_argument("--max-loss", type=float, help="another budget than the sweep's")
    parser.add_argument("--seeds", type=int, default=20, help="of part a")
    parser.add_argument("--sampler-seeds", type=int, default=50, help="of part b")
    parser.add_argument("--samplers", default=",".join(SAMPLERS), help="of part b")
    parser.add_argument("--in-flight", type=int, default=8, help="of both")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=("a", "b"))
    options = parser.parse_args()
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    # The threads of the GP sampler's torch gain nothing on such small problems, and lose much on a busy machine.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    budget = None if options.max_loss is None else Budget("AP", options.max_loss, is_relative=False)
    engine = open_database(str(options.db), read_only=True)
    table = load_table(engine, options.sweep, options.artifacts, budget=budget)
    for images in (None, MANY_IMAGES) if options.only != "b" else ():
        name = f"study-{images or table.images}"
        report = replayed(table, STUDY, ReplayOptions(images, options.in_flight), options.seeds, name, options.out)
        judge(next(each for each in report["strategies"] if each["strategy"] == "tpe"), TARGETS[images])
    if options.only != "a":
        how = ReplayOptions(MANY_IMAGES, options.in_flight, until_found=True)
        replayed(table, options.samplers.split(","), how, options.sampler_seeds, "samplers", options.out)


def replayed(
    table: Table, names: Iterable[str], options: ReplayOptions, seeds: int, name: str, out: Path | None
) -> dict[str, Any]:
    """Replays some strategies and prints a row for each."""
    start = time.perf_counter()
    report = replay_all(table, strategies_of(names), options, range(seeds)).plain()
    print(f"\n{name}: {report['variants']} variants, {report['latencies']} latencies, {report['images']} images, "
          f"{report['budget']['text']}, {seeds} seeds, {time.perf_counter() - start:.0f} s\n")  # fmt: skip
    print("| strategy | optimum | as fast | mean regret | images | images to the optimum | latencies "
          "| latencies to the optimum | trials | wrong verdicts | unsupported asks |")  # fmt: skip
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for each in report["strategies"]:
        print(row_of(each), flush=True)
    if out is not None:
        write_plot(report, out / f"{name}.html")
        (out / f"{name}.json").write_text(json.dumps(plain(report)))
    return report


def row_of(each: dict[str, Any]) -> str:
    """One strategy as a row of Markdown."""
    cells = (
        each["strategy"], f"{each['optimum_share']:.0%}", f"{each['as_fast_share']:.0%}",
        f"{each['regret']['mean']:.3%}", f"{each['images_share']['mean']:.1%}", _quartiles(each["images_to_optimum"]),
        f"{each['timed']:.1f}", _quartiles(each["timed_to_optimum"]), f"{each['trials']:.1f}",
        f"{each['wrong_verdicts']} of {each['decisions_within_budget']}",
        f"{each['unsupported_first_half']:.2f} + {each['unsupported_second_half']:.2f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _quartiles(found: dict[str, Any]) -> str:
    low, median, high = ("never" if found[name] is None else f"{found[name]:.0f}" for name in ("low", "median", "high"))
    return f"{median} ({low} to {high})"


def judge(study: dict[str, Any], share: float) -> None:
    """Says whether the study met its targets."""
    found, images = study["as_fast_share"], study["images_share"]["mean"]
    print(f"\n{'met' if found >= FOUND_TARGET else 'MISSED'}: found in {found:.0%} of searches, at least 95 % wanted")
    print(f"{'met' if images <= share else 'MISSED'}: {images:.1%} of the images, at most {share:.0%} wanted")


if __name__ == "__main__":
    main()
