"""The laboratory: what a search needs to have measured, wherever the numbers come from.

Two implementations: tasks on a cluster (`orchestrator.search.cluster_laboratory`), and a recorded sweep
(`orchestrator.replay`).
"""

from collections.abc import Callable
from typing import Protocol

from orchestrator.search.candidate import Candidate
from orchestrator.search.rungs import Rung
from tasks.types import Artifact, Failure, Latency, LossInterval, TrainingProgress


class Laboratory(Protocol):
    """Measures candidates. Every continuation is called once, at once or while `run` runs."""

    images: int
    """All images that accuracy is measured on."""

    width: int
    """How many candidates should be looked at at the same time to keep it busy; at least 1."""

    times_elsewhere: bool
    """Whether a latency and a look can be measured at the same time, so that a look need not wait for latencies."""

    training_width: int
    """How many trainings may run side by side; at least 1."""

    @property
    def images_inferred(self) -> int:
        """Images that went through an artifact for this search so far, the reference's included.

        What was known already does not count.
        """

    def needs_training(self, candidate: Candidate) -> bool:
        """Whether its artifact takes a training that was not done yet."""

    def training_key(self, candidate: Candidate) -> str:
        """Names the training of one that is trained: candidates that differ in what is made of it share it."""

    def make(self, candidate: Candidate, then: Callable[[Artifact | Failure], None]) -> None:
        """Makes its artifact; that of its untrained twin if it is untrained."""

    def train(
        self,
        candidate: Candidate,
        watch: Callable[[TrainingProgress], str | None],
        then: Callable[[Artifact | Failure], None],
    ) -> None:
        """Trains it and makes its own artifact.

        `watch` hears of each point of the learning curve. When it answers why the training should end, `then` gets a
        failure, unless the same training goes on for another candidate.
        """

    def time(self, candidate: Candidate, then: Callable[[Latency | Failure], None]) -> None:
        """Measures the latency of its artifact's structure, beside the reference."""

    def look(self, candidate: Candidate, rung: Rung, then: Callable[[LossInterval | Failure], None]) -> None:
        """Scores it on the first `rung.images` images in the search's order, and tells the budget's loss there.

        On the last rung, of all images, `loss` is the loss of the whole score, as the leaderboard has it. Where that
        is known already, it may be the answer on any rung.
        """

    def confirm(self, candidate: Candidate, then: Callable[[Latency | Failure], None]) -> None:
        """Measures the latency of its own bytes, and has the reference scorer confirm its score on every image."""

    def run(self) -> None:
        """Works until nothing is left to do."""
