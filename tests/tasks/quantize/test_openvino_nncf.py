"""NNCF quantizes every layer that it is to quantize, as each axis says, without a word, and the same way each time."""

import logging

import numpy as np
import pytest

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.errors import QuantizationFailed, UnsupportedScheme
from tasks.quantize.artifact import make
from tasks.quantize.builders import builder_of
from tasks.quantize.formats.openvino_ir import audit, structure_sha256
from tasks.runtimes.openvino import OpenVINOSession, executed
from tasks.types import RuntimeSettings
from tests.tasks.quantize.openvino_builds import float32_onnx, int8_archive, made, scheme
from tests.tasks.runtimes.tiny_detector import pixels, tiny_detector

SETTINGS = RuntimeSettings("openvino")
KEPT = ("Conv2d_0", "Conv2d_5_depthwise", "BoxPredictor_1_scores")


def run(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    session = OpenVINOSession(data, SETTINGS)
    try:
        return session.run(pixels(6))
    finally:
        session.close()


def test_every_convolution_is_stored_and_executed_in_int8():
    found = audit(int8_archive())
    table = layers(tiny_detector().spec)
    assert found.layers == {layer.name: "int8" for layer in table}
    assert found.mac_share == executed(int8_archive(), SETTINGS) == {"int8": 1.0}
    assert found.macs == sum(layer.macs for layer in table)
    assert found.weight_share == {"int8": 1.0}
    assert (found.granularity, found.input_type) == ("per_channel", "float32")
    assert found.output_types == {"boxes": "float32", "scores": "float32"}


def test_the_weights_take_a_byte_each():
    assert len(int8_archive()) < len(float32_onnx()) / 2


def test_outputs_are_near_those_of_float32():
    for integer, real in zip(run(int8_archive()), run(float32_onnx()), strict=True):
        assert 0 < np.abs(integer - real).mean() < 0.1 * real.std()


@pytest.mark.parametrize(
    "axes",
    [
        {"granularity": "per_tensor"},
        pytest.param({"symmetry": "symmetric"}, marks=pytest.mark.slow),
        pytest.param({"range_estimator": "mean_min_max"}, marks=pytest.mark.slow),
        pytest.param({"transform": "equalized"}, marks=pytest.mark.slow),
        pytest.param({"transform": "binary"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_each_axis_keeps_its_promise_and_makes_another_artifact(axes):
    assert int8_archive(**axes) != int8_archive()


@pytest.mark.slow
def test_ranges_around_a_shifted_zero_are_asymmetric_alone():
    assert audit(int8_archive(symmetry="symmetric")).symmetric_activations is True
    assert audit(int8_archive(symmetry="asymmetric")).symmetric_activations is False


def test_kept_layers_stay_float_in_store_and_in_execution_and_no_others():
    found = audit(int8_archive(keep_float="|".join(KEPT)))
    assert {name for name, arithmetic in found.layers.items() if arithmetic == "float32"} == set(KEPT)
    assert set(found.layers.values()) == {"float32", "int8"}
    assert set(found.weight_share) == {"float32", "int8"}


def test_the_same_material_gives_the_same_bytes_after_whatever_came_between():
    before = int8_archive()
    int8_archive(granularity="per_tensor")
    assert made(scheme()) == before


def test_an_archive_says_nothing_of_who_made_it_and_where():
    data = int8_archive()
    assert not [word for word in (b"rt_info", b"nncf", b"/tmp", b'version="20') if word in data]


def test_nothing_is_printed_and_later_loggers_are_left_alone(capfd):
    logger_class = logging.getLoggerClass()
    made(scheme(calibration_images=1))
    assert capfd.readouterr() == ("", "")
    assert logging.getLoggerClass() is logger_class


@pytest.mark.slow
def test_another_calibration_or_bias_correction_has_the_same_structure():
    made_so = [{}, {"calibration_images": 2}, {"bias_correction": "none"}, {"bias_correction": "accurate"}]
    data = [int8_archive(symmetry="symmetric", **axes) for axes in made_so]
    assert len(set(data)) == len(made_so)
    assert len({structure_sha256(item) for item in data}) == 1


def test_images_are_asked_for():
    with pytest.raises(QuantizationFailed, match="calibration images"):
        make(tiny_detector(), scheme(), float32_onnx())


@pytest.mark.parametrize(
    ("axis", "value"),
    [
        ("range_estimator", "entropy"),
        ("range_estimator", "fixed"),
        ("weight_algorithm", "mse"),
        ("input_type", "uint8"),
        ("output_type", "int8"),
    ],
)
def test_what_nncf_cannot_make_is_refused_with_the_reason(axis, value):
    with pytest.raises(UnsupportedScheme, match=f"toolchain nncf cannot have {axis} '{value}': nncf .*; choices: "):
        builder_of(scheme(**{axis: value}))
