"""A job that does as it is told, in the ways that jobs end."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from tasks.errors import InferenceFailed
from tasks.latency.fresh_process import finish_job

_MODULE = "tests.tasks.latency.scripted_job"


def do(folder: Path) -> object:
    """Does what `job.json` says."""
    wanted = json.loads((folder / "job.json").read_text())["do"]
    print("libraries print")
    if wanted == "fail":
        raise InferenceFailed("it did not work")
    if wanted == "crash":
        return 1 / 0
    if wanted == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if wanted == "sleep":
        time.sleep(60)
    return os.getpid() if wanted == "pid" else {"list": (1, 2.5, None, "ü")}


if __name__ == "__main__":
    finish_job(_MODULE, Path(sys.argv[1]), do)
