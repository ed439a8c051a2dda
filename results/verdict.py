"""Verdicts: one sentence on which of two variants is faster, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass

_MANY_TIMES = 2.0
"""From here on, `times as fast` reads better than percents."""


@dataclass(frozen=True)
class Evidence:
    """What is known of the times of two variants."""

    ratio: float
    """Time of the second / time of the first."""

    low: float
    high: float
    """Its 95 % interval."""

    source: str
    """How it was found: `timed in turn`, ..."""

    noise: str = ""
    """What was wrong with the conditions; empty for runs that can be trusted."""

    @property
    def complaint(self) -> str:
        """Says what was wrong with it."""
        return f"noisy when {self.source}: {self.noise}"


def difference(first: str, second: str, ratio: float, low: float, high: float) -> str:
    """Says which of two is faster.

    `12 % faster` is meant as a speed: the other one takes 112 % of the time.

    Args:
        first: Name of the first.
        second: Name of the second.
        ratio: Time of the second / time of the first.
        low: Lower end of its interval, above 0.
        high: Upper end.

    Returns:
        A sentence without a period; that no difference can be told, if the interval contains 1.
    """
    if low <= 1 <= high:
        return f"no difference can be told: {second} takes {low:.3f} to {high:.3f} of the time of {first}"
    if ratio < 1:
        first, second, ratio, low, high = second, first, 1 / ratio, 1 / high, 1 / low
    if ratio < _MANY_TIMES:
        percents = [100 * (each - 1) for each in (ratio, low, high)]
        return "{} is {:.1f} % faster than {} [{:.1f}, {:.1f}]".format(first, percents[0], second, *percents[1:])
    return f"{first} is {ratio:.2f} times as fast as {second} [{low:.2f}, {high:.2f}]"


def verdict(first: str, second: str, evidence: Sequence[Evidence], otherwise: str = "nothing was measured") -> str:
    """Says which of two variants is faster, from the best evidence that is not noisy; noise makes no winner.

    Args:
        first: Label of the first.
        second: Label of the second.
        evidence: What is known, the best first.
        otherwise: Why there is none.

    Returns:
        One line.
    """
    for number, found in enumerate(evidence):
        if not found.noise:
            told = difference(first, second, found.ratio, found.low, found.high)
            passed = "".join(f"; {each.complaint}" for each in evidence[:number])
            return f"{told} ({found.source}{passed})"
    complaints = "; ".join(each.complaint for each in evidence)
    return f"no difference can be told: {complaints or otherwise}"
