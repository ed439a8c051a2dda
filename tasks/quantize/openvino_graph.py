"""The convolutions of an OpenVINO model, as its graph stores them."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.quantize.layer_names import layer_of

KERNELS = ("Convolution", "GroupConvolution")
"""Operators that multiply by weights."""

_TYPES = {
    "f32": "float32", "f16": "float16", "bf16": "bfloat16", "i8": "int8", "u8": "uint8", "i4": "int4", "u4": "uint4",
    "i32": "int32", "i64": "int64",
}  # fmt: skip
"""Words of `Audit` by the names of OpenVINO's element types."""

_WIDENING = ("Convert", "Subtract", "Multiply", "Reshape", "FakeQuantize")
"""Operators between stored weights and the convolution that uses them."""


@dataclass(frozen=True)
class Kernel:
    """One convolution with its stored weights."""

    name: str
    """Name of the operator."""

    layer: str | None
    """Canonical name of the layer that it is, if the operator's name tells."""

    weights: np.ndarray
    """(channels, weights of one), in the type that the file stores; 16-bit floats that NumPy has no type for as
    OpenVINO hands them out."""

    stored: str
    """Element type that the file stores the weights in, in the words of `Audit.weight_share`."""

    scales: np.ndarray
    """The scales that stored integers are multiplied by, flat; empty if the weights are not quantized."""

    is_depthwise: bool
    """Whether each channel has weights for its own input alone."""

    macs: int
    """Multiply-accumulates of one inference."""

    @property
    def granularity(self) -> str | None:
        """`per_channel`, `per_tensor`, or None where weights are not quantized or both would be the same."""
        if not len(self.scales) or len(self.weights) == 1:
            return None
        if len(set(self.scales.tolist())) > 1:
            return "per_channel"
        # One scale written once for each channel is still one scale, unless each channel would have chosen it.
        greatest = np.abs(self.weights.astype(np.float32)).max(axis=1)
        return "per_tensor" if len(self.scales) == 1 or len(set(greatest.tolist())) > 1 else None


def kernels(model: Any) -> tuple[Kernel, ...]:
    """Lists the convolutions of a model.

    Args:
        model: The `openvino.Model`, not compiled.

    Returns:
        They, in the graph's order.
    """
    return tuple(_kernel(operation) for operation in model.get_ordered_ops() if operation.get_type_name() in KERNELS)


def element_type(port: Any) -> str:
    """Names the element type of an input or output of an operator or a model, in the words of `Audit`."""
    name = str(port.get_element_type().get_type_name())
    return _TYPES.get(name, name)


def layer_of_operation(operation: Any) -> str | None:
    """Finds the layer that an operator belongs to.

    Args:
        operation: An operator of a model that was read from an .onnx file whose nodes are named after the layers.

    Returns:
        The canonical name of the layer; None if the operator's name holds none.
    """
    return layer_of(operation.get_friendly_name())


def activation_form(operation: Any) -> str | None:
    """Tells what integers a quantized activation becomes, which OpenVINO reads from its range.

    Args:
        operation: An operator of a model, not compiled.

    Returns:
        `unsigned` (0 is the least integer), `signed` (0 is in the middle: the zero point of a signed integer is 0),
        `shifted` (the zero point is somewhere else, or not the same for all channels); None if the operator is not a
        FakeQuantize of activations.
    """
    if operation.get_type_name() != "FakeQuantize" or _source(operation).get_type_name() == "Constant":
        return None
    low, high = (np.asarray(operation.input_value(port).get_node().data, np.float64).reshape(-1) for port in (3, 4))
    levels = operation.get_attributes()["levels"]
    # A channel that was 0 on all images has no range.
    alive = high > low
    zeros = set(np.rint(-low[alive] * (levels - 1) / (high - low)[alive]).tolist()) or {0}
    return {0: "unsigned", levels // 2: "signed"}.get(zeros.pop(), "shifted") if len(zeros) == 1 else "shifted"


def _kernel(operation: Any) -> Kernel:
    constant = _source(operation.input_value(1).get_node())
    shape = tuple(operation.input(1).get_shape())
    is_grouped = operation.get_type_name() == "GroupConvolution"
    channels = math.prod(shape[:2]) if is_grouped else shape[0]
    name = str(operation.get_friendly_name())
    return Kernel(
        name=name,
        layer=layer_of_operation(operation),
        weights=np.asarray(constant.data).reshape(channels, -1),
        stored=element_type(constant.output(0)),
        scales=_scales(operation.input_value(1).get_node()),
        is_depthwise=is_grouped,
        # Each weight is used once at each place of the output, grouped or not.
        macs=math.prod(shape) * math.prod(list(operation.output(0).get_shape())[2:]),
    )


def _source(operation: Any) -> Any:
    """The constant, or else the computation, that an operator's first input comes from."""
    while operation.get_type_name() in _WIDENING:
        operation = operation.input_value(0).get_node()
    return operation


def _scales(operation: Any) -> np.ndarray:
    while operation.get_type_name() in _WIDENING:
        kind = operation.get_type_name()
        if kind in ("Multiply", "FakeQuantize"):
            # The upper end of a symmetric range is a multiple of its scale.
            return np.asarray(operation.input_value(1 if kind == "Multiply" else 4).get_node().data).reshape(-1)
        operation = operation.input_value(0).get_node()
    return np.empty(0, np.float32)
