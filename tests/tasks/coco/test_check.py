"""A check finds everything that is wrong with a set at once, and calls odd things odd rather than wrong."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.coco.check import check_dataset
from tasks.coco.dataset import load_dataset
from tasks.coco.problems import Problem
from tasks.errors import DataMistake


def picture(mode: str = "RGB", seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def exif_turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def entry(image_id: int, name: str, width: int = 40, height: int = 30) -> dict[str, Any]:
    return {"id": image_id, "file_name": name, "width": width, "height": height}


def box(annotation_id: int, image_id: int, bbox: list[float], **fields: Any) -> dict[str, Any]:
    return {"id": annotation_id, "image_id": image_id, "category_id": 1, "bbox": bbox, "iscrowd": 0, **fields}


def write(tmp_path: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> tuple[Path, Path]:
    folder, path = tmp_path / "images", tmp_path / "set.json"
    folder.mkdir(exist_ok=True)
    categories = [{"id": 1, "name": "cup"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return folder, path


def kinds(problems: tuple[Problem, ...]) -> dict[str, int]:
    return dict(Counter(problem.kind for problem in problems))


@pytest.fixture
def spoiled(tmp_path: Path) -> tuple[Path, Path]:
    """A set with one of everything."""
    folder, path = write(
        tmp_path,
        images=[
            entry(1, "good.jpg"),
            entry(2, "truncated.jpg"),
            entry(3, "text.jpg"),
            entry(4, "missing.jpg"),
            entry(5, "other_size.png", 400, 300),
            entry(6, "empty.png"),
            entry(7, "grey.png"),
            entry(8, "cmyk.jpg"),
            entry(9, "rotated.jpg", 30, 40),
            entry(10, "not_rotated.jpg", 40, 30),
            entry(11, "copy.jpg"),
            entry(11, "again.jpg"),
        ],
        annotations=[
            box(1, 1, [0, 0, 10, 10], area=90),
            box(2, 1, [0, 0, 40, 30], area=32**2),
            box(3, 1, [0, 0, 40.5, 30], area=96**2),
            box(4, 1, [0, 0, 40, 30], iscrowd=1, area=10),
            box(5, 1, [30, 0, 12, 10]),
            box(6, 2, [5, 5, 0, 10]),
            box(6, 2, [5, 5, 1, 10]),
            box(8, 99, [5, 5, 1, 10]),
            box(9, 2, [5, 5, 1, 10], category_id=8),
            box(10, 2, [5, 5, -1, 10]),
            box(0, 2, [5, 5, 1, 10], area=10),
        ],
    )
    picture().save(folder / "good.jpg")
    picture(seed=1).save(folder / "truncated.jpg")
    whole = (folder / "truncated.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("<html>404</html>")
    picture(seed=2).save(folder / "other_size.png")
    (folder / "empty.png").touch()
    picture("L", seed=3).save(folder / "grey.png")
    picture("CMYK", seed=4).save(folder / "cmyk.jpg")
    picture(seed=5).save(folder / "rotated.jpg", exif=exif_turned())
    picture(seed=6).save(folder / "not_rotated.jpg", exif=exif_turned())
    shutil.copy(folder / "good.jpg", folder / "copy.jpg")
    picture(seed=7).save(folder / "unlisted.jpg")
    return folder, path


def test_every_problem_is_found_at_once(spoiled: tuple[Path, Path]) -> None:
    report = check_dataset(*spoiled)
    assert kinds(report.problems) == {
        "missing_image": 1,
        "truncated_image": 1,
        "unreadable_image": 2,
        "size_mismatch": 1,
        "duplicate_image_id": 1,
        "duplicate_annotation_id": 1,
        "image_not_listed": 1,
        "unknown_category": 1,
        "bad_box": 1,
    }
    found = {problem.kind: problem for problem in report.problems}
    assert (found["truncated_image"].image_id, found["truncated_image"].file) == (2, "truncated.jpg")
    assert found["missing_image"].file == "missing.jpg"


def test_odd_things_are_noticed_but_no_problem(spoiled: tuple[Path, Path]) -> None:
    report = check_dataset(*spoiled)
    assert {(notice.kind, notice.file) for notice in report.notices} == {
        ("greyscale", "grey.png"),
        ("cmyk", "cmyk.jpg"),
        ("exif_rotated", "rotated.jpg"),
        ("exif_ignored", "not_rotated.jpg"),
        ("same_content", "copy.jpg"),
        ("unlisted_image", "unlisted.jpg"),
        ("annotation_id_filled", ""),
        ("area_filled", ""),
        ("box_outside_image", "good.jpg"),
        ("zero_area_box", "truncated.jpg"),
    }
    found = {notice.kind: notice for notice in report.notices}
    assert found["box_outside_image"].message == (
        "annotation 5 of image 1 has bbox [30, 0, 12, 10]; the image has 40x30 pixels"
    )


def test_the_numbers_count_what_is_well_formed(spoiled: tuple[Path, Path]) -> None:
    report = check_dataset(*spoiled)
    assert (report.images, report.annotations, report.categories) == (11, 7, 1)
    assert (report.small, report.medium, report.large, report.crowds) == (4, 1, 1, 1)
    assert (report.empty_images, report.unlisted_images, report.decoded) == (9, 1, 6)


def test_without_decoding_only_what_the_annotations_tell_is_found(spoiled: tuple[Path, Path]) -> None:
    report = check_dataset(*spoiled, decode=False)
    assert report.decoded == 0
    assert not {"truncated_image", "unreadable_image", "size_mismatch"} & kinds(report.problems).keys()
    assert kinds(report.problems)["missing_image"] == 1


def test_decoding_reports_its_progress(spoiled: tuple[Path, Path]) -> None:
    seen: list[tuple[int, int]] = []
    check_dataset(*spoiled, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 10) for done in range(1, 11)]


@pytest.mark.parametrize(
    ("bbox", "kind"),
    [
        ([0, 0, 40, 30], None),
        ([-1, -1, 42, 32], None),
        ([-1.5, 0, 10, 10], "box_outside_image"),
        ([0, 25, 10, 6.5], "box_outside_image"),
        ([5, 5, 10, 0], "zero_area_box"),
    ],
)
def test_boxes_that_real_coco_holds_too_are_odd_but_no_problem(
    tmp_path: Path, bbox: list[float], kind: str | None
) -> None:
    folder, path = write(tmp_path, [entry(1, "a.png")], [box(1, 1, bbox, area=5)])
    picture().save(folder / "a.png")
    report = check_dataset(folder, path)
    assert report.problems == ()
    assert kinds(report.notices) == ({} if kind is None else {kind: 1})
    assert load_dataset(folder, path).ground_truth()["annotations"][0]["bbox"] == bbox


def test_what_loading_refuses_is_what_the_check_finds(spoiled: tuple[Path, Path]) -> None:
    with pytest.raises(DataMistake) as caught:
        load_dataset(*spoiled)
    found_by_check = {problem.message for problem in check_dataset(*spoiled, decode=False).problems}
    cases = [case for line in str(caught.value).splitlines()[1:] for case in line.split(": ", 1)[1].split("; ")]
    assert len(cases) == 6
    assert set(cases) <= found_by_check


def test_missing_places_are_problems_not_errors(tmp_path: Path) -> None:
    report = check_dataset(tmp_path / "no", tmp_path / "no.json")
    assert kinds(report.problems) == {"images_folder": 1, "annotations_file": 1}
    (tmp_path / "empty").mkdir()
    assert kinds(check_dataset(tmp_path / "empty", None).problems) == {"no_images": 1}


def test_an_image_that_cannot_be_opened_is_a_problem(tmp_path: Path) -> None:
    folder, path = write(tmp_path, [entry(1, "a.png")], [])
    (folder / "a.png").mkdir()
    assert kinds(check_dataset(folder, path).problems) == {"unreadable_image": 1}


def test_images_alone_are_checked_by_decoding(tmp_path: Path) -> None:
    folder, _ = write(tmp_path, [], [])
    picture().save(folder / "1.png")
    (folder / "2.png").write_text("no image")
    report = check_dataset(folder, None)
    assert (report.images, report.decoded, report.empty_images) == (2, 1, 0)
    assert kinds(report.problems) == {"unreadable_image": 1}


@pytest.mark.reference_data
def test_real_coco_has_no_problems(reference_data: Path) -> None:
    mini = reference_data / "coco-mini"
    report = check_dataset(mini / "val2017", mini / "annotations" / "instances_val2017.json")
    assert report.problems == report.notices == ()
    assert (report.images, report.decoded, report.annotations) == (80, 80, 815)
    assert (report.small, report.medium, report.large, report.crowds) == (337, 297, 170, 11)
    calibration = check_dataset(reference_data / "coco-calib128" / "train2017", None)
    assert calibration.problems == ()
    assert [(notice.kind, notice.image_id) for notice in calibration.notices] == [("greyscale", 86)]
