"""The float32 artifacts of one detector with the real architecture and seeded random weights, each made once."""

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec
from tasks.detector.weights import Detector
from tasks.quantize.artifact import make, source_of
from tasks.quantize.builders import builders
from tasks.quantize.schemes import Float32
from tasks.runtimes.base import runtimes
from tasks.types import ImageShard
from tests.detectors import random_detector

SIZE = 160
CLASS_IDS = (0, 3, 7, 90)

MAKERS = sorted(
    (runtime.name, builder.toolchain, builder.format)
    for runtime in runtimes()
    for builder in builders()
    if builder.scheme is Float32 and runtime.name in builder.runtimes
)
"""(runtime, toolchain, format) of every way to run float32."""


@functools.cache
def contract_detector() -> Detector:
    return random_detector(SSDMobileNetV1Spec(depth_multiplier=1.0, image_size=SIZE, class_ids=CLASS_IDS))


@functools.cache
def float32_of(toolchain: str) -> bytes:
    """Makes the artifact in a process of its own, so that TensorFlow and torch never share one."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "artifact"
        subprocess.run(
            [sys.executable, "-m", "tests.contracts.float32", toolchain, str(place)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            check=True,
        )
        return place.read_bytes()


def pixels(count: int) -> np.ndarray:
    """Random images that are smooth, as photographs are."""
    coarse = np.random.default_rng(1).integers(0, 256, (count, 10, 10, 3), dtype=np.uint8)
    return coarse.repeat(SIZE // 10, axis=1).repeat(SIZE // 10, axis=2)


def shard(count: int) -> ImageShard:
    ids = np.arange(count, dtype=np.int64) * 7 + 5
    return ImageShard(ids, np.tile(np.array([[120, 200]], np.int32), (count, 1)), pixels(count), "contract")


def _main(toolchain: str, place: Path) -> None:
    scheme = Float32(toolchain=toolchain)  # type: ignore[arg-type]
    assert source_of(scheme) is None
    place.write_bytes(make(contract_detector(), scheme))


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))
