"""Throughput: how many images a second the whole machine gets through."""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from tasks.latency.duel import Contender, Ring
from tasks.latency.fresh_process import Dialogue
from tasks.latency.scene import Scene

_MEMORY_SHARE = 0.5
"""Of the memory that is free, which all copies together may take."""


@dataclass(frozen=True)
class Throughput:
    """What the machine gets through with one artifact."""

    images_per_second: float
    """All copies together, inference alone."""

    copies: int
    """Processes that ran at the same time."""


def throughput(contender: Contender, scene: Scene, seconds: float, timeout_seconds: float) -> Throughput:
    """Runs as many copies of an artifact at once as the machine has CPUs for, each on CPUs of its own.

    Args:
        contender: The artifact; each copy has as many CPUs as its settings have threads.
        scene: Images, used in turn.
        seconds: How long they run together.
        timeout_seconds: After this the processes are killed.

    Returns:
        The throughput. There are fewer copies than CPUs allow where memory would not suffice for them.

    Raises:
        TaskFailure: As `tasks.latency.duel.duel`.
    """
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    threads = contender.settings.threads
    copies = max((len(allowed) or os.cpu_count() or 1) // threads, 1)
    with tempfile.TemporaryDirectory(prefix="quantsweep-throughput-") as folder, ExitStack() as stack:
        ring = Ring(Path(folder), {f"copy{index}": contender for index in range(copies)}, scene)
        first = stack.enter_context(ring.enter("copy0", timeout_seconds, allowed[:threads]))
        floor = first.answer()["floor_bytes"]
        taken = max(first.ask("start")["peak_memory_bytes"] - floor, 1)
        copies = min(copies, 1 + int(psutil.virtual_memory().available * _MEMORY_SHARE // taken))
        others = [
            stack.enter_context(ring.enter(f"copy{index}", timeout_seconds, allowed[index * threads :][:threads]))
            for index in range(1, copies)
        ]
        for other in others:
            other.answer()
        with ThreadPoolExecutor(copies) as pool:
            list(pool.map(_start, others))
            rates = pool.map(lambda copy: copy.ask("stream", seconds=seconds), [first, *others])
            return Throughput(sum(rates), copies)


def _start(dialogue: Dialogue) -> None:
    dialogue.ask("start")
