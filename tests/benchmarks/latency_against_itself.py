"""A/A test: how often the interval of a latency ratio holds 1.0 when an artifact is measured against itself.

Nominal: 95 %. The named alternative is the textbook's interval, a percentile bootstrap over all pairs, on the same
data.

Run: `python -m tests.benchmarks.latency_against_itself [--measurements 60] [--busy] [--json FILE]` with
QUANTSWEEP_REFERENCE_DATA set, on a machine with nothing else to do; 10 to 20 s a measurement. `--busy` keeps one CPU
busy all the while. `--from FILE` compares intervals on the data of an earlier run.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tasks.latency.duel import Contender, DuelOptions
from tasks.latency.ratio import Round, ratio_of
from tasks.types import RuntimeSettings
from tests.benchmarks.latency_reference import (
    Measurement,
    measured,
    read_measurements,
    real_float32,
    real_scene,
    share_line,
    wilson,
    write_measurements,
)

_RESAMPLES = 2000
_BUSY = """
import os, numpy
values, parent = numpy.ones((256, 256), numpy.float32), os.getppid()
while os.getppid() == parent:
    values @ values
"""
"""A program that computes for as long as its parent lives."""

Interval = Callable[[tuple[Round, ...], np.random.Generator], tuple[float, float]]


def main() -> None:
    """Measures, or reads measurements, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measurements", type=int, default=60)
    parser.add_argument("--busy", action="store_true", help="keep one CPU busy meanwhile")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to save all pairs")
    parser.add_argument("--from", type=Path, dest="source", help="tabulate the pairs of such a file")
    arguments = parser.parse_args()
    if arguments.source:
        found = [each for group in read_measurements(arguments.source).values() for each in group]
    else:
        with busy_cpu() if arguments.busy else _idle():
            seeds = range(arguments.first_seed, arguments.first_seed + arguments.measurements)
            found = list(_against_itself(seeds, arguments.json, "busy" if arguments.busy else "idle"))
    print(f"\n{summary(found)}\n\n{alternatives(found)}")


def _against_itself(seeds: range, path: Path | None, name: str) -> Iterator[Measurement]:
    contender, scene = Contender(real_float32(), RuntimeSettings()), real_scene()
    done: list[Measurement] = []
    for seed in seeds:
        done.append(measured(contender, contender, scene, DuelOptions(seed=seed)))
        print(done[-1], flush=True)
        if path:
            # After each, so that a run that is ended early has left what it had.
            write_measurements(path, {name: done})
        yield done[-1]


@contextmanager
def busy_cpu() -> Iterator[None]:
    """Has another process compute all the while, wherever the scheduler puts it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", _BUSY], env=environment)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _idle() -> Iterator[None]:
    yield


def summary(found: Sequence[Measurement]) -> str:
    """Sums up measurements of an artifact against itself."""
    quiet = [each for each in found if not each.noisy]
    widths = [100 * (each.high - each.low) / each.ratio for each in found]
    return "\n".join(
        (
            f"intervals that hold 1.0: {share_line(sum(each.holds(1) for each in found), len(found))}",
            f"marked noisy: {len(found) - len(quiet)} of {len(found)}",
            f"of those not noisy: {share_line(sum(each.holds(1) for each in quiet), len(quiet))}",
            f"converged: {sum(each.converged for each in found)} of {len(found)}",
            f"median width of the interval: {np.median(widths):.2f} %",
            f"median time: {np.median([each.seconds for each in found]):.1f} s,"
            f" sum {sum(each.seconds for each in found):.0f} s",
            f"median rounds: {np.median([len(each.rounds) for each in found]):.0f}",
            f"median first inference time: {np.median([_first_ms(each) for each in found]):.2f} ms",
            f"mean ratio {np.mean([each.ratio for each in found]):.4f},"
            f" standard deviation {100 * np.std([each.ratio for each in found]):.2f} %",
            _spread(found),
        )
    )


def _first_ms(measurement: Measurement) -> float:
    return float(np.median([first for each in measurement.rounds for first, _ in each]))


def _spread(found: Sequence[Measurement]) -> str:
    """Tells processes' luck from the noise of pairs: variances of log ratios between and within rounds."""
    rounds = [[_logs(each) for each in measurement.rounds] for measurement in found]
    within = np.sqrt(np.mean([logs.var(ddof=1) for each in rounds for logs in each]))
    between = np.sqrt(np.mean([np.var([np.median(logs) for logs in each], ddof=1) for each in rounds]))
    return f"standard deviation of pairs within a round {100 * within:.2f} %, of rounds' medians {100 * between:.2f} %"


def alternatives(found: Sequence[Measurement]) -> str:
    """Makes the table of intervals on the same pairs, in Markdown."""
    lines = ["| interval | holds 1.0 | Wilson interval | median width % |", "|---|---|---|---|"]
    for name, interval in INTERVALS.items():
        random = np.random.default_rng(0)
        ends = np.array([interval(each.rounds, random) for each in found])
        held = int(((ends[:, 0] <= 1) & (ends[:, 1] >= 1)).sum())
        low, high = wilson(held, len(found))
        width = 100 * np.median(ends[:, 1] - ends[:, 0])
        lines.append(f"| {name} | {held / len(found):.3f} | [{low:.3f}, {high:.3f}] | {width:.2f} |")
    return "\n".join(lines)


def _logs(round_: Round) -> np.ndarray:
    return np.log([second / first for first, second in round_])


def _over_pairs(rounds: tuple[Round, ...], random: np.random.Generator) -> tuple[float, float]:
    """The textbook's way: the median of resampled pairs."""
    logs = np.concatenate([_logs(each) for each in rounds])
    drawn = np.median(random.choice(logs, (_RESAMPLES, len(logs))), axis=1)
    return _ends(drawn)


def _over_rounds(rounds: tuple[Round, ...], random: np.random.Generator) -> tuple[float, float]:
    """Cluster bootstrap: whole rounds are drawn."""
    medians = np.array([np.median(_logs(each)) for each in rounds])
    return _ends(random.choice(medians, (_RESAMPLES, len(medians))).mean(axis=1))


def _over_both(rounds: tuple[Round, ...], random: np.random.Generator) -> tuple[float, float]:
    """Hierarchical bootstrap (Kalibera and Jones 2013): rounds are drawn, and pairs within them."""
    logs = np.stack([_logs(each) for each in rounds])
    count, pairs = logs.shape
    chosen = logs[random.integers(count, size=(_RESAMPLES, count))]
    drawn = np.take_along_axis(chosen, random.integers(pairs, size=chosen.shape), axis=2)
    return _ends(np.median(drawn, axis=2).mean(axis=1))


def _student(rounds: tuple[Round, ...], _: np.random.Generator) -> tuple[float, float]:
    found = ratio_of(rounds)
    return found.low, found.high


def _student_of_first(rounds: tuple[Round, ...], _: np.random.Generator) -> tuple[float, float]:
    """As many rounds whatever they show: what looking at the width to decide when to stop costs is left out."""
    return _student(rounds[: DuelOptions().min_rounds], _)


def _ends(logs: np.ndarray) -> tuple[float, float]:
    low, high = np.exp(np.percentile(logs, [2.5, 97.5])).tolist()
    return low, high


INTERVALS: dict[str, Interval] = {
    "percentile bootstrap over pairs (textbook)": _over_pairs,
    "cluster bootstrap over rounds": _over_rounds,
    "hierarchical bootstrap over rounds and pairs": _over_both,
    f"Student over the first {DuelOptions().min_rounds} rounds": _student_of_first,
    "Student over rounds (ours)": _student,
}


if __name__ == "__main__":
    main()
