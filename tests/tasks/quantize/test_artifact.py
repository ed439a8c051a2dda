"""Failures have a name and one line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.detector.weights import Detector
from tasks.errors import QuantizationFailed, UnsupportedScheme
from tasks.quantize import builders
from tasks.quantize.artifact import build_artifact, calibrate, toolchain_versions
from tasks.quantize.builders import builder_of
from tasks.quantize.schemes import Float16, Float32, StaticInt8
from tasks.storage import ArtifactStorage


def failing(error: Exception) -> Any:
    def build(*_: Any) -> bytes:
        raise error

    return build


def test_an_error_of_a_toolchain_becomes_a_failure_with_its_first_line(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("\nerror: cannot legalize\n<a page of MLIR>")
    broken = replace(builder_of(Float16()), build=failing(error))
    monkeypatch.setitem(builders._BUILDERS, (Float16, "converter"), broken)
    with pytest.raises(QuantizationFailed) as caught:
        build_artifact(detector, Float16(), None, ArtifactStorage(str(tmp_path)))
    assert str(caught.value) == "converter failed: RuntimeError: error: cannot legalize"
    assert caught.value.__cause__ is error


def test_running_out_of_memory_is_no_failure_of_the_scheme(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        builders._BUILDERS, (Float16, "converter"), replace(builder_of(Float16()), build=failing(MemoryError()))
    )
    with pytest.raises(MemoryError):
        build_artifact(detector, Float16(), None, ArtifactStorage(str(tmp_path)))


def test_a_scheme_that_a_toolchain_cannot_make_is_unsupported(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedScheme, match="float32 cannot be made by the toolchain litert_quantizer"):
        build_artifact(detector, Float32("litert_quantizer"), None, ArtifactStorage(str(tmp_path)))


def test_a_static_scheme_needs_its_calibration(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(QuantizationFailed, match="static_int8 needs a calibration"):
        build_artifact(detector, StaticInt8(), None, ArtifactStorage(str(tmp_path)))


def test_a_scheme_without_ranges_cannot_be_calibrated(detector: Detector, pixels: np.ndarray) -> None:
    with pytest.raises(UnsupportedScheme, match="float16 of the toolchain converter needs no calibration"):
        calibrate(detector, Float16(), pixels, (2,))


def test_a_calibration_that_fails_has_one_line(detector: Detector, pixels: np.ndarray) -> None:
    with pytest.raises(QuantizationFailed, match="converter failed: ValueError: the sample sizes are"):
        calibrate(detector, StaticInt8(), pixels, (len(pixels) + 1,))


def test_both_toolchains_calibrate_alike(detector: Detector, pixels: np.ndarray) -> None:
    ours, theirs = (calibrate(detector, StaticInt8(name), pixels, (2, 4)) for name in ("converter", "litert_quantizer"))
    assert ours == theirs


def test_versions_name_every_package_of_every_builder() -> None:
    for builder in builders.builders():
        versions = toolchain_versions(builder)
        assert versions["tensorflow"].startswith("2.")
        assert ("litert-quantizer" in versions) == (builder.toolchain == "litert_quantizer")


def test_finding_builders_loads_no_framework() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from tasks.quantize.artifact import toolchain_versions;"
        "from tasks.quantize.builders import builders;"
        "[toolchain_versions(builder) for builder in builders()];"
        "assert not {'tensorflow', 'tf_keras', 'litert_quantizer', 'ai_edge_litert'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
