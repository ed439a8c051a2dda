"""OpenVINO runs .onnx files and its own archives in the precision and on the threads that it is told."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tasks.errors import ArtifactUnreadable, InferenceFailed
from tasks.runtimes.base import runtime_of
from tasks.runtimes.litert import LiteRTSession
from tasks.runtimes.openvino import OpenVINOSession, executed
from tasks.types import RuntimeSettings
from tests.tasks.quantize.openvino_builds import float32_onnx, int8_archive
from tests.tasks.runtimes.tiny_detector import pixels, tiny_float32

SETTINGS = RuntimeSettings("openvino")
PRECISIONS = ("float32", "bfloat16", "float16")


def precision(name: str) -> RuntimeSettings:
    return runtime_of("openvino").settings(inference_precision=name)


def run(data: bytes, settings: RuntimeSettings = SETTINGS, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    session = OpenVINOSession(data, settings)
    try:
        return session.run(pixels(count))
    finally:
        session.close()


def test_float32_equals_litert():
    session = LiteRTSession(tiny_float32(), RuntimeSettings("litert"))
    for ours, theirs in zip(run(float32_onnx()), session.run(pixels(3)), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_left_alone_it_computes_in_float32_whatever_the_cpu_can_do():
    assert executed(float32_onnx(), SETTINGS) == {"float32": 1.0}
    assert precision("float32") == SETTINGS


@pytest.mark.parametrize("name", PRECISIONS[1:])
def test_half_precision_is_executed_where_the_cpu_has_it_and_told_where_not(name):
    halves = set(executed(float32_onnx(), precision(name))) - {"float32"}
    # A CPU that has bfloat16 alone takes it for float16, too.
    assert halves <= {name, "bfloat16"}
    error = np.abs(run(float32_onnx(), precision(name))[1] - run(float32_onnx())[1]).max()
    assert (error > 1e-5) == bool(halves)
    assert error < 0.08


def test_integers_are_executed_in_every_precision():
    for name in PRECISIONS:
        assert executed(int8_archive(), precision(name)) == {"int8": 1.0}


def test_images_are_prepared_as_planes_of_floats():
    session = OpenVINOSession(float32_onnx(), SETTINGS)
    prepared = session.prepare(pixels(1)).data
    assert (prepared.dtype, prepared.shape) == (np.float32, (1, 3, 96, 96))
    np.testing.assert_array_equal(prepared[0, 2], pixels(1)[0, :, :, 2] / np.float32(127.5) - 1)


def test_outputs_outlive_the_next_inference_and_the_session():
    session = OpenVINOSession(float32_onnx(), SETTINGS)
    session.infer(session.prepare(pixels(2)[:1]))
    boxes, scores = session.outputs()
    before = scores.copy()
    session.infer(session.prepare(pixels(2)[1:]))
    assert (session.outputs()[1] != before).any()
    session.close()
    np.testing.assert_array_equal(scores, before)
    assert np.isfinite(boxes).all()


def test_a_wrong_image_fails():
    session = OpenVINOSession(float32_onnx(), SETTINGS)
    with pytest.raises(InferenceFailed, match=r"OpenVINO failed: .*shape"):
        session.infer(session.prepare(np.zeros((1, 64, 64, 3), np.uint8)))


def test_runs_are_equal_to_the_bit_and_threads_change_nothing_much():
    np.testing.assert_array_equal(run(int8_archive())[1], run(int8_archive())[1])
    np.testing.assert_allclose(
        run(float32_onnx(), RuntimeSettings("openvino", 2))[1], run(float32_onnx())[1], atol=1e-5
    )


def nanoseconds() -> dict[str, int]:
    """CPU time of each thread of this process."""
    return {path.parent.name: int(path.read_text().split()[0]) for path in Path("/proc/self/task").glob("*/schedstat")}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
@pytest.mark.parametrize("threads", [1, 2])
def test_as_many_threads_work_as_it_is_told(threads):
    session = OpenVINOSession(float32_onnx(depth_multiplier=1.0), RuntimeSettings("openvino", threads))
    prepared = session.prepare(pixels(1))
    before, end = nanoseconds(), time.monotonic() + 0.7
    while time.monotonic() < end:
        session.infer(prepared)
    spent = [after - before.get(thread, 0) for thread, after in nanoseconds().items()]
    # On a busy machine the first thread has done most of the work before the second one is awake.
    assert sum(share > 0.01 * sum(spent) for share in spent) == threads


def test_threads_sleep_between_inferences():
    session = OpenVINOSession(float32_onnx(), RuntimeSettings("openvino", 2))
    session.infer(session.prepare(pixels(1)))
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1


def foreign_onnx() -> bytes:
    """A whole .onnx file that is no detector."""
    import onnx
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", ends[:1], ends[1:])
    return onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()


@pytest.mark.parametrize(
    "make_data",
    [
        lambda: b"",
        lambda: b"no model",
        tiny_float32,
        foreign_onnx,
        lambda: float32_onnx()[:1000],
        lambda: float32_onnx()[:-1000],
        lambda: float32_onnx()[:5000] + b"\xff" * 5000 + float32_onnx()[10000:],
        lambda: int8_archive()[:-1000],
        lambda: int8_archive()[:100],
    ],
    ids=["empty", "text", "tflite", "not a detector", "the start", "cut", "overwritten", "cut archive", "its start"],
)
def test_what_is_no_detector_is_unreadable_in_one_line(make_data, capfd):
    data = make_data()
    capfd.readouterr()
    with pytest.raises(ArtifactUnreadable) as caught:
        OpenVINOSession(data, SETTINGS)
    assert len(str(caught.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


def test_inference_imports_no_framework_and_calls_nobody(tmp_path):
    """Its import would leave its mark in the home folder and report itself to Google Analytics."""
    model, home = tmp_path / "model.onnx", tmp_path / "home"
    model.write_bytes(float32_onnx())
    home.mkdir()
    script = f"""
import sys
from pathlib import Path
import numpy as np
from tasks.runtimes.base import runtime_of
from tasks.types import RuntimeSettings
session = runtime_of("openvino").open(Path({str(model)!r}).read_bytes(), RuntimeSettings("openvino"))
session.run(np.zeros((1, 96, 96, 3), np.uint8))
print([name for name in ("torch", "tensorflow", "onnx", "nncf", "openvino_telemetry") if sys.modules.get(name)])
"""
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert list(home.iterdir()) == []
