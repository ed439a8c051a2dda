"""Keras runs what the artifact's policy says, and hands out float32."""

import dataclasses

import numpy as np
import pytest

from tasks.detector.keras_model import keras_file
from tasks.detector.weights import Detector, with_metadata
from tasks.errors import ArtifactUnreadable
from tasks.quantize.transforms.base import transformed
from tasks.runtimes.base import runtime_of
from tasks.types import RuntimeSettings
from tests.tasks.runtimes.tiny_detector import pixels, tiny_detector

POLICIES = ("float32", "mixed_float16", "mixed_bfloat16")
TOLERANCE = {"float32": 0.0, "mixed_float16": 0.01, "mixed_bfloat16": 0.08}
"""Greatest difference of a score from float32: half has 11 significant bits, bfloat16 8."""


def run(detector: Detector, policy, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    session = runtime_of("keras").open(keras_file(detector, policy), RuntimeSettings("keras", threads))
    try:
        return session.run(pixels(2))
    finally:
        session.close()


@pytest.fixture(scope="module")
def found() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {policy: run(tiny_detector(), policy) for policy in POLICIES}


@pytest.mark.parametrize("policy", POLICIES)
def test_outputs_are_float32_and_near_those_of_float32(found, policy):
    boxes, scores = found[policy]
    assert boxes.dtype == scores.dtype == np.float32
    assert 0 < scores.min() < scores.max() < 1
    assert np.abs(scores - found["float32"][1]).max() <= TOLERANCE[policy]
    assert np.abs(boxes - found["float32"][0]).max() <= 10 * TOLERANCE[policy]


def test_half_precision_computes_otherwise_than_float32_and_bfloat16_is_coarser(found):
    error = {policy: np.abs(found[policy][1] - found["float32"][1]).mean() for policy in POLICIES}
    assert 0 < error["mixed_float16"] < error["mixed_bfloat16"]


def test_the_sigmoid_is_computed_in_float32(found):
    for policy in POLICIES[1:]:
        scores = found[policy][1]
        assert (scores.astype(np.float16).astype(np.float32) != scores).mean() > 0.9


def test_the_policy_of_the_process_does_not_matter(found):
    import tf_keras

    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        boxes, scores = run(tiny_detector(), "float32")
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    np.testing.assert_array_equal(scores, found["float32"][1])
    np.testing.assert_array_equal(boxes, found["float32"][0])


@pytest.mark.parametrize("policy", POLICIES)
def test_caps_hold_under_each_policy(found, policy):
    boxes, scores = run(transformed(tiny_detector(), "equalized"), policy)
    assert np.abs(scores - found["float32"][1]).max() <= TOLERANCE[policy] + 1e-4
    assert np.abs(boxes - found["float32"][0]).max() <= 10 * TOLERANCE[policy] + 1e-3


def test_an_unknown_policy_is_unreadable_and_named():
    data = with_metadata(tiny_detector().to_bytes(), "quantsweep.keras_policy", "mixed_float8")
    with pytest.raises(ArtifactUnreadable, match="'mixed_float8'; choices: float32, mixed_float16, mixed_bfloat16"):
        runtime_of("keras").open(data, RuntimeSettings("keras"))


def test_threads_do_not_change_outputs(found):
    np.testing.assert_allclose(run(tiny_detector(), "float32", threads=2)[1], found["float32"][1], atol=1e-6)


def test_a_detector_of_another_size_is_run_at_its_own_size():
    detector = tiny_detector()
    small = Detector(dataclasses.replace(detector.spec, image_size=64), detector.tensors)
    session = runtime_of("keras").open(keras_file(small, "mixed_bfloat16"), RuntimeSettings("keras"))
    boxes, scores = session.run(pixels(1)[:, :64, :64])
    assert boxes.shape[1] == scores.shape[1] < run(detector, "float32")[0].shape[1]
    session.close()
