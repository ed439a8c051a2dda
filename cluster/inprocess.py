"""The in-process twin: the same interface without Ray, one task after the other."""

import itertools
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.executor import refuse_claim, run_task, taken
from cluster.journal import Journal, Stay, noted
from cluster.lanes import LIGHT, TENSORFLOW, Lane, available_cpus

_NODE = platform.node() or "here"


@dataclass(eq=False)
class _Promise:
    journal: Journal
    ticket: int
    lane: Lane
    stage: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    value: Any = None
    is_done: bool = False

    def run(self) -> Any:
        if not self.is_done:
            arguments = [item.run() if isinstance(item, _Promise) else item for item in self.arguments]
            stay = Stay(self.ticket, self.stage, self.lane.name, _NODE, time.time())
            with noted(self.journal.started, self.journal.ended, stay):
                self.value = run_task(self.stage, self.function, *arguments)
            self.is_done = True
        return self.value


class InProcessExecutor:
    """Runs tasks in this process, when they are waited for, in the order of the refs."""

    cpus = 1
    benchmark_node = _NODE
    is_here = True
    shares_benchmark_node = True
    training_width = 1

    def __init__(self) -> None:
        """Gives this process the environment that a worker would have, where nothing else is set."""
        for name, value in TENSORFLOW.environment.items():
            os.environ.setdefault(name, value)
        self.benchmark_cpus = available_cpus()
        self._journal = Journal()
        self._tickets = itertools.count()

    def put(self, value: Any) -> _Promise:
        """Wraps a value; see `Executor.put`."""
        return _Promise(self._journal, -1, LIGHT, "put", lambda: value, (), value, is_done=True)

    def submit(self, lane: Lane, stage: str, function: Callable[..., Any], *arguments: Any) -> _Promise:
        """Keeps a task until it is waited for; see `Executor.submit`."""
        refuse_claim(lane, lane.cpus or 1, self.benchmark_cpus, "this machine")
        return _Promise(self._journal, next(self._tickets), lane, stage, function, arguments)

    def wait(self, refs: Sequence[_Promise]) -> _Promise:
        """Runs the first task; see `Executor.wait`."""
        refs[0].run()
        return refs[0]

    def result(self, ref: _Promise) -> Any:
        """Takes a result; see `Executor.result`."""
        return taken(ref.run())

    def journal(self) -> list[Stay]:
        """Tells what ran; see `Executor.journal`."""
        return self._journal.stays()

    def close(self) -> None:
        """Does nothing: there are no workers."""
