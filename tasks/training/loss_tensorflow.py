"""What a wrong answer costs, in TensorFlow; `tasks.training.loss_torch` is its twin, operation by operation.

Sources: TensorFlow Object Detection API (TF1), `core/losses.py` (`WeightedSmoothL1LocalizationLoss`,
`WeightedSigmoidClassificationLoss`, `SigmoidFocalClassificationLoss`, `HardExampleMiner`) and
`meta_architectures/ssd_meta_arch.py: loss`. As the SSD MobileNetV1 configurations set them:
`normalize_loss_by_num_matches`, and `loss_type: CLASSIFICATION` of the miner; the rest is `LossSettings`.

Two things are unlike TF1. The miner's suppression of anchors whose predicted boxes overlap by more than 0.99 is left
out. And the score of the background column does not count: it is never read, and the configurations disagree about
what it should be for a background anchor, 1 or (`encode_background_as_zeros`, as the zoo's quantized detectors) 0. A
detector does not say which it was trained for, and learning the other one would cost it much of what it knows.
"""

from typing import Any

from tasks.detector.loss import LossSettings
from tasks.training.targets import BACKGROUND, IGNORED


def detection_loss(
    codes: Any, logits: Any, target_codes: Any, target_columns: Any, settings: LossSettings, background: int | None
) -> tuple[Any, Any]:
    """Computes the two losses of a batch against labels, each divided by its matched anchors (1 at least).

    Boxes: smooth L1 (Huber with delta 1), averaged over the four codes, of matched anchors. Scores: sigmoid
    cross-entropy, summed over the columns but background's. With hard negatives that of matched anchors, and in each
    image of the `negatives_per_match` times matches background anchors (rounded down; `least_negatives` at least) of
    greatest loss, the first of equal ones; with focal balance (Lin et al. 2017) that of all anchors but ignored ones.

    Args:
        codes: (B, A, 4) floating tensor, the box outputs.
        logits: (B, A, columns) floating tensor, the scores before the sigmoid.
        target_codes: (B, A, 4) tensor of the same type, `Targets.codes`.
        target_columns: (B, A) integer tensor, `Targets.columns`.
        settings: How background anchors are balanced. Its weights are not applied.
        background: Column of the background score (`targets.background_column`), None if there is none. It does not
            count.

    Returns:
        Scalar tensors in the type of `codes`: loss of the boxes, loss of the scores.
    """
    import tensorflow as tf

    is_matched = target_columns >= 0
    is_background = tf.equal(target_columns, BACKGROUND)
    matches = tf.cast(tf.maximum(tf.math.count_nonzero(is_matched), 1), codes.dtype)
    columns = tf.range(tf.shape(logits)[-1], dtype=target_columns.dtype)
    wanted = tf.cast(tf.equal(target_columns[..., tf.newaxis], columns), logits.dtype)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=logits)
    entropy *= tf.cast(tf.not_equal(columns, _place(background)), logits.dtype)
    if settings.balance == "focal":
        score_loss = tf.reduce_sum(_focal(entropy, logits, wanted, settings), axis=-1)
        is_counted = tf.not_equal(target_columns, IGNORED)
    else:
        score_loss = tf.reduce_sum(entropy, axis=-1)
        is_counted = is_matched | _hard_negatives(score_loss, is_matched, is_background, settings)
    box_loss = tf.reduce_mean(_smooth_l1(codes - target_codes), axis=-1)
    none = tf.zeros((), codes.dtype)
    return (
        tf.reduce_sum(tf.where(is_matched, box_loss, none)) / matches,
        tf.reduce_sum(tf.where(is_counted, score_loss, none)) / matches,
    )


def distillation_loss(codes: Any, logits: Any, teacher_codes: Any, teacher_logits: Any, background: int | None) -> Any:
    """Computes how far a student is from its teacher; no labels are needed (Hinton et al. 2015, for sigmoid scores).

    With the teacher's scores p (after the sigmoid), the sureness w of an anchor, which is its greatest p but
    background's, and n = max(sum of w, 1): the Kullback-Leibler divergence of the student's scores from p, summed over
    anchors and columns, plus the smooth L1 between the codes, averaged over the four and weighted by w, divided by n.

    Args:
        codes: (B, A, 4) floating tensor, the student's box outputs.
        logits: (B, A, columns) floating tensor, its scores before the sigmoid.
        teacher_codes: (B, A, 4) tensor of the same type, the teacher's box outputs; no gradient flows into them.
        teacher_logits: (B, A, columns) tensor of the same type, its scores before the sigmoid; likewise.
        background: Column of the background score (`targets.background_column`), None if there is none.

    Returns:
        Scalar tensor in the type of `codes`: 0 where both agree.
    """
    import tensorflow as tf

    teacher_codes, teacher_logits = tf.stop_gradient(teacher_codes), tf.stop_gradient(teacher_logits)
    scores = tf.sigmoid(teacher_logits)
    is_object = tf.not_equal(tf.range(tf.shape(scores)[-1]), _place(background))
    sureness = tf.reduce_max(scores * tf.cast(is_object, scores.dtype), axis=-1)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits
    divergence = tf.reduce_sum(entropy(labels=scores, logits=logits) - entropy(labels=scores, logits=teacher_logits))
    box_loss = tf.reduce_sum(sureness * tf.reduce_mean(_smooth_l1(codes - teacher_codes), axis=-1))
    return (divergence + box_loss) / tf.maximum(tf.reduce_sum(sureness), tf.ones((), sureness.dtype))


def _place(background: int | None) -> int:
    return -1 if background is None else background


def _smooth_l1(difference: Any) -> Any:
    import tensorflow as tf

    distance = tf.abs(difference)
    return tf.where(distance < 1.0, 0.5 * tf.square(distance), distance - 0.5)


def _focal(entropy: Any, logits: Any, wanted: Any, settings: LossSettings) -> Any:
    import tensorflow as tf

    # A power of the surprise would have the gradient 0 times infinity where that is rounded to 0.
    log_surprise = tf.math.log_sigmoid((1 - 2 * wanted) * logits)
    focal = tf.exp(settings.focal_gamma * log_surprise) * entropy
    if settings.focal_alpha is None:
        return focal
    return (wanted * settings.focal_alpha + (1 - wanted) * (1 - settings.focal_alpha)) * focal


def _hard_negatives(score_loss: Any, is_matched: Any, is_background: Any, settings: LossSettings) -> Any:
    import tensorflow as tf

    matches = tf.math.count_nonzero(is_matched, axis=1, keepdims=True, dtype=tf.int32)
    wanted = tf.cast(tf.cast(matches, tf.float32) * settings.negatives_per_match, tf.int32)
    wanted = tf.maximum(wanted, settings.least_negatives)
    least = tf.constant(float("-inf"), score_loss.dtype)
    losses = tf.where(is_background, tf.stop_gradient(score_loss), least)
    order = tf.argsort(losses, axis=1, direction="DESCENDING", stable=True)
    # The rank of an anchor is its place in that order: the inverse of the permutation.
    rank = tf.argsort(order, axis=1, stable=True)
    return is_background & (rank < wanted)
