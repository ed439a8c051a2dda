"""Contestants: what one process does at each command, and what a start of it takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.errors import ArtifactUnreadable, InferenceFailed
from tasks.latency.contestant import Contestant
from tasks.latency.duel import Contender, Ring
from tasks.latency.fresh_process import Dialogue
from tasks.latency.scene import Scene
from tasks.runtimes.base import Runtime, runtime_of, runtimes
from tasks.runtimes.torch import eager_file
from tasks.types import RuntimeSettings
from tests.tasks.latency.tiny_onnx import tiny_onnx
from tests.tasks.runtimes.tiny_detector import pixels, shard, tiny_detector

MIB = 2**20
ONNX = RuntimeSettings("onnxruntime")


def scene(images: int = 3) -> Scene:
    return Scene.of(shard(images), tiny_detector().spec)


@contextmanager
def process(folder: Path, artifact: bytes, settings: RuntimeSettings, *cpus: int) -> Iterator[Dialogue]:
    ring = Ring(folder, {"only": Contender(artifact, settings)}, scene())
    with ring.enter("only", 120, list(cpus)) as dialogue:
        yield dialogue


def started(folder: Path, artifact: bytes, settings: RuntimeSettings = ONNX) -> dict[str, Any]:
    folder.mkdir()
    with process(folder, artifact, settings) as dialogue:
        return {**dialogue.answer(), **dialogue.ask("start")}


class Sleeper:
    """A session that takes 20 ms, and notes what it runs."""

    def __init__(self) -> None:
        self.ran: list[Any] = []
        self.is_closed = False

    def prepare(self, images: np.ndarray) -> int:
        (index,) = [number for number in range(3) if (images[0] == scene().pixels[number]).all()]
        return index

    def infer(self, prepared: int) -> None:
        self.ran.append(prepared)
        time.sleep(0.02)

    def outputs(self) -> None:
        return None

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(images), len(scene().anchors), 4)), np.zeros((len(images), len(scene().anchors), 4))

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def sleeper() -> Sleeper:
    return Sleeper()


@pytest.fixture
def contestant(sleeper) -> Contestant:
    runtime = Runtime("sleeper", (), "none", lambda *_: sleeper, (), executed=lambda *_: {"float32": 1.0})
    made = Contestant(runtime, RuntimeSettings("sleeper"), b"", scene())
    made.start()
    sleeper.ran.clear()
    return made


def test_a_block_runs_in_and_times_each_of_the_others_on_one_image(contestant, sleeper):
    found = contestant.block(image=1, run_in=2, timed=3)
    assert sleeper.ran == [1] * 5
    assert len(found["times_ms"]) == 3
    assert min(found["times_ms"]) >= 20


def test_a_block_tells_wall_and_cpu_time_while_it_works_and_since_the_last_one(contestant):
    contestant.block(image=0, run_in=0, timed=1)
    time.sleep(0.05)
    found = contestant.block(image=0, run_in=1, timed=2)
    # A block works while it is timed: its run-in is neither work nor rest.
    assert 0.04 <= found["worked_s"] < 10
    assert 0 <= found["worked_cpu_s"] < 0.02
    assert 0.05 <= found["rested_s"] < 10
    assert 0 <= found["rested_cpu_s"] < 0.02
    assert found["cpu_s"] > 0 and found["involuntary_switches"] >= 0


def test_a_stream_runs_the_images_in_turn_for_as_long_as_is_wanted(contestant, sleeper):
    rate = contestant.stream(0.3)
    assert 0 < rate <= 50
    assert sleeper.ran == [number % 3 for number in range(len(sleeper.ran))]


def test_what_is_executed_is_told_of_a_closed_session(contestant, sleeper):
    assert contestant.executed() == {"float32": 1.0}
    assert sleeper.is_closed


def test_nothing_runs_before_the_start(sleeper):
    idle = Contestant(runtime_of("onnxruntime"), ONNX, tiny_onnx(), scene())
    with pytest.raises(RuntimeError, match="`start` comes first"):
        idle.block(image=0, run_in=0, timed=1)


def test_a_start_takes_time_and_memory(tmp_path):
    found = started(tmp_path / "start", tiny_onnx())
    assert 1 < found["import_ms"] < 60_000
    assert 0 < found["load_ms"] < 10_000
    assert 0 < found["first_inference_ms"] < 10_000
    assert 1 * MIB < found["peak_memory_bytes"] - found["floor_bytes"] < 500 * MIB


def test_a_large_model_takes_more_memory_than_a_tiny_one(tmp_path):
    tiny, large = tiny_onnx(), tiny_onnx(16 * MIB)
    memory = []
    for number, artifact in enumerate((tiny, large)):
        found = started(tmp_path / str(number), artifact)
        memory.append(found["peak_memory_bytes"] - found["floor_bytes"])
    # At least its weights; at most a few copies of them.
    assert 15 * MIB < len(large) - len(tiny) < memory[1] - memory[0] < 6 * len(large)


def test_the_import_of_a_framework_is_not_counted_as_loading_but_as_memory(tmp_path):
    found = started(tmp_path / "torch", eager_file(tiny_detector(), "contiguous"), RuntimeSettings("torch"))
    assert found["import_ms"] > 300
    assert found["import_ms"] > found["load_ms"]
    assert found["peak_memory_bytes"] - found["floor_bytes"] > 50 * MIB


def test_postprocessing_is_timed_on_the_images_own_outputs(tmp_path):
    with process(tmp_path, tiny_onnx(), ONNX) as dialogue:
        dialogue.answer()
        dialogue.ask("start")
        some = dialogue.ask("postprocess", postprocessing={"score_threshold": 0.0})
        none = dialogue.ask("postprocess", postprocessing={"score_threshold": 0.9999})
    assert 0 < none < some < 10_000


def test_a_damaged_artifact_is_unreadable(tmp_path):
    with pytest.raises(ArtifactUnreadable):
        started(tmp_path / "damaged", tiny_onnx()[:1000])


def test_a_failing_inference_is_reported_as_such():
    wrong = Scene(pixels(1)[:, :32, :32], scene(1).sizes, scene(1).anchors, scene(1).class_ids)
    with pytest.raises(InferenceFailed):
        Contestant(runtime_of("onnxruntime"), ONNX, tiny_onnx(), wrong).start()


@pytest.mark.parametrize("runtime", runtimes(), ids=lambda runtime: runtime.name)
def test_the_import_of_every_runtime_can_be_timed(runtime):
    assert runtime.imported is not None
