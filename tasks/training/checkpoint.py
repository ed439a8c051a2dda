"""Checkpoints: all that a training needs to go on elsewhere as if nothing had happened, in one safetensors file."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tasks.detector.weights import metadata_of, with_metadata
from tasks.errors import ModelMistake
from tasks.training.learner import Losses, Trainer
from tasks.training.learners import PACKAGES_OF_TRAINERS
from tasks.types import TrainingPoint, TrainingProgress

FORMAT = 2
"""Version of the files. One of another version is none: the training starts afresh."""

_KEY = "quantsweep.training"
_BEST, _STATE = "best", "state/"


@dataclass(frozen=True)
class Stretch:
    """Updates since the last point of the learning curve. Losses are sums, in the order of the updates."""

    updates: int = 0
    """Their number."""

    images: int = 0
    """Images that they saw."""

    seconds: float = 0.0
    """Wall time of the updates and of the making of their batches."""

    box: float = 0.0
    score: float = 0.0
    distillation: float = 0.0
    total: float = 0.0

    def after(self, losses: Losses, images: int, seconds: float) -> "Stretch":
        """Adds an update.

        Args:
            losses: Of the update.
            images: That it saw.
            seconds: That it took.

        Returns:
            The longer stretch.
        """
        return Stretch(
            self.updates + 1,
            self.images + images,
            self.seconds + seconds,
            self.box + losses.box,
            self.score + losses.score,
            self.distillation + losses.distillation,
            self.total + losses.total,
        )


@dataclass(frozen=True)
class Standing:
    """Where a training is, but for the learner's own state."""

    step: int
    """Updates done: those of the last point and those of the stretch."""

    progress: TrainingProgress
    """What is known since the last point of the learning curve."""

    seconds: float
    """Wall time so far, that of lost workers not included."""

    core_seconds: float
    """CPU time so far, all threads together, that of lost workers not included."""

    stretch: Stretch = field(default_factory=Stretch)
    """Updates since that point."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A training at rest."""

    standing: Standing
    """Where it is."""

    state: dict[str, np.ndarray]
    """The learner's state; empty if the training is over."""

    best: bytes = b""
    """The best weights and ranges so far, as `Trained.to_bytes` has them; empty if the training is over: then they are
    a file of their own. Until then every better one would leave such a file behind."""

    def to_bytes(self, versions: Mapping[str, str]) -> bytes:
        """Returns the content of its file, the same for equal checkpoints.

        Args:
            versions: Versions of the libraries that trained, for people who look into it.
        """
        # np.ascontiguousarray would make arrays without dimensions one-dimensional.
        arrays = {f"{_STATE}{name}": np.array(self.state[name], order="C") for name in sorted(self.state)}
        arrays[_BEST] = np.frombuffer(self.best, np.uint8)
        record = {"format": FORMAT, "versions": dict(versions), **asdict(self.standing)}
        return with_metadata(save(arrays), _KEY, json.dumps(record, sort_keys=True))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Checkpoint | None":
        """Reads one.

        Args:
            data: Content of a file.

        Returns:
            The checkpoint, or None if it is of another format version, or something else.
        """
        try:
            text = metadata_of(data, "the checkpoint").get(_KEY)
            record: dict[str, Any] = json.loads(text) if text else {}
            if record.get("format") != FORMAT:
                return None
            arrays = load(data)
            best = arrays.pop(_BEST).tobytes()
            state = {name.removeprefix(_STATE): value for name, value in arrays.items()}
            return cls(_standing_from(record), state, best)
        # What is no checkpoint may have any other fields, of any other types.
        except (ModelMistake, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
            return None


_PACKAGES = ("quantsweep", "numpy", "opencv-python-headless", "pillow")
"""Distributions that decide about trained weights whoever trains: loop and loss, decoding and augmentation."""


def versions_of(trainer: Trainer, others: Iterable[str] = ()) -> dict[str, str]:
    """Returns the installed version of each distribution that decides about trained weights, without imports.

    Args:
        trainer: The framework.
        others: Distributions that decide about where the training starts.

    Returns:
        Versions by name, sorted.
    """
    return {name: version(name) for name in sorted({*_PACKAGES, *PACKAGES_OF_TRAINERS[trainer], *others})}


def _standing_from(record: dict[str, Any]) -> Standing:
    progress = record["progress"]
    points = tuple(TrainingPoint(**point) for point in progress.pop("points"))
    return Standing(
        record["step"],
        TrainingProgress(points=points, **progress),
        record["seconds"],
        record["core_seconds"],
        Stretch(**record["stretch"]),
    )
