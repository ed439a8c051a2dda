"""Duels: real artifacts in real processes, timed in turn, and every way that it can end."""

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tasks.errors import ArtifactUnreadable, BenchmarkFailed, InferenceFailed
from tasks.latency import duel as duels
from tasks.latency.duel import Contender, Duel, DuelOptions, duel
from tasks.latency.fresh_process import Dialogue
from tasks.latency.ratio import ratio_of
from tasks.latency.scene import Scene
from tasks.types import RuntimeSettings
from tests.tasks.latency.tiny_onnx import tiny_onnx
from tests.tasks.runtimes.tiny_detector import shard, tiny_detector, tiny_float32

QUICK = DuelOptions(max_seconds=0.1, min_rounds=2, pairs=2)
ENDLESS = DuelOptions(max_seconds=60, target_half_width=1e-9)
IMAGES, ROUNDS, PAIRS = 3, 2, 6


def scene() -> Scene:
    return Scene.of(shard(IMAGES), tiny_detector().spec)


def tiny(width: int = 64) -> Contender:
    return Contender(tiny_onnx(width=width), RuntimeSettings("onnxruntime"))


def contestants() -> list[psutil.Process]:
    """Children of this process that run artifacts: a Ray of the test session may be another child."""
    return [child for child in psutil.Process().children() if is_contestant(child)]


def is_contestant(process: psutil.Process) -> bool:
    try:
        return "tasks.latency.contestant" in process.cmdline()
    except psutil.NoSuchProcess:
        return False


class Recorded(Dialogue):
    """A real dialogue that notes down what is asked and answered."""

    course: list["Recorded | tuple[Recorded, str, dict[str, Any]]"]
    """All of them, when they start and when they are asked, in order."""

    def __init__(self, module: str, folder: Path, name: str, *rest: Any) -> None:
        super().__init__(module, folder, name, *rest)
        self.name, self.answers = name, list[Any]()
        Recorded.course.append(self)

    def ask(self, do: str, **arguments: Any) -> Any:
        Recorded.course.append((self, do, arguments))
        return super().ask(do, **arguments)

    def answer(self) -> Any:
        self.answers.append(super().answer())
        return self.answers[-1]


def record(seed: int) -> tuple[Duel, list[Any]]:
    Recorded.course = []
    options = DuelOptions(target_half_width=10, min_rounds=ROUNDS, pairs=PAIRS, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duels, "Dialogue", Recorded)
        found = duel((tiny(), tiny()), scene(), options, (("stream", {"seconds": 0.05}),))
    return found, Recorded.course


@pytest.fixture(scope="module")
def recorded() -> tuple[Duel, list[Any]]:
    return record(seed=0)


def rounds_of(course: list[Any]) -> Iterator[list[Any]]:
    """The course of each round: it begins with two starts."""
    begins = [index for index, item in enumerate(course) if isinstance(item, Recorded)][::2]
    for begin, end in zip(begins, [*begins[1:], None], strict=True):
        yield course[begin:end]


def pairs_of(round_: list[Any]) -> list[list[tuple[str, int]]]:
    """(name, image) of the two blocks of each pair: the last blocks of a round."""
    blocks = [item for item in round_ if not isinstance(item, Recorded) and item[1] == "block"]
    found = [(dialogue.name, arguments["image"]) for dialogue, _, arguments in blocks[-2 * PAIRS :]]
    return [found[index : index + 2] for index in range(0, len(found), 2)]


def test_a_model_beside_itself_has_a_ratio_near_one(recorded):
    found, _ = recorded
    assert 0.5 < found.ratio.low <= found.ratio.ratio <= found.ratio.high < 2
    assert found.ratio == ratio_of(found.rounds)
    assert found.converged
    assert [len(each) for each in found.rounds] == [PAIRS] * ROUNDS


def test_a_model_with_more_work_is_slower():
    found = duel((tiny(), tiny(160)), scene(), replace(QUICK, min_rounds=3, max_seconds=3))
    assert found.ratio.low > 1.3
    assert np.median(found.second.times_ms) > 1.3 * np.median(found.first.times_ms)


def test_every_round_starts_both_processes_anew(recorded):
    _, course = recorded
    for each in rounds_of(course):
        started = [item for item in each if isinstance(item, Recorded)]
        assert {item.name for item in started} == {"first", "second"}
    assert len({item._process.pid for item in course if isinstance(item, Recorded)}) == 2 * ROUNDS


def test_one_is_started_and_loaded_before_the_other_so_that_neither_is_disturbed(recorded):
    _, course = recorded
    for each in rounds_of(course):
        first, loaded, second, other_loaded = each[:4]
        assert isinstance(first, Recorded) and isinstance(second, Recorded)
        assert loaded == (first, "start", {}) and other_loaded == (second, "start", {})


def test_both_sides_of_a_pair_run_on_the_same_image(recorded):
    _, course = recorded
    images = set()
    for each in rounds_of(course):
        for one, other in pairs_of(each):
            assert one[1] == other[1]
            assert {one[0], other[0]} == {"first", "second"}
            images.add(one[1])
    assert images == set(range(IMAGES))


def test_the_order_within_a_pair_is_random_and_follows_from_the_seed(recorded):
    def orders(course: list[Any]) -> list[list[tuple[str, int]]]:
        return [pair for each in rounds_of(course) for pair in pairs_of(each)]

    before = orders(recorded[1])
    assert {pair[0][0] for pair in before} == {"first", "second"}
    assert orders(record(seed=0)[1]) == before
    assert orders(record(seed=1)[1]) != before


def test_blocks_are_as_long_as_is_wanted_whatever_the_model_takes(recorded):
    found, course = recorded
    typical = np.median(found.first.times_ms)
    lengths = [item[2] for item in course if not isinstance(item, Recorded) and item[1] == "block"]
    timed, run_in = (max(each[name] for each in lengths) for name in ("timed", "run_in"))
    # A busy machine may be twice as slow while lengths are chosen.
    assert 10 < timed * typical < 120
    assert 3 < run_in * typical < 40


def test_both_sides_run_on_the_same_cpus_and_say_so(recorded):
    found, course = recorded
    bound = [item.answers[0]["cpus"] for item in course if isinstance(item, Recorded)]
    assert all(each == bound[0] for each in bound)
    assert found.conditions["bound"] == 1
    assert found.conditions["cpus"] == len(bound[0])


def test_questions_are_asked_of_the_second_once_after_its_pairs(recorded):
    found, course = recorded
    asked = [(item[0].name, item[1]) for each in rounds_of(course) for item in each[-1:]]
    assert asked[0] == ("second", "stream")
    assert [name for _, name in asked[1:]] == ["block"] * (ROUNDS - 1)
    assert found.second.extras.keys() == {"stream"}
    assert found.second.extras["stream"] > 1
    assert found.first.extras == {}


def test_every_round_shows_what_a_start_takes(recorded):
    for side in (recorded[0].first, recorded[0].second):
        assert len(side.starts) == ROUNDS
        assert 0.1 < side.typical("import_ms") < 60_000
        assert 0 < side.typical("load_ms") < 10_000
        assert 0 < side.typical("first_inference_ms") < 10_000
        assert 2**20 < side.typical("memory_bytes") < 500 * 2**20


def test_the_state_of_the_machine_is_told(recorded):
    found = recorded[0].conditions
    assert {"seconds", "load_average_1m", "involuntary_switches", "niceness", "first_drift"} <= found.keys()
    for share in ("preempted_share", "resting_cpus", "steal_share", "iowait_share", "others_busy_share"):
        assert 0 <= found.get(share, 0.0) <= 1.01
    assert found["seconds"] > 0.5


def test_the_time_cap_ends_an_unreachable_precision_and_says_so():
    start = time.perf_counter()
    found = duel((tiny(), tiny()), scene(), replace(QUICK, target_half_width=1e-9))
    assert not found.converged
    # Two rounds at least: one gives no interval.
    assert len(found.rounds) >= 2 and math.isfinite(found.ratio.high)
    assert time.perf_counter() - start < 30


def test_sessions_of_two_runtimes_can_be_timed_beside_each_other():
    openvino = Contender(tiny_onnx(), RuntimeSettings("openvino"))
    found = duel((tiny(), openvino), scene(), QUICK)
    assert min(found.first.times_ms) > 0 and min(found.second.times_ms) > 0
    assert found.ratio.ratio > 0


def test_a_damaged_artifact_is_unreadable():
    damaged = Contender(tiny_onnx()[:1000], RuntimeSettings("onnxruntime"))
    for pair in ((damaged, tiny()), (tiny(), damaged)):
        with pytest.raises(ArtifactUnreadable):
            duel(pair, scene(), QUICK)
    assert not contestants()


def test_a_failing_inference_is_reported_as_such():
    smaller = replace(scene(), pixels=np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(InferenceFailed):
        duel((tiny(), tiny()), smaller, QUICK)
    assert not contestants()


def test_without_an_image_nothing_is_started():
    with pytest.raises(BenchmarkFailed, match="at least one image"):
        duel((tiny(), tiny()), replace(scene(), pixels=scene().pixels[:0]), QUICK)


def test_processes_past_their_limit_are_killed():
    with pytest.raises(BenchmarkFailed, match=r"the benchmark ran past its limit of 0\.9 s"):
        duel((tiny(), tiny()), scene(), replace(ENDLESS, pairs=1000, timeout_seconds=0.9))
    assert not contestants()


def test_a_process_that_dies_is_named_with_its_signal():
    def kill_one() -> None:
        while not (children := contestants()):
            time.sleep(0.01)
        children[0].kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(BenchmarkFailed, match="the benchmark process died of SIGKILL"):
        duel((tiny(), tiny()), scene(), ENDLESS)
    killer.join()
    assert not contestants()


@pytest.mark.parametrize(
    "wrong",
    [{"max_seconds": 0}, {"timeout_seconds": -1}, {"target_half_width": 0}, {"min_rounds": 1}, {"pairs": 0}],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must be (above|at least)"):
        DuelOptions(**wrong)


@pytest.mark.alone
@pytest.mark.parametrize("runtime", ["litert", "onnxruntime", "openvino"])
def test_threads_rest_while_the_other_one_is_timed(runtime):
    artifact = tiny_float32() if runtime == "litert" else tiny_onnx()
    side = Contender(artifact, RuntimeSettings(runtime, threads=2))
    found = duel((side, side), scene(), replace(QUICK, pairs=4))
    # A pool that spins keeps a whole CPU busy; rests of a tiny model are so short that falling asleep is seen in them.
    assert found.conditions["resting_cpus"] < 0.25
