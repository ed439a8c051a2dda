import shutil

import pytest

from orchestrator.budget import Budget
from orchestrator.replay.table import load_table
from results.connect import open_database
from tasks.average_precision import average_precision
from tasks.errors import UserMistake
from tasks.types import Host
from tests.orchestrator.replay.recorded import (
    FAILURE,
    FAST,
    GOOD,
    IMAGES,
    NOISY,
    SAME_BUILD,
    SLOW,
    UNSUPPORTED,
    VARIANTS,
    record,
    shifted,
)
from tests.results.samples import REFERENCE


def loaded(database, **options):
    return load_table(open_database(str(database), read_only=True), **options)


def test_every_variant_but_the_reference_can_be_searched_for(table):
    assert [entry.variant for entry in table.entries] == [each for each in VARIANTS if each != REFERENCE]
    assert (table.sweep, table.dataset, table.images) == ("squares", "squares", IMAGES)
    assert table.budget == Budget("AP", 0.1, is_relative=False)


def test_an_entry_has_what_the_sweep_measured(table):
    good = table.entry_of(GOOD)

    assert (good.latency.ratio, good.failure, good.own_latency) == (0.5, None, None)
    assert average_precision(table.matches[good.build]) == pytest.approx(0.95, abs=0.04)
    assert table.entry_of(NOISY).latency.noisy == ("busy",)
    assert table.entry_of(SLOW).build == table.reference_build != table.entry_of(SAME_BUILD).build


def test_what_failed_has_its_failure_and_nothing_else(table):
    failed = table.entry_of(UNSUPPORTED)

    assert (failed.artifact, failed.latency, failed.build) == (None, None, None)
    assert (failed.failure.stage, failed.failure.reason) == (FAILURE.stage, FAILURE.reason)


def test_equal_detections_are_matched_once(table):
    assert table.matches[table.reference_build] is table.matches[table.entry_of(SAME_BUILD).build]
    assert table.matches[table.reference_build] is not table.matches[table.entry_of(FAST).build]


def test_another_budget_may_be_given(database):
    assert loaded(database, budget=Budget("AP75", 0.5, True)).budget == Budget("AP75", 0.5, True)


def test_a_sweep_without_a_budget_needs_one(tmp_path):
    database = record(tmp_path, budget_metric=None, budget_max_loss=None)

    with pytest.raises(UserMistake, match="no budget; give one: --max-loss"):
        loaded(database)
    assert loaded(database, budget=Budget("AP", 0.1, False)).budget.limit == 0.1


def test_a_budget_that_cannot_be_resampled_is_refused(tmp_path):
    database = record(tmp_path, budget_metric="AR100")

    with pytest.raises(UserMistake, match=r"about ar100, which cannot be resampled; .* AP, AP50, AP75"):
        loaded(database)


def test_a_sweep_that_is_not_finished_is_refused(tmp_path):
    with pytest.raises(UserMistake, match="1 of 9 variants of squares were not measured to the end"):
        loaded(record(tmp_path, finish=False))


def test_latencies_of_several_machines_are_refused(tmp_path):
    with pytest.raises(UserMistake, match="come from 2 machines"):
        loaded(record(tmp_path, host=Host({"cpu": "another"})))


def test_missing_detections_are_named_with_their_place(database, tmp_path):
    with pytest.raises(UserMistake, match=rf"5 of 5 files of detections .* {tmp_path}; --artifacts names another"):
        loaded(database, artifacts_url=str(tmp_path))


def test_detections_that_were_moved_are_found(database, tmp_path):
    shutil.copytree(database.parent / "artifacts", tmp_path / "moved")

    assert loaded(database, artifacts_url=str(tmp_path / "moved")).images == IMAGES


def test_missing_annotations_are_named(database, tmp_path):
    with pytest.raises(UserMistake, match=r"gone\.json are gone; --annotations names another place"):
        loaded(database, annotations=tmp_path / "gone.json")


def test_annotations_of_another_set_are_refused(database, tmp_path):
    with pytest.raises(UserMistake, match=r"not the annotations of the sweep: AP is 0\.0000 with them"):
        loaded(database, annotations=shifted(tmp_path / "other.json"))


def test_a_file_that_is_no_annotations_is_refused(database, tmp_path):
    (tmp_path / "list.json").write_text("[]")

    with pytest.raises(UserMistake, match=r"list\.json cannot be read as COCO annotations"):
        loaded(database, annotations=tmp_path / "list.json")
