"""Sixty calibrated variants from one pass over the images, against sixty runs of TFLiteConverter.

Sizes 8 to 128, six range estimators, per-channel and per-tensor: 60 static_int8 variants of the toolchain
litert_quantizer on the real detector, each made and audited; fixed ranges have no size, so that 52 are distinct, and as
in a sweep each is made once. The other side is the documented way: a TFLiteConverter
with a representative dataset for each variant. Of its runs three are measured, for 8, 32 and 128 images, and the others
follow from the straight line through them. Decoding JPEG files is in neither time; both use one thread.

Run: `python -m tests.benchmarks.calibration` with QUANTSWEEP_REFERENCE_DATA set. Takes two minutes.
"""

import itertools
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np

from tasks.coco.dataset import load_dataset
from tasks.coco.preprocess import preprocess_shard
from tasks.detector.importers import import_detector
from tasks.detector.weights import Detector
from tasks.identity import sha256_of
from tasks.quantize.artifact import make
from tasks.quantize.observe import observe, representative
from tasks.quantize.ranges import ranges_for
from tasks.quantize.schemes import Float32, Granularity, StaticInt8
from tasks.quantize.statistics import Statistics, merge

SIZES = (8, 16, 32, 64, 128)
ESTIMATORS = ("min_max", "moving_average", "percentile_99_99", "mse", "entropy", "fixed")
GRANULARITIES: tuple[Granularity, ...] = ("per_channel", "per_tensor")
MEASURED_SIZES = (8, 32, 128)
SHARDS = (1, 2, 7, 128)
MODEL = "coco_ssd_mobilenet_v1_0.75_quant_2018_06_29.tflite"


@dataclass
class Seconds:
    """Time spent."""

    wall: float = 0.0
    """As a clock sees it."""

    cpu: float = 0.0
    """As the CPU sees it, which is steadier on a machine that is shared."""

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Adds the time spent inside."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu


def main() -> None:
    """Measures both ways and prints the seconds."""
    if "QUANTSWEEP_REFERENCE_DATA" not in os.environ:
        sys.exit("QUANTSWEEP_REFERENCE_DATA does not name the folder with the real detector and COCO images")
    data = Path(os.environ["QUANTSWEEP_REFERENCE_DATA"]).resolve()
    detector = import_detector(data / "models" / MODEL)
    images = load_dataset(data / "coco-calib128" / "train2017", None).images[: max(SIZES)]
    pixels = preprocess_shard(images, detector.spec.image_size, None).pixels
    source = Seconds()
    with source.measured():
        model = make(detector, Float32())
    observed, built = _sixty_from_one_pass(detector, model, pixels)
    _print_estimators(model, observed)
    converter = _sixty_by_converter(detector, pixels)
    both = Seconds(built.wall + source.wall, built.cpu + source.cpu)
    _print("float32 .tflite, made once before", source)
    _print("TFLiteConverter, 60 runs extrapolated", converter)
    _print_ratio("ratio", converter, built)
    _print_ratio("ratio with the float32 .tflite", converter, both)


def _print_ratio(what: str, theirs: Seconds, ours: Seconds) -> None:
    print(f"{what:<40}{theirs.wall / ours.wall:7.1f} wall  {theirs.cpu / ours.cpu:7.1f} CPU")


def _print(what: str, spent: Seconds, remark: str = "") -> None:
    print(f"{what:<40}{spent.wall:7.2f} s wall{spent.cpu:7.2f} s CPU  {remark}", flush=True)


def _sixty_from_one_pass(detector: Detector, model: bytes, pixels: np.ndarray) -> tuple[Statistics, Seconds]:
    passing, making = Seconds(), Seconds()
    with passing.measured():
        observed = observe(model, pixels, [f"{index:03}" for index in range(len(pixels))])
        statistics = {size: merge(*observed[:size]) for size in SIZES}
    product = itertools.product(SIZES, ESTIMATORS, GRANULARITIES)
    schemes = {
        StaticInt8(
            toolchain="litert_quantizer", granularity=granularity, range_estimator=estimator, calibration_images=size
        )
        for size, estimator, granularity in product
    }
    artifacts = set()
    with making.measured():
        for scheme in schemes:
            sample = statistics[scheme.calibration_images] if scheme.is_calibrated else None
            artifacts.add(sha256_of(make(detector, scheme, model, sample)))
    merged = {
        sha256_of(merge(*(merge(*observed[start::shards]) for start in range(shards))).to_bytes()) for shards in SHARDS
    }
    kept = np.mean([len(one.to_bytes()) for one in observed]) / 1000
    each = 1000 * passing.cpu / len(pixels)
    _print(f"one pass over {len(pixels)} images", passing, f"{each:.0f} ms and {kept:.0f} kB kept an image")
    print(f"merged from {SHARDS} shards: {len(merged)} distinct statistics")
    _print("60 builds with their audits", making, f"{len(schemes)} distinct, {len(artifacts)} distinct artifacts")
    return statistics[max(SIZES)], Seconds(passing.wall + making.wall, passing.cpu + making.cpu)


def _print_estimators(model: bytes, statistics: Statistics) -> None:
    for estimator in ESTIMATORS:
        spent = Seconds()
        with spent.measured():
            ranges_for(StaticInt8(toolchain="litert_quantizer", range_estimator=estimator), model, statistics)
        _print(f"ranges by {estimator}", spent)


def _sixty_by_converter(detector: Detector, pixels: np.ndarray) -> Seconds:
    spent = []
    for size in MEASURED_SIZES:
        one = Seconds()
        with one.measured():
            _convert(detector, pixels[:size])
        _print(f"TFLiteConverter, {size} images", one)
        spent.append(one)
    runs = len(ESTIMATORS) * len(GRANULARITIES)

    def extrapolated(seconds: list[float]) -> float:
        line = np.polynomial.Polynomial.fit(MEASURED_SIZES, seconds, 1)
        return float(runs * sum(line(size) for size in SIZES))

    return Seconds(extrapolated([one.wall for one in spent]), extrapolated([one.cpu for one in spent]))


def _convert(detector: Detector, pixels: np.ndarray) -> bytes:
    import tensorflow as tf

    from tasks.detector.keras_model import build_keras

    converter = tf.lite.TFLiteConverter.from_keras_model(build_keras(detector))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([representative(image)] for image in pixels)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return bytes(converter.convert())


if __name__ == "__main__":
    main()
