"""Detectors for tests: small, random, made in milliseconds."""

import numpy as np

from tasks.coco.synthetic import CATEGORIES
from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec, layers
from tasks.detector.weights import Detector


def random_detector(spec: SSDMobileNetV1Spec, seed: int = 0) -> Detector:
    """A detector of an architecture with He-initialized weights and small biases."""
    random, tensors = np.random.default_rng(seed), {}
    for layer in layers(spec):
        height, width, inner, _ = layer.weights_shape
        fan_in = height * width * (1 if layer.kind == "depthwise" else inner)
        weights = random.normal(0, np.sqrt(2 / fan_in), layer.weights_shape)
        tensors[f"{layer.name}/weights"] = weights.astype(np.float32)
        tensors[f"{layer.name}/bias"] = random.normal(0, 0.1, layer.out_channels).astype(np.float32)
    return Detector(spec, tensors)


def tiny_detector(seed: int = 0) -> Detector:
    """A random detector of the synthetic categories: 64 pixels, depth multiplier 0.25."""
    spec = SSDMobileNetV1Spec(depth_multiplier=0.25, image_size=64, class_ids=tuple(CATEGORIES), min_depth=8)
    return random_detector(spec, seed)
