"""Whether a sampler stops asking for combinations that cannot be made, and what it takes to teach it that.

Run: `python -m tests.benchmarks.unsupported_combinations`. The space has several hundred variants, one third of which
is unsupported; the shares are those of the trials that asked for one of them. "Told" is how a study does it: pruned,
with a broken constraint. "Failed" is Optuna's usual way, from which its samplers learn nothing.
"""

import argparse
import statistics

from orchestrator.search.candidate import Candidate
from orchestrator.search.optuna_strategy import OptunaStrategy, open_study
from orchestrator.space import expand
from tasks.types import Latency, LossInterval, Variant, Verdict, VerdictKind

TRIALS = 60
SEEDS = 20
LIMIT = 0.01
VARIANTS = expand(
    [
        {"runtime": "litert", "scheme": "static_int8", "toolchain": "litert_quantizer",
         "granularity": ["per_channel", "per_tensor"], "symmetry": ["asymmetric", "symmetric"],
         "range_estimator": ["min_max", "moving_average", "mse"], "calibration_images": [8, 16, 32, 64, 128],
         "transform": ["none", "equalized", "clustered_16"], "calibration_seed": [0, 1]},
        {"runtime": "litert", "scheme": "static_int4", "toolchain": "litert_quantizer", "symmetry": "symmetric",
         "granularity": ["per_channel", "per_tensor"], "range_estimator": ["min_max", "moving_average", "mse"],
         "calibration_images": [8, 16, 32, 64, 128], "transform": ["none", "equalized", "clustered_16"]},
    ],
    [1, 2],
)[0].variants[1:]  # fmt: skip


def is_unsupported(variant: Variant) -> bool:
    """Says that one granularity cannot be had together with two of the three estimators."""
    axes = variant.scheme.axes()
    return axes.get("granularity") == "per_tensor" and axes["range_estimator"] != "min_max"


def asked_for_unsupported(sampler: str, seed: int, is_told: bool) -> list[bool]:
    """Searches for a while.

    Args:
        sampler: Identifier of the sampler.
        seed: Its seed.
        is_told: Whether it is told which variants are unsupported.

    Returns:
        For each trial whether it asked for an unsupported variant.
    """
    strategy = OptunaStrategy(open_study(None, "unsupported", sampler, seed), VARIANTS, limit=LIMIT)
    waiting: list[Candidate] = []
    hits = []
    for _ in range(TRIALS):
        ask = strategy.ask()
        assert ask is not None
        hits.append(is_unsupported(ask.variant))
        waiting.append(Candidate(ask))
        if len(waiting) == 8:
            _settle(strategy, waiting.pop(0), is_told)
    return hits


def main() -> None:
    """Prints a line for each sampler and way of telling."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--samplers", nargs="*", default=["tpe", "random"])
    arguments.add_argument("--seeds", type=int, default=SEEDS)
    asked = arguments.parse_args()
    share = statistics.mean(is_unsupported(variant) for variant in VARIANTS)
    print(f"{len(VARIANTS)} variants, {share:.0%} unsupported; {TRIALS} trials, {asked.seeds} seeds, 8 in flight")
    print("| sampler | an unsupported one is | first half | second half | last ten |")
    print("|---|---|---|---|---|")
    for sampler in asked.samplers:
        for is_told in (True, False):
            hits = [asked_for_unsupported(sampler, seed, is_told) for seed in range(asked.seeds)]
            shares = [
                statistics.mean(hit for each in hits for hit in each[part])
                for part in (slice(TRIALS // 2), slice(TRIALS // 2, None), slice(-10, None))
            ]
            words = " | ".join(f"{part:.0%}" for part in shares)
            print(f"| {sampler} | {'told' if is_told else 'failed'} | {words} |", flush=True)


def _settle(strategy: OptunaStrategy, candidate: Candidate, is_told: bool) -> None:
    if is_unsupported(candidate.variant):
        kind: VerdictKind = "unsupported" if is_told else "failed"
        candidate.verdict = Verdict(kind, 0, 80, None, "quantize: unsupported_scheme")
    else:
        ratio, loss = _measured(candidate.variant)
        candidate.latency = Latency(1, 1, 1, 1, ratio, ratio, ratio, 0, 0, 1, True, (), {})
        candidate.interval = LossInterval(loss, loss, loss, 0.95, 200, 0, 80)
        kind = "feasible" if loss <= LIMIT else "infeasible"
        candidate.verdict = Verdict(kind, 80, 80, candidate.interval, "")
    strategy.tell(candidate)


def _measured(variant: Variant) -> tuple[float, float]:
    """Makes up a latency ratio and a loss; what is unsupported lies where the fastest ones would be."""
    axes = variant.scheme.axes()
    ratio = 0.5 if axes.get("granularity") == "per_tensor" else 0.6
    ratio *= {1: 1.0, 2: 0.6}[variant.settings.threads]
    loss = {"min_max": 0.004, "moving_average": 0.008, "mse": 0.002}.get(axes.get("range_estimator", ""), 0.0)
    loss += 0.04 / axes.get("calibration_images", 1000) + (0.05 if variant.scheme.name == "static_int4" else 0.0)
    return ratio, loss + {"none": 0.0, "equalized": -0.001}.get(axes["transform"], 0.06)


if __name__ == "__main__":
    main()
