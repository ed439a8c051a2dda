"""Cold start: what a program pays before the second image, in time and in memory, in a fresh process.

`python -m tasks.cold_start FOLDER` is that process.
"""

import json
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import BenchmarkFailed
from tasks.fresh_process import finish_job, pin, run_job, settings_of
from tasks.runtimes.base import Runtime, runtime_of
from tasks.types import RuntimeSettings

_MODULE = "tasks.cold_start"
_IMAGES = 4
"""Images that it runs on, at most: memory has reached its peak after two or three."""


@dataclass(frozen=True)
class ColdStart:
    """What a fresh process pays; the fields are those of `tasks.types.Latency`, where they are documented."""

    import_ms: float | None
    load_ms: float
    first_inference_ms: float
    peak_memory_bytes: int
    executed_mac_share: dict[str, float] | None


def cold_start(
    artifact: bytes, settings: RuntimeSettings, pixels: np.ndarray, timeout_seconds: float = 180.0
) -> ColdStart:
    """Starts an artifact in a fresh process and runs it on a few images.

    The packages' files are in the page cache or not, as they happen to be; the artifact's is.

    Args:
        artifact: Content of the file.
        settings: How it is run.
        pixels: (N, S, S, 3) uint8 RGB, at least one image; the first few are used.
        timeout_seconds: After this the process is killed.

    Returns:
        What it took.

    Raises:
        ArtifactUnreadable: If the artifact cannot be loaded.
        InferenceFailed: If the runtime fails.
        BenchmarkFailed: If the process dies or runs past its time limit.
    """
    if not len(pixels):
        raise BenchmarkFailed("a cold start needs at least one image")
    with tempfile.TemporaryDirectory(prefix="quantsweep-cold-start-") as name:
        folder = Path(name)
        (folder / "artifact").write_bytes(artifact)
        np.save(folder / "pixels.npy", pixels[:_IMAGES], allow_pickle=False)
        (folder / "job.json").write_text(json.dumps({"settings": asdict(settings)}))
        return ColdStart(**run_job(_MODULE, folder, "cold start", settings.threads, timeout_seconds))


def start(folder: Path) -> dict[str, Any]:
    """Does the job of a folder in this process.

    Args:
        folder: What `cold_start` wrote.

    Returns:
        The fields of `ColdStart`.

    Raises:
        TaskFailure: As `cold_start` has it.
    """
    settings = settings_of(json.loads((folder / "job.json").read_text()))
    pixels = np.load(folder / "pixels.npy", allow_pickle=False)
    pin(settings.threads)
    runtime = runtime_of(settings.runtime)
    floor = _resident_bytes()
    import_ms = _import_ms(runtime)
    # The artifact's bytes count as memory: a program that opens a file as this one does holds them, too.
    data = (folder / "artifact").read_bytes()
    began = time.perf_counter()
    session = runtime.open(data, settings)
    load_ms = (time.perf_counter() - began) * 1e3
    prepared = session.prepare(pixels[:1])
    began = time.perf_counter()
    session.infer(prepared)
    first_inference_ms = (time.perf_counter() - began) * 1e3
    session.outputs()
    session.run(pixels)
    peak = _peak_resident_bytes()
    session.close()
    # Asked last, since telling what is executed may take the model apart in memory.
    executed = runtime.executed(data, settings) if runtime.executed else None
    return asdict(ColdStart(import_ms, load_ms, first_inference_ms, max(peak - floor, 0), executed))


def _import_ms(runtime: Runtime) -> float | None:
    if runtime.imported is None:
        return None
    began = time.perf_counter()
    runtime.imported()
    return (time.perf_counter() - began) * 1e3


def _resident_bytes() -> int:
    found = _status("VmRSS")
    return _most_used_bytes() if found is None else found


def _peak_resident_bytes() -> int:
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


if __name__ == "__main__":
    finish_job(_MODULE, Path(sys.argv[1]), start)
