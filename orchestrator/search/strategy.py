"""Strategies: which variant a search asks for next."""

from collections.abc import Iterable
from typing import Protocol

from orchestrator.search.candidate import Ask, Candidate
from tasks.types import Variant


class Strategy(Protocol):
    """Chooses variants, and learns from what became of them."""

    def ask(self) -> Ask | None:
        """Returns the next variant, none of those asked for before; None if none is left."""

    def note(self, candidate: Candidate) -> None:
        """Hears of an artifact, a latency or a look of a candidate that it asked for and that has no verdict yet."""

    def tell(self, candidate: Candidate) -> None:
        """Hears of a candidate's verdict; called once for each ask."""


class Listed:
    """Asks for variants in the order of a list and learns nothing."""

    def __init__(self, variants: Iterable[Variant]) -> None:
        """Takes the list.

        Args:
            variants: Distinct variants.
        """
        self._left = enumerate(variants)

    def ask(self) -> Ask | None:
        """Returns the next of the list."""
        return next((Ask(number, variant) for number, variant in self._left), None)

    def note(self, candidate: Candidate) -> None:
        """Does nothing."""

    def tell(self, candidate: Candidate) -> None:
        """Does nothing."""
