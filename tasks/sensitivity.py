"""Sensitivity: what quantizing one layer alone does to the outputs and to AP."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tasks.detect import detect_shard
from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.identity import sha256_of
from tasks.quantize.artifact import make
from tasks.quantize.schemes import Scheme
from tasks.quantize.statistics import Statistics
from tasks.runtimes.base import runtime_of
from tasks.score import merge, score
from tasks.types import ImageShard, LayerSensitivity, Postprocessing, RuntimeSettings

SETTINGS = RuntimeSettings("litert", threads=1)
"""How the probes run."""


def probe_layer(
    detector: Detector,
    scheme: Scheme,
    layer: str,
    source: bytes,
    statistics: Statistics | None,
    images: ImageShard,
    evaluation: Sequence[ImageShard],
    ground_truth: dict[str, Any],
    postprocessing: Postprocessing,
) -> LayerSensitivity:
    """Quantizes one layer alone and compares the outputs with the float detector's.

    Args:
        detector: Architecture and weights.
        scheme: How layers are quantized; its own `keep_float` does not matter.
        layer: Canonical name of the layer.
        source: Content of the float32 .tflite of the (transformed) detector.
        statistics: Of its activations, if the scheme is calibrated.
        images: Calibration images for the comparison of outputs.
        evaluation: Annotated images for AP; without any, AP is not measured.
        ground_truth: Their COCO annotations.
        postprocessing: How raw outputs become detections.

    Returns:
        The layer's sensitivity; `ap_loss` is not filled in.

    Raises:
        TaskFailure: If the layer cannot be quantized, or the artifact cannot be run or scored.
    """
    table = layers(detector.spec)
    others = "|".join(item.name for item in table if item.name != layer)
    data = make(detector, scheme.keeping(others), source, statistics)
    floats, quantized = _outputs(_Content(source), _Pixels(images)), _run(data, images)
    boxes, scores = (sqnr_db(before, after) for before, after in zip(floats, quantized, strict=True))
    macs = {item.name: item.macs for item in table}
    ap = average_precision(data, detector, evaluation, ground_truth, postprocessing) if evaluation else None
    return LayerSensitivity(layer, min(boxes, scores), boxes, scores, macs[layer] / sum(macs.values()), ap)


def average_precision(
    data: bytes,
    detector: Detector,
    evaluation: Sequence[ImageShard],
    ground_truth: dict[str, Any],
    postprocessing: Postprocessing,
) -> float:
    """Scores a .tflite without storing anything.

    Args:
        data: Content of the file.
        detector: What it was made from.
        evaluation: Annotated images.
        ground_truth: Their COCO annotations.
        postprocessing: How raw outputs become detections.

    Returns:
        AP in [0, 1].
    """
    found = [detect_shard(data, SETTINGS, detector.spec, shard, postprocessing) for shard in evaluation]
    return score(ground_truth, merge(found)).statistics[0]


def sqnr_db(reference: np.ndarray, quantized: np.ndarray) -> float:
    """Signal-to-quantization-noise ratio, 10 log10(sum(x^2) / sum((x - q)^2)).

    Args:
        reference: Float outputs.
        quantized: Outputs of the same shape.

    Returns:
        The ratio in dB, infinite for equal outputs. Source: Sheng et al. 2018, "A Quantization-Friendly Separable
        Convolution for MobileNets", section 3.
    """
    signal = float(np.square(reference, dtype=np.float64).sum())
    noise = float(np.square(reference.astype(np.float64) - quantized).sum())
    if noise == 0.0:
        return math.inf
    return 10 * float(np.log10(max(signal, 1e-30) / noise))


class _Content:
    """Bytes that equal any others with the same content, so that they can be the key of a cache."""

    def __init__(self, data: bytes) -> None:
        self.data, self._sha256 = data, sha256_of(data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Content) and self._sha256 == other._sha256

    def __hash__(self) -> int:
        return hash(self._sha256)


class _Pixels:
    """Images that equal any others with the same fingerprint."""

    def __init__(self, shard: ImageShard) -> None:
        self.shard = shard

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Pixels) and self.shard.fingerprint == other.shard.fingerprint

    def __hash__(self) -> int:
        return hash(self.shard.fingerprint)


@lru_cache(maxsize=2)
def _outputs(content: _Content, pixels: _Pixels) -> tuple[np.ndarray, np.ndarray]:
    """Float outputs, the same for every layer of an analysis."""
    return _run(content.data, pixels.shard)


def _run(data: bytes, images: ImageShard) -> tuple[np.ndarray, np.ndarray]:
    session = runtime_of(SETTINGS.runtime).open(data, SETTINGS)
    try:
        return session.run(images.pixels)
    finally:
        session.close()
