"""The quantization space through the command: calibration once, layers ranked, mixed precision, refusals."""

import json
import sqlite3

import pytest

from tests.command import quantsweep

pytestmark = pytest.mark.slow

SPACE = """
  - {scheme: static_int8, toolchain: litert_quantizer, calibration_images: [2, 4], calibration_seed: [0, 1],
     range_estimator: [min_max, mse, percentile_99_9]}
  - {scheme: static_int8, toolchain: litert_quantizer, range_estimator: fixed, calibration_images: [2, 4]}
  - {scheme: static_int8, toolchain: converter, calibration_images: 4, input_type: uint8, output_type: float32}
  - {scheme: static_int4, calibration_images: 4, keep_float: [none, most_sensitive_3, "BoxPredictor_*|Conv2d_0"]}
  - {scheme: static_int8, toolchain: litert_quantizer, calibration_images: 4, weight_algorithm: gptq}
  - {scheme: dynamic_int4, keep_float: most_sensitive_2}
  - {scheme: float32, transform: [clustered_16, binary, equalized]}
  - {scheme: static_int8, toolchain: litert_quantizer, calibration_images: 4, transform: equalized}
sensitivity:
  - {scheme: static_int4, calibration_images: 4}
"""


@pytest.fixture(scope="module")
def swept(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("space")
    where = ("--db", folder / "results.db", "--artifacts", folder / "artifacts", "--address", "in-process")
    outcome = quantsweep("sweep", world.spec("space", SPACE), *where, "--json")
    assert outcome.code == 0, outcome.err
    return folder, json.loads(outcome.out), where


def _query(folder, text):
    with sqlite3.connect(folder / "results.db") as database:
        return database.execute(text).fetchall()


def test_every_variant_has_its_numbers_or_its_reason(swept):
    _, rows, _ = swept
    failed = {row["variant"]: row["failure_reason"] for row in rows if row["status"] == "failed"}
    assert failed == {"litert-static_int8-litert_quantizer-per_channel-cal4-seed0-weights_gptq-t1": "audit_mismatch"}
    assert all(row["ap"] is not None and row["latency_ratio"] > 0 for row in rows if row["status"] != "failed")


def test_fixed_ranges_are_one_variant_whatever_the_size(swept):
    _, rows, _ = swept
    assert sum(row["range_estimator"] == "fixed" for row in rows) == 1


def test_each_image_is_observed_once_for_all_samples_and_estimators(swept):
    folder, _, _ = swept
    # Two float builds are calibrated: the plain one on the images of both seeds, the equalized one on its sample.
    kept = list((folder / "artifacts" / "computed").rglob("*.statistics"))
    assert 4 < len(kept) <= 2 * 8


def test_a_larger_sample_extends_what_is_kept(swept, world):
    folder, _, where = swept
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "artifacts" / "computed").rglob("*.statistics")}
    space = "[{scheme: static_int8, toolchain: litert_quantizer, calibration_images: 8}]"
    outcome = quantsweep("sweep", world.spec("larger", space), *where, "--json")
    assert outcome.code == 0, outcome.err
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "artifacts" / "computed").rglob("*.statistics")}
    assert before.items() <= after.items()


def test_losses_have_intervals_and_the_reference_loses_nothing(swept):
    _, rows, _ = swept
    for row in rows:
        if row["status"] == "done":
            assert row["ap_loss_low"] <= row["ap_loss_high"]
    reference = next(row for row in rows if row["is_reference"])
    assert (reference["ap_loss"], reference["ap_loss_low"], reference["ap_loss_high"]) == (0, 0, 0)


def test_mixed_precision_keeps_just_the_layers_that_were_asked_for(swept):
    folder, _, _ = swept
    audits = {
        label: json.loads(audit)["layers"]
        for label, audit in _query(folder, "SELECT variant, audit FROM leaderboard JOIN artifacts ON sha256 = "
                                           "artifact_sha256 WHERE scheme = 'static_int4'")
    }  # fmt: skip
    kept = {label: {name for name, kind in found.items() if kind == "float32"} for label, found in audits.items()}
    plain, ranked, heads = sorted(kept.values(), key=len)
    assert plain == set()
    assert len(ranked) == 3
    assert heads == {name for name in next(iter(audits.values())) if name.startswith("BoxPredictor_")} | {"Conv2d_0"}
    worst = _query(folder, "SELECT layer FROM layer_losses WHERE rank <= 3 AND scheme = 'static_int4'")
    assert ranked == {layer for (layer,) in worst}


def test_a_ranking_without_calibrated_ranges_measures_no_ap(swept):
    folder, _, _ = swept
    found = _query(folder, "SELECT layer, rank, ap FROM layer_losses WHERE scheme = 'dynamic_int4' ORDER BY rank")
    (audit,) = _query(folder, "SELECT audit FROM leaderboard JOIN artifacts ON sha256 = artifact_sha256 "
                              "WHERE scheme = 'dynamic_int4'")  # fmt: skip
    floats = {name for name, kind in json.loads(audit[0])["layers"].items() if kind == "float32"}
    assert floats == {layer for layer, rank, _ in found if rank <= 2}
    assert {ap for _, _, ap in found} == {None}


def test_the_layers_are_listed_with_their_losses(swept):
    _, rows, where = swept
    outcome = quantsweep("results", "layers", "--scheme", "static_int4", *where[:2], "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert len(found) == 47
    assert [row["rank"] for row in found] == sorted(row["rank"] for row in found)
    assert [row["sqnr_db"] for row in found] == sorted(row["sqnr_db"] for row in found)
    reference = next(row for row in rows if row["is_reference"])
    assert all(row["ap_loss"] == pytest.approx(reference["ap"] - row["ap"]) for row in found)


def test_transforms_keep_their_promises(swept):
    folder, rows, _ = swept
    found = {
        transform: (json.loads(audit)["codebook_size"], simulated)
        for transform, audit, simulated in _query(
            folder, "SELECT transform, audit, simulated FROM leaderboard JOIN artifacts ON sha256 = artifact_sha256 "
                    "WHERE scheme = 'float32' AND transform <> 'none'")
    }  # fmt: skip
    assert found["clustered_16"][0] <= 16
    assert found["binary"][0] <= 2
    assert [bool(found[name][1]) for name in ("clustered_16", "binary", "equalized")] == [True, True, False]
    by_transform = {row["transform"]: row for row in rows if row["scheme"] == "float32"}
    assert by_transform["equalized"]["ap"] == pytest.approx(by_transform["none"]["ap"], abs=1e-3)
    assert by_transform["clustered_16"]["compressed_bytes"] < by_transform["none"]["compressed_bytes"] / 2


def test_a_second_run_does_nothing(swept, world):
    _, _, where = swept
    outcome = quantsweep("sweep", world.spec("space", SPACE), *where[:4], "--address", "127.0.0.1:1", "--json")
    assert outcome.code == 0, outcome.err
    assert "no task was submitted" in outcome.err


def test_a_dry_run_counts_the_space_and_what_collapses(swept, world):
    _, _, where = swept
    outcome = quantsweep("sweep", world.spec("space", SPACE), *where[:4], "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "1 of 25 variants asked for collapse" in outcome.out
    assert "per_channel-fixed-t1 is asked for 2 times" in outcome.out
    assert "24 variants have artifacts from earlier runs" in outcome.out
    assert "94 artifacts with one quantized layer" in outcome.out
    states = [line.split()[-1] for line in outcome.out.splitlines() if line.startswith("litert-")]
    assert (states.count("built"), states.count("fails")) == (23, 1)


def test_layers_that_the_detector_does_not_have_are_refused(world, tmp_path):
    space = '[{scheme: static_int4, keep_float: "Conv3d_*"}]'
    outcome = quantsweep("sweep", world.spec("layers", space), "--db", tmp_path / "results.db", "--dry-run")
    assert outcome.code == 2
    assert "keep_float 'Conv3d_*' matches no layer; layers: Conv2d_0, " in outcome.err
