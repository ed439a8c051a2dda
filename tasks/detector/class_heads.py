"""New class heads on an old detector, for categories that it does not know."""

import math
from dataclasses import replace

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import layers
from tasks.detector.weights import Detector

FIRST_SCORE = 0.01
"""What a new column scores anywhere before it is trained, so that the many background anchors do not drown the others
in the first updates (Lin et al. 2017, section 4.1); 1 less this for the background column."""

_DEVIATION = 0.01
_BACKGROUND_NAME = "???"


def with_new_classes(detector: Detector, categories: dict[int, str], seed: int) -> Detector:
    """Replaces the class heads of a detector; all other layers stay as they are.

    Args:
        detector: The old one. If it has a background column, so has the new one, as its first.
        categories: Name of each new category by its id, above 0.
        seed: Of the new weights.

    Returns:
        A detector that has yet to learn its classes.

    Raises:
        ValueError: If a category has the id 0, which is that of the background, or there is none.
    """
    if not categories or 0 in categories:
        raise ValueError(f"the new categories are {sorted(categories)}; they need ids above 0")
    background = {0: _BACKGROUND_NAME} if 0 in detector.spec.class_ids else {}
    columns = {**background, **dict(sorted(categories.items()))}
    spec = replace(detector.spec, class_ids=tuple(columns), class_names=tuple(columns.values()))
    rare = -math.log(1 / FIRST_SCORE - 1)
    bias = np.array([rare if category else -rare for category in columns], np.float32)
    random, tensors = np.random.default_rng(seed), dict(detector.tensors)
    for layer in layers(spec):
        if layer.name.endswith("_scores"):
            weights = random.normal(0, _DEVIATION, layer.weights_shape)
            tensors[f"{layer.name}/weights"] = weights.astype(np.float32)
            tensors[f"{layer.name}/bias"] = np.tile(bias, layer.out_channels // len(bias))
    return replace(detector, spec=spec, tensors=tensors)
