"""Steps of the task graph: what one call of a worker does, from plain values to a plain value."""

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from tasks.average_precision import average_precision
from tasks.benchmark import benchmark, compare_latency
from tasks.detect import detect_shard, detections_from_bytes, detections_to_bytes
from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec, layers
from tasks.detector.weights import Detector
from tasks.errors import ArtifactUnreadable, ScoringFailed
from tasks.host import this_host
from tasks.identity import key_of, sha256_of
from tasks.latency.duel import Contender, DuelOptions
from tasks.latency.profiling import profile
from tasks.latency.scene import SCENE, Scene
from tasks.matches import Matches, join, match
from tasks.quantize.artifact import build_artifact
from tasks.quantize.kept_layers import kept_layers
from tasks.quantize.observe import observe, statistics_key
from tasks.quantize.qat import clipped, first_ranges, simulation_of
from tasks.quantize.schemes import Qat, Scheme
from tasks.quantize.statistics import Statistics, merge
from tasks.quantize.transforms.base import transformed
from tasks.score import DETECTIONS_SUFFIX, score, score_detections
from tasks.sensitivity import probe_layer
from tasks.storage import ArtifactStorage
from tasks.training.loop import advance
from tasks.training.recipe import Recipe
from tasks.training.samples import TrainingSet
from tasks.training.trained import TRAINED_SUFFIX, Trained
from tasks.training.training import Training
from tasks.types import (
    Accuracy,
    Artifact,
    Comparison,
    DetectionShard,
    Host,
    ImageShard,
    Latency,
    LayerSensitivity,
    LossInterval,
    Postprocessing,
    Profile,
    RuntimeSettings,
    TrainingProgress,
)
from tasks.uncertainty import loss_interval

STATISTICS_SUFFIX = "statistics"
"""Suffix of kept statistics in artifact storage."""

SHARD_SUFFIX = "detection-shard"
"""Suffix of kept shards of detections in artifact storage: the key of their owner, then the detections."""

_OWNER_BYTES = 64


@dataclass(frozen=True)
class Built:
    """An artifact, and what it took."""

    artifact: Artifact
    """What came out."""

    seconds: float
    """Wall time of the build, without calibration."""


@dataclass(frozen=True)
class Compared:
    """A direct comparison, and where it was measured."""

    host: Host
    """The machine."""

    comparison: Comparison
    """The measurement."""


@dataclass(frozen=True)
class Profiled:
    """A profile, and where it was taken."""

    host: Host
    """The machine."""

    profile: Profile
    """The measurement."""


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


def observe_images(storage: ArtifactStorage, source: Artifact, shard: ImageShard) -> dict[int, str]:
    """Sees to it that the statistics of each image's activations are in storage.

    Args:
        storage: Where statistics are kept.
        source: The float32 .tflite whose activations are observed.
        shard: Preprocessed images.

    Returns:
        The key of the statistics of each image, by image id.
    """
    images = [sha256_of(np.ascontiguousarray(pixels).tobytes()) for pixels in shard.pixels]
    keys = [statistics_key(source.sha256, image) for image in images]
    missing = [index for index, key in enumerate(keys) if storage.recall(key, STATISTICS_SUFFIX) is None]
    if missing:
        content = _content(storage, source.sha256, source.format)
        found = observe(content, shard.pixels[missing], [images[index] for index in missing])
        for index, statistics in zip(missing, found, strict=True):
            storage.keep(keys[index], statistics.to_bytes(), STATISTICS_SUFFIX)
    return {int(image_id): key for image_id, key in zip(shard.image_ids, keys, strict=True)}


def gather(storage: ArtifactStorage, keys: tuple[str, ...]) -> Statistics:
    """Merges kept statistics.

    Args:
        storage: Where they are kept.
        keys: As `observe_images` gave them.

    Returns:
        The statistics of all these images.

    Raises:
        ArtifactUnreadable: If some are gone.
    """
    found = [storage.recall(key, STATISTICS_SUFFIX) for key in dict.fromkeys(keys)]
    if None in found:
        raise ArtifactUnreadable(f"{found.count(None)} of {len(found)} statistics are no longer in {storage.url}")
    return merge(*(Statistics.from_bytes(data) for data in found if data is not None))


def transform(detector: Detector, name: str) -> Detector:
    """Does a transform of the weights; see `tasks.quantize.transforms.base.transformed`."""
    return transformed(detector, name)


def build(
    detector: Detector,
    scheme: Scheme,
    source: Artifact | None,
    statistics: Statistics | None,
    images: ImageShard | None,
    ranking: tuple[str, ...],
    storage: ArtifactStorage,
    trained_sha256: str | None = None,
) -> Built:
    """Makes, audits and stores an artifact.

    Args:
        detector: Architecture and weights, with the scheme's transform done.
        scheme: How to make it.
        source: The float32 artifact that it starts from, if it does.
        statistics: Of activations, if the scheme is calibrated with them.
        images: Its calibration images, if it is calibrated with those.
        ranking: The layers, the most sensitive first, if the scheme needs them.
        storage: Where the files are.
        trained_sha256: Its trained weights and ranges, if it is trained; then `detector` is where training began.

    Returns:
        The artifact and the time it took.
    """
    content = _content(storage, source.sha256, source.format) if source else None
    ranges = None
    if trained_sha256 is not None:
        trained = Trained.from_bytes(storage.get(trained_sha256, TRAINED_SUFFIX), f"the trained {trained_sha256[:12]}")
        detector, ranges = trained.detector, trained.ranges
    start = time.perf_counter()
    artifact = build_artifact(
        detector, scheme, storage, content, statistics, ranking, images.pixels if images else None, ranges
    )  # fmt: skip
    return Built(artifact, time.perf_counter() - start)


def train(
    storage: ArtifactStorage,
    key: str,
    scheme: Qat,
    recipe: Recipe,
    detector: Detector,
    images: TrainingSet,
    statistics: Statistics | None,
    ranking: tuple[str, ...],
    point: int,
) -> TrainingProgress:
    """Trains on to a point of the learning curve; see `tasks.training.loop.advance`.

    Args:
        storage: Where checkpoints and results go.
        key: Names everything that the training depends on.
        scheme: What is to be made in the end.
        recipe: How it is trained.
        detector: Where training starts.
        images: What it is trained on.
        statistics: Of the activations of the float32 .tflite of the detector, unless its ranges are fixed.
        ranking: The layers, the most sensitive first, if the scheme needs them.
        point: Index of the point.

    Returns:
        How far it is.
    """
    kept = kept_layers(scheme.keep_float, [layer.name for layer in layers(detector.spec)], ranking)
    ranges = first_ranges(scheme, detector, statistics)
    simulation, start = simulation_of(scheme, kept), clipped(scheme, detector, kept)
    training = Training(key, scheme.trainer, start, recipe, images, simulation, ranges, teacher=detector)
    return advance(training, storage, point)


def probe(
    detector: Detector,
    scheme: Scheme,
    layer: str,
    source: Artifact,
    statistics: Statistics | None,
    storage: ArtifactStorage,
    images: ImageShard,
    ground_truth: dict[str, Any],
    postprocessing: Postprocessing,
    *evaluation: ImageShard,
) -> LayerSensitivity:
    """Quantizes one layer alone; see `tasks.sensitivity.probe_layer`."""
    content = _content(storage, source.sha256, source.format)
    return probe_layer(detector, scheme, layer, content, statistics, images, evaluation, ground_truth, postprocessing)


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


def detect_and_keep(
    storage: ArtifactStorage,
    key: str,
    owner: str,
    artifact: Artifact,
    settings: RuntimeSettings,
    spec: SSDMobileNetV1Spec,
    postprocessing: Postprocessing,
    shard: ImageShard,
) -> int:
    """Sees to it that the detections of a slice of images are in storage.

    Args:
        storage: Where the artifact is, and where the detections are kept.
        key: Names everything that the detections depend on.
        owner: Key of the study that they are for; noted with them if they are made now.
        artifact: What to run.
        settings: How to run it.
        spec: Architecture that the artifact was made from.
        postprocessing: How raw outputs become detections.
        shard: Preprocessed images.

    Returns:
        Images that were inferred for this owner, now or by an earlier run that did not get to count them; 0 if another
        study's work could be used.
    """
    kept = storage.recall(key, SHARD_SUFFIX)
    if kept is None:
        found = detect(storage, artifact, settings, spec, postprocessing, shard)
        kept = owner.encode() + detections_to_bytes(found)
        storage.keep(key, kept, SHARD_SUFFIX)
    return len(shard) if _owner(kept) == owner else 0


def kept_for(storage: ArtifactStorage, owner: str, keys: tuple[str, ...]) -> tuple[str, ...]:
    """Finds kept detections that were made for an owner.

    Args:
        storage: Where the detections are kept.
        owner: Key of a study.
        keys: Keys of shards of detections.

    Returns:
        Those of the keys whose detections are there and were made for it.
    """
    kept = {key: storage.recall(key, SHARD_SUFFIX) for key in keys}
    return tuple(key for key, content in kept.items() if content is not None and _owner(content) == owner)


def score_kept(storage: ArtifactStorage, ground_truth: dict[str, Any], keys: tuple[str, ...]) -> Accuracy:
    """Merges kept shards of detections and scores them all at once.

    Args:
        storage: Where the detections are kept.
        ground_truth: COCO annotations of the evaluated images.
        keys: What `detect_and_keep` kept.

    Returns:
        The accuracy.

    Raises:
        ArtifactUnreadable: If some are gone.
    """
    return score_detections(ground_truth, [_kept_shard(storage, key) for key in keys], storage)


def look(
    storage: ArtifactStorage,
    ground_truth: dict[str, Any],
    reference: tuple[str, ...],
    variant: tuple[str, ...],
    level: float,
    metric: Literal["AP", "AP50", "AP75"],
    is_relative: bool,
) -> LossInterval:
    """Estimates the loss on some of the images, with its interval.

    Args:
        storage: Where the detections are kept.
        ground_truth: COCO annotations of all evaluation images.
        reference: Keys of the reference's kept shards.
        variant: Keys of the variant's, of the same images.
        level: Nominal coverage of the interval, in (0, 1).
        metric: Statistic that the loss is of.
        is_relative: Whether the loss is a share of the reference's value.

    Returns:
        The loss on these images and its interval; everything is possible where the reference has no score on them.

    Raises:
        ArtifactUnreadable: If some detections are gone.
    """
    truth = _Implied(ground_truth)
    before, after = (_joined_matches(storage, truth, keys) for keys in (reference, variant))
    score = average_precision(before, metric=metric)
    if score < 0 or (is_relative and not score):
        return LossInterval(0.0, -1.0, 1.0, level, resamples=0, seed=0, images=len(before.image_ids))
    return loss_interval(before, after, level=level, metric=metric, is_relative=is_relative)


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


def compare(
    storage: ArtifactStorage,
    ground_truth: dict[str, Any],
    reference: Accuracy,
    accuracy: Accuracy,
    level: float = 0.95,
    metric: Literal["AP", "AP50", "AP75"] = "AP",
    is_relative: bool = False,
) -> LossInterval:
    """Estimates the loss of stored detections against the reference's, with its interval.

    Args:
        storage: Where the detections are.
        ground_truth: COCO annotations of the evaluated images.
        reference: What losses refer to.
        accuracy: What is compared with it, on the same images.
        level: Nominal coverage of the interval, in (0, 1).
        metric: Statistic that the loss is of.
        is_relative: Whether the loss is a share of the reference's value.

    Returns:
        The loss and its interval.
    """
    truth = _Truth(ground_truth)
    before = _matches(storage, truth, reference.detections_sha256)
    after = _matches(storage, truth, accuracy.detections_sha256)
    return loss_interval(before, after, level=level, metric=metric, is_relative=is_relative)


def keep_scene(storage: ArtifactStorage, key: str, spec: SSDMobileNetV1Spec, shard: ImageShard) -> None:
    """Sees to it that the images of benchmarks are in storage, where later comparisons find them, too.

    Args:
        storage: Where they are kept.
        key: Names everything that they depend on.
        spec: Architecture of the detector.
        shard: Preprocessed images; the first ones are taken.
    """
    if storage.recall(key, SCENE) is None:
        storage.keep(key, Scene.of(shard, spec).to_bytes(), SCENE)


def kept_scene(storage: ArtifactStorage, key: str) -> Scene:
    """Reads the images of benchmarks.

    Args:
        storage: Where they are kept.
        key: As `keep_scene` had it.

    Returns:
        The scene.

    Raises:
        ArtifactUnreadable: If it is gone.
    """
    data = storage.recall(key, SCENE)
    if data is None:
        raise ArtifactUnreadable(f"the images that latency is measured on are no longer in {storage.url}")
    return Scene.from_bytes(data)


def measure(
    storage: ArtifactStorage,
    reference: Artifact,
    artifact: Artifact,
    settings: RuntimeSettings,
    scene_key: str,
    postprocessing: Postprocessing,
    options: DuelOptions,
) -> Measured:
    """Measures the latency of an artifact beside the reference on this machine.

    Args:
        storage: Where both artifacts are.
        reference: The LiteRT float32 build.
        artifact: What to measure.
        settings: How to run it.
        scene_key: What `keep_scene` kept.
        postprocessing: How raw outputs become detections.
        options: Time cap and wanted precision.

    Returns:
        The latency and this machine.
    """
    base, variant = (_content(storage, item.sha256, item.format) for item in (reference, artifact))
    latency = benchmark(base, variant, settings, kept_scene(storage, scene_key), postprocessing, options)
    return Measured(this_host(), latency)


def compare_directly(
    storage: ArtifactStorage,
    first: tuple[Artifact, RuntimeSettings],
    second: tuple[Artifact, RuntimeSettings],
    scene_key: str,
    options: DuelOptions,
) -> Compared:
    """Times two artifacts in turn on this machine.

    Args:
        storage: Where both are.
        first: One artifact, and how to run it.
        second: The other.
        scene_key: What `keep_scene` kept.
        options: Time cap and wanted precision.

    Returns:
        The comparison and this machine.
    """
    one, other = (
        Contender(_content(storage, item.sha256, item.format), settings) for item, settings in (first, second)
    )
    return Compared(this_host(), compare_latency(one, other, kept_scene(storage, scene_key), options))


def take_profile(
    storage: ArtifactStorage, artifact: Artifact, settings: RuntimeSettings, scene_key: str, seconds: float
) -> Profiled:
    """Times each operator of an artifact on this machine.

    Args:
        storage: Where the artifact is.
        artifact: What to profile.
        settings: How to run it.
        scene_key: What `keep_scene` kept.
        seconds: Time to spend, about.

    Returns:
        The profile and this machine.
    """
    content = _content(storage, artifact.sha256, artifact.format)
    return Profiled(this_host(), profile(content, settings, kept_scene(storage, scene_key).pixels, seconds))


@lru_cache(maxsize=4)
def _content(storage: ArtifactStorage, sha256: str, suffix: str) -> bytes:
    return storage.get(sha256, suffix)


class _Truth:
    """Ground truth as the key of a cache: a worker meets one evaluation set at a time, and compares its ids."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self._ids = tuple(item["id"] for item in content["annotations"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Truth) and self.content == other.content

    def __hash__(self) -> int:
        return hash(self._ids)


@lru_cache(maxsize=2)
def _matches(storage: ArtifactStorage, truth: _Truth, detections_sha256: str) -> Matches:
    return match(truth.content, detections_from_bytes(storage.get(detections_sha256, DETECTIONS_SUFFIX)))


def _owner(kept: bytes) -> str:
    return kept[:_OWNER_BYTES].decode("ascii", "replace")


def _kept_shard(storage: ArtifactStorage, key: str) -> DetectionShard:
    kept = storage.recall(key, SHARD_SUFFIX)
    if kept is None:
        raise ArtifactUnreadable(f"detections that were just made are no longer in {storage.url}")
    return detections_from_bytes(kept[_OWNER_BYTES:])


class _Implied:
    """Ground truth that the key of detections names already, so that a cache need not compare it."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Implied)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=2)
def _joined_matches(storage: ArtifactStorage, truth: _Implied, keys: tuple[str, ...]) -> Matches:
    return join([_shard_matches(storage, truth, key) for key in keys])


@lru_cache(maxsize=256)
def _shard_matches(storage: ArtifactStorage, truth: _Implied, key: str) -> Matches:
    return match(truth.content, _kept_shard(storage, key))
