"""Ranges by layer: what trainings, and toolchains that do not start from a flatbuffer, quantize activations over."""

from collections.abc import Iterable, Mapping

from tasks.detector.ssd_mobilenet_v1 import Layer, layers
from tasks.detector.weights import RELU6_CAP, Detector
from tasks.errors import QuantizationFailed
from tasks.quantize.estimators import FIXED, Grid, estimator_of
from tasks.quantize.layer_names import layer_of
from tasks.quantize.ranges import INPUT_RANGE, LINEAR_RANGE, Ranges, activation_graph
from tasks.quantize.schemes import Scheme
from tasks.quantize.statistics import Statistics, TensorStatistics, joined

IMAGE = "image"
"""The name of the input among the layers' names, as in `Layer.source`."""


def layer_ranges(
    scheme: Scheme, detector: Detector, statistics: Statistics | None, are_heads_joined: bool = False
) -> Ranges:
    """Chooses the range of the input and of each layer's output, by the scheme's range estimator.

    Args:
        scheme: A static scheme with 8-bit activations.
        detector: Architecture, and caps if its ReLUs have some.
        statistics: Of the activations of the float32 .tflite of this detector, unless the estimator is `fixed`.
        are_heads_joined: Whether the heads of one role have one range, that of all their values, as where they are
            joined in integers; else each has its own.

    Returns:
        (low, high) by canonical name of the layer, and of the input under `image`. A layer's output is that after its
        activation function; low <= high, and the range reaches to zero only if the estimator makes it so.

    Raises:
        QuantizationFailed: If the statistics are missing, or of another detector.
    """
    axes = scheme.axes()
    if axes["range_estimator"] == FIXED:
        return {IMAGE: INPUT_RANGE} | {layer.name: _fixed(layer, detector) for layer in layers(detector.spec)}
    if statistics is None:
        raise QuantizationFailed(f"{axes['range_estimator']} ranges need statistics of calibration images")
    estimate = estimator_of(axes["range_estimator"])
    grid = Grid(bits=8, symmetric=axes.get("symmetry") == "symmetric")
    outputs = _outputs(detector, statistics)
    if are_heads_joined:
        outputs |= _joined_heads(detector, outputs)
    return {name: estimate(tensor, grid) for name, tensor in outputs.items()}


def tensor_ranges(model: bytes, ranges: Mapping[str, tuple[float, float]]) -> Ranges:
    """Gives each activation of a float flatbuffer the range of the layer that it belongs to.

    Tensors that quantization gives one scale (see `tasks.quantize.ranges.ranges_for`) get the range of their layer, or
    one that holds those of all their layers; the sigmoid's output gets what it can be.

    Args:
        model: The float32 .tflite of a detector.
        ranges: (low, high) by canonical name of the layer, and of the input under `image`.

    Returns:
        The ranges by name of the tensor.

    Raises:
        QuantizationFailed: If a layer of the model has no range.
    """
    graph = activation_graph(model)
    image = next(iter(graph.wholes))
    owners: dict[str, list[str]] = {graph.wholes[image]: [IMAGE]}
    for name, whole in graph.wholes.items():
        layer = layer_of(name)
        if layer:
            owners.setdefault(whole, []).append(layer)
    lost = [layer for found in owners.values() for layer in found if layer not in ranges]
    if lost:
        raise QuantizationFailed(f"the ranges of activations are of another detector: they lack {lost[0]}")
    known = {whole: _hull(ranges[layer] for layer in found) for whole, found in owners.items()}
    return {name: known.get(whole, graph.fixed[name]) for name, whole in graph.wholes.items()}


def _hull(ranges: Iterable[tuple[float, float]]) -> tuple[float, float]:
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)


def _joined_heads(detector: Detector, outputs: Mapping[str, TensorStatistics]) -> dict[str, TensorStatistics]:
    """Gives each head the statistics of all heads of its role."""
    heads = [layer.name for layer in layers(detector.spec) if layer.kind == "head"]
    roles: dict[str, list[str]] = {}
    for name in heads:
        roles.setdefault(name.rsplit("_", 1)[-1], []).append(name)
    return {
        name: whole
        for names in roles.values()
        for whole in [joined([outputs[name] for name in names])]
        for name in names
    }


def _fixed(layer: Layer, detector: Detector) -> tuple[float, float]:
    """Range of a layer's output where no images are looked at; see `tasks.quantize.ranges`."""
    if layer.kind == "head":
        return LINEAR_RANGE
    cap = detector.tensors.get(f"{layer.name}/cap")
    return 0.0, RELU6_CAP if cap is None else float(cap.max())


def _outputs(detector: Detector, statistics: Statistics) -> dict[str, TensorStatistics]:
    """Finds the statistics of the input, and of each layer's output: the last tensor under the layer's name.

    Where ReLUs have caps, the tensor after the convolution and its fused function is followed by that after MINIMUM.
    """
    names = {layer_of(tensor): tensor for tensor in statistics.tensors}
    table = layers(detector.spec)
    missing = [layer.name for layer in table if layer.name not in names]
    if missing:
        raise QuantizationFailed(f"the statistics of activations are of another model: they lack {missing[0]}")
    found = {IMAGE: statistics.tensor(statistics.tensors[0])}
    found |= {layer.name: statistics.tensor(names[layer.name]) for layer in table}
    sizes = {layer.name: layer.out_size**2 * layer.out_channels for layer in table}
    sizes[IMAGE] = 3 * detector.spec.image_size**2
    for name, tensor in found.items():
        if tensor.count != sizes[name] * len(statistics.images):
            raise QuantizationFailed(
                f"the statistics of activations are of another model: {name} has {sizes[name]} values an image, they "
                f"counted {tensor.count} in {len(statistics.images)} images"
            )
    return found
