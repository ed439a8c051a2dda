"""What a user gets wrong: one clear message, exit code 2, no traceback, nothing half-written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.command import quantsweep

HEAD = "name: x\ndetector: detector.safetensors\n"
VAL = "evaluation: {images: val/images, annotations: val/annotations.json}\n"
TRAIN = "calibration: {images: train/images}\n"
SPACE = "space: [{scheme: float16}]\n"
STATIC = "space: [{scheme: static_int8, calibration_images: 4}]\n"
GOOD = HEAD + VAL + TRAIN + STATIC


@pytest.fixture
def place(world, tmp_path) -> Path:
    """A copy of the small world that a test may spoil."""
    return Path(shutil.copytree(world.folder, tmp_path / "place"))


def _sweep(place: Path, text: str, *options: object):
    (place / "spec.yaml").write_text(text)
    where = ("--db", place / "results.db", "--artifacts", place / "artifacts", "--address", "in-process")
    return ("sweep", place / "spec.yaml", *where, *options)


def _truncated_image(place):
    image = next((place / "val" / "images").iterdir())
    image.write_bytes(image.read_bytes()[:600])
    return _sweep(place, GOOD)


def _text_as_image(place):
    next((place / "val" / "images").iterdir()).write_text("not an image")
    return _sweep(place, GOOD)


def _overlap(place):
    image = next((place / "val" / "images").iterdir())
    shutil.copy(image, place / "train" / "images" / "000000009999.jpg")
    return _sweep(place, GOOD)


SPLIT = (
    "evaluation:\n  search: {images: val/images, annotations: val/annotations.json}\n"
    "  confirm: {images: more/images, annotations: more/annotations.json}\n"
)


def _overlap_of_search_and_confirmation(place):
    shutil.copytree(place / "val", place / "more")
    return _sweep(place, HEAD + SPLIT + SPACE)


def _missing_image(place):
    next((place / "val" / "images").iterdir()).unlink()
    return _sweep(place, GOOD)


def _annotations(place, change):
    path = place / "val" / "annotations.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))
    return _sweep(place, GOOD)


def _other_files(content):
    for image in content["images"]:
        image["file_name"] = f"other_{image['file_name']}"


def _other_classes(content):
    ids = {category["id"]: 500 + index for index, category in enumerate(content["categories"])}
    for category in content["categories"]:
        category["id"] = ids[category["id"]]
    for annotation in content["annotations"]:
        annotation["category_id"] = ids[annotation["category_id"]]


def _double_image(content):
    content["images"].append(content["images"][0])


def _qat(place, change, *options):
    """A sweep that trains, after a change of what it trains on."""
    path = place / "train" / "annotations.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    train = "calibration: {images: train/images, annotations: train/annotations.json}\n"
    block = "scheme: qat_int8, calibration_images: 1, epochs: 1, distillation_weight: 0.5"
    return _sweep(place, f"{HEAD}{VAL}{train}space: [{{{block}}}]\n", *options)


def _no_objects(content):
    content["annotations"] = []


def _one_image(content):
    content["images"] = content["images"][:1]
    (kept,) = (image["id"] for image in content["images"])
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] == kept]


def _unknown_category(content):
    content["annotations"][0]["category_id"] = 777


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _import(source: object, place: Path):
    return ("model", "import", source, "--out", place / "imported.safetensors")


def _bad_detector(place, content: bytes):
    _write(place / "detector.safetensors", content)
    return _sweep(place, GOOD)


def _foreign_safetensors(place):
    save_file({"weights": np.zeros(3, np.float32)}, place / "detector.safetensors")
    return _sweep(place, GOOD)


MISTAKES = {
    "a missing spec": (lambda p: ("sweep", p / "none.yaml"), "there is no spec file"),
    "no spec": (lambda p: ("sweep",), "name a spec file"),
    "bad YAML": (lambda p: _sweep(p, "name: ["), "is not YAML"),
    "an unknown key": (lambda p: _sweep(p, GOOD + "colour: red\n"), "unknown key `colour`; choices: name"),
    "an empty list": (lambda p: _sweep(p, HEAD + VAL + "space: [{scheme: []}]"), "`scheme` is an empty list"),
    "an unknown scheme": (lambda p: _sweep(p, HEAD + VAL + "space: [{scheme: int3}]"), "unknown scheme 'int3'"),
    "static without calibration": (lambda p: _sweep(p, HEAD + VAL + STATIC), "static_int8 needs calibration images"),
    "a missing detector": (lambda p: _sweep(p, GOOD.replace("detector.s", "none.s")), "there is no detector file"),
    "a detector that is text": (lambda p: _bad_detector(p, b"hello, world"), "is not a safetensors file"),
    "a truncated detector": (
        lambda p: _bad_detector(p, (p / "detector.safetensors").read_bytes()[:5000]),
        "is not a safetensors file",
    ),
    "a foreign safetensors file": (_foreign_safetensors, "is a safetensors file but not a detector"),
    "a missing image folder": (lambda p: _sweep(p, GOOD.replace("val/images", "nowhere")), "nowhere"),
    "missing annotations": (lambda p: _sweep(p, GOOD.replace("annotations.json", "none.json")), "none.json"),
    "no annotations": (
        lambda p: _sweep(p, HEAD + "evaluation: {images: val/images}\n" + SPACE),
        "have no annotations",
    ),
    "annotations that are not JSON": (
        lambda p: (_write(p / "val" / "annotations.json", b"{"), _sweep(p, GOOD))[1],
        "annotations",
    ),
    "annotations that are not COCO": (lambda p: _annotations(p, lambda content: {"hello": 1}), "'images'"),
    "annotations of another folder": (lambda p: _annotations(p, _other_files), "every listed image must be"),
    "annotations of other classes": (lambda p: _annotations(p, _other_classes), "are of another set"),
    "an image id twice": (lambda p: _annotations(p, _double_image), "image ids must be unique"),
    "an unknown category": (lambda p: _annotations(p, _unknown_category), "annotations must be of listed categories"),
    "a missing image": (_missing_image, "every listed image must be in the images folder"),
    "a truncated image": (_truncated_image, "cannot be decoded: Truncated File Read"),
    "text as an image": (_text_as_image, ".jpg"),
    "calibration images that are evaluated": (_overlap, "9999"),
    "confirmation images that are searched on": (_overlap_of_search_and_confirmation, "more/annotations.json"),
    "a confirmation key misspelt": (
        lambda p: _sweep(p, HEAD + SPLIT.replace("  confirm", "  confirmation") + SPACE),
        "unknown key `evaluation.confirmation`; choices: search, confirm",
    ),
    "a study without a budget": (
        lambda p: ("study", *_sweep(p, HEAD + VAL + SPACE)[1:]),
        "a study needs to know how large a loss may be: give `budget: {max_loss: 0.01}`",
    ),
    "the best of a grid without a budget": (
        lambda p: _sweep(p, HEAD + VAL + SPACE, "--find-best"),
        "--find-best needs to know how large a loss may be",
    ),
    "a study with an unknown sampler": (
        lambda p: ("study", *_sweep(p, GOOD)[1:], "--sampler", "best"),
        "--sampler is 'best': Input should be 'tpe', 'gp', 'nsga2', 'random', 'qmc' or 'brute_force'",
    ),
    "exporting from a missing database": (
        lambda p: ("export", "float16", "--out", p / "exported", "--db", p / "results.db"),
        "results.db",
    ),
    "exporting into a folder in use": (
        lambda p: ("export", "float16", "--out", p / "val", "--db", p / "results.db"),
        "is a folder that holds something; name another one",
    ),
    "too few calibration images": (
        lambda p: _sweep(p, GOOD.replace("calibration_images: 4", "calibration_images: 99")),
        "calibration_images is 99, but the calibration set",
    ),
    "labels of other classes to train on": (lambda p: _qat(p, _other_classes), "is a class of the detector"),
    "labels of other classes in a dry run": (lambda p: _qat(p, _other_classes, "--dry-run"), "teach nothing: none of"),
    "labels without an object": (lambda p: _qat(p, _no_objects, "--dry-run"), "images has no box to learn from"),
    "one training image": (lambda p: _qat(p, _one_image, "--dry-run"), "training needs at least 2 images"),
    "an infinite rate": (
        lambda p: _sweep(p, GOOD + "training: {largest_gradient: .inf}\n"),
        "`training.largest_gradient` is inf: Input should be a finite number",
    ),
    "a database in a missing folder": (
        lambda p: ("sweep", _sweep(p, GOOD)[1], "--db", p / "none" / "results.db", "--artifacts", p / "artifacts"),
        "none",
    ),
    "a database that is text": (
        lambda p: (_write(p / "results.db", b"some text, long enough to be no header"), _sweep(p, GOOD))[1],
        "results.db",
    ),
    "a database that is a folder": (lambda p: ("sweep", _sweep(p, GOOD)[1], "--db", p / "val"), "val"),
    "reading a missing database": (lambda p: ("results", "leaderboard", "--db", p / "results.db"), "results.db"),
    "a cluster that does not answer": (
        lambda p: (*_sweep(p, GOOD)[:-1], "127.0.0.1:1"),
        "no Ray cluster answers at '127.0.0.1:1'",
    ),
    "importing nothing": (lambda p: _import(p / "none.tflite", p), "none.tflite"),
    "importing text": (lambda p: _import(_write(p / "a.tflite", b"no model at all, just text"), p), "a.tflite"),
    "importing an image folder": (lambda p: _import(p / "val" / "images", p), "images"),
    "showing what is not a detector": (lambda p: ("model", "show", p / "spec.yaml"), "spec.yaml"),
    "checking a missing set": (lambda p: ("data", "check", p / "nowhere"), "nowhere"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_clear_message_and_leaves_nothing_behind(name, place):
    make, message = MISTAKES[name]
    command = make(place)
    before = {path for path in place.rglob("*") if path.is_file()}
    outcome = quantsweep(*command)
    assert outcome.code == 2, outcome
    assert message in outcome.err + outcome.out
    assert "Traceback" not in outcome.err + outcome.out
    left = {path.relative_to(place) for path in place.rglob("*") if path.is_file()} - {
        p.relative_to(place) for p in before
    }
    kept = {path for path in left if path.parts[:2] != ("artifacts", "images")}
    assert kept == set()


def test_the_reference_tflite_cut_short_is_refused(reference_data, tmp_path):
    whole = (reference_data / "models" / "coco_ssd_mobilenet_v1_0.75_quant_2018_06_29.tflite").read_bytes()
    for size in (10, 1000, len(whole) // 2, len(whole) - 100_000):
        cut = _write(tmp_path / "cut.tflite", whole[:size])
        outcome = quantsweep("model", "import", cut, "--out", tmp_path / "out.safetensors")
        assert (outcome.code, (tmp_path / "out.safetensors").exists()) == (2, False)
        assert "cut.tflite" in outcome.err
        assert "Traceback" not in outcome.err


def test_help_answers_without_loading_a_framework():
    import subprocess
    import sys

    script = (
        "import sys, orchestrator.cli.main as main\n"
        "heavy = {'tensorflow', 'torch', 'ray', 'optuna', 'plotly', 'numpy', 'sqlalchemy', 'pydantic', 'PIL'}\n"
        "print(', '.join(heavy & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout == b"\n"
