"""The queue of a run: which tasks are open, and whether it has stalled."""

import os
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from cluster.executor import Ref
from cluster.journal import Stay
from cluster.lanes import Lane
from tasks.errors import ClusterMistake

QUEUE_SECONDS = 600.0
"""How long nothing may run while tasks wait, where neither the caller nor the environment says."""

_VARIABLE = "QUANTSWEEP_QUEUE_SECONDS"


@dataclass(frozen=True)
class Ticket:
    """A task that was submitted."""

    number: int
    """Its number, in the order of submission."""

    lane: Lane
    """Where it runs."""

    stage: str
    """What it is called in a `Failure`."""


@dataclass
class Queue:
    """Tasks that were submitted and are not done, and when one last moved."""

    limit_seconds: float
    """How long nothing may run before the tasks that wait are given up."""

    open: dict[Ref, Ticket] = field(default_factory=dict)
    """Tasks that are not done."""

    _submitted: int = 0
    _started: int = 0
    _moved_at: float = field(default_factory=time.monotonic)

    def ticket(self, lane: Lane, stage: str) -> Ticket:
        """Numbers a task.

        Args:
            lane: Where it will run.
            stage: What it is called.

        Returns:
            Its ticket.
        """
        self._submitted += 1
        return Ticket(self._submitted, lane, stage)

    def add(self, ref: Ref, ticket: Ticket) -> None:
        """Notes a task that was submitted.

        Args:
            ref: Its result.
            ticket: Its ticket.
        """
        self.open[ref] = ticket
        self._moved_at = time.monotonic()

    def settle(self, ref: Ref) -> None:
        """Notes that a task is done.

        Args:
            ref: Its result.
        """
        self.open.pop(ref, None)
        self._moved_at = time.monotonic()

    @property
    def has_benchmark(self) -> bool:
        """Whether a benchmark waits or runs."""
        return any(ticket.lane.cpus is None for ticket in self.open.values())

    def has_stalled(self, started: int, unfinished: Sequence[Stay], live: Container[str]) -> bool:
        """Tells whether nothing has run for too long. A task that runs, however long, is no stall.

        Args:
            started: How many stays the journal knows.
            unfinished: Stays without an end.
            live: Ids of the live nodes; what was on others runs no more.

        Returns:
            Whether to give up.
        """
        numbers = {ticket.number for ticket in self.open.values()}
        runs = any(stay.ticket in numbers and stay.node in live for stay in unfinished)
        if runs or started != self._started:
            self._started, self._moved_at = started, time.monotonic()
        return time.monotonic() - self._moved_at >= self.limit_seconds


def limit_seconds(wanted: float | None = None) -> float:
    """Settles how long nothing may run while tasks wait.

    Args:
        wanted: What the caller says, or None to ask the environment.

    Returns:
        Seconds.

    Raises:
        ClusterMistake: If the environment says something else than a positive number.
    """
    said = os.environ.get(_VARIABLE)
    if wanted is not None or not said:
        return QUEUE_SECONDS if wanted is None else wanted
    try:
        seconds = float(said)
    except ValueError:
        seconds = -1.0
    if not seconds > 0:
        raise ClusterMistake(f"{_VARIABLE} is {said!r}; choices: a number of seconds above 0 (default 600)")
    return seconds
