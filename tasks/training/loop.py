"""The loop: a training from point to point of its learning curve, whoever learns, through checkpoints."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, replace

from tasks.errors import DataMistake, TrainingFailed
from tasks.identity import sha256_of
from tasks.storage import ArtifactStorage
from tasks.training.checkpoint import Checkpoint, Standing, Stretch, versions_of
from tasks.training.learner import Losses
from tasks.training.learners import learner_of
from tasks.training.samples import Batches
from tasks.training.trained import TRAINED_SUFFIX, Trained
from tasks.training.training import Training
from tasks.types import TrainingPoint, TrainingProgress

CHECKPOINT_SUFFIX = "checkpoint.safetensors"
"""Suffix of checkpoints in artifact storage, kept under the training's key."""

CHECKPOINT_SECONDS = 60.0
"""Most wall time between checkpoints: how much of a killed worker's work is lost."""

Watcher = Callable[[int, Losses], bool]
"""Told of each update, with the number of those done and its losses; answers whether to go on."""

_MOST_SESSIONS = 2
_WITHOUT_LABELS = ("distillation", "total")


def advance(
    training: Training, storage: ArtifactStorage, point: int, watch: Watcher | None = None
) -> TrainingProgress:  # fmt: skip
    """Trains on, from wherever the training is, to a point of its learning curve.

    However often it is interrupted, the losses and weights are, to the bit, those of an undisturbed training, as far
    as the learner's steps are.

    Args:
        training: What to train, one epoch at least. Whoever calls with equal trainings goes on where the last one
            stopped.
        storage: Where checkpoints and results go.
        point: Index in `Recipe.point_steps`; beyond the last one is the end. A point that was passed already answers
            at once.
        watch: Told of each update. If it says to stop, a checkpoint is written, and this returns before the point.

    Returns:
        How far it is, at that point or at the end; farther, if it was farther already.

    Raises:
        TrainingFailed: If a loss is no number.
        DataMistake: If an image is damaged, or there are too few.
        ValueError: If the recipe has no epochs, so that there is nothing to train.
    """
    if not training.recipe.epochs or point < 0:
        raise ValueError(f"a training of {training.recipe.epochs} epochs has no point {point}")
    if len(training.images) < 2:
        raise DataMistake(
            f"a training needs 2 images at least, of which one is held out; it was given {len(training.images)}"
        )
    marks = training.recipe.point_steps(len(training.images))
    goal = marks[min(point, len(marks) - 1)]
    kept = _kept(training.key, storage)
    if kept is not None and (kept.standing.progress.is_over or kept.standing.progress.step >= goal):
        return kept.standing.progress
    # Taken out while it works: after an error nobody knows what state it is in.
    session = _sessions.pop(training.key, None)
    while len(_sessions) >= _MOST_SESSIONS:
        _sessions.popitem(last=False)
    if session is None or kept is None or session.standing.step != kept.standing.step:
        session = _Session(training, storage, kept)
    session.storage = storage
    session.train(goal, watch)
    if not session.standing.progress.is_over:
        _sessions[training.key] = session
    return session.standing.progress


_sessions: "OrderedDict[str, _Session]" = OrderedDict()
"""Learners of this process between two calls, by the training's key; the latest is last."""


def _kept(key: str, storage: ArtifactStorage) -> Checkpoint | None:
    """Reads a checkpoint; none of a training that is over and whose weights are gone."""
    data = storage.recall(key, CHECKPOINT_SUFFIX)
    found = None if data is None else Checkpoint.from_bytes(data)
    if found is None:
        return None
    progress = found.standing.progress
    return None if progress.is_over and not storage.has(progress.trained_sha256, TRAINED_SUFFIX) else found


class _Session:
    """A learner with its images, on the way from checkpoint to checkpoint."""

    def __init__(self, training: Training, storage: ArtifactStorage, kept: Checkpoint | None) -> None:
        self._clock = _Clock(0.0, 0.0) if kept is None else _Clock(kept.standing.seconds, kept.standing.core_seconds)
        self._training, self.storage = training, storage
        self._batches = Batches(training.images, training.detector.spec, training.recipe)
        self._held_out = self._batches.held_out()
        self._learner = learner_of(
            training.trainer,
            training.detector,
            training.recipe,
            training.simulation,
            training.ranges,
            training.teacher,
            training.is_from_scratch,
        )
        self._steps = training.recipe.steps(len(training.images))
        self._marks = frozenset(training.recipe.point_steps(len(training.images)))
        if kept is None:
            self.standing = self._begun()
            self._write()
        else:
            self._learner.restore(kept.state)
            self._best = kept.best
            self.standing = replace(
                kept.standing, progress=replace(kept.standing.progress, device=self._learner.device)
            )  # fmt: skip

    def train(self, goal: int, watch: Watcher | None) -> None:
        """Makes updates up to a point, and writes a checkpoint there."""
        self._clock.go()
        written = time.monotonic()
        while self.standing.step < goal and not self.standing.progress.is_over:
            losses = self._update()
            if self.standing.step in self._marks:
                self._reach_point()
            goes_on = watch is None or watch(self.standing.step, losses)
            is_at_point = not self.standing.stretch.updates
            if is_at_point or not goes_on or time.monotonic() - written >= CHECKPOINT_SECONDS:
                self._write()
                written = time.monotonic()
            if not goes_on:
                break
        self._clock.rest()

    def _begun(self) -> Standing:
        """Evaluates before the first update: what training starts from is the first best."""
        images = len(self._training.images)
        progress = TrainingProgress(
            points=(self._point(Stretch(), 0, None),),
            steps=self._steps,
            images=images,
            held_out_images=self._training.recipe.held_out_images(images),
            device=self._learner.device,
            best_step=0,
            trained_sha256=self._note_best(),
        )
        return Standing(0, progress, self._clock.seconds, self._clock.core_seconds)

    def _update(self) -> Losses:
        start, step, recipe = time.perf_counter(), self.standing.step, self._training.recipe
        batch = self._batches.at(step)
        rate = recipe.learning_rate_at(step, self._steps)
        losses = self._learner.step(batch, rate, recipe.is_observing(step, self._steps))
        if not all(math.isfinite(value) for value in self._measured(losses).values()):
            raise TrainingFailed(
                f"update {step + 1} of {self._steps} has losses that are no numbers: {self._words(losses)}; "
                f"a learning rate below {recipe.learning_rate:g} may help"
            )
        stretch = self.standing.stretch.after(losses, len(batch.pixels), time.perf_counter() - start)
        self.standing = replace(self.standing, step=step + 1, stretch=stretch)
        return losses

    def _reach_point(self) -> None:
        standing, recipe = self.standing, self._training.recipe
        rate = recipe.learning_rate_at(standing.step - 1, self._steps)
        point = self._point(standing.stretch, standing.step, rate)
        progress = replace(standing.progress, points=(*standing.progress.points, point))
        if point.held_out_loss < standing.progress.best.held_out_loss:
            progress = replace(progress, best_step=point.step, trained_sha256=self._note_best())
        worse = sum(each.step > progress.best_step for each in progress.points)
        if standing.step == self._steps:
            progress = replace(progress, end="finished")
        elif recipe.patience is not None and worse >= recipe.patience:
            progress = replace(progress, end="no_better")
        self.standing = replace(standing, progress=progress, stretch=Stretch())

    def _point(self, stretch: Stretch, step: int, rate: float | None) -> TrainingPoint:
        def mean(total: float) -> float | None:
            return total / stretch.updates if stretch.updates else None

        is_annotated = self._training.images.is_annotated
        return TrainingPoint(
            step=step,
            held_out_loss=self._held_out_loss(step),
            loss=mean(stretch.total),
            box_loss=mean(stretch.box) if is_annotated else None,
            score_loss=mean(stretch.score) if is_annotated else None,
            distillation_loss=mean(stretch.distillation),
            learning_rate=rate,
            images_per_second=stretch.images / max(stretch.seconds, 1e-9) if stretch.updates else None,
            seconds=self._clock.seconds,
            core_seconds=self._clock.core_seconds,
        )

    def _held_out_loss(self, step: int) -> float:
        """The measure that `TrainingPoint.held_out_loss` defines."""
        total, images = 0.0, 0
        for batch in self._held_out:
            losses = self._learner.evaluate(batch)
            if not math.isfinite(losses.total):
                raise TrainingFailed(
                    f"after {step} of {self._steps} updates the held-out images have losses that are no numbers: "
                    f"{self._words(losses)}"
                )
            total, images = total + losses.total * len(batch.pixels), images + len(batch.pixels)
        return total / images

    def _measured(self, losses: Losses) -> dict[str, float]:
        """Losses by name. Of images without annotations, those against labels are of nothing, and left out."""
        found = asdict(losses)
        return found if self._training.images.is_annotated else {name: found[name] for name in _WITHOUT_LABELS}

    def _words(self, losses: Losses) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in self._measured(losses).items())

    def _note_best(self) -> str:
        self._best = Trained(self._learner.detector(), self._learner.ranges()).to_bytes()
        return sha256_of(self._best)

    def _write(self) -> None:
        self.standing = replace(
            self.standing, seconds=self._clock.seconds, core_seconds=self._clock.core_seconds
        )  # fmt: skip
        if self.standing.progress.is_over:
            self.storage.put(self._best, TRAINED_SUFFIX)
            # Whoever asks again needs no learner.
            found = Checkpoint(self.standing, {})
        else:
            found = Checkpoint(self.standing, self._learner.state(), self._best)
        data = found.to_bytes(versions_of(self._training.trainer))
        self.storage.keep(self._training.key, data, CHECKPOINT_SUFFIX)


class _Clock:
    """Wall time and CPU time of a training; it rests while nobody trains."""

    def __init__(self, seconds: float, core_seconds: float) -> None:
        self._before = (seconds, core_seconds)
        self._since: tuple[float, float] | None = None
        self.go()

    def go(self) -> None:
        if self._since is None:
            self._since = (time.perf_counter(), time.process_time())

    def rest(self) -> None:
        self._before, self._since = (self.seconds, self.core_seconds), None

    @property
    def seconds(self) -> float:
        return self._before[0] + (time.perf_counter() - self._since[0] if self._since else 0.0)

    @property
    def core_seconds(self) -> float:
        return self._before[1] + (time.process_time() - self._since[1] if self._since else 0.0)
