"""`quantsweep train` as a user meets it; where nothing else is said, with a learner that takes no time."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest

from orchestrator import fine_tuning
from orchestrator.cli import train as command
from orchestrator.training_view import LiveTraining, Pace, PlainTraining
from tasks.coco.dataset import load_dataset
from tasks.coco.synthetic import CATEGORIES, write_synthetic
from tasks.detector.class_heads import with_new_classes
from tasks.detector.loss import Balance, LossSettings
from tasks.detector.weights import Detector
from tasks.training import checkpoint, loop
from tasks.training.learner import TRAINERS, Losses
from tasks.training.recipe import Optimizer
from tests.command import Outcome, quantsweep
from tests.detectors import tiny_detector
from tests.tasks.training.toy_learner import TAUGHT, ToyLearner

FAST = ("--epochs", 2, "--batch-size", 4, "--threads", 1)


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> list[ToyLearner]:
    """Toys in place of learners; the list of those that were made. The environment is put back afterwards."""
    made: list[ToyLearner] = []

    def learner_of(trainer, detector, recipe, *rest) -> ToyLearner:
        made.append(Pixels(detector, recipe))
        return made[-1]

    loop._sessions.clear()
    monkeypatch.setattr(loop, "learner_of", learner_of)
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_USE_LEGACY_KERAS"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    return made


class Pixels(ToyLearner):
    """The toy, on images of any size."""

    def _losses(self, batch):
        small = batch.pixels.reshape(len(batch.pixels), -1)[:, :16]
        return super()._losses(replace(batch, pixels=small.reshape(len(small), 1, 1, 16)))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images to train on, and others to evaluate on."""
    folder: Path = tmp_path_factory.mktemp("sets")
    write_synthetic(folder / "train", images=12, seed=5)
    write_synthetic(folder / "val", images=4, seed=6, first_id=501)
    return folder


@pytest.fixture(autouse=True)
def in_the_foreground() -> Iterator[None]:
    """Signals as a terminal sends them; a shell's background jobs, of which the tests may be one, ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A file with a detector of the synthetic categories."""
    path = tmp_path / "given.safetensors"
    path.write_bytes(tiny_detector().to_bytes())
    return path


def on(folder: Path) -> tuple[object, ...]:
    return "--images", folder / "images", "--annotations", folder / "annotations.json"


def evaluated_on(folder: Path) -> tuple[object, ...]:
    return "--evaluate-images", folder / "images", "--evaluate-annotations", folder / "annotations.json"


def trained(given: Path, sets: Path, *more: object, out: str = "mine.safetensors") -> tuple[Outcome, Path]:
    place = given.with_name(out)
    return quantsweep("train", given, *on(sets / "train"), "--out", place, *FAST, *more), place


def record(place: Path) -> dict:
    found: dict = json.loads(place.with_name(f"{place.stem}_training.json").read_text())
    return found


def relabelled(sets: Path, folder: Path, change) -> Path:
    """The training set with its categories changed."""
    document = json.loads((sets / "train" / "annotations.json").read_text())
    change(document)
    folder.mkdir()
    (folder / "annotations.json").write_text(json.dumps(document))
    (folder / "images").symlink_to(sets / "train" / "images")
    return folder


def renumber(numbers: dict[int, int]):
    def change(document: dict) -> None:
        for each in document["categories"]:
            each["id"] = numbers.get(each["id"], each["id"])
        for each in document["annotations"]:
            each["category_id"] = numbers.get(each["category_id"], each["category_id"])

    return change


def test_it_writes_a_detector_and_the_record_of_its_training(given, sets):
    outcome, place = trained(given, sets)
    assert outcome.code == 0, outcome.err
    first, detector, found = Detector.load(given), Detector.load(place), record(place)
    assert not np.array_equal(detector.tensors[TAUGHT], first.tensors[TAUGHT])
    assert (found["detector_sha256"], found["started_from_sha256"]) == (detector.sha256, first.sha256)
    assert (found["images"], found["held_out_images"], found["threads"]) == (12, 1, 1)
    assert found["recipe"]["epochs"] == 2 and found["trainer"] == "keras"
    assert [point["step"] for point in found["curve"]] == list(range(7))
    assert found["held_out_loss"]["after"] == min(point["held_out_loss"] for point in found["curve"])
    assert found["seconds"] > 0 and found["core_seconds"] > 0 and "tensorflow" in found["versions"]
    assert str(given.parent) not in json.dumps(found)
    assert outcome.out.startswith(f"wrote {place} and mine_training.json")


def with_loss(given: Path, loss: LossSettings) -> Path:
    given.write_bytes(replace(tiny_detector(), loss=loss).to_bytes())
    return given


def test_labels_teach_by_what_the_detector_was_trained_with(given, sets):
    own = LossSettings("hard_negatives", box_weight=4.0)
    outcome, place = trained(with_loss(given, own), sets)
    assert LossSettings(**record(place)["recipe"]["loss"]) == own
    assert "labels teach by hard negatives (3 an object's anchor, box weight 4), as it was trained\n" in outcome.err
    assert Detector.load(place).loss == own


def test_another_loss_is_taken_if_it_is_said_and_the_result_says_so(given, sets):
    own = LossSettings("hard_negatives")
    outcome, place = trained(with_loss(given, own), sets, "--balance", "focal", "--focal-alpha", 0.75)
    assert "labels teach by focal loss (alpha 0.75, gamma 2); it was trained with hard negatives" in outcome.err
    assert Detector.load(place).loss == LossSettings("focal", focal_alpha=0.75)


def test_who_learns_from_the_first_detector_alone_is_still_what_that_was_trained_for(given, sets):
    own = LossSettings("focal", focal_alpha=0.5)
    outcome, place = trained(with_loss(given, own), sets, "--distillation", 1, "--balance", "hard_negatives")
    assert "labels teach" not in outcome.err
    assert Detector.load(place).loss == own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--focal-alpha", 0.75), "--focal-alpha belongs to focal loss"),
        (("--focal-alpha", 0.75, "--balance", "hard_negatives"), "--focal-alpha belongs to focal loss"),
        (("--focal-alpha", 1, "--balance", "focal"), "--focal-alpha is 1.0; it must be between 0 and 1"),
    ],
)
def test_an_alpha_that_means_nothing_is_refused(options, message, given, sets):
    outcome, place = trained(given, sets, *options)
    assert outcome.code == 2 and message in outcome.err
    assert not place.exists()


def test_progress_is_on_standard_error_line_by_line(given, sets):
    outcome, _ = trained(given, sets)
    lines = outcome.err.splitlines()
    assert lines[0] == "classes kept: the detector's own class heads, for 12 categories with boxes"
    loss = "focal loss (alpha 0.25, gamma 2)"
    assert lines[1] == f"labels teach by {loss}; the detector does not say what it was trained with"
    assert "12 images, 1 of them held out" in lines[2]
    assert "update 0 of 6, held-out" in lines[3]
    assert all(word in lines[-1] for word in ("update 6 of 6, loss", "held-out", "images/s", "done after"))


def test_a_terminal_shows_a_bar_with_loss_pace_and_time_left():
    from io import StringIO

    from rich.console import Console

    text = StringIO()
    view = LiveTraining(Pace(100, 8), 100, Console(file=text, force_terminal=True, width=160))
    for step in range(1, 31):
        view.updated(step, Losses(1, 1, 0, 2.5))
        time.sleep(0.002)
    view._progress.refresh()
    view.close()
    shown = text.getvalue()
    assert "30/100" in shown and "loss 2.500" in shown and "images/s" in shown and "s left" in shown


def test_plain_lines_come_once_a_minute_between_points(monkeypatch, capsys):
    monkeypatch.setattr("orchestrator.training_view._LINE_SECONDS", 0.05)
    view = PlainTraining(Pace(100, 8), 100)
    for step in range(1, 11):
        view.updated(step, Losses(1, 1, 0, 2.5))
        time.sleep(0.02)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 5
    assert "of 100, loss 2.500, " in lines[0] and "left" in lines[0]


def test_the_pace_leaves_out_the_wait_for_the_first_update():
    pace = Pace(10, 8)
    assert pace.words == ""
    time.sleep(0.3)
    pace.updated(1, Losses(0, 0, 0, 1.0))
    assert pace.words == "loss 1.000"
    time.sleep(0.05)
    pace.updated(2, Losses(0, 0, 0, 1.0))
    rate = int(pace.words.split(", ")[1].split()[0])
    assert 60 < rate <= 160


@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_ctrl_c_leaves_what_the_same_command_goes_on_from(given, sets, toy, monkeypatch, stop_at):
    undisturbed, place = trained(given, sets, out="undisturbed.safetensors")
    assert undisturbed.code == 0
    step = Pixels.step

    def interrupted(self, *arguments):
        losses = step(self, *arguments)
        if int(self._updates) == stop_at:
            signal.raise_signal(signal.SIGINT)
        return losses

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(Pixels, "step", interrupted)
        outcome, ours = trained(given, sets)
    assert outcome.code == 1 and not ours.exists()
    assert f"stopping after update {stop_at}" in outcome.err
    assert f"the training so far is in {ours}.training/" in outcome.err
    assert outcome.err.endswith("the same command goes on from there\n")
    assert signal.getsignal(signal.SIGINT) == handler
    loop._sessions.clear()
    again, _ = trained(given, sets)
    assert again.code == 0
    assert ours.read_bytes() == place.read_bytes()
    losses = [[point["loss"] for point in record(path)["curve"]] for path in (ours, place)]
    assert losses[0] == losses[1]


def test_a_second_ctrl_c_ends_at_once(given, sets, monkeypatch):
    def stuck(self, *arguments):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError

    monkeypatch.setattr(Pixels, "step", stuck)
    outcome, _ = trained(given, sets)
    assert outcome.code == 1 and "interrupted" in outcome.err


def test_where_ctrl_c_is_ignored_it_stays_so(given, sets, monkeypatch):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    handlers = []
    step = Pixels.step

    def noted(self, *arguments):
        signal.raise_signal(signal.SIGINT)
        handlers.append(signal.getsignal(signal.SIGINT))
        return step(self, *arguments)

    monkeypatch.setattr(Pixels, "step", noted)
    outcome, _ = trained(given, sets)
    assert outcome.code == 0 and set(handlers) == {signal.SIG_IGN}


def test_done_work_is_not_done_again_and_another_recipe_starts_anew(given, sets, toy):
    _, place = trained(given, sets)
    first = place.read_bytes()
    place.unlink()
    _, place = trained(given, sets)
    assert (len(toy), place.read_bytes()) == (1, first)
    place.unlink()
    outcome, place = trained(given, sets, "--learning-rate", 1e-2)
    assert (len(toy), outcome.code) == (2, 0)
    assert place.read_bytes() != first
    folder = Path(f"{place}.training")
    # Of each training its end and its best weights.
    assert len(list(folder.iterdir())) == 2
    assert len(list(folder.rglob("*.trained.safetensors"))) == len(list(folder.rglob("*.checkpoint.*"))) == 2


def test_what_is_there_is_replaced_only_by_force(given, sets, toy):
    place = given.with_name("mine.safetensors")
    place.write_bytes(b"precious")
    outcome, _ = trained(given, sets)
    assert outcome.code == 2 and "exists; name another file with --out" in outcome.err
    assert (place.read_bytes(), toy) == (b"precious", [])
    outcome, _ = trained(given, sets, "--force")
    assert outcome.code == 0
    assert Detector.load(place)


def test_a_folder_is_no_file_to_write_whatever_the_force(given, sets, toy):
    given.with_name("mine.safetensors").mkdir()
    for force in ((), ("--force",)):
        outcome, place = trained(given, sets, *force)
        assert outcome.code == 2 and f"{place} is a folder; name the file to write with --out" in outcome.err
    assert toy == [] and list(place.iterdir()) == [] and not Path(f"{place}.training").exists()


@pytest.mark.parametrize("name", ["quantsweep", "pillow", "opencv-python-headless", "numpy", "tensorflow"])
def test_after_an_upgrade_it_trains_anew(given, sets, toy, monkeypatch, name):
    trained(given, sets)
    monkeypatch.setattr(checkpoint, "version", lambda other: "99" if other == name else version(other))
    outcome, _ = trained(given, sets, "--force")
    assert (len(toy), outcome.code) == (2, 0)


def test_a_result_that_cannot_be_written_leaves_nothing_of_it(given, sets, monkeypatch):
    def full(path: Path, data: bytes) -> None:
        if path.suffix == ".safetensors":
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr(fine_tuning, "write_whole", full)
    outcome, place = trained(given, sets)
    assert outcome.code == 2 and outcome.err.endswith("mine.safetensors cannot be written: No space left on device\n")
    assert not place.exists()


def test_it_scores_before_and_after_on_other_images(given, sets):
    outcome, place = trained(given, sets, *evaluated_on(sets / "val"))
    assert outcome.code == 0, outcome.err
    found = record(place)["evaluation"]
    assert found["images"] == 4
    val = load_dataset(sets / "val" / "images", sets / "val" / "annotations.json")
    assert found["before"] == fine_tuning.scored(Detector.load(given), val)
    assert found["after"] == fine_tuning.scored(Detector.load(place), val)
    assert "before, " in outcome.out and "after, on 4 images" in outcome.out


def test_the_score_is_that_of_the_reference_scorer_on_the_keras_build(sets):
    """As the demo's own training scores."""
    from tasks.coco.preprocess import preprocess_shard
    from tasks.detect import detect_shard
    from tasks.detector.demo import demo_detector
    from tasks.score import merge, score
    from tasks.types import Postprocessing, RuntimeSettings

    val, detector = load_dataset(sets / "val" / "images", sets / "val" / "annotations.json"), demo_detector()
    shard = preprocess_shard(val.images, detector.spec.image_size, cache=None)
    found = detect_shard(detector.to_bytes(), RuntimeSettings("keras"), detector.spec, shard, Postprocessing())
    want = score(val.ground_truth(), merge([found]), "pycocotools").statistics
    assert tuple(fine_tuning.scored(detector, val).values()) == want
    assert want[0] > 0.2


# Classes


def test_unknown_categories_make_new_class_heads_and_all_else_stays(given, sets, tmp_path):
    other = relabelled(sets, tmp_path / "other", renumber({3: 4, 20: 21}))
    outcome = quantsweep("train", given, *on(other), "--out", tmp_path / "new.safetensors", *FAST)
    assert outcome.code == 0, outcome.err
    because = "class heads for 12 categories with boxes, as the detector does not know 4 (triangle), 21 (bolt)"
    assert f"classes new: {because}\n" in outcome.err
    first, found = Detector.load(given), Detector.load(tmp_path / "new.safetensors")
    assert found.spec.class_ids == tuple(sorted({*CATEGORIES, 4, 21} - {3, 20}))
    assert found.spec.class_names[2] == "triangle"
    changed = {name for name, tensor in found.tensors.items() if not np.array_equal(tensor, first.tensors[name])}
    assert changed - {TAUGHT} == {name for name in found.tensors if "_scores/" in name}
    assert record(tmp_path / "new.safetensors")["classes"].startswith("new: ")


def test_new_class_heads_learn_faster_unless_somebody_says(given, sets):
    rates = []
    for number, more in enumerate(((), ("--classes", "new"), ("--classes", "new", "--learning-rate", 1e-3))):
        outcome, place = trained(given, sets, *more, out=f"{number}.safetensors")
        assert outcome.code == 0
        rates.append(record(place)["recipe"]["learning_rate"])
    assert rates == [command.RATE_OF_KEPT, command.RATE_OF_NEW, 1e-3]


def test_from_scratch_all_weights_are_new_and_learn_by_focal_loss(given, sets):
    outcome, place = trained(given, sets, "--from-scratch", *evaluated_on(sets / "val"))
    assert outcome.code == 0 and "all weights are new" in outcome.err
    made = record(place)
    assert (made["from_scratch"], made["evaluation"]["before"]) == (True, None)
    assert (made["recipe"]["learning_rate"], made["recipe"]["loss"]["balance"]) == (command.RATE_FROM_SCRATCH, "focal")


def test_a_fallen_score_is_pointed_at(given, sets, monkeypatch):
    scores = iter([{"ap": 0.3}, {"ap": 0.2}])
    monkeypatch.setattr(fine_tuning, "scored", lambda detector, dataset: next(scores))
    outcome, _ = trained(given, sets, *evaluated_on(sets / "val"))
    assert "0.3000 before, 0.2000 after" in outcome.out and "AP fell though the loss did not" in outcome.out


def test_new_heads_score_little_anywhere_but_for_the_background():
    first = tiny_detector()
    old = replace(first, spec=replace(first.spec, class_ids=(0, *first.spec.class_ids[1:])))
    found = with_new_classes(old, {7: "cup", 3: "plate"}, seed=1)
    assert (found.spec.class_ids, found.spec.class_names) == ((0, 3, 7), ("???", "plate", "cup"))
    bias = found.tensors["BoxPredictor_0_scores/bias"].reshape(-1, 3)
    assert 1 / (1 + np.exp(-bias)) == pytest.approx(np.tile([0.99, 0.01, 0.01], (len(bias), 1)), rel=1e-5)
    weights = found.tensors["BoxPredictor_0_scores/weights"]
    assert 0.008 < weights.std() < 0.012
    assert np.array_equal(
        weights, with_new_classes(old, {7: "cup", 3: "plate"}, 1).tensors["BoxPredictor_0_scores/weights"]
    )
    assert with_new_classes(first, {7: "cup"}, 1).spec.class_ids == (7,)
    with pytest.raises(ValueError, match="need ids above 0"):
        with_new_classes(first, {0: "cup"}, 1)


def test_a_known_id_under_another_name_is_unknown_where_the_detector_has_names(sets, tmp_path):
    def rename(document: dict) -> None:
        document["categories"][0]["name"] = "pizza"

    dataset = load_dataset(sets / "train" / "images", relabelled(sets, tmp_path / "r", rename) / "annotations.json")
    nameless = tiny_detector()
    named = replace(nameless, spec=replace(nameless.spec, class_names=tuple(CATEGORIES.values())))
    assert not fine_tuning.start_of(nameless, dataset, "auto", 0).has_new_classes
    start = fine_tuning.start_of(named, dataset, "auto", 0)
    assert start.has_new_classes and start.because.endswith("does not know 1 (pizza)")
    assert start.detector.spec.class_names[0] == "pizza"
    assert not fine_tuning.start_of(named, dataset, "keep", 0).has_new_classes


def test_kept_classes_leave_out_boxes_of_unknown_categories_and_say_so(given, sets, tmp_path):
    other = relabelled(sets, tmp_path / "other", renumber({3: 4}))
    place = tmp_path / "kept.safetensors"
    outcome = quantsweep("train", given, *on(other), "--out", place, *FAST, "--classes", "keep")
    assert outcome.code == 0
    assert "left out, as it has no column for them: 4 (triangle)" in outcome.err
    assert Detector.load(place).spec == Detector.load(given).spec


def test_categories_without_boxes_do_not_count(given, sets, tmp_path):
    def widen(document: dict) -> None:
        document["categories"] += [{"id": 0, "name": "things"}, {"id": 77, "name": "nowhere"}]

    other = relabelled(sets, tmp_path / "other", widen)
    outcome = quantsweep("train", given, *on(other), "--out", tmp_path / "o.safetensors", *FAST)
    assert outcome.code == 0 and "classes kept" in outcome.err


def test_classes_of_evaluation_images_that_the_detector_lacks_are_named(given, sets, tmp_path):
    fewer = relabelled(sets, tmp_path / "fewer", lambda document: None)
    document = json.loads((fewer / "annotations.json").read_text())
    document["annotations"] = [each for each in document["annotations"] if each["category_id"] != 1]
    (fewer / "annotations.json").write_text(json.dumps(document))
    place = tmp_path / "fewer.safetensors"
    more = ("--classes", "new", *evaluated_on(sets / "val"))
    outcome = quantsweep("train", given, *on(fewer), "--out", place, *FAST, *more)
    assert outcome.code == 0
    assert "1 categories that the trained detector has no column for, and whose AP is 0: circle" in outcome.err
    assert record(place)["evaluation"]["before"] is None


# Mistakes: one message, exit code 2, nothing written.


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--epochs", 0), "--epochs is 0; it must be at least 1"),
        (("--epochs", 10**13), "--epochs is 10000000000000; it must be at least 0 and at most 1000000"),
        (("--learning-rate", 0), "--learning-rate is 0.0; it must be above 0"),
        (("--learning-rate", "inf"), "--learning-rate is inf; it must be a finite number"),
        (("--batch-size", 0), "--batch-size is 0; it must be at least 1"),
        (("--distillation", 1.5), "--distillation is 1.5; it must be in [0, 1]"),
        (("--held-out", 0.9), "--held-out is 0.9; it must be in (0, .5]"),
        (("--patience", 0), "--patience is 0; it must be at least 1"),
        (("--seed", -1), "--seed is -1; it must be at least 0"),
        (("--seed", 2**32), "--seed is 4294967296; it must be at least 0 and below 4294967296"),
        (("--threads", 0), "--threads is 0; choices: 1 to "),
        (("--classes", "new", "--distillation", 0.5), "--distillation 0.5 needs a detector that knows the classes"),
        (("--from-scratch", "--trainer", "torch"), "--from-scratch trains with keras, and has no detector to learn"),
        (("--from-scratch", "--distillation", 0.5), "--from-scratch trains with keras, and has no detector to learn"),
        (("--evaluate-images", "somewhere"), "--evaluate-images and --evaluate-annotations belong together"),
    ],
)
def test_wrong_settings_are_refused_with_the_rule(given, sets, toy, more, message):
    outcome, place = trained(given, sets, *more)
    assert (outcome.code, outcome.out, toy) == (2, "", [])
    assert outcome.err.startswith(f"quantsweep: {message}") and outcome.err.count("\n") == 1
    assert not place.exists() and not Path(f"{place}.training").exists()


def test_wrong_files_are_refused(given, sets, tmp_path):
    out = ("--out", tmp_path / "o.safetensors")
    nothing = tmp_path / "nothing.safetensors"
    for arguments, message in (
        ((nothing, *on(sets / "train")), f"there is no detector file {nothing}"),
        ((given, "--images", tmp_path / "no", "--annotations", sets / "train" / "annotations.json"), "cannot be used"),
        ((given, *on(sets / "train"), *evaluated_on(sets / "train")), "training images must not be evaluation images"),
        ((given, *on(sets / "train"), "--out", given / "in" / "a" / "file"), "cannot be made"),
    ):
        outcome = quantsweep("train", *arguments, *(() if "--out" in arguments else out), *FAST)
        assert outcome.code == 2 and message in outcome.err, outcome.err


def test_sets_that_teach_nothing_are_refused(given, sets, tmp_path):
    def empty(document: dict) -> None:
        document["annotations"] = []

    def flat(document: dict) -> None:
        for each in document["annotations"]:
            each["bbox"][2] = 0

    far = {number: number + 1000 for number in CATEGORIES}
    for name, change, more, message in (
        ("empty", empty, (), "has no box to learn from"),
        ("flat", flat, (), "has no box to learn from"),
        ("zero", renumber({1: 0}), (), "category id 0 (circle) is the background's"),
        ("far", renumber(far), ("--classes", "keep"), "--classes keep: none of the 12 categories"),
    ):
        other = relabelled(sets, tmp_path / name, change)
        outcome = quantsweep("train", given, *on(other), "--out", tmp_path / "o.safetensors", *FAST, *more)
        assert outcome.code == 2 and message in outcome.err, outcome.err


def test_a_training_that_fails_is_no_mistake_of_the_user(given, sets, monkeypatch):
    monkeypatch.setattr(Pixels, "step", lambda self, *arguments: Losses(np.nan, 0.0, 0.0, np.nan))
    outcome, place = trained(given, sets)
    assert outcome.code == 1 and "update 1 of 6 has losses that are no numbers" in outcome.err
    assert not place.exists()


def test_torch_that_is_not_installed_is_named_with_the_command(given, sets, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    outcome, _ = trained(given, sets, "--trainer", "torch")
    assert outcome.code == 2 and "pip install 'quantsweep[torch]'; choices: --trainer keras" in outcome.err


def test_help_offers_what_trainers_and_recipes_know():
    hints = get_type_hints(command.train)
    assert get_args(hints["trainer"]) == TRAINERS
    assert get_args(hints["optimizer"]) == get_args(Optimizer)
    assert get_args(hints["balance"])[0] == Balance
    assert get_args(hints["classes"]) == get_args(fine_tuning.Classes)


def test_help_teaches_and_loads_no_heavy_library():
    code = (
        "import sys; sys.argv = ['quantsweep', 'train', '--help']\n"
        "from orchestrator.cli.main import run\n"
        "try:\n    run()\nexcept SystemExit:\n    pass\n"
        "assert not {'numpy', 'torch', 'tensorflow', 'ray'} & set(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "quantsweep train detector.safetensors --images photos/train" in ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--trainer", "keras"), ("--trainer", "torch"), ("--from-scratch",)])
def test_a_real_training_that_is_killed_ends_with_the_bytes_of_an_undisturbed_one(options, sets, tmp_path):
    def start(out: str) -> subprocess.Popen:
        words = ["train", "demo", *on(sets / "train"), "--out", tmp_path / out, *FAST, *options]
        arguments = [sys.executable, "-m", "orchestrator.cli.main", *map(str, words), "--epochs", "24"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        return subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True)

    for updates in (0, 3, 8):
        process = start("killed.safetensors")
        assert process.stderr is not None
        for line in process.stderr:
            if "update " in line and int(line.split("update ")[1].split()[0]) >= updates:
                break
        process.send_signal(signal.SIGKILL if updates != 3 else signal.SIGINT)
        process.communicate(timeout=120)
        assert not (tmp_path / "killed.safetensors").exists()
    for out in ("killed.safetensors", "undisturbed.safetensors"):
        process = start(out)
        _, messages = process.communicate(timeout=300)
        assert process.returncode == 0, messages
    killed, undisturbed = tmp_path / "killed.safetensors", tmp_path / "undisturbed.safetensors"
    assert killed.read_bytes() == undisturbed.read_bytes()
    curves = [
        [(point["loss"], point["held_out_loss"]) for point in record(path)["curve"]] for path in (killed, undisturbed)
    ]
    assert curves[0] == curves[1]
