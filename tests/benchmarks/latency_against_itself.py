"""How often the interval of a latency ratio holds 1.0 when an artifact is measured against itself.

Run by `make bench`; needs QUANTSWEEP_REFERENCE_DATA and a machine with nothing else to do. Nominal: 95 %.
"""

import os
import sys
import tempfile
from pathlib import Path

from tasks.benchmark import BenchmarkOptions, benchmark
from tasks.coco.dataset import load_dataset
from tasks.coco.preprocess import preprocess_shard
from tasks.detector.importers import import_detector
from tasks.quantize.artifact import build_artifact
from tasks.quantize.schemes import Float32
from tasks.storage import ArtifactStorage
from tasks.types import Postprocessing, RuntimeSettings

MEASUREMENTS = 14
IMAGES = 8


def main() -> None:
    """Measures the real detector's float32 build against itself and prints each interval."""
    if "QUANTSWEEP_REFERENCE_DATA" not in os.environ:
        sys.exit("QUANTSWEEP_REFERENCE_DATA does not name the folder with the real detector and COCO images")
    data = Path(os.environ["QUANTSWEEP_REFERENCE_DATA"]).resolve()
    detector = import_detector(data / "models" / "coco_ssd_mobilenet_v1_0.75_quant_2018_06_29.tflite")
    images = load_dataset(data / "coco-mini" / "val2017", None).images[:IMAGES]
    shard = preprocess_shard(images, detector.spec.image_size, None)
    with tempfile.TemporaryDirectory() as folder:
        storage = ArtifactStorage(folder)
        artifact = build_artifact(detector, Float32(), storage)
        content = storage.get(artifact.sha256, artifact.format)
    held = 0
    for seed in range(MEASUREMENTS):
        options = BenchmarkOptions(seed=seed)
        latency = benchmark(content, content, RuntimeSettings(), detector.spec, shard, Postprocessing(), options)
        held += latency.ratio_low <= 1 <= latency.ratio_high
        print(
            f"{latency.ratio:.4f} [{latency.ratio_low:.4f}, {latency.ratio_high:.4f}], {latency.pairs} pairs",
            flush=True,
        )
    print(f"{held} of {MEASUREMENTS} intervals hold 1.0")


if __name__ == "__main__":
    main()
