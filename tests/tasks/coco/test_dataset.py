"""What counts as a COCO-format set, and what is said about sets that are not."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.coco.dataset import Dataset, calibration_order, load_dataset, refuse_overlap
from tasks.errors import DataMistake

Document = dict[str, list[dict[str, Any]]]


def write_images(folder: Path, names: list[str], first_colour: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for position, name in enumerate(names):
        Image.new("RGB", (40, 30), (first_colour + position, 50, 100)).save(folder / name)
    return folder


def document_of(names: list[str]) -> Document:
    images = [{"id": id_, "file_name": name, "width": 40, "height": 30} for id_, name in enumerate(names, start=1)]
    boxes = [
        {"id": 10 * id_, "image_id": id_, "category_id": 7, "bbox": [1, 2.5, 10, 20], "area": 150.5, "iscrowd": 0}
        for id_ in range(1, len(names) + 1)
    ]
    return {"images": images, "annotations": boxes, "categories": [{"id": 7, "name": "cup"}, {"id": 3, "name": "dog"}]}


def write_document(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", ["a.png", "b.png", "c.png"])


@pytest.fixture
def document() -> Document:
    return document_of(["a.png", "b.png", "c.png"])


def test_a_set_is_what_its_annotations_list(tmp_path: Path, folder: Path, document: Document) -> None:
    write_images(folder, ["not_listed.png"], first_colour=90)
    document["images"].reverse()
    dataset = load_dataset(folder, write_document(tmp_path / "set.json", document))
    assert dataset.name == "images"
    assert dataset.ids == (1, 2, 3)
    assert [Path(image.path).name for image in dataset.images] == ["a.png", "b.png", "c.png"]
    assert all(Path(image.path).is_absolute() for image in dataset.images)
    assert [(image.width, image.height) for image in dataset.images] == [(40, 30)] * 3
    assert list(dataset.categories.items()) == [(3, "dog"), (7, "cup")]
    truth = dataset.ground_truth()
    assert truth["annotations"] == document["annotations"]
    assert truth["categories"] == [{"id": 3, "name": "dog"}, {"id": 7, "name": "cup"}]
    assert [image["id"] for image in truth["images"]] == [1, 2, 3]


@pytest.mark.parametrize("listed", ["val/a.png", "/data/coco/a.png", "C:\\coco\\a.png", "./a.png"])
def test_images_are_found_by_the_last_part_of_their_name(tmp_path: Path, folder: Path, listed: str) -> None:
    document = document_of([listed])
    dataset = load_dataset(folder, write_document(tmp_path / "set.json", document))
    assert Path(dataset.images[0].path).resolve() == (folder / "a.png").resolve()


def test_images_are_found_in_subfolders_that_their_names_give(tmp_path: Path) -> None:
    write_images(tmp_path / "images" / "day", ["a.png"])
    write_images(tmp_path / "images" / "night", ["a.png"], first_colour=9)
    document = document_of(["day/a.png", "night/a.png"])
    dataset = load_dataset(tmp_path / "images", write_document(tmp_path / "set.json", document))
    assert [Path(image.path).parent.name for image in dataset.images] == ["day", "night"]


def test_some_images_can_be_used_and_only_they_need_to_be_there(
    tmp_path: Path, folder: Path, document: Document
) -> None:
    (folder / "b.png").unlink()
    path = write_document(tmp_path / "set.json", document)
    dataset = load_dataset(folder, path, ids=[3, 1])
    assert dataset.ids == (1, 3)
    assert [row["image_id"] for row in dataset.ground_truth()["annotations"]] == [1, 3]
    with pytest.raises(DataMistake, match=r"image 9 is not there"):
        load_dataset(folder, path, ids=[1, 9])
    with pytest.raises(DataMistake, match="at least one image"):
        load_dataset(folder, path, ids=[])


def test_a_subset_keeps_its_own_boxes_and_has_its_own_fingerprint(
    tmp_path: Path, folder: Path, document: Document
) -> None:
    path = write_document(tmp_path / "set.json", document)
    whole = load_dataset(folder, path)
    part = whole.subset([3, 1])
    assert part.ids == (1, 3)
    assert part.ground_truth() == load_dataset(folder, path, ids=[1, 3]).ground_truth()
    assert part.fingerprint == load_dataset(folder, path, ids=[1, 3]).fingerprint != whole.fingerprint
    with pytest.raises(DataMistake, match="image 8 is not there"):
        whole.subset([1, 8])


def test_missing_fields_are_filled_as_scorers_need_them(tmp_path: Path, folder: Path) -> None:
    document = document_of(["a.png", "b.png", "c.png"])
    document["annotations"] = [
        {"image_id": 1, "category_id": 7, "bbox": [0, 0, 4, 5]},
        {"id": 8, "image_id": 1, "category_id": 7, "bbox": [0, 0, 2, 2], "area": 3, "iscrowd": 1},
        {"id": 0, "image_id": 2, "category_id": 3, "bbox": [0, 0, 3, 3], "area": None},
    ]
    rows = load_dataset(folder, write_document(tmp_path / "set.json", document)).ground_truth()["annotations"]
    # pycocotools takes a match with annotation 0 for no match, so that id is replaced as well.
    assert [(row["id"], row["area"], row["iscrowd"]) for row in rows] == [(9, 20.0, 0), (8, 3.0, 1), (10, 9.0, 0)]


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["000000000010.jpg", "000000000009.jpg"], {9: "000000000009.jpg", 10: "000000000010.jpg"}),
        (["dog.jpg", "000000000010.jpg"], {1: "000000000010.jpg", 2: "dog.jpg"}),
        (["1.jpg", "01.jpg", "2.PNG"], {1: "01.jpg", 2: "1.jpg", 3: "2.PNG"}),
    ],
)
def test_without_annotations_every_image_file_of_the_folder_counts(
    tmp_path: Path, names: list[str], ids: dict[int, str]
) -> None:
    folder = write_images(tmp_path / "images", names)
    (folder / "notes.txt").write_text("not an image")
    (folder / "._hidden.jpg").write_bytes(b"left by a Mac")
    dataset = load_dataset(folder, None)
    assert {image.image_id: Path(image.path).name for image in dataset.images} == ids
    assert dataset.annotations_path is None
    with pytest.raises(DataMistake, match="without annotations"):
        dataset.ground_truth()


def change(**changes: Any) -> Callable[[Document], None]:
    """Changes one entry: change(images={"id": 2}) sets the id of the second image."""

    def apply(document: Document) -> None:
        for key, fields in changes.items():
            document[key][1 if len(document[key]) > 1 else 0].update(fields)

    return apply


def drop(key: str, name: str) -> Callable[[Document], None]:
    return lambda document: document[key][1].pop(name)


WRONG_DOCUMENTS: dict[str, tuple[Callable[[Document], Any], str]] = {
    "missing image": (change(images={"file_name": "gone.png"}), r"image 2: no gone\.png in "),
    "duplicate image id": (change(images={"id": 1}), r"image ids must be unique: image id 1 names a\.png and b\.png"),
    "image id is text": (change(images={"id": "2"}), r"whole-number id and a file_name: entry 1 is \{'id': '2'"),
    "image without file_name": (drop("images", "file_name"), "entry 1 is "),
    "image width is text": (change(images={"width": "40"}), "image 2: width '40'"),
    "no images": (lambda document: document.update(images=[], annotations=[]), "at least one image"),
    "duplicate annotation id": (change(annotations={"id": 10}), "annotation 10 of image 2 has the id of an earlier"),
    "annotation of no image": (change(annotations={"image_id": 77}), "annotation 20 of image 77 belongs to no listed"),
    "unknown category": (change(annotations={"category_id": 5}), "annotation 20 of image 2 has category 5"),
    "annotation without bbox": (drop("annotations", "bbox"), "annotation 20 of image 2 has bbox None"),
    "annotation without image": (drop("annotations", "image_id"), "entry 1 is "),
    "annotation id is text": (change(annotations={"id": "x"}), "an id that is not a whole number"),
    "box of three": (change(annotations={"bbox": [1, 2, 3]}), r"has bbox \[1, 2, 3\]"),
    "box of text": (change(annotations={"bbox": [1, 2, 3, "4"]}), "has bbox"),
    "negative width": (change(annotations={"bbox": [1, 2, -3, 4]}), r"has bbox \[1, 2, -3, 4\]"),
    "box not finite": (change(annotations={"bbox": [1, float("nan"), 3, 4]}), r"has bbox \[1, nan, 3, 4\]"),
    "box too large for a float": (change(annotations={"bbox": [1, 2, 3, 10**400]}), "has bbox"),
    "negative area": (change(annotations={"area": -1}), "has area -1"),
    "iscrowd of 2": (change(annotations={"iscrowd": 2}), "has iscrowd 2"),
    "annotation is a number": (lambda document: document["annotations"].append(5), "entry 3 is 5"),  # type: ignore[arg-type]
    "duplicate category id": (change(categories={"id": 7}), "category id 7 names 'cup' and 'dog'"),
    "category without name": (drop("categories", "name"), "entry 1 is {'id': 3}"),
    "category beyond float32": (change(categories={"id": 2**24}), "whole-number id below 16777216"),
}


@pytest.mark.parametrize("case", WRONG_DOCUMENTS)
def test_wrong_annotations_are_refused_by_name(tmp_path: Path, folder: Path, document: Document, case: str) -> None:
    spoil, message = WRONG_DOCUMENTS[case]
    spoil(document)
    with pytest.raises(DataMistake, match=message):
        load_dataset(folder, write_document(tmp_path / "set.json", document))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"\xff\xd8\xff\xe0 a jpeg", "is not JSON"),
        (b'{"images": [', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "holds a list, not an object .a file of detections is a list"),
        (b'{"images": [], "info": {}}', "lacks 'annotations', 'categories'; it has 'images', 'info'"),
        (b'{"images": [], "annotations": {}, "categories": []}', "has 'annotations', but not as a list"),
    ],
)
def test_files_that_are_not_coco_annotations_are_refused(
    tmp_path: Path, folder: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "set.json"
    path.write_bytes(content)
    with pytest.raises(DataMistake, match=message):
        load_dataset(folder, path)


def test_missing_places_are_all_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataMistake, match=r"(?s)no_images: No such file.*no\.json cannot be read: No such file"):
        load_dataset(tmp_path / "no_images", tmp_path / "no.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataMistake, match="at least one image"):
        load_dataset(tmp_path / "empty", None)


def test_annotations_of_another_set_are_recognized(tmp_path: Path, folder: Path) -> None:
    names = [f"{number}.png" for number in range(9)]
    path = write_document(tmp_path / "set.json", document_of(names))
    with pytest.raises(DataMistake, match=r"\(9 broken\).*not one of the 9 .*belong to another set.*and 6 more"):
        load_dataset(folder, path)


def test_all_kinds_of_mistakes_come_in_one_message(tmp_path: Path, folder: Path, document: Document) -> None:
    change(images={"file_name": "gone.png"}, annotations={"category_id": 5}, categories={"id": 7})(document)
    with pytest.raises(DataMistake) as caught:
        load_dataset(folder, write_document(tmp_path / "set.json", document))
    assert len(str(caught.value).splitlines()) == 4
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def fingerprint(folder: Path, document: Document, path: Path) -> str:
    return load_dataset(folder, write_document(path, document)).fingerprint


def test_the_fingerprint_follows_what_a_score_depends_on(tmp_path: Path, folder: Path, document: Document) -> None:
    path = tmp_path / "set.json"
    first = fingerprint(folder, document, path)
    spoiled = [
        change(annotations={"bbox": [1, 2, 3, 4]}),
        change(annotations={"category_id": 3}),
        change(annotations={"iscrowd": 1}),
        change(annotations={"area": 1}),
        change(categories={"id": 4}),
        change(images={"width": 41}),
        lambda document: document["annotations"].reverse(),
    ]
    others = []
    for spoil in spoiled:
        other = json.loads(json.dumps(document))
        spoil(other)
        others.append(fingerprint(folder, other, path))
    Image.new("RGB", (40, 30), "white").save(folder / "b.png")
    others.append(fingerprint(folder, document, path))
    assert len({first, *others}) == len(others) + 1


def test_the_fingerprint_survives_a_move_and_what_no_score_depends_on(
    tmp_path: Path, folder: Path, document: Document
) -> None:
    first = fingerprint(folder, document, tmp_path / "set.json")
    moved = shutil.move(folder, tmp_path / "elsewhere")
    document["images"].reverse()
    document["info"] = [{"version": 2}]
    change(images={"license": 4}, annotations={"segmentation": [[1, 2, 3]]}, categories={"name": "wolf"})(document)
    assert fingerprint(Path(moved), document, tmp_path / "other.json") == first


def test_a_dataset_travels_between_processes(tmp_path: Path, folder: Path, document: Document) -> None:
    dataset = load_dataset(folder, write_document(tmp_path / "set.json", document))
    there: Dataset = pickle.loads(pickle.dumps(dataset))
    assert there == dataset
    assert there.ground_truth() == dataset.ground_truth()
    assert there.fingerprint == dataset.fingerprint


ids_strategy = st.sets(st.integers(0, 2**40), min_size=1, max_size=200)


@settings(deadline=None)
@given(ids=ids_strategy, seed=st.integers(0, 2**32), data=st.data())
def test_calibration_samples_are_nested_shuffles_of_the_set(ids: set[int], seed: int, data: st.DataObject) -> None:
    order = calibration_order(ids, seed)
    assert sorted(order) == sorted(ids)
    assert calibration_order(data.draw(st.permutations(sorted(ids))), seed) == order
    small, large = sorted(data.draw(st.tuples(st.integers(0, len(ids)), st.integers(0, len(ids)))))
    assert set(order[:small]) <= set(order[:large])
    assert set(order[:small]).isdisjoint(order[small:])


def test_the_calibration_order_never_changes() -> None:
    # Stored results are keyed by these samples: another order needs another name.
    assert calibration_order(range(10), 0) == (3, 2, 1, 8, 6, 0, 7, 4, 5, 9)
    assert len({calibration_order(range(10), seed) for seed in range(20)}) == 20


def test_overlap_is_found_under_another_name_and_id(tmp_path: Path) -> None:
    evaluation = write_images(tmp_path / "val", ["1.png", "2.png", "3.png"])
    calibration = write_images(tmp_path / "train", ["1.png", "2.png", "3.png"], first_colour=60)
    refuse_overlap(load_dataset(calibration, None), load_dataset(evaluation, None))
    shutil.copy(evaluation / "2.png", calibration / "77.png")
    with pytest.raises(DataMistake, match=r"1 of 4 are: calibration image 77 \(77\.png\) is evaluation image 2 "):
        refuse_overlap(load_dataset(calibration, None), load_dataset(evaluation, None))


def test_overlap_of_a_set_with_itself_names_a_few_and_counts_all(tmp_path: Path) -> None:
    dataset = load_dataset(write_images(tmp_path / "val", [f"{number}.png" for number in range(1, 10)]), None)
    with pytest.raises(DataMistake, match=r"9 of 9 are: calibration image 1 .* and 6 more"):
        refuse_overlap(dataset, dataset)


@pytest.mark.reference_data
def test_real_coco_loads_clean_and_its_parts_do_not_overlap(reference_data: Path) -> None:
    mini = reference_data / "coco-mini"
    val = load_dataset(mini / "val2017", mini / "annotations" / "instances_val2017.json")
    train = load_dataset(mini / "train2017", mini / "annotations" / "instances_train2017.json")
    assert (len(val), len(val.ground_truth()["annotations"]), len(val.categories)) == (80, 815, 80)
    calibration = load_dataset(reference_data / "coco-calib128" / "train2017", None)
    assert (len(calibration), calibration.ids[0]) == (128, 9)
    refuse_overlap(calibration, val)
    refuse_overlap(train, val)


@pytest.mark.reference_data
def test_ground_truth_scores_as_the_official_file_does(reference_data: Path) -> None:
    import numpy as np
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    path = reference_data / "coco-mini" / "annotations" / "instances_val2017.json"
    official, ours = COCO(str(path)), COCO()
    ours.dataset = load_dataset(reference_data / "coco-mini" / "val2017", path).ground_truth()
    ours.createIndex()
    random = np.random.default_rng(0)
    detections = [
        [row["image_id"], *(np.array(row["bbox"]) * random.uniform(0.8, 1.2, 4)), random.random(), row["category_id"]]
        for row in official.dataset["annotations"]
    ]
    statistics = []
    for truth in (official, ours):
        evaluation = COCOeval(truth, truth.loadRes(np.array(detections)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        statistics.append(evaluation.stats.tolist())
    assert statistics[0] == statistics[1]
    assert 0.1 < statistics[0][0] < 0.9
