"""Placeholder; see tasks.training.learner.Learner."""

from typing import Any


class KerasLearner:
    """Placeholder."""

    def __init__(self, *arguments: Any) -> None:
        raise NotImplementedError
