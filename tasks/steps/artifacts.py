"""Steps that make artifacts: calibration, training, building, and what quantizing one layer does."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.errors import ArtifactUnreadable, DataMistake, TrainingImageUnreadable
from tasks.identity import sha256_of
from tasks.quantize.artifact import build_artifact
from tasks.quantize.kept_layers import kept_layers
from tasks.quantize.observe import observe, statistics_key
from tasks.quantize.qat import clipped, first_ranges, simulation_of
from tasks.quantize.schemes import Qat, Scheme
from tasks.quantize.statistics import Statistics, merge
from tasks.quantize.transforms.base import transformed
from tasks.sensitivity import probe_layer
from tasks.steps.content import content_of
from tasks.storage import ArtifactStorage
from tasks.training.loop import advance
from tasks.training.recipe import Recipe
from tasks.training.samples import TrainingSet
from tasks.training.trained import TRAINED_SUFFIX, Trained
from tasks.training.training import Training
from tasks.types import (
    Artifact,
    ImageShard,
    LayerSensitivity,
    Postprocessing,
    TrainingProgress,
)

STATISTICS_SUFFIX = "statistics"
"""Suffix of kept statistics in artifact storage."""


@dataclass(frozen=True)
class Built:
    """An artifact, and what it took."""

    artifact: Artifact
    """What came out."""

    seconds: float
    """Wall time of the build, without calibration."""


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
        content = content_of(storage, source.sha256, source.format)
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
    content = content_of(storage, source.sha256, source.format) if source else None
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

    Raises:
        TrainingImageUnreadable: If an image is damaged; a mistake of the user, but one of this training alone, which
            what needs no training does not wait for.
        TrainingFailed: If a loss is no number.
    """
    kept = kept_layers(scheme.keep_float, [layer.name for layer in layers(detector.spec)], ranking)
    ranges = first_ranges(scheme, detector, statistics)
    simulation, start = simulation_of(scheme, kept), clipped(scheme, detector, kept)
    training = Training(key, scheme.trainer, start, recipe, images, simulation, ranges, teacher=detector)
    try:
        return advance(training, storage, point)
    except DataMistake as mistake:
        raise TrainingImageUnreadable(str(mistake)) from mistake


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
    content = content_of(storage, source.sha256, source.format)
    return probe_layer(detector, scheme, layer, content, statistics, images, evaluation, ground_truth, postprocessing)
