"""Duels: two artifacts timed in turn on the same CPUs, each in a process of its own, round after round."""

import json
import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import BenchmarkFailed
from tasks.identity import sha256_of
from tasks.latency.conditions import Counters, frequency_mhz, idlest_cpus
from tasks.latency.fresh_process import Dialogue
from tasks.latency.ratio import Ratio, Round, ratio_of
from tasks.latency.scene import SCENE, Scene
from tasks.types import RuntimeSettings

NAMES = ("first", "second")

_MODULE = "tasks.latency.contestant"
_RUN_IN_MS = 10.0
_TIMED_MS = 30.0
_WARM_UP_TOLERANCE = 0.02
_WARM_UP_BLOCK = 3
_WARM_UP_SHARE = 0.1
"""Of the time cap, which the warm-up of one contestant may take in one round."""


@dataclass(frozen=True)
class DuelOptions:
    """How long and how precisely to measure."""

    max_seconds: float = 20.0
    """No round begins after this time."""

    target_half_width: float = 0.01
    """Measuring ends when half the width of the ratio's interval is at most this share of the ratio."""

    min_rounds: int = 6
    """Rounds before the interval is looked at, at least 2."""

    pairs: int = 8
    """Pairs of a round, at least 1."""

    seed: int = 0
    """Seed of the order within pairs."""

    timeout_seconds: float = 180.0
    """After this the processes of a round are killed."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if min(self.max_seconds, self.timeout_seconds, self.target_half_width) <= 0:
            raise ValueError(f"times and width must be above 0; got {self}")
        if self.min_rounds < 2 or self.pairs < 1:
            raise ValueError(f"min_rounds must be at least 2 and pairs at least 1; got {self}")


@dataclass(frozen=True)
class Contender:
    """An artifact and how it is run."""

    artifact: bytes
    """Content of the file."""

    settings: RuntimeSettings
    """How it is run."""


@dataclass
class Record:
    """What one contender showed, over all rounds."""

    times_ms: list[float] = field(default_factory=list)
    """Of each timed inference."""

    starts: list[dict[str, float | None]] = field(default_factory=list)
    """`import_ms`, `load_ms`, `first_inference_ms` and `memory_bytes` of each round's process: its peak over what it
    held before the runtime's import."""

    extras: dict[str, Any] = field(default_factory=dict)
    """Answers to questions, by command."""

    def typical(self, fact: str) -> float:
        """Returns the median of a fact of its starts."""
        return float(np.median([start[fact] for start in self.starts]))


@dataclass(frozen=True)
class Duel:
    """Two contenders timed beside each other."""

    rounds: tuple[Round, ...]
    """Median times of the blocks of each pair in ms, (first, second), round by round."""

    ratio: Ratio
    """Time of the second / time of the first."""

    converged: bool
    """Whether the interval reached the wanted width before the time cap."""

    first: Record
    second: Record
    """What each showed."""

    conditions: dict[str, float]
    """State of the machine while blocks were timed."""


class Ring:
    """Where artifacts run: a folder with what their processes need."""

    def __init__(self, folder: Path, contenders: Mapping[str, Contender], scene: Scene) -> None:
        """Writes down what the processes need.

        Args:
            folder: An empty folder.
            contenders: Who will run, by name.
            scene: What they run on.
        """
        self._folder, self._contenders = folder, contenders
        (folder / SCENE).write_bytes(scene.to_bytes())
        for content in {each.artifact for each in contenders.values()}:
            (folder / sha256_of(content)).write_bytes(content)

    def enter(self, name: str, timeout_seconds: float, cpus: list[int]) -> Dialogue:
        """Starts the process of a contender.

        Args:
            name: Its name.
            timeout_seconds: After this it may be killed.
            cpus: What it is bound to; none for no wish.

        Returns:
            The dialogue with it.
        """
        contender = self._contenders[name]
        job = {"settings": asdict(contender.settings), "artifact": sha256_of(contender.artifact), "cpus": cpus}
        (self._folder / f"{name}.json").write_text(json.dumps(job))
        return Dialogue(_MODULE, self._folder, name, "benchmark", contender.settings.threads, timeout_seconds)


def duel(
    contenders: tuple[Contender, Contender], scene: Scene, options: DuelOptions,
    questions: tuple[tuple[str, dict[str, Any]], ...] = (),
) -> Duel:  # fmt: skip
    """Times two artifacts in turn until their ratio is known well enough.

    Each round starts both processes anew. In each pair both run a block of inferences on the same image, in random
    order: first some untimed ones, then timed ones, as many as fill `_RUN_IN_MS` and `_TIMED_MS`.

    Args:
        contenders: Who is timed: first and second.
        scene: Images, used in turn.
        options: How long and how precisely.
        questions: (command, arguments) that the second contender of the first round answers after its pairs.

    Returns:
        The duel.

    Raises:
        ArtifactUnreadable: If an artifact cannot be loaded.
        InferenceFailed: If a runtime fails.
        BenchmarkFailed: If a process dies or runs past its time limit, or there is no image.
    """
    if not len(scene):
        raise BenchmarkFailed("a benchmark needs at least one image")
    random = np.random.default_rng(options.seed)
    deadline = time.perf_counter() + options.max_seconds
    records, watch = (Record(), Record()), _Watch()
    rounds: list[Round] = []
    cpus = idlest_cpus(max(each.settings.threads for each in contenders))
    with tempfile.TemporaryDirectory(prefix="quantsweep-duel-") as folder:
        ring = Ring(Path(folder), dict(zip(NAMES, contenders, strict=True)), scene)
        while True:
            with _both(ring, cpus, random, options, watch, records) as sides:
                images = [(len(rounds) * options.pairs + pair) % len(scene) for pair in range(options.pairs)]
                rounds.append(_pairs(sides, records, random, options, images, watch))
                for command, arguments in questions if len(rounds) == 1 else ():
                    records[1].extras[command] = sides[1].dialogue.ask(command, **arguments)
            ratio = ratio_of(tuple(rounds))
            converged = len(rounds) >= options.min_rounds and ratio.half_width <= options.target_half_width
            if converged or (len(rounds) > 1 and time.perf_counter() > deadline):
                return Duel(tuple(rounds), ratio, converged, *records, watch.conditions(cpus, rounds))


@dataclass
class _Side:
    """A contender's process in one round."""

    dialogue: Dialogue
    run_in: int = 1
    timed: int = _WARM_UP_BLOCK
    last: dict[str, Any] = field(default_factory=dict)
    """Answer to its last block."""

    def block(self, image: int) -> list[float]:
        """Runs a block; times in ms."""
        self.last = self.dialogue.ask("block", image=image, run_in=self.run_in, timed=self.timed)
        times: list[float] = self.last["times_ms"]
        return times

    def warm_up(self, seconds: float) -> None:
        """Runs until the median of a block is near that of the block before; sets the lengths of blocks by it."""
        deadline, before = time.perf_counter() + seconds, np.inf
        while True:
            median = float(np.median(self.block(0)))
            if abs(median - before) <= _WARM_UP_TOLERANCE * before or time.perf_counter() > deadline:
                break
            before = median
        self.run_in, self.timed = math.ceil(_RUN_IN_MS / median), math.ceil(_TIMED_MS / median)


@contextmanager
def _both(
    ring: Ring, cpus: list[int], random: np.random.Generator, options: DuelOptions, watch: "_Watch",
    records: tuple[Record, Record],
) -> Iterator[tuple[_Side, _Side]]:  # fmt: skip
    """Starts the processes one after the other, so that neither start is disturbed, and loads the artifacts."""
    with ExitStack() as stack:
        sides: dict[str, _Side] = {}
        for turn in random.permutation(2).tolist():
            side = _Side(stack.enter_context(ring.enter(NAMES[turn], options.timeout_seconds, cpus)))
            hello = side.dialogue.answer()
            watch.greeted(hello, cpus)
            started = side.dialogue.ask("start")
            memory = max(started.pop("peak_memory_bytes") - hello["floor_bytes"], 0)
            records[turn].starts.append({"import_ms": hello["import_ms"], **started, "memory_bytes": memory})
            sides[NAMES[turn]] = side
        yield sides[NAMES[0]], sides[NAMES[1]]


def _pairs(
    sides: tuple[_Side, _Side], records: tuple[Record, Record], random: np.random.Generator, options: DuelOptions,
    images: list[int], watch: "_Watch",
) -> Round:  # fmt: skip
    """Times the pairs of a round, each on its image."""
    for side in sides:
        side.warm_up(options.max_seconds * _WARM_UP_SHARE)
    watch.began(sides)
    pairs = []
    for image in images:
        pair = [0.0, 0.0]
        for turn in random.permutation(2).tolist():
            times = sides[turn].block(image)
            watch.saw(turn, sides[turn].last)
            records[turn].times_ms += times
            pair[turn] = float(np.median(times))
        pairs.append((pair[0], pair[1]))
    watch.ended(sides)
    return tuple(pairs)


@dataclass
class _Watch:
    """Gathers what happened on the machine while blocks were timed."""

    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    resting: tuple[dict[str, float], ...] = field(default_factory=lambda: (defaultdict(float), defaultdict(float)))
    niceness: int = 0
    is_bound: bool = True

    def greeted(self, hello: dict[str, Any], cpus: list[int]) -> None:
        """Takes what a process says of itself."""
        self.niceness = max(self.niceness, hello["niceness"])
        self.is_bound = self.is_bound and hello["cpus"] == cpus

    def began(self, sides: tuple[_Side, _Side]) -> None:
        """Notes the counters before the pairs of a round."""
        self._before = Counters.now(), self._own(sides)
        self._switches = self._switched(sides)

    def saw(self, turn: int, answer: dict[str, Any]) -> None:
        """Takes the answer to a block."""
        self.sums["worked_s"] += answer["worked_s"]
        self.sums["preempted_s"] += answer["waited_s"]
        self.resting[turn]["cpu_s"] += answer["rested_cpu_s"]
        self.resting[turn]["s"] += answer["rested_s"]

    def ended(self, sides: tuple[_Side, _Side]) -> None:
        """Adds up the counters after the pairs of a round."""
        counters, own_s = self._before
        now = Counters.now()
        spent = now.since(counters)
        self.sums["seconds"] += now.at_s - counters.at_s
        self.sums["total_s"] += spent["total"]
        self.sums["steal_s"] += spent["steal"]
        self.sums["iowait_s"] += spent["iowait"]
        self.sums["others_s"] += max(spent["busy"] - (self._own(sides) - own_s), 0.0)
        self.sums["involuntary_switches"] += self._switched(sides) - self._switches

    def conditions(self, cpus: list[int], rounds: list[Round]) -> dict[str, float]:
        """Sums up."""
        total, references = self.sums["total_s"], [float(np.median([pair[0] for pair in each])) for each in rounds]
        frequency = frequency_mhz(cpus[0]) if cpus else None
        found = {
            "seconds": self.sums["seconds"],
            "cpus": float(len(cpus)),
            "bound": float(self.is_bound),
            "niceness": float(self.niceness),
            "load_average_1m": os.getloadavg()[0],
            "preempted_share": self.sums["preempted_s"] / self.sums["worked_s"],
            "involuntary_switches": float(self.sums["involuntary_switches"]),
            "resting_cpus": max(each["cpu_s"] / max(each["s"], 1e-9) for each in self.resting),
            "first_drift": max(references) / min(references) - 1,
        }
        if total:
            shares = {f"{name}_share": self.sums[f"{name}_s"] / total for name in ("steal", "iowait")}
            found |= {**shares, "others_busy_share": self.sums["others_s"] / total}
        return found | ({"mhz": frequency} if frequency else {})

    def _own(self, sides: tuple[_Side, _Side]) -> float:
        return time.process_time() + sum(side.last["cpu_s"] for side in sides)

    def _switched(self, sides: tuple[_Side, _Side]) -> int:
        return sum(side.last["involuntary_switches"] for side in sides)
