"""Equalization changes what quantization does to a detector, not what the detector does."""

import numpy as np
import pytest

from tasks.detector.keras_model import build_keras
from tasks.detector.ssd_mobilenet_v1 import Layer, layers
from tasks.detector.weights import Detector
from tasks.quantize.observe import representative
from tasks.quantize.transforms.base import transformed
from tests.tasks.quantize.transforms.spoiling import spoiled

NAMES = ("equalized", "equalized_fused")


def outputs(detector: Detector, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    model = build_keras(detector)
    found = [model(representative(image)) for image in pixels]
    return np.concatenate([each["boxes"] for each in found]), np.concatenate([each["scores"] for each in found])


def inner(detector: Detector) -> list[Layer]:
    return [layer for layer in layers(detector.spec) if layer.kind != "head"]


def out_ranges(detector: Detector, layer: Layer) -> np.ndarray:
    axes = (0, 1, 3) if layer.kind == "depthwise" else (0, 1, 2)
    return np.abs(detector.tensors[f"{layer.name}/weights"]).max(axis=axes)


def evenness(detector: Detector) -> float:
    """Mean over layers of the middle range of a channel as a share of the widest."""
    shares = [np.median(out_ranges(detector, layer) / out_ranges(detector, layer).max()) for layer in inner(detector)]
    return float(np.mean(shares))


def rounded(detector: Detector, bits: int) -> Detector:
    """The detector with weights rounded to one scale a tensor."""
    changed = {}
    for key, tensor in detector.tensors.items():
        if key.endswith("/weights"):
            step = np.float32(np.abs(tensor).max() / (2 ** (bits - 1) - 1))
            changed[key] = np.round(tensor / step) * step
    return Detector(detector.spec, detector.tensors | changed)


def saturated_share(detector: Detector, pixels: np.ndarray) -> float:
    """Share of the channels of all layers that reach 6 on some image."""
    import tf_keras

    model = build_keras(detector)
    probe = tf_keras.Model(model.input, [model.get_layer(layer.name).output for layer in inner(detector)])
    greatest = [
        np.max([np.asarray(values).max(axis=(0, 1, 2)) for values in at_layer], axis=0)
        for at_layer in zip(*(probe(representative(image)) for image in pixels), strict=True)
    ]
    return float(np.mean(np.concatenate(greatest) >= 6))


@pytest.fixture(scope="module")
def loud(detector: Detector) -> Detector:
    """Weights large enough that many channels reach the 6 of ReLU6."""
    louder = {
        f"{layer.name}/weights": detector.tensors[f"{layer.name}/weights"] * np.float32(1.6)
        for layer in inner(detector)
    }
    return Detector(detector.spec, detector.tensors | louder)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_stay_the_same_where_channels_reach_their_cap(loud: Detector, pixels: np.ndarray, name: str) -> None:
    assert saturated_share(loud, pixels) > 0.1
    found = transformed(loud, name)
    assert found.sha256 != loud.sha256
    for got, wanted in zip(outputs(found, pixels), outputs(loud, pixels), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-3)


def test_channels_become_alike(detector: Detector) -> None:
    assert evenness(transformed(detector, "equalized")) > evenness(detector) + 0.05


def test_equalizing_twice_makes_nothing_more_alike(detector: Detector) -> None:
    once = transformed(detector, "equalized")
    assert evenness(transformed(once, "equalized")) == pytest.approx(evenness(once), abs=0.01)


def test_no_cap_is_above_that_of_relu6(detector: Detector) -> None:
    found = transformed(detector, "equalized")
    for layer in inner(detector):
        cap = found.tensors[f"{layer.name}/cap"]
        assert cap.max() == 6
        assert cap.min() > 0
    assert not any(key.endswith("/cap") for key in found.tensors if key.startswith("BoxPredictor"))


def test_the_fused_form_has_no_caps_and_rescales_some_channels_of_depthwise_layers(loud: Detector) -> None:
    found = transformed(loud, "equalized_fused")
    assert found.tensors.keys() == loud.tensors.keys()
    same = [
        np.isclose(out_ranges(found, layer), out_ranges(loud, layer)).all()
        for layer in inner(loud)
        if layer.kind == "depthwise"
    ]
    assert not all(same)


def test_channels_that_are_zero_on_either_side_get_no_wild_scales(loud: Detector, pixels: np.ndarray) -> None:
    tensors = {key: tensor.copy() for key, tensor in loud.tensors.items()}
    tensors["Conv2d_3_pointwise/weights"][..., 1] = 0
    tensors["Conv2d_3_pointwise/weights"][..., 2] = 1e-12
    tensors["Conv2d_4_depthwise/weights"][:, :, 3] = 0
    tensors["Conv2d_5_pointwise/weights"][...] = 0
    dead = Detector(loud.spec, tensors)
    found = transformed(dead, "equalized")
    cap = found.tensors["Conv2d_3_pointwise/cap"]
    assert cap.min() > 6 / 64**2
    usual = transformed(loud, "equalized").tensors["Conv2d_3_pointwise/cap"]
    assert np.median(cap) > np.median(usual) / 4
    for got, wanted in zip(outputs(found, pixels), outputs(dead, pixels), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-3)


def test_a_spoiled_detector_is_the_same_detector_but_for_rounding(detector: Detector, pixels: np.ndarray) -> None:
    wanted = outputs(detector, pixels)[1]
    bad = spoiled(detector)
    np.testing.assert_allclose(outputs(bad, pixels)[1], wanted, atol=1e-3)
    errors = {
        name: np.abs(outputs(rounded(each, bits=8), pixels)[1] - wanted).mean()
        for name, each in {
            "as it was": detector, "spoiled": bad, "equalized": transformed(bad, "equalized"),
        }.items()
    }  # fmt: skip
    assert errors["spoiled"] > 4 * errors["as it was"]
    assert errors["equalized"] < 1.5 * errors["as it was"]
