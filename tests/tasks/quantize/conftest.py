"""A small detector, its images and its artifacts, made once for all tests of this folder."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec, layers
from tasks.detector.weights import Detector
from tasks.quantize.artifact import make, observed_by, source_of
from tasks.quantize.observe import observe
from tasks.quantize.qat import first_ranges
from tasks.quantize.schemes import Float32, Qat, Scheme
from tasks.quantize.statistics import Statistics, merge
from tasks.quantize.transforms.base import transformed
from tasks.training.learner import Ranges
from tests.detectors import random_detector

SAMPLES = (2, 4)
UNTRAINED = 3
"""Class channels of the last head that are zero but for their bias, as in the TensorFlow zoo's detector."""


def small_detector(seed: int) -> Detector:
    """He-initialized weights, and a last class head of which some channels were never trained."""
    spec = SSDMobileNetV1Spec(depth_multiplier=0.25, image_size=64, class_ids=(0, 1, 3, 7, 9))
    detector = random_detector(spec, seed)
    tensors = detector.tensors
    tensors["BoxPredictor_5_scores/weights"][..., :UNTRAINED] = 0
    tensors["BoxPredictor_5_scores/bias"][:UNTRAINED] = -7.5
    return detector


@pytest.fixture(scope="session")
def detector() -> Detector:
    return small_detector(seed=0)


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (max(SAMPLES), 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def source(detector: Detector) -> Callable[..., bytes]:
    """Makes the float32 artifact of the small detector under a transform by a toolchain, each one once."""
    made: dict[tuple[str, Any], bytes] = {}

    def make_source(transform: str = "none", toolchain: Any = "converter") -> bytes:
        if (transform, toolchain) not in made:
            scheme = Float32(toolchain=toolchain, transform=transform)
            made[transform, toolchain] = make(transformed(detector, transform), scheme)
        return made[transform, toolchain]

    return make_source


@pytest.fixture(scope="session")
def statistics(source: Callable[[str], bytes], pixels: np.ndarray) -> Callable[[int, str], Statistics]:
    """Gathers the statistics of the first images, each set once."""
    made: dict[tuple[int, str], Statistics] = {}

    def gather(size: int, transform: str = "none") -> Statistics:
        if (size, transform) not in made:
            keys = [f"image {index}" for index in range(size)]
            made[size, transform] = merge(*observe(source(transform), pixels[:size], keys))
        return made[size, transform]

    return gather


def wider(ranges: Ranges) -> Ranges:
    """Ranges as training might leave them: every end a tenth further out, but for the image's."""
    return {name: ends if name == "image" else (1.1 * ends[0], 1.1 * ends[1]) for name, ends in ranges.items()}


@pytest.fixture(scope="session")
def built(
    detector: Detector,
    source: Callable[..., bytes],
    statistics: Callable[[int, str], Statistics],
    pixels: np.ndarray,
) -> Callable[..., bytes]:
    """Makes an artifact of the small detector, audited, each one once. Ranked layers are kept in the table's order.

    Where a scheme is trained, the same weights with slightly wider ranges stand for the result of the training.
    """
    made: dict[Scheme, bytes] = {}

    def build(scheme: Scheme) -> bytes:
        if scheme not in made:
            before, images = source_of(scheme), scheme.axes().get("calibration_images", 0)
            seen = statistics(images, scheme.transform) if observed_by(scheme) else None
            trained = isinstance(scheme, Qat) and scheme.is_trained
            made[scheme] = make(
                transformed(detector, scheme.transform),
                scheme,
                source(scheme.transform, before.toolchain) if before else None,
                None if trained else seen,
                [layer.name for layer in layers(detector.spec)],
                pixels[:images],
                wider(first_ranges(scheme, detector, seen)) if isinstance(scheme, Qat) and trained else None,
            )
        return made[scheme]

    return build
