"""A training: what the loop is handed."""

from dataclasses import dataclass

from tasks.detector.weights import Detector
from tasks.training.learner import Ranges, Simulation, Trainer
from tasks.training.recipe import Recipe
from tasks.training.samples import TrainingSet


@dataclass(frozen=True, eq=False)
class Training:
    """One training."""

    key: str
    """Names everything that its result depends on; 64 hexadecimal digits. Checkpoints are kept under it."""

    trainer: Trainer
    """The framework."""

    detector: Detector
    """Where it starts."""

    recipe: Recipe
    """How."""

    images: TrainingSet
    """On what."""

    simulation: Simulation | None = None
    """What is quantized; None for a float detector."""

    ranges: Ranges | None = None
    """First ranges of activations."""

    teacher: Detector | None = None
    """The float detector to learn from, if the recipe distils; the one where it starts if None."""

    is_from_scratch: bool = False
    """Whether only the architecture of `detector` counts, and training starts from first weights of chance."""
