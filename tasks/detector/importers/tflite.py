"""Importer of `.tflite` files: float, or quantized per tensor or per channel.

Quantized weights and biases are de-quantized with their own scales; the result computes what the file approximates.
A quantized input with scale 1/128 and zero point 128 stands for (pixel - 128) / 128, while a `Detector` takes
(pixel - 127.5) / 127.5, which is what TF1 trains with. The two differ by at most 0.008 and are taken to be the same.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tasks.detector.boxes import CENTER_SCALE, SIZE_SCALE
from tasks.detector.importers.architecture import Shapes, StoredAnchors, infer_spec
from tasks.detector.importers.importer import Importer, first_bytes
from tasks.detector.importers.tflite_graph import (
    BOX_SCALES,
    IDENTIFIER,
    POSTPROCESS,
    Graph,
    Operation,
    Tensor,
    read_graph,
)
from tasks.detector.ssd_mobilenet_v1 import BACKBONE, Layer, layers
from tasks.detector.weights import Detector
from tasks.errors import ModelMistake

_KINDS = {"CONV_2D": "conv", "DEPTHWISE_CONV_2D": "depthwise"}
_SAME_VALUES = ("QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE", "CONCATENATION")
"""Operations that hand real values on, rearranged or in another type."""

_BACKBONE_LENGTH = 1 + 2 * len(BACKBONE)
_GREATEST_SIDE = 4096
"""Largest input in pixels that is believed: a damaged number must not cost gigabytes of anchors."""

_RANGE_SLACK = 0.1
"""How far a quantized range may be from the nominal one: ranges are nudged so that 0 is exact."""


@dataclass(eq=False)
class _Convolution:
    """A convolution of the graph and its neighbours."""

    operation: Operation
    source: "_Convolution | None"
    """The convolution that it reads; None for the image."""

    readers: list["_Convolution"] = field(default_factory=list)
    """The convolutions that read it."""

    role: str = "boxes"
    """For a head, which output it ends in."""


@dataclass(frozen=True, eq=False)
class _Network:
    """The convolutions, told apart."""

    trunk: list[_Convolution]
    """Those from the image to the last feature map, in order."""

    heads: list[tuple[int, _Convolution, _Convolution]]
    """(position in the trunk, box head, class head) of each feature map, finest first."""


def _recognizes(path: Path) -> bool:
    return first_bytes(path, 8)[4:] == IDENTIFIER or (path.is_file() and path.suffix == ".tflite")


def _read(path: Path) -> Detector:
    return read_tflite(path.read_bytes(), str(path))


def read_tflite(data: bytes, origin: str) -> Detector:
    """Reads a detector from a `.tflite` file, by the topology of its graph and not by names.

    Args:
        data: Content of the file.
        origin: What to call the file in an error.

    Returns:
        The detector.

    Raises:
        ModelMistake: If the content is damaged or not an SSD MobileNetV1.
    """
    graph = read_graph(data, origin)
    image_size = _image_size(graph, origin)
    network = _network(graph, origin)
    convolutions = [*network.trunk, *(head for _, *pair in network.heads for head in pair)]
    weights = [_weights(graph, conv.operation, origin) for conv in convolutions]
    widths = [bias.size for _, bias in weights]
    head_widths = widths[len(network.trunk) :]
    shapes = Shapes(
        image_size=image_size,
        backbone=tuple(widths[:_BACKBONE_LENGTH:2]),
        extras=tuple(widths[_BACKBONE_LENGTH + 1 : len(network.trunk) : 2]),
        source_blocks=tuple(place // 2 for place, _, _ in network.heads if place < _BACKBONE_LENGTH),
        box_channels=tuple(head_widths[::2]),
        score_channels=tuple(head_widths[1::2]),
    )
    spec = infer_spec(shapes, _stored_anchors(graph, origin), origin)
    table = layers(spec)
    if len(table) != len(convolutions):
        raise ModelMistake(f"{origin} is not an SSD MobileNetV1: not each of its extra layers carries heads")
    tensors: dict[str, np.ndarray] = {}
    for layer, conv, (kernel, bias) in zip(table, convolutions, weights, strict=True):
        _check(graph, layer, conv.operation, origin)
        tensors[f"{layer.name}/weights"], tensors[f"{layer.name}/bias"] = kernel, bias
    return Detector(spec, tensors)


def _image_size(graph: Graph, origin: str) -> int:
    image = graph.tensors[graph.inputs[0]]
    if len(image.shape) != 4 or image.shape[1] != image.shape[2] or image.shape[3] != 3:
        raise ModelMistake(f"{origin} takes {image.shape}; a detector takes (1, side, side, 3)")
    if image.shape[1] > _GREATEST_SIDE:
        raise ModelMistake(f"{origin} takes images of {image.shape[1]} pixels; the greatest side is {_GREATEST_SIDE}")
    limits = image.quantized_range
    if limits is not None and max(abs(limits[0] + 1), abs(limits[1] - 1)) > _RANGE_SLACK:
        raise ModelMistake(
            f"{origin} takes pixels as {limits[0]:.3f} to {limits[1]:.3f}; SSD MobileNetV1 takes -1 to 1"
        )
    return image.shape[1]


def _network(graph: Graph, origin: str) -> _Network:
    convolutions = _convolutions(graph, origin)
    first = [conv for conv in convolutions if conv.source is None]
    if len(first) != 1:
        raise ModelMistake(f"{origin} is not an SSD MobileNetV1: {len(first)} convolutions read its image, not one")
    trunk, heads = [first[0]], []
    while True:
        inner = [conv for conv in trunk[-1].readers if conv.readers]
        ends = {conv.role: conv for conv in trunk[-1].readers if not conv.readers}
        if len(ends) == 2:
            heads.append((len(trunk) - 1, ends["boxes"], ends["scores"]))
        if len(inner) > 1 or len(ends) == 1 or len(inner) + len(ends) != len(trunk[-1].readers):
            raise ModelMistake(
                f"{origin} is not an SSD MobileNetV1: convolution {len(trunk)} is read by {len(trunk[-1].readers)} "
                "others, which are not one next layer and a pair of box and class heads"
            )
        if not inner:
            break
        trunk.append(inner[0])
    places = [place for place, _, _ in heads]
    # Pointwise and extra 3x3 convolutions, which carry heads, have even places in the trunk.
    wrong = [place for place in places if place % 2]
    if len(trunk) < _BACKBONE_LENGTH or not heads or wrong:
        raise ModelMistake(
            f"{origin} is not an SSD MobileNetV1: it has {len(trunk)} convolutions in a row and {len(heads)} pairs of "
            f"heads; MobileNetV1 has {_BACKBONE_LENGTH} and an SSD at least one pair after them"
        )
    return _Network(trunk, heads)


def _convolutions(graph: Graph, origin: str) -> list[_Convolution]:
    """Lists the convolutions in order, linked to their sources through operations that hand values on."""
    behind: dict[int, _Convolution | None] = {graph.inputs[0]: None}
    found: list[_Convolution] = []
    for operation in graph.operations:
        if operation.name in _KINDS:
            if len(operation.inputs) != 3 or operation.inputs[0] not in behind or len(operation.outputs) != 1:
                raise ModelMistake(f"{origin} is not an SSD MobileNetV1: a convolution reads neither image nor layer")
            conv = _Convolution(operation, behind[operation.inputs[0]])
            if conv.source is not None:
                conv.source.readers.append(conv)
            found.append(conv)
            behind[operation.outputs[0]] = conv
        elif operation.name in ("QUANTIZE", "DEQUANTIZE") and behind.keys() >= set(operation.inputs):
            behind.update(dict.fromkeys(operation.outputs, behind[operation.inputs[0]]))
    reached = _leads_to_scores(graph)
    for conv in found:
        conv.role = "scores" if conv.operation.outputs[0] in reached else "boxes"
    return found


def _leads_to_scores(graph: Graph) -> set[int]:
    """Finds the tensors whose values reach a sigmoid unchanged."""
    reached: set[int] = set()
    for operation in reversed(graph.operations):
        hands_on = operation.name in _SAME_VALUES and reached.intersection(operation.outputs)
        if operation.name == "LOGISTIC" or hands_on:
            reached.update(operation.inputs)
    return reached


def _stored_anchors(graph: Graph, origin: str) -> StoredAnchors | None:
    for operation in graph.operations:
        if operation.name != POSTPROCESS or len(operation.inputs) != 3:
            continue
        wanted = dict(zip(BOX_SCALES, (CENTER_SCALE, CENTER_SCALE, SIZE_SCALE, SIZE_SCALE), strict=True))
        if operation.options != wanted:
            raise ModelMistake(f"{origin} decodes boxes with {operation.options}; only {wanted} are known")
        tensor = graph.tensors[operation.inputs[2]]
        rounding = float(tensor.scales[0]) / 2 if tensor.scales.size else 0.0
        return StoredAnchors(tensor.values(), rounding + 1e-5)
    return None


def _check(graph: Graph, layer: Layer, operation: Operation, origin: str) -> None:
    options = operation.options
    got = {
        "kind": _KINDS[operation.name],
        "stride": options["stride"],
        "padding": options["padding"],
        "dilation": options["dilation"],
        "channel multiplier": options["channel_multiplier"],
        "activation": _activation(graph, operation),
    }
    wanted = {
        "kind": "depthwise" if layer.kind == "depthwise" else "conv",
        "stride": (layer.stride, layer.stride),
        "padding": "SAME",
        "dilation": (1, 1),
        "channel multiplier": 1,
        "activation": "NONE" if layer.kind == "head" else "RELU6",
    }
    if layer.kind == "head" and got["activation"] == "RELU6" and options["activation"] == "NONE":
        # The range of a head says nothing: its values may by chance lie in 0 to 6.
        got["activation"] = "NONE"
    wrong = [f"{name} {got[name]} instead of {wanted[name]}" for name in wanted if got[name] != wanted[name]]
    if wrong:
        raise ModelMistake(f"{origin} is not an SSD MobileNetV1: {layer.name} has {', '.join(wrong)}")


def _activation(graph: Graph, operation: Operation) -> str:
    """Names the activation; a quantized layer may have it in its output's range alone."""
    fused = str(operation.options["activation"])
    limits = graph.tensors[operation.outputs[0]].quantized_range
    if fused in ("NONE", "RELU") and limits and abs(limits[0]) < _RANGE_SLACK and limits[1] < 6 + _RANGE_SLACK:
        return "RELU6"
    return fused


def _weights(graph: Graph, operation: Operation, origin: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns HWIO (depthwise HWC1) weights and the bias, as real numbers."""
    stored, bias = (_constant(graph, number, origin) for number in operation.inputs[1:])
    if len(stored.shape) != 4 or len(bias.shape) != 1:
        raise ModelMistake(f"{origin} has a convolution with weights {stored.shape} and a bias {bias.shape}")
    # OHWI to HWIO, and 1HWC to HWC1.
    return np.ascontiguousarray(stored.values().transpose(1, 2, 3, 0)), bias.values()


def _constant(graph: Graph, number: int, origin: str) -> Tensor:
    """Finds a constant, which float16 files store behind a de-quantization."""
    expansions = (op for op in graph.operations if op.name == "DEQUANTIZE" and number in op.outputs)
    for candidate in (number, *(before for expansion in expansions for before in expansion.inputs)):
        if candidate >= 0 and graph.tensors[candidate].is_constant:
            return graph.tensors[candidate]
    raise ModelMistake(f"{origin} is not a trained detector: a convolution's weights or bias are not constants")


IMPORTER = Importer("a .tflite file, float or quantized", _recognizes, _read)
