"""A training in a process to be killed: `python -m tests.tasks.training.killed_training FOLDER`."""

import sys
from unittest import mock

from tasks.storage import ArtifactStorage
from tasks.training import loop
from tests.tasks.training.toy_learner import ToyBatches, ToyLearner, slowly, training_of


def _main(folder: str) -> None:
    with (
        mock.patch.object(loop, "Batches", ToyBatches),
        mock.patch.object(
            loop, "learner_of", lambda trainer, detector, recipe, *rest: ToyLearner(detector, recipe, slowly(0.02))
        ),
        mock.patch.object(loop, "CHECKPOINT_SECONDS", 0.0),
    ):
        loop.advance(training_of(), ArtifactStorage(folder), 6)


if __name__ == "__main__":
    _main(sys.argv[1])
