"""Fake quantization of a detector in torch: torchao's flow for quantization-aware training, read back and checked.

Import this module inside functions only: it imports torch and torchao.
"""

from typing import Any

import numpy as np
import torch
from torchao.quantization.pt2e import MinMaxObserver, MovingAverageMinMaxObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.fake_quantize import FakeQuantize
from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

from tasks.detector.ssd_mobilenet_v1 import Layer
from tasks.detector.torch_model import TrainableSSDMobileNetV1
from tasks.errors import QuantizationFailed
from tasks.quantize.layer_ranges import IMAGE
from tasks.quantize.torch_annotation import convolutions, layer_of
from tasks.training.learner import Ranges, Simulation

_ANNOTATION = "quantization_annotation"
_ACTIVATES = tuple(getattr(torch.ops.aten, name) for name in ("relu6", "relu", "minimum"))
_MOVES = tuple(getattr(torch.ops.aten, name) for name in ("pad", "permute", "reshape", "to"))
_JOIN = torch.ops.aten.cat.default
_SPEED = 0.01
"""Share of a batch's minimum and maximum in the moving averages of ranges: a decay of .99 a step."""

_LEAST, _GREATEST = 0, 255
"""Integers of activations."""

_PIECE = 1 << 16
"""Values that are rounded at a time on the CPU: 256 kB, so that they stay in its cache."""


class WeightFakeQuantize(FakeQuantize):
    """Fake quantization over the range that the weights have now; torchao's remembers where they have been."""

    def forward(self, weights: torch.Tensor) -> torch.Tensor:
        """Rounds weights."""
        self.activation_post_process.reset_min_max_vals()
        # What torchao resets, it puts on the CPU.
        self.activation_post_process.to(weights.device)
        return super().forward(weights)


class ActivationFakeQuantize(FakeQuantize):
    """torchao's fake quantization of activations, in a third of its time on the CPU.

    torch's own kernel is not vectorized, and its search for the extremes copies what is in the layout channels_last.
    """

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Moves the range, if it may move, and rounds values."""
        if self.observer_enabled[0] == 1:
            self.activation_post_process(_in_order(values.detach()))
            self.take_scale()
        if self.fake_quant_enabled[0] == 0:
            return values
        rounded: torch.Tensor = _Rounding.apply(values, self.scale.item(), self.zero_point.item())
        return rounded

    def take_scale(self) -> None:
        """Computes scale and zero point of the range."""
        scale, zero_point = self.calculate_qparams()
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)


class _Rounding(torch.autograd.Function):
    """Values to the nearest of 256 levels. Gradients go straight through within their range, both ends included."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
        """Rounds (images, channels, height, width) values, or any others."""
        low, high = _LEAST - zero_point, _GREATEST - zero_point
        ctx.save_for_backward(values)
        ctx.ends = np.float32(low * scale), np.float32(high * scale)
        ordered = _in_order(values)
        rounded = torch.empty_like(ordered)
        # Piece by piece, so that all but the first and the last operation find their values in the cache.
        size = _PIECE if values.device.type == "cpu" else ordered.numel()
        for source, target in zip(ordered.view(-1).split(size), rounded.view(-1).split(size), strict=True):
            torch.mul(source, 1.0 / scale, out=target).round_().clamp_(low, high).mul_(scale)
        return rounded.permute(0, 3, 1, 2) if values.ndim == 4 else rounded

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Hands on the gradient of values within the range."""
        low, high = ctx.ends
        # The operator leaves out the ends themselves.
        outside = float(np.nextafter(low, np.float32(-np.inf))), float(np.nextafter(high, np.float32(np.inf)))
        return torch.ops.aten.hardtanh_backward(gradient, *ctx.saved_tensors, *outside), None, None


def _in_order(values: torch.Tensor) -> torch.Tensor:
    """Returns values in the order in which they lie in memory, without a copy if they are channels_last."""
    return (values.permute(0, 2, 3, 1) if values.ndim == 4 else values).contiguous()


class SimulationQuantizer(Quantizer):
    """Annotates a detector's graph with what a simulation rounds.

    All activations are annotated, since ranges are wanted even of those that are not rounded.
    """

    def __init__(self, table: tuple[Layer, ...], simulation: Simulation) -> None:
        """Takes the layers and the simulation."""
        super().__init__()
        self.table = {layer.name: layer for layer in table}
        self.simulation = simulation

    def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        """Annotates weights and activations; see `Quantizer.annotate`."""
        for node in convolutions(model):
            layer = self.table[layer_of(node)]
            known = {node.args[1]: _weights(layer, self.simulation)} if _is_changed(layer, self.simulation) else {}
            node.meta[_ANNOTATION] = QuantizationAnnotation(input_qspec_map=known)
            if layer.kind == "head":
                continue
            while getattr((reader := next(iter(node.users))).target, "overloadpacket", None) in _ACTIVATES:
                node = reader
            self._annotate_output(node)
        for node in model.graph.nodes:
            if node.op == "placeholder" or node.target is _JOIN:
                self._annotate_output(node)
        return model

    def validate(self, model: torch.fx.GraphModule) -> None:
        """See `Quantizer.validate`; it is the prepared graph that is checked."""

    def _annotate_output(self, node: torch.fx.Node) -> None:
        found = node.meta.setdefault(_ANNOTATION, QuantizationAnnotation())
        found.output_qspec = _activations(self.simulation)


class SimulatedDetector:
    """A detector that computes as if it were quantized, and the ranges of its activations."""

    def __init__(
        self, module: TrainableSSDMobileNetV1, image_size: int, simulation: Simulation, ranges: Ranges
    ) -> None:
        """Puts fake quantization into a detector.

        Args:
            module: The detector, on the device and in the memory layout that it is to have. Its parameters are
                shared.
            image_size: Side of the input in pixels.
            simulation: What is rounded.
            ranges: First ranges of activations by canonical name of the layer, and of the input under `image`; the
                heads of one role get one range that holds those of all.

        Raises:
            QuantizationFailed: If a layer has no range, or torchao left something out.
        """
        self.table = module.table
        first = _joined(self.table, ranges)
        self.graph = _prepared(module, image_size, simulation)
        _check(self.graph, self.table, simulation)
        self.activations = {
            owner: fake for fake, owner in _fake_quantizers(self.graph) if not isinstance(fake, WeightFakeQuantize)
        }
        rounded = rounded_activations(self.table, simulation)
        for owner, fake in self.activations.items():
            fake.enable_fake_quant(owner in rounded)
        self.observe(False)
        self.set_activation_ranges(first)

    def observe(self, is_observing: bool) -> None:
        """Lets the ranges of activations follow the images, or holds them."""
        for fake in self.activations.values():
            fake.enable_observer(is_observing)

    def activation_ranges(self) -> Ranges:
        """Returns (low, high) by the name of a layer that is no head, `image`, or the role of the joined heads."""
        observers = {owner: fake.activation_post_process for owner, fake in self.activations.items()}
        return {owner: (observer.min_val.item(), observer.max_val.item()) for owner, observer in observers.items()}

    def set_activation_ranges(self, ranges: Ranges) -> None:
        """Takes over ranges as `activation_ranges` gives them."""
        for owner, fake in self.activations.items():
            low, high = ranges[owner]
            fake.activation_post_process.min_val.fill_(low)
            fake.activation_post_process.max_val.fill_(high)
            fake.take_scale()

    def ranges(self) -> Ranges:
        """Returns the ranges of all layers, and of the input under `image`; see `Learner.ranges`."""
        found = self.activation_ranges()
        return {IMAGE: found[IMAGE]} | {layer.name: found[_activation(layer)] for layer in self.table}


def rounded_activations(table: tuple[Layer, ...], simulation: Simulation) -> set[str]:
    """Returns the activations that are rounded: those that a layer reads, or a head makes, which is not kept in float.

    Args:
        table: The layers.
        simulation: Which ones are kept in float.

    Returns:
        Names of layers that are no heads, `image`, and the roles of the joined heads.
    """
    changed = [layer for layer in table if _is_changed(layer, simulation)]
    return {layer.source for layer in changed} | {_activation(layer) for layer in changed if layer.kind == "head"}


def _is_changed(layer: Layer, simulation: Simulation) -> bool:
    return layer.name not in simulation.kept_float


def _activation(layer: Layer) -> str:
    """Returns the name of the activation that holds a layer's output: its own, or the role of a head."""
    return layer.name.rsplit("_", 1)[1] if layer.kind == "head" else layer.name


def _joined(table: tuple[Layer, ...], ranges: Ranges) -> Ranges:
    """Gives the heads of one role one range, under the name of the role."""
    found: dict[str, list[tuple[float, float]]] = {}
    for name, activation in {IMAGE: IMAGE, **{layer.name: _activation(layer) for layer in table}}.items():
        if name not in ranges:
            raise QuantizationFailed(
                f"the output of {name} is to be quantized, but the training was given no range of it"
            )
        found.setdefault(activation, []).append(ranges[name])
    return {name: (min(low for low, _ in items), max(high for _, high in items)) for name, items in found.items()}


def _activations(simulation: Simulation) -> QuantizationSpec:
    """The integers are those of `tasks.quantize.torch_annotation.static_activations`."""
    observer = MovingAverageMinMaxObserver.with_args(averaging_constant=_SPEED)
    return QuantizationSpec(
        dtype=torch.uint8,
        qscheme=torch.per_tensor_symmetric if simulation.is_symmetric else torch.per_tensor_affine,
        observer_or_fake_quant_ctr=ActivationFakeQuantize.with_args(observer=observer),
    )


def _weights(layer: Layer, simulation: Simulation) -> QuantizationSpec:
    """The integers are those of `tasks.quantize.torch_annotation.symmetric_weights`, or four bits of them."""
    # torchao hands an axis on only to classes whose name says that they have one.
    observer = PerChannelMinMaxObserver.with_args(ch_axis=0) if simulation.is_per_channel else MinMaxObserver
    bound = _bound(layer, simulation)
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-bound,
        quant_max=bound,
        qscheme=torch.per_channel_symmetric if simulation.is_per_channel else torch.per_tensor_symmetric,
        ch_axis=0 if simulation.is_per_channel else None,
        observer_or_fake_quant_ctr=WeightFakeQuantize.with_args(observer=observer),
    )


def _bound(layer: Layer, simulation: Simulation) -> int:
    """Returns the greatest integer of a layer's weights."""
    bits = simulation.depthwise_bits if layer.kind == "depthwise" else simulation.weight_bits
    return (1 << (bits - 1)) - 1


def _prepared(module: TrainableSSDMobileNetV1, image_size: int, simulation: Simulation) -> torch.fx.GraphModule:
    # An exported program takes a size of 1 for a constant, and holds on to the device.
    images = torch.zeros(2, 3, image_size, image_size, device=next(module.parameters()).device)
    images = images.to(memory_format=torch.channels_last)
    program = torch.export.export(module, (images,), dynamic_shapes=({0: torch.export.Dim("images", min=1)},))
    prepared = prepare_qat_pt2e(program.module(check_guards=False), SimulationQuantizer(module.table, simulation))
    return prepared.to(images.device)


def _fake_quantizers(graph: torch.fx.GraphModule) -> list[tuple[FakeQuantize, str]]:
    """Returns the fake quantizers of a prepared graph, each with the name of what it rounds."""
    found = [(_fake_quantizer(graph, node), node) for node in graph.graph.nodes]
    return [(fake, _owner(node.args[0])) for fake, node in found if fake is not None]


def _fake_quantizer(graph: torch.fx.GraphModule, node: torch.fx.Node) -> Any:
    """Returns the fake quantizer that a node calls, or None if it calls another thing."""
    module = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
    return module if isinstance(module, FakeQuantize) else None


def _owner(node: torch.fx.Node) -> str:
    """Returns the name of the activation, or of the parameter, that a node makes."""
    while getattr(node.target, "overloadpacket", None) in _ACTIVATES:
        node = node.args[0]
    if node.op == "placeholder":
        return IMAGE
    if node.target is _JOIN:
        return layer_of(_origin(node.args[0][0])).rsplit("_", 1)[1]
    return layer_of(node) if node.target is torch.ops.aten.conv2d.default else str(node.target)


def _origin(node: torch.fx.Node) -> torch.fx.Node:
    """Goes back over what only moves values."""
    while getattr(node.target, "overloadpacket", None) in _MOVES:
        node = node.args[0]
    return node


def _check(graph: torch.fx.GraphModule, table: tuple[Layer, ...], simulation: Simulation) -> None:
    """Compares what a prepared graph rounds with what it is to round."""
    wanted = {
        layer.name: (layer.source, _bound(layer, simulation) if _is_changed(layer, simulation) else None)
        for layer in table
    }
    found = {layer_of(node): (_read(graph, node.args[0]), _weight_bound(graph, node)) for node in convolutions(graph)}
    for name in (*wanted, *(found.keys() - wanted.keys())):
        if wanted.get(name) != found.get(name):
            raise QuantizationFailed(
                f"{name} should read the rounded {wanted.get(name)}, its source and the bound of its weights, but "
                f"torchao prepared {found.get(name)}"
            )
    outputs = [_read(graph, node) for node in graph.graph.output_node().args[0]]
    if outputs != ["boxes", "scores"]:
        raise QuantizationFailed(f"the outputs should be the rounded boxes and scores, but torchao prepared {outputs}")


def _read(graph: torch.fx.GraphModule, node: torch.fx.Node) -> str | None:
    """Returns the activation that a node gives after it was rounded, None if it was not."""
    node = _origin(node)
    return None if _fake_quantizer(graph, node) is None else _owner(node.args[0])


def _weight_bound(graph: torch.fx.GraphModule, convolution: torch.fx.Node) -> int | None:
    """Returns the greatest integer of a convolution's weights, None if they are not rounded."""
    fake = _fake_quantizer(graph, convolution.args[1])
    return None if fake is None else int(fake.quant_max)
