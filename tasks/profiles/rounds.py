"""Rounds: inferences that are profiled and inferences that are not, in turn. What the profiles of runtimes share."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_LEAST = 3
"""Rounds at least, so that a median is more than a guess."""


@dataclass
class Rounds:
    """Times of whole inferences in ms, round by round."""

    plain_ms: list[list[float]] = field(default_factory=list)
    """Not profiled."""

    watched_ms: list[list[float]] = field(default_factory=list)
    """Profiled, at nearly the same time."""

    def add(self, plain_ms: list[float], watched_ms: list[float]) -> None:
        """Adds a round."""
        self.plain_ms.append(plain_ms)
        self.watched_ms.append(watched_ms)

    @property
    def total_ms(self) -> float:
        """Median time of an inference that is not profiled."""
        return float(np.median(list(itertools.chain(*self.plain_ms))))

    @property
    def overhead_ms(self) -> float:
        """What profiling adds to an inference: the median over rounds, since the machine changes between them."""
        pairs = zip(self.watched_ms, self.plain_ms, strict=True)
        return float(np.median([np.median(watched) - np.median(plain) for watched, plain in pairs]))

    @property
    def cost(self) -> str:
        """What profiling costs, in words."""
        share = self.overhead_ms / self.total_ms
        return f"it adds {self.overhead_ms:.2f} ms to an inference of {self.total_ms:.2f} ms ({share:+.1%})"


def rounds(seconds: float, most: int | None = None) -> Iterator[int]:
    """Counts rounds until the time is up.

    Args:
        seconds: The time.
        most: Rounds at most, or None for no limit.

    Yields:
        0, 1, 2, ...: three at least, even where the time is too short for them.
    """
    end = time.perf_counter() + seconds
    for index in itertools.count() if most is None else range(most):
        if index >= _LEAST and time.perf_counter() > end:
            return
        yield index


def chosen(items: Sequence[Any], start: int, count: int) -> list[Any]:
    """Takes some items in turn, beginning again at the first one after the last one.

    Args:
        items: What is taken from, at least one.
        start: How many have been taken before.
        count: How many to take.

    Returns:
        They, in order.
    """
    return [items[index % len(items)] for index in range(start, start + count)]


def times_ms(infer: Callable[[Any], Any], inputs: Sequence[Any]) -> list[float]:
    """Times inferences, each for itself.

    Args:
        infer: Runs one.
        inputs: What it is given, one after the other.

    Returns:
        The times in ms.
    """
    ticks = [time.perf_counter_ns()]
    for prepared in inputs:
        infer(prepared)
        ticks.append(time.perf_counter_ns())
    return [(after - before) / 1e6 for before, after in itertools.pairwise(ticks)]
