"""Boxes: the code in which the detector gives them, and their overlap.

Source of the code: TensorFlow Object Detection API (TF1), `box_coders/faster_rcnn_box_coder.py`
(Ren et al. 2015, "Faster R-CNN", section 3.1.2), with the scale factors of the SSD configurations.
"""

import numpy as np

CENTER_SCALE = 10.0
"""Factor on the encoded offsets of the center (`y_scale`, `x_scale`)."""

SIZE_SCALE = 5.0
"""Factor on the encoded logarithms of the size (`height_scale`, `width_scale`)."""

_LEAST_SIDE = 1e-8
"""`EPSILON` of the box coder: the side of an empty box, whose logarithm must stay finite."""


def decode(encoded: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Turns the detector's box outputs into boxes.

    Args:
        encoded: (..., A, 4) float [ty, tx, th, tw].
        anchors: (A, 4) float [ycenter, xcenter, height, width] as shares of the image side.

    Returns:
        (..., A, 4) float32 [ymin, xmin, ymax, xmax] as shares of the image side, not clipped to the image.
    """
    code = np.asarray(encoded, np.float32)
    places = np.asarray(anchors, np.float32)
    centers = code[..., :2] * (places[:, 2:] / np.float32(CENTER_SCALE)) + places[:, :2]
    half = np.exp(code[..., 2:] / np.float32(SIZE_SCALE)) * (places[:, 2:] * np.float32(0.5))
    return np.concatenate([centers - half, centers + half], axis=-1)


def encode(boxes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Turns boxes into what the detector should give for them: the inverse of `decode`.

    Args:
        boxes: (..., A, 4) float [ymin, xmin, ymax, xmax] as shares of the image side. Sides below 1e-8 count as 1e-8.
        anchors: (A, 4) float [ycenter, xcenter, height, width] as shares of the image side, of positive size.

    Returns:
        (..., A, 4) float32 [ty, tx, th, tw].
    """
    corners = np.asarray(boxes, np.float32)
    places = np.asarray(anchors, np.float32)
    sides = np.maximum(corners[..., 2:] - corners[..., :2], np.float32(_LEAST_SIDE))
    centers = (corners[..., :2] + corners[..., 2:]) * np.float32(0.5)
    offsets = (centers - places[:, :2]) / places[:, 2:] * np.float32(CENTER_SCALE)
    return np.concatenate([offsets, np.log(sides / places[:, 2:]) * np.float32(SIZE_SCALE)], axis=-1)


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Computes the overlap of each box with each other: area of the intersection / area of the union.

    Args:
        first: (N, 4) float [ymin, xmin, ymax, xmax], in any unit.
        second: (M, 4) float, likewise.

    Returns:
        (N, M) float32 in [0, 1]; 0 where both boxes are empty.
    """
    one, other = np.asarray(first, np.float32)[:, None], np.asarray(second, np.float32)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared = np.prod(np.maximum(sides, 0), axis=-1)
    union = _areas(one) + _areas(other) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0).clip(0, 1)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)
