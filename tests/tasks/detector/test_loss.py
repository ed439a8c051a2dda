import math

import numpy as np
import pytest

from tasks.detector.boxes import decode
from tasks.detector.loss import BACKGROUND, assign, detection_loss

# Four squares side by side, a quarter of the image wide.
ROW = np.array([[0.5, x, 0.25, 0.25] for x in (0.125, 0.375, 0.625, 0.875)], np.float32)


def box(center: float, width: float, height: float = 0.25) -> list[float]:
    return [0.5 - height / 2, center - width / 2, 0.5 + height / 2, center + width / 2]


def assigned(*boxes: list[float], columns: list[int] | None = None) -> list[int]:
    chosen = columns or list(range(len(boxes)))
    return assign(np.array(boxes).reshape(-1, 4), np.array(chosen, np.int64), ROW).columns.tolist()


def test_an_image_without_objects_is_all_background() -> None:
    targets = assign(np.empty((0, 4)), np.empty(0, np.int64), ROW)
    assert targets.columns.tolist() == [BACKGROUND] * 4
    assert not targets.codes.any()


def test_an_object_on_an_anchor_is_matched_with_that_anchor_alone() -> None:
    assert assigned(box(0.375, 0.25), columns=[7]) == [BACKGROUND, 7, BACKGROUND, BACKGROUND]


def test_an_anchor_that_overlaps_by_half_is_matched_and_one_that_overlaps_less_is_not() -> None:
    # Two anchors of the same place, of which the object fills 1/2 and 0.45: the first has IoU 0.5, the second 0.45;
    # a third takes the forced match.
    wide = np.array([[0.5, 0.5, 0.2, 0.4], [0.5, 0.5, 0.2, 0.4 / 0.9], [0.5, 0.5, 0.2, 0.2]], np.float32)
    targets = assign(np.array([box(0.5, 0.2, 0.2)]), np.array([3]), wide)
    assert targets.columns.tolist() == [3, BACKGROUND, 3]


def test_an_object_that_no_anchor_overlaps_by_half_still_takes_its_best_one() -> None:
    assert assigned(box(0.6, 0.05, 0.05), columns=[2]) == [BACKGROUND, BACKGROUND, 2, BACKGROUND]


def test_an_anchor_takes_the_object_that_it_overlaps_most() -> None:
    assert assigned(box(0.4, 0.25), box(0.375, 0.25))[1] == 1
    assert assigned(box(0.375, 0.25), box(0.64, 0.25)) == [BACKGROUND, 0, 1, BACKGROUND]


def test_a_forced_match_outranks_a_better_overlap_of_another_object() -> None:
    # The small object lies within the large one's anchor and has no other.
    assert assigned(box(0.375, 0.25), box(0.375, 0.05, 0.05))[1] == 1


def test_the_codes_of_matched_anchors_decode_to_the_object_and_others_are_zero() -> None:
    target = np.array([box(0.36, 0.22, 0.31), box(0.86, 0.3)], np.float32)
    targets = assign(target, np.array([0, 1]), ROW)
    matched = targets.columns != BACKGROUND
    assert targets.columns.tolist() == [BACKGROUND, 0, BACKGROUND, 1]
    np.testing.assert_allclose(decode(targets.codes, ROW)[matched], target, atol=1e-6)
    assert not targets.codes[~matched].any()


def losses(codes: object, logits: object, target_codes: object, target_columns: object) -> tuple[float, float]:
    import tensorflow as tf

    box_loss, score_loss = detection_loss(
        tf.constant(codes, tf.float32),
        tf.constant(logits, tf.float32),
        tf.constant(target_codes, tf.float32),
        tf.constant(target_columns, tf.int32),
    )
    return float(box_loss), float(score_loss)


def test_the_box_loss_is_quadratic_near_zero_linear_beyond_and_blind_to_background() -> None:
    codes = [[[0.5, 0, 0, 0], [3, 0, 0, 0], [100, 100, 100, 100]]]
    box_loss, _ = losses(codes, np.zeros((1, 3, 2)), np.zeros((1, 3, 4)), [[0, 1, BACKGROUND]])
    assert box_loss == pytest.approx((0.5 * 0.5**2 + 2.5) / 4 / 2)


def test_the_score_loss_is_the_focal_loss_divided_by_the_matches() -> None:
    logits = np.array([[[1.0, -2.0], [-1.0, 0.5]]])
    _, score_loss = losses(np.zeros((1, 2, 4)), logits, np.zeros((1, 2, 4)), [[0, BACKGROUND]])

    def focal(logit: float, is_wanted: bool) -> float:
        right = 1 / (1 + math.exp(-logit if is_wanted else logit))
        return (0.25 if is_wanted else 0.75) * (1 - right) ** 2 * -math.log(right)

    expected = focal(1.0, True) + focal(-2.0, False) + focal(-1.0, False) + focal(0.5, False)
    assert score_loss == pytest.approx(expected, rel=1e-5)


def test_the_losses_of_a_batch_are_divided_by_all_its_matches() -> None:
    one = losses(np.ones((1, 2, 4)), np.ones((1, 2, 3)), np.zeros((1, 2, 4)), [[1, BACKGROUND]])
    two = losses(np.ones((2, 2, 4)), np.ones((2, 2, 3)), np.zeros((2, 2, 4)), [[1, BACKGROUND]] * 2)
    assert two == pytest.approx(one, rel=1e-6)


def test_an_image_without_objects_has_no_box_loss_and_a_finite_score_loss() -> None:
    box_loss, score_loss = losses(np.ones((1, 2, 4)), np.zeros((1, 2, 3)), np.zeros((1, 2, 4)), [[BACKGROUND] * 2])
    assert box_loss == 0
    assert score_loss == pytest.approx(6 * 0.75 * 0.25 * math.log(2), rel=1e-5)
