"""Ranges by layer: what toolchains that do not start from a flatbuffer quantize activations over."""

from tasks.detector.ssd_mobilenet_v1 import Layer, layers
from tasks.detector.weights import RELU6_CAP, Detector
from tasks.errors import QuantizationFailed
from tasks.quantize.estimators import FIXED, Grid, estimator_of
from tasks.quantize.layer_names import layer_of
from tasks.quantize.ranges import INPUT_RANGE, LINEAR_RANGE, Ranges
from tasks.quantize.schemes import Scheme
from tasks.quantize.statistics import Statistics, TensorStatistics

IMAGE = "image"
"""The name of the input among the layers' names, as in `Layer.source`."""


def layer_ranges(scheme: Scheme, detector: Detector, statistics: Statistics | None) -> Ranges:
    """Chooses the range of the input and of each layer's output, by the scheme's range estimator.

    Each head has a range of its own: these toolchains join the heads in float.

    Args:
        scheme: A static scheme with 8-bit activations.
        detector: Architecture, and caps if its ReLUs have some.
        statistics: Of the activations of the float32 .tflite of this detector, unless the estimator is `fixed`.

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
    return {name: estimate(tensor, grid) for name, tensor in _outputs(detector, statistics).items()}


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
