"""Lowering: rewriting quantized graphs into what inductor has integer kernels for.

Import this module inside functions only: it imports torch.
"""

from functools import cache
from typing import Any

import torch
from torch._inductor.fx_passes.freezing_patterns import register_freezing_graph_pattern
from torch._inductor.pattern_matcher import CallFunction, KeywordArg, Match

_QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
_DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default
_ATEN = torch.ops.aten
_PAD = _ATEN.pad.default

_VECTOR = 16
"""Channels from which on inductor's loops over them are vectors."""


def pad_integers(model: torch.fx.GraphModule) -> None:
    """Moves the padding of quantized activations behind their quantization, where it writes zero points.

    So the convolution before writes integers itself, and the padding moves a quarter of the bytes.

    Args:
        model: What `convert_pt2e` returned; it is changed.
    """
    quantizing = [node for node in model.graph.nodes if node.target is _QUANTIZE]
    for node in [node for node in quantizing if node.args[0].target is _PAD]:
        padding = node.args[0]
        quantized = _quantized(padding.args[0], node)
        with model.graph.inserting_before(node):
            node.replace_all_uses_with(_padded(quantized, padding, node.args[2]))
        model.graph.erase_node(node)
    model.graph.eliminate_dead_code()
    model.recompile()


def _padded(quantized: torch.fx.Node, padding: torch.fx.Node, zero_point: int) -> torch.fx.Node:
    """Pads integers as `padding` pads the numbers, with the zero point."""
    call = padding.graph.call_function
    batch, channels, height, width = padding.args[0].meta["val"].shape
    if channels >= _VECTOR:
        return call(_PAD, (quantized, padding.args[1], "constant", zero_point))
    # Inductor's loop for a padding runs over channels, one by one where these are few: the image's took as long as its
    # convolution. Concatenation copies whole rows of pixels, in a third of the time.
    left, right, above, below = padding.args[1]
    image = call(_ATEN.permute.default, (quantized, [0, 2, 3, 1]))
    image = call(_ATEN.reshape.default, (image, [batch, height, width * channels]))
    for axis, sizes in ((2, (left * channels, right * channels)), (1, (above, below))):
        shape = [batch, height, (left + width + right) * channels]
        before, after = (_border(padding, (*shape[:axis], size, *shape[axis + 1 :]), zero_point) for size in sizes)
        image = call(_ATEN.cat.default, ([*before, image, *after], axis))
    image = call(_ATEN.reshape.default, (image, [batch, above + height + below, left + width + right, channels]))
    return call(_ATEN.permute.default, (image, [0, 3, 1, 2]))


def _border(padding: torch.fx.Node, shape: tuple[int, ...], value: int) -> list[torch.fx.Node]:
    """Makes a constant of one value, none if it is empty.

    A constant, and not an operator with the value as an argument, since programs that differ in values alone must have
    one structure.
    """
    if not all(shape):
        return []
    model = padding.graph.owning_module
    name = f"{padding.name}_border_{sum(key.startswith(padding.name) for key, _ in model.named_buffers())}"
    model.register_buffer(name, torch.full(shape, value, dtype=torch.uint8))
    return [padding.graph.get_attr(name)]


def _quantized(values: torch.fx.Node, like: torch.fx.Node) -> torch.fx.Node:
    """Returns the node that quantizes values, made right behind them if there is none there."""
    following = values.next
    if following.target is like.target and following.args == (values, *like.args[1:]):
        return following
    with values.graph.inserting_after(values):
        made = values.graph.call_function(like.target, (values, *like.args[1:]))
    for user in list(values.users):
        if user is not made and user.target is made.target and user.args == made.args:
            user.replace_all_uses_with(made)
            values.graph.erase_node(user)
    return made


@cache
def register_patterns() -> None:
    """Teaches inductor the quantized convolutions that torchao's patterns leave in float.

    They match weights with a scale for each channel, and activations with fixed scales, alone. The two patterns here
    turn a scale for all channels into equal ones for each, and take scales that are computed in each inference.
    """
    # Pass 0 comes before torchao's packing of weights, which is pass 1.
    register_freezing_graph_pattern(_per_tensor_weights(), extra_check=_is_of_constant, pass_number=0)(_spread_scale)
    for weights in _per_channel_weights():
        register_freezing_graph_pattern(_dynamic_convolution(weights), extra_check=_is_only_use, pass_number=1)(
            _to_quantized_convolution
        )


def _per_tensor_weights() -> CallFunction:
    numbers = (KeywordArg(name) for name in ("integers", "scale", "zero_point", "low", "high", "dtype"))
    return CallFunction(_DEQUANTIZE, *numbers)


def _per_channel_weights() -> tuple[CallFunction, CallFunction]:
    names = ("integers", "weight_scale", "weight_zero_point", "axis", "weight_low", "weight_high", "weight_dtype")
    weights = CallFunction(
        torch.ops.quantized_decomposed.dequantize_per_channel.default, *(KeywordArg(name) for name in names)
    )
    # Freezing puts a copy into channels_last behind some weights.
    return weights, CallFunction(torch.ops.aten.clone.default, weights, memory_format=KeywordArg("memory_format"))


def _dynamic_convolution(weights: CallFunction) -> CallFunction:
    names = ("activations", "scale", "zero_point", "low", "high", "dtype")
    activations = CallFunction(
        torch.ops.quantized_decomposed.dequantize_per_tensor.tensor, *(KeywordArg(name) for name in names)
    )
    geometry = ("bias", "stride", "padding", "dilation", "is_transposed", "out_padding", "groups")
    return CallFunction(
        torch.ops.aten.convolution.default, activations, weights, *(KeywordArg(name) for name in geometry)
    )


def _is_of_constant(match: Match) -> bool:
    return match.kwargs["integers"].op == "get_attr"


def _is_only_use(match: Match) -> bool:
    return len(match.output_node().args[0].users) == 1


def _spread_scale(match: Match, **found: Any) -> None:
    """Replaces the dequantization of weights by one scale by that by equal scales for each output channel."""
    node, graph = match.output_node(), match.graph
    channels = node.meta["val"].shape[0]
    with torch.utils._python_dispatch._disable_current_modes():
        scales = torch.full((channels,), found["scale"], dtype=torch.float32)
        zero_points = torch.full((channels,), found["zero_point"], dtype=torch.int64)
    constants = []
    for role, value in (("scale", scales), ("zero_point", zero_points)):
        name = f"{node.name}_{role}"
        graph.owning_module.register_buffer(name, value)
        with graph.inserting_before(node):
            constants.append(graph.create_node("get_attr", name))
            constants[-1].meta["val"] = value
    with graph.inserting_before(node):
        made = graph.call_function(
            torch.ops.quantized_decomposed.dequantize_per_channel.default,
            (found["integers"], *constants, 0, found["low"], found["high"], found["dtype"]),
        )
    made.meta.update(node.meta)
    node.replace_all_uses_with(made)
    graph.erase_node(node)


def _to_quantized_convolution(match: Match, **found: Any) -> None:
    """Replaces a float convolution of dequantized numbers by oneDNN's of the integers, with its scale as a tensor."""
    node, graph = match.output_node(), match.graph
    geometry = (found["stride"], found["padding"], found["dilation"], found["groups"])
    with graph.inserting_before(node):
        # The packed form depends on whether there is a zero point, not on its value, nor on the scale.
        weights = graph.call_function(
            torch.ops.onednn.qconv_prepack,
            (found["integers"], found["weight_scale"], 1.0, 1, *geometry, list(found["activations"].meta["val"].shape)),
        )
        made = graph.call_function(
            torch.ops.onednn.qconv_pointwise.tensor,
            (
                found["activations"], found["scale"], found["zero_point"], weights, found["weight_scale"],
                found["weight_zero_point"], found["bias"], *geometry, 1.0, 0, torch.float32, "none", [], "",
            ),
        )  # fmt: skip
    made.meta.update(node.meta)
    node.replace_all_uses_with(made)
    for old in reversed(match.nodes):
        graph.erase_node(old)
