"""torch.onnx: the float32 .onnx of a detector, which every ONNX toolchain starts from."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import Layer, layers
from tasks.detector.weights import Detector
from tasks.errors import QuantizationFailed
from tasks.quantize.builders import Builder, Material, register
from tasks.quantize.schemes import Float32

INPUT, BOXES, SCORES = "images", "boxes", "scores"
"""Names of the graph's input and outputs."""

OPSET = 20
"""Version of the operators: ONNX Runtime and OpenVINO have optimized kernels for all of this one."""

_SCOPES = "pkg.torch.onnx.name_scopes"
"""Where the exporter notes which submodule a node belongs to."""

_PARAMETERS = ("weight", "bias")


def export(detector: Detector) -> bytes:
    """Exports a detector to ONNX.

    Every convolution is one Conv node that has the canonical name of its layer and does its uneven SAME padding
    itself; its weights are `NAME.weight` and `NAME.bias`. The tensor `NAME` is the layer's output after its activation
    function, a Clip.

    Args:
        detector: Architecture and weights.

    Returns:
        Content of a .onnx file with the weights inside: `images` (1, 3, S, S) float32 RGB in [-1, 1] to `boxes`
        (1, A, 4) and `scores` (1, A, classes) float32. Equal detectors give equal bytes.

    Raises:
        QuantizationFailed: If the exporter's graph is not one Conv for each layer.
    """
    import onnx

    graph_of = _exported(detector)
    table = {layer.name: layer for layer in layers(detector.spec)}
    graph = _renamed(graph_of.graph, table)
    model = onnx.helper.make_model(
        graph,
        producer_name="quantsweep",
        ir_version=graph_of.ir_version,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _exported(detector: Detector) -> Any:
    """Returns torch's own ModelProto."""
    import torch

    from tasks.detector.torch_model import build_torch

    size = detector.spec.image_size
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            build_torch(detector),
            (torch.zeros(1, 3, size, size),),
            dynamo=True,
            input_names=[INPUT],
            output_names=[BOXES, SCORES],
            opset_version=OPSET,
            verbose=False,
        )
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps to itself what the exporter says about torchvision, which nothing here needs, and about its progress."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _renamed(exported: Any, table: dict[str, Layer]) -> Any:
    """Makes the same graph with names that tell the layers, and without notes about the exporter's source code."""
    import onnx

    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in exported.initializer}
    scopes = [_scope(node, table) for node in exported.node]
    last = {scope: index for index, scope in enumerate(scopes) if scope}
    owners, names = {INPUT: ""}, {INPUT: INPUT, BOXES: BOXES, SCORES: SCORES}
    nodes, initializers = [], []
    for index, (node, scope) in enumerate(zip(exported.node, scopes, strict=True)):
        owner = scope or _owner(node, owners)
        name = owner if node.op_type == "Conv" else f"{owner}/{node.op_type}"
        for value in node.output:
            owners[value] = owner
            names.setdefault(value, owner if last.get(owner) == index else f"{owner}/{node.op_type}:0")
        # A constant that the exporter shares between nodes gets a copy for each.
        own = {value: _constant_name(node, place, name) for place, value in enumerate(node.input) if value in constants}
        initializers += [onnx.numpy_helper.from_array(constants[value], own[value]) for value in own]
        inputs = [own.get(value) or names[value] for value in node.input]
        if node.op_type == "Conv" and len(inputs) == len(_PARAMETERS):
            # The exporter drops a bias of zeros; toolchains want to find one everywhere.
            inputs.append(f"{name}.bias")
            zeros = np.zeros(table[name].out_channels, np.float32)
            initializers.append(onnx.numpy_helper.from_array(zeros, inputs[-1]))
        made = onnx.helper.make_node(node.op_type, inputs, [names[value] for value in node.output], name)
        made.attribute.extend(sorted(node.attribute, key=lambda item: item.name))
        nodes.append(made)
    _check(nodes, table)
    ends = [[_value(item) for item in values] for values in (exported.input, exported.output)]
    return onnx.helper.make_graph(nodes, "detector", *ends, initializer=initializers)


def _check(nodes: list[Any], table: dict[str, Layer]) -> None:
    found = [node.name for node in nodes if node.op_type == "Conv"]
    if found != list(table):
        raise QuantizationFailed(
            f"torch.onnx exported {len(found)} convolutions for {len(table)} layers, or in disorder"
        )
    if any(node.op_type == "Pad" for node in nodes):
        raise QuantizationFailed("torch.onnx left a Pad beside a convolution")


def _scope(node: Any, table: dict[str, Layer]) -> str:
    """Returns the layer whose submodule a node was traced in, or an empty string."""
    notes = {entry.key: entry.value for entry in node.metadata_props}
    quoted = notes.get(_SCOPES, "").split("'")
    return next((word for word in quoted if word in table), "")


def _owner(node: Any, owners: dict[str, str]) -> str:
    """Returns what a node outside all layers belongs to: the head that it rearranges, or the output that it joins."""
    before = owners[node.input[0]]
    return before.rsplit("_", 1)[-1] if node.op_type == "Concat" else before


def _constant_name(node: Any, position: int, name: str) -> str:
    return f"{name}.{_PARAMETERS[position - 1]}" if node.op_type == "Conv" else f"{name}.{position}"


def _value(item: Any) -> Any:
    import onnx

    shape = [size.dim_value for size in item.type.tensor_type.shape.dim]
    return onnx.helper.make_tensor_value_info(item.name, item.type.tensor_type.elem_type, shape)


def _build(material: Material, scheme: Float32) -> bytes:
    return export(material.detector)


register(
    Builder(
        Float32,
        "onnx",
        ("onnxruntime", "openvino"),
        "torch",
        _build,
        format="onnx",
        packages=("torch", "onnx", "onnxscript"),
    )
)
