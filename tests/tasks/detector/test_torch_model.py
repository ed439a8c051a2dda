"""The torch build is the detector: its outputs are those of the Keras build."""

import dataclasses

import numpy as np
import pytest

from tasks.detector.keras_model import build_keras
from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.quantize.transforms.base import transformed
from tests.tasks.runtimes.tiny_detector import pixels, tiny_detector


def keras_outputs(detector: Detector, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = build_keras(detector)(images, training=False)
    return found["boxes"].numpy(), found["scores"].numpy()


def torch_outputs(detector: Detector, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import torch

    from tasks.detector.torch_model import build_torch

    with torch.inference_mode():
        boxes, scores = build_torch(detector)(torch.from_numpy(images).permute(0, 3, 1, 2))
    return boxes.numpy(), scores.numpy()


def image(size: int) -> np.ndarray:
    return (pixels(1)[:, :size, :size] / 127.5 - 1).astype(np.float32)


@pytest.mark.parametrize("size", [96, 75, 64, 33])
def test_outputs_equal_those_of_keras_whatever_the_padding(size: int) -> None:
    base = tiny_detector()
    detector = Detector(dataclasses.replace(base.spec, image_size=size), base.tensors)
    for ours, theirs in zip(torch_outputs(detector, image(size)), keras_outputs(detector, image(size)), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_caps_bound_as_in_keras() -> None:
    detector = transformed(tiny_detector(), "equalized")
    for ours, theirs in zip(torch_outputs(detector, image(96)), keras_outputs(detector, image(96)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_convolutions_have_the_canonical_names_and_weights() -> None:
    from tasks.detector.torch_model import build_torch

    detector = tiny_detector()
    module = build_torch(detector)
    assert [name for name, _ in module.named_children()] == [layer.name for layer in layers(detector.spec)]
    assert sum(parameter.numel() for parameter in module.parameters()) == sum(
        layer.parameters for layer in layers(detector.spec)
    )


def test_outputs_are_float32_in_half_precision_too() -> None:
    import torch

    from tasks.detector.torch_model import build_torch

    module = build_torch(tiny_detector()).to(torch.bfloat16)
    with torch.inference_mode():
        boxes, scores = module(torch.from_numpy(image(96)).permute(0, 3, 1, 2))
    assert boxes.dtype == scores.dtype == torch.float32
    assert torch.isfinite(boxes).all()
