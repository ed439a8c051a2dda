"""COCO-format datasets: images on disk and the annotations that belong to them, checked when read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tasks.coco.annotations import Annotations
from tasks.coco.contents import read_contents
from tasks.coco.image_file import ImageFile, content_sha256, file_size
from tasks.coco.problems import EXAMPLES, Problem, no_images, summary_of, unknown_ids
from tasks.errors import DataMistake
from tasks.identity import key_of


@dataclass(frozen=True)
class Dataset:
    """Images, and boxes if there are annotations."""

    name: str
    """Name of the images folder."""

    images: tuple[ImageFile, ...]
    """Sorted by id, at least one."""

    categories: dict[int, str] = field(hash=False)
    """Category names by id, sorted by id; empty without annotations."""

    annotations_path: str | None
    """Where the annotations were read, absolute; None for images alone."""

    annotations: Annotations | None = field(default=None, repr=False, compare=False)
    """The boxes of `images`; None for images alone."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def ids(self) -> tuple[int, ...]:
        """Image ids, rising."""
        return tuple(image.image_id for image in self.images)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of what a score depends on: image contents, ids, annotated sizes, category ids and boxes.

        Paths, file names and class names are left out, so that a moved dataset keeps its results. Every image file
        is read once, on first use.
        """
        images = [[image.image_id, image.width, image.height, content_sha256(image.path)] for image in self.images]
        boxes = None if self.annotations is None else self.annotations.sha256
        return key_of("dataset", images, list(self.categories), boxes)

    def subset(self, ids: Iterable[int]) -> "Dataset":
        """Keeps some of the images, with their annotations and all categories.

        Args:
            ids: Image ids, in any order.

        Returns:
            The smaller dataset, sorted by id.

        Raises:
            DataMistake: If an id is not in this dataset, or no id is given.
        """
        wanted = set(ids)
        _refuse([*unknown_ids(wanted, self.ids), *no_images(wanted, self.name)], f"a subset of {self.name}")
        annotations = None if self.annotations is None else self.annotations.of_images(sorted(wanted))
        images = tuple(image for image in self.images if image.image_id in wanted)
        return replace(self, images=images, annotations=annotations)

    def ground_truth(self) -> dict[str, list[dict[str, Any]]]:
        """Gives the boxes as COCO writes them.

        Returns:
            A dict with `images` (id, file_name, width, height), `annotations` (id, image_id, category_id, bbox
            [x, y, width, height] in pixels, area in pixels squared, iscrowd) and `categories` (id, name).

        Raises:
            DataMistake: If the dataset has no annotations.
        """
        if self.annotations is None:
            raise DataMistake(f"{self.name} was loaded without annotations, so nothing can be scored on it")
        images = [
            {"id": image.image_id, "file_name": Path(image.path).name, "width": image.width, "height": image.height}
            for image in self.images
        ]
        columns = self.annotations
        rows = zip(
            columns.ids.tolist(),
            columns.image_ids.tolist(),
            columns.category_ids.tolist(),
            columns.boxes.tolist(),
            columns.areas.tolist(),
            columns.crowds.astype(np.int64).tolist(),
            strict=True,
        )
        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
        annotations = [dict(zip(keys, row, strict=True)) for row in rows]
        categories = [{"id": category_id, "name": name} for category_id, name in self.categories.items()]
        return {"images": images, "annotations": annotations, "categories": categories}


def load_dataset(images: Path, annotations: Path | None, ids: Sequence[int] | None = None) -> Dataset:
    """Loads any COCO-format set.

    With annotations, the dataset is the images that they list, found by `file_name` in the folder (or by the last
    part of it). Without, it is every image file of the folder, for calibration; ids are the numbers that the file
    names are, if all are numbers as COCO's are, else 1 to N by sorted name.

    Args:
        images: Folder of images.
        annotations: `instances_*.json`, or None.
        ids: Only these images are used and need to be on disk.

    Returns:
        The dataset.

    Raises:
        DataMistake: With every broken rule, how often and the first few cases.
    """
    contents = read_contents(images, annotations, ids)
    source = f"images {images}" if annotations is None else f"images {images} with annotations {annotations}"
    _refuse(contents.problems, source)
    return Dataset(
        name=images.resolve().name,
        images=contents.images,
        categories=contents.categories,
        annotations_path=None if annotations is None else str(annotations.resolve()),
        annotations=contents.annotations,
    )


def calibration_order(ids: Iterable[int], seed: int) -> tuple[int, ...]:
    """Shuffles image ids; the first n of the result are the calibration sample of size n, so samples are nested.

    The order depends on the set of ids and the seed alone: it sorts by the raw stream of PCG64, which NumPy keeps
    fixed across platforms and versions (it does not promise that of `Generator.permutation`).

    Args:
        ids: Image ids, in any order.
        seed: Seed of the sample, at least 0.

    Returns:
        The distinct ids, shuffled.
    """
    ordered = sorted(set(ids))
    keys = np.random.PCG64(seed).random_raw(len(ordered))
    return tuple(ordered[position] for position in np.argsort(keys, kind="stable"))


def refuse_overlap(
    calibration: Dataset, evaluation: Dataset, role: str = "calibration", other_role: str = "evaluation"
) -> None:
    """Refuses images of one set that are images of another one, too, whatever their names and ids.

    Only files of equal size are compared by content.

    Args:
        calibration: Images that ranges are estimated on, or of another role.
        evaluation: Images that mAP is measured on, or of another role.
        role: What the first set is for, in messages.
        other_role: What the second set is for, in messages.

    Raises:
        DataMistake: If any file is in both, naming the sets and the ids.
    """
    by_size: dict[int, list[ImageFile]] = {}
    for image in evaluation.images:
        by_size.setdefault(file_size(image.path), []).append(image)
    hashes: dict[str, str] = {}
    pairs = [
        (image, twin)
        for image in calibration.images
        for twin in by_size.get(file_size(image.path), ())
        if _same_content(image.path, twin.path, hashes)
    ]
    if not pairs:
        return
    examples = ", ".join(
        f"{image.image_id} ({Path(image.path).name}) is {other_role} image {twin.image_id} ({Path(twin.path).name})"
        for image, twin in pairs[:EXAMPLES]
    )
    more = f", and {len(pairs) - EXAMPLES} more" if len(pairs) > EXAMPLES else ""
    advice = "Calibrate on other images, such as the training set" if role == "calibration" else "Give disjoint sets"
    raise DataMistake(
        f"{role} images must not be {other_role} images too, but {len(pairs)} of {len(calibration)} are: "
        f"{role} image {examples}{more}. The sets are {_place_of(calibration)} and {_place_of(evaluation)}. {advice}"
    )


def _place_of(dataset: Dataset) -> str:
    """Says where a set was read, by its annotations too: two sets may share a folder."""
    folder = str(Path(dataset.images[0].path).parent)
    return folder if dataset.annotations_path is None else f"{folder} with {dataset.annotations_path}"


def _refuse(problems: Sequence[Problem], source: str) -> None:
    if problems:
        raise DataMistake(f"{source} cannot be used:\n{summary_of(problems)}")


def _same_content(first: str, second: str, hashes: dict[str, str]) -> bool:
    if first == second:
        return True
    for path in (first, second):
        if path not in hashes:
            hashes[path] = content_sha256(path)
    return hashes[first] == hashes[second]
