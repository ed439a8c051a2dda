"""How often a search ends a variant early although its loss on all images is within the budget.

Real detections of a recorded sweep; evaluation sets drawn from its images with replacement, in a random order. Each
decision is one variant on one set, looked at as a search looks at it; budgets are chosen around its true loss there.

Run: `python -m tests.benchmarks.interval_stop [--decisions N] [--images N ...] [--db FILE --artifacts FOLDER
--annotations FILE]`. Without a database it first sweeps 24 variants of the real detector in QUANTSWEEP_REFERENCE_DATA,
some minutes. 1000 decisions on 80 images and on 5000 take about ten minutes on one core. Prints Markdown tables.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np

from orchestrator.budget import Budget
from orchestrator.replay.table import Table, load_table
from orchestrator.search.rungs import rungs
from results.connect import open_database
from tasks.average_precision import average_precision
from tasks.looks import spent_levels
from tasks.matches import Matches
from tasks.uncertainty import resampled_losses
from tests.benchmarks.zoo import SETS, swept, zoo_folder

ERROR_RATE = 0.05
RESAMPLES = 1000
VARIANTS_OF_A_SET = 4
OFFSETS = (-0.02, -0.01, -0.005, -0.001, 0.0, 0.001, 0.005, 0.01, 0.02)
"""True loss less the budget; at 0 the variant is just within it."""

SPACE = """
name: interval-stop
space:
  - {scheme: [float16, dynamic_int8]}
  - {scheme: [dynamic_int4, weight_only_int8, weight_only_int4], toolchain: litert_quantizer}
  - {scheme: static_int8, toolchain: litert_quantizer, granularity: [per_channel, per_tensor],
     range_estimator: [min_max, moving_average, percentile_99_99, mse], calibration_images: [8, 64]}
  - {scheme: static_int8, toolchain: converter, granularity: [per_channel, per_tensor]}
latency: {max_seconds: 1, retries: 0}
"""


@dataclass(frozen=True)
class Decision:
    """One variant on one evaluation set."""

    truth: float
    """Its loss on all images."""

    reference_drift: tuple[float, ...]
    """The reference's AP at each look less that on all images."""

    losses: np.ndarray
    """(looks, 1 + resamples): the loss at each look, then on each resample of its images."""

    def ends(self, levels: Sequence[float], budget: float) -> int | None:
        """The first look whose interval is over the budget; None if there is none."""
        for look, level in enumerate(levels):
            if np.quantile(self.losses[look, 1:], (1 - level) / 2) > budget:
                return look
        return None


@dataclass(frozen=True)
class Outcome:
    """What happened to the decisions with one distance between true loss and budget."""

    decisions: int
    """Those whose budget is at least 0, as budgets are."""

    ended: int
    """How many of them ended early."""

    share: float
    """Mean share of the images that were looked at."""


def decide(
    table: Table, images: int, sizes: Sequence[int], decisions: int, seed: int, resamples: int = RESAMPLES
) -> list[Decision]:
    """Replays looks.

    Args:
        table: A recorded sweep.
        images: Images of each evaluation set.
        sizes: Images at each look.
        decisions: How many pairs of a set and a variant, about.
        seed: Seed of sets and variants.
        resamples: Of each interval.

    Returns:
        The decisions, `VARIANTS_OF_A_SET` on each set.
    """
    random = np.random.default_rng(seed)
    reference = table.matches[table.reference_build]
    variants = [matches for matches in table.matches.values() if differs(matches, reference)]
    found: list[Decision] = []
    for _ in range(-(-decisions // VARIANTS_OF_A_SET)):
        # Drawn with replacement, the images are in a random order already.
        order = random.integers(table.images, size=images)
        looks = [np.bincount(order[:size], minlength=table.images) for size in (*sizes, images)]
        aps = [average_precision(reference, look) for look in looks]
        drift = tuple(ap - aps[-1] for ap in aps[:-1])
        for index in random.choice(len(variants), VARIANTS_OF_A_SET, replace=False):
            truth = aps[-1] - average_precision(variants[index], looks[-1])
            losses = [resampled_losses(reference, variants[index], resamples, weights=look) for look in looks[:-1]]
            found.append(Decision(truth, drift, np.stack(losses)))
    return found


def differs(matches: Matches, reference: Matches) -> bool:
    """Tells whether detections are not those of the reference, but for rounding."""
    if matches.found.shape != reference.found.shape:
        return True
    return bool((matches.found != reference.found).any())


def outcome(
    decisions: Sequence[Decision], sizes: Sequence[int], images: int, levels: Sequence[float], offset: float
) -> Outcome:
    """Judges decisions with budgets that far below the true losses."""
    judged = [each for each in decisions if each.truth - offset >= 0]
    looks = [each.ends(levels, each.truth - offset) for each in judged]
    shares = [1.0 if look is None else sizes[look] / images for look in looks]
    return Outcome(len(judged), sum(look is not None for look in looks), float(np.mean(shares)) if shares else 1.0)


def corrections(sizes: Sequence[int], images: int) -> dict[str, tuple[float, ...]]:
    """Levels of each look by several rules."""
    looks = np.array(sizes)
    finite = np.sqrt(1 - looks / images)
    normal = NormalDist()

    def levels(z: np.ndarray) -> tuple[float, ...]:
        return tuple(2 * normal.cdf(float(each)) - 1 for each in z)

    alone = np.full(len(looks), normal.inv_cdf(1 - ERROR_RATE))
    bonferroni = np.full(len(looks), normal.inv_cdf(1 - ERROR_RATE / len(looks)))
    pocock = boundary(looks / images, lambda share: np.ones_like(share))
    obrien = boundary(looks / images, lambda share: np.sqrt((1 - share) / share))
    return {
        "none: each look at 1 - 2 x error rate": levels(alone),
        "none, finite population": levels(alone * finite),
        "Bonferroni": levels(bonferroni),
        "Bonferroni, finite population": levels(bonferroni * finite),
        "Pocock, finite population": levels(pocock * finite),
        "O'Brien-Fleming, finite population": levels(obrien * finite),
        "**Bonferroni, finite population, few images**": spent_levels(sizes, images, ERROR_RATE),
    }


def boundary(shares: np.ndarray, shape: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Finds standard deviations of a shape that are crossed at any look with the error rate.

    The deviation of the mean of a share f of a population from that of all of it is a Brownian bridge; divided by its
    standard deviation it is a Brownian motion at the time f / (1 - f), divided by its own.
    """
    random = np.random.default_rng(0)
    times = shares / (1 - shares)
    steps = random.normal(size=(400_000, len(shares))) * np.sqrt(np.diff(times, prepend=0.0))
    deviations = np.cumsum(steps, axis=1) / np.sqrt(times)
    wanted = shape(shares)
    return wanted * float(np.quantile((deviations / wanted).max(axis=1), 1 - ERROR_RATE))


def print_by_true_loss(decisions: Sequence[Decision], sizes: Sequence[int], images: int) -> None:
    """The must-show figure."""
    levels = spent_levels(sizes, images, ERROR_RATE)
    print(f"\n{images} images, looks at {', '.join(map(str, sizes))}:\n")
    print("| true loss - budget | decisions | wrong early stops | rate | ended early | images used |")
    print("|---|---|---|---|---|---|")
    for offset in OFFSETS:
        result = outcome(decisions, sizes, images, levels, offset)
        rate = result.ended / max(1, result.decisions)
        wrong = f"{result.ended} | {rate:.1%}" if offset <= 0 else "- | -"
        print(f"| {offset:+g} | {result.decisions} | {wrong} | {rate:.0%} | {result.share:.0%} |")


def print_by_correction(decisions: Sequence[Decision], sizes: Sequence[int], images: int) -> None:
    """What other rules would do."""
    shown = [offset for offset in OFFSETS if offset > 0]
    print("\n| correction | wrong at the budget | " + " | ".join(f"images at {offset:+g}" for offset in shown) + " |")
    print("|---|---|" + "---|" * len(shown))
    for name, levels in corrections(sizes, images).items():
        at_budget = outcome(decisions, sizes, images, levels, 0.0)
        shares = [outcome(decisions, sizes, images, levels, offset).share for offset in shown]
        wrong = f"{at_budget.ended / max(1, at_budget.decisions):.1%}"
        print(f"| {name} | {wrong} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")


def print_bias(decisions: Sequence[Decision], sizes: Sequence[int], images: int) -> None:
    """How the loss on some images differs from that on all."""
    print("\n| images | AP of the reference - on all | loss - on all | its spread | spread by the bootstrap | ratio |")
    print("|---|---|---|---|---|---|")
    for look, size in enumerate(sizes):
        drift = np.mean([each.reference_drift[look] for each in decisions])
        errors = np.array([each.losses[look, 0] - each.truth for each in decisions])
        finite = (1 - size / images) ** 0.5
        spreads = np.array([np.nanstd(each.losses[look, 1:]) for each in decisions]) * finite
        told = float(np.sqrt(np.mean(spreads**2)))
        error = errors.std() / len(errors) ** 0.5
        bias = f"{errors.mean():+.4f} +- {error:.4f}"
        print(f"| {size} | {drift:+.4f} | {bias} | {errors.std():.4f} | {told:.4f} | {errors.std() / told:.2f} |")


@contextmanager
def recorded(options: argparse.Namespace) -> Iterator[Table]:
    """The recorded sweep, or a new one."""
    budget = Budget("AP", 0.01, is_relative=False)
    if options.db is not None:
        yield load_table(open_database(options.db), options.sweep, options.artifacts, options.annotations, budget)
        return
    with zoo_folder() as folder:
        swept(folder, SETS["real"] + SPACE)
        yield load_table(open_database(f"sqlite:///{folder / 'results.db'}"), budget=budget)


def main() -> None:
    """Replays decisions and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=1000, help="for each size of the evaluation set")
    parser.add_argument("--images", type=int, nargs="+", default=[80, 5000], help="sizes of the evaluation set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--db", help="of a recorded sweep")
    parser.add_argument("--sweep", help="its name; the latest if not given")
    parser.add_argument("--artifacts", help="where its detections are; where the sweep put them if not given")
    parser.add_argument("--annotations", type=Path, help="that it was scored with; where it read them if not given")
    options = parser.parse_args()
    with recorded(options) as table:
        print(f"{len(table.matches)} builds of the sweep {table.sweep}, scored on {table.images} images", flush=True)
        for images in options.images:
            sizes = [rung.images for rung in rungs(images, ERROR_RATE)[:-1]]
            decisions = decide(table, images, sizes, options.decisions, options.seed)
            print_by_true_loss(decisions, sizes, images)
            print_by_correction(decisions, sizes, images)
            print_bias(decisions, sizes, images)


if __name__ == "__main__":
    main()
