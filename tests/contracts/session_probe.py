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


def busy(session: Session, wanted: int, windows: int = 30, seconds: float = 0.4) -> tuple[float, int]:
    """Runs inferences, for one window and on until as many threads as wanted have shared the work of one.

    Returns:
        Of the last window: how many CPUs were kept busy, and how many threads did at least a tenth of the work. Other
        programs can only make both less.
    """
    prepared = session.prepare(pixels(1))
    for _ in range(5):
        session.infer(prepared)
    share, threads = 0.0, 0
    for _ in range(windows):
        before, wall, spent = thread_seconds(), time.perf_counter(), time.process_time()
        while time.perf_counter() - wall < seconds:
            session.infer(prepared)
        spent, wall = time.process_time() - spent, time.perf_counter() - wall
        worked = [now - before.get(thread, 0.0) for thread, now in thread_seconds().items()]
        share, threads = spent / wall, sum(each >= 0.1 * spent for each in worked)
        if threads >= wanted:
            break
    return share, threads


def thread_seconds() -> dict[int, float]:
    """CPU time of each thread of this process."""
    return {thread.id: thread.user_time + thread.system_time for thread in psutil.Process().threads()}


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
    cpu_share, working_threads = busy(session, threads)
    found = {
        "cpu_share": cpu_share,
        "working_threads": working_threads,
        "idle_share": idle_share(),
        "grown_bytes": grown,
        "frameworks": sorted({"tensorflow", "torch"} & set(sys.modules)),
    }
    session.close()
    print(json.dumps(found))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
