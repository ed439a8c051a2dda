"""Benchmarks: fresh processes, real models, and every way that they can end."""

import dataclasses
import threading
import time

import numpy as np
import psutil
import pytest

from tasks.benchmark import BenchmarkOptions, benchmark, ratio_interval
from tasks.errors import ArtifactUnreadable, BenchmarkFailed, InferenceFailed
from tasks.types import Postprocessing, RuntimeSettings
from tests.tasks.runtimes.tiny_detector import shard, tiny_detector, tiny_float32

ENDLESS = BenchmarkOptions(max_seconds=60, target_half_width=1e-9)


def measured(variant: bytes, options: BenchmarkOptions, settings: RuntimeSettings | None = None):
    return benchmark(
        tiny_float32(),
        variant,
        settings or RuntimeSettings(),
        tiny_detector().spec,
        shard(2),
        Postprocessing(),
        options,
    )


def benchmark_processes() -> list[psutil.Process]:
    """Children of this process that measure: a Ray of the test session may be another child, and a cold start."""
    return [child for child in psutil.Process().children() if is_benchmark(child)]


def is_benchmark(process: psutil.Process) -> bool:
    try:
        return "tasks.benchmark" in process.cmdline()
    except psutil.NoSuchProcess:
        return False


def test_a_model_beside_itself_has_a_ratio_near_one():
    latency = measured(tiny_float32(), BenchmarkOptions(max_seconds=3, target_half_width=0.05))
    assert 0.5 < latency.ratio_low <= latency.ratio <= latency.ratio_high < 2
    assert 0 < latency.latency_ms_p50 <= latency.latency_ms_p90 <= latency.latency_ms_p99
    assert latency.pairs == len(latency.samples_ms) >= 50
    assert latency.postprocessing_ms_p50 > 0 and latency.load_ms > 0
    assert latency.latency_ms_p50 == np.median([variant for _, variant in latency.samples_ms])
    assert {"load_average_1m", "involuntary_switches"} <= latency.conditions.keys()


def test_a_model_with_more_work_is_found_slower():
    wide = tiny_detector(0.5)
    latency = benchmark(
        tiny_float32(), tiny_float32(0.5), RuntimeSettings(), wide.spec, shard(2), Postprocessing(),
        BenchmarkOptions(max_seconds=3, target_half_width=0.05),
    )  # fmt: skip
    assert latency.ratio_low > 1.3


def test_the_time_cap_ends_an_unreachable_precision_and_says_so():
    start = time.perf_counter()
    latency = measured(tiny_float32(), dataclasses.replace(ENDLESS, max_seconds=0.5))
    assert not latency.converged
    assert time.perf_counter() - start < 20


def test_a_damaged_artifact_is_unreadable():
    with pytest.raises(ArtifactUnreadable):
        measured(tiny_float32()[:5000], BenchmarkOptions())


def test_a_failing_inference_is_reported_as_such():
    images = dataclasses.replace(shard(1), pixels=np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(InferenceFailed):
        benchmark(tiny_float32(), tiny_float32(), RuntimeSettings(), tiny_detector().spec, images, Postprocessing())


def test_a_process_past_its_limit_is_killed():
    with pytest.raises(BenchmarkFailed, match=r"past its limit of 1\.5 s"):
        measured(tiny_float32(), dataclasses.replace(ENDLESS, timeout_seconds=1.5))
    assert not benchmark_processes()


def test_a_process_that_dies_is_named_with_its_signal():
    def kill_child() -> None:
        while not (children := benchmark_processes()):
            time.sleep(0.01)
        children[0].kill()

    killer = threading.Thread(target=kill_child)
    killer.start()
    with pytest.raises(BenchmarkFailed, match="SIGKILL"):
        measured(tiny_float32(), ENDLESS)
    killer.join()


def test_the_interval_holds_the_median_and_narrows_with_more_pairs():
    random = np.random.default_rng(0)
    times = random.lognormal(0, 0.05, (400, 2)) * [10, 12]
    few, many = ratio_interval(times[:40], seed=1), ratio_interval(times, seed=1)
    assert many[1] < 1.2 < many[2]
    assert many[1] < many[0] < many[2]
    assert many[2] - many[1] < few[2] - few[1]


def test_outliers_do_not_move_the_ratio():
    times = np.tile([10.0, 12.0], (100, 1))
    times[::10] = [10, 500]
    assert ratio_interval(times, seed=0) == (1.2, 1.2, 1.2)


@pytest.mark.parametrize("wrong", [{"max_seconds": 0}, {"min_pairs": 1}, {"target_half_width": -1}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="above 0"):
        BenchmarkOptions(**wrong)
