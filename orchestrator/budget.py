"""Budgets: how much accuracy a variant may lose and still be feasible."""

from dataclasses import dataclass

ROUNDING = 1e-12
"""By how much a loss may be over the budget, as in the view `leaderboard`: losses are differences of floats."""


@dataclass(frozen=True)
class Budget:
    """The largest loss of a feasible variant against the reference on the same images."""

    metric: str
    """`AP`, `AP50` or `AP75`."""

    limit: float
    """Largest loss, in AP points or as a share of the reference; at least 0."""

    is_relative: bool
    """Whether `limit` is a share of the reference's value."""

    @classmethod
    def of(cls, metric: str, max_loss: float | None, max_relative_loss: float | None) -> "Budget":
        """Makes a budget of the two ways to write it.

        Args:
            metric: `AP`, `AP50` or `AP75`.
            max_loss: In AP points, or None.
            max_relative_loss: As a share, or None; exactly one is given.

        Returns:
            The budget.
        """
        if max_loss is not None:
            return cls(metric, max_loss, is_relative=False)
        assert max_relative_loss is not None
        return cls(metric, max_relative_loss, is_relative=True)

    def allows(self, loss: float) -> bool:
        """Tells whether a loss is within the budget.

        Args:
            loss: As the budget counts it, on all images.
        """
        return loss <= self.limit + ROUNDING

    @property
    def text(self) -> str:
        """The budget in words: `AP loss <= 0.01`."""
        share = " of the reference's" if self.is_relative else ""
        return f"{self.metric} loss <= {self.limit:g}{share}"
