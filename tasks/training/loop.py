"""The loop: a training from point to point of its learning curve, whoever learns, through checkpoints."""

from tasks.storage import ArtifactStorage
from tasks.training.training import Training
from tasks.types import TrainingProgress

CHECKPOINT_SUFFIX = "checkpoint.safetensors"
"""Suffix of checkpoints in artifact storage, kept under the training's key."""


def advance(training: Training, storage: ArtifactStorage, point: int) -> TrainingProgress:
    """Trains on, from wherever the training is, to a point of its learning curve.

    Args:
        training: What to train. Whoever calls with equal trainings goes on where the last one stopped.
        storage: Where checkpoints and results go.
        point: Index in `Recipe.point_steps`; beyond the last one is the end. A point that was passed already answers
            at once.

    Returns:
        How far it is, at that point or at the end.

    Raises:
        TrainingFailed: If a loss is no number.
        DataMistake: If an image is damaged, or there are too few.
    """
    raise NotImplementedError
