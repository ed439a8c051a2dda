"""The opposite of equalization: a detector that computes the same and cannot be quantized a tensor at a time."""

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import RELU6_CAP, Detector


def spoiled(detector: Detector, octaves: float = 3.0, seed: int = 0) -> Detector:
    """Multiplies each channel between layers by a random factor, 2^-octaves to 2^octaves, and its cap with it."""
    random = np.random.default_rng(seed)
    factors = {
        layer.name: np.exp2(random.uniform(-octaves, octaves, layer.out_channels)).astype(np.float32)
        for layer in layers(detector.spec)
        if layer.kind != "head"
    }
    changed = {}
    for layer in layers(detector.spec):
        weights = detector.tensors[f"{layer.name}/weights"]
        if layer.source in factors:
            weights = weights / factors[layer.source][:, None]
        if layer.name in factors:
            own = factors[layer.name]
            weights = weights * (own[:, None] if layer.kind == "depthwise" else own)
            changed[f"{layer.name}/bias"] = detector.tensors[f"{layer.name}/bias"] * own
            changed[f"{layer.name}/cap"] = RELU6_CAP * own
        changed[f"{layer.name}/weights"] = weights
    return Detector(detector.spec, detector.tensors | changed)
