"""Profiling: where the time of an artifact goes, asked of its runtime in a fresh process.

`python -m tasks.latency.profiling FOLDER` is that process.
"""

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import UnsupportedScheme
from tasks.latency.conditions import idlest_cpus
from tasks.latency.fresh_process import bind, finish_job, run_job, settings_of
from tasks.runtimes.base import runtime_of
from tasks.types import OperatorTime, Profile, RuntimeSettings

_MODULE = "tasks.latency.profiling"


def profile(
    artifact: bytes, settings: RuntimeSettings, pixels: np.ndarray, seconds: float = 10.0, timeout_seconds: float = 300
) -> Profile:
    """Times each operator of an artifact.

    Args:
        artifact: Content of the file.
        settings: How it is run.
        pixels: (N, S, S, 3) uint8 RGB, at least one image.
        seconds: Time to spend on timing, about; slow artifacts take longer.
        timeout_seconds: After this the process is killed.

    Returns:
        The profile.

    Raises:
        UnsupportedScheme: If the runtime has no way to tell.
        ArtifactUnreadable: If the artifact cannot be loaded.
        InferenceFailed: If the runtime fails.
        BenchmarkFailed: If the process dies or runs past its time limit.
    """
    if runtime_of(settings.runtime).profile is None:
        raise UnsupportedScheme(f"{settings.runtime} has no way to tell the times of single operators")
    with tempfile.TemporaryDirectory(prefix="quantsweep-profile-") as name:
        folder = Path(name)
        (folder / "artifact").write_bytes(artifact)
        np.save(folder / "pixels.npy", pixels, allow_pickle=False)
        job = {"settings": asdict(settings), "seconds": seconds, "cpus": idlest_cpus(settings.threads)}
        (folder / "job.json").write_text(json.dumps(job))
        found = run_job(_MODULE, folder, "profile", settings.threads, timeout_seconds)
    return Profile(**{**found, "operators": tuple(OperatorTime(**item) for item in found["operators"])})


def take(folder: Path) -> dict[str, Any]:
    """Does the job of a folder in this process.

    Args:
        folder: What `profile` wrote.

    Returns:
        The fields of `Profile`.

    Raises:
        TaskFailure: As `profile` has it.
    """
    job = json.loads((folder / "job.json").read_text())
    settings = settings_of(job)
    bind(job["cpus"])
    pixels = np.load(folder / "pixels.npy", allow_pickle=False)
    take_profile = runtime_of(settings.runtime).profile
    assert take_profile
    return asdict(take_profile((folder / "artifact").read_bytes(), settings, pixels, job["seconds"]))


if __name__ == "__main__":
    finish_job(_MODULE, Path(sys.argv[1]), take)
