"""Contestants: an artifact loaded in a process of its own, which runs blocks of inferences when it is told to.

`python -m tasks.latency.contestant FOLDER NAME` is that process. It reads commands from its standard input and answers
on its standard output, one JSON value a line; between commands it sleeps.
"""

import contextlib
import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from tasks.errors import TaskFailure
from tasks.latency.fresh_process import bind, settings_of
from tasks.latency.memory import peak_resident_bytes, resident_bytes
from tasks.latency.scene import SCENE, Scene
from tasks.postprocess import detections_of
from tasks.runtimes.base import Runtime, Session, runtime_of
from tasks.types import Postprocessing, RuntimeSettings

_FIRST_IMAGES = 4
"""Images of a cold start, at most: memory has reached its peak after two or three."""

_POSTPROCESSING_REPEATS = 3


@dataclass(frozen=True)
class _Clock:
    """A moment, or a time: by the clock on the wall and as CPU time of this process, in s."""

    wall_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> "_Clock":
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, other: "_Clock") -> "_Clock":
        return _Clock(self.wall_s - other.wall_s, self.cpu_s - other.cpu_s)


@dataclass
class Contestant:
    """One artifact in this process. Its public methods are the commands; what they return is plain JSON values."""

    runtime: Runtime
    """What runs it."""

    settings: RuntimeSettings
    """How it is run."""

    data: bytes
    """Content of its file."""

    scene: Scene
    """What it runs on."""

    def __post_init__(self) -> None:
        """Starts without a session."""
        self._session: Session | None = None
        self._inputs: list[Any] = []
        self._rested = _Clock.now()

    def start(self) -> dict[str, Any]:
        """Loads the artifact, and runs it on a few images.

        Returns:
            `load_ms`, `first_inference_ms` and the `peak_memory_bytes` of this process so far.
        """
        began = time.perf_counter()
        session = self._session = self.runtime.open(self.data, self.settings)
        load_ms = (time.perf_counter() - began) * 1e3
        prepared = session.prepare(self.scene.pixels[:1])
        began = time.perf_counter()
        session.infer(prepared)
        first_inference_ms = (time.perf_counter() - began) * 1e3
        session.outputs()
        session.run(self.scene.pixels[:_FIRST_IMAGES])
        peak = peak_resident_bytes()
        self._inputs = [
            session.prepare(self.scene.pixels[index : index + 1]) for index in range(len(self.scene.pixels))
        ]
        self._rested = _Clock.now()
        return {"load_ms": load_ms, "first_inference_ms": first_inference_ms, "peak_memory_bytes": peak}

    def block(self, image: int, run_in: int, timed: int) -> dict[str, Any]:
        """Runs inferences on one image, one after the other.

        Args:
            image: Index of the image.
            run_in: Inferences before the clock starts: they bring weights back into the caches that others have used.
            timed: Inferences timed, each for itself.

        Returns:
            `times_ms` of each; wall and CPU time of this process meanwhile (`worked`), and since the last block
            (`rested`), in s; how long each of its threads waited for a CPU meanwhile (`waited`); and its CPU time and
            involuntary context switches since it started.
        """
        infer, prepared = self._running.infer, self._inputs[image]
        rest = _Clock.now() - self._rested
        for _ in range(run_in):
            infer(prepared)
        waited = _waited_s()
        began, ticks = _Clock.now(), [time.perf_counter_ns()]
        for _ in range(timed):
            infer(prepared)
            ticks.append(time.perf_counter_ns())
        self._rested = _Clock.now()
        worked = self._rested - began
        return {
            "times_ms": [(after - before) / 1e6 for before, after in itertools.pairwise(ticks)],
            "worked_cpu_s": worked.cpu_s,
            "worked_s": worked.wall_s,
            "waited_s": self._waited_s(waited, worked),
            "rested_cpu_s": rest.cpu_s,
            "rested_s": rest.wall_s,
            "cpu_s": time.process_time(),
            "involuntary_switches": resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
        }

    def postprocess(self, postprocessing: dict[str, Any]) -> float:
        """Times what turns its raw outputs into detections.

        Args:
            postprocessing: Fields of `Postprocessing`.

        Returns:
            Median time of an image in ms.
        """
        chosen, scene, times = Postprocessing(**postprocessing), self.scene, []
        class_ids = scene.class_ids.tolist()
        for index, (height, width) in enumerate(scene.sizes.tolist()):
            boxes, scores = self._running.run(scene.pixels[index : index + 1])
            for _ in range(_POSTPROCESSING_REPEATS):
                start = time.perf_counter_ns()
                detections_of(boxes[0], scores[0], scene.anchors, class_ids, (height, width), chosen)
                times.append((time.perf_counter_ns() - start) / 1e6)
        return float(np.median(times))

    def stream(self, seconds: float) -> float:
        """Runs inferences one after the other for some time.

        Args:
            seconds: How long.

        Returns:
            Inferences in a second.
        """
        began, done = time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < seconds:
            self._running.infer(self._inputs[done % len(self._inputs)])
            done += 1
        return done / passed

    def executed(self) -> dict[str, float] | None:
        """Frees the session, and tells what arithmetic the artifact is executed in; None if the runtime does not tell.

        Asked last: telling may take the model apart in memory.
        """
        self._running.close()
        return self.runtime.executed(self.data, self.settings) if self.runtime.executed else None

    def _waited_s(self, before: float | None, worked: _Clock) -> float:
        now = _waited_s()
        if before is None or now is None:
            # One thread that is not running is waiting; of several, none can be told.
            return max(worked.wall_s - worked.cpu_s, 0.0)
        return (now - before) / self.settings.threads

    @property
    def _running(self) -> Session:
        if self._session is None:
            raise RuntimeError("`start` comes first")
        return self._session


def _waited_s() -> float | None:
    """Sums up how long the threads of this process were ready to run and had no CPU; None where nobody tells."""
    stats = [path.read_text().split() for path in Path("/proc/self/task").glob("*/schedstat")]
    return sum(int(fields[1]) for fields in stats) / 1e9 if stats else None


def _answers(folder: Path, name: str, commands: TextIO) -> Iterator[Any]:
    job = json.loads((folder / f"{name}.json").read_text())
    settings = settings_of(job)
    bound = bind(job["cpus"])
    niceness = _take_back_niceness()
    scene = Scene.from_bytes((folder / SCENE).read_bytes())
    runtime = runtime_of(settings.runtime)
    floor = resident_bytes()
    import_ms = _import_ms(runtime)
    # The artifact's bytes count as memory: a program that opens a file as this one does holds them, too.
    contestant = Contestant(runtime, settings, (folder / job["artifact"]).read_bytes(), scene)
    yield {"floor_bytes": floor, "import_ms": import_ms, "cpus": bound, "niceness": niceness}
    for line in commands:
        command = json.loads(line)
        yield getattr(contestant, command.pop("do"))(**command)


def _import_ms(runtime: Runtime) -> float | None:
    if runtime.imported is None:
        return None
    began = time.perf_counter()
    runtime.imported()
    return (time.perf_counter() - began) * 1e3


def _take_back_niceness() -> int:
    """Takes back the niceness that workers of some clusters run with, where the system allows it."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    return os.getpriority(os.PRIO_PROCESS, 0)


def _main(folder: Path, name: str) -> None:
    # Libraries print to the standard output, too: theirs goes where errors go.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        for answer in _answers(folder, name, sys.stdin):
            answers.write(json.dumps({"result": answer}) + "\n")
    except TaskFailure as error:
        answers.write(json.dumps({"error": type(error).__name__, "message": str(error)}) + "\n")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
