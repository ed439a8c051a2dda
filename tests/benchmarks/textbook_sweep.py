"""`quantsweep sweep` of 24 LiteRT variants against the textbook loop, both in one go.

The textbook loop is what tutorials show: for each variant, convert the model, then take image by image from the
JPEG file through the interpreter and a NumPy non-maximum suppression, and score with pycocotools; one process.

The lower the score threshold, the more boxes reach the suppression: at quantsweep's default of 0.01 most of the
textbook loop's time goes there, at 0.05 little does.

Run: `python -m tests.benchmarks.textbook_sweep [--score-threshold 0.05]` with QUANTSWEEP_REFERENCE_DATA set.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.textbook import textbook_ap

SPEC = """
name: textbook
detector: {folder}/detector.safetensors
evaluation: {{images: {data}/coco-mini/val2017, annotations: {data}/coco-mini/annotations/instances_val2017.json}}
calibration: {{images: {data}/coco-calib128/train2017}}
space:
  - {{scheme: [float32, float16]}}
  - {{scheme: dynamic_int8, toolchain: [converter, litert_quantizer]}}
  - {{scheme: static_int8, toolchain: [converter, litert_quantizer], granularity: [per_channel, per_tensor],
     calibration_images: [8, 16, 32, 64, 128]}}
postprocessing: {{score_threshold: {threshold}}}
"""


def main() -> None:
    """Runs both and prints seconds, ratio and the AP of each variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--score-threshold", type=float, default=0.01)
    threshold = parser.parse_args().score_threshold
    if "QUANTSWEEP_REFERENCE_DATA" not in os.environ:
        sys.exit("QUANTSWEEP_REFERENCE_DATA does not name the folder with the real detector and COCO images")
    data = Path(os.environ["QUANTSWEEP_REFERENCE_DATA"]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _quantsweep("model", "import", str(_model(data)), "--out", str(folder / "detector.safetensors"))
        (folder / "spec.yaml").write_text(SPEC.format(folder=folder, data=data, threshold=threshold))
        start = time.perf_counter()
        sweep = ["sweep", str(folder / "spec.yaml"), "--json"]
        where = ["--db", str(folder / "results.db"), "--artifacts", str(folder / "artifacts")]
        rows = json.loads(_quantsweep(*sweep, *where))
        ours = time.perf_counter() - start
        print(f"quantsweep: {len(rows)} variants in {ours:.1f} s", flush=True)
        start = time.perf_counter()
        textbook = {row["variant"]: textbook_ap(folder / "detector.safetensors", data, row, threshold) for row in rows}
        theirs = time.perf_counter() - start
    print(f"textbook:   {len(rows)} variants in {theirs:.1f} s")
    print(f"quantsweep is {theirs / ours:.1f} times faster")
    print(f"{'variant':<64} {'AP':>7} {'textbook':>9}")
    for row in rows:
        print(f"{row['variant']:<64} {row['ap']:7.4f} {textbook[row['variant']]:9.4f}")


def _model(data: Path) -> Path:
    return data / "models" / "coco_ssd_mobilenet_v1_0.75_quant_2018_06_29.tflite"


def _quantsweep(*arguments: str) -> str:
    command = [sys.executable, "-m", "orchestrator.cli.main", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
