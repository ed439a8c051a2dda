"""Packages hold what their scheme promises, and the audit believes the generated code alone."""

import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector
from tasks.errors import ArtifactUnreadable, AuditMismatch, CompilerMissing
from tasks.quantize.artifact import make
from tasks.quantize.formats.pt2 import audit, executed, read_package, structure_sha256
from tasks.quantize.schemes import BFloat16, DynamicInt8, Float16, Float32
from tests.tasks.runtimes.tiny_detector import tiny_detector
from tests.tasks.runtimes.tiny_package import rewritten, tiny_package

TEXTBOOK = DynamicInt8(toolchain="quantize_dynamic")
HALVES = (Float16(toolchain="inductor"), BFloat16(toolchain="inductor"))


def test_every_convolution_is_lowered_to_a_float32_kernel() -> None:
    found = audit(tiny_package())
    table = layers(tiny_detector().spec)
    assert found.mac_share == found.weight_share == {"float32": 1.0}
    assert found.layers == {layer.name: "float32" for layer in table}
    assert found.macs == sum(layer.macs for layer in table)
    assert (found.input_type, found.output_types) == ("float32", {"boxes": "float32", "scores": "float32"})
    assert (found.granularity, found.symmetric_activations) == (None, None)
    assert executed(tiny_package()) == {"float32": 1.0}


@pytest.mark.parametrize("promised", ["int8", "dynamic_int8", "bfloat16"])
def test_a_promise_that_no_kernel_keeps_is_float32(promised: str) -> None:
    def promise(description: dict) -> None:
        for item in description["program"]["convolutions"]:
            item["arithmetic"] = item["stored"] = promised

    found = audit(rewritten(tiny_package(), promise))
    assert found.mac_share == found.weight_share == {"float32": 1.0}
    assert set(found.layers.values()) == {"float32"}


def test_a_single_layer_that_was_not_lowered_is_named() -> None:
    def promise(description: dict) -> None:
        description["program"]["convolutions"][5]["arithmetic"] = "int8"
        description["program"]["convolutions"][5]["layer"] = "NoSuchKernel"

    found = audit(rewritten(tiny_package(), promise))
    assert found.layers["NoSuchKernel"] == "float32"


def test_the_package_says_what_it_was_made_for() -> None:
    from tasks.host import this_host

    package = read_package(tiny_package())
    assert package.memory_layout == "channels_last"
    assert package.isa == set(this_host().properties["isa"])


def test_layout_and_cpu_are_structure_and_the_promised_arithmetic_is_what_was_lowered() -> None:
    def contiguous(description: dict) -> None:
        description["memory_layout"] = "contiguous"

    def other_cpu(description: dict) -> None:
        description["isa"] = ["avx"]

    made = [tiny_package(), *(rewritten(tiny_package(), change) for change in (contiguous, other_cpu))]
    assert len({structure_sha256(data) for data in made}) == 3
    assert structure_sha256(rewritten(tiny_package(), lambda description: None)) == structure_sha256(made[0])


def test_commands_of_the_compiler_are_not_in_the_package() -> None:
    with zipfile.ZipFile(io.BytesIO(tiny_package())) as archive:
        texts = [archive.read(name).decode() for name in archive.namelist() if name.endswith((".cpp", ".json"))]
    assert not any("Compile cmd" in text or tempfile.gettempdir() in text for text in texts)


@pytest.mark.parametrize("scheme", [Float32(toolchain="inductor"), TEXTBOOK], ids=["inductor", "quantize_dynamic"])
def test_without_a_compiler_one_line_says_so(scheme, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(CompilerMissing, match=r"^torch needs a C\+\+ compiler and this machine has no g\+\+; .*$"):
        make(tiny_detector(), scheme)


@pytest.mark.parametrize("read", [audit, structure_sha256, executed])
def test_other_content_is_unreadable(read: Callable[[bytes], object]) -> None:
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()

    def age(description: dict) -> None:
        description["version"] = 0

    for content in (
        b"",
        b"PK\x03\x04 and so on",
        tiny_package()[:-30],
        empty.getvalue(),
        rewritten(tiny_package(), age),
    ):
        with pytest.raises(ArtifactUnreadable):
            read(content)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", HALVES, ids=lambda scheme: scheme.name)
def test_half_precision_is_lowered_as_such(scheme) -> None:
    found = audit(tiny_package(scheme))
    assert found.mac_share == found.weight_share == {scheme.name: 1.0}
    assert found.output_types == {"boxes": "float32", "scores": "float32"}


@pytest.mark.slow
def test_the_textbook_example_quantizes_nothing_and_fails() -> None:
    with pytest.raises(AuditMismatch, match=r"not dynamic_int8: 100.00% of its multiply-accumulates are float32"):
        make(tiny_detector(), TEXTBOOK)


@pytest.mark.slow
def test_weights_are_not_structure_and_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    detector = tiny_detector()
    halved = {key: (tensor / 2).astype(np.float32) for key, tensor in detector.tensors.items()}
    made = make(Detector(detector.spec, halved), Float32(toolchain="inductor"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert structure_sha256(made) == structure_sha256(tiny_package())
