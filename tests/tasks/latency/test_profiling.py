"""Profiling: the way of a profile out of a fresh process, and its failures."""

import json
import os
from dataclasses import replace

import pytest

from tasks.errors import ArtifactUnreadable, BenchmarkFailed, UnsupportedScheme
from tasks.latency import profiling
from tasks.latency.profiling import profile, take
from tasks.runtimes import base
from tasks.runtimes.base import runtime_of, runtimes
from tasks.types import OperatorTime, Profile, RuntimeSettings
from tests.tasks.latency.tiny_onnx import tiny_onnx
from tests.tasks.runtimes.tiny_detector import pixels

TOLD = Profile(
    operators=(
        OperatorTime("a", "CONV_2D", "convolution", "Conv2d_0", "int8", "XNNPACK", 10, 1.5, False),
        OperatorTime("b", "QUANTIZE", "conversion", None, "int8", "reference", 0, 0.5, True),
    ),
    total_ms=2.25,
    repeats=7,
    method="told by a test",
)
ONNX = RuntimeSettings("onnxruntime")


def without_profile() -> list[str]:
    return [runtime.name for runtime in runtimes() if runtime.profile is None]


@pytest.mark.parametrize("name", without_profile())
def test_a_runtime_that_cannot_tell_is_refused_before_anything_starts(name, monkeypatch):
    monkeypatch.setattr(profiling, "run_job", None)
    with pytest.raises(UnsupportedScheme, match=f"{name} has no way to tell"):
        profile(b"", RuntimeSettings(name), pixels(1))


def test_a_profile_arrives_as_the_runtime_told_it(monkeypatch):
    """A process would not know the runtime of a test, so its job is done here."""
    asked = []

    def tell(*arguments):
        asked.append(arguments)
        return TOLD

    made = replace(runtime_of("onnxruntime"), profile=tell)
    monkeypatch.setitem(base._RUNTIMES, "onnxruntime", made)
    monkeypatch.setattr(profiling, "idlest_cpus", lambda _: [])
    monkeypatch.setattr(profiling, "run_job", lambda _, folder, *__: json.loads(json.dumps(take(folder))))
    settings = replace(ONNX, threads=2, options=(("graph_optimization", "basic"),))
    assert profile(b"content", settings, pixels(2), seconds=3.5) == TOLD
    ((content, wanted, images, seconds),) = asked
    assert (content, wanted, seconds) == (b"content", settings, 3.5)
    assert (images == pixels(2)).all()


def test_a_profile_is_taken_in_a_process_of_its_own():
    bound = os.sched_getaffinity(0)
    found = profile(tiny_onnx(), ONNX, pixels(1), seconds=0.5)
    assert found.total_ms > 0 and found.repeats >= 1
    assert sum(item.time_ms for item in found.operators) > 0
    assert os.sched_getaffinity(0) == bound


def test_a_damaged_artifact_is_unreadable():
    with pytest.raises(ArtifactUnreadable):
        profile(tiny_onnx()[:1000], ONNX, pixels(1))


def test_a_profile_past_its_limit_is_ended():
    with pytest.raises(BenchmarkFailed, match=r"the profile ran past its limit of 0\.05 s"):
        profile(tiny_onnx(), ONNX, pixels(1), timeout_seconds=0.05)
