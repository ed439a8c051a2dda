"""The journal of a run: which task ran when and where."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Stay:
    """One task's time on a node. A task that lost its worker and was tried again has several."""

    ticket: int
    """Number of the task, in the order of submission."""

    stage: str
    """What the task is called in a `Failure`."""

    lane: str
    """Name of its lane."""

    node: str
    """Id of the node."""

    started_at: float
    """When it started, in seconds since 1970 by the node's clock."""

    ended_at: float | None = None
    """When it ended, by the same clock, or None if it runs or its worker died."""


class Journal:
    """Collects stays. Workers write to it as they go, so that it tells what runs from what still waits."""

    def __init__(self) -> None:
        """Starts empty."""
        self._stays: list[Stay] = []
        self._last: dict[int, int] = {}

    def started(self, stay: Stay) -> None:
        """Notes that a task started.

        Args:
            stay: Its stay, without an end.
        """
        self._last[stay.ticket] = len(self._stays)
        self._stays.append(stay)

    def ended(self, ticket: int, ended_at: float) -> None:
        """Notes that a task ended.

        Args:
            ticket: Number of the task.
            ended_at: Seconds since 1970 by the clock of its node.
        """
        index = self._last[ticket]
        self._stays[index] = replace(self._stays[index], ended_at=ended_at)

    def stays(self) -> list[Stay]:
        """Tells everything.

        Returns:
            All stays, in the order in which their starts became known.
        """
        return list(self._stays)

    def progress(self) -> tuple[int, list[Stay]]:
        """Tells what moves.

        Returns:
            How many stays have begun in all, and those without an end.
        """
        return len(self._stays), [stay for stay in self._stays if stay.ended_at is None]


@contextmanager
def noted(started: Callable[[Stay], Any], ended: Callable[[int, float], Any], stay: Stay) -> Iterator[None]:
    """Keeps a journal, here or far away.

    Args:
        started: `Journal.started` of the journal.
        ended: `Journal.ended` of the journal.
        stay: The stay that begins, without an end.

    Yields:
        Nothing; the task runs meanwhile.
    """
    started(stay)
    try:
        yield
    finally:
        ended(stay.ticket, time.time())
