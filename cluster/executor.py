"""Executors: where tasks run. One interface, two implementations: Ray and the in-process twin."""

import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cluster.lanes import Lane
from tasks.errors import TaskFailure, UnexpectedError, UserMistake
from tasks.types import Failure

Ref = Any
"""A promise of a result; pass it to `submit` where the result itself is wanted."""


class Executor(Protocol):
    """Runs plain functions of plain values."""

    cpus: int
    """CPUs of all nodes."""

    is_here: bool
    """Whether all tasks run on the driver's own machine."""

    def put(self, value: Any) -> Ref:
        """Shares a value with all tasks, read-only.

        Args:
            value: Arrays, dataclasses and plain values.

        Returns:
            A ref to hand to `submit`.
        """

    def submit(self, lane: Lane, stage: str, function: Callable[..., Any], *arguments: Any) -> Ref:
        """Starts a task.

        Args:
            lane: What it claims and its environment.
            stage: What to call it in a `Failure`.
            function: A module-level function.
            *arguments: Values, or refs whose results are passed instead. If one of them is a `Failure` or a
                `UserMistake`, that is the result, and the function does not run.

        Returns:
            A ref to the result.

        Raises:
            ClusterMistake: If no node can ever meet the lane's claim.
        """

    def wait(self, refs: Sequence[Ref]) -> Ref:
        """Waits until one of the refs has its result.

        Args:
            refs: At least one ref.

        Returns:
            The ref that is done.
        """

    def result(self, ref: Ref) -> Any:
        """Takes the result of a ref that is done.

        Args:
            ref: A ref that `wait` returned.

        Returns:
            What the function returned, or a `Failure`; an error of the worker process is a `Failure` too.

        Raises:
            UserMistake: If the task found one.
        """

    def close(self) -> None:
        """Lets go of the workers."""


def run_task(stage: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a task's function and turns what it raises into values, which cross process borders unharmed.

    Args:
        stage: What to call it in a `Failure`.
        function: The task.
        *arguments: Its arguments.

    Returns:
        The function's result, the first `Failure` or `UserMistake` among the arguments, a `Failure` made of what
        the function raised, or the `UserMistake` that it raised.
    """
    failed = next((argument for argument in arguments if isinstance(argument, Failure | UserMistake)), None)
    if failed is not None:
        return failed
    try:
        return function(*arguments)
    except UserMistake as mistake:
        return mistake
    except TaskFailure as failure:
        return Failure.of(stage, failure, traceback.format_exc())
    except Exception as error:
        planned = UnexpectedError(f"{type(error).__name__}: {error}".splitlines()[0])
        return Failure.of(stage, planned, traceback.format_exc())


def taken(value: Any) -> Any:
    """Hands out what `run_task` returned.

    Args:
        value: Its return value.

    Returns:
        The value.

    Raises:
        UserMistake: If the value is one.
    """
    if isinstance(value, UserMistake):
        raise value
    return value
