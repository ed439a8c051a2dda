"""Training sets of COCO-format data, and batches that depend on recipe and step alone."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.coco.dataset import Dataset, load_dataset
from tasks.coco.preprocess import preprocess_shard
from tasks.detector.anchors import anchors
from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec
from tasks.errors import DataMistake
from tasks.training import samples
from tasks.training.learner import Batch
from tasks.training.recipe import NO_AUGMENTATION, Augmentation, Recipe
from tasks.training.samples import Batches, TrainingSet, taught_categories, training_set
from tasks.training.targets import BACKGROUND, IGNORED, assign

SPEC = SSDMobileNetV1Spec(image_size=48, class_ids=(0, 7, 3))
IMAGES = 11
RECIPE = Recipe(epochs=3, learning_rate=1e-3, batch_size=4, held_out=0.25)
PLAIN = replace(RECIPE, augmentation=NO_AUGMENTATION)
EXIF_ORIENTATION = 0x0112


def annotation(image_id: int, box: list[float], category: int = 7, **others: Any) -> dict[str, Any]:
    return {"image_id": image_id, "bbox": box, "category_id": category, **others}


def loaded(folder: Path, sizes: dict[int, tuple[int, int]], annotations: list[dict[str, Any]]) -> Dataset:
    """Loads the images of a folder, whose names are their ids; a size of (0, 0) is not told."""
    images = [
        {"id": image_id, "file_name": f"{image_id}.png", **({"width": size[0], "height": size[1]} if any(size) else {})}
        for image_id, size in sizes.items()
    ]
    numbered = [{"id": number + 1, **entry} for number, entry in enumerate(annotations)]
    categories = [{"id": category, "name": f"thing {category}"} for category in (0, 3, 7, 8)]
    document = folder.parent / "instances.json"
    document.write_text(json.dumps({"images": images, "annotations": numbered, "categories": categories}))
    return load_dataset(folder, document)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Images of 60 x 50 pixels and one grey each, by which a batch's images are told apart; each with an object."""
    folder = tmp_path_factory.mktemp("grey") / "images"
    folder.mkdir()
    for image_id in range(1, IMAGES + 1):
        Image.new("RGB", (60, 50), (image_id * 10,) * 3).save(folder / f"{image_id}.png")
    objects = [annotation(image_id, [6, 5, 30 + image_id, 25]) for image_id in range(1, IMAGES + 1)]
    return loaded(folder, dict.fromkeys(range(1, IMAGES + 1), (60, 50)), objects)


@pytest.fixture(scope="module")
def images(dataset: Dataset) -> TrainingSet:
    return training_set(dataset, SPEC)


def ids(batch: Batch) -> list[int]:
    return [round(float(pixels.mean()) / 10) for pixels in batch.pixels]


def held_out_ids(batches: Batches) -> list[int]:
    return [image_id for batch in batches.held_out() for image_id in ids(batch)]


def assert_equal(one: Batch, other: Batch) -> None:
    assert one.pixels.tobytes() == other.pixels.tobytes()
    assert one.codes.tobytes() == other.codes.tobytes()
    assert one.columns.tobytes() == other.columns.tobytes()


def three_images(tmp_path: Path, annotations: list[dict[str, Any]], size: tuple[int, int] = (40, 20)) -> TrainingSet:
    folder = tmp_path / "images"
    folder.mkdir()
    for image_id in (1, 2, 3):
        Image.new("RGB", (40, 20)).save(folder / f"{image_id}.png")
    return training_set(loaded(folder, dict.fromkeys((1, 2, 3), size), annotations), SPEC)


def test_boxes_become_shares_of_the_image_and_categories_columns(tmp_path: Path) -> None:
    made = three_images(
        tmp_path,
        [annotation(3, [10, 5, 20, 10]), annotation(1, [0, 0, 40, 20], 3, iscrowd=1), annotation(3, [0, 0, 4, 20], 3)],
    )
    assert [file.image_id for file in made.files] == [1, 2, 3]
    assert made.boxes[2].tolist() == [[0.25, 0.25, 0.75, 0.75], [0, 0, 1, np.float32(0.1)]]
    assert [columns.tolist() for columns in made.columns] == [[2], [], [1, 2]]
    assert [crowds.tolist() for crowds in made.crowds] == [[True], [], [False, False]]
    assert made.is_annotated and len(made) == 3
    assert {boxes.shape[1:] for boxes in made.boxes} == {(4,)}
    assert {array.dtype for array in (*made.boxes, *made.columns, *made.crowds)} == {
        np.dtype("float32"), np.dtype("int32"), np.dtype("bool"),
    }  # fmt: skip


def test_unknown_categories_background_and_empty_boxes_are_left_out_and_boxes_clipped(tmp_path: Path) -> None:
    made = three_images(
        tmp_path,
        [
            annotation(2, [10, 5, 20, 10], 8),
            annotation(2, [10, 5, 20, 10], 0),
            annotation(2, [10, 5, 0, 10]),
            annotation(2, [10, 5, 20, 0]),
            annotation(2, [40, 5, 20, 10]),
            annotation(2, [30, 5, 20, 10]),
        ],
    )
    assert made.boxes[1].tolist() == [[0.25, 0.75, 0.75, 1.0]]
    assert made.columns[1].tolist() == [1]


def test_where_no_annotation_says_the_size_is_that_of_the_image(tmp_path: Path) -> None:
    made = three_images(tmp_path, [annotation(1, [10, 5, 20, 10])], size=(0, 0))
    assert made.boxes[0].tolist() == [[0.25, 0.25, 0.75, 0.75]]


@pytest.mark.parametrize("size", [(20, 40), (0, 0)])
def test_boxes_of_a_turned_image_are_shares_of_it_as_the_evaluation_sees_it(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    stored = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8))
    for image_id in (1, 2):
        stored.save(folder / f"{image_id}.png", exif=exif)
    made = training_set(loaded(folder, {1: size, 2: size}, [annotation(1, [5, 10, 10, 20])]), SPEC)
    assert made.boxes[0].tolist() == [[0.25, 0.25, 0.75, 0.75]]
    # Orientation 6: the stored image is to be turned by 90 degrees clockwise.
    upright = stored.transpose(Image.Transpose.ROTATE_270).resize((48, 48), Image.Resampling.BILINEAR)
    recipe = replace(PLAIN, held_out=0.5)
    assert Batches(made, SPEC, recipe).at(0).pixels[0].tobytes() == upright.tobytes()


def test_a_set_without_annotations_has_no_objects(dataset: Dataset) -> None:
    made = training_set(load_dataset(Path(dataset.images[0].path).parent, None), SPEC)
    assert not made.is_annotated
    assert len(made) == IMAGES and not any(map(len, made.boxes))
    assert (Batches(made, SPEC, RECIPE).at(0).columns == BACKGROUND).all()


def taught(tmp_path: Path, annotations: list[dict[str, Any]]) -> dict[int, str]:
    folder = tmp_path / "images"
    folder.mkdir()
    for image_id in (1, 2):
        Image.new("RGB", (40, 20)).save(folder / f"{image_id}.png")
    return taught_categories(loaded(folder, dict.fromkeys((1, 2), (40, 20)), annotations))


def test_labels_teach_the_categories_of_their_objects(tmp_path: Path) -> None:
    box = [10, 5, 20, 10]
    assert taught(tmp_path, [annotation(2, box, 7), annotation(1, box, 3), annotation(2, box, 7)]) == {
        3: "thing 3", 7: "thing 7",
    }  # fmt: skip


@pytest.mark.parametrize("useless", [{"iscrowd": 1}, {"bbox": [10, 5, 0, 10]}, {"bbox": [40, 5, 20, 10]}])
def test_crowds_and_boxes_without_an_area_in_their_image_teach_nothing(tmp_path: Path, useless: dict[str, Any]) -> None:
    nothing = annotation(1, [10, 5, 20, 10], 3) | useless
    assert taught(tmp_path, [nothing, annotation(2, [10, 5, 20, 10])]).keys() == {7}
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(DataMistake, match="the training set images has no box to learn from"):
        taught(tmp_path, [nothing])


def test_images_without_annotations_teach_no_category(dataset: Dataset) -> None:
    with pytest.raises(DataMistake, match="has no box to learn from"):
        taught_categories(load_dataset(Path(dataset.images[0].path).parent, None))


def test_the_fingerprint_is_that_of_the_dataset(dataset: Dataset, images: TrainingSet) -> None:
    assert images.fingerprint == dataset.fingerprint


def test_one_image_is_too_few(dataset: Dataset) -> None:
    with pytest.raises(DataMistake, match=r"at least 2 images.*has 1"):
        training_set(dataset.subset([3]), SPEC)


def test_two_images_are_one_to_learn_and_one_to_keep_apart(dataset: Dataset) -> None:
    batches = Batches(training_set(dataset.subset([3, 5]), SPEC), SPEC, replace(PLAIN, held_out=0.5))
    assert sorted(ids(batches.at(0)) + held_out_ids(batches)) == [3, 5]


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    made = three_images(tmp_path, [])
    for file in made.files:
        Path(file.path).write_bytes(Path(file.path).read_bytes()[:50])
    batches = Batches(made, SPEC, RECIPE)
    with pytest.raises(DataMistake, match=r"every image must decode whole.*\.png"):
        batches.at(0)
    with pytest.raises(DataMistake, match=r"every image must decode whole.*\.png"):
        batches.held_out()


def test_each_epoch_has_each_image_once_but_those_held_out(images: TrainingSet) -> None:
    batches = Batches(images, SPEC, PLAIN)
    apart = held_out_ids(batches)
    assert len(apart) == PLAIN.held_out_images(IMAGES) == 3
    learned = sorted(set(range(1, IMAGES + 1)) - set(apart))
    steps = PLAIN.steps(IMAGES) // PLAIN.epochs
    epochs = [[ids(batches.at(epoch * steps + step)) for step in range(steps)] for epoch in range(3)]
    orders = [[image_id for batch in epoch for image_id in batch] for epoch in epochs]
    assert [sorted(order) for order in orders] == [learned] * 3
    assert len({tuple(order) for order in orders}) == 3
    assert [len(batch) for batch in epochs[0]] == [4, 4]


def test_the_last_batch_of_an_epoch_holds_what_is_left(images: TrainingSet) -> None:
    batches = Batches(images, SPEC, replace(PLAIN, batch_size=3))
    assert [len(batches.at(step).pixels) for step in range(6)] == [3, 3, 2, 3, 3, 2]


def test_a_batch_depends_on_the_step_alone(images: TrainingSet) -> None:
    batches = Batches(images, SPEC, RECIPE)
    forward = [batches.at(step) for step in range(6)]
    other = Batches(images, SPEC, RECIPE)
    backward = [other.at(step) for step in reversed(range(6))][::-1]
    for one, two in zip(forward, backward, strict=True):
        assert_equal(one, two)
    assert_equal(batches.at(2), forward[2])


def test_the_seed_changes_order_and_augmentation_and_not_what_trainings_are_compared_on(images: TrainingSet) -> None:
    made = [Batches(images, SPEC, replace(PLAIN, seed=seed)) for seed in range(8)]
    assert len({tuple(ids(batches.at(0))) for batches in made}) > 4
    assert {tuple(held_out_ids(batches)) for batches in made} == {(3, 8, 9)}
    one, other = (Batches(images, SPEC, replace(RECIPE, seed=seed)) for seed in (0, 1))
    assert (one.at(0).pixels != other.at(0).pixels).any()


def test_the_same_image_at_the_same_place_is_augmented_otherwise_in_another_epoch(images: TrainingSet) -> None:
    recipe = replace(PLAIN, batch_size=8)
    first = [ids(Batches(images, SPEC, recipe).at(epoch))[0] for epoch in range(12)]
    # Two epochs that begin with the same image.
    one, other = next((one, other) for other in range(12) for one in range(other) if first[one] == first[other])
    batches = Batches(images, SPEC, replace(recipe, augmentation=Augmentation(mirror=0, crop=1)))
    assert (batches.at(one).codes[0] != batches.at(other).codes[0]).any()


def test_held_out_images_are_as_the_evaluation_sees_them_whatever_the_augmentation(images: TrainingSet) -> None:
    batches = Batches(images, SPEC, replace(RECIPE, batch_size=2))
    made = batches.held_out()
    assert [len(batch.pixels) for batch in made] == [2, 1]
    found = np.concatenate([batch.pixels for batch in made])
    files = tuple(images.files[image_id - 1] for image_id in held_out_ids(batches))
    assert found.tobytes() == preprocess_shard(files, 48, None).pixels.tobytes()
    assert batches.held_out() is made


def test_targets_are_those_of_the_objects_in_the_batch(images: TrainingSet) -> None:
    batch = Batches(images, SPEC, PLAIN).at(0)
    for row, image_id in enumerate(ids(batch)):
        expected = assign(images.boxes[image_id - 1], images.columns[image_id - 1], anchors(SPEC))
        np.testing.assert_array_equal(batch.columns[row], expected.columns)
        np.testing.assert_array_equal(batch.codes[row], expected.codes)
        assert (batch.columns[row] == 1).any()


def test_anchors_in_a_crowd_are_ignored(tmp_path: Path) -> None:
    made = three_images(tmp_path, [annotation(image_id, [0, 0, 40, 20], iscrowd=1) for image_id in (1, 2, 3)])
    assert (Batches(made, SPEC, PLAIN).at(0).columns == IGNORED).any()


def test_decoded_images_are_kept_as_far_as_memory_allows(images: TrainingSet, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    really_decoded = samples._decoded

    def counted(file: Any) -> np.ndarray:
        decoded.append(file.image_id)
        return really_decoded(file)

    monkeypatch.setattr(samples, "_decoded", counted)
    roomy = Batches(images, SPEC, RECIPE)
    expected = [roomy.at(step) for step in range(6)]
    assert len(decoded) == 8
    decoded.clear()
    monkeypatch.setattr(samples, "DECODED_BYTES", 3 * 60 * 50 * 3)
    tight = Batches(images, SPEC, RECIPE)
    for step, batch in enumerate(expected):
        assert_equal(tight.at(step), batch)
    assert 8 < len(decoded) <= 24


@pytest.mark.reference_data
def test_real_images_without_augmentation_are_those_of_the_evaluation(reference_data: Path) -> None:
    folder = reference_data / "coco-mini"
    found = load_dataset(folder / "train2017", folder / "annotations" / "instances_train2017.json")
    some = found.subset(found.ids[:12])
    spec = SSDMobileNetV1Spec()
    made = training_set(some, spec)
    assert sum(map(len, made.boxes)) > 30
    batches = Batches(made, spec, replace(PLAIN, batch_size=32))
    learned, apart = batches.at(0), batches.held_out()[0]
    expected = preprocess_shard(some.images, 300, None).pixels
    assert {pixels.tobytes() for pixels in np.concatenate([learned.pixels, apart.pixels])} == {
        pixels.tobytes() for pixels in expected
    }
    assert (learned.columns >= 0).sum(axis=1).all()
