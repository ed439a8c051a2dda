"""What every runtime keeps about threads, memory and imports, seen in processes of its own on a quiet machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.runtimes.base import Runtime, runtime_of
from tests.contracts.float32 import MAKERS, float32_of
from tests.contracts.session_probe import ROUNDS

pytestmark = pytest.mark.alone

SLOW = {"keras", "inductor", "eager", "onnx"}
"""Toolchains of which a build or a start takes long."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(maker, marks=[pytest.mark.slow] if maker[1] in SLOW else [], id="-".join(maker))
        for maker in MAKERS
    ],
)
def maker(request) -> tuple[str, str, str]:
    return request.param


@pytest.fixture(scope="module")
def runtime(maker) -> Runtime:
    return runtime_of(maker[0])


@pytest.fixture(scope="module")
def data(maker) -> bytes:
    return float32_of(maker[1])


@pytest.fixture(scope="module")
def probes(runtime: Runtime, data: bytes, tmp_path_factory) -> dict[int, dict[str, Any]]:
    """What a fresh process sees of the runtime, by number of threads."""
    place = tmp_path_factory.mktemp("probe") / "artifact"
    place.write_bytes(data)
    found = {}
    for threads in (1, 2):
        # What is freed goes back to the system at once, so that resident memory shows it.
        steady = {"MALLOC_TRIM_THRESHOLD_": "0", "OMP_NUM_THREADS": str(threads)}
        environment = {**os.environ, **steady, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-m", "tests.contracts.session_probe", runtime.name, str(threads), str(place)]
        run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        found[threads] = json.loads(run.stdout.splitlines()[-1])
    return found


def test_one_thread_keeps_one_cpu_busy(probes):
    assert probes[1]["cpu_share"] < 1.15


def test_two_threads_share_the_work(probes):
    assert probes[2]["working_threads"] >= 2


def test_threads_rest_when_nothing_is_asked(probes):
    assert probes[2]["idle_share"] < 0.1


def test_closed_sessions_give_their_memory_back(probes, data):
    for probe in probes.values():
        assert probe["grown_bytes"] < ROUNDS * len(data) / 3


def test_inference_imports_the_framework_of_the_runtime_alone(runtime, probes):
    wanted = [] if runtime.framework == "none" else [runtime.framework]
    assert probes[1]["frameworks"] == wanted
