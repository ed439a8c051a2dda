"""A small detector, its images and its artifacts, made once for all tests of this folder."""

import os
from collections.abc import Callable

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec, layers
from tasks.detector.weights import Detector
from tasks.quantize.builders import builder_of
from tasks.quantize.ranges import Ranges, calibrate
from tasks.quantize.schemes import Scheme

SAMPLES = (2, 4)
UNTRAINED = 3
"""Class channels of the last head that are zero but for their bias, as in the TensorFlow zoo's detector."""


def small_detector(seed: int) -> Detector:
    """He-initialized weights, and a last class head of which some channels were never trained."""
    spec = SSDMobileNetV1Spec(depth_multiplier=0.25, image_size=64, class_ids=(0, 1, 3, 7, 9))
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in layers(spec):
        height, width, inner, _ = layer.weights_shape
        fan_in = height * width * (1 if layer.kind == "depthwise" else inner)
        weights = random.standard_normal(layer.weights_shape) * np.sqrt(2 / fan_in)
        tensors[f"{layer.name}/weights"] = weights.astype(np.float32)
        tensors[f"{layer.name}/bias"] = (random.standard_normal(layer.out_channels) / 10).astype(np.float32)
    tensors["BoxPredictor_5_scores/weights"][..., :UNTRAINED] = 0
    tensors["BoxPredictor_5_scores/bias"][:UNTRAINED] = -7.5
    return Detector(spec, tensors)


@pytest.fixture(scope="session")
def detector() -> Detector:
    return small_detector(seed=0)


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (max(SAMPLES), 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def calibrations(detector: Detector, pixels: np.ndarray) -> dict[int, Ranges]:
    return calibrate(detector, pixels, SAMPLES)


@pytest.fixture(scope="session")
def built(detector: Detector, calibrations: dict[int, Ranges]) -> Callable[[Scheme], bytes]:
    """Makes an artifact of the small detector, each one once."""
    made: dict[Scheme, bytes] = {}

    def build(scheme: Scheme) -> bytes:
        if scheme not in made:
            calibration = calibrations.get(getattr(scheme, "calibration_images", 0))
            made[scheme] = builder_of(scheme).build(detector, scheme, calibration)
        return made[scheme]

    return build
