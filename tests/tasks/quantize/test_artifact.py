"""Failures have a name and one line."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.detector.weights import Detector
from tasks.errors import QuantizationFailed, UnsupportedScheme
from tasks.quantize import builders
from tasks.quantize.artifact import build_artifact, make, observed_by, source_of, toolchain_versions
from tasks.quantize.builders import builder_of
from tasks.quantize.schemes import BFloat16, DynamicInt8, Float16, Float32, Qat, Scheme, StaticInt8
from tasks.quantize.statistics import Statistics
from tasks.storage import ArtifactStorage
from tests.tasks.quantize.test_schemes_are_kept import PLAIN, name_of


def fail_with(error: Exception, patch: pytest.MonkeyPatch) -> None:
    def build(*_: Any) -> bytes:
        raise error

    broken = replace(builder_of(Float16()), build=build)
    patch.setattr(builders, "_BUILDERS", builders._BUILDERS | {(Float16, "converter"): broken})


def test_an_error_of_a_toolchain_becomes_a_failure_with_its_first_line(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("\nerror: cannot legalize\n<a page of MLIR>")
    fail_with(error, monkeypatch)
    with pytest.raises(QuantizationFailed) as caught:
        build_artifact(detector, Float16(), ArtifactStorage(str(tmp_path)))
    assert str(caught.value) == "converter failed: RuntimeError: error: cannot legalize"
    assert caught.value.__cause__ is error


def test_running_out_of_memory_is_no_failure_of_the_scheme(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(MemoryError(), monkeypatch)
    with pytest.raises(MemoryError):
        make(detector, Float16())


@pytest.mark.parametrize(
    ("scheme", "choices"),
    [
        (Float32(toolchain="litert_quantizer"), "converter, eager, inductor, keras, onnx"),
        (BFloat16(toolchain="converter"), "inductor, keras"),
        (StaticInt8(toolchain="keras"), "converter, litert_quantizer, nncf, onnxruntime, pt2e"),
    ],
)
def test_a_scheme_that_a_toolchain_cannot_make_is_unsupported(detector: Detector, scheme: Scheme, choices: str) -> None:
    said = f"{scheme.name} cannot be made by the toolchain {scheme.toolchain}; choices: {choices}$"
    with pytest.raises(UnsupportedScheme, match=said):
        make(detector, scheme)


def test_what_is_missing_is_named(detector: Detector, source: Callable[..., bytes]) -> None:
    with pytest.raises(
        QuantizationFailed, match="needs the float32 artifact and statistics of calibration images, and"
    ):
        make(detector, StaticInt8())
    with pytest.raises(QuantizationFailed, match="needs statistics of calibration images, and none was given"):
        make(detector, StaticInt8(), source())
    with pytest.raises(QuantizationFailed, match="needs a ranking of the layers, and none was given"):
        make(detector, DynamicInt8(toolchain="litert_quantizer", keep_float="most_sensitive_3"), source())


def test_layers_that_the_detector_does_not_have_cannot_be_kept(
    detector: Detector, source: Callable[..., bytes], statistics: Callable[..., Statistics]
) -> None:
    with pytest.raises(UnsupportedScheme, match="keep_float 'Mixed_5b' matches no layer"):
        make(detector, StaticInt8(keep_float="Mixed_5b"), source(), statistics(4))


def test_statistics_of_another_model_are_refused(
    detector: Detector, source: Callable[..., bytes], statistics: Callable[..., Statistics]
) -> None:
    other = replace(statistics(4), tensors=tuple(f"other {name}" for name in statistics(4).tensors))
    toolchains: list[dict[str, Any]] = [{"toolchain": "converter"}, {"toolchain": "litert_quantizer"}]
    for toolchain in toolchains:
        with pytest.raises(QuantizationFailed):
            make(detector, replace(StaticInt8(), **toolchain), source(), other)


@pytest.mark.parametrize("scheme", PLAIN, ids=name_of)
def test_versions_name_what_decides_about_the_bytes(scheme: Scheme) -> None:
    versions = toolchain_versions(scheme)
    observes = observed_by(scheme) is not None
    assert ("tensorflow" in versions) == (observes or scheme.toolchain in ("converter", "litert_quantizer", "keras"))
    assert ("torch" in versions) == (scheme.toolchain not in ("converter", "litert_quantizer", "keras"))
    for package, toolchain in {"litert-quantizer": "litert_quantizer", "nncf": "nncf", "torchao": "pt2e"}.items():
        assert (package in versions) == (scheme.toolchain == toolchain)


TRANSFORMABLE = [scheme for scheme in PLAIN if not isinstance(scheme, Qat)]


@pytest.mark.parametrize("scheme", TRANSFORMABLE, ids=name_of)
def test_what_starts_from_a_float_artifact_starts_from_that_of_its_transform(scheme: Scheme) -> None:
    changed = replace(scheme, transform="equalized")
    before: Any = builder_of(scheme).source
    assert source_of(changed) == (Float32(toolchain=before, transform="equalized") if before else None)


@pytest.mark.parametrize("scheme", TRANSFORMABLE, ids=name_of)
def test_every_toolchain_shares_the_statistics_of_one_float_artifact(scheme: Scheme) -> None:
    wants_statistics = scheme.is_calibrated and scheme.toolchain != "nncf"
    changed = replace(scheme, transform="equalized")
    assert observed_by(changed) == (Float32(transform="equalized") if wants_statistics else None)


def test_finding_builders_loads_no_framework() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from tasks.quantize.artifact import toolchain_versions;"
        "from tasks.quantize.builders import builders;"
        "[toolchain_versions(item.scheme(toolchain=item.toolchain, **item.forced)) for item in builders()];"
        "heavy = {'tensorflow', 'tf_keras', 'litert_quantizer', 'ai_edge_litert', 'torch', 'torchao', 'onnx', 'nncf'};"
        "assert not heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
