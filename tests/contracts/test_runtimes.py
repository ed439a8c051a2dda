"""What every runtime keeps, with each kind of float32 artifact that it opens."""

import dataclasses
import re
from collections.abc import Iterator
from importlib import metadata

import numpy as np
import pytest

from tasks.detect import detect_shard
from tasks.errors import ArtifactUnreadable, InferenceFailed, UnsupportedScheme
from tasks.runtimes.base import Runtime, Session, runtime_of, runtimes
from tasks.types import Postprocessing, RuntimeSettings
from tests.contracts.float32 import CLASS_IDS, MAKERS, contract_detector, float32_of, pixels, shard

Maker = tuple[str, str, str]


COMPILED = {"inductor"}
"""Toolchains that take half a minute."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(maker, marks=[pytest.mark.slow] if maker[1] in COMPILED else [], id="-".join(maker))
        for maker in MAKERS
    ],
)
def maker(request) -> Maker:
    return request.param


@pytest.fixture(scope="module")
def runtime(maker: Maker) -> Runtime:
    return runtime_of(maker[0])


@pytest.fixture(scope="module")
def data(maker: Maker) -> bytes:
    return float32_of(maker[1])


@pytest.fixture(scope="module")
def session(runtime: Runtime, data: bytes) -> Iterator[Session]:
    session = runtime.open(data, runtime.settings())
    yield session
    session.close()


def test_outputs_have_the_contract_shapes_and_types(session):
    boxes, scores = session.run(pixels(3))
    assert boxes.dtype == scores.dtype == np.float32
    assert boxes.shape == (3, scores.shape[1], 4)
    assert scores.shape[2] == len(CLASS_IDS)
    assert 0 <= scores.min() < scores.max() <= 1


def test_running_is_preparing_inferring_and_reading(session):
    boxes, scores = session.run(pixels(2))
    for index in range(2):
        session.infer(session.prepare(pixels(2)[index : index + 1]))
        one_boxes, one_scores = session.outputs()
        np.testing.assert_array_equal(one_boxes[0], boxes[index])
        np.testing.assert_array_equal(one_scores[0], scores[index])


def test_images_prepared_before_others_run_keep_their_values(session):
    prepared = [session.prepare(pixels(3)[index : index + 1]) for index in range(3)]
    wanted = session.run(pixels(3))[1]
    for index, one in enumerate(prepared):
        session.infer(one)
        np.testing.assert_array_equal(session.outputs()[1][0], wanted[index])


def test_outputs_stay_what_they_were_when_the_session_runs_again(session):
    first = session.run(pixels(2)[:1])
    copies = [part.copy() for part in first]
    session.run(pixels(2)[1:])
    for part, copy in zip(first, copies, strict=True):
        np.testing.assert_array_equal(part, copy)


def test_another_session_gives_the_same_bits(runtime, data, session):
    other = runtime.open(data, runtime.settings())
    for got, wanted in zip(other.run(pixels(2)), session.run(pixels(2)), strict=True):
        np.testing.assert_array_equal(got, wanted)
    other.close()


def test_every_runtime_starts_from_the_same_numbers(session):
    reference = runtime_of("litert").open(float32_of("converter"), RuntimeSettings())
    for got, wanted in zip(session.run(pixels(2)), reference.run(pixels(2)), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4 * max(1.0, float(np.abs(wanted).max())))
    reference.close()


@pytest.mark.parametrize("content", [b"", b"\x08\x00\x00\x00", b"not a model" * 50])
def test_foreign_bytes_are_unreadable(runtime, content):
    with pytest.raises(ArtifactUnreadable):
        runtime.open(content, runtime.settings())


def test_artifacts_of_other_formats_are_unreadable(runtime):
    for _, toolchain, form in (each for each in MAKERS if each[1] not in COMPILED):
        # A detector's own file is what both Keras and torch open.
        if form.rsplit(".")[-1] not in {each.rsplit(".")[-1] for each in runtime.formats}:
            with pytest.raises(ArtifactUnreadable):
                runtime.open(float32_of(toolchain), runtime.settings())


def test_a_truncated_artifact_is_unreadable(runtime, data):
    with pytest.raises(ArtifactUnreadable):
        runtime.open(data[: len(data) // 2], runtime.settings())


def test_detecting_gives_boxes_inside_each_original_image(runtime, data):
    images = shard(3)
    found = detect_shard(data, runtime.settings(), contract_detector().spec, images, Postprocessing())
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
    other = dataclasses.replace(contract_detector().spec, class_ids=(0, 1, 2))
    with pytest.raises(InferenceFailed, match="classes"):
        detect_shard(data, runtime.settings(), other, shard(1), Postprocessing())


def test_closing_twice_does_no_harm(runtime, data):
    session = runtime.open(data, runtime.settings())
    session.close()
    session.close()


def test_the_version_names_every_package(runtime):
    assert all(package in runtime.version() for package in runtime.packages)


def test_float32_is_executed_in_float32(runtime, data):
    if runtime.executed is not None:
        assert runtime.executed(data, runtime.settings()) == pytest.approx({"float32": 1.0})


def test_options_at_their_default_make_equal_settings(runtime):
    defaults = {option.name: option.choices[0] for option in runtime.options}
    assert runtime.settings(2, **defaults) == RuntimeSettings(runtime.name, 2)
    for option in runtime.options:
        for value in option.choices[1:]:
            assert runtime.settings(**{option.name: value}).option(option.name, option.choices[0]) == value


def test_unknown_options_and_values_are_refused_with_the_choices(runtime):
    with pytest.raises(ValueError, match=r"no option warp; options: "):
        runtime.settings(warp="9")
    for option in runtime.options:
        with pytest.raises(ValueError, match=f"{option.name} is 'warp'; choices: {option.choices[0]}"):
            runtime.settings(**{option.name: "warp"})


@pytest.mark.parametrize("name", [runtime.name for runtime in runtimes()])
def test_every_runtime_can_run_float32(name):
    assert name in {runtime for runtime, _, _ in MAKERS}


def test_an_unknown_runtime_is_refused_with_the_choices():
    with pytest.raises(UnsupportedScheme, match="choices: keras, litert, onnxruntime, openvino, torch"):
        runtime_of("tensorrt")


@pytest.mark.parametrize("name", [runtime.name for runtime in runtimes()])
def test_what_to_install_for_a_runtime_is_an_extra_that_holds_its_packages(name):
    found = runtime_of(name)
    required = [line.split(";") for line in metadata.requires("quantsweep") or []]
    wanted = {"", f' extra == "{found.extra}"'}
    installed = {re.split(r"[<>=\[]", what)[0] for what, *when in required if "".join(when) in wanted}
    assert set(found.packages) <= installed
