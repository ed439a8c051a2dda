"""Targets: which anchor has to find which object. One definition for every framework.

Source: TensorFlow Object Detection API (TF1), `matchers/argmax_matcher.py` (`matched_threshold: 0.5`,
`unmatched_threshold: 0.5`, `force_match_for_each_row: true`) and `core/target_assigner.py`.
"""

from dataclasses import dataclass

import numpy as np

from tasks.detector.boxes import encode, iou
from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec

MATCHED_IOU = 0.5
"""An anchor whose best overlap with an object is at least this has to find that object."""

CROWDED_SHARE = 0.5
"""An unmatched anchor more of whose area than this lies in a crowd is ignored."""

BACKGROUND = -1
"""Column of an anchor that has to find nothing."""

IGNORED = -2
"""Column of an anchor whose answer does not count: it lies in a crowd."""


@dataclass(frozen=True, eq=False)
class Targets:
    """What each anchor should give for one image."""

    codes: np.ndarray
    """(A, 4) float32 [ty, tx, th, tw] of the matched object; 0 for background and where ignored."""

    columns: np.ndarray
    """(A,) int32 score column of the matched object, `BACKGROUND` for none, `IGNORED` where nothing counts."""


def background_column(spec: SSDMobileNetV1Spec) -> int | None:
    """Returns the score column of class id 0, which is no category, or None if there is none."""
    return spec.class_ids.index(0) if 0 in spec.class_ids else None


def assign(boxes: np.ndarray, columns: np.ndarray, anchors: np.ndarray, crowds: np.ndarray | None = None) -> Targets:
    """Matches the anchors with the objects of one image.

    An anchor takes the object that it overlaps most, the first of equal ones, if by `MATCHED_IOU` at least. In any
    case each object takes the anchor that overlaps it most, the first of equal ones; where objects want the same one,
    the first of them has it (`argmax_matcher.py: _match`: `tf.argmax` of the one-hot rows over the rows). Unlike there,
    an object that overlaps no anchor at all takes none: there it would take the first anchor of the detector.

    Crowds are not to be found; an anchor without an object is ignored if more than `CROWDED_SHARE` of its own area
    lies in one of them.

    Args:
        boxes: (N, 4) float [ymin, xmin, ymax, xmax] of the objects as shares of the image side; N may be 0.
        columns: (N,) int score column of each object.
        anchors: (A, 4) float [ycenter, xcenter, height, width] as shares of the image side.
        crowds: (N,) bool, which of the objects are crowds; None for no crowds.

    Returns:
        The targets.
    """
    found = np.full(len(anchors), BACKGROUND, np.int32)
    codes = np.zeros((len(anchors), 4), np.float32)
    if not len(boxes):
        return Targets(codes, found)
    half = anchors[:, 2:] / 2
    corners = np.concatenate([anchors[:, :2] - half, anchors[:, :2] + half], axis=1)
    is_crowd = np.zeros(len(boxes), bool) if crowds is None else np.asarray(crowds, bool)
    found[(shares_inside(corners, boxes[is_crowd]) > CROWDED_SHARE).any(axis=1)] = IGNORED
    objects = boxes[~is_crowd]
    if len(objects):
        matched, chosen = _matches(iou(corners, objects))
        found[matched] = np.asarray(columns)[~is_crowd][chosen]
        codes[matched] = encode(objects[chosen], anchors[matched])
    return Targets(codes, found)


def shares_inside(boxes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Computes which share of the area of each box lies in each window.

    Args:
        boxes: (N, 4) float [ymin, xmin, ymax, xmax], in any unit.
        windows: (M, 4) float, likewise.

    Returns:
        (N, M) float64 in [0, 1]; 0 for empty boxes.
    """
    box, window = np.asarray(boxes, np.float64)[:, None], np.asarray(windows, np.float64)[None]
    sides = np.minimum(box[..., 2:], window[..., 2:]) - np.maximum(box[..., :2], window[..., :2])
    shared = np.prod(np.maximum(sides, 0), axis=-1)
    areas = np.broadcast_to(np.prod(np.maximum(box[..., 2:] - box[..., :2], 0), axis=-1), shared.shape)
    return np.divide(shared, areas, out=np.zeros_like(shared), where=areas > 0)


def _matches(overlap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the matched anchors, rising, and the object of each, by (anchors, objects) overlap."""
    best = overlap.argmax(axis=1)
    is_matched = overlap.max(axis=1) >= MATCHED_IOU
    reached = np.flatnonzero(overlap.max(axis=0) > 0)
    # Of equal indices the last assignment stays, so the first object comes last.
    forced = overlap.argmax(axis=0)[reached][::-1]
    best[forced], is_matched[forced] = reached[::-1], True
    matched = np.flatnonzero(is_matched)
    return matched, best[matched]
