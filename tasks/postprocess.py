"""Postprocessing: raw outputs of an SSD to detections, the same for all runtimes.

Source: TensorFlow Object Detection API (TF1), `core/post_processing.py: multiclass_non_max_suppression`.

All classes are suppressed in one greedy pass over candidates of falling score. That gives what a pass for each class
gives, since boxes of different classes never suppress each other, and it can stop at `max_per_image` kept boxes:
everything after them scores lower. Only the candidates that are reached are sorted and decoded.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from tasks.detector.boxes import decode
from tasks.types import Postprocessing

_CHUNK = 192
"""Candidates that are compared pairwise at once: measured best for the usual few hundred that are needed."""


def detections_of(
    boxes: np.ndarray,
    scores: np.ndarray,
    anchors: np.ndarray,
    class_ids: Sequence[int],
    size: tuple[int, int],
    postprocessing: Postprocessing,
) -> np.ndarray:
    """Turns the outputs for one image into detections.

    Boxes are decoded and clipped to the image; those without area are dropped. In each class a box is suppressed if
    its IoU with a better kept one is above the threshold. Class id 0 is background and never detected.

    Args:
        boxes: (A, 4) float32, encoded [ty, tx, th, tw].
        scores: (A, C) float32 in [0, 1].
        anchors: (A, 4) float32 [ycenter, xcenter, height, width] as shares of the image side.
        class_ids: Category id of each score column.
        size: Height and width of the original image in pixels.
        postprocessing: Thresholds and limits.

    Returns:
        (N, 6) float32 [x, y, width, height, score, category id], boxes in pixels of the original image, by falling
        score; equal scores in the order of anchors, then columns.
    """
    ymin, xmin, ymax, xmax, score, category = _suppressed(boxes, scores, anchors, np.asarray(class_ids), postprocessing)
    height, width = np.float32(size[0]), np.float32(size[1])
    return np.stack(
        [xmin * width, ymin * height, (xmax - xmin) * width, (ymax - ymin) * height, score, category], axis=1
    )


def _suppressed(
    boxes: np.ndarray, scores: np.ndarray, anchors: np.ndarray, class_ids: np.ndarray, settings: Postprocessing
) -> np.ndarray:
    """Returns the kept boxes as (6, N) float32 [ymin, xmin, ymax, xmax, score, category id], by falling score."""
    foreground = scores.astype(np.float32)
    foreground[:, class_ids == 0] = -np.inf
    values = foreground.ravel()
    kept = np.empty((6, 0), np.float32)
    for chunk in _chunks(values, np.float32(settings.score_threshold)):
        anchor, column = np.divmod(chunk, len(class_ids))
        with np.errstate(over="ignore"):
            corners = decode(boxes[anchor], anchors[anchor])
        candidates = np.empty((6, len(chunk)), np.float32)
        np.clip(corners.T, 0, 1, out=candidates[:4])
        candidates[4], candidates[5] = values[chunk], class_ids[column]
        kept = _extended(kept, candidates[:, _areas(candidates) > 0], settings)
        if kept.shape[1] >= settings.max_per_image:
            break
    return kept[:, : settings.max_per_image]


def _chunks(values: np.ndarray, threshold: np.float32) -> Iterator[np.ndarray]:
    """Yields positions of the values above the threshold by falling value, equal ones by position, in chunks."""
    size, ceiling = 2 * _CHUNK, np.float32(np.inf)
    while ceiling > threshold:
        floor = threshold
        if size < len(values):
            floor = max(threshold, np.partition(values, len(values) - size)[len(values) - size])
        above = values > threshold if floor == threshold else values >= floor
        head = np.flatnonzero(above & (values < ceiling) if np.isfinite(ceiling) else above)
        head = head[np.argsort(-values[head], kind="stable")]
        for start in range(0, len(head), _CHUNK):
            yield head[start : start + _CHUNK]
        size, ceiling = size * 8, floor


def _extended(kept: np.ndarray, candidates: np.ndarray, settings: Postprocessing) -> np.ndarray:
    """Appends those candidates that neither a kept box nor a better candidate suppresses; boxes as (6, N)."""
    known, new = kept.shape[1], candidates.shape[1]
    ranked = np.concatenate([kept, candidates], axis=1)
    collide = _overlaps(ranked[:4], candidates[:4]) > settings.iou_threshold
    collide &= _rows(ranked[5], new) == candidates[5]
    chosen = known + np.array(_greedy(collide, known), np.int64)
    extended = np.concatenate([kept, ranked[:, chosen]], axis=1)
    if settings.max_per_class >= settings.max_per_image:
        return extended
    return extended[:, _ranks_in_class(extended[5]) < settings.max_per_class]


def _greedy(collide: np.ndarray, known: int) -> list[int]:
    """Chooses columns from the first to the last, leaving out what collides with a known or a chosen one.

    Args:
        collide: (known + N, N) bool. Row `known + i` belongs to column `i`.
        known: Rows that are chosen already.

    Returns:
        The chosen columns.
    """
    # A row as one Python integer: hundreds of columns are struck out by a single `or`.
    rows = [int.from_bytes(row, "little") for row in np.packbits(collide, axis=1, bitorder="little")]
    struck = 0
    for row in rows[:known]:
        struck |= row
    chosen = []
    for column, row in enumerate(rows[known:]):
        if not struck >> column & 1:
            chosen.append(column)
            struck |= row
    return chosen


def _overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the IoU of boxes (4, N) and (4, M) [ymin, xmin, ymax, xmax] as (N, M) float32."""
    starts, ends = _rows(first[:2], second.shape[1]), _rows(first[2:], second.shape[1])
    np.maximum(starts, second[:2, None], out=starts)
    np.minimum(ends, second[2:, None], out=ends)
    ends -= starts
    np.maximum(ends, 0, out=ends)
    shared = np.multiply(ends[0], ends[1], out=ends[0])
    union = _rows(_areas(first), second.shape[1])
    union += _areas(second)
    union -= shared
    return np.divide(shared, union, out=shared)


def _rows(values: np.ndarray, length: int) -> np.ndarray:
    """Repeats each value along a new last axis. NumPy's loops are several times slower on a broadcast last axis."""
    return np.repeat(values, length, axis=-1).reshape(*values.shape, length)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[2] - boxes[0]) * (boxes[3] - boxes[1])


def _ranks_in_class(categories: np.ndarray) -> np.ndarray:
    """Returns how many equal categories stand before each one."""
    order = np.argsort(categories, kind="stable")
    _, starts, counts = np.unique(categories[order], return_index=True, return_counts=True)
    ranks = np.empty(len(categories), np.int64)
    ranks[order] = np.arange(len(categories)) - np.repeat(starts, counts)
    return ranks
