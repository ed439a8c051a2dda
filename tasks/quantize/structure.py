"""Structure: what an artifact's latency depends on, as one hash."""

from typing import Any

import numpy as np

from tasks.identity import key_of
from tasks.quantize.flatbuffer import constant, element_type, operator_name, read, scales, whole
from tasks.quantize.kernels import kernels


def structure_sha256(data: bytes) -> str:
    """Hashes the graph of an artifact without its values.

    In: operators in order with their options, which tensors each one joins, shapes, element types, number of scales
    and their axis, and small integer constants such as shapes, paddings and axes. Out: weights, biases, scales, zero
    points, ranges, and the names and order of tensors and buffers.

    Args:
        data: Content of a .tflite file.

    Returns:
        64 hexadecimal digits, equal for artifacts that differ in calibration or training only.

    Raises:
        ArtifactUnreadable: If the content is not a whole .tflite file.
    """
    model = read(data)
    with whole():
        return _hash(model)


def _hash(model: Any) -> str:
    graph = model.subgraphs[0]
    numbers = _numbers(graph)
    valued = _valued(model)
    operators = [
        [
            operator_name(model, operator),
            int(model.operatorCodes[operator.opcodeIndex].version),
            _options(operator),
            [numbers.get(int(index), -1) for index in operator.inputs],
            [numbers.get(int(index), -1) for index in operator.outputs],
        ]
        for operator in graph.operators
    ]
    tensors = [_form(model, graph.tensors[index], index in valued) for index in numbers]
    ends = [[numbers[int(index)] for index in indices] for indices in (graph.inputs, graph.outputs)]
    return key_of(operators, tensors, ends)


def _numbers(graph: Any) -> dict[int, int]:
    """Numbers the tensors in the order in which the graph meets them."""
    met: dict[int, int] = {}
    joined = [index for operator in graph.operators for index in (*operator.inputs, *operator.outputs)]
    for index in (*graph.inputs, *joined, *graph.outputs):
        # An optional input that is absent has the index -1.
        if int(index) >= 0:
            met.setdefault(int(index), len(met))
    return met


def _valued(model: Any) -> set[int]:
    """Indices of the constants whose values steer an operator: integers that are neither weights nor biases."""
    graph = model.subgraphs[0]
    trained = {id(tensor) for kernel in kernels(model) for tensor in (kernel.weights, kernel.bias)}
    return {
        index
        for index, tensor in enumerate(graph.tensors)
        if element_type(tensor) in ("int32", "int64", "bool")
        and id(tensor) not in trained
        and len(scales(tensor)) == 0
        and constant(model, tensor) is not None
    }


def _form(model: Any, tensor: Any, with_value: bool) -> list[Any]:
    found = len(scales(tensor))
    value = constant(model, tensor)
    return [
        element_type(tensor),
        [] if tensor.shape is None else [int(size) for size in tensor.shape],
        [found, int(tensor.quantization.quantizedDimension) if found > 1 else 0],
        value is not None,
        value.hex() if with_value and value is not None else None,
    ]


def _options(operator: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for options in (operator.builtinOptions, operator.builtinOptions2):
        if options is not None:
            found |= {name: _plain(value) for name, value in sorted(vars(options).items())}
    if operator.customOptions is not None:
        found["custom"] = bytes(bytearray(operator.customOptions)).hex()
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value
