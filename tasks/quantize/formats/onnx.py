"""The format `onnx`: graphs that ONNX Runtime and OpenVINO run."""

from collections import Counter
from typing import Any

import numpy as np

from tasks.errors import ArtifactUnreadable
from tasks.identity import key_of
from tasks.quantize.formats.base import Format, register, shares
from tasks.quantize.onnx_graph import Graph
from tasks.quantize.stored_weights import codebook_size
from tasks.types import Audit

_STEERING = {"Clip": (1, 2), "Reshape": (1,)}
"""Inputs whose constants steer an operator. All other constants are trained, or follow from calibration."""


def audit(data: bytes) -> Audit:
    """Reads an artifact back, without running it.

    Args:
        data: Content of a .onnx file.

    Returns:
        What it holds. A layer is `int8` if activations, weights, bias and output are integers around its Conv, so that
        a runtime may execute it on them; whether one does is for `Runtime.executed` to say.

    Raises:
        ArtifactUnreadable: If the content is not a whole .onnx file of static shapes with one input.
        AuditMismatch: If a convolution has weights that are not constant.
    """
    graph = Graph(data)
    if len(graph.graph.input) != 1:
        raise ArtifactUnreadable(f"the artifact is not a detector: it has {len(graph.graph.input)} inputs")
    found = graph.convolutions()
    names = [convolution.layer for convolution in found]
    macs, weights = Counter[str](), Counter[str]()
    for convolution in found:
        macs[convolution.arithmetic] += convolution.macs
        weights[convolution.stored] += convolution.weights.size
    granularities = {convolution.granularity for convolution in found} - {None}
    symmetries = {convolution.symmetric for convolution in found} - {None}
    return Audit(
        mac_share=shares(macs),
        weight_share=shares(weights),
        granularity="mixed" if len(granularities) > 1 else next(iter(granularities), None),
        operators=dict(sorted(Counter(node.op_type for node in graph.graph.node).items())),
        macs=macs.total(),
        input_type=_element_type(graph.graph.input[0]),
        output_types={item.name: _element_type(item) for item in graph.graph.output},
        layers={name: item.arithmetic for name, item in zip(names, found, strict=True) if name}
        if None not in names and len(set(names)) == len(names)
        else {},
        codebook_size=codebook_size(item.by_channel for item in found if not item.is_depthwise),
        symmetric_activations=False not in symmetries if symmetries else None,
    )


def structure_sha256(data: bytes) -> str:
    """Hashes the graph of an artifact without its values.

    In: operators in order with their attributes, which tensors each one joins, the shapes and element types of
    constants and of inputs and outputs, the bounds of Clip and the shapes that Reshape makes. Out: weights, biases,
    scales, zero points and caps, and all names.

    Args:
        data: Content of a .onnx file.

    Returns:
        64 hexadecimal digits, equal for artifacts that differ in calibration or training only.

    Raises:
        ArtifactUnreadable: If the content is not a whole .onnx file.
    """
    graph = Graph(data)
    numbers = _numbers(graph)
    steering = {
        node.input[position]
        for node in graph.graph.node
        for position in _STEERING.get(node.op_type, ())
        if position < len(node.input)
    }
    nodes = [
        [
            node.domain,
            node.op_type,
            sorted(_attribute(item) for item in node.attribute),
            [numbers[name] for name in node.input],
            [numbers[name] for name in node.output],
        ]
        for node in graph.graph.node
    ]
    constants = [_form(graph, name, name in steering) for name in numbers if name in graph.constants]
    ends = [
        [numbers[item.name], _element_type(item), [size.dim_value for size in item.type.tensor_type.shape.dim]]
        for item in (*graph.graph.input, *graph.graph.output)
    ]
    versions = sorted([item.domain, item.version] for item in graph.model.opset_import)
    return key_of("onnx", versions, nodes, constants, ends)


def _numbers(graph: Graph) -> dict[str, int]:
    """Numbers the tensors in the order in which the graph meets them; an optional input that is absent is one too."""
    met: dict[str, int] = {}
    for item in graph.graph.input:
        met.setdefault(item.name, len(met))
    for node in graph.graph.node:
        for name in (*node.input, *node.output):
            met.setdefault(name, len(met))
    return met


def _form(graph: Graph, name: str, with_value: bool) -> list[Any]:
    values = graph.constant(name)
    assert values is not None
    return [name in graph.constants, str(values.dtype), list(values.shape), values.tolist() if with_value else None]


def _attribute(item: Any) -> list[str]:
    import onnx

    value = onnx.helper.get_attribute_value(item)
    return [item.name, repr(np.asarray(value).tolist()) if not isinstance(value, bytes) else value.decode("latin-1")]


def _element_type(item: Any) -> str:
    import onnx

    return str(onnx.helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type))


register(Format("onnx", audit, structure_sha256))
