"""What is particular to ONNX Runtime: what it really executes, its options, and damaged files."""

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tasks.errors import ArtifactUnreadable, InferenceFailed
from tasks.quantize.artifact import make
from tasks.quantize.onnx_export import export
from tasks.quantize.schemes import DynamicInt8, StaticInt8
from tasks.runtimes.base import runtime_of
from tests.tasks.runtimes.tiny_detector import pixels, tiny_detector

RUNTIME = runtime_of("onnxruntime")
LEVELS = RUNTIME.options[0].choices


@functools.cache
def float32() -> bytes:
    return export(tiny_detector())


@functools.cache
def int8(**axes: str) -> bytes:
    return make(tiny_detector(), StaticInt8(toolchain="onnxruntime", range_estimator="fixed", **axes), float32())


@functools.cache
def dynamic() -> bytes:
    return make(tiny_detector(), DynamicInt8(toolchain="onnxruntime", granularity="per_tensor"), float32())


def run(data: bytes, images: np.ndarray, threads: int = 1, **options: str):
    session = RUNTIME.open(data, RUNTIME.settings(threads, **options))
    try:
        return session.run(images)
    finally:
        session.close()


def test_float32_is_executed_in_float32_at_every_level():
    for level in LEVELS:
        assert RUNTIME.executed(float32(), RUNTIME.settings(graph_optimization=level)) == {"float32": 1.0}


@pytest.mark.parametrize("level,arithmetic", [("all", "int8"), ("extended", "int8"), ("disabled", "float32")])
def test_int8_is_executed_on_integers_only_when_the_graph_is_rewritten(level, arithmetic):
    assert RUNTIME.executed(int8(), RUNTIME.settings(graph_optimization=level)) == {arithmetic: 1.0}


def test_dynamic_int8_is_executed_on_integers_at_every_level():
    for level in LEVELS:
        assert RUNTIME.executed(dynamic(), RUNTIME.settings(graph_optimization=level)) == {"dynamic_int8": 1.0}


def test_a_layer_kept_in_float_is_executed_in_float():
    shares = RUNTIME.executed(int8(keep_float="Conv2d_0"), RUNTIME.settings())
    assert shares.keys() == {"int8", "float32"}
    assert 0 < shares["float32"] < 0.2


def test_the_shares_executed_add_up_whatever_the_type_of_activations():
    shares = RUNTIME.executed(int8(activation_type="int8"), RUNTIME.settings())
    assert sum(shares.values()) == pytest.approx(1)
    assert shares.keys() <= {"int8", "float32"}


@pytest.mark.parametrize("level", LEVELS)
def test_rewriting_does_not_change_what_float32_finds(level):
    for usual, other in zip(
        run(float32(), pixels(2)), run(float32(), pixels(2), graph_optimization=level), strict=True
    ):
        np.testing.assert_allclose(usual, other, atol=1e-4)


def test_rewriting_changes_int8_by_rounding_alone():
    for usual, other in zip(run(int8(), pixels(2)), run(int8(), pixels(2), graph_optimization="disabled"), strict=True):
        assert np.corrcoef(usual.ravel(), other.ravel())[0, 1] > 0.99


def test_exact_products_are_those_of_fast_ones_where_neither_saturates():
    """Per-tensor weights of a random detector hardly ever make a pair of products that 16 bits cannot hold."""
    fast, exact = (
        run(int8(granularity="per_tensor"), pixels(2), integer_precision=precision) for precision in ("fast", "exact")
    )
    for one, other in zip(fast, exact, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.99


def test_exact_products_are_executed_on_integers():
    assert RUNTIME.executed(int8(), RUNTIME.settings(integer_precision="exact")) == {"int8": 1.0}


def test_an_unknown_level_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="all, extended, basic, disabled"):
        RUNTIME.settings(graph_optimization="most")


def test_threads_do_not_change_the_outputs():
    for one, two in zip(run(float32(), pixels(2)), run(float32(), pixels(2), threads=2), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def test_outputs_outlive_the_next_inference():
    session = RUNTIME.open(float32(), RUNTIME.settings())
    images = [session.prepare(pixels(2)[index : index + 1]) for index in range(2)]
    session.infer(images[0])
    first = session.outputs()[1]
    kept = first.copy()
    session.infer(images[1])
    assert (session.outputs()[1] != kept).any()
    np.testing.assert_array_equal(first, kept)
    session.close()


def test_the_input_is_planar_and_spans_minus_one_to_one():
    session = RUNTIME.open(float32(), RUNTIME.settings())
    (prepared,) = session.prepare(pixels(1)).values()
    assert prepared.flags.c_contiguous and prepared.dtype == np.float32
    np.testing.assert_allclose(prepared[0].transpose(1, 2, 0), pixels(1)[0] / 127.5 - 1, atol=1e-6)
    session.close()


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_unreadable_and_does_not_crash(share):
    data = int8()
    with pytest.raises(ArtifactUnreadable):
        run(data[: int(len(data) * share)], pixels(1))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04" + bytes(100), b"not a graph", b"\x1c\x00\x00\x00TFL3" + bytes(64)])
def test_a_foreign_file_is_unreadable(data):
    with pytest.raises(ArtifactUnreadable):
        run(data, pixels(1))
    with pytest.raises(ArtifactUnreadable):
        RUNTIME.executed(data, RUNTIME.settings())


def test_a_graph_that_is_no_detector_is_unreadable():
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("images", "scores")]
    graph = helper.make_graph([helper.make_node("Relu", ["images"], ["scores"])], "other", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(ArtifactUnreadable, match="not a detector"):
        run(model.SerializeToString(), pixels(1))


def test_images_of_another_size_fail_as_inference():
    with pytest.raises(InferenceFailed):
        run(float32(), np.zeros((1, 32, 32, 3), np.uint8))


def test_nothing_is_written_to_the_terminal_even_about_damaged_files(capfd):
    run(int8(), pixels(1))
    RUNTIME.executed(int8(), RUNTIME.settings())
    with pytest.raises(ArtifactUnreadable):
        run(float32()[:-100], pixels(1))
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_damaged_files_are_unreadable_or_run_but_crash_and_print_nothing(capfd):
    random, unreadable = np.random.default_rng(0), 0
    for _ in range(60):
        damaged = bytearray(int8())
        for place in random.integers(0, 3000, 3):
            damaged[place] = int(random.integers(0, 256))
        try:
            run(bytes(damaged), pixels(1))
        except (ArtifactUnreadable, InferenceFailed):
            unreadable += 1
    captured = capfd.readouterr()
    assert unreadable and (captured.out, captured.err) == ("", "")


def test_a_fresh_process_needs_neither_torch_nor_tensorflow_nor_onnx(tmp_path):
    (tmp_path / "artifact").write_bytes(int8())
    program = (
        "import sys, pathlib, numpy; from tasks.runtimes.base import runtime_of; runtime = runtime_of('onnxruntime');"
        "session = runtime.open(pathlib.Path(sys.argv[1]).read_bytes(), runtime.settings());"
        "session.run(numpy.zeros((1, 96, 96, 3), numpy.uint8));"
        "print(sorted({'torch', 'tensorflow', 'onnx'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "artifact")],
        cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.strip() == "[]"


def test_the_stored_graph_is_left_as_it_is():
    data = int8()
    before = onnx.load_from_string(data)
    RUNTIME.executed(data, RUNTIME.settings())
    assert onnx.load_from_string(data) == before
