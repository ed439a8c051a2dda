"""Watchers: several observers of one search."""

from collections.abc import Callable, Sequence

from orchestrator.search.candidate import Candidate
from orchestrator.search.observer import SearchObserver


class Watchers:
    """Tells each of some observers, in order; see `SearchObserver`."""

    def __init__(self, observers: Sequence[SearchObserver]) -> None:
        """Takes the observers."""
        self._observers = tuple(observers)

    def asked(self, candidate: Candidate) -> None:
        """A variant was asked for."""
        self._all(lambda each: each.asked(candidate))

    def noted(self, candidate: Candidate) -> None:
        """Something was learned about a candidate that has no verdict yet."""
        self._all(lambda each: each.noted(candidate))

    def settled(self, candidate: Candidate) -> None:
        """A candidate got its verdict."""
        self._all(lambda each: each.settled(candidate))

    def confirmed(self, candidate: Candidate) -> None:
        """The fastest feasible candidate was confirmed."""
        self._all(lambda each: each.confirmed(candidate))

    def stopped(self, why: str) -> None:
        """No more variants will be asked for."""
        self._all(lambda each: each.stopped(why))

    def _all(self, tell: Callable[[SearchObserver], None]) -> None:
        for observer in self._observers:
            tell(observer)
