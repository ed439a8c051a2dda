"""Latency: a variant timed beside the reference, pair by pair, in a fresh process, after a cold start in another.

`python -m tasks.benchmark FOLDER` is the process that times.
"""

import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.cold_start import cold_start
from tasks.detector.anchors import anchors
from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec
from tasks.errors import BenchmarkFailed
from tasks.fresh_process import finish_job, pin, run_job, settings_of
from tasks.postprocess import detections_of
from tasks.runtimes.base import Session, runtime_of
from tasks.types import ImageShard, Latency, Postprocessing, RuntimeSettings

REFERENCE_SETTINGS = RuntimeSettings("litert", threads=1)
"""How the reference runs in every benchmark, whatever the variant's settings: all ratios stand on one scale."""

_MODULE = "tasks.benchmark"
_RESAMPLES = 1000
_WARM_UP_BLOCK = 5
_WARM_UP_TOLERANCE = 0.02
_POSTPROCESSING_REPEATS = 3


@dataclass(frozen=True)
class BenchmarkOptions:
    """How long and how precisely to measure."""

    max_seconds: float = 20.0
    """Longest time spent on warm-up and pairs."""

    target_half_width: float = 0.01
    """Measuring ends when half the width of the ratio's interval is at most this share of the ratio."""

    min_pairs: int = 50
    """Pairs timed before the interval is looked at, at least 2."""

    seed: int = 0
    """Seed of the order within pairs and of the bootstrap."""

    timeout_seconds: float = 180.0
    """After this each of the two processes is killed, loading included."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.max_seconds <= 0 or self.timeout_seconds <= 0 or self.target_half_width <= 0 or self.min_pairs < 2:
            raise ValueError(f"times and width must be above 0 and min_pairs at least 2; got {self}")


def benchmark(
    reference: bytes,
    variant: bytes,
    settings: RuntimeSettings,
    spec: SSDMobileNetV1Spec,
    images: ImageShard,
    postprocessing: Postprocessing,
    options: BenchmarkOptions | None = None,
) -> Latency:
    """Measures the latency of a variant and its ratio to the reference.

    Args:
        reference: Content of the LiteRT float32 artifact of the same detector.
        variant: Content of the variant's artifact.
        settings: How the variant is run. The reference runs with `REFERENCE_SETTINGS`.
        spec: Architecture of both.
        images: A few preprocessed images, used in turn; each pair runs on one. The cold start takes the first ones.
        postprocessing: What is timed apart, on the variant's outputs.
        options: How long and how precisely.

    Returns:
        The latency.

    Raises:
        ArtifactUnreadable: If an artifact cannot be loaded.
        InferenceFailed: If a runtime fails.
        BenchmarkFailed: If the process dies or runs past its time limit.
    """
    options = options or BenchmarkOptions()
    if not len(images):
        raise BenchmarkFailed("a benchmark needs at least one image")
    started = cold_start(variant, settings, images.pixels, options.timeout_seconds)
    with tempfile.TemporaryDirectory(prefix="quantsweep-benchmark-") as name:
        folder = Path(name)
        (folder / "reference").write_bytes(reference)
        (folder / "variant").write_bytes(variant)
        np.savez(
            folder / "arrays.npz",
            pixels=images.pixels,
            sizes=images.sizes,
            anchors=anchors(spec),
            class_ids=np.array(spec.class_ids),
        )
        job = {"settings": asdict(settings), "postprocessing": asdict(postprocessing), "options": asdict(options)}
        (folder / "job.json").write_text(json.dumps(job))
        timed = run_job(_MODULE, folder, "benchmark", settings.threads, options.timeout_seconds)
    samples = tuple((one, other) for one, other in timed.pop("samples_ms"))
    return Latency(**timed, samples_ms=samples, **asdict(started))


@dataclass(frozen=True)
class _Timing:
    """One side of the pairs."""

    session: Session
    inputs: list[Any]
    """Prepared images."""

    def milliseconds(self, image: int) -> float:
        """Times one inference. The one before it, untimed, brings the weights back into the caches that the other
        side has just emptied: a deployed model runs beside no reference.
        """
        self.session.infer(self.inputs[image])
        start = time.perf_counter_ns()
        self.session.infer(self.inputs[image])
        return (time.perf_counter_ns() - start) / 1e6

    @classmethod
    def of(cls, session: Session, pixels: np.ndarray) -> "_Timing":
        return cls(session, [session.prepare(pixels[index : index + 1]) for index in range(len(pixels))])


def measure(folder: Path) -> dict[str, Any]:
    """Does the job of a folder in this process.

    Args:
        folder: What `benchmark` wrote.

    Returns:
        The fields of `Latency` but for those of a cold start.

    Raises:
        TaskFailure: As `benchmark` has it.
    """
    job = json.loads((folder / "job.json").read_text())
    settings, options = settings_of(job), BenchmarkOptions(**job["options"])
    with np.load(folder / "arrays.npz", allow_pickle=False) as content:
        arrays = dict(content)
    pinned = pin(max(settings.threads, REFERENCE_SETTINGS.threads))
    reference = runtime_of(REFERENCE_SETTINGS.runtime).open((folder / "reference").read_bytes(), REFERENCE_SETTINGS)
    variant = runtime_of(settings.runtime).open((folder / "variant").read_bytes(), settings)
    before, began = _Snapshot.now(), time.perf_counter()
    sides = (_Timing.of(reference, arrays["pixels"]), _Timing.of(variant, arrays["pixels"]))
    samples, converged = _pairs(sides, len(arrays["pixels"]), options)
    conditions = {**_conditions(before, _Snapshot.now(), time.perf_counter() - began), "pinned": float(pinned)}
    post_ms = _postprocessing_ms(variant, arrays, Postprocessing(**job["postprocessing"]))
    ratio, low, high = ratio_interval(samples, options.seed)
    p50, p90, p99 = np.percentile(samples[:, 1], [50, 90, 99]).tolist()
    return {
        "latency_ms_p50": p50,
        "latency_ms_p90": p90,
        "latency_ms_p99": p99,
        "reference_ms_p50": float(np.median(samples[:, 0])),
        "ratio": ratio,
        "ratio_low": low,
        "ratio_high": high,
        "postprocessing_ms_p50": post_ms,
        "pairs": len(samples),
        "converged": converged,
        "samples_ms": samples.tolist(),
        "conditions": conditions,
    }


def ratio_interval(samples: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Estimates how much longer the variant takes than the reference.

    Args:
        samples: (N, 2) times of reference and variant, in any unit.
        seed: Seed of the bootstrap.

    Returns:
        Median of variant / reference over the pairs, and its 95 % percentile bootstrap interval over pairs.
        Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3.
    """
    ratios = samples[:, 1] / samples[:, 0]
    drawn = np.random.default_rng(seed).integers(0, len(ratios), (_RESAMPLES, len(ratios)))
    medians = np.median(ratios[drawn], axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def _pairs(sides: tuple[_Timing, _Timing], images: int, options: BenchmarkOptions) -> tuple[np.ndarray, bool]:
    """Times pairs until the interval is narrow enough or the time is over: (N, 2) in ms, and whether it is narrow."""
    deadline = time.perf_counter() + options.max_seconds
    for side in sides:
        _warm_up(side, images, time.perf_counter() + options.max_seconds / 10)
    random = np.random.default_rng(options.seed)
    samples: list[tuple[float, float]] = []
    check_at = options.min_pairs
    while True:
        image, variant_first = len(samples) % images, bool(random.integers(2))
        pair = [0.0, 0.0]
        for turn in (1, 0) if variant_first else (0, 1):
            pair[turn] = sides[turn].milliseconds(image)
        samples.append((pair[0], pair[1]))
        over = time.perf_counter() > deadline and len(samples) > 1
        if over or len(samples) >= check_at:
            ratio, low, high = ratio_interval(np.array(samples), options.seed)
            converged = len(samples) >= options.min_pairs and (high - low) / 2 <= options.target_half_width * ratio
            if converged or over:
                return np.array(samples), converged
            check_at = int(check_at * 1.25) + 1


def _warm_up(side: _Timing, images: int, deadline: float) -> None:
    """Runs until the median of a block is near that of the block before."""
    last = np.inf
    while time.perf_counter() < deadline:
        median = float(np.median([side.milliseconds(index % images) for index in range(_WARM_UP_BLOCK)]))
        if abs(median - last) <= _WARM_UP_TOLERANCE * last:
            return
        last = median


def _postprocessing_ms(session: Session, arrays: dict[str, np.ndarray], postprocessing: Postprocessing) -> float:
    times = []
    for index in range(len(arrays["pixels"])):
        boxes, scores = session.run(arrays["pixels"][index : index + 1])
        height, width = arrays["sizes"][index]
        for _ in range(_POSTPROCESSING_REPEATS):
            start = time.perf_counter_ns()
            detections_of(
                boxes[0], scores[0], arrays["anchors"], arrays["class_ids"].tolist(), (height, width), postprocessing
            )
            times.append((time.perf_counter_ns() - start) / 1e6)
    return float(np.median(times))


@dataclass(frozen=True)
class _Snapshot:
    """Counters of the machine and of this process."""

    ticks: dict[str, int]
    """CPU time of the machine by state, in ticks; empty where the system does not tell."""

    own_seconds: float
    """CPU time of this process."""

    switches: int
    """Involuntary context switches of this process."""

    @classmethod
    def now(cls) -> "_Snapshot":
        usage = resource.getrusage(resource.RUSAGE_SELF)
        names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
        stat = Path("/proc/stat")
        fields = stat.read_text().splitlines()[0].split()[1:] if stat.exists() else []
        ticks = dict(zip(names, map(int, fields), strict=False))
        return cls(ticks, usage.ru_utime + usage.ru_stime, usage.ru_nivcsw)


def _conditions(before: _Snapshot, after: _Snapshot, seconds: float) -> dict[str, float]:
    """Describes the machine during the run; shares are of all its CPU time."""
    found = {
        "seconds": seconds,
        "load_average_1m": os.getloadavg()[0],
        "involuntary_switches": float(after.switches - before.switches),
    }
    spent = {name: after.ticks[name] - before.ticks[name] for name in before.ticks}
    total = sum(spent.values())
    if total:
        own = (after.own_seconds - before.own_seconds) * os.sysconf("SC_CLK_TCK")
        busy = total - spent["idle"] - spent["iowait"] - spent["steal"]
        found["steal_share"] = spent["steal"] / total
        found["iowait_share"] = spent["iowait"] / total
        found["others_busy_share"] = max(busy - own, 0.0) / total
    return {**found, **_frequency()}


def _frequency() -> dict[str, float]:
    source = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    return {"cpu0_mhz": int(source.read_text()) / 1e3} if source.exists() else {}


if __name__ == "__main__":
    finish_job(_MODULE, Path(sys.argv[1]), measure)
