"""OpenVINO's performance counters: what they tell of each operator, in words of the detector."""

import functools
import tempfile
from collections import Counter
from pathlib import Path

import onnx
import pytest

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.errors import ArtifactUnreadable
from tasks.quantize.artifact import make
from tasks.quantize.schemes import StaticInt8
from tasks.runtimes.base import runtime_of
from tasks.types import OperatorTime, Profile
from tests.tasks.quantize.openvino_builds import float32_onnx, int8_archive
from tests.tasks.runtimes.tiny_detector import pixels, tiny_detector

RUNTIME = runtime_of("openvino")
LAYERS = {layer.name: layer.macs for layer in layers(tiny_detector().spec)}
KEPT = {"float32": set(LAYERS), "signed": {"Conv2d_0"}}
"""Layers that an artifact stores in float."""


@functools.cache
def artifact(name: str) -> bytes:
    if name == "float32":
        return float32_onnx()
    if name == "nncf":
        return int8_archive()
    if name == "weights":
        return with_float_activations(artifact("qdq"))
    axes = {"qdq": {}, "signed": {"activation_type": "int8", "keep_float": "Conv2d_0"}}[name]
    return make(tiny_detector(), StaticInt8(toolchain="onnxruntime", range_estimator="fixed", **axes), float32_onnx())


def with_float_activations(data: bytes) -> bytes:
    """Leaves the integers of the weights alone, which OpenVINO widens when it compiles."""
    model = onnx.load_model_from_string(data)
    stored = {item.name for item in model.graph.initializer}
    rounding = {item.output[0]: item.input[0] for item in model.graph.node if item.op_type == "QuantizeLinear"}
    floats = {
        item.output[0]: rounding[item.input[0]]
        for item in model.graph.node
        if item.op_type == "DequantizeLinear" and item.input[0] not in stored
    }
    for item in model.graph.node:
        for place, name in enumerate(item.input):
            while name in floats:
                name = floats[name]
            item.input[place] = name
    return model.SerializeToString()


@functools.cache
def profile_of(name: str) -> Profile:
    return RUNTIME.profile(artifact(name), RUNTIME.settings(), pixels(2), 0.0)


def convolutions(profile: Profile) -> list[OperatorTime]:
    return [item for item in profile.operators if item.role == "convolution"]


NNCF = pytest.param("nncf", marks=pytest.mark.slow)
every_artifact = pytest.mark.parametrize("name", ["float32", "qdq", "signed", "weights", NNCF])


@every_artifact
def test_every_layer_is_convolved_once_and_takes_time(name):
    found = convolutions(profile_of(name))
    assert sorted(str(item.layer) for item in found) == sorted(LAYERS)
    assert {item.layer: item.macs for item in found} == LAYERS
    assert all(item.time_ms > 0 for item in found)


@every_artifact
def test_what_layers_compute_in_is_what_the_runtime_says_that_it_executes(name):
    macs = Counter[str]()
    for item in convolutions(profile_of(name)):
        macs[item.arithmetic] += item.macs
    assert {key: count / macs.total() for key, count in macs.items()} == pytest.approx(
        RUNTIME.executed(artifact(name), RUNTIME.settings())
    )


@every_artifact
def test_names_are_unique_and_nothing_but_convolutions_has_multiply_accumulates(name):
    profile = profile_of(name)
    assert max(Counter(item.name for item in profile.operators).values()) == 1
    assert all(not item.macs for item in profile.operators if item.role != "convolution")
    assert all(item.time_ms >= 0 for item in profile.operators) and profile.total_ms > 0
    assert profile.repeats >= 3 and "adds" in profile.method


@every_artifact
def test_integers_executed_in_float_fall_back_and_floats_do_not(name):
    """Some CPUs have float primitives where zero points of signed activations are subtracted in the graph."""
    kept = KEPT.get(name, set())
    for item in convolutions(profile_of(name)):
        is_reference = bool({"ref", "simple"} & set(item.kernel.split("_")))
        assert item.is_fallback == (is_reference or (item.layer not in kept and item.arithmetic == "float32"))


def test_integers_that_openvino_widens_fall_back():
    assert all(item.is_fallback for item in convolutions(profile_of("weights")))
    assert profile_of("weights").fallback_share > profile_of("qdq").fallback_share


@pytest.mark.parametrize("name,arithmetic,ending", [("float32", "float32", "_f32"), ("qdq", "int8", "_i8")])
def test_kernels_are_primitives_and_say_what_they_compute_in(name, arithmetic, ending):
    for item in convolutions(profile_of(name)):
        assert item.arithmetic == arithmetic and item.kernel.lower().endswith(ending)


@pytest.mark.parametrize("name", ["qdq", NNCF])
def test_quantizing_the_image_is_a_conversion_and_the_sigmoid_is_not(name):
    found = {item.name: item for item in profile_of(name).operators}
    image = next(item for key, item in found.items() if key.startswith("images"))
    assert image.role == "conversion" and image.arithmetic in ("int8", "uint8") and image.layer is None
    assert found["scores"].role == "other"
    assert 0 < profile_of(name).conversion_share < 1


def test_half_precision_is_told_and_does_not_fall_back():
    settings = RUNTIME.settings(inference_precision="bfloat16")
    found = convolutions(RUNTIME.profile(artifact("float32"), settings, pixels(1), 0.0))
    assert {item.arithmetic for item in found} == set(RUNTIME.executed(artifact("float32"), settings))
    assert not any(item.is_fallback for item in found if "ref" not in item.kernel)


def test_no_files_are_left_behind(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    RUNTIME.profile(artifact("float32"), RUNTIME.settings(), pixels(1), 0.0)
    assert not list(tmp_path.iterdir())


def test_what_is_no_model_is_unreadable():
    with pytest.raises(ArtifactUnreadable):
        RUNTIME.profile(b"not a model", RUNTIME.settings(), pixels(1), 0.1)
