"""Operators of a .tflite file: what each one is, before any time is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tasks.quantize.audit import audit
from tasks.quantize.flatbuffer import constant, element_type, operator_name, read, text, whole
from tasks.quantize.kernels import Kernel, kernels
from tasks.quantize.layer_names import layer_names, layer_of
from tasks.types import OperatorTime

_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "CAST", "TRANSPOSE")

_REFERENCE_ONLY = {
    "DEPTHWISE_CONV_2D": "int16",
    "CONV_2D": "int16",
    "FULLY_CONNECTED": "int16",
    "LOGISTIC": "int16",
}
"""Operators whose built-in kernel is the reference one although LiteRT is built with optimized kernels, by the element
type of the activations that they read. From LiteRT's sources, tflite/kernels: depthwise_conv.cc
(EvalQuantizedPerChannel16x8), conv.cc (of that name; with the exception of `_has_optimized`), fully_connected.cc
(FullyConnectedPerChannelInt16), activations.cc (SigmoidEval; unless the scale is a power of two)."""


@dataclass(frozen=True)
class Operator:
    """One operator of a file, in the order of the file."""

    index: int
    """Its place in the file."""

    name: str
    """Name of its output, the first where the converter fused several; unique in the file."""

    operator: str
    """What the file calls its kind: `CONV_2D`."""

    role: Literal["convolution", "conversion", "other"]
    """As `OperatorTime.role`."""

    layer: str | None
    """As `OperatorTime.layer`."""

    arithmetic: str
    """As `OperatorTime.arithmetic`."""

    macs: int
    """Multiply-accumulates of one inference."""

    input_type: str
    """Element type of its first computed input."""

    is_constant: bool
    """Whether it works on constants only, so that a runtime may do it once, when it loads the file."""

    has_only_reference: bool
    """Whether its built-in kernel is the reference one."""

    def timed(self, time_ms: float, kernel: str) -> OperatorTime:
        """Returns the operator with what its execution took.

        Args:
            time_ms: Milliseconds in one inference.
            kernel: What executes it: `builtin` for LiteRT's own kernels, or a delegate's word.
        """
        is_reference = kernel == "builtin" and self.has_only_reference
        return OperatorTime(
            name=self.name,
            operator=self.operator,
            role=self.role,
            layer=self.layer,
            arithmetic=self.arithmetic,
            kernel="reference" if is_reference else kernel,
            macs=self.macs,
            time_ms=time_ms,
            # Weights that a DEQUANTIZE widens are multiplied as floats, whoever does it.
            is_fallback=is_reference or self.arithmetic.startswith("weight_only_"),
        )


def operators_of(data: bytes) -> tuple[Operator, ...]:
    """Lists the operators of a file.

    Args:
        data: Content of a .tflite file.

    Returns:
        Its operators, in order.

    Raises:
        ArtifactUnreadable: If the content is not a whole .tflite file.
        AuditMismatch: If it cannot work; see `tasks.quantize.audit.audit`.
    """
    model, layers = read(data), audit(data).layers
    with whole():
        found = kernels(model)
        names = layer_names(found) or (None,) * len(found)
        multiplying = {
            id(kernel.output): (kernel, layer, layers.get(layer or "", kernel.arithmetic))
            for kernel, layer in zip(found, names, strict=True)
        }
        fixed = constants(model)
        outputs = [model.subgraphs[0].tensors[int(item.outputs[0])] for item in model.subgraphs[0].operators]
        return tuple(
            _operator(model, index, name, multiplying.get(id(output)), fixed)
            for index, (name, output) in enumerate(zip(_distinct(outputs), outputs, strict=True))
        )


def constants(model: Any) -> set[int]:
    """Finds the tensors that are the same for every image.

    Args:
        model: The `ModelT` object of a file.

    Returns:
        Indices of its stored tensors, and of those computed from such only.
    """
    graph = model.subgraphs[0]
    fixed = {index for index, tensor in enumerate(graph.tensors) if constant(model, tensor) is not None}
    for operator in graph.operators:
        if fixed.issuperset(_inputs(operator)):
            fixed.update(int(index) for index in operator.outputs)
    return fixed


def execution_order(model: Any, builtin: set[int]) -> tuple[int, ...]:
    """Tells in which order a delegate's operators and the others are executed.

    LiteRT divides a graph into parts which the delegate has or has not, each as large as it can be made from what is
    ready by then (`PartitionGraphIntoIndependentNodeSubsets`, tflite/graph_info.cc).

    Args:
        model: The `ModelT` object of a file.
        builtin: Indices of the operators that the delegate left.

    Returns:
        Indices of all operators.
    """
    operators = model.subgraphs[0].operators
    made = {int(index) for operator in operators for index in operator.outputs}
    ready = set(range(len(model.subgraphs[0].tensors))) - made
    order: list[int] = []
    part: bool | None = None
    while len(order) < len(operators):
        taken = False
        for index, operator in enumerate(operators):
            if index in order or not ready.issuperset(_inputs(operator)):
                continue
            part = (index in builtin) if part is None else part
            if (index in builtin) == part:
                order.append(index)
                ready.update(int(output) for output in operator.outputs)
                taken = True
        part = part if taken else None
    return tuple(order)


def delegated(model: Any, details: Sequence[dict[str, Any]]) -> set[int]:
    """Finds the operators that a delegate executes.

    Args:
        model: The `ModelT` object of a file.
        details: `_get_ops_details()` of an interpreter of it, with its tensors allocated: the delegate's parts come
            after the operators of the file, with what they read and write.

    Returns:
        Indices of operators.
    """
    operators = model.subgraphs[0].operators
    makers = {int(index): place for place, operator in enumerate(operators) for index in operator.outputs}
    found: set[int] = set()
    for part in details[len(operators) :]:
        wanted, given = [int(index) for index in part["outputs"]], {int(index) for index in part["inputs"]}
        while wanted:
            tensor = wanted.pop()
            if tensor in makers and tensor not in given and makers[tensor] not in found:
                found.add(makers[tensor])
                wanted += _inputs(operators[makers[tensor]])
    return found


def _distinct(outputs: Sequence[Any]) -> list[str]:
    """Names tensors by the first operation that the converter put into them; equal names get their place, too."""
    names = [text(tensor.name).split(";")[0] for tensor in outputs]
    return [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names)]


def _operator(
    model: Any, index: int, name: str, multiplying: tuple[Kernel, str | None, str] | None, fixed: set[int]
) -> Operator:
    graph, operator = model.subgraphs[0], model.subgraphs[0].operators[index]
    kind, output = operator_name(model, operator), graph.tensors[int(operator.outputs[0])]
    computed = [graph.tensors[place] for place in _inputs(operator) if place not in fixed]
    kernel, layer, arithmetic = multiplying or (None, layer_of(text(output.name)), element_type(output))
    return Operator(
        index=index,
        name=name,
        operator=kind,
        role="convolution" if kernel else "conversion" if kind in _CONVERSIONS else "other",
        layer=layer,
        arithmetic=arithmetic,
        macs=kernel.macs if kernel else 0,
        input_type=element_type(computed[0]) if computed else element_type(output),
        is_constant=not computed,
        has_only_reference=bool(computed)
        and _REFERENCE_ONLY.get(kind) == element_type(computed[0])
        and not _has_optimized(kind, kernel, computed[0]),
    )


def _has_optimized(kind: str, kernel: Kernel | None, activations: Any) -> bool:
    """Says whether an operator is an exception from `_REFERENCE_ONLY`."""
    if kind == "CONV_2D" and kernel:
        has_zero_points = any(np.any(tensor.quantization.zeroPoint) for tensor in (activations, kernel.output))
        return kernel.bias is not None and element_type(kernel.bias) == "int32" and not has_zero_points
    if kind == "LOGISTIC":
        scale = activations.quantization.scale
        return scale is not None and bool(np.log2(scale[0]) % 1 == 0)
    return False


def _inputs(operator: Any) -> list[int]:
    # -1 stands for an input that is left out.
    return [int(index) for index in operator.inputs if index >= 0]
