"""Cold starts: fresh processes, real models, and what they take before the second image."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tasks.benchmark import BenchmarkOptions, benchmark
from tasks.cold_start import cold_start
from tasks.errors import ArtifactUnreadable, BenchmarkFailed, InferenceFailed
from tasks.fresh_process import settings_of
from tasks.runtimes.base import runtimes
from tasks.types import Postprocessing, RuntimeSettings
from tests.tasks.runtimes.tiny_detector import pixels, shard, tiny_detector, tiny_float32

MIB = 2**20
LITERT = RuntimeSettings()


def test_a_cold_start_takes_time_and_memory():
    started = cold_start(tiny_float32(), LITERT, pixels(2))
    assert 1 < started.import_ms < 60_000
    assert 0 < started.load_ms < 10_000
    assert 0 < started.first_inference_ms < 10_000
    assert 1 * MIB < started.peak_memory_bytes < 500 * MIB
    assert started.executed_mac_share is None or sum(started.executed_mac_share.values()) == pytest.approx(1)


def test_a_large_model_takes_more_memory_than_a_tiny_one():
    tiny, large = tiny_float32(), tiny_float32(1.0)
    assert len(large) - len(tiny) > 15 * MIB
    extra = (
        cold_start(large, LITERT, pixels(1)).peak_memory_bytes - cold_start(tiny, LITERT, pixels(1)).peak_memory_bytes
    )
    # At least its weights; at most a few copies of them.
    assert len(large) - len(tiny) < extra < 6 * len(large)


def test_the_import_of_tensorflow_is_not_counted_as_loading():
    started = cold_start(tiny_detector().to_bytes(), RuntimeSettings("keras"), pixels(1))
    assert started.import_ms > 500
    assert started.peak_memory_bytes > 100 * MIB


def test_a_benchmark_begins_with_a_cold_start():
    options = BenchmarkOptions(max_seconds=0.5, target_half_width=0.5)
    latency = benchmark(
        tiny_float32(), tiny_float32(), LITERT, tiny_detector().spec, shard(2), Postprocessing(), options
    )
    assert latency.load_ms > 0 and latency.import_ms > 1
    # The first inference also pays for pages and buffers that later ones find.
    assert latency.first_inference_ms > latency.latency_ms_p50 / 2
    assert latency.peak_memory_bytes > 1 * MIB


def test_a_damaged_artifact_is_unreadable():
    with pytest.raises(ArtifactUnreadable):
        cold_start(tiny_float32()[:5000], LITERT, pixels(1))


def test_a_failing_inference_is_reported_as_such():
    with pytest.raises(InferenceFailed):
        cold_start(tiny_float32(), LITERT, np.zeros((1, 32, 32, 3), np.uint8))


def test_without_an_image_nothing_is_started():
    with pytest.raises(BenchmarkFailed, match="at least one image"):
        cold_start(tiny_float32(), LITERT, pixels(1)[:0])


def test_a_process_past_its_limit_is_killed():
    with pytest.raises(BenchmarkFailed, match=r"the cold start ran past its limit of 0\.01 s"):
        cold_start(tiny_float32(), LITERT, pixels(1), timeout_seconds=0.01)


def test_options_of_a_runtime_survive_the_way_into_the_process():
    settings = RuntimeSettings("onnxruntime", 2, (("graph_optimization", "basic"), ("spinning", "off")))
    job = json.loads(json.dumps({"settings": {"runtime": "onnxruntime", "threads": 2, "options": settings.options}}))
    assert settings_of(job) == settings
    assert hash(settings_of(job)) == hash(replace(settings))


@pytest.mark.parametrize("runtime", runtimes(), ids=lambda runtime: runtime.name)
def test_the_import_of_every_runtime_can_be_timed(runtime):
    assert runtime.imported is not None
