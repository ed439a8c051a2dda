"""Observers: who watches a search and keeps a record of it."""

from typing import Protocol

from orchestrator.search.candidate import Candidate


class SearchObserver(Protocol):
    """What wants to know how a search goes."""

    def asked(self, candidate: Candidate) -> None:
        """A variant was asked for."""

    def noted(self, candidate: Candidate) -> None:
        """Something was learned about a candidate that has no verdict yet: its artifact, a latency, a look."""

    def settled(self, candidate: Candidate) -> None:
        """A candidate got its verdict; a second one, where a first was taken back."""

    def confirmed(self, candidate: Candidate) -> None:
        """The fastest feasible candidate was measured a second time, and its score confirmed."""

    def stopped(self, why: str) -> None:
        """No more variants will be asked for."""


class Unobserved:
    """Nobody watches."""

    def asked(self, candidate: Candidate) -> None:
        """Does nothing."""

    def noted(self, candidate: Candidate) -> None:
        """Does nothing."""

    def settled(self, candidate: Candidate) -> None:
        """Does nothing."""

    def confirmed(self, candidate: Candidate) -> None:
        """Does nothing."""

    def stopped(self, why: str) -> None:
        """Does nothing."""
