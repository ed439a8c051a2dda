"""ONNX Runtime's profiler: what it tells of each node, in words of the detector."""

import functools
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.errors import ArtifactUnreadable
from tasks.latency.profiling import profile as profile_in_fresh_process
from tasks.quantize.artifact import make
from tasks.quantize.onnx_export import export
from tasks.quantize.schemes import DynamicInt8, StaticInt8
from tasks.runtimes.base import runtime_of
from tasks.types import OperatorTime, Profile
from tests.tasks.runtimes.tiny_detector import pixels, tiny_detector

RUNTIME = runtime_of("onnxruntime")
LAYERS = {layer.name: layer.macs for layer in layers(tiny_detector().spec)}
SECONDS = 0.05


@functools.cache
def artifact(name: str) -> bytes:
    if name == "float32":
        return export(tiny_detector())
    if name == "dynamic_int8":
        return make(
            tiny_detector(), DynamicInt8(toolchain="onnxruntime", granularity="per_tensor"), artifact("float32")
        )
    kept = "Conv2d_0" if name == "mixed" else "none"
    scheme = StaticInt8(toolchain="onnxruntime", range_estimator="fixed", keep_float=kept)
    return make(tiny_detector(), scheme, artifact("float32"))


@functools.cache
def profile_of(name: str, **options: str) -> Profile:
    return RUNTIME.profile(artifact(name), RUNTIME.settings(**options), pixels(2), SECONDS)


def convolutions(profile: Profile) -> list[OperatorTime]:
    return [item for item in profile.operators if item.role == "convolution"]


def named(profile: Profile, name: str) -> OperatorTime:
    return next(item for item in profile.operators if item.name == name)


every_artifact = pytest.mark.parametrize("name", ["float32", "int8", "mixed", "dynamic_int8"])
every_level = pytest.mark.parametrize("level", ["all", "disabled"])


@every_artifact
@every_level
def test_every_layer_is_convolved_once_and_takes_time(name, level):
    found = convolutions(profile_of(name, graph_optimization=level))
    assert sorted(str(item.layer) for item in found) == sorted(LAYERS)
    assert {item.layer: item.macs for item in found} == LAYERS
    assert all(item.time_ms > 0 for item in found)


@every_artifact
@every_level
def test_what_layers_compute_in_is_what_the_runtime_says_that_it_executes(name, level):
    settings = RUNTIME.settings(graph_optimization=level)
    macs = Counter[str]()
    for item in convolutions(profile_of(name, graph_optimization=level)):
        macs[item.arithmetic] += item.macs
    assert {key: count / macs.total() for key, count in macs.items()} == pytest.approx(
        RUNTIME.executed(artifact(name), settings)
    )


@every_artifact
def test_names_are_unique_and_nothing_but_convolutions_has_multiply_accumulates(name):
    profile = profile_of(name)
    assert max(Counter(item.name for item in profile.operators).values()) == 1
    assert all(not item.macs for item in profile.operators if item.role != "convolution")
    assert all(item.time_ms >= 0 for item in profile.operators) and profile.total_ms > 0
    assert profile.repeats >= 15
    assert "adds" in profile.method


def test_only_integers_that_are_executed_in_float_fall_back():
    assert profile_of("int8").fallback_share == profile_of("float32").fallback_share == 0
    assert profile_of("dynamic_int8", graph_optimization="disabled").fallback_share == 0
    found = convolutions(profile_of("int8", graph_optimization="disabled"))
    assert {(item.is_fallback, item.arithmetic) for item in found} == {(True, "float32")}


def test_a_layer_that_was_kept_in_float_does_not_fall_back():
    for level, integers in (("all", "int8"), ("disabled", "float32")):
        found = {item.layer: item for item in convolutions(profile_of("mixed", graph_optimization=level))}
        assert (found["Conv2d_0"].arithmetic, found["Conv2d_0"].is_fallback) == ("float32", False)
        other = found["Conv2d_1_pointwise"]
        assert (other.arithmetic, other.is_fallback) == (integers, integers == "float32")


def test_conversions_are_told_from_computations():
    profile = profile_of("int8")
    image = named(profile, "images_QuantizeLinear")
    assert (image.operator, image.role, image.layer, image.arithmetic) == (
        "QuantizeLinear",
        "conversion",
        None,
        "uint8",
    )
    assert named(profile, "scores/Sigmoid").role == "other"
    assert 0 < profile.conversion_share < 1
    unrewritten = profile_of("int8", graph_optimization="disabled")
    widened = named(unrewritten, "Conv2d_0.weight_DequantizeLinear")
    assert (widened.role, widened.layer, widened.arithmetic) == ("conversion", "Conv2d_0", "float32")
    assert unrewritten.conversion_share > profile.conversion_share


def test_kernels_have_the_runtimes_names():
    kernels = {item.kernel for item in convolutions(profile_of("int8"))}
    assert kernels == {"MLAS QLinearConv"}
    assert {item.kernel for item in convolutions(profile_of("dynamic_int8"))} == {"MLAS ConvInteger"}
    assert {item.kernel for item in convolutions(profile_of("float32", graph_optimization="disabled"))} == {"MLAS Conv"}


def test_no_files_are_left_behind(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    RUNTIME.profile(artifact("int8"), RUNTIME.settings(), pixels(1), 0.0)
    assert not list(tmp_path.iterdir())


def test_a_fresh_process_tells_the_same_operators():
    found = profile_in_fresh_process(artifact("int8"), RUNTIME.settings(), pixels(2), SECONDS)
    facts = [[(item.name, item.kernel, item.layer) for item in one.operators] for one in (found, profile_of("int8"))]
    assert facts[0] == facts[1]
    assert found.total_ms > 0


def test_what_is_no_graph_is_unreadable():
    with pytest.raises(ArtifactUnreadable):
        RUNTIME.profile(b"not a graph", RUNTIME.settings(), np.zeros((1, 96, 96, 3), np.uint8), 0.1)
