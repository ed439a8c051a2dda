"""Float scopes: which operators of a flatbuffer stay in float where some layers do."""

from collections.abc import Collection
from functools import lru_cache

from tasks.errors import QuantizationFailed
from tasks.quantize.flatbuffer import constant, read, text
from tasks.quantize.kernels import kernels
from tasks.quantize.layer_names import layer_names


def float_scopes(model: bytes, kept_float: Collection[str]) -> tuple[str, ...]:
    """Lists the operators that compute in float.

    Operators without weights follow what they read: quantizing numbers between two float operators would cost
    accuracy and time, and save nothing.

    Args:
        model: The float .tflite.
        kept_float: Canonical names of the layers that stay in float.

    Returns:
        litert-quantizer's scope of each such operator: the names of its outputs, each ended by `;`.

    Raises:
        QuantizationFailed: If a layer is not found by its name.
    """
    if not kept_float:
        return ()
    found = _operators(model)
    lost = set(kept_float) - {layer for layer, _, _ in found}
    if lost:
        raise QuantizationFailed(f"no kernel of the float32 artifact has the name {', '.join(sorted(lost))}")
    scopes, in_float = [], set[str]()
    for layer, inputs, outputs in found:
        if layer in kept_float if layer else in_float.intersection(inputs):
            scopes.append("".join(f"{name};" for name in outputs))
            in_float.update(outputs)
    return tuple(scopes)


@lru_cache(maxsize=2)
def _operators(model: bytes) -> tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]:
    """(layer or empty, names of computed inputs, names of outputs) of each operator, in order of execution."""
    tree = read(model)
    graph, found = tree.subgraphs[0], kernels(tree)
    layers = {text(kernel.output.name): name for kernel, name in zip(found, layer_names(found), strict=False)}
    operators = []
    for operator in graph.operators:
        outputs = tuple(text(graph.tensors[int(index)].name) for index in operator.outputs)
        read_tensors = [graph.tensors[int(index)] for index in operator.inputs if int(index) >= 0]
        inputs = tuple(text(tensor.name) for tensor in read_tensors if constant(tree, tensor) is None)
        operators.append((layers.get(outputs[0], ""), inputs, outputs))
    return tuple(operators)
