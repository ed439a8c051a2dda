"""`sweep --find-best`: the exact optimum of the grid, without scoring the grid."""

import shutil

import pytest

from tests.end_to_end.conftest import BUDGET, SPACE
from tests.end_to_end.searching import (
    Interrupted,
    Told,
    kept_images,
    open_search,
    rows_of,
    search,
    winner_of,
    without_scores,
)

pytestmark = pytest.mark.usefixtures("no_noise")


@pytest.fixture(scope="module")
def found(exhaustive, trained_world, tmp_path_factory, no_noise):
    folder = without_scores(exhaustive[0], tmp_path_factory.mktemp("found") / "copy")
    told = Told()
    return folder, search("find_best", trained_world.spec("grid", SPACE, BUDGET), folder, watcher=told), told


def _allowed(rows):
    return [row for row in rows.values() if row["feasible"] and not row["is_reference"]]


def test_it_is_the_fastest_of_all_that_are_feasible(exhaustive, found):
    best = min(_allowed(exhaustive[1]), key=lambda row: row["latency_ratio"])
    winner = rows_of(found[1])[winner_of(found[1])]
    assert (winner["latency_ratio"], winner["feasible"], winner["images"]) == (best["latency_ratio"], True, 64)
    assert winner["own_latency_ratio"] is not None and winner["confirmed_by"].startswith("pycocotools")


def test_only_what_is_faster_than_the_winner_was_scored(exhaustive, found):
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


def test_a_finished_search_does_nothing_again(found, trained_world):
    again = open_search("find_best", trained_world.spec("grid", SPACE, BUDGET), found[0])
    assert again.is_finished
    assert again.outcome.winner_key == found[1].outcome.winner_key


def test_interrupted_it_infers_exactly_what_it_would_have_inferred(found, trained_world, tmp_path):
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


def test_what_a_study_scored_is_not_scored_again(found, trained_world, tmp_path):
    shutil.copytree(found[0], tmp_path / "copy")
    study = search("study", trained_world.spec("grid", SPACE, BUDGET), tmp_path / "copy")
    again = search("find_best", trained_world.spec("again", SPACE, BUDGET), tmp_path / "copy")
    assert winner_of(study) == winner_of(again) == winner_of(found[1])
    assert (study.outcome.images_inferred, again.outcome.images_inferred) == (0, 0)
