"""Losses of TF1 configurations: which of them is which of ours, and what is refused."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tasks.detector.importers.pipeline import read_pipeline, spec_from_pipeline
from tasks.detector.importers.pipeline_loss import loss_from_pipeline, loss_of
from tasks.detector.importers.text_proto import parse
from tasks.detector.loss import REFERENCES, LossSettings, described, loss_for
from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec
from tasks.detector.weights import Detector, with_metadata
from tasks.errors import ModelMistake

FOCAL = """
  loss {
    classification_loss { weighted_sigmoid_focal { alpha: 0.75, gamma: 2.0 } }
    localization_loss { weighted_smooth_l1 { } }
    classification_weight: 1.0
    localization_weight: 1.0
  }
  normalize_loss_by_num_matches: true
  normalize_loc_loss_by_codesize: true
"""
MINER = """
  loss {
    classification_loss { weighted_sigmoid { } }
    localization_loss { weighted_smooth_l1 { } }
    hard_example_miner {
      num_hard_examples: 3000 iou_threshold: 0.99 loss_type: CLASSIFICATION
      max_negatives_per_positive: 3 min_negatives_per_image: 2
    }
    classification_weight: 1.0
    localization_weight: 0.5
  }
"""
HEAD = """
  num_classes: 90
  box_coder { faster_rcnn_box_coder { } }
  similarity_calculator { iou_similarity { } }
  image_resizer { fixed_shape_resizer { height: 300 width: 300 } }
  matcher { argmax_matcher { matched_threshold: 0.5 unmatched_threshold: 0.5 force_match_for_each_row: true } }
  feature_extractor { type: 'ssd_mobilenet_v1' depth_multiplier: 0.75 conv_hyperparams { activation: RELU_6 } }
  post_processing { score_converter: SIGMOID }
"""
SPEC = SSDMobileNetV1Spec(depth_multiplier=0.75)


def _loss(text: str) -> LossSettings:
    return loss_from_pipeline(parse(f"model {{ ssd {{ {HEAD} {text} }} }}", "c"), SPEC, "c")


def test_focal_loss_has_the_alpha_and_the_gamma_of_the_configuration():
    assert _loss(FOCAL) == LossSettings("focal", focal_alpha=0.75, focal_gamma=2.0)
    assert _loss(FOCAL.replace("alpha: 0.75, gamma: 2.0", "")) == LossSettings("focal", focal_alpha=None)


def test_a_miner_makes_hard_negatives_and_boxes_weigh_four_times_as_much_where_codes_are_summed():
    expected = LossSettings("hard_negatives", negatives_per_match=3.0, least_negatives=2, box_weight=2.0)
    assert _loss(MINER) == expected
    assert _loss(f"{MINER} normalize_loc_loss_by_codesize: true") == replace(expected, box_weight=0.5)


def test_sigmoid_cross_entropy_of_all_anchors_is_focal_loss_without_focus():
    text = FOCAL.replace("weighted_sigmoid_focal { alpha: 0.75, gamma: 2.0 }", "weighted_sigmoid { }")
    assert _loss(text) == LossSettings("focal", focal_alpha=None, focal_gamma=0.0)


@pytest.mark.parametrize(
    ("text", "before", "after", "words"),
    [
        (FOCAL, "weighted_sigmoid_focal", "weighted_softmax", "classification_loss is weighted_softmax, not weighted_"),
        (FOCAL, "classification_loss { weighted_sigmoid_focal { alpha: 0.75, gamma: 2.0 } }", "", "loss is none"),
        (MINER, "weighted_sigmoid {", "weighted_sigmoid_focal {", "is weighted_sigmoid_focal, not weighted_sigmoid"),
        (FOCAL, "weighted_smooth_l1", "weighted_iou", "localization_loss is weighted_iou, not weighted_smooth_l1"),
        (FOCAL, "weighted_smooth_l1 {", "weighted_smooth_l1 { delta: 0.5", "delta is 0.5, not 1.0"),
        (FOCAL, "num_matches: true", "num_matches: false", "normalize_loss_by_num_matches is False"),
        (FOCAL, "alpha: 0.75", "alpha: 1.5", "focal_alpha is 1.5; it must be between 0 and 1"),
        (MINER, "loss_type: CLASSIFICATION", "", "loss_type is BOTH, not CLASSIFICATION"),
        (MINER, "num_hard_examples: 3000", "", "num_hard_examples is 64, not at least the 1917 anchors"),
        (MINER, "max_negatives_per_positive: 3", "", "max_negatives_per_positive is 0, not above 0"),
        (MINER, "loss {", "loss { random_example_sampler { }", "random_example_sampler is True"),
        (MINER, "iou_threshold: 0.99", "iou_threshold: 0.7", "iou_threshold is 0.7, not at least 0.99"),
        (MINER, "iou_threshold: 0.99", "", "iou_threshold is 0.7, not at least 0.99"),
        (FOCAL, "loss {", "negative_class_weight: 0.5 loss {", "negative_class_weight is 0.5, not 1.0"),
        (FOCAL, "loss {", "use_confidences_as_targets: true loss {", "use_confidences_as_targets is True, not False"),
        (FOCAL, "loss {", "weight_regression_loss_by_score: true loss {", "by_score is True, not False"),
        (
            FOCAL,
            "loss {",
            "similarity_calculator { ioa_similarity { } } loss {",
            "similarity_calculator is ioa_similarity",
        ),
    ],
)
def test_a_loss_that_training_does_not_know_is_refused(text: str, before: str, after: str, words: str):
    assert before in text
    with pytest.raises(ModelMistake, match=words.replace("(", r"\(")):
        _loss(text.replace(before, after))


@pytest.mark.parametrize("written", ["0.99", "0.990000009537", "1.0"])
def test_a_miner_that_suppresses_next_to_nothing_is_ours(written: str):
    assert _loss(MINER.replace("iou_threshold: 0.99", f"iou_threshold: {written}")) == _loss(MINER)


@pytest.mark.parametrize(
    ("coder", "words"),
    [
        ("", "box_coder is none, not faster_rcnn_box_coder"),
        ("box_coder { }", "box_coder is none, not faster_rcnn_box_coder"),
        ("box_coder { keypoint_box_coder { } }", "box_coder is keypoint_box_coder, not faster_rcnn_box_coder"),
        ("box_coder { faster_rcnn_box_coder { y_scale: 5 } }", "box_coder y_scale is 5"),
    ],
)
def test_another_code_of_boxes_is_refused(coder: str, words: str, tmp_path: Path):
    config = tmp_path / "pipeline.config"
    config.write_text(f"model {{ ssd {{ {HEAD} {FOCAL} }} }}".replace("box_coder { faster_rcnn_box_coder { } }", coder))
    with pytest.raises(ModelMistake, match=words):
        loss_of(config, SPEC)


def test_other_matching_is_refused():
    head = HEAD.replace("force_match_for_each_row: true", "")
    with pytest.raises(ModelMistake, match="force_match_for_each_row is False, not True"):
        loss_from_pipeline(parse(f"model {{ ssd {{ {head} {FOCAL} }} }}", "c"), SPEC, "c")


def test_a_configuration_of_another_detector_is_refused(tmp_path: Path):
    config = tmp_path / "pipeline.config"
    config.write_text(f"model {{ ssd {{ {HEAD} {FOCAL} }} }}")
    assert loss_of(config, SPEC).focal_alpha == 0.75
    with pytest.raises(ModelMistake, match=r"another detector: its depth multiplier is 0\.75, not 1\.0"):
        loss_of(config, SSDMobileNetV1Spec())


@pytest.mark.reference_data
def test_the_zoos_float_detector_was_trained_with_hard_negatives(reference_data: Path):
    config = reference_data / "models" / "ssd_mobilenet_v1_coco_2018_01_28" / "pipeline.config"
    loss = loss_of(config, spec_from_pipeline(read_pipeline(config), "c"))
    assert loss == LossSettings("hard_negatives", negatives_per_match=3.0, box_weight=4.0)
    assert loss_for(None, "hard_negatives", None) == loss


def test_what_is_said_comes_before_what_the_detector_says_and_that_before_the_defaults():
    known = LossSettings("focal", focal_alpha=0.75, box_weight=2.0)
    assert loss_for(None, None, None) == LossSettings("focal", focal_alpha=0.25)
    assert loss_for(known, None, None) == known
    assert loss_for(known, "focal", 0.5) == replace(known, focal_alpha=0.5)


@pytest.mark.parametrize(
    "known",
    [LossSettings("focal", 0.75, 1.5, box_weight=2.0, score_weight=3.0), LossSettings("focal", None, 0.0), None],
)
def test_weights_belong_to_the_balance_that_they_were_tuned_with(known: LossSettings | None):
    assert loss_for(known, "hard_negatives", None) == REFERENCES["hard_negatives"]
    miner = LossSettings("hard_negatives", negatives_per_match=2.0, least_negatives=1, box_weight=0.5)
    assert loss_for(miner, "focal", 0.75) == LossSettings("focal", focal_alpha=0.75)
    assert loss_for(miner, "hard_negatives", None) == miner


@pytest.mark.parametrize("alpha", [None, 0.75])
def test_who_asks_for_focal_loss_gets_it_though_the_detector_learned_by_plain_cross_entropy(alpha: float | None):
    plain = LossSettings("focal", focal_alpha=alpha, focal_gamma=0.0, box_weight=4.0)
    assert loss_for(plain, None, None) == plain
    assert loss_for(plain, "focal", None) == REFERENCES["focal"]
    assert loss_for(plain, "focal", 0.5) == LossSettings("focal", focal_alpha=0.5)


def test_people_are_told_whether_the_loss_is_the_detectors_own():
    known = LossSettings("focal", focal_alpha=0.75)
    assert described(known, known) == "focal loss (alpha 0.75, gamma 2), as it was trained"
    assert described(LossSettings(), None).endswith("the detector does not say what it was trained with")
    other = described(LossSettings("hard_negatives", least_negatives=1), known)
    assert other.startswith("hard negatives (3 an object's anchor, 1 an image at least); it was trained with focal")


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (REFERENCES["hard_negatives"], "hard negatives (3 an object's anchor, box weight 4)"),
        (LossSettings("focal", None, box_weight=0.5), "focal loss (alpha none, gamma 2, box weight 0.5)"),
        (LossSettings("focal", score_weight=2.0), "focal loss (alpha 0.25, gamma 2, score weight 2)"),
        (LossSettings("focal", None, 0.0), "sigmoid cross-entropy of all anchors"),
        (
            LossSettings("focal", 0.75, 0.0, box_weight=4.0),
            "sigmoid cross-entropy of all anchors (alpha 0.75, box weight 4)",
        ),
    ],
)
def test_people_are_told_the_weights_that_are_not_1(loss: LossSettings, words: str):
    assert str(loss) == words


def test_a_detector_keeps_what_it_was_trained_with_and_its_bytes_are_the_same_each_time(small_detector: Detector):
    plain = small_detector.to_bytes()
    known = replace(small_detector, loss=LossSettings("focal", focal_alpha=0.75))
    again = Detector.from_bytes(known.to_bytes(), "d")
    assert (again.loss, again.spec, again.sha256) == (known.loss, known.spec, known.sha256)
    assert Detector.from_bytes(plain, "d").loss is None
    assert known.sha256 != small_detector.sha256


@pytest.mark.parametrize("value", ["{", "[]", '{"balance": "none"}', '{"unknown": 1}', '{"focal_alpha": "high"}'])
def test_a_damaged_loss_is_refused(small_detector: Detector, value: str):
    data = with_metadata(small_detector.to_bytes(), "quantsweep.loss", value)
    with pytest.raises(ModelMistake, match="d has a training loss that cannot be read"):
        Detector.from_bytes(data, "d")


def test_every_setting_survives_json():
    loss = LossSettings("hard_negatives", None, 1.5, 2.0, 3, 4.0, 5.0)
    assert LossSettings(**json.loads(json.dumps(asdict(loss)))) == loss
