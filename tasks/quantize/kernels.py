"""Kernels: the layers of an artifact that multiply by weights, with what each one computes in."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.quantize.flatbuffer import constant, element_type, operator_name, scales
from tasks.quantize.stored_weights import unpacked


@dataclass(frozen=True)
class Kernel:
    """One operator with stored weights."""

    operator: str
    """Name of the operator, such as `CONV_2D`."""

    activations: Any
    """The `TensorT` that it reads."""

    weights: Any
    """The `TensorT` that stores its weights."""

    widened: bool
    """Whether a DEQUANTIZE operator turns the stored weights into floats first."""

    bias: Any | None
    """The `TensorT` of its bias, or None if it has none."""

    output: Any
    """The `TensorT` that it writes."""

    channel_axis: int
    """Axis of `weights` that counts the output channels."""

    macs: int
    """Multiply-accumulates of one inference."""

    @property
    def elements(self) -> int:
        """Number of weights."""
        return math.prod(int(size) for size in self.weights.shape)

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return int(self.weights.shape[self.channel_axis])

    @property
    def arithmetic(self) -> str:
        """What the kernel computes in.

        `float32`, `float16` (half weights, widened), `int8` (weights and activations), `int8x16` (int8 weights, int16
        activations), `int4x8` (int4 weights, int8 activations), `dynamic_int8` (int8 weights, activations quantized in
        the kernel), `weight_only_int8` (int8 weights, widened), and alike for other widths; a pair that has no name
        of its own is `weightsxactivations`.
        """
        weights, activations = element_type(self.weights), element_type(self.activations)
        if self.widened:
            return weights if weights.startswith("float") else f"weight_only_{weights}"
        if weights == activations:
            return weights
        if activations == "float32":
            return f"dynamic_{weights}"
        return _PAIRS.get((weights, activations), f"{weights}x{activations}")

    @property
    def is_integer(self) -> bool:
        """Whether it reads integers and multiplies them by integers."""
        return not self.widened and all(
            element_type(tensor).startswith(("int", "uint")) for tensor in (self.weights, self.activations)
        )


_PAIRS = {("int8", "int16"): "int8x16", ("int4", "int8"): "int4x8"}
"""Names of pairs of (weights, activations)."""


@dataclass(frozen=True)
class _Layout:
    """Where an operator has its tensors, and what it costs."""

    activations: int
    weights: int
    bias: int
    channel_axis: int
    macs: Callable[[tuple[int, ...], tuple[int, ...], tuple[int, ...]], int]
    """(shape of activations, weights, output) -> multiply-accumulates."""


_LAYOUTS = {
    # Weights (out, height, width, in); every output element is a sum over one output channel's weights.
    "CONV_2D": _Layout(0, 1, 2, 0, lambda _, weights, output: math.prod(output) * math.prod(weights[1:])),
    # Weights (1, height, width, channels).
    "DEPTHWISE_CONV_2D": _Layout(0, 1, 2, 3, lambda _, weights, output: math.prod(output) * weights[1] * weights[2]),
    # Weights (out, in).
    "FULLY_CONNECTED": _Layout(0, 1, 2, 0, lambda _, weights, output: math.prod(output) * weights[1]),
    # Weights (out, height, width, in); every input element is spread over height * width * out.
    "TRANSPOSE_CONV": _Layout(2, 1, 3, 0, lambda read, weights, _: math.prod(read) * math.prod(weights[:3])),
}


def kernels(model: Any) -> tuple[Kernel, ...]:
    """Lists the kernels of a flatbuffer in order of execution.

    Args:
        model: The `ModelT` object of the file.

    Returns:
        Its convolutions and fully connected layers.
    """
    graph = model.subgraphs[0]
    widened = {
        int(operator.outputs[0]): int(operator.inputs[0])
        for operator in graph.operators
        if operator_name(model, operator) == "DEQUANTIZE"
    }
    found = []
    for operator in graph.operators:
        name = operator_name(model, operator)
        if name in _LAYOUTS:
            found.append(_kernel(graph, operator, name, widened))
    return tuple(found)


def _kernel(graph: Any, operator: Any, name: str, widened: dict[int, int]) -> Kernel:
    layout = _LAYOUTS[name]
    inputs = [int(index) for index in operator.inputs]
    activations, weights = graph.tensors[inputs[layout.activations]], graph.tensors[inputs[layout.weights]]
    has_bias = len(inputs) > layout.bias and inputs[layout.bias] >= 0
    stored = widened.get(inputs[layout.weights])
    output = graph.tensors[int(operator.outputs[0])]
    return Kernel(
        operator=name,
        activations=activations,
        weights=weights if stored is None else graph.tensors[stored],
        widened=stored is not None,
        bias=graph.tensors[inputs[layout.bias]] if has_bias else None,
        output=output,
        channel_axis=layout.channel_axis,
        macs=layout.macs(_shape(activations), _shape(weights), _shape(output)),
    )


def weights_of(model: Any, kernel: Kernel) -> np.ndarray:
    """Reads the stored weights of a kernel.

    Args:
        model: The `ModelT` object of the file.
        kernel: One of its kernels.

    Returns:
        (channels, weights of one) in the stored type, int4 as int8.
    """
    stored = constant(model, kernel.weights) or b""
    return unpacked(stored, element_type(kernel.weights), _shape(kernel.weights), kernel.channel_axis)


def granularity(model: Any, kernel: Kernel) -> str | None:
    """Tells how many scales the weights of a kernel have.

    Args:
        model: The `ModelT` object of the file.
        kernel: One of its kernels.

    Returns:
        `per_channel`, `per_tensor`, or None where the weights are not quantized or both are the same: there is one
        channel, or all have the same greatest magnitude, as those of clustered weights may.
    """
    found = scales(kernel.weights)
    if len(found) == 0 or kernel.channels == 1:
        return None
    if len(set(found.tolist())) > 1:
        return "per_channel"
    # One scale written once for each channel is still one scale, unless each channel would have chosen it.
    greatest = np.abs(weights_of(model, kernel).astype(np.int16)).max(axis=1)
    return "per_tensor" if len(found) == 1 or len(set(greatest.tolist())) > 1 else None


def faults(model: Any) -> tuple[str, ...]:
    """Looks for what makes kernels compute something else than their weights say, whatever the scheme.

    Args:
        model: The `ModelT` object of the file.

    Returns:
        One line a fault, with its count.
    """
    found = kernels(model)
    clipped = sum(_clipped(model, kernel) for kernel in found)
    unscaled = sum(reads_beyond_scales(kernel) for kernel in found)
    lines = []
    if clipped:
        lines.append(f"{clipped} biases do not fit 32 bits and were clipped: the scales of their weights are too small")
    if unscaled:
        lines.append(f"{unscaled} dynamic depthwise convolutions have one scale, where LiteRT reads one a channel")
    return tuple(lines)


def reads_beyond_scales(kernel: Kernel) -> bool:
    """Says whether LiteRT reads scales that are not there.

    Its hybrid depthwise kernel (`EvalHybridPerChannel`, tensorflow/lite/kernels/depthwise_conv.cc) takes a scale for
    each channel from the weights' scales without asking how many there are; AP falls from .23 to .00.
    """
    return (
        kernel.operator == "DEPTHWISE_CONV_2D"
        and kernel.arithmetic.startswith("dynamic_")
        and 1 == len(scales(kernel.weights)) < kernel.channels
    )


def _clipped(model: Any, kernel: Kernel) -> int:
    kinds = {"int32": np.int32, "int64": np.int64}
    if kernel.bias is None or element_type(kernel.bias) not in kinds:
        return 0
    # Biases beside 16-bit activations have 64 bits, but litert-quantizer clips them to 32 first.
    limits = np.iinfo(np.int32)
    values = np.frombuffer(constant(model, kernel.bias) or b"", kinds[element_type(kernel.bias)])
    return int(np.isin(values, (limits.max, limits.min, limits.min + 1)).sum())


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()
