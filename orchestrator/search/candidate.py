"""Candidates: how far a search is with one variant."""

from dataclasses import dataclass

from tasks.types import Artifact, Failure, Latency, LossInterval, TrainingProgress, Variant, Verdict


@dataclass(frozen=True)
class Ask:
    """A strategy's wish to know about a variant."""

    number: int
    """Number of the trial."""

    variant: Variant
    """What it asks for."""

    is_warm: bool = False
    """Whether everything about it was known before the search began, so that it costs nothing."""


@dataclass(eq=False)
class Candidate:
    """One variant on its way to a verdict."""

    ask: Ask
    """Who asked for it."""

    artifact: Artifact | None = None
    """What was made."""

    latency: Latency | None = None
    """What the search goes by: its structure's latency, or that of its own bytes if the two turned out apart."""

    own_latency: Latency | None = None
    """The second measurement, of its own bytes, that a winner gets."""

    interval: LossInterval | None = None
    """The budget's loss at the last look."""

    rungs: int = 0
    """Rungs that it has been looked at on."""

    failure: Failure | None = None
    """Why it has no verdict on its accuracy, if that is so."""

    verdict: Verdict | None = None
    """What was decided; None while it is in flight."""

    is_untrained: bool = False
    """Whether `artifact` is that of its untrained twin, which has its structure and so its latency: its own takes a
    training first."""

    training: TrainingProgress | None = None
    """How far its training is, once it has begun."""

    is_told: bool = False
    """Whether the strategy knows the verdict."""

    is_confirmed: bool = False
    """Whether it was measured a second time and scored by the reference scorer."""

    @property
    def variant(self) -> Variant:
        """The variant."""
        return self.ask.variant

    @property
    def ratio(self) -> float:
        """Its latency ratio.

        Raises:
            AssertionError: If it was not timed yet.
        """
        assert self.latency is not None
        return self.latency.ratio

    @property
    def is_feasible(self) -> bool:
        """Whether it is known to be within the budget, on every image."""
        return self.verdict is not None and self.verdict.kind == "feasible"
