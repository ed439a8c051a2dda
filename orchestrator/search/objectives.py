"""Objectives: what a search makes small, and when a candidate can be given up for the sake of another."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from orchestrator.search.candidate import Candidate

Value = Callable[[Candidate], float]


def _loss(candidate: Candidate) -> float:
    assert candidate.interval is not None
    return candidate.interval.loss


def _size(candidate: Candidate) -> float:
    assert candidate.artifact is not None
    return float(candidate.artifact.size_bytes)


VALUES: dict[str, Value] = {
    "latency": lambda candidate: candidate.ratio,
    "ap_loss": _loss,
    "size": _size,
}
"""What can be made small: latency ratio to the reference, loss of the budget's metric, size in bytes."""


class Objective(Protocol):
    """What a search makes small."""

    @property
    def names(self) -> tuple[str, ...]:
        """Keys of `VALUES`."""

    def beaten_by(self, candidate: Candidate, rivals: Iterable[Candidate]) -> Candidate | None:
        """Finds a reason to look no further at a candidate.

        Args:
            candidate: One that was timed.
            rivals: Feasible candidates, known on every image.

        Returns:
            A rival that the candidate cannot beat, or None.
        """


@dataclass(frozen=True)
class LeastLatency:
    """The latency ratio alone."""

    names: tuple[str, ...] = ("latency",)

    def beaten_by(self, candidate: Candidate, rivals: Iterable[Candidate]) -> Candidate | None:
        """Finds the fastest rival, if the candidate is not faster than it; see `Objective`.

        A candidate whose interval overlaps the rival's without being faster could at best be as fast: it cannot become
        the winner either, unless a second measurement makes the rival slower.
        """
        best = min(rivals, key=lambda rival: rival.ratio, default=None)
        return best if best is not None and candidate.ratio >= best.ratio else None


@dataclass(frozen=True)
class Pareto:
    """Several values at once: whatever no other candidate beats in all of them."""

    names: tuple[str, ...]

    def beaten_by(self, candidate: Candidate, rivals: Iterable[Candidate]) -> Candidate | None:
        """Finds a rival that is surely better in latency and loss, and no larger; see `Objective`.

        Surely means that intervals do not overlap; what is not known of the candidate yet counts as the best there is.
        """
        return next(
            (rival for rival in rivals if all(self._is_behind(candidate, rival, name) for name in self.names)), None
        )

    @staticmethod
    def _is_behind(candidate: Candidate, rival: Candidate, name: str) -> bool:
        if name == "latency":
            assert candidate.latency and rival.latency
            return candidate.latency.ratio_low > rival.latency.ratio_high
        if name == "ap_loss":
            return candidate.interval is not None and candidate.interval.low > _loss(rival)
        return VALUES[name](candidate) >= VALUES[name](rival)


def objective_of(names: tuple[str, ...]) -> Objective:
    """Makes the objective of the names in a spec."""
    return LeastLatency() if names == ("latency",) else Pareto(names)
