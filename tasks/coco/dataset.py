"""COCO-format datasets: images on disk and the annotations that belong to them, checked when read."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import DataMistake
from tasks.identity import key_of, sha256_of

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""What counts as an image file of a folder without annotations, in lower case."""

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

_LARGEST_COORDINATE = 1e9
_LARGEST_ID = 2**62


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


@dataclass(frozen=True)
class ImageFile:
    """One image of a dataset."""

    image_id: int
    """Id as in the annotations."""

    path: str
    """Absolute path."""

    width: int
    """Pixels, as the annotations have it (their boxes refer to it); 0 where no annotation says."""

    height: int
    """Pixels, as the annotations have it; 0 where no annotation says."""


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
        _refuse([*_unknown_ids(wanted, self.ids), *_no_images(wanted, self.name)], f"a subset of {self.name}")
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


@dataclass(frozen=True, eq=False)
class Contents:
    """What a folder of images and an annotation file hold, and everything that is wrong with them."""

    images: tuple[ImageFile, ...] = ()
    """The images found on disk, sorted by id."""

    names: dict[int, str] = field(default_factory=dict)
    """File name of each listed image by id, on disk or not."""

    categories: dict[int, str] = field(default_factory=dict)
    """Category names by id, sorted by id."""

    annotations: Annotations | None = None
    """The well-formed annotations of listed images."""

    unlisted: tuple[str, ...] = ()
    """Image files of the folder that the annotations do not list."""

    problems: tuple[Problem, ...] = ()
    """What breaks a rule."""

    notices: tuple[Problem, ...] = ()
    """What is odd and has been dealt with."""


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


def read_contents(images: Path, annotations: Path | None, ids: Sequence[int] | None = None) -> Contents:
    """Reads a set and applies every rule, without raising.

    Args:
        images: Folder of images.
        annotations: Annotation file, or None.
        ids: Only these images are used and need to be on disk.

    Returns:
        What was found, with all problems.
    """
    wanted = None if ids is None else set(ids)
    try:
        listing = sorted(entry.name for entry in images.iterdir())
    except OSError as error:
        folder = Problem("images_folder", None, str(images), f"{images}: {error.strerror}")
        _, unreadable = _read_json(annotations)
        return Contents(problems=(folder, *unreadable))
    folder_images = tuple(name for name in listing if _is_image_name(name))
    if annotations is None:
        return _images_alone(images, folder_images, wanted)
    document, problems = _read_json(annotations)
    if problems:
        return Contents(unlisted=folder_images, problems=problems)
    return _annotated_images(images, set(listing), folder_images, str(annotations), document, wanted)


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


def refuse_overlap(calibration: Dataset, evaluation: Dataset) -> None:
    """Refuses calibration images that are evaluation images too, whatever their names and ids.

    Only files of equal size are compared by content.

    Args:
        calibration: Images that ranges are estimated on.
        evaluation: Images that mAP is measured on.

    Raises:
        DataMistake: If any file is in both, naming the ids.
    """
    by_size: dict[int, list[ImageFile]] = {}
    for image in evaluation.images:
        by_size.setdefault(_file_size(image.path), []).append(image)
    hashes: dict[str, str] = {}
    pairs = [
        (image, twin)
        for image in calibration.images
        for twin in by_size.get(_file_size(image.path), ())
        if _same_content(image.path, twin.path, hashes)
    ]
    if not pairs:
        return
    examples = ", ".join(
        f"{image.image_id} ({Path(image.path).name}) is evaluation image {twin.image_id} ({Path(twin.path).name})"
        for image, twin in pairs[:EXAMPLES]
    )
    more = f", and {len(pairs) - EXAMPLES} more" if len(pairs) > EXAMPLES else ""
    raise DataMistake(
        f"calibration images must not be evaluation images too, but {len(pairs)} of {len(calibration)} are: "
        f"calibration image {examples}{more}. Calibrate on other images, such as the training set"
    )


def content_sha256(path: str) -> str:
    """Hashes a file.

    Args:
        path: The file.

    Returns:
        The sha256 of its bytes.

    Raises:
        DataMistake: If it cannot be read.
    """
    return sha256_of(read_bytes(path))


def read_bytes(path: str) -> bytes:
    """Reads a file of a dataset whole.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        DataMistake: If it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataMistake(f"image {path} cannot be read: {error.strerror}") from error


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


def _refuse(problems: Sequence[Problem], source: str) -> None:
    if problems:
        raise DataMistake(f"{source} cannot be used:\n{summary_of(problems)}")


def _images_alone(folder: Path, names: tuple[str, ...], wanted: set[int] | None) -> Contents:
    stems = [Path(name).stem for name in names]
    numbers = [int(stem) for stem in stems if stem.isascii() and stem.isdigit() and int(stem) < _LARGEST_ID]
    # Equal numbers ("1.jpg" beside "01.jpg") name no image, so they count as names that are not numbers.
    numeric = len(set(numbers)) == len(names)
    listed = dict(sorted(zip(numbers if numeric else range(1, len(names) + 1), names, strict=True)))
    kept = {image_id: name for image_id, name in listed.items() if wanted is None or image_id in wanted}
    root = folder.resolve()
    return Contents(
        images=tuple(ImageFile(image_id, str(root / name), 0, 0) for image_id, name in kept.items()),
        names=kept,
        problems=(*_no_images(kept, str(folder)), *_unknown_ids(wanted or (), listed)),
    )


def _annotated_images(
    folder: Path, listing: set[str], folder_images: tuple[str, ...], source: str, document: Any, wanted: set[int] | None
) -> Contents:
    entries, problems = _images_listed(document["images"])
    categories, category_problems = _categories_of(document["categories"])
    annotations, annotation_problems, notices = _annotations_of(document["annotations"], entries.keys(), categories)
    kept = {image_id: entries[image_id] for image_id in sorted(entries) if wanted is None or image_id in wanted}
    problems += _no_images(kept, source) + _unknown_ids(wanted or (), entries)
    images, missing = _found_on_disk(folder, listing, kept)
    used = {Path(image.path).name for image in images} | {Path(entry["file_name"]).name for entry in entries.values()}
    return Contents(
        images=images,
        names={image_id: entry["file_name"] for image_id, entry in kept.items()},
        categories=categories,
        annotations=annotations if wanted is None else annotations.of_images(list(kept)),
        unlisted=tuple(name for name in folder_images if name not in used),
        problems=(*problems, *missing, *category_problems, *annotation_problems),
        notices=tuple(notices),
    )


def _read_json(annotations: Path | None) -> tuple[Any, tuple[Problem, ...]]:
    """Reads an annotation file as far as its three lists."""
    if annotations is None:
        return None, ()

    def wrong(reason: str) -> tuple[None, tuple[Problem, ...]]:
        return None, (Problem("annotations_file", None, str(annotations), f"{annotations} {reason}"),)

    try:
        document = json.loads(annotations.read_bytes())
    except OSError as error:
        return wrong(f"cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:
        return wrong(f"is not JSON: {error}")
    if not isinstance(document, dict):
        hint = " (a file of detections is a list)" if isinstance(document, list) else ""
        return wrong(f"holds a {type(document).__name__}, not an object{hint}")
    keys = ("images", "annotations", "categories")
    if absent := [key for key in keys if key not in document]:
        return wrong(f"lacks {', '.join(map(repr, absent))}; it has {', '.join(map(repr, document)) or 'nothing'}")
    if odd := [key for key in keys if not isinstance(document[key], list)]:
        return wrong(f"has {', '.join(map(repr, odd))}, but not as a list")
    return document, ()


def _images_listed(entries: list[Any]) -> tuple[dict[int, dict[str, Any]], list[Problem]]:
    listed: dict[int, dict[str, Any]] = {}
    problems = []
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _is_id(entry.get("id")) or not _is_text(entry.get("file_name")):
            problems.append(Problem("malformed_image", None, "", f"entry {position} is {_short(entry)}"))
        elif not all(entry.get(side) is None or _is_id(entry[side]) for side in ("width", "height")):
            size = f"width {entry.get('width')!r} and height {entry.get('height')!r} are not whole numbers"
            problems.append(Problem("malformed_image", entry["id"], entry["file_name"], f"image {entry['id']}: {size}"))
        elif entry["id"] in listed:
            both = f"{listed[entry['id']]['file_name']} and {entry['file_name']}"
            message = f"image id {entry['id']} names {both}"
            problems.append(Problem("duplicate_image_id", entry["id"], entry["file_name"], message))
        else:
            listed[entry["id"]] = entry
    if len(listed) >= FLOAT32_INTEGERS:
        problems.append(Problem("too_many_images", None, "", f"{len(listed)} are listed"))
    return listed, problems


def _found_on_disk(
    folder: Path, listing: set[str], entries: dict[int, dict[str, Any]]
) -> tuple[tuple[ImageFile, ...], list[Problem]]:
    root = folder.resolve()
    found, missing = [], []
    for image_id, entry in entries.items():
        name = entry["file_name"]
        path = _locate(root, listing, name)
        if path is None:
            missing.append(Problem("missing_image", image_id, name, f"image {image_id}: no {name} in {folder}"))
        else:
            found.append(ImageFile(image_id, str(path), entry.get("width") or 0, entry.get("height") or 0))
    if missing and not found:
        hint = f"{missing[0].message} (not one of the {len(missing)} listed images is there: these annotations seem "
        missing[0] = replace(missing[0], message=hint + "to belong to another set)")
    return tuple(found), missing


def _locate(root: Path, listing: set[str], name: str) -> Path | None:
    # The listing answers for most names without a system call each.
    if name in listing:
        return root / name
    relative = Path(name)
    if not relative.is_absolute() and (root / relative).is_file():
        return root / relative
    last_part = name.replace("\\", "/").rsplit("/", 1)[-1]
    return root / last_part if last_part in listing else None


def _categories_of(entries: list[Any]) -> tuple[dict[int, str], list[Problem]]:
    categories: dict[int, str] = {}
    problems = []
    for position, entry in enumerate(entries):
        well_formed = isinstance(entry, dict) and _is_id(entry.get("id")) and _is_text(entry.get("name"))
        if not well_formed or entry["id"] >= FLOAT32_INTEGERS:
            problems.append(Problem("malformed_category", None, "", f"entry {position} is {_short(entry)}"))
        elif entry["id"] in categories:
            both = f"{categories[entry['id']]!r} and {entry['name']!r}"
            problems.append(Problem("duplicate_category_id", None, "", f"category id {entry['id']} names {both}"))
        else:
            categories[entry["id"]] = entry["name"]
    return dict(sorted(categories.items())), problems


def _annotations_of(
    entries: list[Any], image_ids: Iterable[int], categories: dict[int, str]
) -> tuple[Annotations, list[Problem], list[Problem]]:
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
    if not isinstance(entry, dict) or not (_is_id(entry.get("image_id")) and _is_id(entry.get("category_id"))):
        return Problem("malformed_annotation", None, "", f"entry {position} is {_short(entry)}")
    identity, image_id, category_id = entry.get("id"), entry["image_id"], entry["category_id"]
    label = f"annotation {position if identity is None else identity} of image {image_id}"

    def broken(kind: str, reason: str) -> Problem:
        return Problem(kind, image_id, "", f"{label} {reason}")

    if identity is not None and not _is_id(identity):
        return broken("malformed_annotation", "has an id that is not a whole number")
    if identity and identity in seen:
        return broken("duplicate_annotation_id", "has the id of an earlier one")
    if image_id not in listed:
        return broken("image_not_listed", "belongs to no listed image")
    if category_id not in categories:
        return broken("unknown_category", f"has category {category_id}")
    if not _is_box(entry.get("bbox")):
        return broken("bad_box", f"has bbox {_short(entry.get('bbox'))}")
    area, crowd = entry.get("area"), entry.get("iscrowd")
    if area is not None and not (_is_number(area) and area >= 0):
        return broken("bad_area", f"has area {_short(area)}")
    if crowd is not None and crowd not in (0, 1):
        return broken("bad_iscrowd", f"has iscrowd {_short(crowd)}")
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


def _no_images(images: Iterable[Any], source: str) -> list[Problem]:
    return [] if any(True for _ in images) else [Problem("no_images", None, source, f"{source} has none to use")]


def _unknown_ids(wanted: Iterable[int], known: Iterable[int]) -> list[Problem]:
    known = set(known)
    return [
        Problem("image_id_unknown", image_id, "", f"image {image_id} is not there")
        for image_id in sorted(set(wanted) - known)
    ]


def _file_size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError as error:
        raise DataMistake(f"image {path} cannot be read: {error.strerror}") from error


def _same_content(first: str, second: str, hashes: dict[str, str]) -> bool:
    if first == second:
        return True
    for path in (first, second):
        if path not in hashes:
            hashes[path] = content_sha256(path)
    return hashes[first] == hashes[second]


def _is_image_name(name: str) -> bool:
    # macOS leaves hidden "._name.jpg" files beside the real ones on foreign file systems.
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST_ID


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != "" and "\0" not in value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST_COORDINATE


def _is_box(value: Any) -> bool:
    well_formed = isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))
    return well_formed and value[2] >= 0 and value[3] >= 0


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
