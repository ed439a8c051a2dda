"""What a folder of images and a COCO annotation file hold, checked against every rule."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tasks.coco.annotations import Annotations, annotations_of
from tasks.coco.image_file import ImageFile, is_image_name
from tasks.coco.json_values import LARGEST_ID, is_id, is_text, short
from tasks.coco.problems import FLOAT32_INTEGERS, Problem, no_images, unknown_ids


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
    folder_images = tuple(name for name in listing if is_image_name(name))
    if annotations is None:
        return _images_alone(images, folder_images, wanted)
    document, problems = _read_json(annotations)
    if problems:
        return Contents(unlisted=folder_images, problems=problems)
    return _annotated_images(images, set(listing), folder_images, str(annotations), document, wanted)


def _images_alone(folder: Path, names: tuple[str, ...], wanted: set[int] | None) -> Contents:
    stems = [Path(name).stem for name in names]
    numbers = [int(stem) for stem in stems if stem.isascii() and stem.isdigit() and int(stem) < LARGEST_ID]
    # Equal numbers ("1.jpg" beside "01.jpg") name no image, so they count as names that are not numbers.
    numeric = len(set(numbers)) == len(names)
    listed = dict(sorted(zip(numbers if numeric else range(1, len(names) + 1), names, strict=True)))
    kept = {image_id: name for image_id, name in listed.items() if wanted is None or image_id in wanted}
    root = folder.resolve()
    return Contents(
        images=tuple(ImageFile(image_id, str(root / name), 0, 0) for image_id, name in kept.items()),
        names=kept,
        problems=(*no_images(kept, str(folder)), *unknown_ids(wanted or (), listed)),
    )


def _annotated_images(
    folder: Path, listing: set[str], folder_images: tuple[str, ...], source: str, document: Any, wanted: set[int] | None
) -> Contents:
    entries, problems = _images_listed(document["images"])
    categories, category_problems = _categories_of(document["categories"])
    annotations, annotation_problems, notices = annotations_of(document["annotations"], entries.keys(), categories)
    kept = {image_id: entries[image_id] for image_id in sorted(entries) if wanted is None or image_id in wanted}
    problems += no_images(kept, source) + unknown_ids(wanted or (), entries)
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
        if not isinstance(entry, dict) or not is_id(entry.get("id")) or not is_text(entry.get("file_name")):
            problems.append(Problem("malformed_image", None, "", f"entry {position} is {short(entry)}"))
        elif not all(entry.get(side) is None or is_id(entry[side]) for side in ("width", "height")):
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
        well_formed = isinstance(entry, dict) and is_id(entry.get("id")) and is_text(entry.get("name"))
        if not well_formed or entry["id"] >= FLOAT32_INTEGERS:
            problems.append(Problem("malformed_category", None, "", f"entry {position} is {short(entry)}"))
        elif entry["id"] in categories:
            both = f"{categories[entry['id']]!r} and {entry['name']!r}"
            problems.append(Problem("duplicate_category_id", None, "", f"category id {entry['id']} names {both}"))
        else:
            categories[entry["id"]] = entry["name"]
    return dict(sorted(categories.items())), problems
