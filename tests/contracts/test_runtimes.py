"""What every runtime keeps."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from tasks.detect import detect_shard
from tasks.errors import ArtifactUnreadable, InferenceFailed, UnsupportedScheme
from tasks.runtimes.base import Runtime, Session, runtime_of, runtimes
from tasks.types import Postprocessing, RuntimeSettings
from tests.tasks.runtimes.tiny_detector import pixels, shard, tiny_detector, tiny_float32

FLOAT32 = {"tflite": tiny_float32, "safetensors": lambda: tiny_detector().to_bytes()}
"""A float32 build of the tiny detector in each format."""


@pytest.fixture(scope="module", params=[runtime.name for runtime in runtimes()])
def runtime(request) -> Runtime:
    return runtime_of(request.param)


@pytest.fixture(scope="module")
def data(runtime) -> bytes:
    return FLOAT32[runtime.formats[0]]()


@pytest.fixture(scope="module")
def session(runtime, data) -> Iterator[Session]:
    session = runtime.open(data, RuntimeSettings(runtime.name))
    yield session
    session.close()


def test_outputs_have_the_contract_shapes_and_types(session):
    boxes, scores = session.run(pixels(3))
    assert boxes.dtype == scores.dtype == np.float32
    assert boxes.shape == (3, scores.shape[1], 4)
    assert scores.shape[2] == len(tiny_detector().spec.class_ids)
    assert 0 <= scores.min() < scores.max() <= 1


def test_running_is_preparing_inferring_and_reading(session):
    boxes, scores = session.run(pixels(2))
    for index in range(2):
        session.infer(session.prepare(pixels(2)[index : index + 1]))
        one_boxes, one_scores = session.outputs()
        np.testing.assert_array_equal(one_boxes[0], boxes[index])
        np.testing.assert_array_equal(one_scores[0], scores[index])


def test_outputs_stay_what_they_were_when_the_session_runs_again(session):
    first = session.run(pixels(2)[:1])
    copies = [part.copy() for part in first]
    session.run(pixels(2)[1:])
    for part, copy in zip(first, copies, strict=True):
        np.testing.assert_array_equal(part, copy)


def test_every_runtime_starts_from_the_same_numbers(session):
    reference = runtime_of("litert").open(tiny_float32(), RuntimeSettings())
    for got, wanted in zip(session.run(pixels(2)), reference.run(pixels(2)), strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-4)
    reference.close()


@pytest.mark.parametrize("content", [b"", b"\x08\x00\x00\x00", b"not a model" * 50])
def test_foreign_bytes_are_unreadable(runtime, content):
    with pytest.raises(ArtifactUnreadable):
        runtime.open(content, RuntimeSettings(runtime.name))


def test_a_truncated_artifact_is_unreadable(runtime, data):
    with pytest.raises(ArtifactUnreadable):
        runtime.open(data[: len(data) // 2], RuntimeSettings(runtime.name))


def test_detecting_gives_boxes_inside_each_original_image(runtime, data):
    images = shard(3)
    found = detect_shard(data, RuntimeSettings(runtime.name), tiny_detector().spec, images, Postprocessing())
    np.testing.assert_array_equal(found.image_ids, images.image_ids)
    position, x, y, width, height, score, category = found.detections.T
    assert set(position) == {0, 1, 2}
    assert (np.diff(position) >= 0).all()
    assert (np.diff(score)[np.diff(position) == 0] <= 0).all()
    assert set(category) <= {3, 7, 90}
    assert x.min() >= 0 and y.min() >= 0
    assert (x + width).max() <= 200.01 and (y + height).max() <= 120.01
    assert found.inference_seconds > 0 and found.postprocessing_seconds > 0


def test_an_artifact_of_another_architecture_fails_as_inference(runtime, data):
    other = dataclasses.replace(tiny_detector().spec, class_ids=(0, 1, 2))
    with pytest.raises(InferenceFailed, match="classes"):
        detect_shard(data, RuntimeSettings(runtime.name), other, shard(1), Postprocessing())


def test_closing_twice_does_no_harm(runtime, data):
    session = runtime.open(data, RuntimeSettings(runtime.name))
    session.close()
    session.close()


def test_the_version_names_every_package(runtime):
    assert all(package in runtime.version() for package in runtime.packages)


def test_an_unknown_runtime_is_refused_with_the_choices():
    with pytest.raises(UnsupportedScheme, match="choices: keras, litert"):
        runtime_of("tensorrt")
