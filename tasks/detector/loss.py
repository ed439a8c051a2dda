"""The training loss of an SSD: which anchor has to find which object, and what a wrong answer costs.

Source: TensorFlow Object Detection API (TF1), `matchers/argmax_matcher.py`, `core/target_assigner.py`,
`core/losses.py` and `meta_architectures/ssd_meta_arch.py: loss`. Of the two ways in which its SSD configurations
weigh the many background anchors, hard negative mining and focal loss (Lin et al. 2017, "Focal Loss for Dense Object
Detection"), this is focal loss: from scratch it needs no ranking of anchors by a loss that means nothing yet.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.detector.boxes import encode, iou

MATCHED_IOU = 0.5
"""An anchor whose best overlap with an object is at least this has to find that object."""

BACKGROUND = -1
"""Column of an anchor that has to find nothing."""

_FOCAL_ALPHA = 0.25
_FOCAL_GAMMA = 2.0


@dataclass(frozen=True, eq=False)
class Targets:
    """What each anchor should give for one image."""

    codes: np.ndarray
    """(A, 4) float32 [ty, tx, th, tw] of the matched object; 0 for background."""

    columns: np.ndarray
    """(A,) int32 score column of the matched object, `BACKGROUND` for none."""


def assign(boxes: np.ndarray, columns: np.ndarray, anchors: np.ndarray) -> Targets:
    """Matches the anchors with the objects of one image.

    An anchor takes the object that it overlaps most, if by `MATCHED_IOU` at least. In any case each object takes the
    anchor that overlaps it most; where objects want the same one, the last has it.

    Args:
        boxes: (N, 4) float [ymin, xmin, ymax, xmax] of the objects as shares of the image side; N may be 0.
        columns: (N,) int score column of each object.
        anchors: (A, 4) float [ycenter, xcenter, height, width] as shares of the image side.

    Returns:
        The targets.
    """
    found = np.full(len(anchors), BACKGROUND, np.int32)
    codes = np.zeros((len(anchors), 4), np.float32)
    if not len(boxes):
        return Targets(codes, found)
    half = anchors[:, 2:] / 2
    overlap = iou(np.concatenate([anchors[:, :2] - half, anchors[:, :2] + half], axis=1), boxes)
    best = overlap.argmax(axis=1)
    is_matched = overlap.max(axis=1) >= MATCHED_IOU
    forced = overlap.argmax(axis=0)
    best[forced], is_matched[forced] = np.arange(len(boxes)), True
    found[is_matched] = np.asarray(columns)[best[is_matched]]
    codes[is_matched] = encode(boxes[best[is_matched]], anchors[is_matched])
    return Targets(codes, found)


def detection_loss(codes: Any, logits: Any, target_codes: Any, target_columns: Any) -> tuple[Any, Any]:
    """Computes the two losses of a batch, each divided by the number of matched anchors (1 at least).

    Args:
        codes: (B, A, 4) float32 tensor, the box outputs.
        logits: (B, A, classes) float32 tensor, the scores before the sigmoid.
        target_codes: (B, A, 4) float32 tensor, `Targets.codes`.
        target_columns: (B, A) int32 tensor, `Targets.columns`.

    Returns:
        Scalars: the smooth L1 loss of the boxes of matched anchors (Huber with delta 1, averaged over the four codes:
        the configurations' `normalize_loc_loss_by_codesize`)
        and the sigmoid focal loss of all scores (alpha 0.25, gamma 2, summed over classes).
    """
    import tensorflow as tf

    is_matched = tf.cast(target_columns != BACKGROUND, tf.float32)
    matches = tf.maximum(tf.reduce_sum(is_matched), 1.0)
    distance = tf.abs(codes - target_codes)
    box_loss = tf.reduce_mean(tf.where(distance < 1.0, 0.5 * tf.square(distance), distance - 0.5), axis=-1)
    wanted = tf.one_hot(target_columns, tf.shape(logits)[-1])
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=logits)
    scores = tf.sigmoid(logits)
    surprise = wanted * (1 - scores) + (1 - wanted) * scores
    alpha = wanted * _FOCAL_ALPHA + (1 - wanted) * (1 - _FOCAL_ALPHA)
    score_loss = alpha * surprise**_FOCAL_GAMMA * entropy
    return tf.reduce_sum(box_loss * is_matched) / matches, tf.reduce_sum(score_loss) / matches
