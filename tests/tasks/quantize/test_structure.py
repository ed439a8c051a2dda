"""The structure of an artifact is what its latency depends on, and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.quantize.artifact import make
from tasks.quantize.builders import builder_of
from tasks.quantize.flatbuffer import element_type, read, write
from tasks.quantize.formats.base import format_of
from tasks.quantize.observe import observe
from tasks.quantize.schemes import (
    DynamicInt4,
    Float32,
    Qat,
    Scheme,
    StaticInt4,
    StaticInt8,
    StaticInt8x16,
    WeightOnlyInt4,
)
from tasks.quantize.statistics import merge
from tasks.quantize.structure import structure_sha256
from tests.tasks.quantize.conftest import small_detector
from tests.tasks.quantize.test_schemes_are_kept import PLAIN, name_of

LIBRARY: Any = "litert_quantizer"
CALIBRATED: list[Any] = [
    StaticInt8(calibration_images=4),
    StaticInt8x16(calibration_images=4),
    StaticInt8(toolchain=LIBRARY, calibration_images=4),
    StaticInt4(calibration_images=4),
    StaticInt8x16(toolchain=LIBRARY, calibration_images=4),
]
FOUR_BITS: list[Any] = [DynamicInt4(), WeightOnlyInt4(), StaticInt4(calibration_images=4)]
"""Where clipping weights pays, so that each algorithm chooses a range of its own."""


@pytest.mark.parametrize("scheme", CALIBRATED, ids=name_of)
def test_calibration_is_no_part_of_it(scheme: Any, built: Callable[[Scheme], bytes]) -> None:
    few, many = built(replace(scheme, calibration_images=2)), built(scheme)
    assert few != many
    assert structure_sha256(few) == structure_sha256(many)


@pytest.mark.parametrize("estimator", ["percentile_99", "mse", "entropy", "fixed"])
@pytest.mark.parametrize("scheme", CALIBRATED[2:4], ids=name_of)
def test_the_range_estimator_is_no_part_of_it(scheme: Any, estimator: str, built: Callable[[Scheme], bytes]) -> None:
    other = built(replace(scheme, range_estimator=estimator))
    assert other != built(scheme)
    assert structure_sha256(other) == structure_sha256(built(scheme))


@pytest.mark.parametrize("algorithm", ["mse", "octav"])
@pytest.mark.parametrize("scheme", FOUR_BITS, ids=name_of)
def test_the_weight_algorithm_is_no_part_of_it(scheme: Any, algorithm: str, built: Callable[[Scheme], bytes]) -> None:
    other = built(replace(scheme, weight_algorithm=algorithm))
    assert other != built(scheme)
    assert structure_sha256(other) == structure_sha256(built(scheme))


def test_zero_points_are_no_part_of_it(built: Callable[[Scheme], bytes]) -> None:
    symmetric = built(replace(CALIBRATED[2], symmetry="symmetric"))
    assert symmetric != built(CALIBRATED[2])
    assert structure_sha256(symmetric) == structure_sha256(built(CALIBRATED[2]))


@pytest.mark.parametrize("transform", ["clustered_4", "binary"])
@pytest.mark.parametrize("scheme", [CALIBRATED[0], CALIBRATED[2]], ids=name_of)
def test_the_values_of_weights_are_no_part_of_it(scheme: Any, transform: str, built: Callable[[Scheme], bytes]) -> None:
    assert structure_sha256(built(replace(scheme, transform=transform))) == structure_sha256(built(scheme))


def test_another_detector_of_the_same_architecture_has_the_same(
    pixels: np.ndarray, built: Callable[[Scheme], bytes]
) -> None:
    other = small_detector(seed=5)
    source = make(other, Float32())
    statistics = merge(*observe(source, pixels, ["a", "b", "c", "d"]))
    for scheme in CALIBRATED[:3]:
        assert structure_sha256(make(other, scheme, source, statistics)) == structure_sha256(built(scheme))


@pytest.mark.parametrize("scheme", CALIBRATED[:1] + CALIBRATED[2:4], ids=name_of)
def test_axes_that_change_the_graph_are(scheme: Any, built: Callable[[Scheme], bytes]) -> None:
    changes: list[dict[str, str]] = [{}, {"granularity": "per_tensor"}, {"keep_float": "Conv2d_0"}]
    changes += [{"keep_float": "BoxPredictor_0_boxes"}]
    if isinstance(scheme, StaticInt8):
        changes += [{"input_type": "int8"}, {"input_type": "uint8"}, {"output_type": "int8"}]
    assert len({structure_sha256(built(replace(scheme, **change))) for change in changes}) == len(changes)


@pytest.mark.slow
def test_schemes_and_toolchains_are_unless_one_is_the_other_trained(built: Callable[[Scheme], bytes]) -> None:
    found: dict[str, set[tuple[str, str]]] = {}
    for scheme in PLAIN:
        form = format_of(builder_of(scheme).format)
        found.setdefault(form.structure(built(scheme)), set()).add((scheme.toolchain, scheme.name))
    trained = [(scheme.toolchain, scheme.name) for scheme in PLAIN if isinstance(scheme, Qat)]
    twins = [{(toolchain, name), (toolchain, name.replace("qat", "static"))} for toolchain, name in trained]
    assert len(twins) == 5
    assert sorted(map(sorted, twins)) == sorted(sorted(names) for names in found.values() if len(names) > 1)


def change(data: bytes, edit: Callable[[Any], None]) -> bytes:
    model = read(data)
    edit(model)
    return write(model)


def rename(model: Any) -> None:
    for number, tensor in enumerate(model.subgraphs[0].tensors):
        tensor.name = f"tensor {number}"
    model.description = "another tool"
    model.metadata, model.metadataBuffer = None, None


def reverse_buffers(model: Any) -> None:
    count = len(model.buffers)
    model.buffers = [model.buffers[0], *reversed(model.buffers[1:])]
    for tensor in model.subgraphs[0].tensors:
        tensor.buffer = count - tensor.buffer if tensor.buffer else 0
    model.metadata = None


def reverse_tensors(model: Any) -> None:
    graph = model.subgraphs[0]
    last = len(graph.tensors) - 1
    graph.tensors = graph.tensors[::-1]
    graph.inputs, graph.outputs = ([last - index for index in indices] for indices in (graph.inputs, graph.outputs))
    for operator in graph.operators:
        operator.inputs = [last - index for index in operator.inputs]
        operator.outputs = [last - index for index in operator.outputs]
    for entry in (*model.signatureDefs[0].inputs, *model.signatureDefs[0].outputs):
        entry.tensorIndex = last - entry.tensorIndex


@pytest.mark.parametrize("edit", [rename, reverse_buffers, reverse_tensors])
def test_names_and_order_of_storage_are_no_part_of_it(
    built: Callable[[Scheme], bytes], edit: Callable[[Any], None]
) -> None:
    data = built(Float32())
    changed = change(data, edit)
    assert changed != data
    assert structure_sha256(changed) == structure_sha256(data)


def change_stride(model: Any) -> None:
    model.subgraphs[0].operators[0].builtinOptions.strideW += 1


def change_activation(model: Any) -> None:
    model.subgraphs[0].operators[0].builtinOptions.fusedActivationFunction = 0


def change_shape_constant(model: Any) -> None:
    tensor = next(tensor for tensor in model.subgraphs[0].tensors if element_type(tensor) == "int32")
    stored = model.buffers[tensor.buffer]
    stored.data = np.frombuffer(np.frombuffer(bytes(stored.data), np.int32)[::-1].tobytes(), np.uint8)


def change_wiring(model: Any) -> None:
    joined = next(operator for operator in model.subgraphs[0].operators if len(operator.inputs) == 6)
    joined.inputs = joined.inputs[::-1]


@pytest.mark.parametrize("edit", [change_stride, change_activation, change_shape_constant, change_wiring])
def test_options_shapes_and_wiring_are(built: Callable[[Scheme], bytes], edit: Callable[[Any], None]) -> None:
    # LiteRT itself refuses some of these graphs only when it is asked to run them.
    data = built(Float32())
    assert structure_sha256(change(data, edit)) != structure_sha256(data)
