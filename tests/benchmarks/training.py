"""What training gains over post-training quantization, and what it costs: the tables of docs/training.md.

Run: `python -m tests.benchmarks.training demo|real [--epochs N] [--rate R] [--seeds 0 1 2] [--write docs/training.md]`.
"Recovered" is the share of what post-training quantization with the same ranges of weights loses. `demo` is the
built-in detector on synthetic scenes, trained on 512 of them; `real` is the real detector, trained on the 208 labelled
images of QUANTSWEEP_REFERENCE_DATA.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.quantization_table import replaced
from tests.benchmarks.zoo import SETS, places, quantsweep, swept, zoo_folder

Row = dict[str, Any]

ALGORITHMS = {"qat_int8": ["min_max"], "qat_int4": ["min_max", "mse"]}
"""Ranges of weights that trainings start from."""

LOSSES = {"demo": "", "real": "balance: focal, focal_alpha: 0.75, "}
"""What the detectors were trained with; the second as TensorFlow's configuration
`ssd_mobilenet_v1_0.75_depth_quantized_300x300_coco14_sync` says."""

LEAST_LOSS = 0.002
"""AP that must have been lost for a share of it to mean anything."""

SCHEMES = {"qat_int8": "static_int8", "qat_int4": "static_int4"}
"""Trained schemes, and what they are compared with."""


def spec_of(subject: str, arguments: argparse.Namespace) -> str:
    """Returns the spec of one of the two sweeps."""
    distillation = ", ".join(map(str, arguments.distillation))
    images = "images: pool, annotations: pool.json, " if subject == "real" else ""
    axes = f"toolchain: litert_quantizer, granularity: {arguments.granularity}"
    epochs = arguments.epochs * len(arguments.trainers) if len(arguments.epochs) == 1 else arguments.epochs
    trained = "".join(
        f"""
  - {{runtime: litert, scheme: {scheme}, {axes}, weight_algorithm: [{", ".join(ALGORITHMS[scheme])}],
     trainer: {trainer}, epochs: {number}, learning_rate: {arguments.rate},
     distillation_weight: [{distillation}], training_seed: {list(arguments.seeds)}}}"""
        for scheme in arguments.schemes
        for trainer, number in zip(arguments.trainers, epochs, strict=True)
    )
    return f"""
name: training-{subject}
{SETS[subject]}
training: {{{images}{LOSSES[subject]}batch_size: {arguments.batch}, patience: null}}
space:
  - {{runtime: litert, scheme: static_int8, {axes}}}
  - {{runtime: litert, scheme: static_int4, {axes}, weight_algorithm: [min_max, mse]}}{trained}
latency: {{max_seconds: 2, retries: 0}}
"""


def table(rows: Sequence[Row], trainings: Sequence[Row]) -> str:
    """Writes one line for each way of making a detector, the trained ones as means over seeds."""
    lines = [
        "| scheme | weights | made by | distillation | AP | spread | of the loss recovered | core-seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    float32 = next(row["ap"] for row in rows if row["is_reference"])
    lines.append(f"| float32 | | | | {float32:.4f} | | | |")
    costs = {row["variant_key"]: row["core_seconds"] for row in trainings}
    for scheme, static in SCHEMES.items():
        for row in rows:
            if row["scheme"] == static:
                made = "post-training quantization"
                lines.append(f"| {static} | {row['weight_algorithm']} | {made} | | {row['ap']:.4f} | | | |")
        lines += [_line(group, rows, costs, float32) for group in _groups(rows, scheme)]
    return "\n".join(lines)


def _groups(rows: Sequence[Row], scheme: str) -> Iterator[list[Row]]:
    """The runs of each training with different seeds."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["scheme"] == scheme and row["epochs"] and row["status"] == "done":
            found.setdefault((row["weight_algorithm"], row["trainer"], row["distillation_weight"]), []).append(row)
    yield from found.values()


def _line(group: list[Row], rows: Sequence[Row], costs: dict[str, float], float32: float) -> str:
    first, aps = group[0], [row["ap"] for row in group]
    twin = next(
        row["ap"]
        for row in rows
        if (row["scheme"], row["weight_algorithm"], row["epochs"]) == (first["scheme"], first["weight_algorithm"], 0)
    )
    spread = f"{min(aps):.4f} to {max(aps):.4f}" if len(aps) > 1 else ""
    lost = float32 - twin
    recovered = f"{(statistics.mean(aps) - twin) / lost:.0%}" if lost > LEAST_LOSS else ""
    cost = statistics.mean(costs[row["variant_key"]] for row in group)
    return (
        f"| {first['scheme']} | {first['weight_algorithm']} | {first['trainer']} | {first['distillation_weight']:g} "
        f"| {statistics.mean(aps):.4f} | {spread} | {recovered} | {cost:.0f} |"
    )


@contextmanager
def _folder(subject: str) -> Iterator[Path]:
    if subject == "real":
        with zoo_folder() as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def main() -> None:
    """Runs a sweep and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subject", choices=("demo", "real"))
    parser.add_argument("--schemes", nargs="+", default=list(SCHEMES))
    parser.add_argument("--granularity", default="per_tensor")
    parser.add_argument("--trainers", nargs="+", default=["keras", "torch"])
    parser.add_argument("--algorithms", nargs="+", help="ranges of 4-bit weights that trainings start from")
    parser.add_argument("--address", default="local", help="as of quantsweep sweep; in-process leaves a core to others")
    parser.add_argument("--epochs", type=int, nargs="+", default=[10], help="of all trainers, or of each of them")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", default="1e-3")
    parser.add_argument("--distillation", nargs="+", type=float, default=[1.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--write", type=Path)
    parser.add_argument("--keep", type=Path, help="copy the database here")
    arguments = parser.parse_args()
    if arguments.algorithms:
        ALGORITHMS["qat_int4"] = arguments.algorithms
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _folder(arguments.subject) as folder:
        rows = swept(folder, spec_of(arguments.subject, arguments), "--address", arguments.address)
        trainings = json.loads(quantsweep("results", "trainings", "--json", *places(folder)[:2]))
        if arguments.keep:
            arguments.keep.write_bytes((folder / "results.db").read_bytes())
    found = table(rows, trainings)
    print(found)
    if arguments.write:
        name = f"{arguments.subject}: per tensor"
        arguments.write.write_text(replaced(arguments.write.read_text(), name, found))


if __name__ == "__main__":
    main()
