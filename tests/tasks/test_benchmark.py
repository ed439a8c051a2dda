"""Benchmarks: a variant beside the reference, and any two artifacts beside each other, as results hold them."""

import numpy as np
import pytest

from tasks.benchmark import REFERENCE_SETTINGS, benchmark, compare_latency
from tasks.errors import ArtifactUnreadable
from tasks.latency.conditions import complaints
from tasks.latency.duel import Contender, DuelOptions
from tasks.latency.ratio import ratio_of
from tasks.latency.scene import Scene
from tasks.types import Comparison, Latency, Postprocessing, RuntimeSettings
from tests.tasks.latency.tiny_onnx import tiny_onnx
from tests.tasks.runtimes.tiny_detector import shard, tiny_detector, tiny_float32

QUICK = DuelOptions(max_seconds=0.1, min_rounds=2, pairs=3)
MIB = 2**20


def scene() -> Scene:
    return Scene.of(shard(2), tiny_detector().spec)


@pytest.fixture(scope="module")
def latency() -> Latency:
    """Of a variant on another runtime than the reference's."""
    return benchmark(tiny_float32(), tiny_onnx(), RuntimeSettings("openvino"), scene(), Postprocessing(), QUICK)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    sides = (Contender(tiny_onnx(), RuntimeSettings(name)) for name in ("onnxruntime", "openvino"))
    return compare_latency(*sides, scene(), QUICK)


def test_times_are_the_variants_and_the_references(latency):
    assert 0 < latency.latency_ms_p50 <= latency.latency_ms_p90 <= latency.latency_ms_p99
    reference, variant = np.array([pair for each in latency.samples_ms for pair in each]).T
    assert latency.reference_ms_p50 == pytest.approx(np.median(reference), rel=0.5)
    assert latency.latency_ms_p50 == pytest.approx(np.median(variant), rel=0.5)


@pytest.mark.parametrize("name", ["latency", "comparison"])
def test_the_ratio_follows_from_the_pairs_that_are_kept(name, request):
    found = request.getfixturevalue(name)
    again = ratio_of(found.samples_ms)
    assert (found.ratio, found.ratio_low, found.ratio_high) == (again.ratio, again.low, again.high)
    assert found.ratio_low <= found.ratio <= found.ratio_high
    assert found.pairs == sum(len(each) for each in found.samples_ms) >= 6
    assert not found.converged or found.ratio_high - found.ratio_low <= 0.02 * found.ratio


@pytest.mark.parametrize("name", ["latency", "comparison"])
def test_bad_conditions_mark_it_noisy(name, request):
    found = request.getfixturevalue(name)
    assert {"load_average_1m", "involuntary_switches", "preempted_share"} <= found.conditions.keys()
    assert found.noisy == complaints(found.conditions)


def test_a_start_takes_time_and_memory(latency):
    assert latency.load_ms > 0 and latency.import_ms > 1
    # The first inference also pays for pages and buffers that later ones find.
    assert latency.first_inference_ms > latency.latency_ms_p50 / 2
    assert 1 * MIB < latency.peak_memory_bytes < 500 * MIB


def test_postprocessing_and_throughput_are_measured_apart(latency):
    assert 0 < latency.postprocessing_ms_p50 < 10_000
    assert latency.copies >= 1
    assert latency.images_per_second > 0


def test_what_is_executed_is_told(latency):
    assert latency.executed_mac_share == pytest.approx({"float32": 1})


def test_it_is_measured_the_first_time(latency):
    assert latency.attempts == 1


def test_a_comparison_holds_both_sides_times(comparison):
    first, second = np.array([pair for each in comparison.samples_ms for pair in each]).T
    assert comparison.first_ms_p50 == pytest.approx(np.median(first), rel=0.5)
    assert comparison.second_ms_p50 == pytest.approx(np.median(second), rel=0.5)


def test_the_reference_runs_on_one_thread_whatever_the_variant_does():
    assert RuntimeSettings("litert", threads=1) == REFERENCE_SETTINGS


def test_a_damaged_artifact_is_unreadable():
    with pytest.raises(ArtifactUnreadable):
        benchmark(tiny_float32(), tiny_float32()[:5000], RuntimeSettings(), scene(), Postprocessing(), QUICK)
