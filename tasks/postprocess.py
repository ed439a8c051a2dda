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

_CHUNK = 256
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
    collide = (_overlaps(ranked, candidates) > settings.iou_threshold) & (ranked[5][:, None] == candidates[5])
    better, worse = np.divmod(np.flatnonzero(collide), max(new, 1))
    worse += known
    behind = worse > better
    alive = np.ones(known + new, bool).tolist()
    # Pairs come by falling score of the better box, whose own fate is therefore settled.
    for first, second in zip(better[behind].tolist(), worse[behind].tolist(), strict=True):
        if alive[first]:
            alive[second] = False
    extended = ranked[:, alive]
    if settings.max_per_class >= settings.max_per_image:
        return extended
    return extended[:, _ranks_in_class(extended[5]) < settings.max_per_class]


def _overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the IoU of boxes (4+, N) and (4+, M), rows [ymin, xmin, ymax, xmax, ...], as (N, M) float32."""
    shared = _shared_lengths(first[0], first[2], second[0], second[2])
    shared *= _shared_lengths(first[1], first[3], second[1], second[3])
    union = np.add.outer(_areas(first), _areas(second))
    union -= shared
    return np.divide(shared, union, out=shared)


def _shared_lengths(starts: np.ndarray, ends: np.ndarray, other_starts: np.ndarray, other_ends: np.ndarray) -> np.ndarray:
    lengths = np.minimum.outer(ends, other_ends)
    lengths -= np.maximum.outer(starts, other_starts)
    return np.maximum(lengths, 0, out=lengths)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[2] - boxes[0]) * (boxes[3] - boxes[1])


def _ranks_in_class(categories: np.ndarray) -> np.ndarray:
    """Returns how many equal categories stand before each one."""
    order = np.argsort(categories, kind="stable")
    _, starts, counts = np.unique(categories[order], return_index=True, return_counts=True)
    ranks = np.empty(len(categories), np.int64)
    ranks[order] = np.arange(len(categories)) - np.repeat(starts, counts)
    return ranks
