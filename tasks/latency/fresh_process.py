"""Fresh processes: measurements that no former work of the worker may touch, done by `python -m MODULE FOLDER`.

The parent writes what is to be done into a folder. The module's process either does it and leaves its outcome beside it
(`run_job`), or answers questions until it is let go (`Dialogue`).
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks import errors
from tasks.errors import BenchmarkFailed, TaskFailure
from tasks.types import RuntimeSettings


def run_job(module: str, folder: Path, what: str, threads: int, timeout_seconds: float) -> Any:
    """Runs a module on a job folder in a fresh Python process.

    Args:
        module: Name of the module, whose process calls `finish_job`.
        folder: What it reads.
        what: What it does, for messages: `profile`.
        threads: Threads of the numeric libraries.
        timeout_seconds: After this the process is killed.

    Returns:
        What its job returned, by way of JSON: tuples are lists.

    Raises:
        TaskFailure: That which the job raised.
        BenchmarkFailed: If the process dies or runs past its time limit.
    """
    log = folder / f"{module}.log"
    with log.open("wb") as output:
        try:
            status = subprocess.run(
                _command(module, folder), env=_environment(threads), stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, timeout=timeout_seconds, check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise _too_slow(what, timeout_seconds) from error
    if status:
        raise _died(what, status, log)
    return _result(json.loads(_outcome(module, folder).read_text()))


def finish_job(module: str, folder: Path, job: Callable[[Path], Any]) -> None:
    """Does a job in this process and leaves its outcome for `run_job`.

    Args:
        module: Name of the module that was run; not its `__name__`, which is `__main__` there.
        folder: What the parent wrote.
        job: Takes the folder; what it returns must be plain JSON values.
    """
    try:
        outcome = {"result": job(folder)}
    except TaskFailure as error:
        outcome = {"error": type(error).__name__, "message": str(error)}
    _outcome(module, folder).write_text(json.dumps(outcome))


class Dialogue:
    """A process that answers one JSON line to each that it is sent, and sleeps in between. A context manager."""

    def __init__(
        self, module: str, folder: Path, name: str, what: str, threads: int, timeout_seconds: float
    ) -> None:  # fmt: skip
        """Starts the process, which sends a first answer by itself.

        Args:
            module: Name of the module.
            folder: What it reads.
            name: Its second argument.
            what: What it does, for messages: `benchmark`.
            threads: Threads of the numeric libraries.
            timeout_seconds: Time that all its answers together may take.
        """
        self._what, self._timeout_seconds = what, timeout_seconds
        self._deadline = time.monotonic() + timeout_seconds
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [*_command(module, folder), name], env=_environment(threads), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=output,
            )  # fmt: skip
        self._unread = b""

    def ask(self, do: str, **arguments: Any) -> Any:
        """Sends a command and waits for its answer.

        Args:
            do: Name of the command.
            **arguments: Its arguments, plain JSON values.

        Returns:
            The answer, by way of JSON.

        Raises:
            TaskFailure: That which the process raised.
            BenchmarkFailed: If the process dies or runs past its time limit.
        """
        assert self._process.stdin
        # A process that has died tells why in place of an answer.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        """Waits for an answer: the first one, which nobody has asked for. See `ask`."""
        return _result(json.loads(self._line()))

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def __enter__(self) -> "Dialogue":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _line(self) -> bytes:
        output = self._process.stdout
        assert output
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(self._deadline - time.monotonic(), 0)):
                    raise _too_slow(self._what, self._timeout_seconds)
                more = os.read(output.fileno(), 1 << 20)
                if not more:
                    raise _died(self._what, self._process.wait(), self._log)
                self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line


def settings_of(job: dict[str, Any]) -> RuntimeSettings:
    """Reads runtime settings out of a job, where `dataclasses.asdict` and JSON have made lists of its tuples."""
    values = job["settings"]
    return RuntimeSettings(**{**values, "options": tuple((name, value) for name, value in values["options"])})


def bind(cpus: list[int]) -> list[int]:
    """Binds this process, and the threads it will start, to some CPUs.

    Args:
        cpus: Their numbers; none for no wish.

    Returns:
        The CPUs that the system says it is bound to now; none where it does not tell.
    """
    if not hasattr(os, "sched_setaffinity"):
        return []
    if cpus:
        os.sched_setaffinity(0, cpus)
    return sorted(os.sched_getaffinity(0))


def _command(module: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", module, str(folder)]


def _environment(threads: int) -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def _result(outcome: dict[str, Any]) -> Any:
    if "error" in outcome:
        raise getattr(errors, outcome["error"])(outcome["message"])
    return outcome["result"]


def _died(what: str, status: int, log: Path) -> BenchmarkFailed:
    if status < 0:
        return BenchmarkFailed(f"the {what} process died of {signal.Signals(-status).name}")
    lines = log.read_text(errors="replace").strip().splitlines()
    return BenchmarkFailed(f"the {what} process ended with status {status}: {lines[-1] if lines else 'no word'}")


def _too_slow(what: str, timeout_seconds: float) -> BenchmarkFailed:
    return BenchmarkFailed(f"the {what} ran past its limit of {timeout_seconds:g} s")


def _outcome(module: str, folder: Path) -> Path:
    return folder / f"{module}.json"
