"""What the benchmarks of latency share: the real detector, its float32 artifact, images, and measurements as files."""

import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from tasks.coco.dataset import load_dataset
from tasks.coco.preprocess import preprocess_shard
from tasks.detector.importers import import_detector
from tasks.detector.weights import Detector
from tasks.latency.conditions import complaints
from tasks.latency.duel import Contender, DuelOptions, duel
from tasks.latency.ratio import Round, ratio_of
from tasks.latency.scene import SCENE_IMAGES, Scene
from tasks.quantize.artifact import make
from tasks.quantize.schemes import Float32
from tasks.types import ImageShard
from tests.benchmarks.zoo import MODEL

_Z = 1.959964


@dataclass(frozen=True)
class Measurement:
    """One duel, as benchmarks keep it."""

    rounds: tuple[Round, ...]
    """(first, second) times in ms of each pair of each round."""

    converged: bool
    """Whether the interval reached the wanted width before the time cap."""

    conditions: dict[str, float]
    """State of the machine."""

    seconds: float
    """Wall time of all."""

    ratio: float
    """Time of the second / time of the first, with the ends of its interval."""

    low: float
    high: float

    @property
    def noisy(self) -> tuple[str, ...]:
        """What was wrong with the conditions."""
        return complaints(self.conditions)

    def holds(self, truth: float) -> bool:
        """Whether the interval holds a ratio."""
        return self.low <= truth <= self.high

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"{self.ratio:.4f} [{self.low:.4f}, {self.high:.4f}] {len(self.rounds)} rounds {self.seconds:.1f} s"
            + "".join(f"; noisy: {line}" for line in self.noisy)
        )


def measured(first: Contender, second: Contender, scene: Scene, options: DuelOptions) -> Measurement:
    """Measures one artifact beside another."""
    start = time.perf_counter()
    found = duel((first, second), scene, options)
    seconds = time.perf_counter() - start
    ratio = found.ratio
    return Measurement(found.rounds, found.converged, found.conditions, seconds, ratio.ratio, ratio.low, ratio.high)


def write_measurements(path: Path, groups: Mapping[str, Sequence[Measurement]]) -> None:
    """Writes measurements to a file, by name."""
    path.write_text(json.dumps({name: [asdict(each) for each in group] for name, group in groups.items()}))


def read_measurements(path: Path) -> dict[str, list[Measurement]]:
    """Reads what `write_measurements` wrote; ratios and intervals are computed anew from the pairs."""
    found: dict[str, list[Measurement]] = {}
    for name, group in json.loads(path.read_text()).items():
        found[name] = []
        for each in group:
            rounds = tuple(tuple((first, second) for first, second in round_) for round_ in each["rounds"])
            ratio = ratio_of(rounds)
            again = {"rounds": rounds, "ratio": ratio.ratio, "low": ratio.low, "high": ratio.high}
            found[name].append(Measurement(**{**each, **again}))
    return found


def wilson(held: int, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share (Wilson 1927, "Probable inference, the law of succession")."""
    if not count:
        return 0.0, 1.0
    share, spread = held / count, _Z * _Z / count
    center = (share + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(share * (1 - share) / count + spread / 4 / count) / (1 + spread)
    return center - half, center + half


def share_line(held: int, count: int) -> str:
    """Shows a share with its interval."""
    low, high = wilson(held, count)
    return f"{held} of {count} = {held / count:.3f} [{low:.3f}, {high:.3f}]" if count else "none of 0"


@cache
def real_detector() -> Detector:
    """Imports the detector of the TensorFlow zoo."""
    return import_detector(_data() / "models" / MODEL)


@cache
def real_float32() -> bytes:
    """Makes its float32 .tflite."""
    return make(real_detector(), Float32())


@cache
def real_images(count: int = SCENE_IMAGES) -> ImageShard:
    """Preprocesses the first validation images of coco-mini."""
    images = load_dataset(_data() / "coco-mini" / "val2017", None).images[:count]
    return preprocess_shard(images, real_detector().spec.image_size, None)


def real_scene() -> Scene:
    """Makes a scene of the real detector and the first images."""
    return Scene.of(real_images(), real_detector().spec)


def _data() -> Path:
    if "QUANTSWEEP_REFERENCE_DATA" not in os.environ:
        sys.exit("QUANTSWEEP_REFERENCE_DATA does not name the folder with the real detector and COCO images")
    return Path(os.environ["QUANTSWEEP_REFERENCE_DATA"]).resolve()
