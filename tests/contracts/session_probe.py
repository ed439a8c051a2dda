"""What one fresh process sees of a runtime: `python -m tests.contracts.session_probe RUNTIME THREADS ARTIFACT`."""

import json
import os
import sys
import time
from pathlib import Path

import psutil

from tasks.runtimes.base import Session, runtime_of
from tests.contracts.float32 import pixels

ROUNDS = 4
"""Sessions opened and closed after the first two."""


def cpu_share(session: Session, seconds: float = 0.4, windows: int = 3) -> float:
    """Most CPUs that inference keeps busy over a window; other programs can only make it less."""
    prepared = session.prepare(pixels(1))
    for _ in range(5):
        session.infer(prepared)
    shares = []
    for _ in range(windows):
        wall, spent = time.perf_counter(), time.process_time()
        while time.perf_counter() - wall < seconds:
            session.infer(prepared)
        shares.append((time.process_time() - spent) / (time.perf_counter() - wall))
    return max(shares)


def idle_share(seconds: float = 0.4) -> float:
    """CPUs that this process keeps busy while nobody asks for anything."""
    time.sleep(0.2)
    spent = time.process_time()
    time.sleep(seconds)
    return (time.process_time() - spent) / seconds


def _main(name: str, threads: int, artifact: Path) -> None:
    runtime, data = runtime_of(name), artifact.read_bytes()
    settings = runtime.settings(threads)

    def once() -> float:
        session = runtime.open(data, settings)
        session.run(pixels(2))
        session.close()
        return float(psutil.Process(os.getpid()).memory_info().rss)

    once()
    before = once()
    grown = [once() for _ in range(ROUNDS)][-1] - before
    session = runtime.open(data, settings)
    found = {
        "cpu_share": cpu_share(session),
        "idle_share": idle_share(),
        "grown_bytes": grown,
        "frameworks": sorted({"tensorflow", "torch"} & set(sys.modules)),
    }
    session.close()
    print(json.dumps(found))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
