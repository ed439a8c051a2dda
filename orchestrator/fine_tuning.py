"""Fine-tuning: a float detector is trained on the user's own images, resumably, in this process."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from orchestrator.training_view import TrainingView
from results.schema import STATISTICS
from tasks.coco.dataset import Dataset
from tasks.coco.preprocess import PREPROCESSING, preprocess_shard, shard_files
from tasks.detect import detect_shard
from tasks.detector.class_heads import with_new_classes
from tasks.detector.weights import Detector
from tasks.errors import DataMistake, UserMistake
from tasks.identity import key_of
from tasks.score import merge, score
from tasks.storage import ArtifactStorage, write_whole
from tasks.training.checkpoint import versions_of
from tasks.training.learner import Losses, Trainer
from tasks.training.loop import advance
from tasks.training.recipe import Recipe
from tasks.training.samples import TrainingSet, taught_categories, training_set
from tasks.training.trained import TRAINED_SUFFIX, Trained
from tasks.training.training import Training
from tasks.types import Postprocessing, RuntimeSettings, TrainingProgress

Classes = Literal["auto", "keep", "new"]
"""Class heads: `new` for the categories of the set, `keep` those that are there, `auto` new ones if need be."""

_SHARD_IMAGES = 64
_NAMED = 5


@dataclass(frozen=True, eq=False)
class Start:
    """Where a fine-tuning starts."""

    detector: Detector
    """The detector, with the class heads that will be trained."""

    has_new_classes: bool
    """Whether these heads are new, so that it cannot detect anything yet."""

    because: str
    """Why they are, or are not, in one line."""


def start_of(detector: Detector, dataset: Dataset, classes: Classes, seed: int) -> Start:
    """Chooses the class heads.

    A category of the set is known if the detector has a column of its id, and, where it names its columns, of its
    name. Categories without a box to learn from do not count.

    Args:
        detector: The detector that was given.
        dataset: The training images with their boxes.
        classes: What the user wants.
        seed: Of new weights.

    Returns:
        Where to start.

    Raises:
        DataMistake: If the set has no box, or new heads would need a category of id 0, which is the background's, or
            old ones know no category of the set.
    """
    categories = taught_categories(dataset)
    unknown = _unknown(detector, categories)
    counted = f"{len(categories)} categories with boxes"
    if classes == "keep" or (classes == "auto" and not unknown):
        if classes == "keep" and set(categories) <= _absent(detector, categories):
            raise DataMistake(
                f"--classes keep: none of the {counted} ({_names(categories)}) has a column in the detector; "
                "choices: --classes new, which replaces its class heads"
            )
        absent = {number: categories[number] for number in sorted(_absent(detector, categories))}
        left_out = f"; left out, as it has no column for them: {_names(absent)}" if absent else ""
        return Start(detector, False, f"kept: the detector's own class heads, for {counted}{left_out}")
    if 0 in categories:
        raise DataMistake(
            f"category id 0 ({categories[0]}) is the background's in this detector; number the categories from 1"
        )
    why = f", as the detector does not know {_names(unknown)}" if classes == "auto" else ""
    return Start(with_new_classes(detector, categories, seed), True, f"new: class heads for {counted}{why}")


def _absent(detector: Detector, categories: dict[int, str]) -> set[int]:
    """Categories without a column."""
    return {number for number in categories if number == 0 or number not in detector.spec.class_ids}


def _unknown(detector: Detector, categories: dict[int, str]) -> dict[int, str]:
    spec = detector.spec
    names = dict(zip(spec.class_ids, spec.class_names, strict=True)) if spec.class_names else {}
    absent = _absent(detector, categories)
    return {
        number: name
        for number, name in categories.items()
        if number in absent or (number in names and _plain(names[number]) != _plain(name))
    }


def _plain(name: str) -> str:
    return name.strip().casefold()


def _names(categories: dict[int, str]) -> str:
    named = ", ".join(f"{number} ({name})" for number, name in list(categories.items())[:_NAMED])
    return named + (f" and {len(categories) - _NAMED} more" if len(categories) > _NAMED else "")


class FineTuning:
    """One fine-tuning, with its checkpoints in a folder of its own."""

    def __init__(
        self,
        start: Start,
        dataset: Dataset,
        trainer: Trainer,
        recipe: Recipe,
        checkpoints: Path,
        is_from_scratch: bool = False,
    ) -> None:
        """Reads the images' boxes, and every file once, since the key of the training names their content.

        Args:
            start: Where it starts.
            dataset: The training images.
            trainer: The framework.
            recipe: How.
            checkpoints: Folder of checkpoints; this training makes its own within.
            is_from_scratch: Whether only the architecture of the start counts.

        Raises:
            UserMistake: If that folder cannot be made, or there is nothing to learn from.
        """
        self.start, self.trainer, self.recipe, self.is_from_scratch = start, trainer, recipe, is_from_scratch
        self.images: TrainingSet = training_set(dataset, start.detector.spec)
        key = key_of(
            "fine-tuning", start.detector.sha256, trainer, recipe, self.images.fingerprint, PREPROCESSING,
            versions_of(trainer), *(("from scratch",) if is_from_scratch else ()),
        )  # fmt: skip
        self._training = Training(
            key, trainer, start.detector, recipe, self.images, is_from_scratch=is_from_scratch
        )  # fmt: skip
        self.folder = checkpoints / key[:12]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserMistake(f"the folder {self.folder} cannot be made: {error.strerror}") from error
        self._storage = ArtifactStorage(str(self.folder.resolve()))

    @property
    def steps(self) -> int:
        """Updates of the whole training."""
        return self.recipe.steps(len(self.images))

    @property
    def images_per_update(self) -> float:
        """Mean over an epoch."""
        learned = len(self.images) - self.recipe.held_out_images(len(self.images))
        return learned * self.recipe.epochs / self.steps

    def run(self, view: TrainingView) -> TrainingProgress:
        """Trains to the end, from wherever an earlier run stopped.

        Args:
            view: Who is told.

        Returns:
            The end.

        Raises:
            KeyboardInterrupt: After Ctrl-C, once a checkpoint is written. A second one ends at once.
        """
        reached = 0
        with _interruption() as interrupted:

            def watch(step: int, losses: Losses) -> bool:
                view.updated(step, losses)
                if interrupted:
                    view.stage(f"stopping after update {step}")
                return not interrupted

            while True:
                progress = advance(self._training, self._storage, reached, watch)
                if len(progress.points) > reached:
                    view.reached(progress)
                if progress.is_over:
                    return progress
                if interrupted:
                    raise KeyboardInterrupt
                reached = len(progress.points)

    def detector(self, progress: TrainingProgress) -> Detector:
        """Returns the best detector, which says what it was trained with.

        Args:
            progress: Of this training, which is over.
        """
        name = f"the trained {progress.trained_sha256[:12]}"
        trained = Trained.from_bytes(self._storage.get(progress.trained_sha256, TRAINED_SUFFIX), name).detector
        has_labels = self.recipe.distillation_weight < 1
        return replace(trained, loss=self.recipe.loss if has_labels else self.start.detector.loss)


@contextmanager
def _interruption() -> Iterator[list[int]]:
    """Notes Ctrl-C in place of raising an error in the middle of an update; the second one is an error again.

    Where the signal is ignored, as in jobs that a shell runs in the background, it stays so.

    Yields:
        The signals so far.
    """
    noted: list[int] = []
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield noted
        return

    def note(number: int, frame: Any) -> None:
        noted.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)


def scored(detector: Detector, dataset: Dataset) -> dict[str, float]:
    """Scores a float detector as any evaluation does; its Keras build is run.

    Args:
        detector: What to score.
        dataset: Annotated images.

    Returns:
        The COCO statistics by name; AP in [0, 1].
    """
    data, settings = detector.to_bytes(), RuntimeSettings("keras", threads=int(os.environ.get("OMP_NUM_THREADS", 1)))
    shards = (
        preprocess_shard(files, detector.spec.image_size, cache=None)
        for files in shard_files(dataset.images, _SHARD_IMAGES)
    )
    found = merge(detect_shard(data, settings, detector.spec, shard, Postprocessing()) for shard in shards)
    return dict(zip(STATISTICS, score(dataset.ground_truth(), found).statistics, strict=True))


def write_result(out: Path, detector: Detector, record: dict[str, Any]) -> Path:
    """Writes a detector, and the record of its training beside it.

    Args:
        out: File of the detector.
        detector: What was trained.
        record: Plain JSON values.

    Returns:
        The record's file, `STEM_training.json`.

    Raises:
        UserMistake: If one of them cannot be written; a detector without its record is not left behind.
    """
    place = out.with_name(f"{out.stem}_training.json")
    for path, data in ((place, (json.dumps(record, indent=2) + "\n").encode()), (out, detector.to_bytes())):
        try:
            write_whole(path, data)
        except OSError as error:
            raise UserMistake(f"{path} cannot be written: {error.strerror}") from error
    return place


def record_of(
    tuning: FineTuning, progress: TrainingProgress, origin: Detector, evaluation: dict[str, Any] | None
) -> dict[str, Any]:
    """Says how a detector was trained.

    Args:
        tuning: The training.
        progress: Its end.
        origin: The detector that was given.
        evaluation: Images and statistics before and after, if it was scored.

    Returns:
        Plain JSON values. Times and losses as in `tasks.types.TrainingPoint`.
    """
    last = progress.points[-1]
    return {
        "detector_sha256": tuning.detector(progress).sha256,
        "started_from_sha256": origin.sha256,
        "from_scratch": tuning.is_from_scratch,
        "classes": tuning.start.because,
        "trainer": tuning.trainer,
        "recipe": asdict(tuning.recipe),
        "images": progress.images,
        "held_out_images": progress.held_out_images,
        "images_fingerprint": tuning.images.fingerprint,
        "updates": progress.step,
        "updates_planned": progress.steps,
        "end": progress.end,
        "best_update": progress.best_step,
        "held_out_loss": {"before": progress.points[0].held_out_loss, "after": progress.best.held_out_loss},
        "evaluation": evaluation,
        "seconds": last.seconds,
        "core_seconds": last.core_seconds,
        "device": progress.device,
        "threads": int(os.environ.get("OMP_NUM_THREADS", 1)),
        "cpus": os.cpu_count(),
        "versions": versions_of(tuning.trainer),
        "curve": [asdict(point) for point in progress.points],
    }
