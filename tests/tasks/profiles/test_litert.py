"""LiteRT's profiles: each operator of the file, with what executes it, and times that belong together."""

import functools
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.errors import ArtifactUnreadable
from tasks.latency.profiling import profile as profile_in_fresh_process
from tasks.profiles.litert import PREFIXES, PROFILER, delegated_operators, profile, typical
from tasks.profiles.litert_library import ProfiledModel
from tasks.profiles.litert_matching import matched
from tasks.profiles.litert_operators import execution_order, operators_of
from tasks.profiles.litert_prefixes import cut, cuts, isotonic
from tasks.quantize.artifact import make
from tasks.quantize.audit import audit
from tasks.quantize.flatbuffer import read
from tasks.quantize.observe import observe
from tasks.quantize.schemes import (
    DynamicInt8,
    Float32,
    Scheme,
    StaticInt4,
    StaticInt8,
    StaticInt8x16,
    WeightOnlyInt8,
)
from tasks.quantize.statistics import Statistics, merge
from tasks.runtimes.base import input_table
from tasks.runtimes.litert import LiteRTSession
from tasks.types import OperatorTime, Profile, RuntimeSettings
from tests.tasks.runtimes.tiny_detector import pixels, tiny_detector, tiny_float32

SETTINGS = RuntimeSettings("litert", 1)
INT8 = StaticInt8(calibration_images=2)
INT8_INSIDE_OUT = StaticInt8(calibration_images=2, input_type="uint8", output_type="int8")
INT8X16 = StaticInt8x16(calibration_images=2)
INT4 = StaticInt4(toolchain="litert_quantizer", calibration_images=2)
DYNAMIC = DynamicInt8(toolchain="litert_quantizer")
MIXED = DynamicInt8()
WEIGHT_ONLY = WeightOnlyInt8(toolchain="litert_quantizer")
SCHEMES: tuple[Scheme, ...] = (Float32(), INT8, INT8_INSIDE_OUT, INT8X16, INT4, DYNAMIC, MIXED, WEIGHT_ONLY)

every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: f"{scheme.name}-{SCHEMES.index(scheme)}")


@functools.cache
def statistics() -> Statistics:
    return merge(*observe(tiny_float32(), pixels(2), ["one", "two"]))


@functools.cache
def built(scheme: Scheme) -> bytes:
    if isinstance(scheme, Float32):
        return tiny_float32()
    return make(tiny_detector(), scheme, tiny_float32(), statistics() if scheme.is_calibrated else None)


@functools.cache
def taken(scheme: Scheme) -> Profile:
    return profile(built(scheme), SETTINGS, pixels(2), 0.3)


def interpreted(data: bytes, **options: bool) -> tuple[Any, np.ndarray]:
    """An interpreter that has run an image, and the image as it took it."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=1, **options)
    interpreter.allocate_tensors()
    feed = interpreter.get_input_details()[0]
    scale, zero_point = feed["quantization"]
    prepared = input_table(np.dtype(feed["dtype"]), scale or 1.0, zero_point)[pixels(1)]
    interpreter.set_tensor(feed["index"], prepared)
    interpreter.invoke()
    return interpreter, prepared


def convolutions(found: Profile) -> list[OperatorTime]:
    return [item for item in found.operators if item.role == "convolution"]


@every_scheme
def test_every_layer_is_executed_once(scheme: Scheme) -> None:
    found = [(item.layer, item.macs) for item in convolutions(taken(scheme))]
    assert sorted(found) == sorted((layer.name, layer.macs) for layer in layers(tiny_detector().spec))


@every_scheme
def test_arithmetic_is_that_of_the_audit(scheme: Scheme) -> None:
    expected = audit(built(scheme)).layers
    assert {item.layer: item.arithmetic for item in convolutions(taken(scheme))} == expected


@every_scheme
def test_times_are_those_of_one_inference(scheme: Scheme) -> None:
    found = taken(scheme)
    assert all(item.time_ms >= 0 for item in found.operators)
    # Loose, since operators and whole inferences are timed apart, maybe on a busy machine.
    assert 0.3 < sum(item.time_ms for item in found.operators) / found.total_ms < 2
    assert found.repeats >= 3
    assert found.method == PROFILER


@every_scheme
def test_all_operators_of_the_file_but_constant_ones_are_there(scheme: Scheme) -> None:
    operators = operators_of(built(scheme))
    found = taken(scheme).operators
    names = [item.name for item in found]
    assert len(set(names)) == len(names)
    extra = [item for item in found if item.name not in {operator.name for operator in operators}]
    assert {item.operator for item in extra} <= {"Convert"}
    assert {item.name for item in found if item not in extra} == {
        operator.name for operator in operators if not operator.is_constant
    }


@every_scheme
def test_operators_stand_after_those_whose_outputs_they_read(scheme: Scheme) -> None:
    graph, operators = read(built(scheme)).subgraphs[0], operators_of(built(scheme))
    places = {item.name: place for place, item in enumerate(taken(scheme).operators)}
    done_at = {
        int(index): places.get(operators[place].name, -1)
        for place, operator in enumerate(graph.operators)
        for index in operator.outputs
    }
    for place, operator in enumerate(graph.operators):
        at = places.get(operators[place].name, len(places))
        assert all(done_at.get(int(index), -1) < at for index in operator.inputs)


@every_scheme
def test_the_profiled_model_is_executed_as_the_measured_one(scheme: Scheme) -> None:
    data, operators = built(scheme), operators_of(built(scheme))
    measured, prepared = interpreted(data)
    with ProfiledModel(data, 1) as model:
        executions = model.run(prepared)
        outputs = model.outputs()
    left = {item.index for item in executions if item.index is not None}
    folded = {operator.index for operator in operators if operator.is_constant}
    assert left == set(range(len(operators))) - delegated_operators(data) - folded
    assert [measured.get_tensor(item["index"]).tobytes() for item in measured.get_output_details()] == list(outputs)


def test_16_bit_activations_run_on_reference_kernels() -> None:
    found = taken(INT8X16)
    assert {item.kernel for item in convolutions(found)} == {"reference"}
    assert all(item.is_fallback for item in convolutions(found))
    assert found.fallback_share > 0.5
    # The file's two ends, and the heads' outputs that are brought to one scale.
    assert {item.operator for item in found.operators if item.role == "conversion"} == {"QUANTIZE", "DEQUANTIZE"}


def test_8_bit_activations_run_in_xnnpack() -> None:
    found = taken(INT8)
    assert all(item.kernel.startswith("XNNPACK ") for item in convolutions(found))
    assert found.fallback_share == 0


def test_a_float_input_of_an_integer_artifact_is_converted() -> None:
    found = taken(INT8)
    conversions = [item for item in found.operators if item.role == "conversion"]
    assert [(item.operator, item.arithmetic) for item in conversions] == [
        ("QUANTIZE", "int8"),
        ("DEQUANTIZE", "float32"),
        ("DEQUANTIZE", "float32"),
    ]
    assert all("Convert" in item.kernel for item in conversions)


def test_what_the_delegate_leaves_runs_on_builtin_kernels() -> None:
    found = {item.layer: item.kernel for item in convolutions(taken(INT4))}
    # XNNPACK has no convolutions of 4-bit weights; depthwise ones have 8 bits.
    assert found["Conv2d_3_pointwise"] == "builtin"
    assert found["Conv2d_3_depthwise"].startswith("XNNPACK ")


def test_weights_that_are_turned_into_floats_fall_back() -> None:
    found = taken(WEIGHT_ONLY)
    assert all(item.is_fallback and "F32" in item.kernel for item in convolutions(found))
    assert "DEQUANTIZE" not in {item.operator for item in found.operators}


def test_activations_that_are_quantized_at_each_inference_are_conversions_of_their_layer() -> None:
    extra = [item for item in taken(DYNAMIC).operators if item.operator == "Convert"]
    assert extra
    assert all((item.role, item.arithmetic, item.macs) == ("conversion", "int8", 0) for item in extra)
    assert all(item.layer and "depthwise" not in item.layer for item in extra)


def test_profiles_are_taken_in_fresh_processes_with_several_threads() -> None:
    found = profile_in_fresh_process(built(INT8), RuntimeSettings("litert", 2), pixels(1), seconds=0.2)
    assert [item.name for item in found.operators] == [item.name for item in taken(INT8).operators]


@pytest.mark.parametrize("scheme", [INT8, INT4], ids=lambda scheme: scheme.name)
def test_the_profiled_model_has_the_threads_of_the_measured_one(scheme: Scheme) -> None:
    """XNNPACK's own and those of the built-in kernels, which convolve 4-bit weights, are told apart by LiteRT."""
    process, settings = psutil.Process(), RuntimeSettings("litert", 3)
    start = process.num_threads()
    session = LiteRTSession(built(scheme), settings)
    prepared = session.prepare(pixels(1))
    session.infer(prepared)
    middle = process.num_threads()
    with ProfiledModel(built(scheme), settings.threads) as model:
        model.run(prepared)
        assert process.num_threads() - middle == middle - start > 0
    session.close()


def test_damaged_artifacts_are_refused() -> None:
    with pytest.raises(ArtifactUnreadable):
        profile(tiny_float32()[:5000], SETTINGS, pixels(1), 0.1)


@pytest.mark.parametrize("scheme", [Float32(), INT8, INT8X16], ids=lambda scheme: scheme.name)
def test_a_cut_graph_computes_what_the_whole_graph_does(scheme: Scheme) -> None:
    data, model = built(scheme), read(built(scheme))
    with pytest.warns(UserWarning, match="preserve_all_tensors"):
        whole, _ = interpreted(data, experimental_preserve_all_tensors=True)
    places = cuts(model)
    assert places[-1] == len(model.subgraphs[0].operators) - 1
    for place in places:
        index = int(model.subgraphs[0].operators[place].outputs[0])
        short, _ = interpreted(cut(data, place + 1))
        assert np.array_equal(short.get_tensor(index), whole.get_tensor(index))


@pytest.mark.parametrize("scheme", [INT8, WEIGHT_ONLY], ids=lambda scheme: scheme.name)
def test_prefixes_serve_where_the_profiler_is_not_known(scheme: Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.profiles.litert_library._VERSION", "1.0")
    found, other = profile(built(scheme), SETTINGS, pixels(1), 0.1), taken(scheme)
    assert found.method == PREFIXES
    assert found.repeats >= 2
    assert sum(item.time_ms for item in found.operators) == pytest.approx(found.total_ms)
    assert min(item.time_ms for item in found.operators) >= 0
    assert sorted((item.name, item.kernel.split()[0]) for item in found.operators) == sorted(
        (item.name, item.kernel.split()[0]) for item in other.operators
    )


def test_the_nearest_rising_curve() -> None:
    assert isotonic(np.array([1.0, 3.0, 2.0, 4.0])).tolist() == [1, 2.5, 2.5, 4]
    assert isotonic(np.array([-1.0, 2.0])).tolist() == [0, 2]


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=30))
def test_a_rising_curve_rises_and_keeps_its_sum(values: list[float]) -> None:
    rising = isotonic(np.array(values))
    assert (np.diff(rising) >= 0).all()
    assert rising.sum() == pytest.approx(sum(values))


@given(st.integers(3, 40), st.integers(0, 1000))
def test_typical_times_add_up_to_a_typical_inference(inferences: int, seed: int) -> None:
    times = np.random.default_rng(seed).exponential(size=(inferences, 5))
    sums = times.sum(axis=1)
    assert sums.min() <= sum(typical(times)) <= sums.max()
    times[0] *= 1e6
    assert inferences < 4 or sum(typical(times)) < 1e3


def test_matching_skips_what_has_no_partner_on_either_side() -> None:
    kinds = ["Convert (NC, F32, QD8)", "Convolution (NHWC) IGEMM", "Static Reshape (NC)", "Sigmoid (NC)", "Unheard of"]
    assert matched(kinds, ["CONV_2D", "MEAN", "RESHAPE", "LOGISTIC"]) == [(1, 0), (2, 2), (3, 3)]
    assert matched(kinds, []) == []


def test_parts_of_a_delegate_are_as_large_as_what_is_ready_allows() -> None:
    model = read(built(INT8))
    kinds = [operator.operator for operator in operators_of(built(INT8))]
    builtin = {index for index, kind in enumerate(kinds) if kind == "CONCATENATION"}
    order = execution_order(model, builtin)
    assert sorted(order) == list(range(len(kinds)))
    # The first part goes on to the last head; the ends of both outputs follow when both are joined.
    assert [kinds[index] for index in order[-5:]] == ["CONCATENATION"] * 2 + ["DEQUANTIZE", "LOGISTIC", "DEQUANTIZE"]
