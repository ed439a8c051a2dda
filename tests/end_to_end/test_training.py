"""Trained variants beside the others: one leaderboard, nothing trained twice, nothing trained in vain."""

import json
import shutil

import pytest

from cluster.inprocess import InProcessExecutor
from orchestrator.cli.sweep import prepared
from orchestrator.progress import PlainProgress
from orchestrator.spec import load_spec
from orchestrator.sweep import Sweep
from results import queries
from results.connect import open_database
from tests.command import quantsweep
from tests.end_to_end.searching import Interrupted, Told, open_search, rows_of, winner_of

pytestmark = pytest.mark.usefixtures("no_noise")

SPACE = """
  - {scheme: static_int4, toolchain: litert_quantizer, calibration_images: 4}
  - {scheme: qat_int4, calibration_images: 4, trainer: torch, epochs: 2, learning_rate: 3e-4}
  - {scheme: qat_int8, toolchain: [converter, litert_quantizer], calibration_images: 4, trainer: torch, epochs: 1,
     keep_float: most_sensitive_2}
"""
TRAINING = "{images: train/images, annotations: train/annotations.json, batch_size: 4, points: 2}"
UNTRAINED = "litert-qat_int4-litert_quantizer-per_channel-cal4-seed0-untrained-t1"
STATIC = "litert-static_int4-litert_quantizer-per_channel-cal4-seed0-t1"
TRAINED = "litert-qat_int4-litert_quantizer-per_channel-cal4-seed0-torch-ep2-lr0.0003-t1"


@pytest.fixture(scope="module")
def swept(world, tmp_path_factory, no_noise):
    folder = tmp_path_factory.mktemp("swept")
    arguments = ("--db", folder / "results.db", "--artifacts", folder / "artifacts", "--address", "in-process")
    spec = world.spec("mixed", SPACE, training=TRAINING)
    outcome = quantsweep("sweep", spec, *arguments, "--json")
    assert outcome.code == 0, outcome.err
    return folder, {row["variant"]: row for row in json.loads(outcome.out)}, outcome.err, (spec, *arguments)


def test_trained_and_other_variants_stand_in_one_leaderboard(swept):
    _, rows, _, _ = swept
    assert len(rows) == 1 + 1 + 2 + 4
    assert {row["status"] for row in rows.values()} == {"done"}
    assert rows[TRAINED]["training_steps"] == 4 and rows[TRAINED]["training_core_seconds"] > 0
    assert rows[STATIC]["training_steps"] is None and rows[UNTRAINED]["training_steps"] is None


def test_the_untrained_twin_is_what_post_training_quantization_makes(swept):
    _, rows, _, _ = swept
    assert rows[UNTRAINED]["artifact_sha256"] == rows[STATIC]["artifact_sha256"]


def test_training_changes_the_weights_and_nothing_that_latency_depends_on(swept):
    _, rows, _, _ = swept
    assert rows[TRAINED]["artifact_sha256"] != rows[UNTRAINED]["artifact_sha256"]
    assert rows[TRAINED]["structure_sha256"] == rows[UNTRAINED]["structure_sha256"]
    assert rows[TRAINED]["latency_key"] == rows[UNTRAINED]["latency_key"]


def test_toolchains_share_a_training(swept):
    folder, _, said, _ = swept
    engine = open_database(str(folder / "results.db"))
    trained = queries.trainings(engine, "mixed")
    assert len(trained) == 3 and len({row["training_key"] for row in trained}) == 2
    assert {row["status"] for row in trained} == {"finished"}
    assert "training qat_int4-" in said and "update 4 of 4" in said


def test_a_dry_run_counts_the_trainings_that_are_left(world, swept, tmp_path):
    _, _, _, (spec, *places) = swept
    new = quantsweep("sweep", spec, "--db", tmp_path / "new.db", "--dry-run")
    assert "2 trainings of 6 updates in all, if none ends early" in new.out
    assert "trainings" not in quantsweep("sweep", spec, *places, "--dry-run").out


def test_a_dry_run_says_by_which_loss_labels_teach(world, tmp_path):
    def told(weight: str) -> str:
        space = f"\n  - {{scheme: qat_int8, calibration_images: 4, distillation_weight: {weight}}}"
        spec = world.spec("labels", space, training=TRAINING)
        return quantsweep("sweep", spec, "--db", tmp_path / "new.db", "--dry-run").out

    words = "labels teach by focal loss (alpha 0.25, gamma 2); the detector does not say what it was trained with"
    assert words in " ".join(told("[0.5, 1]").split())
    assert "labels teach" not in told("1")


def test_what_is_exported_says_how_it_was_trained(swept, tmp_path):
    _, _, _, (_, *places) = swept
    outcome = quantsweep("export", TRAINED, "--out", tmp_path / "out", *places[:4])
    assert outcome.code == 0, outcome.err
    made = json.loads((tmp_path / "out" / "provenance.json").read_text())["training"]
    assert (made["trainer"], made["recipe.epochs"], made["device"]) == ("torch", 2, "cpu")


def test_a_second_run_trains_nothing(swept):
    _, rows, _, arguments = swept
    again = quantsweep("sweep", *arguments, "--json")
    assert again.code == 0 and "training" not in again.err
    assert {row["variant"]: row["ap"] for row in json.loads(again.out)} == {
        name: row["ap"] for name, row in rows.items()
    }


def test_an_artifact_that_is_gone_is_made_again_without_training(swept, tmp_path):
    folder, rows, _, (spec, *_) = swept
    shutil.copytree(folder, tmp_path / "copy")
    sha256 = rows[TRAINED]["artifact_sha256"]
    (gone,) = (tmp_path / "copy" / "artifacts").rglob(f"{sha256}.tflite")
    gone.unlink()
    places = ("--db", tmp_path / "copy" / "results.db", "--artifacts", tmp_path / "copy" / "artifacts")
    text = spec.read_text().replace("name: mixed", "name: again")
    (spec.parent / "again.yaml").write_text(text)
    again = quantsweep("sweep", spec.parent / "again.yaml", *places, "--address", "in-process", "--json")
    assert again.code == 0 and "update" not in again.err
    assert gone.exists()


@pytest.mark.slow
def test_a_damaged_training_image_costs_its_trainings_alone_until_it_is_repaired(world, tmp_path):
    """No scheme is calibrated: evaluation images and those of calibration are all read before anything begins."""
    shutil.copytree(world.folder / "train", tmp_path / "images")
    damaged = next((tmp_path / "images" / "images").iterdir())
    content = damaged.read_bytes()
    damaged.write_bytes(content[:600])
    space = (
        "[{scheme: float16, toolchain: litert_quantizer}, "
        "{scheme: qat_int8, toolchain: litert_quantizer, trainer: torch, epochs: 1, range_estimator: fixed}]"
    )
    training = f"{{images: {damaged.parent}, batch_size: 4, points: 2}}"
    spec = world.spec("damaged", space, training=training)
    arguments = ("sweep", spec, "--db", tmp_path / "results.db", "--artifacts", tmp_path / "artifacts",
                 "--address", "in-process", "--json")  # fmt: skip

    def swept() -> dict[str, dict]:
        outcome = quantsweep(*arguments)
        assert outcome.code == 0, outcome.err
        return {row["variant"]: row for row in json.loads(outcome.out)}

    for _ in range(2):
        rows = swept()
        (failed,) = (row for row in rows.values() if row["status"] != "done")
        assert len(rows) == 4 and "-torch-ep1" in failed["variant"]
        assert (failed["status"], failed["failure_reason"]) == ("failed", "training_image_unreadable")
        assert (
            "every image must decode whole" in failed["failure_message"] and damaged.name in failed["failure_message"]
        )
    damaged.write_bytes(content)
    assert {row["status"] for row in swept().values()} == {"done"}


@pytest.mark.slow
def test_a_sweep_that_is_interrupted_in_a_training_ends_with_the_same_weights(world, swept, tmp_path):
    space = "[{scheme: qat_int4, calibration_images: 4, trainer: torch, epochs: 2, learning_rate: 3e-4}]"
    spec = world.spec("cut", space, training=TRAINING)
    found = []
    for name, tasks in (("whole", 1000), ("parts", 7)):
        folder, interruptions = tmp_path / name, 0
        folder.mkdir()
        engine = open_database(str(folder / "results.db"))
        while not (
            sweep := Sweep(prepared(load_spec(spec), str(folder / "artifacts")), engine, PlainProgress())
        ).is_finished:
            try:
                sweep.run(Interrupted(tasks + interruptions))
            except KeyboardInterrupt:
                interruptions += 1
        assert (interruptions > 0) == (tasks < 1000)
        rows = {row["variant"]: row["artifact_sha256"] for row in queries.leaderboard(engine, sweep.key)}
        (curve,) = queries.trainings(engine, sweep.key)
        found.append((rows, curve["best_held_out_loss"], curve["status"]))
    assert found[0] == found[1]


def test_a_study_ends_a_training_that_diverges_and_says_why(world, swept, tmp_path):
    shutil.copytree(swept[0], tmp_path / "copy")
    space = "[{scheme: qat_int4, calibration_images: 4, trainer: torch, epochs: 8, learning_rate: 10.0}]"
    training = TRAINING.replace("points: 2", "points: 16, patience: null, largest_gradient: 1e9")
    spec = world.spec(
        "diverging", space, "{max_loss: 0.0}", training=training, study="{objectives: [latency, ap_loss]}"
    )
    told = Told()
    study = open_search("study", spec, tmp_path / "copy", watcher=told)
    study.run(InProcessExecutor())
    row = rows_of(study)[next(name for name in rows_of(study) if "-torch-ep8" in name)]
    assert row["verdict"] in ("unpromising", "unsupported"), row
    assert row["ap"] is None and winner_of(study) != row["variant"]
    (training_row,) = (each for each in queries.trainings(study._engine, study.key) if each["epochs"] == 8)
    assert training_row["status"] == "stopped" or row["verdict"] == "unsupported"
