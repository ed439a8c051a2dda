"""Specs with trainings: what they mean, and what is refused with which words."""

from pathlib import Path

import pytest

from orchestrator.spec import parse_spec
from tasks.detector.loss import LossSettings
from tasks.errors import SpecMistake
from tasks.quantize.schemes import Qat
from tasks.training.recipe import Recipe

HEAD = """
name: qat
detector: detector.safetensors
evaluation: {images: val, annotations: val.json}
calibration: {images: train, annotations: train.json}
"""
BLOCK = "{scheme: qat_int8, epochs: 2}"


def _spec(block: str = BLOCK, rest: str = "", head: str = HEAD):
    return parse_spec(f"{head}\nspace: [{block}]\n{rest}", "spec.yaml", Path("/spec"))


def _refusal(*arguments: str, **named: str) -> str:
    with pytest.raises(SpecMistake) as caught:
        _spec(*arguments, **named)
    return str(caught.value)


def _schemes(spec) -> list[Qat]:
    return [each.scheme for each in spec.space.variants if isinstance(each.scheme, Qat)]


def test_the_untrained_twin_stands_before_what_is_trained_once_for_all_trainings():
    spec = _spec("{scheme: qat_int8, epochs: [2, 4], learning_rate: [1e-4, 1e-3], granularity: per_tensor}")
    schemes = _schemes(spec)
    assert [each.epochs for each in schemes] == [0, 2, 2, 4, 4]
    assert {each.granularity for each in schemes} == {"per_tensor"}
    assert spec.space.repeats == {}


def test_numbers_may_be_written_as_yaml_1_2_has_them():
    (_, trained) = _schemes(_spec("{scheme: qat_int8, learning_rate: 3e-4, distillation_weight: 1}"))
    assert (trained.learning_rate, trained.distillation_weight) == (0.0003, 1.0)


def test_toolchains_of_torch_are_trained_with_torch_if_nothing_else_is_said():
    for runtime, trainer in (("torch", "torch"), ("onnxruntime", "torch"), ("litert", "keras")):
        assert _schemes(_spec(f"{{runtime: {runtime}, scheme: qat_int8}}"))[1].trainer == trainer
    assert _schemes(_spec("{runtime: torch, scheme: qat_int8, trainer: keras}"))[1].trainer == "keras"


def test_the_calibration_images_are_the_training_images_if_no_others_are_given():
    assert _spec().training_images.images == "/spec/train"
    other = _spec(rest="training: {images: more, annotations: more.json}")
    assert (other.training_images.images, other.calibration.images) == ("/spec/more", "/spec/train")


def test_the_recipe_has_the_axes_of_the_scheme_and_the_settings_of_the_spec():
    spec = _spec(
        "{scheme: qat_int8, epochs: 3, training_seed: 7}",
        "training: {batch_size: 4, optimizer: sgd, balance: hard_negatives, augmentation: {crop: 0}, patience: null}",
    )
    recipe = _schemes(spec)[1].recipe(**spec.training.recipe(None))
    assert (recipe.epochs, recipe.seed, recipe.batch_size, recipe.optimizer) == (3, 7, 4, "sgd")
    assert (recipe.loss.balance, recipe.augmentation.crop, recipe.patience) == ("hard_negatives", 0.0, None)
    assert _schemes(_spec())[1].recipe(**_spec().training.recipe(None)) == Recipe(
        epochs=2, learning_rate=1e-4, distillation_weight=1.0, freeze_point=0.5, loss=LossSettings(balance="focal")
    )


def test_labels_teach_by_the_loss_that_the_detector_was_trained_with_unless_the_spec_says_another():
    known = LossSettings("hard_negatives", box_weight=4.0)
    losses = [
        _spec(rest=f"training: {text}").training.recipe(known)["loss"]
        for text in ("{}", "{balance: focal}", "{balance: focal, focal_alpha: 0.75}")
    ]
    assert losses == [known, LossSettings("focal"), LossSettings("focal", focal_alpha=0.75)]


def test_labels_are_needed_unless_only_the_float_detector_teaches():
    head = HEAD.replace(", annotations: train.json", "")
    words = "line 5: qat_int8 learns from labels (0.5 of its loss), and `calibration` has no annotations: give "
    assert words in _refusal("{scheme: qat_int8, distillation_weight: 0.5}", head=head)
    assert _schemes(_spec("{scheme: qat_int8}", head=head))
    assert _schemes(_spec("{scheme: qat_int8, epochs: 0}", head=head))


REFUSED = {
    "a rate of 0": ("{scheme: qat_int8, learning_rate: 0}", "learning_rate is 0.0; it must be above 0"),
    "too much distillation": ("{scheme: qat_int8, distillation_weight: 1.5}", "distillation_weight is 1.5; it must be"),
    "negative epochs": ("{scheme: qat_int8, epochs: -1}", "epochs is -1; it must be at least 0"),
    "half an epoch": ("{scheme: qat_int8, epochs: 0.5}", "`epochs` is 0.5; it must be a whole number"),
    "an infinite rate": ("{scheme: qat_int8, learning_rate: .inf}", "learning_rate is inf; it must be a finite number"),
    "a rate that is none": (
        "{scheme: qat_int8, learning_rate: .nan}",
        "learning_rate is nan; it must be a finite number",
    ),
    "a rate that no float holds": (
        f"{{scheme: qat_int8, learning_rate: 1{'0' * 400}}}",
        "learning_rate is inf; it must be a finite number",
    ),
    "epochs without end": ("{scheme: qat_int8, epochs: 10000000000000}", "it must be at least 0 and at most 1000000"),
    "a seed that no framework takes": (
        "{scheme: qat_int8, training_seed: 99999999999999999999999}",
        "training_seed is 99999999999999999999999; it must be at least 0 and below 4294967296",
    ),
    "a seed below 0": ("{scheme: qat_int8, training_seed: -1}", "training_seed is -1; it must be at least 0"),
    "a calibration seed that no database holds": (
        "{scheme: static_int8, calibration_seed: 99999999999999999999999}",
        "calibration_seed is 99999999999999999999999; it must be at least 0 and below 4294967296",
    ),
    "a calibration seed below 0": (
        "{scheme: static_int8, calibration_seed: -1}",
        "calibration_seed is -1; it must be at least 0",
    ),
    "an unknown trainer": ("{scheme: qat_int8, trainer: jax}", "trainer is 'jax'; choices: keras, torch"),
    "a training of what is not trained": (
        "{scheme: static_int8, epochs: 2}",
        "static_int8 has no axis `epochs`; axes of static_int8:",
    ),
    "clustered weights": ("{scheme: qat_int8, transform: clustered_16}", "cannot have transform 'clustered_16'"),
    "4 bits on torch": ("{runtime: torch, scheme: qat_int4}", "qat_int4"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_training_is_refused_with_the_rule_the_value_and_the_choices(name):
    block, words = REFUSED[name]
    assert words in _refusal(block)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("{batch_size: 0}", "`training.batch_size` is 0"),
        (
            "{batch_size: 10000000000000}",
            "`training.batch_size` is 10000000000000: Input should be less than or equal to",
        ),
        ("{weight_decay: .inf}", "`training.weight_decay` is inf: Input should be a finite number"),
        ("{largest_gradient: .inf}", "`training.largest_gradient` is inf: Input should be a finite number"),
        ("{optimiser: sgd}", "unknown key `training.optimiser`; choices: images, annotations, batch_size, optimizer"),
        ("{annotations: a.json}", "annotations without images"),
        ("{focal_alpha: 0.75}", "focal_alpha belongs to focal loss: give `balance: focal`, too"),
        ("{balance: focal, focal_alpha: 1}", "`training.focal_alpha` is 1: Input should be less than 1"),
        ("{augmentation: {mirror: 2}}", "`training.augmentation.mirror` is 2"),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    assert words in _refusal(BLOCK, f"training: {settings}")


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("latency: {max_seconds: .inf}", "latency.max_seconds"),
        ("study: {stop: {seconds: .inf}}", "study.stop.seconds"),
        ("budget: {max_loss: .nan}", "budget.max_loss"),
    ],
)
def test_no_section_takes_a_number_that_is_not_finite(section, name):
    assert f"`{name}` is " in (refusal := _refusal(BLOCK, section)) and "Input should be a finite number" in refusal
