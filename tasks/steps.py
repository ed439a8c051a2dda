"""Steps of the task graph: what one call of a worker does, from plain values to a plain value."""

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from tasks.benchmark import BenchmarkOptions, benchmark
from tasks.detect import detect_shard, detections_from_bytes
from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec
from tasks.detector.weights import Detector
from tasks.errors import ScoringFailed
from tasks.host import this_host
from tasks.identity import key_of
from tasks.quantize.artifact import build_artifact, calibrate
from tasks.quantize.schemes import Scheme
from tasks.score import DETECTIONS_SUFFIX, score, score_detections
from tasks.storage import ArtifactStorage
from tasks.types import (
    Accuracy,
    Artifact,
    DetectionShard,
    Host,
    ImageShard,
    Latency,
    Postprocessing,
    RuntimeSettings,
)

BENCHMARK_IMAGES = 8
"""How many images a benchmark cycles through."""


@dataclass(frozen=True)
class Built:
    """An artifact, and what it took."""

    artifact: Artifact
    """What came out."""

    seconds: float
    """Wall time of the build, without calibration."""


@dataclass(frozen=True)
class Measured:
    """A latency, and where it was measured."""

    host: Host
    """The machine."""

    latency: Latency
    """The measurement."""


def shard_key(*shards: ImageShard) -> str:
    """Names preprocessed images without moving their pixels.

    Args:
        *shards: Preprocessed images.

    Returns:
        A sha256 of their fingerprints.
    """
    return key_of([shard.fingerprint for shard in shards])


def calibrate_sample(detector: Detector, scheme: Scheme, sizes: tuple[int, ...], *shards: ImageShard) -> dict[int, Any]:
    """Calibrates over a sample of images, once for all sizes.

    Args:
        detector: Architecture and weights.
        scheme: Any scheme of the type and toolchain to calibrate for.
        sizes: Sample sizes.
        *shards: The sample in order.

    Returns:
        Calibrations by size.
    """
    pixels = np.concatenate([shard.pixels for shard in shards])
    return calibrate(detector, scheme, pixels, sizes)


def build(detector: Detector, scheme: Scheme, calibrations: dict[int, Any] | None, storage: ArtifactStorage) -> Built:
    """Makes, audits and stores an artifact.

    Args:
        detector: Architecture and weights.
        scheme: How to make it.
        calibrations: By sample size, or None if the scheme needs none.
        storage: Where the file goes.

    Returns:
        The artifact and the time it took.
    """
    size = scheme.axes().get("calibration_images")
    calibration = None if calibrations is None or size is None else calibrations[size]
    start = time.perf_counter()
    artifact = build_artifact(detector, scheme, calibration, storage)
    return Built(artifact, time.perf_counter() - start)


def detect(
    storage: ArtifactStorage,
    artifact: Artifact,
    settings: RuntimeSettings,
    spec: SSDMobileNetV1Spec,
    postprocessing: Postprocessing,
    shard: ImageShard,
) -> DetectionShard:
    """Detects objects on a slice of images with a stored artifact.

    Args:
        storage: Where the artifact is.
        artifact: What to run.
        settings: How to run it.
        spec: Architecture that the artifact was made from.
        postprocessing: How raw outputs become detections.
        shard: Preprocessed images.

    Returns:
        The detections.
    """
    data = _content(storage, artifact.sha256, artifact.format)
    return detect_shard(data, settings, spec, shard, postprocessing)


def score_shards(storage: ArtifactStorage, ground_truth: dict[str, Any], *shards: DetectionShard) -> Accuracy:
    """Merges shards of detections and scores them all at once; see `score_detections`."""
    return score_detections(ground_truth, shards, storage)


def confirm(storage: ArtifactStorage, ground_truth: dict[str, Any], accuracy: Accuracy) -> str:
    """Scores stored detections again with pycocotools, the reference scorer.

    Args:
        storage: Where the detections are.
        ground_truth: COCO annotations of the evaluated images.
        accuracy: What to confirm.

    Returns:
        The reference scorer and its version.

    Raises:
        ScoringFailed: If a statistic differs.
    """
    from importlib.metadata import version

    merged = detections_from_bytes(storage.get(accuracy.detections_sha256, DETECTIONS_SUFFIX))
    again = score(ground_truth, merged, scorer="pycocotools").statistics
    if again != accuracy.statistics:
        raise ScoringFailed(f"{accuracy.scorer} gives {accuracy.statistics[0]!r}, pycocotools gives {again[0]!r}")
    return f"pycocotools {version('pycocotools')}"


def measure(
    storage: ArtifactStorage,
    reference: Artifact,
    artifact: Artifact,
    settings: RuntimeSettings,
    spec: SSDMobileNetV1Spec,
    postprocessing: Postprocessing,
    options: BenchmarkOptions,
    shard: ImageShard,
) -> Measured:
    """Measures the latency of an artifact beside the reference on this machine.

    Args:
        storage: Where both artifacts are.
        reference: The LiteRT float32 build.
        artifact: What to measure.
        settings: How to run it.
        spec: Architecture of both.
        postprocessing: How raw outputs become detections.
        options: Time cap and wanted precision.
        shard: Preprocessed images; the first `BENCHMARK_IMAGES` are used.

    Returns:
        The latency and this machine.
    """
    base, variant = (_content(storage, item.sha256, item.format) for item in (reference, artifact))
    latency = benchmark(base, variant, settings, spec, _first(shard, BENCHMARK_IMAGES), postprocessing, options)
    return Measured(this_host(), latency)


def _first(shard: ImageShard, count: int) -> ImageShard:
    return ImageShard(shard.image_ids[:count], shard.sizes[:count], shard.pixels[:count], shard.fingerprint)


@lru_cache(maxsize=4)
def _content(storage: ArtifactStorage, sha256: str, suffix: str) -> bytes:
    return storage.get(sha256, suffix)
