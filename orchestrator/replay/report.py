"""Reports: many replayed searches of each strategy, summed up."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from multiprocessing import get_context
from typing import Any

import numpy as np

from orchestrator.replay.drawn_images import DrawnImages
from orchestrator.replay.run import Decision, ReplayOptions, Run, replay
from orchestrator.replay.strategies import ReplayStrategy
from orchestrator.replay.table import Entry, Table
from tasks.types import RuntimeSettings

EXCESS_EDGES = (-np.inf, -0.02, -0.01, -0.005, -0.002, 0.0, 0.002, 0.005, 0.01, 0.02, np.inf)
"""Edges of the classes of true loss less the budget's limit that decisions are counted in."""


@dataclass(frozen=True)
class Report:
    """A replay of several strategies."""

    table: Table
    """What was searched."""

    options: ReplayOptions
    """How."""

    runs: tuple[Run, ...]
    """Every search, strategy by strategy, seed by seed."""

    @property
    def strategies(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(dict.fromkeys(run.strategy for run in self.runs))

    def of(self, strategy: str) -> list[Run]:
        """Returns the searches of a strategy."""
        return [run for run in self.runs if run.strategy == strategy]

    def plain(self) -> dict[str, Any]:
        """Returns everything as one JSON object; numbers that are infinite are None."""
        table, options = self.table, self.options
        return {
            "sweep": table.sweep,
            "sweep_key": table.sweep_key,
            "dataset": table.dataset,
            "budget": {**asdict(table.budget), "text": table.budget.text},
            "variants": len(table.entries),
            "builds": len(table.matches),
            "latencies": len({_timed(entry) for entry in table.entries if entry.latency}),
            "table_images": table.images,
            "images": options.images or table.images,
            "is_resampled": options.images is not None,
            "seeds": len({run.seed for run in self.runs}),
            "options": asdict(options),
            "strategies": [summary(self.of(name)) for name in self.strategies],
            "runs": [
                {name: value for name, value in asdict(run).items() if name not in ("decisions", "curve")}
                for run in self.runs
            ],
        }


def replay_all(
    table: Table,
    strategies: Sequence[ReplayStrategy],
    options: ReplayOptions,
    seeds: Iterable[int],
    jobs: int = 1,
    done: Callable[[int], None] = lambda seeds: None,
) -> Report:
    """Replays every strategy with every seed.

    Args:
        table: What is searched.
        strategies: Who searches.
        options: How.
        seeds: Of samplers and images.
        jobs: Processes that share the seeds.
        done: Called with the number of seeds that are finished, after each.

    Returns:
        The report.
    """
    runs: list[Run] = []
    for number, found in enumerate(_each_seed(table, strategies, options, list(seeds), jobs), 1):
        runs += found
        done(number)
    ordered = [run for strategy in strategies for run in runs if run.strategy == strategy.name]
    return Report(table, options, tuple(ordered))


def _each_seed(
    table: Table, strategies: Sequence[ReplayStrategy], options: ReplayOptions, seeds: list[int], jobs: int
) -> Iterator[list[Run]]:
    if jobs == 1 or len(seeds) < 2:
        yield from (_of_seed(table, strategies, options, seed) for seed in seeds)
        return
    # Fresh processes: libraries that run threads do not survive a fork.
    with ProcessPoolExecutor(min(jobs, len(seeds)), get_context("spawn"), _keep, (table, strategies, options)) as pool:
        yield from pool.map(_of_kept, seeds)


_KEPT: list[tuple[Table, Sequence[ReplayStrategy], ReplayOptions]] = []


def _keep(table: Table, strategies: Sequence[ReplayStrategy], options: ReplayOptions) -> None:
    _KEPT.append((table, strategies, options))


def _of_kept(seed: int) -> list[Run]:
    return _of_seed(*_KEPT[-1], seed)


def _of_seed(table: Table, strategies: Sequence[ReplayStrategy], options: ReplayOptions, seed: int) -> list[Run]:
    drawn = DrawnImages.draw(table, seed, options.images, options.resamples)
    return [replay(drawn, strategy, options) for strategy in strategies]


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Sums up the searches of one strategy.

    Args:
        runs: One for each seed, at least one.

    Returns:
        Plain values: shares in [0, 1]; images and regrets as mean, median and quartiles. A search that never found the
        optimum counts as one that would take more images than any other, so that a quartile among those is None.
    """
    shares = [run.images / run.images_exhaustive for run in runs]
    decisions = [decision for run in runs for decision in run.decisions]
    within = [decision for decision in decisions if decision.excess <= 0]
    return {
        "strategy": runs[0].strategy,
        "seeds": len(runs),
        "optimum_share": _mean(run.is_optimum for run in runs),
        "as_fast_share": _mean(run.is_as_fast for run in runs),
        "regret": _spread([run.regret for run in runs]),
        "images": _spread([run.images for run in runs]),
        "images_share": _spread(shares),
        "images_to_optimum": _censored([run.images_to_optimum for run in runs]),
        "images_to_as_fast": _censored([run.images_to_as_fast for run in runs]),
        "timed": _mean(run.timed for run in runs),
        "timed_to_optimum": _censored([run.timed_to_optimum for run in runs]),
        "trials": _mean(run.trials for run in runs),
        "unsupported_first_half": _mean(run.unsupported[0] for run in runs),
        "unsupported_second_half": _mean(run.unsupported[1] for run in runs),
        "decisions": len(decisions),
        "ended_early": sum(decision.is_early for decision in decisions),
        "decisions_within_budget": len(within),
        "wrong_verdicts": sum(decision.is_wrong for decision in within),
        "wrong_share": _mean(decision.is_wrong for decision in within) if within else None,
        "by_excess_loss": _by_excess(decisions),
        "curve": _curve(runs),
    }


def _timed(entry: Entry) -> tuple[str, RuntimeSettings]:
    assert entry.artifact is not None
    return entry.artifact.structure_sha256, entry.variant.settings


def _by_excess(decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    """Counts decisions by true loss less the limit, which is above `over` and at most `up_to`."""
    rows = []
    for low, high in pairwise(EXCESS_EDGES):
        among = [decision for decision in decisions if low < decision.excess <= high]
        if among:
            rows.append(
                {
                    "over": low if np.isfinite(low) else None,
                    "up_to": high if np.isfinite(high) else None,
                    "decisions": len(among),
                    "ended_early": sum(decision.is_early for decision in among),
                    "images": _mean(decision.images for decision in among),
                }
            )
    return rows


def _curve(runs: Sequence[Run]) -> dict[str, list[float]]:
    """Regret against images inferred: mean and quartiles over the runs, wherever one of them changes."""
    ends = max(run.images for run in runs)
    points = np.unique([ends, *(images for run in runs for images, _ in run.curve)])
    regrets = np.array([_regrets(run, points) for run in runs])
    low, median, high = np.quantile(regrets, [0.25, 0.5, 0.75], axis=0)
    values = {"images": points, "mean": regrets.mean(axis=0), "low": low, "median": median, "high": high}
    return {name: each.tolist() for name, each in values.items()}


def _regrets(run: Run, points: np.ndarray) -> np.ndarray:
    images, regrets = (np.array(column) for column in zip(*run.curve, strict=True))
    return regrets[np.searchsorted(images, points, side="right") - 1]


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _spread(values: Sequence[float]) -> dict[str, float]:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"mean": float(np.mean(values)), "low": float(low), "median": float(median), "high": float(high)}


def _censored(values: Sequence[int | None]) -> dict[str, float | None]:
    """Quartiles of what some runs never reached: values of the sample, so that none is between a number and never."""
    known = [np.inf if value is None else float(value) for value in values]
    found = {"low": 0.25, "median": 0.5, "high": 0.75}
    quartiles = {name: float(np.quantile(known, at, method="inverted_cdf")) for name, at in found.items()}
    reached = sum(value is not None for value in values)
    return {"reached": reached, **{name: at if np.isfinite(at) else None for name, at in quartiles.items()}}
