"""Running the command as a user does, in this process or in one of its own."""

import contextlib
import io
import subprocess
import sys
from dataclasses import dataclass
from unittest import mock

from orchestrator.cli.main import run


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    code: int
    out: str
    err: str


def quantsweep(*arguments: object) -> Outcome:
    """Runs the command in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv = ["quantsweep", *(str(argument) for argument in arguments)]
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Outcome(code, out.getvalue(), err.getvalue())


def start_quantsweep(*arguments: object, **options) -> subprocess.Popen:
    """Starts the command in a process of its own."""
    command = [sys.executable, "-m", "orchestrator.cli.main", *(str(argument) for argument in arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
