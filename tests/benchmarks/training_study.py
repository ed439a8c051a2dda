"""Which trainings a study ends, what that saves, and what the ended ones would have become.

A study over learning rates from too low to far too high runs first, with post-training quantization beside them; then
an exhaustive sweep of the same space goes on with the trainings that it ended, to their ends. Core-seconds are those of
the study against those of the sweep.

Run: `python -m tests.benchmarks.training_study [--objectives latency] [--epochs N] [--write docs/training.md]`; trains
the real detector on the 208 labelled images of QUANTSWEEP_REFERENCE_DATA. A study that begins no training ends the
benchmark.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from tests.benchmarks.quantization_table import replaced
from tests.benchmarks.zoo import SETS, places, quantsweep, swept, zoo_folder

Row = dict[str, Any]


def spec_of(arguments: argparse.Namespace) -> str:
    """Returns the spec of both."""
    axes = "toolchain: litert_quantizer, granularity: per_tensor"
    return f"""
name: training-study
{SETS["real"]}
budget: {{max_loss: {arguments.max_loss}}}
training: {{images: pool, annotations: pool.json, batch_size: 8, patience: null}}
study: {{objectives: [{", ".join(arguments.objectives)}]}}
space:
  - {{runtime: litert, scheme: static_int8, {axes}}}
  - {{runtime: litert, scheme: static_int4, {axes}, weight_algorithm: [min_max, mse]}}
  - {{runtime: litert, scheme: qat_int4, {axes}, weight_algorithm: mse, trainer: keras, epochs: {arguments.epochs},
     learning_rate: [{", ".join(arguments.rates)}]}}
latency: {{max_seconds: 5}}
"""


def table(study: list[Row], everything: list[Row], ended: dict[str, str]) -> str:
    """Writes a line for each training: what the study did with it, and what it became in the end."""
    lines = [
        "| learning rate | verdict of the study | updates | core-seconds | to the end | AP in the end |",
        "|---|---|---|---|---|---|",
    ]
    spent = {row["variant_key"]: row for row in study}
    for row in sorted(everything, key=lambda each: each["learning_rate"]):
        then = spent.get(row["variant_key"], {"step": 0, "core_seconds": 0.0})
        lines.append(
            f"| {row['learning_rate']:g} | {ended[row['variant_key']]} | {then['step']} of {row['steps']} "
            f"| {then['core_seconds']:.0f} | {row['core_seconds']:.0f} | {row['ap']:.4f} |"
        )
    some, all_of_it = (sum(row["core_seconds"] for row in rows) for rows in (study, everything))
    lines.append(f"| all | | | {some:.0f} | {all_of_it:.0f} ({some / all_of_it:.0%} of it by the study) | |")
    return "\n".join(lines)


def main() -> None:
    """Runs a study and a sweep, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rates", nargs="+", default=["1e-6", "1e-5", "1e-4", "1e-3", "1e-2", "1e-1"])
    parser.add_argument("--objectives", nargs="+", default=["latency", "size"])
    parser.add_argument("--max-loss", type=float, default=0.08)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--keep", type=Path, help="copy the database here")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with zoo_folder() as folder:
        spec = folder / "spec.yaml"
        spec.write_text(spec_of(arguments))
        outcome = json.loads(quantsweep("study", str(spec), *places(folder), "--json"))
        study = json.loads(quantsweep("results", "trainings", "--json", *places(folder)[:2]))
        verdicts = ", ".join(f"{count} {kind}" for kind, count in outcome["verdicts"].items())
        print(f"{verdicts}; {outcome['images_inferred']} images, {outcome['seconds']:.0f} s, {len(study)} trainings")
        if not study:
            return
        rows = json.loads(quantsweep("results", "leaderboard", "--json", *places(folder)[:2]))
        swept(folder, spec.read_text())
        everything = json.loads(quantsweep("results", "trainings", "--json", *places(folder)[:2]))
        if arguments.keep:
            arguments.keep.write_bytes((folder / "results.db").read_bytes())
    ended = {row["variant_key"]: f"{row['verdict']}: {row['verdict_because']}" for row in rows}
    found = table(study, everything, ended)
    print(found)
    if arguments.write:
        arguments.write.write_text(replaced(arguments.write.read_text(), "real: a study", found))


if __name__ == "__main__":
    main()
