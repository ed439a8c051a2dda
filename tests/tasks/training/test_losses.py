"""The losses of both frameworks against a plain reference, each other and what they should do."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.detector.loss import LossSettings
from tasks.training.targets import BACKGROUND, IGNORED

HARD_NEGATIVES = LossSettings("hard_negatives")
BALANCES = [
    HARD_NEGATIVES,
    LossSettings("hard_negatives", negatives_per_match=1.5, least_negatives=5),
    LossSettings("focal"),
    LossSettings("focal", focal_alpha=0.75, focal_gamma=1.5),
    LossSettings("focal", focal_alpha=None, focal_gamma=0.0),
    LossSettings("focal", focal_gamma=0.5),
]
BACKGROUNDS = [None, 0]
Answers = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def torch_losses(*arrays: np.ndarray, settings: LossSettings, background: int | None = None) -> tuple[float, float]:
    import torch

    from tasks.training.loss_torch import detection_loss

    codes, logits, target_codes, found = map(torch.from_numpy, arrays)
    box, score = detection_loss(codes, logits, target_codes, found, settings, background)
    return float(box), float(score)


def keras_losses(*arrays: np.ndarray, settings: LossSettings, background: int | None = None) -> tuple[float, float]:
    import tensorflow as tf

    from tasks.training.loss_tensorflow import detection_loss

    codes, logits, target_codes, found = map(tf.constant, arrays)
    box, score = detection_loss(codes, logits, target_codes, found, settings, background)
    return float(box), float(score)


def torch_distillation(*arrays: np.ndarray, background: int | None = None) -> float:
    import torch

    from tasks.training.loss_torch import distillation_loss

    codes, logits, teacher_codes, teacher_logits = map(torch.from_numpy, arrays)
    return float(distillation_loss(codes, logits, teacher_codes, teacher_logits, background))


def keras_distillation(*arrays: np.ndarray, background: int | None = None) -> float:
    import tensorflow as tf

    from tasks.training.loss_tensorflow import distillation_loss

    codes, logits, teacher_codes, teacher_logits = map(tf.constant, arrays)
    return float(distillation_loss(codes, logits, teacher_codes, teacher_logits, background))


BOTH = pytest.mark.parametrize("losses", [torch_losses, keras_losses])
BOTH_DISTILLATIONS = pytest.mark.parametrize("distillation", [torch_distillation, keras_distillation])
Losses = Callable[..., tuple[float, float]]


def drawn(seed: int, images: int = 3, anchors: int = 40, columns: int = 6, dtype: Any = np.float32) -> Answers:
    """A batch with matched, ignored and background anchors; its last image has no objects."""
    random = np.random.default_rng(seed)
    codes, target_codes = random.normal(0, 1.5, (2, images, anchors, 4)).astype(dtype)
    logits = random.normal(-1, 2, (images, anchors, columns)).astype(dtype)
    kinds = random.random((images, anchors))
    found = np.where(kinds < 0.1, random.integers(1, columns, (images, anchors)), BACKGROUND)
    found = np.where(kinds > 0.9, IGNORED, found).astype(np.int32)
    found[0, :2] = 1
    found[-1][found[-1] >= 0] = BACKGROUND
    return codes, logits, target_codes, found


def plain_entropy(logit: float, wanted: float) -> float:
    return -wanted * math.log(1 / (1 + math.exp(-logit))) - (1 - wanted) * math.log(1 / (1 + math.exp(logit)))


def plain_losses(*batch: np.ndarray, settings: LossSettings, background: int | None = None) -> tuple[float, float]:
    """The definition, in loops."""
    codes: Any
    codes, logits, target_codes, found = (part.tolist() for part in batch)
    box_loss, score_loss, matches = 0.0, 0.0, 0
    for image in range(len(codes)):
        of_background, matched = [], 0
        for anchor, column in enumerate(found[image]):
            loss = 0.0
            for place, logit in enumerate(logits[image][anchor]):
                if place == background:
                    continue
                entropy = plain_entropy(logit, place == column)
                if settings.balance == "focal":
                    right = math.exp(-entropy)
                    alpha = settings.focal_alpha
                    entropy *= (1 - right) ** settings.focal_gamma
                    if alpha is not None:
                        entropy *= alpha if place == column else 1 - alpha
                loss += entropy
            if column >= 0:
                matched += 1
                score_loss += loss
                for given, wanted in zip(codes[image][anchor], target_codes[image][anchor], strict=True):
                    distance = abs(given - wanted)
                    box_loss += (distance * distance / 2 if distance < 1 else distance - 0.5) / 4
            elif column == BACKGROUND:
                of_background.append(loss)
        if settings.balance == "hard_negatives":
            count = max(int(settings.negatives_per_match * matched), settings.least_negatives)
            of_background = sorted(of_background)[::-1][:count]
        score_loss += sum(of_background)
        matches += matched
    return box_loss / max(matches, 1), score_loss / max(matches, 1)


@BOTH
@pytest.mark.parametrize("settings", BALANCES)
@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("seed", range(3))
def test_the_losses_are_those_of_a_plain_reference(
    losses: Losses, settings: LossSettings, background: int | None, seed: int
) -> None:
    batch = drawn(seed)
    expected = plain_losses(*batch, settings=settings, background=background)
    assert losses(*batch, settings=settings, background=background) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("options", BALANCES)
@pytest.mark.parametrize("background", BACKGROUNDS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**20), columns=st.integers(2, 8), images=st.integers(1, 3))
def test_keras_and_torch_give_equal_losses(
    options: LossSettings, background: int | None, seed: int, columns: int, images: int
) -> None:
    batch = drawn(seed, images, 40, columns)
    ours = torch_losses(*batch, settings=options, background=background)
    assert ours == pytest.approx(keras_losses(*batch, settings=options, background=background), rel=1e-5, abs=1e-6)
    codes, logits, teacher_codes, _ = batch
    answers = codes, logits, teacher_codes, logits[::-1].copy()
    theirs = keras_distillation(*answers, background=background)
    assert torch_distillation(*answers, background=background) == pytest.approx(theirs, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("options", BALANCES)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_keras_and_torch_give_equal_gradients(options: LossSettings, background: int | None) -> None:
    import tensorflow as tf
    import torch

    from tasks.training import loss_tensorflow, loss_torch

    codes, logits, target_codes, found = drawn(5)
    boxes, scores, wanted, columns = map(torch.from_numpy, (codes, logits, target_codes, found))
    places = boxes.requires_grad_(), scores.requires_grad_()
    parts = loss_torch.detection_loss(boxes, scores, wanted, columns, options, background)
    far = loss_torch.distillation_loss(boxes, scores, wanted, -scores, background)
    (parts[0] + parts[1] + far).backward()
    boxes, scores, wanted, columns = map(tf.constant, (codes, logits, target_codes, found))
    answers = [boxes, scores]
    with tf.GradientTape() as tape:
        tape.watch(answers)
        both = loss_tensorflow.detection_loss(boxes, scores, wanted, columns, options, background)
        total = tf.add_n(both) + loss_tensorflow.distillation_loss(boxes, scores, wanted, -scores, background)
    for ours, theirs in zip(places, tape.gradient(total, answers), strict=True):
        assert ours.grad is not None
        np.testing.assert_allclose(ours.grad.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", BALANCES)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_gradients_of_the_detection_loss_are_those_of_small_differences(
    options: LossSettings, background: int | None
) -> None:
    import torch

    from tasks.training.loss_torch import detection_loss

    codes, logits, target_codes, found = map(torch.from_numpy, drawn(1, 2, 12, 3, np.float64))
    assert torch.autograd.gradcheck(
        lambda boxes, scores: detection_loss(boxes, scores, target_codes, found, options, background),
        (codes.requires_grad_(), logits.requires_grad_()),
    )


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_gradients_of_the_distillation_loss_are_those_of_small_differences(background: int | None) -> None:
    import torch

    from tasks.training.loss_torch import distillation_loss

    codes, logits, teacher_codes, _ = map(torch.from_numpy, drawn(2, 2, 8, 3, np.float64))
    teacher = logits.flip(0).clone()
    assert torch.autograd.gradcheck(
        lambda boxes, scores: distillation_loss(boxes, scores, teacher_codes, teacher, background),
        (codes.requires_grad_(), logits.requires_grad_()),
    )


def test_no_gradient_flows_into_the_teacher() -> None:
    import torch

    from tasks.training.loss_torch import distillation_loss

    codes, logits, teacher_codes, _ = (torch.tensor(part) for part in drawn(2))
    teacher = teacher_codes.requires_grad_(), logits.clone().requires_grad_()
    distillation_loss(codes.requires_grad_(), logits.requires_grad_(), teacher[0], teacher[1], None).backward()
    assert [part.grad for part in teacher] == [None, None]


@BOTH
def test_the_box_loss_is_quadratic_near_zero_linear_beyond_and_blind_to_background(losses: Losses) -> None:
    codes = np.array([[[0.5, 0, 0, 0], [3, 0, 0, 0], [100, 100, 100, 100], [9, 9, 9, 9]]], np.float32)
    found = np.array([[0, 1, BACKGROUND, IGNORED]], np.int32)
    box_loss, _ = losses(codes, np.zeros((1, 4, 2), np.float32), np.zeros_like(codes), found, settings=HARD_NEGATIVES)
    assert box_loss == pytest.approx((0.5 * 0.5**2 + 2.5) / 4 / 2)


@BOTH
def test_the_worst_background_anchors_count_three_for_each_match_and_the_first_of_equal_ones(losses: Losses) -> None:
    logits = np.array([[[0.0], [-9], [1], [2], [1], [-5], [8]]], np.float32)
    found = np.array([[0, BACKGROUND, BACKGROUND, BACKGROUND, BACKGROUND, BACKGROUND, IGNORED]], np.int32)
    codes = np.zeros((1, 7, 4), np.float32)
    _, score_loss = losses(codes, logits, codes, found, settings=HARD_NEGATIVES)
    expected = plain_entropy(0, 1) + plain_entropy(2, 0) + 2 * plain_entropy(1, 0)
    assert score_loss == pytest.approx(expected, rel=1e-5)


def test_of_equal_negatives_the_first_learn_in_both_frameworks() -> None:
    import tensorflow as tf
    import torch

    from tasks.training import loss_tensorflow, loss_torch

    found = np.array([[BACKGROUND, BACKGROUND, 0, BACKGROUND, BACKGROUND, BACKGROUND]], np.int32)
    logits, codes = np.zeros((1, 6, 1), np.float32), np.zeros((1, 6, 4), np.float32)
    places = torch.from_numpy(logits).requires_grad_()
    loss_torch.detection_loss(
        torch.from_numpy(codes), places, torch.from_numpy(codes), torch.from_numpy(found), HARD_NEGATIVES, None
    )[1].backward()
    answers = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(answers)
        loss = loss_tensorflow.detection_loss(codes, answers, codes, tf.constant(found), HARD_NEGATIVES, None)[1]
    assert places.grad is not None
    wanted = [[True, True, True, True, False, False]]
    assert (places.grad[..., 0] != 0).tolist() == wanted
    assert (tape.gradient(loss, answers).numpy()[..., 0] != 0).tolist() == wanted


@BOTH
def test_the_negatives_of_an_image_are_counted_by_its_own_matches(losses: Losses) -> None:
    # The first image has the match, the second the worst background anchors.
    logits = np.array([[[0.0], [-9]], [[5], [5]]], np.float32)
    found = np.array([[0, BACKGROUND], [BACKGROUND, BACKGROUND]], np.int32)
    codes = np.zeros((2, 2, 4), np.float32)
    _, score_loss = losses(codes, logits, codes, found, settings=HARD_NEGATIVES)
    assert score_loss == pytest.approx(plain_entropy(0, 1) + plain_entropy(-9, 0), rel=1e-5)


@BOTH
def test_without_objects_only_the_focal_loss_has_something_to_say(losses: Losses) -> None:
    batch = drawn(3, images=1)
    assert losses(*batch, settings=HARD_NEGATIVES) == (0, 0)
    box_loss, score_loss = losses(*batch, settings=LossSettings(balance="focal"))
    assert box_loss == 0
    assert score_loss == pytest.approx(plain_losses(*batch, settings=LossSettings(balance="focal"))[1], rel=1e-5)


@BOTH
@pytest.mark.parametrize("settings", BALANCES)
def test_the_score_of_the_background_column_does_not_count(losses: Losses, settings: LossSettings) -> None:
    codes, logits, target_codes, found = drawn(4)
    before = losses(codes, logits, target_codes, found, settings=settings, background=0)
    logits[..., 0] = 7
    assert losses(codes, logits, target_codes, found, settings=settings, background=0) == before


@BOTH
@pytest.mark.parametrize("settings", BALANCES)
def test_ignored_anchors_do_not_count(losses: Losses, settings: LossSettings) -> None:
    codes, logits, target_codes, found = drawn(4)
    before = losses(codes, logits, target_codes, found, settings=settings)
    logits[found == IGNORED] = 9
    codes[found == IGNORED] = 9
    assert losses(codes, logits, target_codes, found, settings=settings) == before


@BOTH
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**20), data=st.data())
def test_the_order_of_images_does_not_change_the_losses(losses: Losses, seed: int, data: st.DataObject) -> None:
    batch = drawn(seed)
    order = data.draw(st.permutations(range(3)))
    options = data.draw(st.sampled_from(BALANCES))
    expected = losses(*batch, settings=options)
    assert losses(*(part[order] for part in batch), settings=options) == pytest.approx(expected, rel=1e-5)


@BOTH
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**20), few=st.floats(0, 5), more=st.floats(0, 5))
def test_more_negatives_never_lower_the_score_loss(losses: Losses, seed: int, few: float, more: float) -> None:
    counts = [LossSettings("hard_negatives", negatives_per_match=each) for each in (few, few + more)]
    one, other = (losses(*drawn(seed), settings=settings)[1] for settings in counts)
    assert other >= one * (1 - 1e-6)


@BOTH
@pytest.mark.parametrize("settings", BALANCES)
def test_a_perfect_answer_costs_nothing(losses: Losses, settings: LossSettings) -> None:
    _, logits, target_codes, found = drawn(6)
    sure = np.where(np.arange(logits.shape[-1]) == found[..., None], 40, -40).astype(np.float32)
    box_loss, score_loss = losses(target_codes, sure, target_codes, found, settings=settings)
    assert box_loss == 0
    assert score_loss == pytest.approx(0, abs=1e-9)


@BOTH
@pytest.mark.parametrize("settings", BALANCES)
def test_the_losses_of_a_batch_are_divided_by_all_its_matches(losses: Losses, settings: LossSettings) -> None:
    batch = [part[:1] for part in drawn(7)]
    twice = [np.concatenate([part, part]) for part in batch]
    assert losses(*twice, settings=settings) == pytest.approx(losses(*batch, settings=settings), rel=1e-5)


@BOTH
@pytest.mark.parametrize("settings", BALANCES)
def test_absurd_answers_have_finite_losses(losses: Losses, settings: LossSettings) -> None:
    codes, logits, target_codes, found = drawn(8)
    assert np.isfinite(losses(codes * 1e6, logits * 1e4, target_codes, found, settings=settings)).all()


def torch_score_gradient(logits: np.ndarray, found: np.ndarray, settings: LossSettings) -> np.ndarray:
    import torch

    from tasks.training.loss_torch import detection_loss

    codes, places = torch.zeros((*found.shape, 4)), torch.tensor(logits, requires_grad=True)
    detection_loss(codes, places, codes, torch.from_numpy(found), settings, None)[1].backward()
    assert places.grad is not None
    return places.grad.numpy()


def keras_score_gradient(logits: np.ndarray, found: np.ndarray, settings: LossSettings) -> np.ndarray:
    import tensorflow as tf

    from tasks.training.loss_tensorflow import detection_loss

    codes, places = tf.zeros((*found.shape, 4)), tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(places)
        loss = detection_loss(codes, places, codes, tf.constant(found), settings, None)[1]
    gradient: np.ndarray = tape.gradient(loss, places).numpy()
    return gradient


def plain_focal_gradient(logit: float, is_wanted: bool, gamma: float) -> float:
    """The derivative of surprise ** gamma * entropy, whose parts are taken as logarithms."""
    side = -1 if is_wanted else 1
    far = side * logit
    entropy = max(far, 0) + math.log1p(math.exp(-abs(far)))
    log_surprise = far - entropy
    return side * (gamma * math.exp(gamma * log_surprise - entropy) * entropy + math.exp((gamma + 1) * log_surprise))


@pytest.mark.parametrize("gradient", [torch_score_gradient, keras_score_gradient])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_the_focal_loss_of_absurd_scores_has_the_gradient_that_calculus_gives(
    gradient: Callable[..., np.ndarray], gamma: float
) -> None:
    logits = [sign * size for size in (0.5, 20, 110, 1e4, 1e30) for sign in (-1, 1)]
    found = np.array([[0] * len(logits) + [BACKGROUND] * len(logits)], np.int32)
    answers = np.array(2 * logits, np.float32).reshape(1, -1, 1)
    settings = LossSettings("focal", focal_alpha=None, focal_gamma=gamma)
    expected = [plain_focal_gradient(logit, is_wanted, gamma) for is_wanted in (True, False) for logit in logits]
    given = gradient(answers, found, settings)[0, :, 0] * len(logits)
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-8)


@BOTH_DISTILLATIONS
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_student_that_answers_as_its_teacher_costs_nothing_and_any_other_something(
    distillation: Callable[..., float], background: int | None
) -> None:
    codes, logits, other_codes, _ = drawn(9)
    assert distillation(codes, logits, codes, logits, background=background) == 0
    assert distillation(codes, logits, other_codes, logits, background=background) > 0
    assert distillation(codes, logits + np.float32(0.1), codes, logits, background=background) > 0
    assert distillation(codes, logits - np.float32(0.1), codes, logits, background=background) > 0


@BOTH_DISTILLATIONS
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_distillation_loss_is_that_of_a_plain_reference(
    distillation: Callable[..., float], background: int | None
) -> None:
    codes, logits, teacher_codes, _ = drawn(10)
    teacher = logits[::-1].copy()
    total, sureness = 0.0, 0.0
    for place in np.ndindex(*codes.shape[:2]):
        scores = [1 / (1 + math.exp(-logit)) for logit in teacher[place].tolist()]
        mine = [1 / (1 + math.exp(-logit)) for logit in logits[place].tolist()]
        for p, q in zip(scores, mine, strict=True):
            total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        sure = max(score for column, score in enumerate(scores) if column != background)
        distances = [abs(one - other) for one, other in zip(codes[place], teacher_codes[place], strict=True)]
        total += sure * sum(d * d / 2 if d < 1 else d - 0.5 for d in distances) / 4
        sureness += sure
    found = distillation(codes, logits, teacher_codes, teacher, background=background)
    assert found == pytest.approx(total / max(sureness, 1), rel=1e-4)


@BOTH_DISTILLATIONS
def test_a_teacher_that_sees_nothing_makes_no_loss_of_boxes(distillation: Callable[..., float]) -> None:
    codes, logits, other_codes, _ = drawn(11)
    unsure = np.full_like(logits, -60)
    unsure[..., 0] = 60
    assert distillation(codes, unsure, other_codes, unsure, background=0) == pytest.approx(0, abs=1e-9)
    assert distillation(codes, unsure, other_codes, unsure, background=None) > 0.1
