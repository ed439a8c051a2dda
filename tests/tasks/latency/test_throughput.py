"""Throughput: as many copies as the machine has room for, each running all the while."""

import os
from types import SimpleNamespace

import psutil
import pytest

from tasks.errors import ArtifactUnreadable
from tasks.latency.duel import Contender
from tasks.latency.scene import Scene
from tasks.latency.throughput import Throughput, throughput
from tasks.types import RuntimeSettings
from tests.tasks.latency.tiny_onnx import tiny_onnx
from tests.tasks.runtimes.tiny_detector import shard, tiny_detector

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measured(artifact: bytes, threads: int = 1) -> Throughput:
    contender = Contender(artifact, RuntimeSettings("onnxruntime", threads))
    return throughput(contender, Scene.of(shard(2), tiny_detector().spec), 0.2, 120)


def copies_left() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "tasks.latency.contestant" in child.cmdline()]


def test_there_is_a_copy_for_each_cpu():
    found = measured(tiny_onnx())
    assert found.copies == CPUS
    assert found.images_per_second > 1
    assert not copies_left()


def test_a_copy_with_all_threads_has_the_machine_to_itself():
    assert measured(tiny_onnx(), threads=CPUS).copies == 1


def test_more_threads_than_cpus_make_one_copy():
    assert measured(tiny_onnx(), threads=CPUS + 1).copies == 1


def test_there_are_fewer_copies_where_memory_would_not_suffice(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=0))
    found = measured(tiny_onnx())
    assert found.copies == 1
    assert found.images_per_second > 1


def test_a_damaged_artifact_is_unreadable():
    with pytest.raises(ArtifactUnreadable):
        measured(tiny_onnx()[:1000])
    assert not copies_left()
