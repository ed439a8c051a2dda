"""Specs: what is read, and what is refused with which words."""

from pathlib import Path

import pytest

from orchestrator.demo import demo_spec, example_spec, example_study
from orchestrator.settings import StudySettings
from orchestrator.space import REFERENCE
from orchestrator.spec import FIND_BEST, STUDY, load_spec, parse_spec, refuse_aimless, with_study
from tasks.errors import SpecMistake
from tasks.quantize.schemes import DynamicInt8, Float16, StaticInt8

GOOD = """
name: good
detector: detector.safetensors
evaluation: {images: val, annotations: val.json}
calibration: {images: train}
budget: {max_loss: 0.01}
space:
  - {scheme: [float16, dynamic_int8]}
  - {scheme: static_int8, toolchain: litert_quantizer, granularity: [per_channel, per_tensor],
     calibration_images: [8, 32]}
latency: {threads: [1, 2], max_seconds: 3.5}
"""


def _parse(text: str, tmp_path: Path = Path("/spec")):
    return parse_spec(text, "spec.yaml", tmp_path)


def test_a_block_is_the_product_of_its_lists_and_blocks_add_up():
    variants = _parse(GOOD).space.variants
    assert len(variants) == 1 + 2 * (2 + 4)
    assert variants[0] == REFERENCE
    static = [each.scheme for each in variants if isinstance(each.scheme, StaticInt8) and each.settings.threads == 2]
    assert [(each.granularity, each.calibration_images) for each in static] == [
        ("per_channel", 8),
        ("per_channel", 32),
        ("per_tensor", 8),
        ("per_tensor", 32),
    ]
    assert all(each.toolchain == "litert_quantizer" and each.calibration_seed == 0 for each in static)


def test_every_axis_has_a_default():
    variants = _parse("{name: x, detector: demo, evaluation: demo, calibration: demo, space: [{scheme: static_int8}]}")
    assert variants.space.variants[1].scheme == StaticInt8()


def test_the_reference_is_measured_also_when_it_is_named_and_repeats_collapse():
    text = "{name: x, detector: demo, evaluation: demo, space: [{scheme: float32}, {scheme: [float16, float32]}]}"
    space = _parse(text).space
    assert [each.scheme.name for each in space.variants] == ["float32", "float16"]
    assert space.collapsed == 1


def test_paths_are_relative_to_the_spec(tmp_path):
    spec = _parse(GOOD, tmp_path)
    assert spec.detector == tmp_path / "detector.safetensors"
    assert spec.evaluation.images == str(tmp_path / "val")
    assert spec.calibration.images == str(tmp_path / "train")


def test_a_space_without_static_schemes_needs_no_calibration():
    spec = _parse("{name: x, detector: demo, evaluation: demo, space: [{scheme: [float16, dynamic_int8]}]}")
    assert not spec.needs_calibration
    assert {type(each.scheme) for each in spec.space.variants[1:]} == {Float16, DynamicInt8}


def test_labels_are_unique_within_a_space():
    labels = [each.label for each in _parse(GOOD).space.variants]
    assert len(set(labels)) == len(labels)


EXAMPLES = sorted((Path(__file__).parents[2] / "orchestrator" / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_good_specs(path):
    assert len(load_spec(path).space.variants) >= 10


def test_the_command_knows_three_of_the_examples():
    assert {demo_spec(), example_spec(), example_study()} <= {path.read_text() for path in EXAMPLES}


def test_all_problems_are_told_at_once_with_their_lines():
    text = """name: bad name
detector: demo
evaluation: demo
colour: red
space:
  - {scheme: static_int5}
  - {scheme: static_int8, granularity: per_row}
  - {scheme: []}
"""
    with pytest.raises(SpecMistake) as caught:
        _parse(text)
    message = str(caught.value)
    assert message.startswith("spec.yaml has 5 problems:")
    for line in (
        "line 1: `name`",
        "line 4: unknown key `colour`; choices: name, detector",
        "line 6: unknown scheme 'static_int5' (did you mean static_int",
        "line 7: granularity is 'per_row'; choices: per_channel, per_tensor",
        "line 8: `scheme` is an empty list",
    ):
        assert line in message


HEAD = "name: x\ndetector: demo\nevaluation: demo\ncalibration: demo\n"
WRONG_SPECS = {
    "not YAML": ("name: [", "is not YAML: line 1"),
    "not a mapping": ("- a\n- b", "must be a mapping with the keys name, detector"),
    "empty": ("", "must be a mapping"),
    "a key twice": ("name: x\nname: y", "line 2: the key 'name' stands twice"),
    "no space": (HEAD, "the key `space` is missing"),
    "an empty space": (HEAD + "space: []", "`space` is []"),
    "a block that is text": (HEAD + "space: [float32]", "`space.0` is 'float32'"),
    "a block without a scheme": (HEAD + "space: [{runtime: litert}]", "names no scheme; choices: float32, float16"),
    "an unknown runtime": (
        HEAD + "space: [{runtime: tvm, scheme: float32}]",
        "unknown runtime 'tvm'; choices: keras, litert",
    ),
    "an unknown axis": (HEAD + "space: [{scheme: static_int8, granularty: per_tensor}]", "(did you mean granularity?)"),
    "an axis of another scheme": (
        HEAD + "space: [{scheme: float16, calibration_images: 8}]",
        "float16 has no axis `calibration_images`; axes of float16: toolchain",
    ),
    "an impossible toolchain": (
        HEAD + "space: [{scheme: float32, toolchain: litert_quantizer}]",
        "float32 cannot be made by the toolchain 'litert_quantizer'; choices: converter, keras",
    ),
    "an axis of the wrong type": (
        HEAD + "space: [{scheme: static_int8, calibration_images: many}]",
        "`calibration_images` is 'many'; it must be a whole number",
    ),
    "no calibration images": (
        HEAD + "space: [{scheme: static_int8, calibration_images: 0}]",
        "calibration_images is 0; it must be at least 1",
    ),
    "a static scheme without calibration": (
        "name: x\ndetector: demo\nevaluation: demo\nspace: [{scheme: static_int8}]",
        "static_int8 needs calibration images",
    ),
    "a ranking without calibration": (
        "name: x\ndetector: demo\nevaluation: demo\nspace: [{scheme: weight_only_int4, keep_float: most_sensitive_2}]",
        "weight_only_int4 needs calibration images",
    ),
    "an analysis without calibration": (
        "name: x\ndetector: demo\nevaluation: demo\nspace: [{scheme: float16}]\nsensitivity: [{scheme: dynamic_int4}]",
        "line 5: a sensitivity analysis needs calibration images",
    ),
    "an analysis of what is trained": (
        HEAD + "space: [{scheme: float16}]\nsensitivity: [{scheme: qat_int8, epochs: 2}]",
        "line 6: qat_int8 is trained with all its layers; analyse static_int8",
    ),
    "an analysis of a float scheme": (
        HEAD + "space: [{scheme: float16}]\nsensitivity: [{scheme: float16}]",
        "line 6: float16 cannot be analysed layer by layer",
    ),
    "an analysis of something unknown": (
        HEAD + "space: [{scheme: float16}]\nsensitivity:\n  - {scheme: static_int8, bits: 3}",
        "line 7: unknown axis `bits`",
    ),
    "an impossible value": (
        HEAD + "space: [{scheme: static_int8, symmetry: symmetric}]",
        "line 5: static_int8 of the toolchain converter cannot have symmetry 'symmetric'",
    ),
    "an unknown estimator": (
        HEAD + "space: [{scheme: static_int8, toolchain: litert_quantizer, range_estimator: best}]",
        "line 5: range_estimator is 'best'; choices: min_max, moving_average, mean_min_max, percentile_99_99",
    ),
    "an unknown transform": (
        HEAD + "space: [{scheme: float32, transform: pruned}]",
        "line 5: transform is 'pruned'; choices: none, ",
    ),
    "two budgets": (
        HEAD + "budget: {max_loss: 0.1, max_relative_loss: 0.1}\nspace: [{scheme: float16}]",
        "give one of max_loss and max_relative_loss",
    ),
    "a budget out of range": (HEAD + "budget: {max_loss: 2}\nspace: [{scheme: float16}]", "`budget.max_loss` is 2"),
    "an unknown metric": (
        HEAD + "budget: {metric: F1, max_loss: 0.1}\nspace: [{scheme: float16}]",
        "'AP', 'AP50' or 'AP75'",
    ),
    "zero threads": (HEAD + "latency: {threads: [0]}\nspace: [{scheme: float16}]", "`latency.threads.0` is 0"),
    "a key of a study misspelt": (
        HEAD + "study: {samplers: tpe}\nspace: [{scheme: float16}]",
        "line 5: unknown key `study.samplers`; choices: sampler, seed, objectives, in_flight, error_rate, stop_early",
    ),
    "a stop rule misspelt": (
        HEAD + "study:\n  stop: {trial: 5}\nspace: [{scheme: float16}]",
        "line 6: unknown key `study.stop.trial`; choices: trials, seconds, images, patience",
    ),
    "an unknown sampler": (
        HEAD + "study: {sampler: best}\nspace: [{scheme: float16}]",
        "`study.sampler` is 'best': Input should be 'tpe', 'gp', 'nsga2', 'random', 'qmc' or 'brute_force'",
    ),
    "an unknown objective": (
        HEAD + "study: {objectives: [speed]}\nspace: [{scheme: float16}]",
        "`study.objectives.0` is 'speed': Input should be 'latency', 'ap_loss' or 'size'",
    ),
    "an objective twice": (
        HEAD + "study: {objectives: [latency, size, latency]}\nspace: [{scheme: float16}]",
        "objectives are latency, size, latency; name each of them once",
    ),
    "a study without trials": (
        HEAD + "study: {stop: {trials: 0}}\nspace: [{scheme: float16}]",
        "`study.stop.trials` is 0: Input should be greater than or equal to 1",
    ),
    "an error rate out of range": (
        HEAD + "study: {error_rate: 0.5}\nspace: [{scheme: float16}]",
        "`study.error_rate` is 0.5: Input should be less than 0.5",
    ),
    "images that are a word": (
        HEAD.replace("evaluation: demo", "evaluation: val") + "space: [{scheme: float16}]",
        "line 3: `evaluation` is 'val'; it must be demo, {images: FOLDER, annotations: FILE} or {search: {...}, ",
    ),
    "a key of images misspelt": (
        HEAD.replace("evaluation: demo", "evaluation: {images: a, annotation: b}") + "space: [{scheme: float16}]",
        "spec.yaml has 1 problem:\n  line 3: unknown key `evaluation.annotation`; choices: images, annotations",
    ),
    "a key of confirmation images misspelt": (
        HEAD.replace("evaluation: demo", "evaluation:\n  search: {images: a, annotations: b}\n  confirm: {image: c}")
        + "space: [{scheme: float16}]",
        "spec.yaml has 2 problems:\n  line 5: the key `evaluation.confirm.images` is missing\n"
        "  line 5: unknown key `evaluation.confirm.image`; choices: images, annotations",
    ),
    "search images without confirmation images": (
        HEAD.replace("evaluation: demo", "evaluation: {search: {images: a, annotations: b}}")
        + "space: [{scheme: float16}]",
        "spec.yaml has 1 problem:\n  line 3: the key `evaluation.confirm` is missing",
    ),
    "search images beside other images": (
        HEAD.replace("evaluation: demo", "evaluation: {images: a, search: {images: b}, confirm: {images: c}}")
        + "space: [{scheme: float16}]",
        "spec.yaml has 1 problem:\n  line 3: unknown key `evaluation.images`; choices: search, confirm",
    ),
    "a synthetic set to search on": (
        HEAD.replace("evaluation: demo", "evaluation: {search: demo, confirm: {images: c}}")
        + "space: [{scheme: float16}]",
        "line 3: `evaluation.search` is 'demo'; it must be {images: FOLDER, annotations: FILE}",
    ),
    "calibration images that are split": (
        HEAD.replace("calibration: demo", "calibration: {search: {images: a}}") + "space: [{scheme: float16}]",
        "line 4: unknown key `calibration.search`; choices: images, annotations",
    ),
    "a key of a section misspelt": (
        HEAD + "latency: {max_second: 3}\nspace: [{scheme: float16}]",
        "unknown key `latency.max_second`; choices: threads, max_seconds",
    ),
}


@pytest.mark.parametrize("name", WRONG_SPECS)
def test_a_wrong_spec_is_refused_with_the_rule_the_value_and_the_choices(name):
    text, message = WRONG_SPECS[name]
    with pytest.raises(SpecMistake) as caught:
        _parse(text)
    assert message in str(caught.value)


def test_a_missing_spec_file_is_named(tmp_path):
    with pytest.raises(SpecMistake, match="there is no spec file"):
        load_spec(tmp_path / "none.yaml")


def test_evaluation_images_may_be_split_into_search_and_confirmation(tmp_path):
    split = "{search: {images: val, annotations: a.json}, confirm: {images: more, annotations: b.json}}"
    spec = _parse(GOOD.replace("{images: val, annotations: val.json}", split), tmp_path)
    assert (spec.evaluation.images, spec.evaluation.annotations) == (str(tmp_path / "val"), str(tmp_path / "a.json"))
    assert (spec.confirmation.images, spec.confirmation.annotations) == (
        str(tmp_path / "more"),
        str(tmp_path / "b.json"),
    )


def test_without_a_split_there_are_no_confirmation_images():
    assert _parse(GOOD).confirmation is None


def test_a_study_has_defaults():
    assert _parse(GOOD).study == StudySettings()
    assert _parse(GOOD + "study: {stop: {patience: null}}").study.stop.patience is None


def test_flags_stand_in_for_what_the_spec_says_of_its_study():
    spec = _parse(GOOD + "study: {sampler: gp, in_flight: 3, stop: {trials: 9, seconds: 60}}")
    study = with_study(spec, {"sampler": "random"}, {"trials": 7, "images": 500}).study
    assert (study.sampler, study.in_flight, study.seed) == ("random", 3, 0)
    assert study.stop.model_dump() == {"trials": 7, "seconds": 60, "images": 500, "patience": 50}


def test_another_sampler_or_seed_is_another_study_and_another_limit_is_not():
    spec = _parse(GOOD)
    assert with_study(spec, {"sampler": "tpe", "seed": 0}, {"trials": 7}).text == spec.text
    texts = {with_study(spec, flags, {}).text for flags in ({}, {"seed": 1}, {"seed": 2}, {"sampler": "gp"})}
    assert len(texts) == 4
    assert _parse(with_study(spec, {"seed": 1}, {}).text).space == spec.space


@pytest.mark.parametrize(
    ("study", "stop", "message"),
    [
        ({"sampler": "best"}, {}, "--sampler is 'best': Input should be 'tpe', 'gp'"),
        ({"seed": -1}, {}, "--seed is -1: Input should be greater than or equal to 0"),
        ({}, {"trials": 0, "seconds": 0.0}, "--trials is 0: .*; --seconds is 0.0: Input should be greater than 0"),
    ],
)
def test_flags_out_of_range_are_named_as_flags(study, stop, message):
    with pytest.raises(SpecMistake, match=message):
        with_study(_parse(GOOD), study, stop)


AIMLESS = GOOD.replace("budget: {max_loss: 0.01}\n", "study:\n  objectives: [latency, size]\n")


def test_a_study_needs_a_budget_or_the_loss_among_its_objectives():
    with pytest.raises(SpecMistake) as caught:
        refuse_aimless(_parse(AIMLESS), "spec.yaml", STUDY, ["latency", "size"])
    message = str(caught.value)
    assert "line 7: a study needs to know how large a loss may be: give `budget: {max_loss: 0.01}`" in message
    assert "['latency', 'size']; choices: latency, ap_loss, size" in message
    refuse_aimless(_parse(AIMLESS), "spec.yaml", STUDY, ["latency", "ap_loss"])
    refuse_aimless(_parse(GOOD), "spec.yaml", STUDY, ["latency"])


def test_the_best_of_a_grid_needs_a_budget():
    with pytest.raises(SpecMistake, match=r"--find-best needs to know how large a loss may be: give `budget: .*`"):
        refuse_aimless(_parse(AIMLESS), "spec.yaml", FIND_BEST, ["latency"])


def test_a_search_needs_something_to_choose_from():
    spec = _parse(HEAD + "budget: {max_loss: 0.1}\nspace:\n  - {scheme: float32}\n")
    with pytest.raises(
        SpecMistake, match="line 6: a study has nothing to choose from: the only variant, litert-float32"
    ):
        refuse_aimless(spec, "spec.yaml", STUDY, ["latency"])
