"""Annotation of an exported detector: what becomes integers, and over which ranges.

Import this module inside functions only: it imports torch and torchao.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver, PlaceholderObserver
from torchao.quantization.pt2e.observer import UniformQuantizationObserverBase
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec
from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer

from tasks.errors import QuantizationFailed
from tasks.quantize.layer_ranges import IMAGE
from tasks.quantize.ranges import Ranges
from tasks.quantize.schemes import Granularity, Symmetry

_ANNOTATION = "quantization_annotation"
_KEEPS_LAYER = tuple(
    getattr(torch.ops.aten, name)
    for name in ("relu6", "relu", "minimum", "hardtanh", "clamp", "pad", "permute", "reshape", "to")
)
"""Operators between a convolution and what reads its layer's output, or the image."""


class LayerQuantizer(X86InductorQuantizer):
    """Quantizes the inputs and the weights of convolutions, as X86InductorQuantizer does.

    Its own search for convolutions goes by the names of `torch.nn` modules that tracing leaves behind; it finds none in
    a graph that `torch.export` made without tracing Python, nor in subclasses of `nn.Conv2d`, and says nothing. So the
    convolutions are taken from the graph.
    """

    def __init__(self, activations: QuantizationSpec, weights: QuantizationSpec, kept_float: tuple[str, ...]) -> None:
        """Takes the specs.

        Args:
            activations: Spec of the inputs of convolutions.
            weights: Spec of their weights.
            kept_float: Names of layers that are left alone.
        """
        super().__init__()
        self.activations = activations
        self.weights = weights
        self.kept_float = kept_float

    def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        """Annotates the convolutions; see `Quantizer.annotate`."""
        for node in convolutions(model):
            specs = {node.args[0]: self.activations, node.args[1]: self.weights}
            known = {} if layer_of(node) in self.kept_float else specs
            node.meta[_ANNOTATION] = QuantizationAnnotation(input_qspec_map=known, _annotated=True)
        return model


def convolutions(model: torch.fx.GraphModule) -> list[torch.fx.Node]:
    """Returns the convolutions of an exported graph in order."""
    return [node for node in model.graph.nodes if node.target is torch.ops.aten.conv2d.default]


def layer_of(convolution: torch.fx.Node) -> str:
    """Returns the canonical name of a convolution's layer, read off the name of its bias.

    Args:
        convolution: A node of the module of an exported program.
    """
    name: str = convolution.args[2].target
    return name.removesuffix(".bias")


def static_activations(symmetry: Symmetry) -> QuantizationSpec:
    """Returns the spec of activations with fixed ranges.

    The integers are unsigned, since oneDNN's quantized convolution of torch reads no other ones. The zero point of
    symmetric ones is 128, the 0 of signed integers.

    Args:
        symmetry: Whether the range is as wide below zero as above.
    """
    scheme = torch.per_tensor_symmetric if symmetry == "symmetric" else torch.per_tensor_affine
    # torchao takes the least and greatest integer as customized when they are given, and 127 as the middle then.
    return QuantizationSpec(dtype=torch.uint8, qscheme=scheme, observer_or_fake_quant_ctr=MinMaxObserver)


def dynamic_activations() -> QuantizationSpec:
    """Returns the spec of activations whose range is found in each inference."""
    return QuantizationSpec(
        dtype=torch.uint8,
        quant_min=0,
        quant_max=255,
        qscheme=torch.per_tensor_affine,
        is_dynamic=True,
        observer_or_fake_quant_ctr=PlaceholderObserver,
    )


def symmetric_weights(granularity: Granularity) -> QuantizationSpec:
    """Returns the spec of weights: signed, without -128, so that w and -w are as exact.

    torchao's own recipe floors their scales at 2**-12, which costs channels of small weights their accuracy; here they
    are floored at float32's epsilon.

    Args:
        granularity: Whether each output channel has its own scale.
    """
    is_per_channel = granularity == "per_channel"
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric if is_per_channel else torch.per_tensor_symmetric,
        ch_axis=0 if is_per_channel else None,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver if is_per_channel else MinMaxObserver,
    )


def give_ranges(prepared: torch.fx.GraphModule, ranges: Ranges) -> None:
    """Gives each observer of activations its range, as if it had seen the calibration images.

    Args:
        prepared: What `prepare_pt2e` returned.
        ranges: (low, high) by canonical name of the layer, and of the input under `image`.

    Raises:
        QuantizationFailed: If an observer is of a tensor that has no range.
    """
    for observer, source in _observers(prepared):
        if source.op == "get_attr":
            continue
        layer = _observed(source)
        if layer not in ranges:
            raise QuantizationFailed(f"the activation {source} of {layer} is to be quantized, but has no range")
        low, high = ranges[layer]
        observer.min_val.resize_(()).fill_(low)
        observer.max_val.resize_(()).fill_(high)


def observe_weights(prepared: torch.fx.GraphModule) -> None:
    """Shows the observers of weights their weights.

    Images would do that too, but none are run, and `convert_pt2e` takes scales of 1 where an observer has seen nothing.

    Args:
        prepared: What `prepare_pt2e` returned.
    """
    for observer, source in _observers(prepared):
        if source.op == "get_attr":
            owner, _, name = str(source.target).rpartition(".")
            observer(getattr(prepared.get_submodule(owner), name))


def _observers(prepared: torch.fx.GraphModule) -> Iterator[tuple[Any, torch.fx.Node]]:
    """Yields each observer of ranges, and the node of the tensor that it observes."""
    for node in prepared.graph.nodes:
        module = prepared.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, UniformQuantizationObserverBase):
            yield module, node.args[0]


def _observed(node: torch.fx.Node) -> str:
    """Returns whose output a tensor is: a layer's canonical name, or `image`; if neither, the operator's name."""
    while node.op == "call_function" and getattr(node.target, "overloadpacket", None) in _KEEPS_LAYER:
        node = node.args[0]
    if node.op == "placeholder":
        return IMAGE
    return layer_of(node) if node.target is torch.ops.aten.conv2d.default else str(node.target)
