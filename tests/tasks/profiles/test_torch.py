"""What torch runs: packages by oneDNN's own account, modules by torch's profiler."""

import functools
import os
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.errors import ArtifactUnreadable
from tasks.profiles.torch_module import PYTHON
from tasks.profiles.torch_onednn import Primitive, primitives, watched
from tasks.profiles.torch_package import GENERATED, Promised, matched
from tasks.quantize.schemes import BFloat16, DynamicInt8, Float32, StaticInt8
from tasks.runtimes.base import runtime_of
from tasks.runtimes.torch import eager_file
from tasks.types import OperatorTime, Profile
from tests.tasks.runtimes.tiny_detector import pixels, tiny_detector
from tests.tasks.runtimes.tiny_package import tiny_package

RUNTIME = runtime_of("torch")
LAYERS = {layer.name: layer.macs for layer in layers(tiny_detector().spec)}
SCHEMES = {
    "float32": Float32(toolchain="inductor"),
    "bfloat16": BFloat16(toolchain="inductor"),
    "static": StaticInt8(toolchain="pt2e", range_estimator="fixed", keep_float="Conv2d_0"),
    "dynamic": DynamicInt8(toolchain="pt2e"),
}
HEAD = "onednn_verbose,v1,primitive,exec,cpu"
REORDER = "reorder,jit:uni,undef,src:s8::blocked:a::f8:zpm1 dst:s8::blocked:a::f0,,,24x1x1x3x3,0.00317383"
MEMORY = "src:u8::blocked:acdb::f0 wei:s8:ap:blocked:debcA16a::f0 bia:f32:a:blocked:a::f0 dst:f32::blocked:acdb::f0"
SIZES = "g24mb1_ic24oc24_ih150oh75kh3sh2dh0ph1_iw150ow75kw3sw2dw0pw1"
CONVOLUTION = (
    f"convolution,brdgmm_dw:avx512_core_vnni,forward_inference,{MEMORY},,alg:convolution_direct,{SIZES},0.234131"
)
EXECUTIONS = f"""onednn_verbose,v1,info,oneDNN v3.12.0 (commit 80afa71)
{HEAD.replace("exec", "create")},{CONVOLUTION}
hello, world
{HEAD},{REORDER}
{HEAD},{CONVOLUTION}
"""
"""What oneDNN printed: an execution of a reorder, and of a depthwise convolution of 24 channels to 75 x 75 pixels."""


@functools.cache
def artifact(name: str) -> bytes:
    if name in ("channels_last", "contiguous"):
        return eager_file(tiny_detector(), name)  # type: ignore[arg-type]
    return tiny_package(SCHEMES[name])


@functools.cache
def profile_of(name: str) -> Profile:
    return RUNTIME.profile(artifact(name), RUNTIME.settings(), pixels(2), 0.0)


def convolutions(profile: Profile) -> list[OperatorTime]:
    return [item for item in profile.operators if item.role == "convolution"]


MODULES = ["channels_last", "contiguous"]
PACKAGES = [pytest.param(name, marks=pytest.mark.slow) for name in SCHEMES]
every_artifact = pytest.mark.parametrize("name", [*MODULES, *PACKAGES])


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
def test_names_are_unique_and_nothing_falls_back(name):
    profile = profile_of(name)
    assert max(Counter(item.name for item in profile.operators).values()) == 1
    assert all(not item.macs for item in profile.operators if item.role != "convolution")
    assert all(item.time_ms >= 0 for item in profile.operators) and profile.total_ms > 0
    assert profile.fallback_share == 0
    assert profile.repeats >= 15 and "adds" in profile.method


@pytest.mark.parametrize("name", MODULES)
def test_a_modules_operators_belong_to_its_layers(name):
    profile = profile_of(name)
    pads = [item.layer for item in profile.operators if item.operator == "aten::pad"]
    assert pads and all(layer == "Conv2d_0" or layer.endswith(("depthwise", "3x3")) for layer in pads)
    rectified = [item.layer for item in profile.operators if item.operator == "aten::relu6"]
    assert rectified == [layer for layer in LAYERS if not layer.startswith("BoxPredictor")]
    assert [item.layer for item in profile.operators if item.operator == "aten::sigmoid"] == [None]
    assert {item.operator for item in profile.operators if item.role == "conversion"} <= {
        "aten::to", "aten::permute", "aten::reshape",
    }  # fmt: skip
    assert all(item.name == PYTHON for item in profile.operators[-1:] if item.operator == PYTHON)


def test_a_modules_kernels_are_the_innermost_convolutions():
    for item in convolutions(profile_of("channels_last")):
        assert item.operator == "aten::conv2d" and "conv" in item.kernel and item.kernel != "aten::conv2d"


@pytest.mark.slow
def test_a_package_has_integer_kernels_reorders_and_generated_code():
    for item in convolutions(profile_of("static")):
        assert item.arithmetic == ("float32" if item.layer == "Conv2d_0" else "int8")
    assert {item.arithmetic for item in convolutions(profile_of("dynamic"))} == {"dynamic_int8"}
    for name in SCHEMES:
        assert profile_of(name).operators[-1].name == GENERATED
    for item in profile_of("dynamic").operators:
        assert (item.role == "conversion") == (item.operator == "reorder")
        assert item.layer in LAYERS or item.name == GENERATED


def test_lines_of_onednn_are_read_among_others():
    reorder, convolution = primitives(EXECUTIONS)
    assert (reorder.kind, reorder.macs, reorder.types) == ("reorder", 0, {"src": "int8", "dst": "int8"})
    assert convolution.implementation == "brdgmm_dw:avx512_core_vnni"
    assert convolution.types == {"src": "uint8", "wei": "int8", "bia": "float32", "dst": "float32"}
    assert (convolution.macs, convolution.elements) == (24 * 75 * 75 * 3 * 3, 24 * 3 * 3)
    assert convolution.time_ms == 0.234131


def test_onednn_is_watched_while_it_is_and_the_standard_output_comes_back(capfd):
    import torch

    images, weights = torch.rand(1, 32, 64, 64), torch.rand(48, 32, 3, 3)
    packed = torch.ops.mkldnn._reorder_convolution_weight(weights, [1, 1], [1, 1], [1, 1], 1)

    def convolve() -> None:
        torch.ops.mkldnn._convolution_pointwise(images, packed, None, [1, 1], [1, 1], [1, 1], 1, "none", [], "")

    with watched() as found:
        convolve()
        os.write(1, b"swallowed\n")
    os.write(1, b"told\n")
    convolve()
    printed = capfd.readouterr().out
    assert "told" in printed and "swallowed" not in printed and "onednn" not in printed
    (convolution,) = [item for item in found if item.kind == "convolution"]
    assert convolution.macs == 64 * 64 * 48 * 32 * 3 * 3
    assert convolution.time_ms > 0


def test_primitives_are_layers_of_their_sizes_and_a_layer_that_onednn_does_not_execute_is_passed_over():
    reorder, narrow = primitives(EXECUTIONS)
    wide = replace(narrow, problem=narrow.problem.replace("g24", ""))
    sizes = {"wide": wide, "elsewhere": replace(wide, problem=wide.problem.replace("ic24", "ic25")), "narrow": narrow}
    sizes["narrow too"] = narrow
    promised = [Promised(name, item.macs, item.elements, "int8", "int8") for name, item in sizes.items()]
    other = Primitive("eltwise", "jit:avx512", {"dst": "float32"}, "1x2x3", 0.1)
    found = matched([narrow, reorder, narrow, other, wide, narrow, reorder], promised)
    assert [item and item.name for item in found] == ["narrow", "narrow too", "narrow too", None, "wide", None, None]


@every_artifact
def test_no_files_are_left_behind(name, tmp_path: Path, monkeypatch):
    data = artifact(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    RUNTIME.profile(data, RUNTIME.settings(), pixels(1), 0.0)
    assert not list(tmp_path.iterdir())


def test_what_is_neither_is_unreadable():
    for data in (b"nothing", b"PK\x03\x04 no package"):
        with pytest.raises(ArtifactUnreadable):
            RUNTIME.profile(data, RUNTIME.settings(), pixels(1), 0.1)
