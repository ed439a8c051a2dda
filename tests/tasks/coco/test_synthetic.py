import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from tasks.coco.synthetic import CATEGORIES, SIZES, Scene, SyntheticSet, render, scene, write_synthetic
from tasks.detector.boxes import iou
from tasks.errors import DataMistake

SMALL, LARGE = 32**2, 96**2


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [scene(7, index) for index in range(80)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> SyntheticSet:
    return write_synthetic(tmp_path_factory.mktemp("synthetic"), images=6, seed=3, first_id=501)


def test_the_same_seed_writes_the_same_bytes(written: SyntheticSet, tmp_path: Path) -> None:
    again = write_synthetic(tmp_path, images=6, seed=3, first_id=501)
    assert again.annotations.read_bytes() == written.annotations.read_bytes()
    names = sorted(path.name for path in written.images.iterdir())
    assert names == sorted(path.name for path in again.images.iterdir())
    assert all((again.images / name).read_bytes() == (written.images / name).read_bytes() for name in names)


def test_a_larger_set_begins_with_the_smaller_one(written: SyntheticSet, tmp_path: Path) -> None:
    shorter = write_synthetic(tmp_path, images=2, seed=3, first_id=501)
    for path in shorter.images.iterdir():
        assert path.read_bytes() == (written.images / path.name).read_bytes()


def test_other_seeds_and_positions_give_other_images() -> None:
    images = [render(seed, index)[0] for seed in (0, 1, 2) for index in range(4)]
    assert len({image.tobytes() for image in images}) == len(images)


def test_rendering_is_what_is_written(written: SyntheticSet) -> None:
    pixels, boxes, category_ids = render(3, 4)
    content = json.loads(written.annotations.read_text())
    record = content["images"][4]
    found = [item for item in content["annotations"] if item["image_id"] == record["id"]]
    assert (record["height"], record["width"]) == pixels.shape[:2]
    assert [item["bbox"] for item in found] == boxes.tolist()
    assert [item["category_id"] for item in found] == category_ids.tolist()


def test_every_category_and_every_coco_size_occurs_in_number(scenes: list[Scene]) -> None:
    areas = np.concatenate([made.areas for made in scenes])
    ids, counts = np.unique(np.concatenate([made.category_ids for made in scenes]), return_counts=True)
    assert len(CATEGORIES) >= 10
    assert ids.tolist() == sorted(CATEGORIES)
    assert counts.min() >= 10
    shares = [(areas < SMALL).mean(), ((areas >= SMALL) & (areas < LARGE)).mean(), (areas >= LARGE).mean()]
    assert min(shares) > 0.08


def test_category_ids_have_gaps_as_those_of_coco_have() -> None:
    assert max(CATEGORIES) > len(CATEGORIES)


def test_scenes_hold_crowds_of_overlapping_objects_of_one_class_and_of_several(scenes: list[Scene]) -> None:
    same = different = 0
    for made in scenes:
        corners = np.concatenate([made.boxes[:, :2], made.boxes[:, :2] + made.boxes[:, 2:]], axis=1)
        overlap = np.triu(iou(corners, corners), 1) > 0.1
        is_same = made.category_ids[:, None] == made.category_ids
        same, different = same + (overlap & is_same).sum(), different + (overlap & ~is_same).sum()
    assert same > 20
    assert different > 20


def test_boxes_lie_within_the_image_and_enclose_the_outlines(scenes: list[Scene]) -> None:
    for made in scenes:
        height, width = made.pixels.shape[:2]
        assert (width, height) in SIZES
        assert (made.boxes[:, :2] >= 0).all()
        assert (made.boxes[:, 2:] > 4).all()
        assert (made.boxes[:, :2] + made.boxes[:, 2:] <= [width, height]).all()
        for box, polygon in zip(made.boxes, made.polygons, strict=True):
            assert polygon.min(axis=0) == pytest.approx(box[:2], abs=0.011)
            assert polygon.max(axis=0) == pytest.approx(box[:2] + box[2:], abs=0.011)


def test_no_two_objects_of_a_class_share_so_much_that_suppression_would_drop_one(scenes: list[Scene]) -> None:
    for made in scenes:
        corners = np.concatenate([made.boxes[:, :2], made.boxes[:, :2] + made.boxes[:, 2:]], axis=1)
        is_same = np.triu(made.category_ids[:, None] == made.category_ids, 1)
        assert (iou(corners, corners)[is_same] < 0.5).all()


def test_the_annotations_load_in_pycocotools_and_areas_are_those_of_the_masks(written: SyntheticSet) -> None:
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(written.annotations))
    assert sorted(coco.getImgIds()) == list(written.image_ids) == list(range(501, 507))
    assert {item["id"]: item["name"] for item in coco.loadCats(coco.getCatIds())} == CATEGORIES
    annotations = coco.loadAnns(coco.getAnnIds())
    assert len({item["id"] for item in annotations}) == len(annotations) > 10
    for item in annotations:
        assert item["iscrowd"] == 0
        # The mask is the outline to whole pixels, so that the two differ by a part of the pixels on the edge.
        assert coco.annToMask(item).sum() == pytest.approx(item["area"], rel=0.02, abs=0.5 * sum(item["bbox"][2:]))


def test_every_image_file_is_there_and_has_the_size_that_the_annotations_say(written: SyntheticSet) -> None:
    from PIL import Image

    for record in json.loads(written.annotations.read_text())["images"]:
        with Image.open(written.images / record["file_name"]) as image:
            assert (image.mode, image.size) == ("RGB", (record["width"], record["height"]))


@pytest.mark.parametrize(("images", "seed", "first_id"), [(0, 0, 1), (1, -1, 1), (1, 0, 0)])
def test_numbers_out_of_range_are_refused_and_nothing_is_written(
    tmp_path: Path, images: int, seed: int, first_id: int
) -> None:
    with pytest.raises(DataMistake, match="must be at least"):
        write_synthetic(tmp_path / "set", images, seed, first_id)
    assert not (tmp_path / "set").exists()


def test_a_folder_that_cannot_be_made_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataMistake, match="cannot be written"):
        write_synthetic(tmp_path / "file" / "set", images=1, seed=0)
