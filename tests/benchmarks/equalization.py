"""Cross-layer equalization: AP of per-tensor artifacts with and without, on the demo's and on the real detector.

Run: `python -m tests.benchmarks.equalization` with QUANTSWEEP_REFERENCE_DATA set.
"""

from tests.benchmarks.zoo import SETS, swept, zoo_folder

SPACE = """
space:
  - {scheme: float32, transform: [none, TRANSFORMS]}
  - {scheme: static_int8, toolchain: [converter, litert_quantizer], granularity: [per_tensor, per_channel],
     transform: [none, TRANSFORMS]}
  - {scheme: static_int4, granularity: [per_tensor, per_channel], transform: [none, TRANSFORMS]}
latency: {max_seconds: 5, retries: 0}
"""
TRANSFORMS = "equalized"


def main() -> None:
    """Runs both sweeps and prints one table."""
    print("| detector | scheme | toolchain | granularity | transform | AP | loss | interval | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    with zoo_folder() as folder:
        for name, sets in SETS.items():
            rows = swept(folder, f"name: {name}\n{sets}{SPACE.replace('TRANSFORMS', TRANSFORMS)}")
            for row in sorted(rows, key=lambda row: row["position"]):
                if row["status"] == "failed":
                    print(f"| {name} | {row['variant']} | failed: {row['failure_message']} |")
                    continue
                axes = [row[axis] or "" for axis in ("scheme", "toolchain", "granularity", "transform")]
                interval = f"[{row['ap_loss_low']:+.4f}, {row['ap_loss_high']:+.4f}]"
                numbers = [f"{row['ap']:.4f}", f"{row['ap_loss']:+.4f}", interval, f"{row['latency_ratio']:.2f}"]
                print(f"| {' | '.join([name, *axes, *numbers])} |")


if __name__ == "__main__":
    main()
