"""The format `safetensors`: detectors that Keras runs, read back from the function that is traced of them."""

import math
from collections import Counter
from typing import Any

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import Layer, layers
from tasks.detector.weights import Detector
from tasks.errors import AuditMismatch
from tasks.identity import key_of
from tasks.quantize.formats.base import Format, register, shares
from tasks.quantize.stored_weights import codebook_size
from tasks.runtimes.keras import opened, traced
from tasks.types import Audit

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")


def audit(data: bytes) -> Audit:
    """Reads an artifact back: its stored tensors, and the graph that TensorFlow traces of it. Runs nothing.

    Args:
        data: Content of a detector's safetensors file, which may name a Keras policy.

    Returns:
        What it holds. The arithmetic of a layer is the element type that its convolution has in the graph.

    Raises:
        ArtifactUnreadable: If the content is not a detector.
        AuditMismatch: If the graph does not have one convolution for each layer.
    """
    detector, policy = opened(data)
    function = traced(detector, policy).get_concrete_function()
    operations = function.graph.get_operations()
    convolutions = _by_layer([item for item in operations if item.type in _CONVOLUTIONS], detector)
    macs, weights = Counter[str](), Counter[str]()
    for layer in layers(detector.spec):
        stored = detector.tensors[f"{layer.name}/weights"]
        macs[_arithmetic(convolutions[layer.name])] += _macs(convolutions[layer.name])
        weights[str(stored.dtype)] += stored.size
    return Audit(
        mac_share=shares(macs),
        weight_share=shares(weights),
        granularity=None,
        operators=dict(sorted(Counter(item.type for item in operations).items())),
        macs=macs.total(),
        input_type=function.structured_input_signature[0][0].dtype.name,
        output_types={role: output.dtype.name for role, output in function.structured_outputs.items()},
        layers={name: _arithmetic(operation) for name, operation in convolutions.items()},
        codebook_size=codebook_size(
            _by_channel(detector, layer) for layer in layers(detector.spec) if layer.kind != "depthwise"
        ),
    )


def structure_sha256(data: bytes) -> str:
    """Hashes what the latency of an artifact depends on: its layers, its policy, and which layers have caps.

    Args:
        data: Content of a detector's safetensors file.

    Returns:
        64 hexadecimal digits.

    Raises:
        ArtifactUnreadable: If the content is not a detector.
    """
    detector, policy = opened(data)
    table = layers(detector.spec)
    capped = [layer.name for layer in table if f"{layer.name}/cap" in detector.tensors]
    return key_of("keras", policy, detector.spec.image_size, len(detector.spec.class_ids), table, capped)


def _by_layer(convolutions: list[Any], detector: Detector) -> dict[str, Any]:
    found: dict[str, list[Any]] = {layer.name: [] for layer in layers(detector.spec)}
    for operation in convolutions:
        for segment in operation.name.split("/"):
            if segment in found:
                found[segment].append(operation)
    wrong = [f"{len(operations)} of {name}" for name, operations in found.items() if len(operations) != 1]
    if wrong or len(convolutions) != len(found):
        raise AuditMismatch(
            f"the graph has {len(convolutions)} convolutions for {len(found)} layers: {', '.join(wrong[:5])}"
        )
    return {name: operations[0] for name, operations in found.items()}


def _arithmetic(operation: Any) -> str:
    return str(operation.get_attr("T").name)


def _macs(operation: Any) -> int:
    height, width, inner, _ = operation.inputs[1].shape.as_list()
    return (
        math.prod(operation.outputs[0].shape.as_list()) * height * width * (inner if operation.type == "Conv2D" else 1)
    )


def _by_channel(detector: Detector, layer: Layer) -> np.ndarray:
    weights = detector.tensors[f"{layer.name}/weights"]
    return np.moveaxis(weights, 2 if layer.kind == "depthwise" else 3, 0).reshape(layer.out_channels, -1)


register(Format("safetensors", audit, structure_sha256))
