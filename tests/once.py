"""What takes long to make is made once for all processes of a test run."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

_FOLDER = "QUANTSWEEP_TEST_RUN"


def begin(config: pytest.Config) -> None:
    """Makes the folder of a test run; its worker processes inherit the name."""
    if _FOLDER not in os.environ:
        folder = os.environ[_FOLDER] = tempfile.mkdtemp(prefix="quantsweep-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def once(name: str, make: Callable[[], bytes]) -> bytes:
    """Returns what the first process that asked for it has made; others wait for it."""
    place = Path(os.environ[_FOLDER]) / name
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            made = place.with_suffix(".part")
            made.write_bytes(make())
            made.rename(place)
    return place.read_bytes()
