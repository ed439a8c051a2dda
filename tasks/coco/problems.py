"""What can be wrong with a dataset, in words."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

FLOAT32_INTEGERS = 2**24
"""Detections hold category ids and image positions as float32, which is exact for whole numbers up to this."""

EXAMPLES = 3
"""Examples of each kind of problem in one error message."""

RULES = {
    "images_folder": "the images must be a folder that can be read",
    "no_images": "there must be at least one image",
    "annotations_file": "the annotations must be a JSON file in COCO format",
    "too_many_images": f"there must be fewer than {FLOAT32_INTEGERS} images",
    "malformed_image": "every entry of 'images' needs a whole-number id and a file_name",
    "duplicate_image_id": "image ids must be unique",
    "image_id_unknown": "the image ids asked for must be in the dataset",
    "missing_image": "every listed image must be in the images folder",
    "malformed_category": f"every entry of 'categories' needs a name and a whole-number id below {FLOAT32_INTEGERS}",
    "duplicate_category_id": "category ids must be unique",
    "malformed_annotation": "every annotation needs whole-number image_id and category_id, and a bbox",
    "duplicate_annotation_id": "annotation ids must be unique",
    "image_not_listed": "annotations must belong to listed images",
    "unknown_category": "annotations must be of listed categories",
    "bad_box": "a bbox is four finite numbers [x, y, width, height] with width and height not negative",
    "bad_area": "an area is a finite number that is not negative",
    "bad_iscrowd": "iscrowd is 0 or 1",
}
"""The rule behind each kind of problem that `load_dataset` refuses."""


@dataclass(frozen=True)
class Problem:
    """One thing found wrong (or merely odd) in a dataset."""

    kind: str
    """Identifier of the rule, the same for equal problems."""

    image_id: int | None
    """The image concerned, if it is one that has an id."""

    file: str
    """The file concerned, as the annotations or the user name it."""

    message: str
    """One line for a person."""


def summary_of(problems: Iterable[Problem]) -> str:
    """Puts problems in words: one line a rule, with its count and first few cases.

    Args:
        problems: Any problems.

    Returns:
        Lines, each `- rule: N are wrong: case; case; case`.
    """
    groups: dict[str, list[str]] = {}
    for problem in problems:
        groups.setdefault(problem.kind, []).append(problem.message)
    lines = []
    for kind, messages in groups.items():
        more = f"; and {len(messages) - EXAMPLES} more" if len(messages) > EXAMPLES else ""
        count = f" ({len(messages)} broken)" if len(messages) > 1 else ""
        lines.append(f"- {RULES.get(kind, kind)}{count}: {'; '.join(messages[:EXAMPLES])}{more}")
    return "\n".join(lines)


def no_images(images: Iterable[Any], source: str) -> list[Problem]:
    """Applies the rule that there must be an image.

    Args:
        images: What there is.
        source: Where it was looked for.

    Returns:
        The problem, if it is one.
    """
    return [] if any(True for _ in images) else [Problem("no_images", None, source, f"{source} has none to use")]


def unknown_ids(wanted: Iterable[int], known: Iterable[int]) -> list[Problem]:
    """Applies the rule that image ids asked for must be there.

    Args:
        wanted: Ids asked for.
        known: Ids of the dataset.

    Returns:
        A problem for each unknown id, by rising id.
    """
    known = set(known)
    return [
        Problem("image_id_unknown", image_id, "", f"image {image_id} is not there")
        for image_id in sorted(set(wanted) - known)
    ]
