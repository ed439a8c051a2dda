"""Fresh processes: a measurement that no former work of the worker may touch, done by `python -m MODULE FOLDER`.

The parent writes the job into a folder; the module's process reads it there and leaves its outcome beside it.
"""

import json
import os
import signal
import subprocess
import sys
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
        what: What it does, for messages: `benchmark`.
        threads: Threads of the numeric libraries.
        timeout_seconds: After this the process is killed.

    Returns:
        What its job returned, by way of JSON: tuples are lists.

    Raises:
        TaskFailure: That which the job raised.
        BenchmarkFailed: If the process dies or runs past its time limit.
    """
    log = folder / f"{module}.log"
    status = _run(module, folder, log, what, threads, timeout_seconds)
    if status < 0:
        raise BenchmarkFailed(f"the {what} process died of {signal.Signals(-status).name}")
    if status:
        lines = log.read_text(errors="replace").strip().splitlines()
        raise BenchmarkFailed(f"the {what} process ended with status {status}: {lines[-1] if lines else 'no word'}")
    outcome = json.loads(_outcome(module, folder).read_text())
    if "error" in outcome:
        raise getattr(errors, outcome["error"])(outcome["message"])
    return outcome["result"]


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


def settings_of(job: dict[str, Any]) -> RuntimeSettings:
    """Reads runtime settings out of a job, where `dataclasses.asdict` and JSON have made lists of its tuples."""
    values = job["settings"]
    return RuntimeSettings(**{**values, "options": tuple((name, value) for name, value in values["options"])})


def pin(threads: int) -> bool:
    """Binds this process to as many CPUs as it has threads, the last ones: the first serves most interrupts.

    Args:
        threads: Number of CPUs.

    Returns:
        Whether it did: not where the system cannot, or has too few.
    """
    if not hasattr(os, "sched_setaffinity"):
        return False
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < threads:
        return False
    os.sched_setaffinity(0, allowed[-threads:])
    return True


def _run(module: str, folder: Path, log: Path, what: str, threads: int, timeout_seconds: float) -> int:
    root = str(Path(__file__).resolve().parents[1])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    with log.open("wb") as output:
        try:
            return subprocess.run(
                [sys.executable, "-m", module, str(folder)], env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, timeout=timeout_seconds, check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise BenchmarkFailed(f"the {what} ran past its limit of {timeout_seconds:g} s") from error


def _outcome(module: str, folder: Path) -> Path:
    return folder / f"{module}.json"
