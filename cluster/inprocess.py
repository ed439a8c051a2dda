"""The in-process twin: the same interface without Ray, one task after the other."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.executor import run_task, taken
from cluster.lanes import TENSORFLOW, Lane


@dataclass(eq=False)
class _Promise:
    stage: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    value: Any = None
    is_done: bool = False

    def run(self) -> Any:
        if not self.is_done:
            arguments = [item.run() if isinstance(item, _Promise) else item for item in self.arguments]
            self.value = run_task(self.stage, self.function, *arguments)
            self.is_done = True
        return self.value


class InProcessExecutor:
    """Runs tasks in this process, when they are waited for, in the order of the refs."""

    cpus = 1
    is_here = True

    def __init__(self) -> None:
        """Gives this process the environment that a worker would have, where nothing else is set."""
        for name, value in TENSORFLOW.environment.items():
            os.environ.setdefault(name, value)

    def put(self, value: Any) -> _Promise:
        """Wraps a value; see `Executor.put`."""
        return _Promise("put", _identity, (value,))

    def submit(self, lane: Lane, stage: str, function: Callable[..., Any], *arguments: Any) -> _Promise:
        """Keeps a task until it is waited for; see `Executor.submit`."""
        return _Promise(stage, function, arguments)

    def wait(self, refs: Sequence[_Promise]) -> _Promise:
        """Runs the first task; see `Executor.wait`."""
        refs[0].run()
        return refs[0]

    def result(self, ref: _Promise) -> Any:
        """Takes a result; see `Executor.result`."""
        return taken(ref.run())

    def close(self) -> None:
        """Does nothing: there are no workers."""


def _identity(value: Any) -> Any:
    return value
