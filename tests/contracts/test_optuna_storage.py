"""Optuna's tables beside ours, in both databases."""

import threading

import optuna
import pytest
from sqlalchemy import Engine, inspect, text

from orchestrator.search.candidate import Candidate
from orchestrator.search.optuna_strategy import OptunaStrategy, open_study
from orchestrator.space import expand
from results import schema
from results.connect import check_database, open_database, open_unchecked, upgrade_database
from results.store import Store
from results.views import views
from tasks.errors import DatabaseMistake
from tasks.identity import key_of
from tasks.types import Failure, Verdict
from tests.orchestrator.search.scripted_laboratory import IMAGES, interval, latency

VARIANTS = expand(
    [{"scheme": "static_int8", "toolchain": "litert_quantizer", "granularity": ["per_channel", "per_tensor"],
      "calibration_images": [8, 16, 32, 64]}],
    [1],
)[0].variants[1:]  # fmt: skip


def dashboard_url(engine: Engine) -> str:
    """What a person would hand to optuna-dashboard."""
    if engine.dialect.name == "sqlite":
        return f"sqlite:///{engine.url.database}".replace("file://", "")
    return engine.url.render_as_string(hide_password=False)


def search(strategy: OptunaStrategy) -> int:
    """Tells every variant of the space to be feasible; returns how many there were."""
    number = 0
    while (ask := strategy.ask()) is not None:
        number += 1
        found = interval(0.0, IMAGES)
        verdict = Verdict("feasible", IMAGES, IMAGES, found, "")
        strategy.tell(Candidate(ask, None, latency(0.5 + number), interval=found, verdict=verdict))
    return number


def test_studies_stand_beside_results(url: str, engine: Engine) -> None:
    before = check_database(engine)
    study = open_study(url, "beside")
    assert search(OptunaStrategy(study, VARIANTS, limit=0.01)) == len(VARIANTS)
    assert check_database(engine) == before
    assert upgrade_database(engine) == (schema.HEAD, schema.HEAD)
    assert check_database(open_database(url, read_only=True)) == before


def test_results_may_come_after_studies(url: str) -> None:
    study = open_study(url, "first")
    assert upgrade_database(open_unchecked(url)) == (None, schema.HEAD)
    search(OptunaStrategy(study, VARIANTS, limit=0.01))
    assert check_database(open_database(url))["schema"] == schema.HEAD
    assert len(open_study(url, "first").trials) == len(VARIANTS)


def test_no_table_of_ours_has_a_name_of_optunas(url: str) -> None:
    open_study(url, "names")
    theirs = set(inspect(open_unchecked(url)).get_table_names())
    assert {"studies", "trials", "alembic_version"} <= theirs
    assert not theirs & {*schema.tables.tables, *views.tables, schema.VERSION_TABLE}


def test_optuna_itself_opens_the_study_as_its_dashboard_does(url: str, engine: Engine) -> None:
    search(OptunaStrategy(open_study(url, "shown"), VARIANTS, limit=0.01))
    shown = optuna.load_study(study_name="shown", storage=dashboard_url(engine))
    assert shown.best_trial.value == 1.5
    assert shown.metric_names == ["latency"]
    assert {trial.user_attrs["variant"] for trial in shown.trials} == {variant.label for variant in VARIANTS}
    assert shown.trials[0].constraints == {"budget": -0.01}


def test_a_later_run_finds_the_trials_of_an_earlier_one(url: str) -> None:
    first = OptunaStrategy(open_study(url, "resumed"), VARIANTS, limit=0.01)
    ask = first.ask()
    later = OptunaStrategy(open_study(url, "resumed"), VARIANTS, limit=0.01)
    assert later.ask() == ask
    assert search(later) == len(VARIANTS) - 1
    assert {
        settled.number for settled in OptunaStrategy(open_study(url, "resumed"), VARIANTS, limit=0.01).settled()
    } == ({*range(1, len(VARIANTS))})


def test_results_and_trials_are_written_at_the_same_time(url: str, store: Store) -> None:
    problems: list[BaseException] = []
    written = 0
    over = threading.Event()

    def write() -> None:
        nonlocal written
        try:
            while not over.is_set():
                store.put_failure(key_of("failure", written), Failure("quantize", "unsupported_scheme", "no"))
                written += 1
        except BaseException as error:
            problems.append(error)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        assert search(OptunaStrategy(open_study(url, "busy"), VARIANTS, limit=0.01)) == len(VARIANTS)
    finally:
        over.set()
        for writer in writers:
            writer.join()
    assert not problems
    assert written > 0


def test_tables_of_another_optuna_are_refused_with_what_to_do(url: str) -> None:
    open_study(url, "old")
    engine = open_unchecked(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v2.6.0.a'"))
    with pytest.raises(DatabaseMistake, match=r"another version of Optuna; .* optuna storage upgrade"):
        open_study(url, "old")


def test_a_database_that_cannot_be_used_is_one_message(tmp_path: object) -> None:
    with pytest.raises(DatabaseMistake, match="does not exist"):
        open_study(f"{tmp_path}/nowhere/results.db", "s")
    with pytest.raises(DatabaseMistake, match="cannot be used"):
        open_study("postgresql://nobody@127.0.0.1:1/nothing", "s")
