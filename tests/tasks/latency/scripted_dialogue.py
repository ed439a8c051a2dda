"""The other side of a dialogue, which does as it is told, in the ways that contestants do and fail."""

import json
import os
import signal as signals
import sys
import time
from collections.abc import Callable
from typing import Any

from tasks.errors import ArtifactUnreadable, TaskFailure
from tasks.latency.fresh_process import bind


def fail(message: str) -> None:
    raise ArtifactUnreadable(message)


def die(signal: int) -> None:
    # No core file for a crash that is wanted.
    signals.signal(signal, signals.SIG_DFL) if signal != signals.SIGKILL else None
    os.kill(os.getpid(), signal)


def shout(text: str) -> str:
    os.write(1, f"{text}\n".encode())
    print(text, flush=True)
    return "said"


COMMANDS: dict[str, Callable[..., Any]] = {
    "add": lambda one, other: one + other,
    "repeat": lambda text, times: text * times,
    "variable": lambda name: os.environ[name],
    "rest": lambda seconds: time.sleep(seconds),
    "leave": lambda status: os._exit(status),
    "pid": os.getpid,
    "cpu_seconds": time.process_time,
    "bind": bind,
    "fail": fail,
    "die": die,
    "shout": shout,
}


def main(name: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    answers.write(json.dumps({"result": f"hello {name}"}) + "\n")
    for line in sys.stdin:
        command = json.loads(line)
        try:
            outcome = {"result": COMMANDS[command.pop("do")](**command)}
        except TaskFailure as error:
            outcome = {"error": type(error).__name__, "message": str(error)}
        answers.write(json.dumps(outcome) + "\n")


if __name__ == "__main__":
    main(sys.argv[2])
