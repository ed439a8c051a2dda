"""Drawn images: the evaluation set of one replayed search, and what every build loses on it."""

from dataclasses import dataclass, field

import numpy as np

from orchestrator.budget import ROUNDING
from orchestrator.replay.table import Entry, Table
from tasks.matches import Matches
from tasks.types import LossInterval
from tasks.uncertainty import loss_interval

_ALL = 0.5
"""Level where no interval is asked for; the loss does not depend on it."""


@dataclass(eq=False)
class DrawnImages:
    """Images of a table in the order in which a search looks at them. Searches of one seed share what is computed."""

    table: Table
    """Where they are from."""

    seed: int
    """Seed of the draw and of the bootstrap."""

    order: np.ndarray
    """(N,) int64, positions in the table's images; those drawn several times count as so many images."""

    resamples: int
    """Bootstrap resamples of an interval."""

    _known: dict[tuple[Matches, int, float], LossInterval] = field(default_factory=dict)

    @classmethod
    def draw(cls, table: Table, seed: int, images: int | None = None, resamples: int = 200) -> "DrawnImages":
        """Draws an evaluation set.

        Args:
            table: Where images are drawn from.
            seed: Equal seeds draw equal images.
            images: How many are drawn, with replacement: as if another evaluation set of that size had been collected.
                None for the table's own images, each once, in a random order.
            resamples: Bootstrap resamples of an interval.

        Returns:
            The images.
        """
        random = np.random.default_rng(seed)
        own = table.images
        order = random.permutation(own) if images is None else random.integers(own, size=images)
        return cls(table, seed, order, resamples)

    def __len__(self) -> int:
        return len(self.order)

    def loss(self, build: str) -> float:
        """Returns what a build of the table loses on all of them, as the budget counts it."""
        return self._interval(build, len(self), _ALL, 1).loss

    def excess(self, build: str) -> float:
        """Returns by how much a build's loss is over the budget; 0 where they are equal but for rounding."""
        excess = self.loss(build) - self.table.budget.limit
        return 0.0 if abs(excess) <= ROUNDING else excess

    def interval(self, build: str, images: int, level: float) -> LossInterval:
        """Says what a look at the first of them tells.

        Args:
            build: A build of the table.
            images: How many are looked at.
            level: Nominal coverage of the interval.

        Returns:
            The loss and its interval, as the budget counts it. Of all images the loss alone decides: its interval is
            not computed.
        """
        if images == len(self):
            loss = self.loss(build)
            return LossInterval(loss, loss, loss, level, 0, self.seed, images)
        return self._interval(build, images, level, self.resamples)

    def is_feasible(self, entry: Entry) -> bool:
        """Tells whether a variant could win: within the budget on all of them, with a latency that can be trusted."""
        if entry.build is None or entry.latency is None or entry.latency.noisy:
            return False
        return self.excess(entry.build) <= 0

    def optimum(self) -> Entry | None:
        """Returns the fastest variant that is feasible, the first of equally fast ones; None if none is."""
        feasible = [entry for entry in self.table.entries if self.is_feasible(entry)]
        return min(feasible, key=ratio_of, default=None)

    def _interval(self, build: str, images: int, level: float, resamples: int) -> LossInterval:
        matches, budget = self.table.matches[build], self.table.budget
        key = (matches, images, level)
        if key not in self._known:
            weights = np.bincount(self.order[:images], minlength=self.table.images)
            self._known[key] = loss_interval(
                self.table.matches[self.table.reference_build], matches, resamples, self.seed, level,
                metric=budget.metric, is_relative=budget.is_relative, weights=weights,
            )  # fmt: skip
        return self._known[key]


def ratio_of(entry: Entry) -> float:
    """Returns the latency ratio of an entry that has a latency."""
    assert entry.latency is not None
    return entry.latency.ratio
