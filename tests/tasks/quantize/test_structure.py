"""The structure of an artifact is what its latency depends on, and nothing else."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tasks.quantize.builders import builder_of
from tasks.quantize.flatbuffer import element_type, read, write
from tasks.quantize.ranges import Ranges, calibrate
from tasks.quantize.schemes import Float32, Scheme, StaticInt8
from tasks.quantize.structure import structure_sha256
from tests.tasks.quantize.conftest import small_detector
from tests.tasks.quantize.test_schemes_are_kept import SCHEMES

TOOLCHAINS = ("converter", "litert_quantizer")


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_calibration_is_no_part_of_it(toolchain: Any, built: Callable[[Scheme], bytes]) -> None:
    few, many = (built(StaticInt8(toolchain, calibration_images=size)) for size in (2, 4))
    assert few != many
    assert structure_sha256(few) == structure_sha256(many)


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_weights_are_no_part_of_it(toolchain: Any, built: Callable[[Scheme], bytes], pixels: np.ndarray) -> None:
    other, scheme = small_detector(seed=5), StaticInt8(toolchain, calibration_images=4)
    ranges: Ranges = calibrate(other, pixels, (4,))[4]
    assert structure_sha256(builder_of(scheme).build(other, scheme, ranges)) == structure_sha256(built(scheme))


def test_schemes_and_granularities_are(built: Callable[[Scheme], bytes]) -> None:
    assert len({structure_sha256(built(scheme)) for scheme in SCHEMES}) == len(SCHEMES)


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
