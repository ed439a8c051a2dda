"""`quantsweep study` and `quantsweep sweep --find-best` as a user meets them."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli import sweep
from orchestrator.spec import load_spec
from tasks.coco.synthetic import write_synthetic
from tasks.latency import conditions
from tests.command import Outcome, quantsweep
from tests.detectors import tiny_detector

HEAD = """name: small
detector: detector.safetensors
evaluation:
  search: {images: val/images, annotations: val/annotations.json}
  confirm: {images: more/images, annotations: more/annotations.json}
latency: {max_seconds: 0.3, retries: 0}
"""
BUDGET = "budget: {max_loss: 0.02}\n"
SPACE = "space: [{scheme: [dynamic_int8, weight_only_int8], toolchain: litert_quantizer}]\n"
ANSWER = {
    "winner", "nearest", "trials", "verdicts", "images_inferred", "images_exhaustive", "stopped_by", "study",
    "study_key", "seconds", "front",
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small detector, images to search on and others to confirm on."""
    folder: Path = tmp_path_factory.mktemp("place")
    (folder / "detector.safetensors").write_bytes(tiny_detector().to_bytes())
    write_synthetic(folder / "val", images=6, seed=2)
    write_synthetic(folder / "more", images=5, seed=3, first_id=2001)
    return folder


@pytest.fixture(autouse=True, scope="module")
def any_machine_will_do():
    """Takes every machine for a quiet one: other tests run beside these."""
    with pytest.MonkeyPatch.context() as patch:
        for limit in ("MOST_PREEMPTED", "MOST_STEAL", "MOST_OTHERS", "MOST_RESTING"):
            patch.setattr(conditions, limit, math.inf)
        yield


def _spec(place: Path, text: str, name: str = "spec.yaml") -> Path:
    path = place / name
    path.write_text(text)
    return path


def _run(place: Path, *words: object, db: str = "results.db") -> Outcome:
    where = ("--db", place / db, "--artifacts", place / "artifacts", "--address", "in-process")
    return quantsweep(*words, *where)


@pytest.fixture(scope="module")
def studied(place: Path) -> tuple[Path, Outcome]:
    """A study that was run to its end, and what it said."""
    spec = _spec(place, HEAD + BUDGET + SPACE)
    return spec, _run(place, "study", spec)


def test_a_study_ends_with_a_summary_that_names_the_winner_and_how_to_export_it(studied, place):
    _, outcome = studied
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    (winner,) = (line.split()[1] for line in lines if line.startswith("winner"))
    assert winner.startswith("litert-")
    for start in ("gains", "costs", "sure", "tried    2 of 2 variants", "spent"):
        assert any(line.startswith(start) for line in lines), outcome.out
    assert any("on 5 confirmation images, which had no part in the choice" in line for line in lines)
    assert lines[-1].startswith(f"export   quantsweep export {winner} --out FOLDER --sweep ")


def test_the_command_that_the_summary_names_exports_the_winner(studied, place):
    words = studied[1].out.splitlines()[-1].split()[2:]
    outcome = quantsweep(*(str(place / "winner") if word == "FOLDER" else word for word in words))
    assert outcome.code == 0, outcome.err
    assert {path.name for path in (place / "winner").iterdir()} == {
        "model.tflite", "provenance.json", "detect.py", "README.md",
    }  # fmt: skip


def test_the_exported_example_runs(studied, place):
    winner = next(line.split()[1] for line in studied[1].out.splitlines() if line.startswith("winner"))
    out = place / "runnable"
    assert quantsweep("export", winner, "--db", place / "results.db", "--out", out).code == 0
    image = next((place / "val" / "images").iterdir())
    for path, code in ((image, 0), (place / "none.jpg", 1)):
        ran = subprocess.run([sys.executable, out / "detect.py", path], capture_output=True, text=True, check=False)
        assert ran.returncode == code, ran.stderr
        assert "Traceback" not in ran.stderr


def test_a_study_that_has_ended_is_told_again_as_one_object_without_any_task(studied, place):
    outcome = _run(place, "study", studied[0], "--json")
    assert outcome.code == 0
    assert "no task was submitted" in outcome.err
    told = json.loads(outcome.out)
    assert set(told) == ANSWER
    assert (told["study"], told["trials"], sum(told["verdicts"].values())) == ("small", 2, 2)
    assert told["images_exhaustive"] == 3 * 6
    assert told["nearest"] == []
    rows = json.loads(quantsweep("results", "leaderboard", "--db", place / "results.db", "--json").out)
    assert told["winner"] in rows
    assert not told["winner"]["is_reference"]


def test_another_seed_is_another_study_that_repeats_no_measurement(studied, place):
    first = json.loads(_run(place, "study", studied[0], "--json").out)
    other = json.loads(_run(place, "study", studied[0], "--json", "--seed", 1).out)
    assert other["study_key"] != first["study_key"]
    assert other["winner"]["latency_key"] == first["winner"]["latency_key"]


def test_the_exact_optimum_of_a_grid_comes_with_leaderboard_and_summary(studied, place):
    spec, studied_outcome = studied
    outcome = _run(place, "sweep", spec, "--find-best")
    assert outcome.code == 0, outcome.err
    assert "variant" in outcome.out.splitlines()[1]
    (winner,) = (line.split()[1] for line in outcome.out.splitlines() if line.startswith("winner"))
    assert f"winner   {winner}" in studied_outcome.out
    told = json.loads(_run(place, "sweep", spec, "--find-best", "--json").out)
    assert set(told) == ANSWER
    assert told["winner"]["variant"] == winner


def test_a_study_of_two_objectives_needs_no_budget_and_shows_the_front(studied, place):
    spec = _spec(place, HEAD + SPACE + "study: {objectives: [latency, ap_loss]}\n", "front.yaml")
    outcome = _run(place, "study", spec)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("small: nothing feasible beats these in latency, ap_loss at once\n")
    assert "\nfastest  litert-" in outcome.out
    front = json.loads(_run(place, "study", spec, "--json").out)["front"]
    assert front
    assert {row["verdict"] for row in front} == {"feasible"}


def test_a_dry_run_says_how_it_would_search_and_runs_nothing(place):
    spec = _spec(place, HEAD + BUDGET + SPACE, "dry.yaml")
    outcome = _run(place, "study", spec, "--dry-run", "--trials", 7, "--sampler", "random", db="none.db")
    assert outcome.code == 0
    assert "a study (random, seed 0) tries some of them, 8 at a time, for the least latency" in outcome.out
    assert "within: AP loss <= 0.02; scored on 6 images in turn" in outcome.out
    assert "or 7 trials, or 50 verdicts in a row without a better one" in outcome.out
    assert "the winner is scored on 5 confirmation images, too" in outcome.out
    assert not (place / "none.db").exists()
    best = _run(place, "sweep", spec, "--find-best", "--dry-run", db="none.db")
    assert "--find-best times every variant, and scores the fastest first" in best.out


MISTAKES = {
    "a missing spec": (("study", "none.yaml"), HEAD + BUDGET + SPACE, "there is no spec file"),
    "no spec": (("study",), "", "name a spec file; `quantsweep study --example` prints one to start from"),
    "no budget": (("study", "wrong.yaml"), HEAD + SPACE, "line 1: a study needs to know how large a loss may be"),
    "no budget for the best": (
        ("sweep", "wrong.yaml", "--find-best"),
        HEAD + SPACE,
        "line 1: --find-best needs to know how large a loss may be: give `budget: {max_loss: 0.01}`",
    ),
    "nothing to choose from": (
        ("study", "wrong.yaml"),
        HEAD + BUDGET + "space: [{scheme: float32}]\n",
        "line 8: a study has nothing to choose from",
    ),
    "an unknown sampler": (
        ("study", "wrong.yaml", "--sampler", "best"),
        HEAD + BUDGET + SPACE,
        "--sampler is 'best': Input should be 'tpe', 'gp', 'nsga2', 'random', 'qmc' or 'brute_force'",
    ),
    "no trials": (("study", "wrong.yaml", "--trials", "0"), HEAD + BUDGET + SPACE, "--trials is 0"),
    "an unknown key": (
        ("study", "wrong.yaml"),
        HEAD + BUDGET + SPACE + "study: {stop: {trial: 3}}\n",
        "line 9: unknown key `study.stop.trial`; choices: trials, seconds, images, patience",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_clear_message_and_runs_nothing(name, place):
    words, text, message = MISTAKES[name]
    _spec(place, text, "wrong.yaml")
    outcome = _run(place, *(place / word if word.endswith(".yaml") else word for word in words), db="wrong.db")
    assert outcome.code == 2, outcome
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    assert not (place / "wrong.db").exists()


def test_ctrl_c_ends_with_one_line_on_how_to_go_on(place, monkeypatch):
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "prepared", interrupted)
    outcome = _run(place, "sweep", _spec(place, HEAD + BUDGET + SPACE, "interrupted.yaml"), db="interrupted.db")
    assert outcome.code == 1
    assert outcome.err == (
        "quantsweep: interrupted; what is finished is stored, and the same command goes on from there\n"
    )


def test_the_example_of_a_study_is_a_spec(tmp_path):
    (tmp_path / "study.yaml").write_text(quantsweep("study", "--example").out)
    assert load_spec(tmp_path / "study.yaml").budget is not None


def test_the_help_of_study_teaches():
    text = " ".join(quantsweep("study", "--help").out.split())
    for taught in ("What happens, in order", "fastest of the others is scored", "the same command goes on",
                   "study study.yaml --trials 60", "200 unless given"):  # fmt: skip
        assert taught in text
