"""Executors: where tasks run. One interface, two implementations: Ray and the in-process twin."""

import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cluster.journal import Stay
from cluster.lanes import Lane
from tasks.errors import ClusterMistake, TaskFailure, UnexpectedError, UserMistake
from tasks.types import Failure

Ref = Any
"""A promise of a result; pass it to `submit` where the result itself is wanted."""


class Executor(Protocol):
    """Runs plain functions of plain values."""

    cpus: int
    """CPUs of all nodes that take other tasks than benchmarks."""

    benchmark_cpus: int
    """CPUs of the node that all benchmarks of this executor run on: how many threads can be timed."""

    benchmark_node: str
    """Id of that node, as the journal has it."""

    is_here: bool
    """Whether all tasks run on the driver's own machine."""

    @property
    def shares_benchmark_node(self) -> bool:
        """Whether other tasks have no node but that of the benchmarks, so that one waits for the other."""

    @property
    def training_width(self) -> int:
        """Trainings that run side by side: as many as there are GPUs, or CPUs where there are none; at least 1."""

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
            The ref that is done. Where no task has run for as long as tasks may queue, all refs are given up: they
            are done, and their results are failures.
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

    def journal(self) -> list[Stay]:
        """Tells which tasks ran when and where.

        Returns:
            The stays of all tasks that started so far.
        """

    def close(self) -> None:
        """Lets go of the workers."""


def refuse_claim(lane: Lane, claimed: int, offered: int, node: str) -> None:
    """Refuses a claim that can never be met.

    Args:
        lane: Whose claim it is.
        claimed: CPUs that a task claims.
        offered: CPUs of the largest node for the lane.
        node: What to call that node.

    Raises:
        ClusterMistake: If the claim is larger.
    """
    if claimed > offered:
        raise ClusterMistake(
            f"a {lane.name} task claims {claimed} CPUs, and the largest node for it, {node}, has {offered}; "
            f"choices: claim 1 to {offered}, or join a larger node"
        )


def refuse_threads(executor: Executor, threads: Sequence[int]) -> None:
    """Refuses numbers of threads that the benchmark node has no CPUs for.

    Args:
        executor: Where benchmarks will run.
        threads: Numbers of threads that will be timed.

    Raises:
        ClusterMistake: If one is larger than the node.
    """
    most = max(threads, default=1)
    if most > executor.benchmark_cpus:
        raise ClusterMistake(
            f"{most} threads cannot be timed: the benchmark node {executor.benchmark_node[:12]} has "
            f"{executor.benchmark_cpus} CPUs; choices: threads 1 to {executor.benchmark_cpus}, or label a node with "
            f"at least {most} CPUs as bench"
        )


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
