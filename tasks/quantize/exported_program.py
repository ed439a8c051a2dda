"""Exported programs: what the graph that torch exports of a detector promises, as plain JSON values."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tasks.quantize.schemes import MemoryLayout
from tasks.quantize.stored_weights import codebook_size

_CONVOLUTION = "aten.conv2d.default"
_PADDING = "aten.pad.default"
_QUANTIZED_NAMESPACE = "quantized_decomposed."
_INTEGERS = ("int8", "uint8")


def exported(module: Any, image_size: int, memory_layout: MemoryLayout, is_strict: bool = False) -> Any:
    """Exports a detector's module.

    Args:
        module: What `tasks.detector.torch_model.build_torch` makes, in any element type.
        image_size: Side of the input in pixels.
        memory_layout: Order of the dimensions in memory, of weights and input.
        is_strict: Whether torch reads the module's bytecode, so that nodes know the functions that they come from:
            what torchao's quantizers go by.

    Returns:
        A `torch.export.ExportedProgram` that takes one float32 image (1, 3, S, S).
    """
    import torch

    order = torch.channels_last if memory_layout == "channels_last" else torch.contiguous_format
    image = torch.zeros(1, 3, image_size, image_size).to(memory_format=order)
    with torch.no_grad():
        return torch.export.export(module.to(memory_format=order), (image,), strict=is_strict)


def described(program: Any) -> dict[str, Any]:
    """Describes an exported program without the values of its weights, scales and zero points.

    Args:
        program: A `torch.export.ExportedProgram` of a detector: of float weights, or after torchao's `convert_pt2e`.

    Returns:
        Plain JSON values. `input` and `outputs`: element types. `image_size`: side of the input in pixels.
        `operators`: how many of each. `convolutions`: for each one `layer` (canonical name), `macs`, `arithmetic` (in
        the words of `Audit.mac_share`), `stored` (element type of its weights), `elements` (number of weights),
        `granularity` (`per_channel`, `per_tensor`, or None if its weights are float or it has one channel), `codebook`
        (most distinct weights of a channel; 0 if depthwise). `symmetric`: whether all integer activations have the
        zero point 0, or that in the middle of their integers, which is 0 shifted; None if there are none. `nodes`: the
        graph in order, each node as [operation, arguments, shape, element type].
    """
    constants = _constants(program)
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    outputs = next(node for node in program.graph.nodes if node.op == "output").args[0]
    images = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name not in constants)
    return {
        "input": _type(images),
        "image_size": images.meta["val"].shape[-1],
        "outputs": dict(zip(("boxes", "scores"), map(_type, outputs), strict=True)),
        "operators": dict(sorted(Counter(map(_operation, calls)).items())),
        "convolutions": [_convolution(node, constants) for node in calls if str(node.target) == _CONVOLUTION],
        "symmetric": _symmetric(calls, constants),
        "nodes": list(_nodes(program, constants)),
    }


def _constants(program: Any) -> dict[str, tuple[str, Any]]:
    """Returns (qualified name, tensor) of each parameter, buffer and constant by the name of its placeholder."""
    signature = program.graph_signature
    places = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    values = {**program.constants, **program.state_dict}
    return {place: (name, values[name]) for place, name in places.items()}


def _convolution(node: Any, constants: dict[str, tuple[str, Any]]) -> dict[str, Any]:
    activations, weights, bias = node.args[:3]
    stored = _root(weights)
    shape = tuple(weights.meta["val"].shape)
    name, _ = constants[bias.name]
    is_depthwise = shape[1] == 1 and len(node.args) > 6 and node.args[6] == shape[0]
    values = _numbers(constants[stored.name][1]).reshape(shape[0], -1) if stored.name in constants else None
    return {
        "layer": name.removesuffix(".bias"),
        "macs": math.prod(node.meta["val"].shape) * math.prod(shape[1:]),
        "arithmetic": _arithmetic(activations, weights),
        "stored": _type(stored),
        "elements": math.prod(shape),
        "granularity": _granularity(weights, constants),
        "codebook": 0 if is_depthwise or values is None else codebook_size([values]),
    }


def _arithmetic(activations: Any, weights: Any) -> str:
    if not _is(weights, "dequantize_"):
        return _type(weights)
    integers = _type(weights.args[0])
    integers = "int8" if integers == "uint8" else integers
    if not _is(activations, "dequantize_"):
        return f"weight_only_{integers}"
    return f"dynamic_{integers}" if _is_dynamic(activations) else integers


def _granularity(weights: Any, constants: dict[str, tuple[str, Any]]) -> str | None:
    if not _is(weights, "dequantize_") or weights.meta["val"].shape[0] == 1:
        return None
    return "per_channel" if _is(weights, "dequantize_per_channel") else "per_tensor"


def _symmetric(calls: list[Any], constants: dict[str, tuple[str, Any]]) -> bool | None:
    read = [node.args[0] for node in calls if str(node.target) == _CONVOLUTION and _is(node.args[0], "dequantize_")]
    written = [node for node in calls if _is(node, "quantize_per_tensor") and not _is_weight(node, constants)]
    found = [_is_centred(node, constants) for node in (*read, *written)]
    known = [value for value in found if value is not None]
    return all(known) if known else None


def _is_centred(node: Any, constants: dict[str, tuple[str, Any]]) -> bool | None:
    """Whether an activation's zero point is 0 or that of 0 shifted to unsigned; None if it is found at run time."""
    zero_point, low, high = node.args[2:5]
    if hasattr(zero_point, "name"):
        if zero_point.name not in constants:
            return None
        zero_point = int(constants[zero_point.name][1])
    return zero_point in (0, (low + high + 1) // 2)


def _is(node: Any, operation: str) -> bool:
    return str(getattr(node, "target", "")).startswith(_QUANTIZED_NAMESPACE + operation)


def _is_dynamic(activations: Any) -> bool:
    scale = activations.args[1]
    return hasattr(scale, "op") and scale.op == "call_function"


def _is_weight(node: Any, constants: dict[str, tuple[str, Any]]) -> bool:
    return node.args[0].name in constants


def _root(weights: Any) -> Any:
    """Returns the tensor that weights are stored as."""
    while weights.op == "call_function" and (_is(weights, "dequantize_") or _is(weights, "quantize_")):
        weights = weights.args[0]
    return weights


def _operation(node: Any) -> str:
    """Returns the name of a node's operation: `aten.conv2d.default`, or that of a Python function: `getitem`."""
    return str(node.target) if hasattr(node.target, "namespace") else str(node.target.__name__)


def _type(node: Any) -> str:
    return str(node.meta["val"].dtype).removeprefix("torch.")


def _numbers(tensor: Any) -> np.ndarray:
    import torch

    # NumPy has no bfloat16; equal bits are equal weights.
    plain = tensor.detach().contiguous()
    values: np.ndarray = (plain.view(torch.int16) if plain.dtype == torch.bfloat16 else plain).numpy()
    return values


def _nodes(program: Any, constants: dict[str, tuple[str, Any]]) -> Iterator[list[Any]]:
    numbers = {node: index for index, node in enumerate(program.graph.nodes)}
    for node in program.graph.nodes:
        arguments = _plain(_without_values(node, constants), numbers.__getitem__)
        value = node.meta.get("val")
        form = [list(value.shape), str(value.dtype)] if hasattr(value, "shape") else [None, None]
        yield [_operation(node) if node.op == "call_function" else node.op, arguments, *form]


def _without_values(node: Any, constants: dict[str, tuple[str, Any]]) -> list[Any]:
    arguments = [*node.args, *([name, node.kwargs[name]] for name in sorted(node.kwargs))]
    # A kernel skips zero points of 0, so whether they are is structure, and what they are else is not.
    if _is(node, "quantize_") or _is(node, "dequantize_"):
        first, scale, zero_point, *rest = arguments
        return [first, scale if hasattr(scale, "name") else None, _is_zero(zero_point, constants), *rest]
    if str(node.target) == _PADDING and _type(node) in _INTEGERS:
        images, padding, mode, zero_point = arguments
        return [images, padding, mode, zero_point == 0]
    return arguments


def _is_zero(zero_point: Any, constants: dict[str, tuple[str, Any]]) -> Any:
    if not hasattr(zero_point, "name"):
        return zero_point == 0
    return [zero_point, not _numbers(constants[zero_point.name][1]).any() if zero_point.name in constants else None]


def _plain(value: Any, number: Callable[[Any], int]) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item, number) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return {"node": number(value)} if hasattr(value, "graph") else str(value)
