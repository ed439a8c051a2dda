"""Binary weights are a sign and a scale a channel."""

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.quantize.transforms.base import transformed


def test_each_channel_has_the_mean_magnitude_and_the_signs_of_its_weights(detector: Detector) -> None:
    found = transformed(detector, "binary")
    for layer in layers(detector.spec):
        axis = 2 if layer.kind == "depthwise" else 3
        before, after = (
            np.moveaxis(each.tensors[f"{layer.name}/weights"], axis, 0).reshape(layer.out_channels, -1)
            for each in (detector, found)
        )
        mean = np.abs(before).mean(axis=1, keepdims=True)
        np.testing.assert_allclose(np.abs(after), np.broadcast_to(mean, before.shape), rtol=1e-6)
        np.testing.assert_array_equal(after < 0, before < 0)
        np.testing.assert_array_equal(found.tensors[f"{layer.name}/bias"], detector.tensors[f"{layer.name}/bias"])


def test_channels_of_zeros_stay_zeros(detector: Detector) -> None:
    found = transformed(detector, "binary").tensors["BoxPredictor_5_scores/weights"]
    assert (found[..., :3] == 0).all()
    assert (found[..., 3:] != 0).all()


def test_a_zero_among_others_counts_as_positive_so_that_one_bit_suffices(detector: Detector) -> None:
    weights = detector.tensors["Conv2d_0/weights"].copy()
    weights[0, 0, 0, 0] = 0
    found = transformed(Detector(detector.spec, detector.tensors | {"Conv2d_0/weights": weights}), "binary")
    channel = found.tensors["Conv2d_0/weights"][..., 0]
    assert channel[0, 0, 0] > 0
    assert len(np.unique(channel)) == 2
