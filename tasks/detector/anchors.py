"""The anchor boxes of an SSD.

Source: TensorFlow Object Detection API (TF1), `anchor_generators/multiple_grid_anchor_generator.py`
(`create_ssd_anchors`) and `anchor_generators/grid_anchor_generator.py` (`tile_anchors`).
"""

import math
from itertools import pairwise

import numpy as np

from tasks.detector.ssd_mobilenet_v1 import AnchorSpec, SSDMobileNetV1Spec, feature_map_sizes

_LOWEST_LAYER_SCALE = 0.1
"""Scale of the small square anchor of a reduced finest map, a constant of `create_ssd_anchors`."""


def anchors(spec: SSDMobileNetV1Spec) -> np.ndarray:
    """Makes the anchors of a detector, one for each row of its outputs.

    Args:
        spec: The architecture.

    Returns:
        (A, 4) float32 [ycenter, xcenter, height, width] as shares of the image side, not clipped to the image.
        Feature maps finest first; in each the locations row by row; in each the anchors of `box_shapes`.
    """
    grids = [
        _tile(size, shapes) for size, shapes in zip(feature_map_sizes(spec), box_shapes(spec), strict=True)
    ]  # fmt: skip
    return np.concatenate(grids)


def box_shapes(spec: SSDMobileNetV1Spec) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Lists scale and aspect ratio of the anchors at each location, as `create_ssd_anchors` does.

    Args:
        spec: The architecture.

    Returns:
        For each feature map, finest first, the (scale, width / height) of its anchors. The side of a square of
        scale 1 is the image side.
    """
    settings = spec.anchors
    scales = [*_scales(settings, spec.feature_maps), 1.0]
    return tuple(
        _shapes_at(settings, scale, following, reduced=index == 0 and settings.reduce_boxes_in_lowest_layer)
        for index, (scale, following) in enumerate(pairwise(scales))
    )


def _scales(settings: AnchorSpec, maps: int) -> list[float]:
    step = (settings.max_scale - settings.min_scale) / max(maps - 1, 1)
    return [settings.min_scale + step * index for index in range(maps)]


def _shapes_at(
    settings: AnchorSpec, scale: float, following: float, reduced: bool
) -> tuple[tuple[float, float], ...]:  # fmt: skip
    if reduced:
        return (_LOWEST_LAYER_SCALE, 1.0), (scale, 2.0), (scale, 0.5)
    shapes = [(scale, ratio) for ratio in settings.aspect_ratios]
    if settings.interpolated_scale_aspect_ratio > 0:
        shapes.append((math.sqrt(scale * following), settings.interpolated_scale_aspect_ratio))
    return tuple(shapes)


def _tile(size: int, shapes: tuple[tuple[float, float], ...]) -> np.ndarray:
    centers = (np.arange(size) + 0.5) / size
    grid = np.empty((size, size, len(shapes), 4), np.float64)
    grid[..., 0] = centers[:, None, None]
    grid[..., 1] = centers[None, :, None]
    grid[..., 2] = [scale / math.sqrt(ratio) for scale, ratio in shapes]
    grid[..., 3] = [scale * math.sqrt(ratio) for scale, ratio in shapes]
    return grid.reshape(-1, 4).astype(np.float32)
