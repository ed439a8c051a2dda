"""Checks a COCO-format set and tells everything that is wrong with it at once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.coco.annotations import Annotations
from tasks.coco.contents import Contents, read_contents
from tasks.coco.image_file import ImageFile, read_bytes
from tasks.coco.preprocess import decode_image
from tasks.coco.problems import Problem
from tasks.errors import DataMistake
from tasks.identity import sha256_of

SMALL_AREA = 32**2
MEDIUM_AREA = 96**2
"""COCO's bounds of small and medium objects in pixels squared (pycocotools, `Params.areaRng`)."""

BOX_TOLERANCE = 1.0
"""Pixels that a box may reach beyond its image: what rounding of coordinates explains."""


@dataclass(frozen=True)
class CheckReport:
    """What a COCO-format set holds, and all that is wrong with it."""

    images: int
    """Images listed, or in the folder if there are no annotations."""

    annotations: int
    """Annotations that are well formed, crowds among them."""

    categories: int
    """Categories listed."""

    small: int
    """Objects (crowds left out) below 32 x 32 pixels of area."""

    medium: int
    """Objects of 32 x 32 pixels to 96 x 96."""

    large: int
    """Objects from 96 x 96 pixels."""

    crowds: int
    """Annotations of crowds."""

    empty_images: int
    """Listed images without an annotation; 0 if there are no annotations at all."""

    unlisted_images: int
    """Image files of the folder that the annotations do not list."""

    decoded: int
    """Images that were decoded whole."""

    problems: tuple[Problem, ...]
    """What makes the set unusable, or its scores meaningless."""

    notices: tuple[Problem, ...]
    """What is odd but no obstacle: dealt with, or scored as pycocotools scores it."""


def check_dataset(
    images: Path, annotations: Path | None, decode: bool = True, progress: Callable[[int, int], None] | None = None
) -> CheckReport:
    """Applies every rule of `load_dataset`, and those that need the pixels or are no obstacle to loading.

    Args:
        images: Folder of images.
        annotations: Annotation file, or None for images alone.
        decode: Whether to decode every image; the only way to find truncated ones.
        progress: Called with (images done, images in all) after each image decoded.

    Returns:
        The report; wrong data never raises.
    """
    contents = read_contents(images, annotations)
    pixels = _Pixels()
    if decode:
        for done, file in enumerate(contents.images, start=1):
            pixels.look_at(file)
            if progress is not None:
                progress(done, len(contents.images))
    boxes = contents.annotations
    small, medium, large = _sizes(boxes)
    return CheckReport(
        images=len(contents.names),
        annotations=len(boxes or ()),
        categories=len(contents.categories),
        small=small,
        medium=medium,
        large=large,
        crowds=int(boxes.crowds.sum()) if boxes else 0,
        empty_images=len(set(contents.names).difference(boxes.image_ids.tolist())) if boxes is not None else 0,
        unlisted_images=len(contents.unlisted),
        decoded=pixels.decoded,
        problems=(*contents.problems, *pixels.problems),
        notices=(
            *contents.notices,
            *pixels.notices,
            *(_odd_boxes(boxes, contents) if boxes else ()),
            *_unlisted(contents),
        ),
    )


class _Pixels:
    """Collects what decoding tells about images."""

    def __init__(self) -> None:
        self.decoded = 0
        self.problems: list[Problem] = []
        self.notices: list[Problem] = []
        self._first_with: dict[str, str] = {}

    def look_at(self, file: ImageFile) -> None:
        """Decodes one image."""
        name = Path(file.path).name
        try:
            data = read_bytes(file.path)
        except DataMistake as error:
            self.problems.append(Problem("unreadable_image", file.image_id, name, str(error)))
            return
        image = decode_image(file, data)
        if isinstance(image, Problem):
            self.problems.append(image)
            return
        self.decoded += 1
        label = f"image {file.image_id} ({name})"
        for kind, words in image.oddities.items():
            self.notices.append(Problem(kind, file.image_id, name, f"{label} {words}"))
        twin = self._first_with.setdefault(sha256_of(data), label)
        if twin != label:
            self.notices.append(Problem("same_content", file.image_id, name, f"{label} has the same content as {twin}"))


def _odd_boxes(boxes: Annotations, contents: Contents) -> Iterator[Problem]:
    # No problems: official COCO train2017 holds a few of each.
    sizes = {image.image_id: (image.width, image.height) for image in contents.images if image.width and image.height}
    limits = np.array([sizes.get(image_id, (np.inf, np.inf)) for image_id in boxes.image_ids.tolist()]).reshape(-1, 2)
    low, high = boxes.boxes[:, :2], boxes.boxes[:, :2] + boxes.boxes[:, 2:]
    outside = (low < -BOX_TOLERANCE).any(axis=1) | (high > limits + BOX_TOLERANCE).any(axis=1)
    without_area = (boxes.boxes[:, 2:] == 0).any(axis=1)
    for position in np.flatnonzero(outside | without_area).tolist():
        image_id = int(boxes.image_ids[position])
        box = ", ".join(f"{number:g}" for number in boxes.boxes[position])
        label = f"annotation {boxes.ids[position]} of image {image_id} has bbox [{box}]"
        if without_area[position]:
            yield Problem("zero_area_box", image_id, contents.names.get(image_id, ""), label)
        else:
            width, height = limits[position]
            size = f"; the image has {width:g}x{height:g} pixels" if np.isfinite(width) else ""
            yield Problem("box_outside_image", image_id, contents.names.get(image_id, ""), label + size)


def _sizes(boxes: Annotations | None) -> tuple[int, int, int]:
    areas = np.empty(0) if boxes is None else boxes.areas[~boxes.crowds]
    small, large = int((areas < SMALL_AREA).sum()), int((areas >= MEDIUM_AREA).sum())
    return small, len(areas) - small - large, large


def _unlisted(contents: Contents) -> Iterator[Problem]:
    for name in contents.unlisted:
        yield Problem("unlisted_image", None, name, f"{name} is in the folder but not in the annotations")
