"""Resident memory of this process, as the system tells it."""

import resource
import sys
from pathlib import Path


def resident_bytes() -> int:
    """Returns the resident memory; where the system does not tell, the most there ever was."""
    found = _status("VmRSS")
    return _most_used_bytes() if found is None else found


def peak_resident_bytes() -> int:
    """Returns the most resident memory there ever was."""
    # Not ru_maxrss, where there is a choice: Linux hands it down from the process that this one was forked from.
    found = _status("VmHWM")
    return _most_used_bytes() if found is None else found


def _status(name: str) -> int | None:
    """Reads a size that Linux reports in KiB, in bytes; None where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _most_used_bytes() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
