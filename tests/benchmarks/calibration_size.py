"""How many calibration images are needed: AP by size and seed of the sample, on the real detector.

Samples are drawn from 208 images of COCO train2017; AP is that of 80 images of val2017.

Run: `python -m tests.benchmarks.calibration_size` with QUANTSWEEP_REFERENCE_DATA set.
"""

import statistics
import time
from collections import defaultdict

from tests.benchmarks.zoo import swept, zoo_folder

SIZES = (8, 32, 128)
SEEDS = tuple(range(8))
SPEC = f"""
name: calibration-size
detector: detector.safetensors
evaluation: {{images: coco-mini/val2017, annotations: coco-mini/annotations/instances_val2017.json}}
calibration: {{images: pool}}
space:
  - {{scheme: static_int8, toolchain: litert_quantizer, granularity: [per_channel, per_tensor],
     range_estimator: [min_max, moving_average, percentile_99_99, mse, entropy], calibration_images: {list(SIZES)},
     calibration_seed: {list(SEEDS)}}}
  - {{scheme: static_int8, toolchain: converter, granularity: [per_channel, per_tensor],
     calibration_images: {list(SIZES)}, calibration_seed: {list(SEEDS)}}}
latency: {{max_seconds: 1, retries: 0}}
"""


def main() -> None:
    """Runs the sweep and prints mean and spread over the seeds."""
    start = time.perf_counter()
    with zoo_folder() as folder:
        rows = swept(folder, SPEC)
    print(f"{len(rows)} variants in {time.perf_counter() - start:.0f} s")
    reference = next(row["ap"] for row in rows if row["is_reference"])
    print(
        f"float32: AP {reference:.4f}; below: mean AP +- standard deviation over {len(SEEDS)} seeds [least, greatest]"
    )
    groups: dict[tuple[str, str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["scheme"] == "static_int8":
            name = row["toolchain"], row["granularity"], row["range_estimator"]
            groups[name][row["calibration_images"]].append(row["ap"])
    print("| toolchain | granularity | estimator | " + " | ".join(f"{size} images" for size in SIZES) + " |")
    print("|---|---|---|" + "---|" * len(SIZES))
    for name, by_size in sorted(groups.items()):
        print("| " + " | ".join([*name, *(_summary(by_size[size]) for size in SIZES)]) + " |")


def _summary(values: list[float]) -> str:
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    return f"{mean:.4f} +- {spread:.4f} [{min(values):.4f}, {max(values):.4f}]"


if __name__ == "__main__":
    main()
