"""One suite for both databases: what older schemas wrote is kept, and shown in the columns that were added since."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, MetaData, select, text
from sqlalchemy.exc import IntegrityError

from results import queries, schema
from results.connect import MIGRATIONS, check_database, open_database, open_unchecked, upgrade_database
from results.store import Store
from tasks.quantize.schemes import TRAINING_AXES
from tasks.types import Artifact, Latency
from tests.contracts.test_databases import default_differs
from tests.results import samples

DETECTOR, DATASET, HOST, SWEEP = "d" * 64, "e" * 64, "f" * 64, "5" * 64
NOW, EARLIER = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)
FAILED, STARTED = "a" * 64, "6" * 64

# Label, axes as schema 0001 wrote them into `scheme_json`, and the share of multiply-accumulates by arithmetic.
OLD = (
    ("litert-float32-converter-t1", {"name": "float32", "toolchain": "converter"}, {"float32": 1.0}),
    ("litert-float16-litert_quantizer-t1", {"name": "float16", "toolchain": "litert_quantizer"}, {"float16": 1.0}),
    (
        "litert-dynamic_int8-converter-per_channel-t1",
        {"name": "dynamic_int8", "toolchain": "converter", "granularity": "per_channel"},
        {"dynamic_int8": 0.75, "float32_small": 0.25},
    ),
    (
        "litert-static_int8-litert_quantizer-per_tensor-cal32-seed7-t1",
        {"name": "static_int8", "toolchain": "litert_quantizer", "granularity": "per_tensor", "calibration_images": 32,
         "calibration_seed": 7},
        {"int8": 1.0},
    ),
)  # fmt: skip


IN_BETWEEN = [pytest.param(revision, marks=pytest.mark.slow) for revision in ("0002", "0003", "0004")]


@pytest.fixture(params=["0001", *IN_BETWEEN, "0005"])
def older(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def old(url: str, older: str) -> Iterator[Engine]:
    """A database of an older schema with one finished sweep, and one before it that was given up."""
    engine = open_unchecked(url, create=True)
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(MIGRATIONS))
        command.upgrade(config, "0001")
        tables = MetaData()
        tables.reflect(connection)
        for table, row in rows_of_0001():
            connection.execute(tables.tables[table].insert().values(row))
        command.upgrade(config, older)
    yield engine
    engine.dispose()


def rows_of_0001() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "detectors", {"sha256": DETECTOR, "name": "old", "spec": {}, "parameters": 1, "macs": 2}
    yield "datasets", {"fingerprint": DATASET, "name": "old set", "images": 80, "categories": {}, "annotations": "a"}
    yield "hosts", {"fingerprint": HOST, "properties": {"cpu": "old"}}
    for position, (label, scheme, shares) in enumerate(OLD):
        yield from measurements_of_0001(position, shares)
        yield "variants", {
            "key": key(position), "detector_sha256": DETECTOR, "label": label, "runtime": "litert",
            "scheme": scheme["name"], "toolchain": scheme["toolchain"], "granularity": scheme.get("granularity"),
            "calibration_images": scheme.get("calibration_images"), "calibration_seed": scheme.get("calibration_seed"),
            "threads": 1, "scheme_json": scheme, "settings_json": {"runtime": "litert", "threads": 1},
        }  # fmt: skip
    yield "sweeps", {
        "key": SWEEP, "name": "old", "spec": "name: old", "detector_sha256": DETECTOR, "dataset_fingerprint": DATASET,
        "provenance": {}, "budget_metric": "ap", "budget_max_loss": 0.15, "budget_relative": False,
        "reference_variant_key": key(0), "artifacts_url": "./artifacts", "started_at": NOW, "resumed_at": NOW,
    }  # fmt: skip
    yield from unscored_of_0001()
    for position in range(len(OLD)):
        yield "sweep_variants", {
            "sweep_key": SWEEP, "variant_key": key(position), "position": position, "status": "done",
            "request_key": key(position), "artifact_sha256": key(position), "accuracy_key": key(position),
            "latency_key": key(position), "settled_at": NOW,
        }  # fmt: skip


def unscored_of_0001() -> Iterator[tuple[str, dict[str, Any]]]:
    """A sweep before it, with a variant that waits and one that failed."""
    yield "failure_records", {
        "key": FAILED, "stage": "quantize", "reason": "worker_lost", "message": "lost", "detail": "", "created_at": NOW,
    }  # fmt: skip
    yield "sweeps", {
        "key": STARTED, "name": "started", "spec": "name: started", "detector_sha256": DETECTOR,
        "dataset_fingerprint": DATASET, "provenance": {}, "reference_variant_key": key(0), "artifacts_url": "./a",
        "started_at": EARLIER, "resumed_at": EARLIER,
    }  # fmt: skip
    yield "sweep_variants", {"sweep_key": STARTED, "variant_key": key(0), "position": 0, "status": "pending"}
    yield "sweep_variants", {
        "sweep_key": STARTED, "variant_key": key(1), "position": 1, "status": "failed", "request_key": FAILED,
        "failure_key": FAILED, "settled_at": EARLIER,
    }  # fmt: skip


def measurements_of_0001(position: int, shares: dict[str, float]) -> Iterator[tuple[str, dict[str, Any]]]:
    audit = {
        "mac_share": shares, "weight_share": {}, "granularity": None, "operators": {"CONV_2D": 34}, "macs": 2,
        "input_type": "float32", "output_types": {"boxes": "float32", "scores": "float32"},
    }  # fmt: skip
    int8 = shares.get("int8", 0.0) + shares.get("dynamic_int8", 0.0)
    yield "artifacts", {
        "sha256": key(position), "format": "tflite", "size_bytes": 7, "compressed_bytes": 6,
        "structure_sha256": key(position), "int8_mac_share": int8, "audit": audit,
    }  # fmt: skip
    yield "artifact_requests", {
        "key": key(position), "detector_sha256": DETECTOR, "scheme": {}, "versions": {},
        "artifact_sha256": key(position), "build_seconds": 1.0,
    }  # fmt: skip
    yield "accuracies", {
        "key": key(position), "artifact_sha256": key(position), "dataset_fingerprint": DATASET,
        **dict.fromkeys(schema.STATISTICS, 0.5 - position / 10), "images": 80, "detections": 9,
        "detections_sha256": key(position), "scorer": "hotcoco", "settings": {},
    }  # fmt: skip
    yield "latencies", {
        "key": key(position), "structure_sha256": key(position), "settings": {}, "host_fingerprint": HOST,
        "latency_ms_p50": 1.0, "latency_ms_p90": 1.0, "latency_ms_p99": 1.0, "reference_ms_p50": 1.0,
        "ratio": 1.0 - position / 10, "ratio_low": 0.5, "ratio_high": 1.0, "postprocessing_ms_p50": 1.0, "load_ms": 1.0,
        "pairs": 2, "converged": True, "samples_ms": [[1.0, 1.0], [2.0, 1.5]], "conditions": {},
    }  # fmt: skip


def key(position: int) -> str:
    return f"{position}" * 64


def test_the_upgraded_schema_is_the_schema_of_the_code(old: Engine, older: str) -> None:
    assert upgrade_database(old) == (older, schema.HEAD)
    with old.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": schema.VERSION_TABLE, "compare_server_default": default_differs}
        )
        assert compare_metadata(context, schema.tables) == []
    assert check_database(old)["sweeps"] == 2


def test_every_row_is_kept_as_it_was(old: Engine) -> None:
    def content(columns: dict[str, list[str]]) -> dict[str, list[str]]:
        tables = MetaData()
        with old.connect() as connection:
            tables.reflect(connection)
            return {
                name: sorted(
                    json.dumps(list(row), default=str)
                    for row in connection.execute(select(*(tables.tables[name].c[column] for column in columns[name])))
                )
                for name in columns
            }

    reflected = MetaData()
    reflected.reflect(old)
    columns = {name: table.c.keys() for name, table in reflected.tables.items() if name != schema.VERSION_TABLE}
    columns["latencies"].remove("samples_ms")
    before = content(columns)
    assert len(before["variants"]) == len(OLD)
    upgrade_database(old)
    assert content(columns) == before


def test_the_new_columns_say_what_0001_did(old: Engine) -> None:
    upgrade_database(old)
    rows = {row["scheme"]: row for row in queries.leaderboard(old)}
    shown = ("transform", "weight_algorithm", "keep_float", "range_estimator", "symmetry", "input_type", "output_type")
    found = {scheme: [row[axis] for axis in shown] for scheme, row in rows.items()}
    assert found == {
        "float32": ["none", None, None, None, None, None, None],
        "float16": ["none", None, None, None, None, None, None],
        "dynamic_int8": ["none", "min_max", "none", None, None, None, None],
        "static_int8": ["none", "min_max", "none", "min_max", "asymmetric", "float32", "float32"],
    }
    assert {row["simulated"] for row in rows.values()} == {False}
    assert (rows["static_int8"]["calibration_images"], rows["static_int8"]["calibration_seed"]) == (32, 7)
    shares = {scheme: (row["int8_mac_share"], row["quantized_mac_share"]) for scheme, row in rows.items()}
    assert shares == {
        "float32": (0.0, 0.0), "float16": (0.0, 0.0), "dynamic_int8": (0.75, 0.75), "static_int8": (1.0, 1.0),
    }  # fmt: skip


def test_what_was_not_measured_then_is_empty(old: Engine) -> None:
    upgrade_database(old)
    absent = ("memory_layout", "activation_type", "bias_correction", "import_ms", "first_inference_ms",
              "peak_memory_bytes", "executed_int8_mac_share", "images_per_second", "copies", "fallback_share",
              "conversion_share", *TRAINING_AXES, "training_key", "training_status", "training_steps",
              "training_best_step", "training_core_seconds")  # fmt: skip
    rows = queries.leaderboard(old)
    assert {row[name] for row in rows for name in absent} == {None}
    assert {(row["runtime_options"], row["load_ms"]) for row in rows} == {("", 1.0)}
    found = Store(old).latency_of(key(3))
    assert isinstance(found, Latency)
    assert (found.load_ms, found.peak_memory_bytes, found.executed_mac_share) == (1.0, None, None)
    assert (found.images_per_second, found.copies) == (None, None)


def test_an_old_latency_is_one_round_that_passes_for_calm(old: Engine) -> None:
    upgrade_database(old)
    found = Store(old).latency_of(key(3))
    assert isinstance(found, Latency)
    assert (found.samples_ms, found.noisy, found.attempts) == ((((1.0, 1.0), (2.0, 1.5)),), (), 1)
    assert {(row["latency_noisy"], row["latency_attempts"]) for row in queries.leaderboard(old)} == {(False, 1)}
    assert queries.show(old, key(3))["latency_rounds"] == 1
    assert len(queries.pareto_front(old)) > 0


def test_an_upgraded_leaderboard_ranks_as_before_and_has_no_intervals(old: Engine) -> None:
    upgrade_database(old)
    rows = queries.leaderboard(old)
    assert [row["variant_key"][0] for row in rows] == ["1", "0", "3", "2"]
    assert [row["feasible"] for row in rows] == [True, True, False, False]
    assert {(row["ap_loss_low"], row["ap_loss_high"]) for row in rows} == {(None, None)}


def test_an_old_artifact_is_found_with_an_audit_that_names_no_layers(old: Engine) -> None:
    upgrade_database(old)
    found = Store(old).artifact_of(key(3))
    assert isinstance(found, Artifact)
    assert (found.audit.mac_share, found.audit.layers, found.audit.codebook_size) == ({"int8": 1.0}, {}, 0)
    shown = queries.show(old, key(3))
    assert not any(name.startswith(("layers", "layer_count", "loss_interval")) for name in shown)


def test_new_results_stand_beside_old_ones(url: str, old: Engine) -> None:
    upgrade_database(old)
    samples.fill(Store(open_database(url, create=False)))
    samples.fill_study(Store(open_database(url, create=False)))
    samples.fill_trained(Store(open_database(url, create=False)))
    assert [row["sweep"] for row in queries.sweeps(old)] == ["trained", "study", "sample", "old", "started"]
    assert [row["ap_gained"] for row in queries.trainings(old)[:2]] == [pytest.approx(0.06), pytest.approx(0.03)]
    assert len(queries.leaderboard(old, "old")) == len(OLD)


def test_an_old_sweep_has_the_kind_of_a_sweep_and_its_variants_their_states(old: Engine) -> None:
    upgrade_database(old)
    counts = [(row["kind"], row["done"], row["stopped"], row["failed"], row["pending"]) for row in queries.sweeps(old)]
    assert counts == [("sweep", 4, 0, 0, 0), ("sweep", 0, 0, 1, 1)]
    assert Store(old).statuses(STARTED) == {key(0): "pending", key(1): "failed"}
    assert [row["reason"] for row in queries.failures(old, "started")] == ["worker_lost"]
    names = ("verdict", "trial", "confirm_ap", "confirm_ap_loss")
    assert {row[name] for row in queries.leaderboard(old) for name in names} == {None}


@pytest.mark.parametrize("older", ["0004"], indirect=True)
def test_a_second_latency_is_kept_and_a_view_of_the_users_too(old: Engine) -> None:
    with old.begin() as connection:
        connection.execute(text(f"UPDATE sweep_variants SET own_latency_key = '{key(1)}' WHERE variant_key = '{key(0)}'"
                                " AND status = 'done'"))  # fmt: skip
        connection.execute(text("CREATE VIEW mine AS SELECT count(*) AS n FROM sweep_variants"))
    upgrade_database(old)
    rows = {row["variant_key"]: row["own_latency_ratio"] for row in queries.leaderboard(old)}
    assert rows == {key(0): 0.9, key(1): None, key(2): None, key(3): None}
    assert queries.sql(old, "SELECT n FROM mine") == [{"n": len(OLD) + 2}]


def test_an_upgraded_database_refers_to_no_variant_that_is_not_there(old: Engine) -> None:
    upgrade_database(old)
    missing = "INSERT INTO sweep_variants (sweep_key, variant_key, position, status) VALUES ('no', 'no', 0, '{}')"
    for status, broken in (("pending", "(?i)foreign key"), ("swept", "(?i)check")):
        with pytest.raises(IntegrityError, match=broken), old.begin() as connection:
            connection.execute(text(missing.format(status)))


@pytest.mark.parametrize("older", ["0005"], indirect=True)
def test_a_study_of_0005_keeps_its_verdicts_and_gets_no_trainings(old: Engine) -> None:
    values = f"'{STARTED}', '{key(0)}', 'no_gain', 0, 80, 'slow', 7, 0, '2026-10-01 00:00:00'"
    names = "sweep_key, variant_key, kind, images, all_images, because, trial, inferred, decided_at"
    with old.begin() as connection:
        connection.execute(text(f"UPDATE sweeps SET kind = 'study' WHERE key = '{STARTED}'"))
        connection.execute(text(f"INSERT INTO verdicts ({names}) VALUES ({values})"))
        connection.execute(text("CREATE VIEW mine AS SELECT count(*) AS n FROM artifact_requests, sweep_variants"))
    upgrade_database(old)
    assert [(row["verdict"], row["trial"]) for row in queries.leaderboard(old, "started")] == [
        ("no_gain", 7), (None, None),
    ]  # fmt: skip
    assert queries.trainings(old, "started") == queries.trainings(old, "old") == []
    assert queries.sql(old, "SELECT n FROM mine") == [{"n": len(OLD) * (len(OLD) + 2)}]


def test_an_upgraded_database_refers_to_no_training_that_is_not_there(old: Engine) -> None:
    upgrade_database(old)
    for table in ("artifact_requests", "sweep_variants"):
        with pytest.raises(IntegrityError, match=r"(?i)foreign key"), old.begin() as connection:
            connection.execute(text(f"UPDATE {table} SET training_key = 'no'"))
