"""The tiny detector as .onnx and as OpenVINO archives, each made once."""

import functools

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.quantize.artifact import make
from tasks.quantize.schemes import Float32, StaticInt8
from tasks.quantize.transforms.base import transformed
from tests.tasks.runtimes.tiny_detector import pixels, tiny_detector


@functools.cache
def float32_onnx(transform: str = "none", depth_multiplier: float = 0.25) -> bytes:
    detector = transformed(tiny_detector(depth_multiplier), transform)
    return make(detector, Float32(toolchain="onnx", transform=transform))


def scheme(**axes) -> StaticInt8:
    return StaticInt8(**{"toolchain": "nncf", "calibration_images": 4} | axes)


@functools.cache
def int8_archive(**axes) -> bytes:
    return made(scheme(**axes))


def made(wanted: StaticInt8) -> bytes:
    """Audited against its scheme."""
    return make(
        transformed(tiny_detector(), wanted.transform),
        wanted,
        float32_onnx(wanted.transform),
        ranking=[layer.name for layer in layers(tiny_detector().spec)],
        pixels=pixels(wanted.calibration_images),
    )
