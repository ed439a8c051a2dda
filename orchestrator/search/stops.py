"""Stop rules: when a search asks for no more variants."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Spent:
    """What a search has spent."""

    trials: int
    """Candidates that have a verdict or are on their way to one, without those that were known before."""

    seconds: float
    """Wall time since it began, earlier runs of it included."""

    images: int
    """Images inferred."""

    since_best: int
    """Verdicts since the best feasible candidate was found; 0 as long as there is none."""


@dataclass(frozen=True)
class StopRules:
    """Limits of what a search may spend; None for no limit."""

    trials: int | None = None
    """Most candidates, at least 1. Those in flight when it is reached get their verdicts."""

    seconds: float | None = None
    """Most wall time. Candidates that are waiting to be looked at when it is over stay unsettled."""

    images: int | None = None
    """Most images inferred. Candidates that are waiting to be looked at then stay unsettled."""

    patience: int | None = None
    """Most verdicts in a row that bring no better feasible candidate, once there is one."""

    def why_no_more(self, spent: Spent) -> str | None:
        """Says why no more variants are asked for.

        Args:
            spent: What was spent.

        Returns:
            The rule that ends it, or None to go on.
        """
        if self.trials is not None and spent.trials >= self.trials:
            return f"{self.trials} trials, as many as the study may have"
        if self.patience is not None and spent.since_best >= self.patience:
            return f"no better feasible variant in {spent.since_best} verdicts"
        return self.why_at_once(spent)

    def why_at_once(self, spent: Spent) -> str | None:
        """Says why even candidates in flight are given up.

        Args:
            spent: What was spent.

        Returns:
            The rule that ends it, or None.
        """
        if self.seconds is not None and spent.seconds >= self.seconds:
            return f"{self.seconds:g} seconds, as many as the study may take"
        if self.images is not None and spent.images >= self.images:
            return f"{spent.images} images inferred, and the study may infer {self.images}"
        return None
