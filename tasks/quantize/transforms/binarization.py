"""Binary weights: one bit a weight and one scale a channel. Simulated: no kernel here computes on bits."""

from dataclasses import replace

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import Layer, layers
from tasks.detector.weights import Detector
from tasks.quantize.transforms.base import Transform, register


def binarized(detector: Detector, name: str = "binary") -> Detector:
    """Replaces each weight by its sign times the mean size of its output channel's weights.

    Source: Rastegari et al. 2016, "XNOR-Net", section 3.1 (binary-weight networks): sign and mean |w| are the bits and
    the scale with the least squared error. Biases and the graph stay as they are. Without training on it a detector
    finds nothing any more; the transform shows what one bit a weight costs, and what the file would weigh.

    Args:
        detector: Architecture and weights.
        name: `binary`.

    Returns:
        The detector with at most two distinct weights in each output channel (of a depthwise layer: in each channel).
        Zero channels stay zero.
    """
    changed = {
        f"{layer.name}/weights": _binary(detector.tensors[f"{layer.name}/weights"], layer)
        for layer in layers(detector.spec)
    }
    return replace(detector, tensors=detector.tensors | changed)


def _binary(weights: np.ndarray, layer: Layer) -> np.ndarray:
    axes = (0, 1, 3) if layer.kind == "depthwise" else (0, 1, 2)
    scale = np.abs(weights.astype(np.float64)).mean(axis=axes, keepdims=True)
    # A zero counts as positive, as in the paper: a third value would take a second bit.
    signs: np.ndarray = np.where(weights < 0, -scale, scale)
    return signs.astype(np.float32)


register(Transform(pattern="binary", example="binary", apply=binarized))
