"""The loss that a configuration of the TF1 Object Detection API trains with."""

from pathlib import Path

from tasks.detector.anchors import anchors
from tasks.detector.importers.pipeline import choice_of, read_pipeline, spec_from_pipeline
from tasks.detector.importers.text_proto import Message
from tasks.detector.loss import LossSettings
from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec
from tasks.errors import ModelMistake

_CODES = 4.0
_LEAST_OVERLAP = 0.99
"""IoU of predicted boxes from which on the miner may suppress anchors: with a lower one it takes other negatives than
training here, which suppresses none."""

_UNKNOWN_FLAGS = (
    "use_confidences_as_targets",
    "weight_regression_loss_by_score",
    "use_expected_classification_loss_under_sampling",
)


def loss_of(config: Path, spec: SSDMobileNetV1Spec) -> LossSettings:
    """Reads what a detector was trained with.

    Args:
        config: A `pipeline.config`.
        spec: The detector's architecture.

    Returns:
        The loss.

    Raises:
        ModelMistake: If the file cannot be read, configures another detector, or a loss that is none of ours.
    """
    pipeline = read_pipeline(config)
    own = spec_from_pipeline(pipeline, str(config))
    got_and_wanted = {
        "depth multiplier": (own.depth_multiplier, spec.depth_multiplier),
        "image size": (own.image_size, spec.image_size),
        "number of score columns": (len(own.class_ids), len(spec.class_ids)),
    }
    wrong = [f"its {name} is {got}, not {wanted}" for name, (got, wanted) in got_and_wanted.items() if got != wanted]
    if wrong:
        raise ModelMistake(f"{config} configures another detector: {'; '.join(wrong)}")
    return loss_from_pipeline(pipeline, spec, str(config))


def loss_from_pipeline(pipeline: Message, spec: SSDMobileNetV1Spec, origin: str) -> LossSettings:
    """Reads the loss from a pipeline configuration.

    Args:
        pipeline: The parsed `pipeline.config`.
        spec: The architecture.
        origin: What to call the file in an error.

    Returns:
        The loss. Sigmoid cross-entropy of all anchors, without a miner, is focal loss of gamma 0 without an alpha.

    Raises:
        ModelMistake: If it is one that training here does not know, with what is unlike.
    """
    ssd = pipeline.message("model", "ssd")
    loss = ssd.message("loss")
    kind = choice_of(loss.message("classification_loss"))
    has_miner = loss.has("hard_example_miner")
    miner = loss.message("hard_example_miner")
    _refuse_unsupported(ssd, kind, len(anchors(spec)), origin)
    by_codes = ssd.flag("normalize_loc_loss_by_codesize", False)
    box_weight = loss.number("localization_weight", 1.0) * (1.0 if by_codes else _CODES)
    score_weight = loss.number("classification_weight", 1.0)
    try:
        if has_miner:
            return LossSettings(
                balance="hard_negatives",
                negatives_per_match=miner.number("max_negatives_per_positive", 0),
                least_negatives=int(miner.number("min_negatives_per_image", 0)),
                box_weight=box_weight,
                score_weight=score_weight,
            )
        focal = loss.message("classification_loss", "weighted_sigmoid_focal")
        return LossSettings(
            balance="focal",
            focal_alpha=focal.number("alpha", 0) if focal.has("alpha") else None,
            focal_gamma=focal.number("gamma", 2.0) if kind == "weighted_sigmoid_focal" else 0.0,
            box_weight=box_weight,
            score_weight=score_weight,
        )
    except ValueError as error:
        raise ModelMistake(f"{origin} configures no usable loss: {error}") from error


def _refuse_unsupported(ssd: Message, kind: str, anchor_count: int, origin: str) -> None:
    loss, matcher = ssd.message("loss"), ssd.message("matcher", "argmax_matcher")
    boxes = loss.message("localization_loss", "weighted_smooth_l1")
    has_miner = loss.has("hard_example_miner")
    kinds = ["weighted_sigmoid"] if has_miner else ["weighted_sigmoid", "weighted_sigmoid_focal"]
    got_and_wanted: dict[str, tuple[object, object]] = {
        "matcher": (choice_of(ssd.message("matcher")), "argmax_matcher"),
        "similarity_calculator": (choice_of(ssd.message("similarity_calculator")), "iou_similarity"),
        "matched_threshold": (matcher.number("matched_threshold", 0.5), 0.5),
        "unmatched_threshold": (matcher.number("unmatched_threshold", 0.5), 0.5),
        "ignore_thresholds": (matcher.flag("ignore_thresholds", False), False),
        "force_match_for_each_row": (matcher.flag("force_match_for_each_row", False), True),
        "normalize_loss_by_num_matches": (ssd.flag("normalize_loss_by_num_matches", True), True),
        "negative_class_weight": (ssd.number("negative_class_weight", 1.0), 1.0),
        **{name: (ssd.flag(name, False), False) for name in _UNKNOWN_FLAGS},
        "localization_loss": (choice_of(loss.message("localization_loss")), "weighted_smooth_l1"),
        "delta": (boxes.number("delta", 1.0), 1.0),
        "random_example_sampler": (loss.has("random_example_sampler"), False),
        "equalization_loss": (loss.message("equalization_loss").number("weight", 0), 0),
        "expected_loss_weights": (loss.text("expected_loss_weights", "NONE"), "NONE"),
    }
    if has_miner:
        miner = loss.message("hard_example_miner")
        got_and_wanted["hard_example_miner loss_type"] = (miner.text("loss_type", "BOTH"), "CLASSIFICATION")
        if not miner.number("max_negatives_per_positive", 0) > 0:
            got_and_wanted["hard_example_miner max_negatives_per_positive"] = (0, "above 0")
        count = miner.number("num_hard_examples", 64)
        overlap = miner.number("iou_threshold", 0.7)
        if overlap < _LEAST_OVERLAP:
            got_and_wanted["hard_example_miner iou_threshold"] = (overlap, f"at least {_LEAST_OVERLAP}")
        if 0 < count < anchor_count:
            got_and_wanted["hard_example_miner num_hard_examples"] = (count, f"at least the {anchor_count} anchors")
    wrong = [f"{name} is {got}, not {wanted}" for name, (got, wanted) in got_and_wanted.items() if got != wanted]
    if kind not in kinds:
        wrong.append(f"classification_loss is {kind}, not {' or '.join(kinds)}")
    if wrong:
        raise ModelMistake(f"{origin} configures a loss that is not supported: {'; '.join(wrong)}")
