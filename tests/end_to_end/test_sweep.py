"""A sweep from the spec file to the rows: the same on Ray and in-process, resumable, without repeated work."""

import json
import os
import shutil
import signal
import sqlite3
import time

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cluster.inprocess import InProcessExecutor
from orchestrator.cli.sweep import prepared
from orchestrator.progress import PlainProgress
from orchestrator.spec import load_spec
from orchestrator.sweep import Sweep
from results import queries
from results.connect import open_database
from tests.command import quantsweep, start_quantsweep

SPACE = """
  - {scheme: [float16, dynamic_int8]}
  - {scheme: static_int8, toolchain: [converter, litert_quantizer], calibration_images: [2, 8]}
"""
STATISTICS = (
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar1",
    "ar10",
    "ar100",
    "ar_small",
    "ar_medium",
    "ar_large",
)
TIMES = (
    "latency", "reference_ms", "postprocessing_ms", "import_ms", "load_ms", "first_inference_ms", "peak_memory_bytes",
    "confirmed_by", "host", "images_per_second", "own_latency",
)  # fmt: skip
"""Starts of the columns that depend on the clock: the fastest variant, which is confirmed, does so too."""


@pytest.fixture(scope="module")
def swept(world, tmp_path_factory, no_noise):
    """A sweep run in this process by the command."""
    folder = tmp_path_factory.mktemp("swept")
    arguments = ("--db", folder / "results.db", "--artifacts", folder / "artifacts", "--address", "in-process")
    outcome = quantsweep("sweep", world.spec("whole", SPACE), *arguments, "--json")
    assert outcome.code == 0, outcome.err
    return folder, json.loads(outcome.out), outcome.err


def _sweep(spec, folder, executor):
    sweep = Sweep(
        prepared(load_spec(spec), str(folder / "artifacts")),
        open_database(str(folder / "results.db")),
        PlainProgress(),
    )
    return sweep.run(executor) if sweep.unsettled else None


def test_every_variant_ends_with_an_accuracy_and_a_latency(swept):
    _, rows, _ = swept
    assert len(rows) == 7
    assert all(row["status"] == "done" and row["ap"] is not None and row["latency_ratio"] > 0 for row in rows)
    assert {
        "variant",
        "runtime",
        "scheme",
        "toolchain",
        "granularity",
        "calibration_images",
        "threads",
        "ap_loss",
        "size_bytes",
        "compressed_bytes",
        "artifact_sha256",
        "feasible",
    } <= rows[0].keys()


def test_what_happens_is_told_in_plain_lines(swept):
    lines = swept[2].splitlines()
    assert "7 variants on 12 images each" in lines[0] + lines[1]
    assert sum("7/7" in line for line in lines) == 1


def test_variants_of_one_structure_share_one_latency(swept):
    _, rows, _ = swept
    for toolchain in ("converter", "litert_quantizer"):
        static = [row for row in rows if row["scheme"] == "static_int8" and row["toolchain"] == toolchain]
        assert len({row["artifact_sha256"] for row in static}) == 2
        assert len({row["latency_ms_p50"] for row in static}) == 1


def test_exported_detections_score_in_plain_pycocotools_to_the_stored_statistics(swept, world, capsys):
    folder, rows, _ = swept
    truth = COCO(str(world.folder / "val" / "annotations.json"))
    for row in rows:
        out = folder / f"{row['variant']}.json"
        outcome = quantsweep(
            "results", "export", "--detections", row["variant"], "--out", out, "--db", folder / "results.db", "--json"
        )
        assert outcome.code == 0, outcome.err
        results = json.loads(out.read_text())
        assert json.loads(outcome.out)[0]["detections"] == len(results)
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        with sqlite3.connect(folder / "results.db") as database:
            stored = database.execute(
                f"SELECT {', '.join(STATISTICS)} FROM accuracies WHERE artifact_sha256 = ?", [row["artifact_sha256"]]
            ).fetchone()
        assert stored == pytest.approx(tuple(evaluation.stats), abs=1e-12)


def test_the_reference_and_the_best_are_confirmed_by_pycocotools(swept):
    folder, rows, _ = swept
    with sqlite3.connect(folder / "results.db") as database:
        confirmed = dict(database.execute("SELECT artifact_sha256, confirmed_by FROM accuracies"))
    reference = next(row for row in rows if row["scheme"] == "float32")
    feasible = [row for row in rows if row["feasible"]]
    best = min(feasible, key=lambda row: row["latency_ratio"])
    assert confirmed[reference["artifact_sha256"]].startswith("pycocotools")
    assert confirmed[best["artifact_sha256"]].startswith("pycocotools")


def test_a_finished_sweep_runs_nothing_again(swept, world):
    folder, rows, _ = swept
    arguments = ("--db", folder / "results.db", "--artifacts", folder / "artifacts", "--address", "127.0.0.1:1")
    outcome = quantsweep("sweep", world.spec("whole", SPACE), *arguments, "--json")
    assert outcome.code == 0, outcome.err
    assert "no task was submitted" in outcome.err
    assert json.loads(outcome.out) == rows


@pytest.mark.usefixtures("no_noise")
def test_another_sweep_takes_what_is_known_from_the_database(swept, world):
    folder, rows, _ = swept
    outcome = _sweep(world.spec("part", "[{scheme: static_int8, calibration_images: 8}]"), folder, InProcessExecutor())
    assert outcome.failed == 0
    known = {row["variant"]: row["latency_ratio"] for row in rows}
    again = queries.leaderboard(open_database(str(folder / "results.db")), outcome.sweep_key)
    assert {row["variant"]: row["latency_ratio"] for row in again}.items() <= known.items()
    with sqlite3.connect(folder / "results.db") as database:
        assert database.execute("SELECT count(*) FROM artifact_requests").fetchone() == (7,)


def test_thread_counts_share_artifact_and_accuracy_but_not_latency(swept, world, tmp_path):
    folder, _, _ = swept
    shutil.copytree(folder, tmp_path / "copy")
    spec = world.spec("threads", "[{scheme: float16}]", threads="[1, 2]")
    outcome = _sweep(spec, tmp_path / "copy", InProcessExecutor())
    rows = queries.leaderboard(open_database(str(tmp_path / "copy" / "results.db")), outcome.sweep_key)
    one, two = (next(row for row in rows if (row["scheme"], row["threads"]) == ("float16", count)) for count in (1, 2))
    assert len(rows) == 3
    assert (one["artifact_sha256"], one["ap"]) == (two["artifact_sha256"], two["ap"])
    assert one["latency_ms_p50"] != two["latency_ms_p50"]
    with sqlite3.connect(tmp_path / "copy" / "results.db") as database:
        assert database.execute("SELECT count(*) FROM accuracies").fetchone() == (7,)


def test_an_artifact_whose_file_is_gone_is_made_again(swept, world, tmp_path):
    folder, rows, _ = swept
    shutil.copytree(folder, tmp_path / "copy")
    row = next(row for row in rows if row["scheme"] == "float16")
    file = next((tmp_path / "copy" / "artifacts").rglob(f"{row['artifact_sha256']}.tflite"))
    file.unlink()
    outcome = _sweep(world.spec("again", "[{scheme: float16}]"), tmp_path / "copy", InProcessExecutor())
    assert outcome.failed == 0
    assert file.is_file()


@pytest.mark.slow
def test_ray_gives_the_same_rows_as_the_in_process_twin(swept, world, tmp_path, ray_executor):
    _, rows, _ = swept
    outcome = _sweep(world.spec("whole", SPACE), tmp_path, ray_executor)
    assert outcome.failed == 0
    again = queries.leaderboard(open_database(str(tmp_path / "results.db")), outcome.sweep_key)
    assert not _differences(again, rows)


@pytest.mark.slow
@pytest.mark.parametrize("address", ["in-process", "local"])
def test_a_killed_driver_goes_on_where_it_stopped(swept, world, tmp_path, address):
    _, rows, _ = swept
    spec = world.spec("whole", SPACE)
    arguments = ("--db", tmp_path / "results.db", "--artifacts", tmp_path / "artifacts", "--address", address)
    driver = start_quantsweep("sweep", spec, *arguments)
    first = _wait_for_settled(tmp_path / "results.db", 2)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    # In a process of its own, as other tests of this one may have a Ray.
    driver = start_quantsweep("sweep", spec, *arguments, "--json")
    out, err = driver.communicate(timeout=300)
    assert driver.returncode == 0, err
    assert not _differences(json.loads(out), rows)
    assert _settled(tmp_path / "results.db").items() >= first.items()


def _settled(database):
    query = "SELECT variant_key, settled_at FROM sweep_variants WHERE status = 'done'"
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            return dict(connection.execute(query))
    except sqlite3.OperationalError:
        return {}


def _wait_for_settled(database, count, seconds=120):
    deadline = time.monotonic() + seconds
    while len(_settled(database)) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return _settled(database)


def _differences(rows, others):
    """What differs between two leaderboards beside times: (variant, column, one value, other value)."""
    left, right = ({row["variant"]: row for row in each} for each in (rows, others))
    assert left.keys() == right.keys()
    return [
        (variant, key, value, right[variant][key])
        for variant, row in left.items()
        for key, value in row.items()
        if not key.startswith(TIMES) and value != right[variant][key]
    ]


def test_a_dry_run_lists_the_variants_and_leaves_nothing(world, tmp_path):
    where = ("--db", tmp_path / "results.db", "--artifacts", tmp_path / "artifacts")
    outcome = quantsweep("sweep", world.spec("whole", SPACE), "--dry-run", "--json", *where)
    assert outcome.code == 0, outcome.err
    assert len(json.loads(outcome.out)) == 7
    assert list(tmp_path.iterdir()) == []
