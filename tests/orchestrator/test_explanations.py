"""Why integer variants gain nothing, worked out from a database."""

from dataclasses import replace

import pytest
from sqlalchemy import Engine

from orchestrator.cli.leaderboard import print_leaderboard
from orchestrator.explanations import explanations
from results import queries
from results.connect import open_database
from results.store import Store
from tests.results import samples


@pytest.fixture
def engine(tmp_path) -> Engine:
    engine = open_database(str(tmp_path / "results.db"))
    store = Store(engine)
    sweep = samples.fill(store)
    samples.measure(store, sweep, replace(samples.MEASURED[2], ratio=1.1))
    return engine


def test_a_variant_that_gains_nothing_is_explained_and_others_are_not(engine):
    found = explanations(engine)
    assert list(found) == [samples.DYNAMIC.label]
    assert found[samples.DYNAMIC.label].startswith("not faster than float32 on litert (1.10 times its time): ")


def test_one_variant_can_be_asked_for(engine):
    rows = {row["variant"]: row["variant_key"] for row in queries.leaderboard(engine)}
    assert explanations(engine, variant=rows[samples.STATIC.label]) == {}
    assert list(explanations(engine, variant=rows[samples.DYNAMIC.label])) == [samples.DYNAMIC.label]


def test_the_leaderboard_tells_each_reason_once(engine, capsys):
    why = {"one": "not faster than float32 on litert (1.10 times its time): the moon",
           "two": "not faster than float32 on litert (1.20 times its time): the moon",
           "three": "not faster than float32 on torch (1.30 times its time): the sun"}  # fmt: skip
    print_leaderboard(queries.leaderboard(engine), queries.find_sweep(engine), why)
    lines = [line for line in capsys.readouterr().out.splitlines() if "not faster" in line]
    assert lines == [f"one: {why['one']} (and 1 more for the same reason)", f"three: {why['three']}"]


def test_another_host_or_number_of_threads_is_no_measure(engine):
    store = Store(engine)
    sweep = queries.find_sweep(engine)["sweep_key"]
    moved = samples.moved(replace(samples.MEASURED[2], ratio=1.1), samples.OTHER_HOST)
    samples.measure(store, sweep, moved)
    assert explanations(engine) == {}
