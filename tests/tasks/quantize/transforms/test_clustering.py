"""Clustering leaves few distinct weights in each layer."""

import numpy as np
import pytest

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.quantize.transforms.base import transform_of, transformed
from tasks.quantize.transforms.clustering import DEPTHWISE_SIZE


def most_distinct(detector: Detector, depthwise: bool = False) -> int:
    return max(
        len(np.unique(detector.tensors[f"{layer.name}/weights"]))
        for layer in layers(detector.spec)
        if (layer.kind == "depthwise") == depthwise
    )


def squared_error(one: Detector, other: Detector) -> float:
    return sum(float(((one.tensors[key] - other.tensors[key]) ** 2).sum()) for key in one.tensors)


@pytest.mark.parametrize("size", [2, 16, 64])
def test_each_layer_has_a_codebook_and_its_own_biases(detector: Detector, size: int) -> None:
    found = transformed(detector, f"clustered_{size}")
    assert most_distinct(found) == size
    assert size < most_distinct(found, depthwise=True) <= DEPTHWISE_SIZE
    for key, tensor in detector.tensors.items():
        if key.endswith("/bias"):
            np.testing.assert_array_equal(found.tensors[key], tensor)


def test_clustering_twice_changes_nothing_more(detector: Detector) -> None:
    once = transformed(detector, "clustered_16")
    assert transformed(once, "clustered_16").sha256 == once.sha256 != detector.sha256


def test_untrained_channels_stay_near_zero(detector: Detector) -> None:
    weights = detector.tensors["BoxPredictor_5_scores/weights"]
    found = transformed(detector, "clustered_16").tensors["BoxPredictor_5_scores/weights"]
    assert np.abs(found[..., :3]).max() < 0.1 * weights.std()


@pytest.fixture(scope="module")
def even(detector: Detector) -> Detector:
    return transformed(detector, "equalized")


@pytest.fixture(scope="module")
def by_tfmot(even: Detector) -> Detector:
    return transformed(even, "clustered_tfmot_4")


def test_tfmot_keeps_the_promise_in_every_layer_with_a_greater_error(even: Detector, by_tfmot: Detector) -> None:
    ours = transformed(even, "clustered_4")
    assert most_distinct(by_tfmot) == 4
    assert squared_error(even, ours) < squared_error(even, by_tfmot) < 3 * squared_error(even, ours)


def test_depthwise_layers_which_tfmot_does_not_cluster_are_clustered_as_ours_are(
    even: Detector, by_tfmot: Detector
) -> None:
    key = "Conv2d_5_depthwise/weights"
    np.testing.assert_array_equal(by_tfmot.tensors[key], transformed(even, "clustered_4").tensors[key])


@pytest.mark.slow
def test_tfmot_gives_the_same_codes_again_and_leaves_caps_alone(even: Detector, by_tfmot: Detector) -> None:
    assert transformed(even, "clustered_tfmot_4").sha256 == by_tfmot.sha256
    np.testing.assert_array_equal(by_tfmot.tensors["Conv2d_0/cap"], even.tensors["Conv2d_0/cap"])


@pytest.mark.parametrize("name", ["clustered_3", "clustered_1", "clustered_512", "clustered_tfmot_0", "clustered", "x"])
def test_other_names_are_refused_with_examples(name: str) -> None:
    with pytest.raises(ValueError, match=r"choices: none, .*clustered_16.*clustered_tfmot_16.*binary"):
        transform_of(name)
