"""What TF1 checkpoints and frozen graphs share: the names of the variables, and batch norm.

Source of the names: TensorFlow Object Detection API (TF1), `slim/nets/mobilenet_v1.py`,
`models/feature_map_generators.py: multi_resolution_feature_maps`, `predictors/convolutional_box_predictor.py`.
"""

import re
from collections.abc import Callable, Iterable

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import BACKBONE, Layer, SSDMobileNetV1Spec, layers
from tasks.detector.weights import Detector
from tasks.errors import ModelMistake

SOURCE_BLOCKS = (11, 13)
"""The blocks whose outputs carry heads in `ssd_mobilenet_v1_feature_extractor.py`."""

_BACKBONE = "FeatureExtractor/MobilenetV1/"
_EXTRA = re.compile(r"FeatureExtractor/MobilenetV1/Conv2d_13_pointwise_([12])_Conv2d_(\d+)_(1x1|3x3_s2)_\d+/weights")
_HEAD_SCOPES = {"boxes": "BoxEncodingPredictor", "scores": "ClassPredictor"}


def scopes(names: Iterable[str], origin: str) -> dict[str, str]:
    """Finds where the variables of each canonical layer are.

    Args:
        names: Names of all variables in the file.
        origin: What to call the file in an error.

    Returns:
        The variable scope of each layer by canonical name. Its weights are `weight_names`.

    Raises:
        ModelMistake: If the names are not those of an SSD MobileNetV1.
    """
    present = set(names)
    found = {"Conv2d_0": f"{_BACKBONE}Conv2d_0"}
    for block in range(1, len(BACKBONE) + 1):
        for part in ("depthwise", "pointwise"):
            found[f"Conv2d_{block}_{part}"] = f"{_BACKBONE}Conv2d_{block}_{part}"
    # The first extra layer is Conv2d_2: TF1 counts on from the two feature maps of the backbone.
    for match in filter(None, map(_EXTRA.fullmatch, present)):
        size = "1x1" if match[1] == "1" else "3x3"
        found[f"Extra_{int(match[2]) - len(SOURCE_BLOCKS)}_{size}"] = match[0].removesuffix("/weights")
    for index in range(_heads(present)):
        for role, scope in _HEAD_SCOPES.items():
            found[f"BoxPredictor_{index}_{role}"] = f"BoxPredictor_{index}/{scope}"
    missing = sorted(
        name for layer, scope in found.items() for name in [weight_name(layer, scope)] if name not in present
    )
    if missing or not _heads(present):
        raise ModelMistake(
            f"{origin} is not an SSD MobileNetV1: it lacks {len(missing)} of its variables, such as "
            f"{missing[0] if missing else 'BoxPredictor_0/BoxEncodingPredictor/weights'}"
        )
    return found


def _heads(names: set[str]) -> int:
    return sum(bool(re.fullmatch(r"BoxPredictor_\d+/BoxEncodingPredictor/weights", name)) for name in names)


def weight_name(layer: str, scope: str) -> str:
    """Returns the name of a layer's kernel, given its canonical name and its scope."""
    return f"{scope}/{'depthwise_weights' if layer.endswith('_depthwise') else 'weights'}"


def detector_of(
    spec: SSDMobileNetV1Spec,
    places: dict[str, str],
    read: Callable[[str], np.ndarray | None],
    epsilon: Callable[[str], float],
    origin: str,
) -> Detector:
    """Makes a detector of TF1 variables, folding the batch norms.

    Args:
        spec: The architecture.
        places: Variable scope of each layer, as `scopes` finds them.
        read: Returns a variable by name, or None if there is none.
        epsilon: Returns the batch norm's epsilon by variable scope.
        origin: What to call the file in an error.

    Returns:
        The detector.

    Raises:
        ModelMistake: If variables are missing or do not fit the architecture.
    """
    if unknown := sorted(places.keys() ^ {layer.name for layer in layers(spec)}):
        raise ModelMistake(f"{origin} is not the SSD MobileNetV1 that its settings say: they differ in {unknown[:3]}")
    tensors: dict[str, np.ndarray] = {}
    for layer in layers(spec):
        scope = places[layer.name]
        weights = _wanted(read, weight_name(layer.name, scope), layer.weights_shape, origin)
        if layer.kind == "head":
            bias = _wanted(read, f"{scope}/biases", (layer.out_channels,), origin)
        else:
            weights, bias = _folded(layer, weights, scope, read, epsilon(scope), origin)
        tensors[f"{layer.name}/weights"] = np.ascontiguousarray(weights, np.float32)
        tensors[f"{layer.name}/bias"] = np.ascontiguousarray(bias, np.float32)
    return Detector(spec, tensors)


def _folded(
    layer: Layer,
    weights: np.ndarray,
    scope: str,
    read: Callable[[str], np.ndarray | None],
    epsilon: float,
    origin: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Folds gamma * (w x - mean) / sqrt(variance + epsilon) + beta into one kernel and one bias, in float64."""
    channels = (layer.out_channels,)
    mean, variance = (
        _wanted(read, f"{scope}/BatchNorm/{name}", channels, origin) for name in ("moving_mean", "moving_variance")
    )
    if (variance + epsilon <= 0).any():
        raise ModelMistake(f"{origin}: {scope}/BatchNorm/moving_variance is not positive")
    gamma, beta = read(f"{scope}/BatchNorm/gamma"), read(f"{scope}/BatchNorm/beta")
    factor = (1.0 if gamma is None else gamma.astype(np.float64)) / np.sqrt(variance + epsilon)
    offset = 0.0 if beta is None else beta.astype(np.float64)
    spread = factor[:, None] if layer.kind == "depthwise" else factor
    return weights * spread, offset - mean * factor


def _wanted(
    read: Callable[[str], np.ndarray | None], name: str, shape: tuple[int, ...], origin: str
) -> np.ndarray:  # fmt: skip
    value = read(name)
    if value is None:
        raise ModelMistake(f"{origin} is not an SSD MobileNetV1: it lacks the variable {name}")
    if value.shape != shape:
        raise ModelMistake(f"{origin}: {name} has the shape {value.shape}; the architecture wants {shape}")
    return value.astype(np.float64)
