"""Plans: what is read and checked before anything runs, and which versions keys name."""

import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from orchestrator.plan import Plan, prepare
from orchestrator.spec import load_spec
from tasks.coco.synthetic import write_synthetic
from tasks.errors import DataMistake
from tasks.quantize.schemes import Qat
from tasks.storage import ArtifactStorage
from tests.detectors import tiny_detector

LABELS, TEACHER = "distillation_weight: [1, 0.5]", "distillation_weight: 1"


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("sets")
    write_synthetic(folder / "val", images=3, seed=2)
    write_synthetic(folder / "train", images=4, seed=1, first_id=1001)
    return folder


@pytest.fixture
def place(sets: Path, tmp_path: Path) -> Path:
    """A folder with a detector and images that a test may spoil."""
    folder = tmp_path / "place"
    shutil.copytree(sets, folder)
    (folder / "detector.safetensors").write_bytes(tiny_detector().to_bytes())
    return folder


def planned(place: Path, axes: str, scheme: str = "qat_int8") -> Plan:
    (place / "spec.yaml").write_text(
        "name: plan\ndetector: detector.safetensors\n"
        "evaluation: {images: val/images, annotations: val/annotations.json}\n"
        "calibration: {images: train/images, annotations: train/annotations.json}\n"
        f"space: [{{scheme: {scheme}, calibration_images: 2, {axes}}}]\n"
    )
    return prepare(load_spec(place / "spec.yaml"), ArtifactStorage(str(place / "artifacts")), place / "demo")


def relabel(place: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = place / "train" / "annotations.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def far(document: dict[str, Any]) -> None:
    for category in document["categories"]:
        category["id"] += 500
    for annotation in document["annotations"]:
        annotation["category_id"] += 500


def listed_but_not_drawn(document: dict[str, Any]) -> None:
    """Classes of the detector are listed, and all objects are of another one."""
    document["categories"].append({"id": 777, "name": "unicorn"})
    for annotation in document["annotations"]:
        annotation["category_id"] = 777


def crowds(document: dict[str, Any]) -> None:
    for annotation in document["annotations"]:
        annotation["iscrowd"] = 1


def flat(document: dict[str, Any]) -> None:
    for annotation in document["annotations"]:
        annotation["bbox"][3] = 0


def outside(document: dict[str, Any]) -> None:
    for annotation in document["annotations"]:
        annotation["bbox"][0] = 100_000


def none(document: dict[str, Any]) -> None:
    document["annotations"] = []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (far, r"teach nothing: none of the category ids of their objects \(502, 503, .*\) is a class .* \(1, 2, 3, "),
        (listed_but_not_drawn, r"none of the category ids of their objects \(777\) is a class of the detector"),
        (crowds, "the training set images has no box to learn from"),
        (flat, "the training set images has no box to learn from"),
        (outside, "the training set images has no box to learn from"),
        (none, "the training set images has no box to learn from"),
    ],
)
def test_labels_that_teach_nothing_are_refused_where_somebody_learns_from_them(place, change, words):
    relabel(place, change)
    with pytest.raises(DataMistake, match=words):
        planned(place, LABELS)
    assert planned(place, TEACHER).training is not None
    assert planned(place, "epochs: 0").training is None


def test_labels_of_which_some_are_of_other_classes_teach_the_rest(place):
    def one(document: dict[str, Any]) -> None:
        document["categories"].append({"id": 777, "name": "unicorn"})
        document["annotations"][0]["category_id"] = 777

    whole = planned(place, LABELS).training
    relabel(place, one)
    rest = planned(place, LABELS).training
    assert whole is not None and rest is not None
    assert sum(map(len, rest.boxes)) == sum(map(len, whole.boxes)) - 1


@pytest.mark.parametrize("axes", [LABELS, TEACHER])
def test_a_single_training_image_is_refused(place, axes):
    def single(document: dict[str, Any]) -> None:
        (first, *_) = document["images"]
        document["images"] = [first]
        document["annotations"] = [each for each in document["annotations"] if each["image_id"] == first["id"]]

    relabel(place, single)
    with pytest.raises(
        DataMistake, match=r"at least 2 images, one of which is kept apart; the training set images has 1$"
    ):
        planned(place, f"range_estimator: fixed, {axes}")


OF_BATCHES = {"quantsweep", "numpy", "pillow", "opencv-python-headless"}
OF_STATISTICS = {"ai-edge-litert", "tensorflow", "tf-keras"}


@pytest.mark.parametrize(
    ("axes", "own"),
    [
        ("trainer: torch, toolchain: litert_quantizer", {"torch", "torchao", *OF_STATISTICS}),
        ("trainer: torch, runtime: torch", {"torch", "torchao", *OF_STATISTICS}),
        ("trainer: torch, range_estimator: fixed, toolchain: litert_quantizer", {"torch", "torchao"}),
        ("trainer: keras", {"tensorflow-model-optimization", *OF_STATISTICS}),
    ],
)
def test_a_training_names_what_decodes_augments_and_observes_besides_who_trains(place, axes, own):
    plan = planned(place, axes)
    (scheme,) = {each.scheme for each in plan.spec.space.variants if each.scheme.is_trained}
    assert isinstance(scheme, Qat)
    assert plan.training_versions(scheme) == {name: version(name) for name in sorted(OF_BATCHES | own)}


def test_an_upgrade_of_what_observes_makes_other_trainings_and_artifacts(place, monkeypatch):
    def keys() -> list[str]:
        plan = planned(place, "trainer: torch, runtime: torch")
        (scheme,) = {each.scheme for each in plan.spec.space.variants if each.scheme.is_trained}
        assert isinstance(scheme, Qat)
        return [plan.training_key(scheme), plan.request_key(scheme), plan.request_key(scheme.untrained)]

    before = keys()
    for module in ("tasks.training.checkpoint", "tasks.quantize.artifact"):
        monkeypatch.setattr(f"{module}.version", lambda name: "99" if name == "ai-edge-litert" else version(name))
    assert all(old != new for old, new in zip(before, keys(), strict=True))
