"""One suite for both databases: SQLite and a real PostgreSQL."""

import math
import multiprocessing
from dataclasses import replace
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import JSON, Column, DefaultClause, Engine, inspect, select, text

from results import queries, schema
from results.connect import check_database, open_database, open_unchecked, revision, upgrade_database
from results.store import KEPT_FAILURES, Store
from results.sweep_record import variant_key
from results.views import views
from tasks.errors import DatabaseMistake, UserMistake
from tasks.identity import key_of
from tasks.quantize.schemes import StaticInt8
from tasks.types import (
    Accuracy,
    Artifact,
    Audit,
    Comparison,
    Failure,
    Host,
    Latency,
    LayerSensitivity,
    LossInterval,
    OperatorTime,
    Profile,
    RuntimeSettings,
    Variant,
)
from tests.results import samples


def default_differs(_context: Any, _found: Any, column: Column[Any], found: str | None, *_wanted: Any) -> bool | None:
    """Compares defaults of JSON, which PostgreSQL cannot, as text; None for others: Alembic does that."""
    if not isinstance(column.type, JSON):
        return None
    default = column.server_default
    wanted = str(default.arg) if isinstance(default, DefaultClause) else None
    return (None if found is None else found.removesuffix("::json")) != wanted


def test_migrations_from_empty_give_the_tables_of_the_schema(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": schema.VERSION_TABLE,
                "compare_server_default": default_differs,
            },
        )
        assert compare_metadata(context, schema.tables) == []
        assert context.get_current_revision() == schema.HEAD


def test_views_have_the_documented_columns_in_order(engine: Engine) -> None:
    inspector = inspect(engine)
    assert set(inspector.get_view_names()) == set(views.tables)
    for view in views.sorted_tables:
        assert [column["name"] for column in inspector.get_columns(view.name)] == view.c.keys()


def test_check_finds_nothing_in_a_sound_database_and_names_a_missing_view(url: str, engine: Engine) -> None:
    assert check_database(engine)["schema"] == schema.HEAD
    with engine.begin() as connection:
        connection.execute(text("DROP VIEW class_losses"))
    with pytest.raises(DatabaseMistake, match="class_losses is missing"):
        check_database(open_database(url, read_only=True))


def test_opening_again_changes_nothing(url: str, store: Store) -> None:
    sweep = samples.fill(store)
    again = open_database(url)
    assert queries.find_sweep(again)["sweep_key"] == sweep
    assert upgrade_database(again) == (schema.HEAD, schema.HEAD)


@pytest.mark.parametrize(("found", "advice"), [("0000", "quantsweep db upgrade"), ("9999", "install a newer")])
def test_another_schema_version_is_refused(url: str, engine: Engine, found: str, advice: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '{found}'"))
    for read_only in (False, True):
        with pytest.raises(DatabaseMistake, match=advice):
            open_database(url, read_only=read_only)
    assert revision(open_unchecked(url)) == found


def test_upgrade_refuses_a_newer_schema(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(DatabaseMistake, match="newer than"):
        upgrade_database(engine)


def test_tables_of_others_may_stand_beside_ours_but_not_in_their_place(url: str) -> None:
    engine = open_unchecked(url, create=True)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE studies (id INTEGER)"))
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('v3.0.0.d')"))
    assert upgrade_database(engine) == (None, schema.HEAD)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "v3.0.0.d"


@pytest.mark.parametrize("is_first", [True, False])
def test_optuna_keeps_its_studies_in_the_same_database(url: str, is_first: bool) -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if not is_first:
        open_database(url).dispose()
    storage = optuna.storages.RDBStorage(url.replace("postgresql://", "postgresql+psycopg://"))
    theirs = optuna.create_study(storage=storage, study_name="theirs")
    theirs.tell(theirs.ask(), 1.0)
    engine = open_database(url)
    samples.fill_study(Store(engine))
    assert check_database(engine)["sweeps"] == 1
    assert [trial.value for trial in optuna.load_study(study_name="theirs", storage=storage).trials] == [1.0]


def test_a_foreign_table_of_our_name_is_left_alone(url: str) -> None:
    engine = open_unchecked(url, create=True)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE sweeps (broom INTEGER)"))
    with pytest.raises(DatabaseMistake, match="already has a table sweeps"):
        open_database(url)
    assert inspect(engine).get_table_names() == ["sweeps"]


def test_readers_cannot_write(url: str, store: Store) -> None:
    samples.fill(store)
    reader = open_database(url, read_only=True)
    for statement in ("DELETE FROM sweep_variants", "CREATE TABLE more (id INTEGER)", "DROP VIEW failures"):
        with pytest.raises(UserMistake, match="refuses the statement"):
            queries.sql(reader, statement)
    assert queries.sql(reader, "SELECT count(*) AS n FROM sweep_variants WHERE status LIKE 'd%'") == [{"n": 4}]


FINITE = st.floats(allow_nan=False, allow_infinity=False)
SHARE = st.floats(0, 1)
AP = st.one_of(st.just(-1.0), SHARE)
COUNT = st.integers(0, 2**31 - 1)
BIG = st.integers(0, 2**62)
NAME = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=12)
SHA256 = st.text("0123456789abcdef", min_size=64, max_size=64)

audits = st.builds(
    Audit,
    mac_share=st.dictionaries(NAME, SHARE, max_size=3),
    weight_share=st.dictionaries(NAME, SHARE, max_size=3),
    granularity=st.sampled_from([None, "per_channel", "per_tensor", "mixed"]),
    operators=st.dictionaries(NAME, COUNT, max_size=3),
    macs=BIG,
    input_type=NAME,
    output_types=st.dictionaries(NAME, NAME, max_size=3),
    layers=st.dictionaries(NAME, NAME, max_size=3),
    codebook_size=COUNT,
)
artifacts = st.builds(
    Artifact, sha256=SHA256, format=NAME, size_bytes=BIG, compressed_bytes=BIG, structure_sha256=SHA256, audit=audits
)
accuracies = st.builds(
    Accuracy,
    statistics=st.tuples(*[AP] * 12),
    class_ap=st.dictionaries(BIG, AP, max_size=5),
    images=COUNT,
    detections=BIG,
    detections_sha256=SHA256,
    scorer=NAME,
)
ROUNDS = st.lists(st.lists(st.tuples(FINITE, FINITE), max_size=3).map(tuple), max_size=3).map(tuple)
NOISY = st.lists(NAME, max_size=2).map(tuple)
latencies = st.builds(
    Latency,
    latency_ms_p50=FINITE,
    latency_ms_p90=FINITE,
    latency_ms_p99=FINITE,
    reference_ms_p50=FINITE,
    ratio=FINITE,
    ratio_low=FINITE,
    ratio_high=FINITE,
    postprocessing_ms_p50=FINITE,
    load_ms=FINITE,
    pairs=COUNT,
    converged=st.booleans(),
    samples_ms=ROUNDS,
    conditions=st.dictionaries(NAME, FINITE, max_size=3),
    noisy=NOISY,
    attempts=COUNT,
    images_per_second=st.none() | FINITE,
    copies=st.none() | COUNT,
    import_ms=st.none() | FINITE,
    first_inference_ms=st.none() | FINITE,
    peak_memory_bytes=st.none() | BIG,
    executed_mac_share=st.none() | st.dictionaries(NAME, SHARE, max_size=3),
)
comparisons = st.builds(
    Comparison,
    first_ms_p50=FINITE,
    second_ms_p50=FINITE,
    ratio=FINITE,
    ratio_low=FINITE,
    ratio_high=FINITE,
    pairs=COUNT,
    converged=st.booleans(),
    samples_ms=ROUNDS,
    conditions=st.dictionaries(NAME, FINITE, max_size=3),
    noisy=NOISY,
)
operators = st.builds(
    OperatorTime,
    name=NAME,
    operator=NAME,
    role=st.sampled_from(["convolution", "conversion", "other"]),
    layer=st.none() | NAME,
    arithmetic=NAME,
    kernel=NAME,
    macs=BIG,
    time_ms=st.floats(0, 1e6),
    is_fallback=st.booleans(),
)
profiles = st.builds(
    Profile, operators=st.lists(operators, max_size=5).map(tuple), total_ms=FINITE, repeats=COUNT, method=NAME
)
intervals = st.builds(
    LossInterval,
    loss=FINITE,
    low=FINITE,
    high=FINITE,
    level=SHARE,
    resamples=COUNT,
    seed=BIG,
    images=COUNT,
)
RATIO = st.floats(allow_nan=False).filter(lambda ratio: ratio != -math.inf)
sensitivities = st.builds(
    LayerSensitivity,
    layer=NAME,
    sqnr_db=RATIO,
    sqnr_boxes_db=RATIO,
    sqnr_scores_db=RATIO,
    mac_share=SHARE,
    ap=st.none() | AP,
    ap_loss=st.none() | FINITE,
)
kept_failures = st.builds(Failure, stage=NAME, reason=st.sampled_from(sorted(KEPT_FAILURES)), message=NAME, detail=NAME)

many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@many
@given(artifact=artifacts, accuracy=accuracies, latency=latencies, failure=kept_failures)
def test_what_is_stored_is_found_exactly(
    store: Store, artifact: Artifact, accuracy: Accuracy, latency: Latency, failure: Failure
) -> None:
    samples.register(store)
    keys = {name: key_of(name, artifact.sha256, accuracy.detections_sha256) for name in ("r", "a", "l", "f")}
    store.put_artifact(keys["r"], samples.DETECTOR, samples.STATIC.scheme, {"tensorflow": "2.21"}, artifact, 1.5)
    store.put_accuracy(keys["a"], artifact.sha256, samples.DATASET, accuracy, {})
    store.put_latency(keys["l"], artifact.structure_sha256, {}, samples.HOST, latency)
    store.put_failure(keys["f"], failure)
    assert store.artifact_of(keys["r"]) == artifact
    assert store.accuracy_of(keys["a"]) == accuracy
    assert store.latency_of(keys["l"]) == latency
    for found in (store.artifact_of, store.accuracy_of, store.latency_of):
        assert found(keys["f"]) == failure


@many
@given(profile=profiles, comparison=comparisons)
def test_profiles_and_comparisons_are_found_exactly_and_replace_older_ones(
    store: Store, profile: Profile, comparison: Comparison
) -> None:
    latency = key_of("latency", samples.STATIC.label)
    if store.latency_of(latency) is None:
        samples.fill(store)
    store.put_profile(latency, profile)
    samples.put_comparison(store, comparison)
    assert store.profile_of(latency) == profile
    assert store.comparison_of(key_of("comparison")) == comparison


@many
@given(interval=intervals, layers=st.lists(sensitivities, max_size=6, unique_by=lambda layer: layer.layer).map(tuple))
def test_intervals_and_layers_are_found_exactly(
    store: Store, interval: LossInterval, layers: tuple[LayerSensitivity, ...]
) -> None:
    if store.loss_interval_of(key_of("interval")) is None:
        samples.fill(store)
    samples.put_interval(store, interval=interval)
    samples.put_sensitivity(store, layers=layers)
    assert store.loss_interval_of(key_of("interval")) == interval
    assert store.sensitivity_of(key_of("sensitivity")) == layers


def test_nothing_is_found_under_an_unknown_key(store: Store) -> None:
    finders = (store.artifact_of, store.accuracy_of, store.latency_of, store.loss_interval_of, store.sensitivity_of,
               store.profile_of, store.comparison_of, store.training_of)  # fmt: skip
    for found in finders:
        assert found("0" * 64) is None


@pytest.mark.parametrize("ratio", [math.nan, -math.inf])
def test_layers_with_a_ratio_that_is_no_number_are_refused_and_the_old_ones_stay(store: Store, ratio: float) -> None:
    samples.fill(store)
    with pytest.raises(ValueError, match=r"layer_sensitivities\.sqnr_db is"):
        samples.put_sensitivity(store, layers=(replace(samples.LAYERS[0], sqnr_db=ratio),))
    assert store.sensitivity_of(key_of("sensitivity")) == samples.LAYERS


def test_layers_may_be_measured_without_ap(store: Store, engine: Engine) -> None:
    samples.register(store)
    layers = tuple(replace(layer, ap=None, ap_loss=None) for layer in samples.LAYERS)
    store.put_sensitivity("k", samples.DETECTOR, samples.SENSITIVE, {}, samples.SENSITIVE, layers)
    assert store.sensitivity_of("k") == layers
    assert {(row["ap"], row["ap_loss"], row["dataset"]) for row in queries.layers(engine)} == {(None, None, None)}


def test_numbers_of_numpy_are_stored_as_numbers(store: Store) -> None:
    numpy = pytest.importorskip("numpy")
    samples.register(store)
    plain = samples.artifact("numpy")
    audit = replace(plain.audit, macs=7, operators={"CONV_2D": numpy.int64(34)}, mac_share={"int8": numpy.float32(0.5)})
    store.put_artifact(
        "k", samples.DETECTOR, samples.STATIC.scheme, {}, replace(plain, size_bytes=numpy.int64(9), audit=audit), 1.0
    )
    found = store.artifact_of("k")
    assert isinstance(found, Artifact)
    assert (found.size_bytes, found.audit.operators, found.audit.mac_share) == (9, {"CONV_2D": 34}, {"int8": 0.5})


def test_what_a_runtime_executes_in_int8_is_told_apart_from_what_it_does_not_tell(store: Store, engine: Engine) -> None:
    numpy = pytest.importorskip("numpy")
    told = {"int8": numpy.float32(0.5), "dynamic_int8": 0.25, "bfloat16": 0.25}
    for key, executed in (("told", told), ("float", {"bfloat16": 1.0}), ("silent", None)):
        store.put_latency(key, "s", {}, samples.HOST, replace(samples.latency(1.0), executed_mac_share=executed))
    with engine.connect() as connection:
        query = select(schema.latencies.c.key, schema.latencies.c.executed_int8_mac_share)
        assert dict(tuple(row) for row in connection.execute(query)) == {"told": 0.75, "float": 0.0, "silent": None}


def test_a_value_that_is_not_a_number_is_refused_and_nothing_is_stored(store: Store) -> None:
    bad = replace(samples.latency(1.0), ratio_low=float("nan"))
    with pytest.raises(ValueError, match="ratio_low is nan"):
        store.put_latency("k", "s", {}, samples.HOST, bad)
    assert store.latency_of("k") is None


def test_logs_of_crashed_tools_are_stored_whatever_they_hold(store: Store) -> None:
    store.put_failure("k", Failure("quantize", "quantization_failed", "core dumped", "\x00 \udcff ok"))
    found = store.artifact_of("k")
    assert isinstance(found, Failure)
    assert found.detail == "\ufffd ? ok"


def test_writing_everything_twice_changes_no_row(store: Store, engine: Engine) -> None:
    def rows() -> dict[str, list[Any]]:
        times = {"resumed_at", "settled_at", "created_at", "decided_at", "updated_at"}
        with engine.connect() as connection:
            return {
                table.name: sorted(
                    map(repr, connection.execute(select(*(column for column in table.c if column.name not in times))))
                )
                for table in schema.tables.sorted_tables
            }

    first = samples.fill(store), samples.fill_study(store), samples.fill_trained(store)
    before = rows()
    assert all(before.values())
    assert (samples.fill(store), samples.fill_study(store), samples.fill_trained(store)) == first
    assert rows() == before


def test_resuming_a_sweep_keeps_what_was_settled(store: Store, engine: Engine) -> None:
    sweep = samples.fill(store)
    store.finish_sweep(sweep)
    before = store.statuses(sweep)
    assert list(before.values()) == ["done", "done", "done", "done", "failed", "pending"]
    assert samples.begin(store, artifacts_url="s3://elsewhere") == sweep
    assert store.statuses(sweep) == before
    found = queries.find_sweep(engine)
    assert found["finished_at"] is None
    assert found["artifacts_url"] == "s3://elsewhere"
    assert found["started_at"] < found["resumed_at"]


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "other"},
        {"spec": "name: other"},
        {"provenance": {"seed": 1}},
        {"variants": samples.VARIANTS[:3]},
        {"budget_max_loss": 0.02},
        {"budget_relative": True},
        {"budget_metric": "AP50"},
        {"kind": "study"},
        {"kind": "find_best"},
        {"confirm_fingerprint": samples.DATASET},
    ],
)
def test_a_sweep_of_other_content_is_another_sweep(store: Store, changed: dict[str, Any]) -> None:
    samples.register(store)
    first = samples.begin(store)
    assert samples.begin(store, **changed) != first


@pytest.mark.parametrize(
    "changed",
    [
        {"reference": samples.THREADS, "variants": samples.VARIANTS[:2]},
        {"budget_metric": "mAP"},
        {"kind": "broom"},
    ],
)
def test_a_sweep_without_its_reference_or_of_an_unknown_metric_or_kind_is_refused(
    store: Store, changed: dict[str, Any]
) -> None:
    samples.register(store)
    with pytest.raises(ValueError, match=r"not among the variants|metrics: ap, ap50|choices: sweep, study"):
        samples.begin(store, **changed)


def test_failures_of_the_machine_are_tried_again_and_those_of_the_request_kept(store: Store) -> None:
    for reason in ("worker_lost", "unexpected_error", "benchmark_failed", "artifact_unreadable", "training_stopped"):
        store.put_failure(reason, replace(samples.LOST, reason=reason))
        assert store.artifact_of(reason) is None
    assert len(KEPT_FAILURES) == 6
    for reason in KEPT_FAILURES:
        store.put_failure(reason, replace(samples.FAILURE, reason=reason))
        assert store.artifact_of(reason) == replace(samples.FAILURE, reason=reason)


def test_a_result_outweighs_a_failure_of_the_same_key(store: Store) -> None:
    samples.register(store)
    made = samples.artifact("late")
    store.put_failure("k", samples.FAILURE)
    store.put_artifact("k", samples.DETECTOR, samples.STATIC.scheme, {}, made, 1.0)
    assert store.artifact_of("k") == made
    store.put_failure("k", samples.FAILURE)
    assert store.artifact_of("k") == made


def test_a_variant_that_failed_and_then_succeeded_shows_no_failure(store: Store, engine: Engine) -> None:
    samples.register(store)
    sweep = samples.begin(store)
    samples.fail(store, sweep, samples.STATIC, samples.LOST)
    assert [row["reason"] for row in queries.failures(engine)] == ["worker_lost"]
    samples.measure(store, sweep, samples.MEASURED[3])
    assert queries.failures(engine) == []


def test_a_confirmation_stays_until_the_detections_change(store: Store) -> None:
    samples.fill(store)
    key, made = key_of("accuracy", samples.STATIC.label), samples.artifact(samples.STATIC.label)
    scores = store.accuracy_of(key)
    assert isinstance(scores, Accuracy)
    assert store.confirmed_by(key) is None
    store.confirm_accuracy(key, "pycocotools 2.0.11")
    store.put_accuracy(key, made.sha256, samples.DATASET, scores, {})
    assert store.confirmed_by(key) == "pycocotools 2.0.11"
    store.put_accuracy(key, made.sha256, samples.DATASET, replace(scores, detections_sha256="f" * 64), {})
    assert store.confirmed_by(key) is None


@pytest.mark.parametrize("changed", [samples.STATIC, samples.REFERENCE])
def test_an_interval_is_forgotten_when_either_sides_detections_change(store: Store, changed: Variant) -> None:
    samples.fill(store)
    key, made = key_of("accuracy", changed.label), samples.artifact(changed.label)
    scores = store.accuracy_of(key)
    assert isinstance(scores, Accuracy)
    store.put_accuracy(key, made.sha256, samples.DATASET, scores, {})
    assert store.loss_interval_of(key_of("interval")) == samples.INTERVAL
    store.put_accuracy(key, made.sha256, samples.DATASET, replace(scores, detections_sha256="f" * 64), {})
    assert store.loss_interval_of(key_of("interval")) is None


@pytest.mark.parametrize(
    ("shares", "int8", "quantized"),
    [
        ({"int8": 0.5, "float32": 0.25, "dynamic_int8": 0.25}, 0.75, 0.75),
        ({"int8x16": 0.75, "float32_small": 0.25}, 0.0, 0.75),
        ({"int4xint8": 0.5, "int8": 0.25, "bfloat16": 0.25}, 0.25, 0.75),
        ({"weight_only_int4": 0.5, "dynamic_int4": 0.25, "float16": 0.25}, 0.0, 0.25),
        ({"float16": 0.5, "bfloat16": 0.25, "int8": 0.25}, 0.25, 0.25),
    ],
)
def test_shares_of_macs_tell_integer_from_float_arithmetic(
    store: Store, engine: Engine, shares: dict[str, float], int8: float, quantized: float
) -> None:
    samples.register(store)
    made = samples.artifact("shares")
    made = replace(made, audit=replace(made.audit, mac_share=shares))
    store.put_artifact("k", samples.DETECTOR, samples.STATIC.scheme, {}, made, 1.0)
    with engine.connect() as connection:
        row = connection.execute(text("SELECT int8_mac_share, quantized_mac_share FROM artifacts")).one()
    assert row == (int8, quantized)


def test_an_axis_that_a_variant_does_not_have_has_no_part_in_its_key() -> None:
    def key(**axes: Any) -> str:
        return variant_key(samples.DETECTOR, Variant(StaticInt8(**axes)))

    assert samples.STATIC.scheme.axes().keys().isdisjoint({"memory_layout", "activation_type", "bias_correction"})
    axes, settings = samples.STATIC.scheme.axes(), samples.STATIC.settings
    assert key() == key_of("variant", samples.DETECTOR, "static_int8", axes, settings)
    assert key(toolchain="nncf") != key(toolchain="nncf", bias_correction="none")
    options = replace(samples.STATIC, settings=RuntimeSettings(options=(("graph", "basic"),)))
    assert variant_key(samples.DETECTOR, options) != key()


def test_settling_what_is_not_there_is_an_error(store: Store) -> None:
    sweep = samples.fill(store)
    with pytest.raises(KeyError, match="sweep_variants has no row"):
        store.settle_variant(sweep, "0" * 64, "pending")
    with pytest.raises(KeyError):
        store.finish_sweep("0" * 64)
    with pytest.raises(KeyError):
        store.confirm_accuracy("0" * 64, "pycocotools")
    with pytest.raises(ValueError, match="failed variants have one"):
        store.settle_variant(sweep, variant_key(samples.DETECTOR, samples.STATIC), "failed")


WRITES = 40


def write_many(url: str, writer: int) -> None:
    """Opens the database, which may be empty, and stores failures one by one."""
    store = Store(open_database(url))
    for number in range(WRITES):
        store.put_failure(f"{writer}-{number}", samples.FAILURE)
        store.put_latency(f"{writer}-{number}", "s", {}, Host({"writer": number}), samples.latency(1.0))


def test_processes_that_write_at_once_lose_nothing(url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=write_many, args=(url, number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    with open_database(url, read_only=True).connect() as connection:
        for table in ("failure_records", "latencies"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 3 * WRITES
        assert connection.execute(text("SELECT count(*) FROM hosts")).scalar() == WRITES
