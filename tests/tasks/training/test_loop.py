"""The loop gives the same training however often it is interrupted."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest

from tasks.errors import DataMistake, TrainingFailed
from tasks.identity import sha256_of
from tasks.storage import ArtifactStorage
from tasks.training import checkpoint, loop
from tasks.training.learner import Losses
from tasks.training.loop import CHECKPOINT_SUFFIX, advance
from tasks.training.trained import TRAINED_SUFFIX, Trained
from tasks.types import TrainingProgress
from tests.tasks.training.toy_learner import TAUGHT, ToyBatches, ToyLearner, training_of

END = 99
UPDATES, POINT_STEPS = 24, (0, 4, 8, 12, 16, 20, 24)


class Killed(BaseException):
    """What kills no process, but everything in it."""


class Workshop:
    """Where learners are made, counted and killed."""

    def __init__(self) -> None:
        self.made = 0
        self.on_step: Callable[[int], None] = lambda updates: None
        self.learner: type[ToyLearner] = ToyLearner

    def learner_of(self, trainer, detector, recipe, *rest) -> ToyLearner:
        self.made += 1
        return self.learner(detector, recipe, lambda updates: self.on_step(updates))

    def forget(self) -> None:
        """What a new process starts with."""
        loop._sessions.clear()


@pytest.fixture(autouse=True)
def workshop(monkeypatch: pytest.MonkeyPatch) -> Workshop:
    made = Workshop()
    monkeypatch.setattr(loop, "learner_of", made.learner_of)
    monkeypatch.setattr(loop, "Batches", ToyBatches)
    made.forget()
    return made


@pytest.fixture
def storage(tmp_path: Path) -> ArtifactStorage:
    return ArtifactStorage(str(tmp_path / "artifacts"))


def substance(progress: TrainingProgress) -> TrainingProgress:
    """All but how long it took."""
    times = {"seconds": 0.0, "core_seconds": 0.0, "images_per_second": None}
    return replace(progress, points=tuple(replace(point, **times) for point in progress.points))


def undisturbed(tmp_path: Path, **settings) -> TrainingProgress:
    loop._sessions.clear()
    found = advance(training_of(**settings), ArtifactStorage(str(tmp_path / "undisturbed")), END)
    loop._sessions.clear()
    return found


def checkpoint_file(storage: ArtifactStorage) -> Path:
    (found,) = Path(storage.url).rglob(f"*.{CHECKPOINT_SUFFIX}")
    return found


def test_a_training_goes_from_point_to_point_to_its_end(storage):
    progress = advance(training_of(), storage, END)
    assert tuple(point.step for point in progress.points) == POINT_STEPS
    assert (progress.steps, progress.images, progress.held_out_images) == (UPDATES, 23, 2)
    assert (progress.end, progress.is_over, progress.device) == ("finished", True, "cpu")
    assert progress.points[-1].held_out_loss < progress.points[0].held_out_loss
    assert progress.best_step == min(progress.points, key=lambda point: point.held_out_loss).step


def test_the_first_point_is_before_any_update(storage):
    progress = advance(training_of(), storage, 0)
    (point,) = progress.points
    assert (point.step, point.loss, point.learning_rate, point.images_per_second) == (0, None, None, None)
    assert (progress.best_step, progress.is_over) == (0, False)
    learner = ToyLearner(training_of().detector, training_of().recipe)
    kept = checkpoint.Checkpoint.from_bytes(storage.recall(training_of().key, CHECKPOINT_SUFFIX)).best
    assert sha256_of(kept) == progress.trained_sha256
    trained = Trained.from_bytes(kept, "it")
    assert np.array_equal(trained.detector.tensors[TAUGHT], learner.detector().tensors[TAUGHT])


def test_losses_of_a_point_are_means_over_the_updates_since_the_one_before(storage):
    training, seen = training_of(), []
    advance(training, storage, 2, lambda step, losses: seen.append(losses) or True)
    point = advance(training, storage, 2).points[-1]
    want = [sum(values) / 4 for values in zip(*map(astuple, seen[4:8]), strict=True)]
    found = [point.box_loss, point.score_loss, point.distillation_loss, point.loss]
    assert found == pytest.approx(want, rel=1e-12)
    assert point.learning_rate == training.recipe.learning_rate_at(7, UPDATES)


def test_without_annotations_no_point_has_losses_against_labels(storage, workshop):
    training = training_of(is_annotated=False, distillation_weight=1.0)
    advance(training, storage, 2)
    workshop.forget()
    points = advance(training, storage, END).points
    assert {(point.box_loss, point.score_loss) for point in points} == {(None, None)}
    assert all(point.loss is not None and point.distillation_loss is not None for point in points[1:])
    annotated = advance(training_of(distillation_weight=1.0), ArtifactStorage(f"{storage.url}-annotated"), END).points
    assert all(point.box_loss is not None and point.score_loss is not None for point in annotated[1:])


@pytest.mark.parametrize("is_annotated", [True, False])
def test_losses_against_labels_that_are_no_numbers_end_a_training_only_where_there_are_labels(
    storage, workshop, is_annotated
):
    class Astray(ToyLearner):
        def step(self, *arguments) -> Losses:
            return replace(super().step(*arguments), box=math.inf, score=math.nan, total=1.0)

    workshop.learner = Astray
    training = training_of(is_annotated=is_annotated, distillation_weight=1.0)
    if is_annotated:
        with pytest.raises(TrainingFailed, match="box inf, score nan, distillation"):
            advance(training, storage, END)
    else:
        assert advance(training, storage, END).end == "finished"


@pytest.mark.parametrize("distillation_weight", [0.0, 0.3, 1.0])
def test_the_held_out_loss_is_the_mean_over_images_of_what_the_recipe_makes_small(storage, distillation_weight):
    training = training_of(distillation_weight=distillation_weight)
    training = replace(training, recipe=replace(training.recipe, loss=replace(training.recipe.loss, score_weight=3.0)))
    learner = ToyLearner(training.detector, training.recipe)
    first, second = ToyBatches(training.images, None, training.recipe).held_out()

    def measure(losses: Losses) -> float:
        return losses.total

    want = (5 * measure(learner.evaluate(first)) + 2 * measure(learner.evaluate(second))) / 7
    assert advance(training, storage, 0).points[0].held_out_loss == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("killed_at", range(1, UPDATES + 1))
@pytest.mark.parametrize("every", [0.0, math.inf])
def test_killed_at_any_update_it_ends_as_if_undisturbed(storage, tmp_path, workshop, monkeypatch, killed_at, every):
    """With a checkpoint after each update, and with those of the points alone."""
    want = undisturbed(tmp_path)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", every)

    def kill(updates: int) -> None:
        if updates == killed_at:
            raise Killed

    workshop.on_step = kill
    with pytest.raises(Killed):
        advance(training_of(), storage, END)
    workshop.on_step = lambda updates: None
    assert substance(advance(training_of(), storage, END)) == substance(want)


def test_killed_between_all_updates_it_ends_as_if_undisturbed(storage, tmp_path, workshop, monkeypatch):
    want = undisturbed(tmp_path)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    done = []

    def kill(updates: int) -> None:
        if updates == len(done) + 2:
            done.append(updates)
            raise Killed

    workshop.on_step = kill
    progress = None
    while progress is None:
        try:
            progress = advance(training_of(), storage, END)
        except Killed:
            workshop.forget()
    assert substance(progress) == substance(want)
    assert workshop.made - 1 == UPDATES  # The undisturbed one is the other.


@pytest.mark.parametrize("forgets", [True, False])
def test_point_by_point_it_ends_as_at_once_in_one_process_or_in_many(storage, tmp_path, workshop, forgets):
    want = undisturbed(tmp_path)
    workshop.made = 0
    for point in range(len(POINT_STEPS)):
        progress = advance(training_of(), storage, point)
        assert (progress.step, progress.is_over) == (POINT_STEPS[point], point == len(POINT_STEPS) - 1)
        if forgets:
            workshop.forget()
    assert substance(progress) == substance(want)
    assert workshop.made == (len(POINT_STEPS) if forgets else 1)


def test_two_trainings_that_take_turns_do_not_disturb_each_other(storage, tmp_path, workshop):
    wanted = [undisturbed(tmp_path / str(seed), seed=seed) for seed in range(3)]
    for count in (2, 3):
        found, workshop.made = {}, 0
        place = ArtifactStorage(f"{storage.url}-{count}")
        for point in range(len(POINT_STEPS)):
            for seed in range(count):
                found[seed] = advance(training_of(seed=seed), place, point)
            assert len(loop._sessions) <= 2
        assert [substance(found[seed]) for seed in range(count)] == list(map(substance, wanted[:count]))
        assert workshop.made == 2 if count == 2 else workshop.made > 3


def test_a_learner_that_others_have_overtaken_is_not_used(storage, tmp_path, workshop):
    """Another worker went on from the checkpoint that this one had written."""
    want = undisturbed(tmp_path)
    advance(training_of(), storage, 1)
    (stale,) = loop._sessions.values()
    workshop.forget()
    advance(training_of(), storage, 3)
    loop._sessions[training_of().key] = stale
    assert substance(advance(training_of(), storage, END)) == substance(want)


def test_a_point_that_was_passed_answers_without_a_learner(storage, workshop):
    done = advance(training_of(), storage, 3)
    workshop.forget()
    made = workshop.made
    assert advance(training_of(), storage, 3) == advance(training_of(), storage, 1) == done
    over = advance(training_of(), storage, END)
    workshop.forget()
    assert advance(training_of(), storage, END) == advance(training_of(), storage, 0) == over
    assert workshop.made == made + 1


def test_one_that_is_over_keeps_no_state(storage):
    advance(training_of(), storage, 5)
    assert checkpoint.Checkpoint.from_bytes(storage.recall(training_of().key, CHECKPOINT_SUFFIX)).state
    advance(training_of(), storage, END)
    assert not checkpoint.Checkpoint.from_bytes(storage.recall(training_of().key, CHECKPOINT_SUFFIX)).state
    assert not loop._sessions


class Unlearning(ToyLearner):
    """Each update makes it worse."""

    def step(self, batch, learning_rate, is_observing):
        losses = super().step(batch, learning_rate, is_observing)
        self._weights = self._weights * np.float32(1.25)
        return losses


@pytest.mark.parametrize(("patience", "points"), [(1, 2), (2, 3), (4, 5), (None, 7)])
def test_it_ends_when_held_out_images_get_no_better_and_keeps_the_best(storage, workshop, patience, points):
    workshop.learner = Unlearning
    progress = advance(training_of(patience=patience), storage, END)
    losses = [point.held_out_loss for point in progress.points]
    assert losses == sorted(losses) and len(losses) == points
    assert progress.end == ("finished" if patience is None else "no_better")
    assert (progress.best_step, progress.best.held_out_loss) == (0, losses[0])
    workshop.forget()
    first = advance(training_of(patience=patience), ArtifactStorage(f"{storage.url}-first"), 0)
    assert progress.trained_sha256 == first.trained_sha256


def test_patience_counts_through_interruptions(storage, workshop):
    workshop.learner = Unlearning
    for point in range(4):
        progress = advance(training_of(patience=3), storage, point)
        assert progress.is_over == (point == 3)
        workshop.forget()


def test_the_best_is_kept_though_later_points_are_worse(storage, workshop):
    class Overshooting(ToyLearner):
        def step(self, batch, learning_rate, is_observing):
            losses = super().step(batch, learning_rate, is_observing)
            if self._updates > 8:
                self._weights = self._weights + np.float32(0.5)
            return losses

    workshop.learner = Overshooting
    progress = advance(training_of(), storage, END)
    assert progress.best_step == 8
    workshop.forget()
    at_best = advance(training_of(), ArtifactStorage(f"{storage.url}-again"), 2)
    assert progress.trained_sha256 == at_best.trained_sha256


def test_a_loss_that_is_no_number_fails_and_names_update_and_losses_and_the_checkpoint_stays(storage, workshop):
    class Bursting(ToyLearner):
        def step(self, batch, learning_rate, is_observing):
            losses = super().step(batch, learning_rate, is_observing)
            return replace(losses, box=math.nan, total=math.nan) if self._updates == 11 else losses

    workshop.learner = Bursting
    for _ in range(2):
        with pytest.raises(TrainingFailed, match=r"update 11 of 24 .* box nan, score 0\.\d+, .* total nan; a learning"):
            advance(training_of(), storage, END)
        assert advance(training_of(), storage, 1).step == 8


def test_held_out_losses_that_are_no_numbers_fail_too(storage, workshop):
    class Blind(ToyLearner):
        def evaluate(self, batch):
            return replace(super().evaluate(batch), score=math.inf, total=math.inf)

    workshop.learner = Blind
    with pytest.raises(TrainingFailed, match=r"after 0 of 24 updates the held-out images .* score inf"):
        advance(training_of(), storage, END)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [_cut, _flip, lambda path: path.write_bytes(b""), Path.unlink])
def test_a_damaged_checkpoint_is_none_and_the_result_the_same(storage, tmp_path, workshop, damage):
    want = undisturbed(tmp_path)
    advance(training_of(), storage, 3)
    workshop.forget()
    damage(checkpoint_file(storage))
    assert advance(training_of(), storage, 1).step == 4
    assert substance(advance(training_of(), storage, END)) == substance(want)


def test_a_checkpoint_of_another_format_is_none_and_the_result_the_same(storage, tmp_path, workshop, monkeypatch):
    want = undisturbed(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 0)
        advance(training_of(), storage, 3)
    assert substance(advance(training_of(), storage, END)) == substance(want)


def test_only_the_weights_of_the_end_are_left_in_storage(storage, workshop):
    for point in range(len(POINT_STEPS) - 1):
        advance(training_of(), storage, point)
        assert not list(Path(storage.url).rglob(f"*.{TRAINED_SUFFIX}"))
    progress = advance(training_of(), storage, END)
    (path,) = Path(storage.url).rglob(f"*.{TRAINED_SUFFIX}")
    assert path.name == f"{progress.trained_sha256}.{TRAINED_SUFFIX}"


def test_the_best_weights_are_made_again_if_they_are_gone(storage, workshop):
    before = advance(training_of(), storage, END)
    for path in Path(storage.url).rglob(f"*.{TRAINED_SUFFIX}"):
        path.unlink()
    assert substance(advance(training_of(), storage, END)) == substance(before)
    assert storage.has(before.trained_sha256, TRAINED_SUFFIX)


def test_a_watcher_sees_every_update_once_and_can_stop_without_loss(storage, tmp_path, workshop):
    want, seen = undisturbed(tmp_path), []
    for stop in (3, 4, 17, END):

        def watch(step: int, losses: Losses, stop: int = stop) -> bool:
            seen.append(step)
            return step != stop

        progress = advance(training_of(), storage, END, watch)
        workshop.forget()
    assert seen == list(range(1, UPDATES + 1))
    assert substance(progress) == substance(want)


def test_time_and_cores_add_up_over_calls_and_leave_out_what_lies_between(storage, workshop):
    workshop.on_step = lambda updates: sum(range(100_000))
    before = time.perf_counter(), time.process_time()
    spent = 0.0
    for point in range(len(POINT_STEPS)):
        start = time.perf_counter()
        progress = advance(training_of(), storage, point)
        spent += time.perf_counter() - start
        time.sleep(0.05)
        if point == 3:
            workshop.forget()
    last = progress.points[-1]
    seconds = [point.seconds for point in progress.points]
    assert seconds == sorted(seconds) and 0 < last.seconds <= spent < time.perf_counter() - before[0] - 0.3
    assert 0 < last.core_seconds <= time.process_time() - before[1]
    assert all(point.images_per_second > 0 for point in progress.points[1:])


def test_a_training_without_epochs_or_with_one_image_is_refused(storage):
    with pytest.raises(ValueError, match="0 epochs has no point 0"):
        advance(training_of(epochs=0), storage, 0)
    with pytest.raises(DataMistake, match="needs 2 images at least"):
        advance(training_of(images=1), storage, 0)


def test_a_process_that_is_killed_again_and_again_ends_with_the_same_bytes(storage, tmp_path):
    want, kills = undisturbed(tmp_path), 0
    command = [sys.executable, "-m", "tests.tasks.training.killed_training", storage.url]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    while kills < 4:
        process = subprocess.Popen(command, env=environment)
        known = _contents(storage)
        # Until it has written some checkpoints of its own; where in its work that is, is up to the machine.
        for _ in range(kills + 1):
            while process.poll() is None and _contents(storage) == known:
                time.sleep(0.005)
            known = _contents(storage)
        kills += 1
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert checkpoint.Checkpoint.from_bytes(storage.recall(training_of().key, CHECKPOINT_SUFFIX)).standing.step > 0
    subprocess.run(command, env=environment, check=True, timeout=120)
    assert substance(advance(training_of(), storage, END)) == substance(want)


def _contents(storage: ArtifactStorage) -> bytes:
    return b"".join(path.read_bytes() for path in Path(storage.url).rglob(f"*.{CHECKPOINT_SUFFIX}"))
