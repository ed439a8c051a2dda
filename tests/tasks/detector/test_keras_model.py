"""The Keras build computes the layer table, no more and no less."""

import numpy as np

from tasks.detector.anchors import anchors
from tasks.detector.keras_model import build_keras
from tasks.detector.ssd_mobilenet_v1 import Layer, layers
from tasks.detector.weights import Detector


def _same_padding(layer: Layer, size: int) -> tuple[int, int]:
    total = max((layer.out_size - 1) * layer.stride + layer.kernel - size, 0)
    return total // 2, total - total // 2


def _convolve(layer: Layer, image: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """One convolution of (H, W, C), written out by its definition in float64."""
    image = np.pad(image, (_same_padding(layer, image.shape[0]), _same_padding(layer, image.shape[1]), (0, 0)))
    made = np.zeros((layer.out_size, layer.out_size, layer.out_channels))
    end = (layer.out_size - 1) * layer.stride + 1
    for row in range(layer.kernel):
        for column in range(layer.kernel):
            window = image[row : row + end : layer.stride, column : column + end : layer.stride]
            tap = weights[row, column]
            made += window * tap[:, 0] if layer.kind == "depthwise" else window @ tap
    made += bias
    return made if layer.kind == "head" else made.clip(0, 6)


def _by_definition(detector: Detector, image: np.ndarray) -> dict[str, np.ndarray]:
    outputs, heads = {"image": image.astype(np.float64)}, {"boxes": [], "scores": []}
    for layer in layers(detector.spec):
        weights, bias = detector.tensors[f"{layer.name}/weights"], detector.tensors[f"{layer.name}/bias"]
        outputs[layer.name] = _convolve(layer, outputs[layer.source], weights, bias)
        if layer.kind == "head":
            role = layer.name.rsplit("_", 1)[1]
            width = 4 if role == "boxes" else len(detector.spec.class_ids)
            heads[role].append(outputs[layer.name].reshape(-1, width))
    return {"boxes": np.concatenate(heads["boxes"]), "scores": 1 / (1 + np.exp(-np.concatenate(heads["scores"])))}


def test_outputs_are_those_of_the_definition(small_detector: Detector) -> None:
    image = np.random.default_rng(1).uniform(-1, 1, (96, 96, 3)).astype(np.float32)
    got = build_keras(small_detector)(image[None])
    wanted = _by_definition(small_detector, image)
    assert wanted["scores"].std() > 0.05
    for role in ("boxes", "scores"):
        np.testing.assert_allclose(got[role][0], wanted[role], atol=1e-4)


def test_signature_and_names_are_canonical(small_detector: Detector) -> None:
    model = build_keras(small_detector)
    rows = len(anchors(small_detector.spec))
    assert model.input_names == ["images"]
    assert model.input_shape == (1, 96, 96, 3)
    assert model.output_shape == {"boxes": (1, rows, 4), "scores": (1, rows, 5)}
    convolutions = [layer.name for layer in model.layers if layer.weights]
    assert sorted(convolutions) == sorted(layer.name for layer in layers(small_detector.spec))
    assert model.count_params() == sum(layer.parameters for layer in layers(small_detector.spec))
