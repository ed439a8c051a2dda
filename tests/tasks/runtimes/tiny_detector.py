"""A detector of seeded random weights, small enough to convert and run in a moment, and its builds."""

import functools

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec
from tasks.detector.weights import Detector
from tasks.types import ImageShard
from tests.detectors import random_detector

CLASS_IDS = (0, 3, 7, 90)


@functools.cache
def tiny_detector(depth_multiplier: float = 0.25) -> Detector:
    return random_detector(SSDMobileNetV1Spec(depth_multiplier=depth_multiplier, image_size=96, class_ids=CLASS_IDS))


@functools.cache
def tiny_float32(depth_multiplier: float = 0.25) -> bytes:
    return _converter(tiny_detector(depth_multiplier)).convert()


@functools.cache
def tiny_int8() -> bytes:
    """Quantized throughout, with uint8 input and int8 output."""
    import tensorflow as tf

    converter = _converter(tiny_detector())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    images = (pixels(8).astype(np.float32) / 127.5 - 1)[:, None]
    converter.representative_dataset = lambda: ([image] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type, converter.inference_output_type = tf.uint8, tf.int8
    return converter.convert()


def pixels(count: int) -> np.ndarray:
    """Random images that are smooth, as photographs are."""
    coarse = np.random.default_rng(1).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return coarse.repeat(16, axis=1).repeat(16, axis=2)


def shard(count: int) -> ImageShard:
    ids = np.arange(count, dtype=np.int64) * 7 + 5
    return ImageShard(ids, np.tile(np.array([[120, 200]], np.int32), (count, 1)), pixels(count), "tiny")


def _converter(detector: Detector):
    import tensorflow as tf

    from tasks.detector.keras_model import build_keras

    return tf.lite.TFLiteConverter.from_keras_model(build_keras(detector))
