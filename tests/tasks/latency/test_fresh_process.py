"""Fresh processes: jobs and dialogues, and every way that they can end."""

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tasks.errors import ArtifactUnreadable, BenchmarkFailed, InferenceFailed
from tasks.latency.fresh_process import Dialogue, bind, run_job, settings_of
from tasks.types import RuntimeSettings

JOB = "tests.tasks.latency.scripted_job"
TALK = "tests.tasks.latency.scripted_dialogue"


def did(folder: Path, do: str, timeout_seconds: float = 60):
    (folder / "job.json").write_text(json.dumps({"do": do}))
    return run_job(JOB, folder, "profile", 1, timeout_seconds)


def dialogue(folder: Path, timeout_seconds: float = 60, threads: int = 1) -> Dialogue:
    return Dialogue(TALK, folder, "first", "benchmark", threads, timeout_seconds)


def test_a_job_returns_plain_values_whatever_is_printed_beside_them(tmp_path):
    assert did(tmp_path, "return") == {"list": [1, 2.5, None, "ü"]}


def test_a_job_runs_in_a_process_of_its_own(tmp_path):
    assert did(tmp_path, "pid") != os.getpid()


def test_a_failure_of_a_job_is_raised_as_itself(tmp_path):
    with pytest.raises(InferenceFailed, match="it did not work"):
        did(tmp_path, "fail")


def test_an_error_that_nobody_planned_for_is_told_with_its_last_line(tmp_path):
    with pytest.raises(BenchmarkFailed, match=r"the profile process ended with status 1: ZeroDivisionError"):
        did(tmp_path, "crash")


def test_a_job_that_is_killed_is_named_with_its_signal(tmp_path):
    with pytest.raises(BenchmarkFailed, match="the profile process died of SIGKILL"):
        did(tmp_path, "die")


def test_a_job_past_its_limit_is_killed(tmp_path):
    with pytest.raises(BenchmarkFailed, match=r"the profile ran past its limit of 1\.5 s"):
        did(tmp_path, "sleep", 1.5)
    assert not [child for child in psutil.Process().children() if JOB in " ".join(child.cmdline())]


def test_a_dialogue_answers_what_it_is_asked(tmp_path):
    with dialogue(tmp_path) as talk:
        assert talk.answer() == "hello first"
        assert talk.ask("add", one=2, other=3.5) == 5.5
        assert talk.ask("add", one=[1], other=[2]) == [1, 2]


def test_long_answers_arrive_whole(tmp_path):
    with dialogue(tmp_path) as talk:
        talk.answer()
        for _ in range(3):
            assert talk.ask("repeat", text="ä\n", times=1_000_000) == "ä\n" * 1_000_000


def test_what_libraries_print_does_not_disturb_the_answers(tmp_path):
    with dialogue(tmp_path) as talk:
        talk.answer()
        assert talk.ask("shout", text="not an answer") == "said"
    assert "not an answer" in (tmp_path / "first.log").read_text()


def test_numeric_libraries_get_the_threads_that_settings_say(tmp_path):
    with dialogue(tmp_path, threads=3) as talk:
        talk.answer()
        assert talk.ask("variable", name="OMP_NUM_THREADS") == "3"


def test_a_failure_within_a_dialogue_is_raised_as_itself(tmp_path):
    with dialogue(tmp_path) as talk:
        talk.answer()
        with pytest.raises(ArtifactUnreadable, match="it is damaged"):
            talk.ask("fail", message="it is damaged")


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_a_process_that_dies_amid_a_dialogue_is_named_with_its_signal(tmp_path, name):
    with dialogue(tmp_path) as talk:
        talk.answer()
        with pytest.raises(BenchmarkFailed, match=f"the benchmark process died of {name}"):
            talk.ask("die", signal=getattr(signal, name).value)


def test_a_process_that_is_gone_already_tells_why_when_it_is_asked(tmp_path):
    with dialogue(tmp_path) as talk:
        talk.answer()
        with pytest.raises(BenchmarkFailed, match="status 3"):
            talk.ask("leave", status=3)
        with pytest.raises(BenchmarkFailed, match="status 3"):
            talk.ask("add", one=1, other=2)


def test_the_limit_of_a_dialogue_counts_all_its_answers(tmp_path):
    with dialogue(tmp_path, timeout_seconds=3) as talk:
        talk.answer()
        talk.ask("rest", seconds=0.1)
        start = time.monotonic()
        with pytest.raises(BenchmarkFailed, match="the benchmark ran past its limit of 3 s"):
            talk.ask("rest", seconds=60)
        assert time.monotonic() - start < 20


def test_a_dialogue_that_ends_leaves_no_process(tmp_path):
    with dialogue(tmp_path) as talk:
        talk.answer()
        process = psutil.Process(talk.ask("pid"))
    assert not process.is_running()


def test_a_process_that_is_let_go_amid_its_work_ends(tmp_path):
    """Its parent may be killed without a chance to end it: then nobody writes to it any more."""
    with dialogue(tmp_path) as talk:
        talk.answer()
        process = psutil.Process(talk.ask("pid"))
        talk._process.stdin.close()
        assert talk._process.wait(20) == 0
    assert not process.is_running()


def test_a_process_sleeps_between_commands(tmp_path):
    with dialogue(tmp_path) as talk:
        talk.answer()
        before = talk.ask("cpu_seconds")
        time.sleep(0.5)
        assert talk.ask("cpu_seconds") - before < 0.1


def test_options_of_a_runtime_survive_the_way_into_the_process():
    wanted = RuntimeSettings("onnxruntime", 2, (("graph_optimization", "basic"), ("spinning", "off")))
    job = json.loads(json.dumps({"settings": {"runtime": "onnxruntime", "threads": 2, "options": wanted.options}}))
    assert settings_of(job) == wanted
    assert hash(settings_of(job)) == hash(wanted)


def test_a_bound_process_says_what_it_is_bound_to(tmp_path):
    allowed = bind([])
    with dialogue(tmp_path) as talk:
        talk.answer()
        assert talk.ask("bind", cpus=[]) == allowed
        if allowed:
            assert talk.ask("bind", cpus=allowed[-1:]) == allowed[-1:]
            assert bind([]) == allowed
