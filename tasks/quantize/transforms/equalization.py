"""Cross-layer equalization: channels rescaled between layers, so that one scale a tensor serves all of them.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1.
"""

from dataclasses import replace

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import Layer, layers
from tasks.detector.weights import RELU6_CAP, Detector
from tasks.quantize.transforms.base import Transform, register

GREATEST_SCALE = 64.0
"""A channel is divided by at most this and by at least its inverse, over all rounds."""

_NOTHING = 1 / (127 * GREATEST_SCALE)
"""Share of its tensor's range below which a channel's weights count as zero: no allowed scale would lift them to one
step of 8 bits, and what was never trained would only take the activations' range from the others."""

_ROUNDS = 300
_TOLERANCE = 5e-3
"""Rounds end when none rescales any channel by more than this share of itself."""


def equalized(detector: Detector, name: str = "equalized") -> Detector:
    """Rescales every channel between layers, with a cap a channel so that outputs stay the same.

    Channel i of a layer (weights and bias) is divided by s_i, input channel i of every layer that reads it is
    multiplied by s_i. The paper's s_i = sqrt(r1_i r2_i) / r2_i makes the ranges r of both sides equal; where several
    layers read a channel, r2 is the widest. Each range is taken as a share of its tensor's: that is what a scale a
    tensor is made for, and what makes layers comparable that read the same channel. Layers take turns until nothing
    changes.

    ReLU6 does not stand scaling, and its 6 is reached on real images by many channels. But
    min(relu(x), 6) / s = min(relu(x / s), 6 / s), so that each channel gets the cap 6 / s_i. A factor common to a
    layer's channels is free; it is chosen so that the greatest cap is 6. Then ReLU6 stays fused into the convolution,
    no activation is quantized over a wider range than before, and one MINIMUM a layer is all that is added.

    Args:
        detector: Architecture and weights.
        name: `equalized`.

    Returns:
        The detector with equalized weights, and caps for every layer but heads. Before the common factor s_i is in
        [1/64, 64]; it is 1 for channels that are zero on either side, as channels are that never were trained.
    """
    scales = _scales(detector, {layer.name: np.zeros(layer.out_channels) for layer in _inner(detector)})
    caps = {layer.name: _cap(detector, layer) / scales[layer.name] for layer in _inner(detector)}
    common = {name: cap.max() / RELU6_CAP for name, cap in caps.items()}
    even = _rescaled(detector, {name: scale * common[name] for name, scale in scales.items()})
    limits = {f"{name}/cap": (cap / common[name]).astype(np.float32) for name, cap in caps.items()}
    others = {key: tensor for key, tensor in even.items() if key not in limits}
    return replace(detector, tensors=others | {key: cap for key, cap in limits.items() if (cap != RELU6_CAP).any()})


def equalized_fused(detector: Detector, name: str = "equalized_fused") -> Detector:
    """Rescales only the channels that stay below 6 whatever the image, so that no operator is added.

    Interval arithmetic gives the greatest value B that a channel can take before its activation function: from inputs
    in [-1, 1] (image) or [0, cap]. If B is below the cap, the cap never acts, and it does not after division by
    s_i >= B / cap either. Most such channels are those of depthwise layers, whose sums are short.

    Args:
        detector: Architecture and weights.
        name: `equalized_fused`.

    Returns:
        The detector with other weights; caps as they were.
    """
    bounds = _bounds(detector)
    shares = {layer.name: bounds[layer.name] / _cap(detector, layer) for layer in _inner(detector)}
    least = {name: np.where(share < 1, share, np.inf) for name, share in shares.items()}
    return replace(detector, tensors=_rescaled(detector, _scales(detector, least)))


def _scales(detector: Detector, least: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Finds s of each layer's output channels, (channels,) float64, not below `least`; s = 1 where that is inf."""
    readers = _readers(detector)
    # Scales belong to channels, so that of each kernel's positions the widest alone counts.
    widest = {layer.name: np.abs(_weights(detector, layer)).max(axis=(0, 1)) for layer in layers(detector.spec)}
    scales = {layer.name: np.ones(layer.out_channels) for layer in _inner(detector)}
    for _ in range(_ROUNDS):
        change = 0.0
        for layer in _inner(detector):
            own = _scaled(widest[layer.name], layer, scales)
            written = _shares(own.max(axis=1 if layer.kind == "depthwise" else 0))
            read = [_shares(_scaled(widest[each.name], each, scales).max(axis=1)) for each in readers[layer.name]]
            wanted = scales[layer.name] * np.sqrt(_ratio(written, np.max(read, axis=0)))
            found = np.clip(wanted, np.maximum(least[layer.name], 1 / GREATEST_SCALE), GREATEST_SCALE)
            found[np.isinf(least[layer.name])] = 1.0
            change = max(change, float(np.abs(found / scales[layer.name] - 1).max()))
            scales[layer.name] = found
        if change < _TOLERANCE:
            break
    return scales


def _ratio(written: np.ndarray, read: np.ndarray) -> np.ndarray:
    both = (written > _NOTHING) & (read > _NOTHING)
    return np.divide(written, read, out=np.ones_like(written), where=both)


def _shares(ranges: np.ndarray) -> np.ndarray:
    greatest = ranges.max()
    return ranges / greatest if greatest > 0 else ranges


def _scaled(weights: np.ndarray, layer: Layer, scales: dict[str, np.ndarray]) -> np.ndarray:
    """Weights (..., in, out) of a layer, or (..., channels, 1), under the scales of what it reads and writes."""
    if layer.source in scales:
        weights = weights * scales[layer.source][:, None]
    if layer.name in scales:
        weights = weights / (scales[layer.name][:, None] if layer.kind == "depthwise" else scales[layer.name])
    return weights


def _rescaled(detector: Detector, scales: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors with weights and biases under the scales, and all others as they are."""
    changed = {}
    for layer in layers(detector.spec):
        changed[f"{layer.name}/weights"] = _scaled(_weights(detector, layer), layer, scales)
        if layer.name in scales:
            changed[f"{layer.name}/bias"] = detector.tensors[f"{layer.name}/bias"] / scales[layer.name]
    return detector.tensors | {key: value.astype(np.float32) for key, value in changed.items()}


def _bounds(detector: Detector) -> dict[str, np.ndarray]:
    """Greatest value of each channel before its activation function, by interval arithmetic."""
    bounds: dict[str, np.ndarray] = {}
    table = {layer.name: layer for layer in layers(detector.spec)}
    for layer in _inner(detector):
        weights = _weights(detector, layer)
        if layer.source == "image":
            greatest = np.abs(weights)
        else:
            source = table[layer.source]
            high = np.clip(bounds[source.name], 0, _cap(detector, source))
            greatest = np.maximum(weights, 0) * high[:, None]
        axes = (0, 1, 3) if layer.kind == "depthwise" else (0, 1, 2)
        bounds[layer.name] = greatest.sum(axis=axes) + detector.tensors[f"{layer.name}/bias"]
    return bounds


def _weights(detector: Detector, layer: Layer) -> np.ndarray:
    return detector.tensors[f"{layer.name}/weights"].astype(np.float64)


def _cap(detector: Detector, layer: Layer) -> np.ndarray:
    cap = detector.tensors.get(f"{layer.name}/cap")
    return np.full(layer.out_channels, RELU6_CAP) if cap is None else cap.astype(np.float64)


def _inner(detector: Detector) -> tuple[Layer, ...]:
    """The layers that other layers read."""
    return tuple(layer for layer in layers(detector.spec) if layer.kind != "head")


def _readers(detector: Detector) -> dict[str, list[Layer]]:
    found: dict[str, list[Layer]] = {}
    for layer in layers(detector.spec):
        found.setdefault(layer.source, []).append(layer)
    return found


register(Transform(pattern="equalized", example="equalized", apply=equalized))
register(Transform(pattern="equalized_fused", example="equalized_fused", apply=equalized_fused))
