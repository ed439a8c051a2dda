"""Steps that score artifacts: detection, scores, and losses with their intervals."""

from functools import lru_cache
from typing import Any, Literal

from tasks.average_precision import average_precision
from tasks.detect import detect_shard, detections_from_bytes, detections_to_bytes
from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec
from tasks.errors import ArtifactUnreadable, ScoringFailed
from tasks.matches import Matches, join, match
from tasks.score import DETECTIONS_SUFFIX, score, score_detections
from tasks.steps.content import content_of
from tasks.storage import ArtifactStorage
from tasks.types import (
    Accuracy,
    Artifact,
    DetectionShard,
    ImageShard,
    LossInterval,
    Postprocessing,
    RuntimeSettings,
)
from tasks.uncertainty import loss_interval

SHARD_SUFFIX = "detection-shard"
"""Suffix of kept shards of detections in artifact storage: the key of their owner, then the detections."""

_OWNER_BYTES = 64


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
    data = content_of(storage, artifact.sha256, artifact.format)
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
