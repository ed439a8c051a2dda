"""Sensitivity: what quantizing one layer alone does to the outputs and to AP."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tasks.detect import detect_shard
from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
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
    floats, quantized = _float_outputs(source, images.pixels.tobytes(), images.pixels.shape), _run(data, images.pixels)
    boxes, scores = (sqnr_db(before, after) for before, after in zip(floats, quantized, strict=True))
    macs = {item.name: item.macs for item in table}
    shards = [detect_shard(data, SETTINGS, detector.spec, shard, postprocessing) for shard in evaluation]
    ap = score(ground_truth, merge(shards)).statistics[0] if shards else None
    return LayerSensitivity(layer, min(boxes, scores), boxes, scores, macs[layer] / sum(macs.values()), ap)


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


@lru_cache(maxsize=2)
def _float_outputs(source: bytes, pixels: bytes, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of the float detector, the same for every layer of an analysis."""
    return _run(source, np.frombuffer(pixels, np.uint8).reshape(shape))


def _run(data: bytes, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    session = runtime_of(SETTINGS.runtime).open(data, SETTINGS)
    try:
        return session.run(pixels)
    finally:
        session.close()
