"""Placeholder; see tasks.training.learner.Learner."""

from typing import Any


class TorchLearner:
    """Placeholder."""

    def __init__(self, *arguments: Any) -> None:
        raise NotImplementedError
