"""Detectors shared by this room's tests."""

import os
from pathlib import Path

import numpy as np
import pytest

from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec, layers
from tasks.detector.weights import Detector

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def random_detector(spec: SSDMobileNetV1Spec, seed: int = 0) -> Detector:
    """A detector with He-scaled weights, so that activations neither die nor saturate."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for layer in layers(spec):
        inputs = np.prod(layer.weights_shape[:2]) * (1 if layer.kind == "depthwise" else layer.in_channels)
        tensors[f"{layer.name}/weights"] = rng.normal(0, np.sqrt(2 / inputs), layer.weights_shape).astype(np.float32)
        tensors[f"{layer.name}/bias"] = rng.normal(0.1, 0.2, layer.out_channels).astype(np.float32)
    return Detector(spec, tensors)


@pytest.fixture(scope="session")
def small_detector() -> Detector:
    """Depth multiplier 0.25, 96 pixels, 4 categories."""
    return random_detector(SSDMobileNetV1Spec(depth_multiplier=0.25, image_size=96, class_ids=(0, 1, 2, 3, 4)))


@pytest.fixture(scope="session")
def real_tflite(reference_data: Path) -> Path:
    """The zoo's quantized SSD MobileNetV1 0.75."""
    return reference_data / "models" / "coco_ssd_mobilenet_v1_0.75_quant_2018_06_29.tflite"


@pytest.fixture(scope="session")
def real_image(reference_data: Path) -> np.ndarray:
    """(1, 300, 300, 3) uint8, one COCO image."""
    from PIL import Image

    path = min((reference_data / "coco-mini" / "val2017").glob("*.jpg"))
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((300, 300), Image.Resampling.BILINEAR))[None]
