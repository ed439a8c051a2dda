"""`quantsweep export` as a user meets it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from results.connect import open_database
from results.store import Store
from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec
from tasks.storage import ArtifactStorage
from tests.command import Outcome, quantsweep
from tests.results import samples

SPEC = SSDMobileNetV1Spec(depth_multiplier=0.25, class_ids=(0, 1), class_names=("???", "cat"))
MODEL = b"a model"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the sample study, whose artifacts are all one small file."""
    sha256 = ArtifactStorage(str(tmp_path / "artifacts")).put(MODEL, "tflite")
    make = samples.artifact
    monkeypatch.setattr(samples, "artifact", lambda name: _of(make(name), sha256))
    store = Store(open_database(str(tmp_path / "study.db")))
    samples.fill_study(store, artifacts_url=str(tmp_path / "artifacts"))
    store.put_detector(samples.DETECTOR, "sample", SPEC, 1_000, 5_000_000_000)
    return tmp_path


def _of(artifact, sha256: str):
    from dataclasses import replace

    return replace(artifact, sha256=sha256, size_bytes=len(MODEL))


def _export(place: Path, variant: str = samples.DYNAMIC.label, *options: object) -> Outcome:
    return quantsweep("export", variant, "--db", place / "study.db", "--out", place / "out", *options)


def test_the_model_is_the_very_file_that_was_measured(place):
    outcome = _export(place)
    assert outcome.code == 0, outcome.err
    assert (place / "out" / "model.tflite").read_bytes() == MODEL
    assert {path.name for path in (place / "out").iterdir()} == {
        "model.tflite", "provenance.json", "detect.py", "README.md",
    }  # fmt: skip
    assert not list(place.glob(".*.part"))


def test_provenance_says_what_it_was_made_from_and_what_was_measured_where(place):
    _export(place)
    made = json.loads((place / "out" / "provenance.json").read_text())
    assert made["variant"] == samples.DYNAMIC.label
    assert made["model"]["file"] == "model.tflite"
    assert made["detector"]["sha256"] == samples.DETECTOR
    assert made["detector"]["architecture"]["class_ids"] == [0, 1]
    assert made["detector"]["categories"] == {"1": "cat"}
    assert (made["scheme"]["name"], made["scheme"]["toolchain"]) == ("dynamic_int8", "converter")
    assert made["toolchain_versions"] == {"tensorflow": "2.21"}
    assert made["accuracy"]["ap"] == 0.49
    assert made["accuracy"]["ap_loss"] == pytest.approx(0.01)
    assert made["accuracy"]["on_confirmation_images"]["ap_loss"] == pytest.approx(0.02)
    assert made["latency"]["latency_ratio"] == 0.8
    assert made["latency"]["host"] == {"cpu": "one", "cores": 2}
    assert made["budget"] == {
        "metric": "ap", "max_loss": 0.01, "is_relative": False, "loss": pytest.approx(0.01), "feasible": True,
    }  # fmt: skip
    assert made["sweep"]["verdict"] == "feasible"


def test_the_readme_says_what_goes_in_and_what_comes_out(place):
    _export(place)
    text = (place / "out" / "README.md").read_text()
    assert text.startswith(f"# {samples.DYNAMIC.label}\n")
    for said in ("AP 0.4900 on the 80 images", "16.00 ms an image with 1 thread on one, 0.800 of the time", "300 x 300",
                 "scores (1, A, 2)", "python detect.py IMAGE"):  # fmt: skip
        assert said in text
    assert max(map(len, text.splitlines())) <= 120


def test_a_variant_that_was_stopped_is_not_given_a_score(place):
    outcome = _export(place, samples.STATIC.label)
    assert outcome.code == 0, outcome.err
    assert json.loads((place / "out" / "provenance.json").read_text())["accuracy"] is None
    assert (
        "It was not scored on every image: nothing says how well it detects."
        in (place / "out" / "README.md").read_text()
    )


def test_the_example_is_python_and_asks_for_images(place):
    _export(place)
    script = place / "out" / "detect.py"
    ast.parse(script.read_text())
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr == "usage: python detect.py IMAGE [IMAGE ...]\n"


def test_json_names_the_model(place):
    told = json.loads(_export(place, samples.DYNAMIC.label, "--json").out)
    assert told == {
        "variant": samples.DYNAMIC.label,
        "folder": str(place / "out"),
        "model": "model.tflite",
        "sha256": told["sha256"],
    }


def test_a_changed_model_is_not_exported(place):
    (model,) = (place / "artifacts").rglob("*.tflite")
    model.write_bytes(b"something else")
    outcome = _export(place)
    assert outcome.code == 2
    assert "has been changed" in outcome.err
    assert not (place / "out").exists()


def test_another_place_may_hold_the_artifacts(place):
    (place / "artifacts").rename(place / "moved")
    assert "`--artifacts` names another place" in _export(place).err
    assert _export(place, samples.DYNAMIC.label, "--artifacts", place / "moved").code == 0


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda out: (out.mkdir(), (out / "kept").write_text("mine")), "is a folder that holds something"),
        (lambda out: out.write_text("mine"), "is a file; name a folder"),
    ],
)
def test_what_is_there_is_never_overwritten(place, prepare, said):
    prepare(place / "out")
    outcome = _export(place)
    assert outcome.code == 2
    assert said in outcome.err
    assert not (place / "out" / "model.tflite").exists()


def test_an_empty_folder_is_filled(place):
    (place / "out").mkdir()
    assert _export(place).code == 0
    assert (place / "out" / "model.tflite").exists()


def test_a_folder_in_a_missing_folder_is_refused(place):
    outcome = quantsweep("export", samples.DYNAMIC.label, "--db", place / "study.db", "--out", place / "none" / "out")
    assert outcome.code == 2
    assert "does not exist" in outcome.err


def test_a_variant_without_an_artifact_says_why(place):
    outcome = _export(place, samples.PER_TENSOR.label)
    assert outcome.code == 2
    assert "has no artifact: the file is float" in outcome.err
