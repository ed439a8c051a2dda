"""Sensitivity of every layer, and what keeping the most sensitive ones in float recovers of the loss of 4 bits.

Run: `python -m tests.benchmarks.sensitivity` with QUANTSWEEP_REFERENCE_DATA set.
"""

import json
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.zoo import SETS, places, quantsweep, swept, zoo_folder

CASES = (
    ("real", "granularity: per_channel"),
    ("real", "granularity: per_tensor, weight_algorithm: mse"),
    ("demo", "granularity: per_channel"),
    ("demo", "granularity: per_tensor"),
)
KEPT = ("none", "most_sensitive_1", "most_sensitive_3", "most_sensitive_5", "most_sensitive_10")


def main() -> None:
    """Analyses all layers of the real detector, then sweeps mixed precision of both detectors."""
    with zoo_folder() as folder:
        swept(folder, f"name: floats\n{SETS['real']}space: [{{scheme: float32}}]\n")
        start = time.perf_counter()
        swept(
            folder,
            f"name: layers\n{SETS['real']}space: [{{scheme: float32}}]\nsensitivity: [{{scheme: static_int4}}]\n",
        )
        layers = _layers(folder)
        print(
            f"{len(layers)} layers in {time.perf_counter() - start:.0f} s, AP measured on {layers[0]['images']} images"
        )
        print(f"rank correlation of SQNR and AP loss: {_rank_correlation(layers):+.2f}")
        print(f"| detector | static_int4 | int4 AP | loss [interval] | {' | '.join(KEPT[1:])} |")
        print("|---|---|---|---|" + "---|" * (len(KEPT) - 1))
        for name, axes in CASES:
            space = f"space: [{{scheme: static_int4, {axes}, keep_float: [{', '.join(KEPT)}]}}]\n"
            spec = f"name: mixed\n{SETS[name]}latency: {{max_seconds: 2, retries: 0}}\n{space}"
            print(_line(name, axes, swept(folder, spec)), flush=True)


def _line(name: str, axes: str, rows: list[dict[str, Any]]) -> str:
    by_kept = {row["keep_float"]: row for row in rows if row["scheme"] == "static_int4"}
    plain = by_kept["none"]
    ap = f"{plain['ap']:.4f}"
    loss = f"{plain['ap_loss']:+.4f} [{plain['ap_loss_low']:+.4f}, {plain['ap_loss_high']:+.4f}]"
    recovered = [
        f"{1 - by_kept[kept]['ap_loss'] / plain['ap_loss']:.0%}, ratio {by_kept[kept]['latency_ratio']:.2f}"
        for kept in KEPT[1:]
    ]
    return f"| {' | '.join([name, axes, ap, loss, *recovered])} |"


def _layers(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(quantsweep("results", "layers", *places(folder)[:2], "--json"))
    return rows


def _rank_correlation(layers: list[dict[str, Any]]) -> float:
    from scipy.stats import spearmanr

    # A layer without any noise has no number.
    noisy = [row for row in layers if row["sqnr_db"] is not None]
    return float(spearmanr([row["sqnr_db"] for row in noisy], [row["ap_loss"] for row in noisy]).statistic)


if __name__ == "__main__":
    main()
