"""The task graph: steps submitted once per key, capped in flight, settled in order of completion."""

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cluster.executor import Executor, Ref
from cluster.lanes import Lane

Continuation = Callable[[Any], None]
"""What the driver does with a result; it may add further steps."""


@dataclass(order=True)
class _Step:
    priority: int
    order: int
    key: str = field(compare=False)
    lane: Lane = field(compare=False)
    stage: str = field(compare=False)
    function: Callable[..., Any] = field(compare=False)
    arguments: tuple[Any, ...] = field(compare=False)
    stays: bool = field(compare=False)


class Graph:
    """Steps of a sweep or study, on one executor.

    A step that claims its whole node is submitted as soon as it is there. While it waits or runs, the executor keeps
    other steps on other nodes. Where there is no other node, steps of higher numbers than its priority are held back
    until it has run; the others fill the node, so that it is emptied as seldom as possible.
    """

    def __init__(self, executor: Executor) -> None:
        """Starts without steps.

        Args:
            executor: Where the steps run.
        """
        self.executor = executor
        self.submitted = 0
        self._cap = 2 * executor.cpus + 2
        self._waiting: list[_Step] = []
        self._waiting_alone: list[_Step] = []
        self._running: dict[Ref, _Step] = {}
        self._done: dict[str, Any] = {}
        self._continuations: dict[str, list[Continuation]] = {}
        self._orders = itertools.count()

    def once(
        self, key: str, priority: int, lane: Lane, stage: str, function: Callable[..., Any], *arguments: Any,
        then: Continuation, stays: bool = False,
    ) -> None:  # fmt: skip
        """Adds a step, unless one of the same key is there already; either way `then` gets its one result.

        Args:
            key: Identity of the step.
            priority: Steps of lower numbers are submitted first.
            lane: Where it runs.
            stage: What to call it in a `Failure`.
            function: A module-level function of `tasks`.
            *arguments: Its arguments, values or refs.
            then: Called with the result or a `Failure`, or with the ref if the result stays.
            stays: Whether the result stays where it was made, for other steps alone; it is forgotten with its ref.
        """
        if key in self._done:
            then(self._done[key])
            return
        known = key in self._continuations
        self._continuations.setdefault(key, []).append(then)
        if not known:
            step = _Step(priority, next(self._orders), key, lane, stage, function, arguments, stays)
            heapq.heappush(self._waiting_alone if lane.cpus is None else self._waiting, step)

    def run(self) -> None:
        """Submits and settles steps until none is left.

        Raises:
            UserMistake: If a step found one.
        """
        while self._waiting or self._waiting_alone or self._running:
            self._submit()
            ref = self.executor.wait(list(self._running))
            step = self._running.pop(ref)
            result = ref if step.stays else self.executor.result(ref)
            if not step.stays:
                self._done[step.key] = result
            for then in self._continuations.pop(step.key):
                then(result)

    def _submit(self) -> None:
        # Steps that claim a node wait in the cluster's own queue. They go first: the executor steers by them.
        while self._waiting_alone:
            self._start(heapq.heappop(self._waiting_alone))
        alone = [step.priority for step in self._running.values() if step.lane.cpus is None]
        last = min(alone) if alone and self.executor.shares_benchmark_node else math.inf
        free = self._cap - (len(self._running) - len(alone))
        while self._waiting and free > 0 and self._waiting[0].priority <= last:
            self._start(heapq.heappop(self._waiting))
            free -= 1

    def _start(self, step: _Step) -> None:
        self._running[self.executor.submit(step.lane, step.stage, step.function, *step.arguments)] = step
        self.submitted += 1
