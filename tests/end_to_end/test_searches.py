"""Searches on real artifacts: `study` and `sweep --find-best` find what an exhaustive sweep finds, for less."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys

import pytest

from cluster.inprocess import InProcessExecutor
from orchestrator.search.stops import StopRules
from results import queries
from tests.command import quantsweep
from tests.end_to_end.conftest import BUDGET, SPACE
from tests.end_to_end.searching import (
    Interrupted,
    Told,
    done,
    kept_images,
    open_search,
    rows_of,
    search,
    winner_of,
    without_scores,
)

STUDY = "{in_flight: 3}"

pytestmark = pytest.mark.usefixtures("no_noise")


def _optimum(rows):
    allowed = [row for row in rows.values() if row["feasible"] and not row["is_reference"]]
    return min(allowed, key=lambda row: row["latency_ratio"])


@pytest.fixture(scope="module")
def studied(exhaustive, trained_world, tmp_path_factory, no_noise):
    """A study that knows the sweep's artifacts and latencies, and none of its scores."""
    folder = without_scores(exhaustive[0], tmp_path_factory.mktemp("studied") / "copy")
    told = Told()
    return (
        folder,
        search("study", trained_world.spec("studied", SPACE, BUDGET, study=STUDY), folder, watcher=told),
        told,
    )


@pytest.fixture(scope="module")
def bare(studied, tmp_path_factory):
    """What the study knows but its scores: also the second latency of its winner."""
    return without_scores(studied[0], tmp_path_factory.mktemp("bare") / "copy")


def test_its_winner_is_as_fast_as_the_sweeps(exhaustive, studied):
    winner = winner_of(studied[1])
    assert exhaustive[1][winner]["feasible"]
    assert exhaustive[1][winner]["latency_ratio"] == _optimum(exhaustive[1])["latency_ratio"]


def test_it_infers_less_than_the_sweep_and_counts_every_image_once(exhaustive, studied):
    folder, study, _ = studied
    outcome = study.outcome
    assert outcome.images_exhaustive == len(exhaustive[1]) * 64
    assert 2 * 64 <= outcome.images_inferred < outcome.images_exhaustive
    assert outcome.images_inferred == kept_images(folder, study.key)


def test_every_variant_has_one_verdict(studied):
    _, study, told = studied
    rows = {name: row for name, row in rows_of(study).items() if not row["is_reference"]}
    assert sorted(told.verdicts) == sorted((name, row["verdict"]) for name, row in rows.items())
    assert sum(study.outcome.verdicts.values()) == study.outcome.trials == len(rows)
    assert sorted(row["trial"] for row in rows.values()) == list(range(len(rows)))


def test_what_was_not_scored_on_every_image_has_no_score(exhaustive, studied):
    rows = rows_of(studied[1])
    for name, row in rows.items():
        if row["status"] == "stopped":
            assert row["ap"] is None and row["feasible"] is None
            assert row["verdict_images"] < 64
        else:
            assert row["ap"] == exhaustive[1][name]["ap"]


def test_the_winner_and_the_reference_are_confirmed(studied):
    rows = rows_of(studied[1])
    reference = next(row for row in rows.values() if row["is_reference"])
    winner = rows[winner_of(studied[1])]
    assert winner["own_latency_ratio"] is not None
    assert winner["confirmed_by"].startswith("pycocotools") and reference["confirmed_by"].startswith("pycocotools")


def test_a_finished_study_does_nothing_again(studied, trained_world):
    folder, study, _ = studied
    again = open_search("study", trained_world.spec("studied", SPACE, BUDGET, study=STUDY), folder)
    assert again.is_finished
    assert again.outcome.verdicts == study.outcome.verdicts and again.outcome.submitted == 0
    assert again.outcome.stopped_by == "every variant of the space was asked for"


def test_a_study_after_a_sweep_infers_nothing(exhaustive, trained_world, tmp_path):
    shutil.copytree(exhaustive[0], tmp_path / "copy")
    study = search("study", trained_world.spec("after", SPACE, BUDGET, study=STUDY), tmp_path / "copy")
    outcome = study.outcome
    assert (outcome.images_inferred, outcome.trials) == (0, 0)
    assert winner_of(study) == _optimum(exhaustive[1])["variant"]
    found = {name: row["verdict"] for name, row in rows_of(study).items() if not row["is_reference"]}
    assert found == {
        name: "feasible" if row["feasible"] else "infeasible"
        for name, row in exhaustive[1].items()
        if not row["is_reference"]
    }


def test_a_sweep_after_a_study_takes_its_scores(studied, trained_world, tmp_path):
    shutil.copytree(studied[0], tmp_path / "copy")
    scored = {name: row["ap"] for name, row in rows_of(studied[1]).items() if row["status"] == "done"}
    with sqlite3.connect(tmp_path / "copy" / "results.db") as database:
        before = {row[0] for row in database.execute("SELECT key FROM accuracies")}
    arguments = ("--db", tmp_path / "copy" / "results.db", "--artifacts", tmp_path / "copy" / "artifacts")
    spec = trained_world.spec("then", SPACE, BUDGET)
    outcome = quantsweep("sweep", spec, *arguments, "--address", "in-process", "--json")
    assert outcome.code == 0, outcome.err
    with sqlite3.connect(tmp_path / "copy" / "results.db") as database:
        after = {row[0] for row in database.execute("SELECT key FROM accuracies")}
    assert before <= after and len(after) == 9
    assert len(before) == len(scored)


def test_nothing_feasible_means_no_winner(bare, trained_world, tmp_path):
    folder = without_scores(bare, tmp_path / "copy")
    space = "[{scheme: static_int4, toolchain: litert_quantizer, calibration_images: 8}]"
    study = search("study", trained_world.spec("hopeless", space, "{max_loss: 0.0}"), folder)
    assert study.outcome.winner_key is None
    assert study.outcome.verdicts == {"infeasible": 1}
    (row,) = (row for row in rows_of(study).values() if not row["is_reference"])
    # It was sure before all images that it is over the budget; what it lost by then is no score.
    assert (row["status"], row["ap"]) == ("stopped", None)
    assert 0 < row["verdict_images"] < 64 and row["verdict_loss_low"] > 0
    assert study.outcome.images_inferred == 2 * row["verdict_images"]
    nearest = queries.nearest(study._engine, study.key)
    assert [row["variant"] for row in nearest] == [
        name for name, row in rows_of(study).items() if not row["is_reference"]
    ]
    assert nearest[0]["excess"] > 0


def test_the_winner_is_scored_on_images_that_had_no_part_in_choosing_it(studied, trained_world, tmp_path):
    shutil.copytree(studied[0], tmp_path / "copy")
    sets = [f"{{images: {name}/images, annotations: {name}/annotations.json}}" for name in ("val", "confirm")]
    evaluation = f"{{search: {sets[0]}, confirm: {sets[1]}}}"
    spec = trained_world.spec("split", SPACE, BUDGET, evaluation=evaluation)
    study = search("study", spec, tmp_path / "copy")
    rows = rows_of(study)
    winner = rows[winner_of(study)]
    assert winner["confirm_images"] == 16 and winner["images"] == 64
    assert winner["confirm_ap_loss_low"] <= winner["confirm_ap_loss"] <= winner["confirm_ap_loss_high"]
    assert {name for name, row in rows.items() if row["confirm_ap"] is not None} == {
        winner["variant"],
        next(name for name, row in rows.items() if row["is_reference"])
    }  # fmt: skip
    assert study.outcome.images_inferred == kept_images(tmp_path / "copy", study.key)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["{metric: AP50, max_loss: 0.003}", "{max_relative_loss: 0.005}"])
def test_the_last_look_gives_the_loss_that_the_leaderboard_has(bare, trained_world, tmp_path, metric):
    folder = without_scores(bare, tmp_path / "copy")
    space = "[{scheme: [float16, dynamic_int8], toolchain: litert_quantizer}]"
    study = search("study", trained_world.spec("metric", space, metric), folder)
    scored = [row for row in rows_of(study).values() if row["status"] == "done" and not row["is_reference"]]
    assert scored
    for row in scored:
        assert row["verdict_loss"] == pytest.approx(row["budget_loss"], abs=1e-12)
        assert row["verdict_loss_low"] <= row["verdict_loss"] <= row["verdict_loss_high"]
        assert (row["verdict"] == "feasible") == row["feasible"]


def test_a_larger_limit_goes_on_with_a_study(bare, trained_world, tmp_path):
    folder = without_scores(bare, tmp_path / "copy")
    spec = trained_world.spec("limited", SPACE, BUDGET, study=STUDY)
    first = search("study", spec, folder, stops=StopRules(trials=2))
    assert first.outcome.trials == 2 and first.outcome.stopped_by == "2 trials, as many as the study may have"
    assert open_search("study", spec, folder, stops=StopRules(trials=2)).is_finished
    told = Told()
    second = open_search("study", spec, folder, stops=StopRules(trials=4), watcher=told)
    assert not second.is_finished
    second.run(InProcessExecutor())
    assert second.outcome.trials == 4 and len(told.verdicts) == 2
    assert second.outcome.images_inferred == kept_images(folder, second.key)


def test_an_interrupted_study_goes_on_where_it_stopped(bare, exhaustive, trained_world, tmp_path):
    folder = without_scores(bare, tmp_path / "copy")
    spec = trained_world.spec("interrupted", SPACE, BUDGET, study=STUDY)
    interruptions, told = 0, Told()
    while not (study := open_search("study", spec, folder, watcher=told)).is_finished:
        try:
            study.run(Interrupted(tasks=4 + 3 * interruptions))
        except KeyboardInterrupt:
            interruptions += 1
            assert not study.is_finished and study.outcome.winner_key is None
    assert interruptions >= 3
    assert rows_of(study)[winner_of(study)]["latency_ratio"] == _optimum(exhaustive[1])["latency_ratio"]
    assert len({name for name, _ in told.verdicts}) == len(told.verdicts) == study.outcome.trials == 8
    assert study.outcome.images_inferred == kept_images(folder, study.key)
    assert _trials(folder) == {
        "COMPLETE": _trials(folder).get("COMPLETE", 0),
        "PRUNED": _trials(folder).get("PRUNED", 0),
    }


def _trials(folder):
    """Number of Optuna's trials by state."""
    with sqlite3.connect(folder / "results.db") as database:
        return dict(database.execute("SELECT state, count(*) FROM trials GROUP BY state"))


@pytest.mark.slow
def test_ray_gives_the_same_winner(bare, exhaustive, trained_world, tmp_path, ray_executor):
    folder = without_scores(bare, tmp_path / "copy")
    study = search("study", trained_world.spec("ray", SPACE, BUDGET, study=STUDY), folder, ray_executor)
    assert exhaustive[1][winner_of(study)]["latency_ratio"] == _optimum(exhaustive[1])["latency_ratio"]
    assert study.outcome.images_inferred == kept_images(folder, study.key)


@pytest.mark.slow
def test_a_study_lives_in_postgresql(trained_world, tmp_path, postgresql):
    space = "[{scheme: [float16, dynamic_int8], toolchain: litert_quantizer}]"
    spec, url = trained_world.spec("postgresql", space, BUDGET), postgresql.get_uri()
    first = search("study", spec, tmp_path, database=url, stops=StopRules(trials=1))
    assert first.outcome.trials == 1
    second = search("study", spec, tmp_path, database=url)
    assert second.outcome.trials == 2 and second.outcome.winner_key is not None
    assert second.outcome.images_inferred == kept_images(tmp_path, second.key)
    assert open_search("study", spec, tmp_path, database=url).is_finished


KILLS = 10


@pytest.mark.slow
def test_a_driver_killed_at_random_moments_loses_and_repeats_nothing(trained_world, tmp_path):
    spec = trained_world.spec("killed", SPACE, BUDGET, study=STUDY)
    command = [sys.executable, "-m", "tests.end_to_end.searching", "study", str(spec), str(tmp_path)]
    moments, kills = random.Random(0), 0
    for _ in range(100):
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, err = driver.communicate(timeout=moments.uniform(2.5, 6.5) if kills < KILLS else 600)
        except subprocess.TimeoutExpired:
            os.kill(driver.pid, signal.SIGKILL)
            driver.communicate()
            kills += 1
            continue
        assert driver.returncode == 0, err
        assert "finished" in out
        break
    assert kills == KILLS, "the study was over before it was killed often enough"
    study = open_search("study", spec, tmp_path)
    assert study.is_finished
    rows = [row for row in rows_of(study).values() if not row["is_reference"]]
    assert len(rows) == study.outcome.trials == 8 and all(row["verdict"] for row in rows)
    work = done(tmp_path / "log")
    # What was done and not yet written down when the driver died is done again: one task a kill at most.
    assert sum(times - 1 for times in work.values()) <= kills
    assert study.outcome.images_inferred == kept_images(tmp_path, study.key)
    assert set(_trials(tmp_path)) <= {"COMPLETE", "PRUNED"} and sum(_trials(tmp_path).values()) == 8


@pytest.fixture(scope="module")
def found(exhaustive, trained_world, tmp_path_factory, no_noise):
    folder = without_scores(exhaustive[0], tmp_path_factory.mktemp("found") / "copy")
    told = Told()
    return folder, search("find_best", trained_world.spec("grid", SPACE, BUDGET), folder, watcher=told), told


def _allowed(rows):
    return [row for row in rows.values() if row["feasible"] and not row["is_reference"]]


def test_find_best_finds_the_fastest_of_all_that_are_feasible(exhaustive, found):
    best = min(_allowed(exhaustive[1]), key=lambda row: row["latency_ratio"])
    winner = rows_of(found[1])[winner_of(found[1])]
    assert (winner["latency_ratio"], winner["feasible"], winner["images"]) == (best["latency_ratio"], True, 64)
    assert winner["own_latency_ratio"] is not None and winner["confirmed_by"].startswith("pycocotools")


def test_find_best_scores_only_what_is_faster_than_the_winner(exhaustive, found):
    folder, search_, told = found
    rows = rows_of(search_)
    winner = rows[winner_of(search_)]
    for row in rows.values():
        # One that won until a second measurement found it slower was scored, too.
        if not row["is_reference"] and row["status"] == "done" and row["own_latency_ratio"] is None:
            assert row["latency_ratio"] <= winner["latency_ratio"]
    scored = sum(row["status"] == "done" for row in rows.values())
    assert search_.outcome.images_inferred == 64 * scored == kept_images(folder, search_.key)
    assert scored < len(rows) and search_.outcome.images_exhaustive == 64 * len(rows)
    assert len({label for label, _ in told.verdicts}) == len(rows) - 1


def test_a_finished_find_best_does_nothing_again(found, trained_world):
    again = open_search("find_best", trained_world.spec("grid", SPACE, BUDGET), found[0])
    assert again.is_finished
    assert again.outcome.winner_key == found[1].outcome.winner_key


def test_an_interrupted_find_best_infers_exactly_what_it_would_have_inferred(found, trained_world, tmp_path):
    folder = without_scores(found[0], tmp_path / "copy")
    interruptions, verdicts = 0, []
    while not (again := open_search("find_best", trained_world.spec("grid", SPACE, BUDGET), folder)).is_finished:
        told = Told()
        again._watcher = told
        try:
            again.run(Interrupted(tasks=4 + interruptions))
        except KeyboardInterrupt:
            interruptions += 1
        verdicts += told.verdicts
    assert interruptions >= 3
    assert sorted(verdicts) == sorted(found[2].verdicts)
    assert again.outcome.images_inferred == found[1].outcome.images_inferred == kept_images(folder, again.key)


def test_find_best_does_not_score_again_what_a_study_scored(found, trained_world, tmp_path):
    shutil.copytree(found[0], tmp_path / "copy")
    study = search("study", trained_world.spec("grid", SPACE, BUDGET), tmp_path / "copy")
    again = search("find_best", trained_world.spec("again", SPACE, BUDGET), tmp_path / "copy")
    assert winner_of(study) == winner_of(again) == winner_of(found[1])
    assert (study.outcome.images_inferred, again.outcome.images_inferred) == (0, 0)
