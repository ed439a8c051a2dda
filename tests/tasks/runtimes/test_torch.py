"""torch runs modules and compiled packages, and loads packages without a compiler."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tasks.detector.weights import Detector
from tasks.errors import ArtifactUnreadable, InferenceFailed
from tasks.quantize.schemes import BFloat16, Float16, Float32
from tasks.quantize.transforms.base import transformed
from tasks.runtimes.base import runtime_of
from tasks.runtimes.torch import eager_file
from tasks.types import RuntimeSettings
from tests.tasks.runtimes.tiny_detector import pixels, tiny_detector, tiny_float32
from tests.tasks.runtimes.tiny_package import rewritten, tiny_package

LAYOUTS = ("channels_last", "contiguous")
ROUNDS = 15
HALF_TOLERANCE = {Float16(toolchain="inductor"): 0.01, BFloat16(toolchain="inductor"): 0.08}
"""Greatest difference of a score from float32: half has 11 significant bits, bfloat16 8."""


def session_of(data: bytes, threads: int = 1, runtime: str = "torch"):
    return runtime_of(runtime).open(data, RuntimeSettings(runtime, threads))


def run(data: bytes, threads: int = 1, runtime: str = "torch") -> tuple[np.ndarray, np.ndarray]:
    session = session_of(data, threads, runtime)
    try:
        return session.run(pixels(2))
    finally:
        session.close()


@pytest.fixture(scope="module")
def litert() -> tuple[np.ndarray, np.ndarray]:
    return run(tiny_float32(), runtime="litert")


@pytest.fixture(scope="module")
def artifacts() -> dict[str, bytes]:
    modules = {f"eager {layout}": eager_file(tiny_detector(), layout) for layout in LAYOUTS}
    return {**modules, "package": tiny_package()}


every_artifact = pytest.mark.parametrize("name", ["eager channels_last", "eager contiguous", "package"])


@every_artifact
def test_float32_equals_litert(name, artifacts, litert):
    boxes, scores = run(artifacts[name])
    assert boxes.dtype == scores.dtype == np.float32
    np.testing.assert_allclose(boxes, litert[0], atol=1e-4)
    np.testing.assert_allclose(scores, litert[1], atol=1e-4)


@every_artifact
def test_threads_do_not_change_outputs_and_are_those_asked_for(name, artifacts):
    import torch

    one, two = (run(artifacts[name], threads) for threads in (1, 2))
    assert torch.get_num_threads() == 2
    np.testing.assert_allclose(two[0], one[0], atol=1e-5)
    np.testing.assert_allclose(two[1], one[1], atol=1e-5)


@every_artifact
def test_repeated_runs_are_equal_to_the_bit(name, artifacts):
    for first, second in zip(run(artifacts[name]), run(artifacts[name]), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_input_lies_in_memory_as_the_layout_says(layout):
    session = session_of(eager_file(tiny_detector(), layout))
    prepared = session.prepare(pixels(1))
    assert prepared.shape == (1, 3, 96, 96)
    assert prepared.stride()[1] == (1 if layout == "channels_last" else 96 * 96)
    session.close()


def test_everything_is_float32_unless_the_package_computes_otherwise(artifacts):
    for data in artifacts.values():
        assert runtime_of("torch").executed(data, RuntimeSettings("torch")) == {"float32": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", HALF_TOLERANCE, ids=lambda scheme: scheme.name)
def test_half_precision_is_near_float32_and_computed_as_such(scheme, litert):
    _, scores = run(tiny_package(scheme))
    error = np.abs(scores - litert[1]).max()
    assert 1e-4 < error <= HALF_TOLERANCE[scheme]
    assert runtime_of("torch").executed(tiny_package(scheme), RuntimeSettings("torch")) == {scheme.name: 1.0}


@pytest.mark.slow
def test_a_contiguous_package_gives_the_same(litert):
    boxes, scores = run(tiny_package(Float32(toolchain="inductor", memory_layout="contiguous")))
    np.testing.assert_allclose(boxes, litert[0], atol=1e-4)
    np.testing.assert_allclose(scores, litert[1], atol=1e-4)


def test_caps_hold(litert):
    boxes, scores = run(eager_file(transformed(tiny_detector(), "equalized"), "channels_last"))
    np.testing.assert_allclose(boxes, litert[0], atol=1e-3)
    np.testing.assert_allclose(scores, litert[1], atol=1e-3)


def test_a_package_is_loaded_and_run_without_any_other_program_and_leaves_no_files(tmp_path: Path):
    package = tmp_path / "artifact"
    package.write_bytes(tiny_package())
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    program = f"""
import os, sys
from pathlib import Path
import numpy as np
from tasks.runtimes.base import runtime_of
from tasks.types import RuntimeSettings
def forbid(event, arguments):
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn"):
        raise AssertionError(event)
sys.addaudithook(forbid)
session = runtime_of("torch").open(Path({str(package)!r}).read_bytes(), RuntimeSettings("torch"))
session.run(np.zeros((1, 96, 96, 3), np.uint8))
assert "torch._inductor" not in sys.modules
session.close()
assert not os.listdir({str(temporary)!r}), os.listdir({str(temporary)!r})
"""
    environment = {**os.environ, "TMPDIR": str(temporary), "PATH": "", "CXX": "no-such-compiler"}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@every_artifact
def test_what_is_closed_is_freed(name, artifacts):
    import psutil

    def resident() -> int:
        return psutil.Process().memory_info().rss

    for _ in range(3):
        run(artifacts[name])
    before = resident()
    for _ in range(ROUNDS):
        run(artifacts[name])
    assert resident() - before < ROUNDS * len(tiny_detector().to_bytes()) / 2


def test_what_is_closed_infers_no_more():
    session = session_of(eager_file(tiny_detector(), "contiguous"))
    prepared = session.prepare(pixels(1))
    session.close()
    session.close()
    with pytest.raises(InferenceFailed, match="closed"):
        session.infer(prepared)


@every_artifact
def test_an_image_of_another_size_is_a_failure(name, artifacts):
    session = session_of(artifacts[name])
    with pytest.raises(InferenceFailed, match=r"images have the shape \(64, 64, 3\); the model takes 96 x 96"):
        session.run(pixels(1)[:, :64, :64])
    session.close()


def test_a_package_for_another_cpu_is_refused_before_it_is_loaded():
    def claim(description):
        description["isa"] += ["sve9"]

    with pytest.raises(ArtifactUnreadable, match="for a CPU with sve9, which this one has not"):
        session_of(rewritten(tiny_package(), claim))


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999])
def test_truncated_packages_are_unreadable(part):
    data = tiny_package()
    with pytest.raises(ArtifactUnreadable):
        session_of(data[: int(len(data) * part)])


def test_damaged_packages_are_unreadable():
    data = bytearray(tiny_package())
    for place in range(100, len(data), len(data) // 40):
        damaged = data.copy()
        damaged[place] ^= 0x55
        if damaged[place] != data[place] and _is_content(bytes(data), place):
            with pytest.raises(ArtifactUnreadable):
                session_of(bytes(damaged))


def _is_content(data: bytes, place: int) -> bool:
    """Whether a byte is of a file in the archive; a few others say nothing that anyone reads."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        starts = [(item.header_offset + 30 + len(item.filename), item.compress_size) for item in archive.infolist()]
    return any(start <= place < start + length for start, length in starts)


def test_foreign_content_is_unreadable():
    foreign = io.BytesIO()
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("model/hello.txt", "hello")
    module = eager_file(tiny_detector(), "contiguous")
    for data in (b"", b"TFL3" * 20, foreign.getvalue(), tiny_detector().to_bytes(), module[:-4]):
        with pytest.raises(ArtifactUnreadable):
            session_of(data)


def test_a_library_that_is_none_is_unreadable():
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(tiny_package())) as found, zipfile.ZipFile(target, "w") as made:
        for name in found.namelist():
            made.writestr(name, b"no library" if name.endswith(".so") else found.read(name))
    with pytest.raises(ArtifactUnreadable, match="torch cannot load the artifact"):
        session_of(target.getvalue())


def test_an_unknown_layout_is_unreadable_and_named():
    data = eager_file(tiny_detector(), "upside_down")  # type: ignore[arg-type]
    with pytest.raises(ArtifactUnreadable, match="'upside_down'; choices: channels_last, contiguous"):
        session_of(data)


def test_a_detector_of_another_size_is_run_at_its_own_size():
    import dataclasses

    detector = tiny_detector()
    small = Detector(dataclasses.replace(detector.spec, image_size=64), detector.tensors)
    session = session_of(eager_file(small, "contiguous"))
    boxes, scores = session.run(pixels(1)[:, :64, :64])
    assert 0 < boxes.shape[1] == scores.shape[1]
    session.close()
