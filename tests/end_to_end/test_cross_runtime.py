"""One spec over all runtimes, through the command and a real Ray: workers of one framework each. Minutes."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.command import quantsweep, start_quantsweep

pytestmark = pytest.mark.slow

SPACE = """
  - {runtime: [litert, onnxruntime, openvino], scheme: float32}
  - {runtime: onnxruntime, scheme: static_int8, calibration_images: 4, graph_optimization: [all, disabled]}
  - {runtime: openvino, scheme: static_int8, toolchain: onnxruntime, calibration_images: 4}
  - {runtime: openvino, scheme: static_int8, toolchain: nncf, calibration_images: 4}
  - {runtime: onnxruntime, scheme: dynamic_int8}
  - {runtime: onnxruntime, scheme: static_int8, calibration_images: 4, keep_float: most_sensitive_2}
  - {runtime: onnxruntime, scheme: static_int8, calibration_images: 4, transform: equalized}
  - {runtime: torch, scheme: float32, toolchain: eager, memory_layout: [channels_last, contiguous]}
  - {runtime: torch, scheme: static_int8, calibration_images: 4}
  - {runtime: torch, scheme: dynamic_int8, toolchain: quantize_dynamic}
"""

Rows = dict[str, dict[str, Any]]


def _sweep(spec: Path, folder: Path) -> list[dict[str, Any]]:
    where = ("--db", folder / "results.db", "--artifacts", folder / "artifacts", "--address", "local", "--json")
    process = start_quantsweep("sweep", spec, *where)
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    rows: list[dict[str, Any]] = json.loads(out)
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cross-runtime")


@pytest.fixture(scope="module")
def rows(world, folder: Path) -> Rows:
    return {row["variant"]: row for row in _sweep(world.spec("cross-runtime", SPACE), folder)}


def test_every_variant_has_its_numbers_or_the_reason_why_not(rows: Rows):
    failed = {name: row["failure_reason"] for name, row in rows.items() if row["status"] == "failed"}
    assert failed == {"torch-dynamic_int8-quantize_dynamic-per_channel-t1": "audit_mismatch"}
    done = [row for row in rows.values() if row["status"] == "done"]
    assert {row["runtime"] for row in done} == {"litert", "onnxruntime", "openvino", "torch"}
    assert all(row["latency_ratio"] > 0 and row["ap_loss_low"] <= row["ap_loss_high"] for row in done)


def test_float32_has_one_ap_on_all_runtimes(rows: Rows):
    floats = [row for row in rows.values() if row["scheme"] == "float32"]
    assert len(floats) == 6
    assert max(row["ap"] for row in floats) - min(row["ap"] for row in floats) < 1e-3


def test_loading_and_memory_are_measured_on_all_runtimes(rows: Rows):
    for row in rows.values():
        if row["status"] == "done":
            assert row["load_ms"] > 0 and row["first_inference_ms"] > 0 and row["peak_memory_bytes"] > 2**20


def test_what_is_executed_is_told_where_the_artifact_alone_does_not_say(rows: Rows):
    plain = rows["onnxruntime-static_int8-onnxruntime-per_channel-cal4-seed0-t1"]
    literal = rows["onnxruntime-static_int8-onnxruntime-per_channel-cal4-seed0-disabled-t1"]
    assert plain["artifact_sha256"] == literal["artifact_sha256"]
    assert plain["executed_int8_mac_share"] == 1.0
    assert literal["executed_int8_mac_share"] == 0.0


def test_the_leaderboard_says_where_int8_is_executed_in_float(rows: Rows, folder: Path):
    folded = quantsweep("results", "leaderboard", "--db", folder / "results.db").out
    printed = folded.replace("\n  ", " ")
    told = [line for line in printed.splitlines() if line.startswith("in float: ")]
    assert told == [
        "in float: onnxruntime-static_int8-onnxruntime-per_channel-cal4-seed0-disabled-t1: "
        "of its 100% int8 multiply-accumulates 0% are executed"
    ]


def test_one_artifact_serves_two_runtimes(rows: Rows):
    one = rows["onnxruntime-static_int8-onnxruntime-per_channel-cal4-seed0-t1"]
    other = rows["openvino-static_int8-onnxruntime-per_channel-cal4-seed0-t1"]
    assert one["artifact_sha256"] == other["artifact_sha256"]
    assert rows["onnxruntime-float32-onnx-t1"]["artifact_sha256"] == rows["openvino-float32-onnx-t1"]["artifact_sha256"]


def test_layers_are_ranked_once_for_every_toolchain(rows: Rows, folder: Path):
    kept = rows["onnxruntime-static_int8-onnxruntime-per_channel-cal4-seed0-float_most_sensitive_2-t1"]
    with sqlite3.connect(folder / "results.db") as database:
        (text,) = database.execute(
            "SELECT audit FROM artifacts WHERE sha256 = ?", (kept["artifact_sha256"],)
        ).fetchone()
        ranked = database.execute("SELECT layer FROM layer_sensitivities WHERE rank <= 2").fetchall()
        assert database.execute("SELECT toolchain FROM sensitivities").fetchall() == [("litert_quantizer",)]
    floats = {name for name, arithmetic in json.loads(text)["layers"].items() if arithmetic == "float32"}
    assert floats == {layer for (layer,) in ranked}


def test_a_rerun_does_no_work(world, rows: Rows, folder: Path):
    before = {path: path.stat().st_mtime_ns for path in (folder / "artifacts").rglob("*") if path.is_file()}
    again = _sweep(world.spec("cross-runtime", SPACE), folder)
    assert {row["variant"]: row["latency_ratio"] for row in again} == {
        name: row["latency_ratio"] for name, row in rows.items()
    }
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "artifacts").rglob("*") if path.is_file()}
