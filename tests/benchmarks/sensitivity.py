"""Sensitivity of every layer of the real detector, and what keeping the most sensitive ones in float recovers.

Run: `python -m tests.benchmarks.sensitivity` with QUANTSWEEP_REFERENCE_DATA set.
"""

import json
import time

from tests.benchmarks.zoo import places, quantsweep, swept, zoo_folder

HEAD = """
name: NAME
detector: detector.safetensors
evaluation: {images: coco-mini/val2017, annotations: coco-mini/annotations/instances_val2017.json}
calibration: {images: coco-calib128/train2017}
latency: {max_seconds: 1}
"""
ANALYSED = """
space: [{scheme: float32}]
sensitivity: [{scheme: static_int4}]
"""
MIXED = """
space:
  - {scheme: static_int4, keep_float: [none, most_sensitive_1, most_sensitive_3, most_sensitive_5, most_sensitive_10]}
sensitivity: [{scheme: static_int4}]
"""


def main() -> None:
    """Analyses all layers, then sweeps mixed precision."""
    with zoo_folder() as folder:
        swept(folder, HEAD.replace("NAME", "float") + "space: [{scheme: float32}]\n")
        start = time.perf_counter()
        swept(folder, HEAD.replace("NAME", "analysed") + ANALYSED)
        seconds = time.perf_counter() - start
        layers = json.loads(quantsweep("results", "layers", *places(folder)[:2], "--json"))
        print(f"{len(layers)} layers in {seconds:.0f} s, AP measured on 80 images each")
        rows = swept(folder, HEAD.replace("NAME", "mixed") + MIXED)
        print(quantsweep("results", "layers", *places(folder)[:2]))
    full = next(row["ap_loss"] for row in rows if row["keep_float"] == "none")
    for row in rows:
        if row["scheme"] == "static_int4":
            recovered = 1 - row["ap_loss"] / full
            interval = f"[{row['ap_loss_low']:+.4f}, {row['ap_loss_high']:+.4f}]"
            costs = f"{row['latency_ratio']:.2f} of float32's time, {row['size_bytes'] / 1e6:.1f} MB"
            print(f"{row['keep_float']:<18} AP {row['ap']:.4f} loss {row['ap_loss']:+.4f} {interval}; {costs}")
            print(f"{'':<18} recovers {recovered:.0%} of int4's loss")
    print(f"rank correlation of SQNR and AP loss: {_rank_correlation(layers):+.2f}")


def _rank_correlation(layers: list[dict[str, float]]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr([row["sqnr_db"] for row in layers], [row["ap_loss"] for row in layers]).statistic)


if __name__ == "__main__":
    main()
