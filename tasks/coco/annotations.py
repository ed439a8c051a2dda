"""The boxes of a dataset as columns."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.coco.json_values import is_box, is_id, is_number, short
from tasks.coco.problems import Problem


@dataclass(frozen=True, eq=False)
class Annotations:
    """Boxes of a dataset as columns, in the order of the annotation file (scorers break ties by it)."""

    ids: np.ndarray
    """(N,) int64, unique, none of them 0."""

    image_ids: np.ndarray
    """(N,) int64."""

    category_ids: np.ndarray
    """(N,) int64."""

    boxes: np.ndarray
    """(N, 4) float64 [x, y, width, height] in pixels of the image."""

    areas: np.ndarray
    """(N,) float64 pixels squared: of the segmentation in COCO's own files, else of the box."""

    crowds: np.ndarray
    """(N,) bool."""

    def __len__(self) -> int:
        return len(self.ids)

    def of_images(self, image_ids: Sequence[int]) -> "Annotations":
        """Keeps the annotations of some images, in the same order."""
        kept = np.isin(self.image_ids, np.asarray(image_ids, dtype=np.int64))
        columns = (self.ids, self.image_ids, self.category_ids, self.boxes, self.areas, self.crowds)
        return Annotations(*(column[kept] for column in columns))

    @property
    def sha256(self) -> str:
        """Hash of every column."""
        digest = hashlib.sha256()
        for column in (self.ids, self.image_ids, self.category_ids, self.boxes, self.areas, self.crowds):
            little_endian = column.astype(column.dtype.newbyteorder("<"), copy=False)
            digest.update(np.ascontiguousarray(little_endian).tobytes())
        return digest.hexdigest()


def annotations_of(
    entries: list[Any], image_ids: Iterable[int], categories: dict[int, str]
) -> tuple[Annotations, list[Problem], list[Problem]]:
    """Turns the annotations of a file into columns.

    Args:
        entries: The list `annotations` of the file.
        image_ids: Ids of the listed images.
        categories: Names of the listed categories by id.

    Returns:
        The annotations that keep every rule, what breaks one (the first rule of each), and what was filled in.
    """
    listed = set(image_ids)
    problems: list[Problem] = []
    kept: list[dict[str, Any]] = []
    seen: set[int] = set()
    for position, entry in enumerate(entries):
        broken = _annotation_problem(position, entry, listed, categories, seen)
        if broken is None:
            kept.append(entry)
            seen.add(entry.get("id") or 0)
        else:
            problems.append(broken)
    ids, notices = _numbered(kept, max(seen, default=0))
    boxes = np.array([entry["bbox"] for entry in kept], dtype=np.float64).reshape(-1, 4)
    given = [entry.get("area") for entry in kept]
    areas = [
        width * height if area is None else area for area, (width, height) in zip(given, boxes[:, 2:], strict=True)
    ]
    if without := sum(area is None for area in given):
        notices.append(Problem("area_filled", None, "", f"{without} annotations lack an area: the box's is used"))
    annotations = Annotations(
        ids=np.array(ids, dtype=np.int64),
        image_ids=np.array([entry["image_id"] for entry in kept], dtype=np.int64),
        category_ids=np.array([entry["category_id"] for entry in kept], dtype=np.int64),
        boxes=boxes,
        areas=np.array(areas, dtype=np.float64),
        crowds=np.array([bool(entry.get("iscrowd")) for entry in kept], dtype=np.bool_),
    )
    return annotations, problems, notices


def _annotation_problem(
    position: int, entry: Any, listed: set[int], categories: dict[int, str], seen: set[int]
) -> Problem | None:
    """Gives the first rule that an annotation breaks."""
    if not isinstance(entry, dict) or not (is_id(entry.get("image_id")) and is_id(entry.get("category_id"))):
        return Problem("malformed_annotation", None, "", f"entry {position} is {short(entry)}")
    identity, image_id, category_id = entry.get("id"), entry["image_id"], entry["category_id"]
    label = f"annotation {position if identity is None else identity} of image {image_id}"

    def broken(kind: str, reason: str) -> Problem:
        return Problem(kind, image_id, "", f"{label} {reason}")

    if identity is not None and not is_id(identity):
        return broken("malformed_annotation", "has an id that is not a whole number")
    if identity and identity in seen:
        return broken("duplicate_annotation_id", "has the id of an earlier one")
    if image_id not in listed:
        return broken("image_not_listed", "belongs to no listed image")
    if category_id not in categories:
        return broken("unknown_category", f"has category {category_id}")
    if not is_box(entry.get("bbox")):
        return broken("bad_box", f"has bbox {short(entry.get('bbox'))}")
    area, crowd = entry.get("area"), entry.get("iscrowd")
    if area is not None and not (is_number(area) and area >= 0):
        return broken("bad_area", f"has area {short(area)}")
    if crowd is not None and crowd not in (0, 1):
        return broken("bad_iscrowd", f"has iscrowd {short(crowd)}")
    return None


def _numbered(entries: list[dict[str, Any]], largest: int) -> tuple[list[int], list[Problem]]:
    """Gives a number to the annotations without one and to those numbered 0.

    pycocotools marks a detection as unmatched by the annotation id 0, so an object with that id can never be found.
    """
    ids = []
    for entry in entries:
        largest += not entry.get("id")
        ids.append(entry.get("id") or largest)
    renumbered = sum(not entry.get("id") for entry in entries)
    if not renumbered:
        return ids, []
    reason = "have no id, or id 0, which pycocotools takes for 'unmatched': they are given new ids"
    return ids, [Problem("annotation_id_filled", None, "", f"{renumbered} annotations {reason}")]
