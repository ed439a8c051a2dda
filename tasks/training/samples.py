"""Training images: which there are, and the batch of each update."""

import math
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from tasks.coco.annotations import Annotations
from tasks.coco.dataset import Dataset
from tasks.coco.image_file import ImageFile, read_bytes
from tasks.coco.preprocess import decode_image
from tasks.coco.problems import Problem
from tasks.detector.anchors import anchors
from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec
from tasks.errors import DataMistake
from tasks.training.augmentation import augmented
from tasks.training.learner import Batch
from tasks.training.recipe import NO_AUGMENTATION, Augmentation, Recipe
from tasks.training.targets import assign

DECODED_BYTES = 512 * 2**20
"""Decoded images that `Batches` keeps in memory, in bytes."""

LEAST_IMAGES = 2
"""Training images that a training needs: one to learn from, one kept apart."""

_ORDER, _AUGMENTATION, _HELD_OUT = 1, 2, 3

_EVERY_SEED = 0
"""Stands in for the recipe's seed where all seeds are to give the same."""


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Images on disk with their boxes. Small: the pixels are read when a batch needs them."""

    files: tuple[ImageFile, ...]
    """The images, sorted by id."""

    boxes: tuple[np.ndarray, ...]
    """For each image (objects, 4) float32 [ymin, xmin, ymax, xmax] as shares of the image's height and width."""

    columns: tuple[np.ndarray, ...]
    """For each image (objects,) int32 score column of each object."""

    crowds: tuple[np.ndarray, ...]
    """For each image (objects,) bool: whether it is a crowd, which no anchor has to find."""

    is_annotated: bool
    """Whether there are annotations; if not, all boxes are empty and only a teacher can say what is right."""

    fingerprint: str
    """Names the images' contents and boxes, as `Dataset.fingerprint` does."""

    def __len__(self) -> int:
        return len(self.files)


def training_set(dataset: Dataset, spec: SSDMobileNetV1Spec) -> TrainingSet:
    """Makes a training set of a dataset.

    Objects of categories that the detector has no column for are left out, and boxes without width or height; boxes
    are clipped to their image.

    Args:
        dataset: The images, with or without annotations.
        spec: The architecture, whose `class_ids` name the score columns.

    Returns:
        The training set.

    Raises:
        DataMistake: If there are fewer than two images, or an image whose size no annotation says is damaged.
    """
    if len(dataset) < LEAST_IMAGES:
        rule = f"training needs at least {LEAST_IMAGES} images, one of which is kept apart"
        raise DataMistake(f"{rule}; the training set {dataset.name} has {len(dataset)}")
    column_of = {category: column for column, category in enumerate(spec.class_ids) if category != 0}
    boxes, columns, crowds = zip(*_objects_by_image(dataset, column_of), strict=True)
    return TrainingSet(dataset.images, boxes, columns, crowds, dataset.annotations is not None, dataset.fingerprint)


def taught_categories(dataset: Dataset) -> dict[int, str]:
    """Lists the categories that labels can teach: those of an object that is no crowd, with an area in its image.

    Args:
        dataset: The images, with or without annotations.

    Returns:
        Their names by id, sorted by id; at least one.

    Raises:
        DataMistake: If there is none, or an image whose size no annotation says is damaged.
    """
    ids = list(dataset.categories)
    found = _objects_by_image(dataset, {category: position for position, category in enumerate(ids)})
    taught = {position for _, positions, crowds in found for position in positions[~crowds].tolist()}
    if not taught:
        raise DataMistake(
            f"the training set {dataset.name} has no box to learn from; labels teach by annotated objects that are no "
            "crowds, with a width and a height within their image"
        )
    return {ids[position]: dataset.categories[ids[position]] for position in sorted(taught)}


def _objects_by_image(dataset: Dataset, column_of: dict[int, int]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    annotations, nothing = dataset.annotations, np.empty(0, np.int64)
    rows = _rows_by_image(annotations)
    return [_objects(file, annotations, rows.get(file.image_id, nothing), column_of) for file in dataset.images]


def _rows_by_image(annotations: Annotations | None) -> dict[int, np.ndarray]:
    if annotations is None or not len(annotations):
        return {}
    order = np.argsort(annotations.image_ids, kind="stable")
    ids, starts = np.unique(annotations.image_ids[order], return_index=True)
    return dict(zip(ids.tolist(), np.split(order, starts[1:]), strict=True))


def _objects(
    file: ImageFile, annotations: Annotations | None, rows: np.ndarray, column_of: dict[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns boxes (N, 4) float32, columns (N,) int32 and crowds (N,) bool of one image."""
    if annotations is None or not len(rows):
        return np.empty((0, 4), np.float32), np.empty(0, np.int32), np.empty(0, np.bool_)
    columns = np.array([column_of.get(category, -1) for category in annotations.category_ids[rows].tolist()], np.int32)
    height, width = _size(file)
    left, top, wide, high = annotations.boxes[rows].T
    corners = np.stack([top, left, top + high, left + wide], axis=1) / [height, width, height, width]
    boxes = corners.clip(0, 1).astype(np.float32)
    kept = (columns >= 0) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return boxes[kept], columns[kept], annotations.crowds[rows][kept]


def _size(file: ImageFile) -> tuple[int, int]:
    """Returns height and width of the image as its boxes see it; only where no annotation says is it decoded."""
    if file.height and file.width:
        return file.height, file.width
    height, width = _decoded(file).shape[:2]
    return height, width


def _decoded(file: ImageFile) -> np.ndarray:
    """Returns (H, W, 3) uint8 RGB, upright."""
    decoded = decode_image(file, read_bytes(file.path))
    if isinstance(decoded, Problem):
        raise DataMistake(f"every image must decode whole, to its annotated size: {decoded.message}")
    return np.asarray(decoded.image)


class Batches:
    """The batches of a training: functions of recipe and step alone, so that nothing of them needs a checkpoint."""

    def __init__(self, images: TrainingSet, spec: SSDMobileNetV1Spec, recipe: Recipe) -> None:
        """Splits off the held-out images: for recipes of all seeds the same.

        Args:
            images: All training images, two at least.
            spec: The architecture.
            recipe: Seed, batch size, augmentation, and how many images are held out.
        """
        shuffled = np.random.default_rng((_EVERY_SEED, _HELD_OUT)).permutation(len(images))
        apart = recipe.held_out_images(len(images))
        self._images, self._recipe = images, recipe
        self._apart, self._learned = np.sort(shuffled[:apart]), np.sort(shuffled[apart:])
        self._anchors, self._side = anchors(spec), spec.image_size
        self._decoded = _DecodedImages(images.files, DECODED_BYTES)
        self._held_out: list[Batch] | None = None
        self._epoch, self._order = -1, self._learned

    def at(self, step: int) -> Batch:
        """Returns the batch of an update: augmented images.

        Each epoch is a permutation of the images that are not held out; its last batch may be smaller.

        Args:
            step: Number of the update, from 0.

        Raises:
            DataMistake: If an image is missing, unreadable, truncated or not of its annotated size.
        """
        seed, size, settings = self._recipe.seed, self._recipe.batch_size, self._recipe.augmentation
        epoch, place = divmod(step, math.ceil(len(self._learned) / size))
        chosen = self._order_of(epoch)[place * size : (place + 1) * size]
        draws = [np.random.default_rng((seed, _AUGMENTATION, step, position)) for position in range(len(chosen))]
        return self._batch(chosen, draws, settings)

    def held_out(self) -> list[Batch]:
        """Returns the held-out images, not augmented, in batches of the recipe's size.

        Raises:
            DataMistake: If an image is missing, unreadable, truncated or not of its annotated size.
        """
        if self._held_out is None:
            size, undrawn = self._recipe.batch_size, np.random.default_rng(0)
            parts = [self._apart[start : start + size] for start in range(0, len(self._apart), size)]
            self._held_out = [self._batch(part, [undrawn] * len(part), NO_AUGMENTATION) for part in parts]
        return self._held_out

    def _order_of(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            random = np.random.default_rng((self._recipe.seed, _ORDER, epoch))
            self._epoch, self._order = epoch, random.permutation(self._learned)
        return self._order

    def _batch(self, chosen: np.ndarray, draws: list[np.random.Generator], settings: Augmentation) -> Batch:
        pixels = np.empty((len(chosen), self._side, self._side, 3), np.uint8)
        codes = np.empty((len(chosen), len(self._anchors), 4), np.float32)
        columns = np.empty((len(chosen), len(self._anchors)), np.int32)
        images = self._images
        for row, (index, random) in enumerate(zip(chosen.tolist(), draws, strict=True)):
            objects = images.boxes[index], images.columns[index], images.crowds[index]
            pixels[row], *left = augmented(self._decoded.at(index), *objects, random, settings, self._side)
            boxes, found, crowds = left
            targets = assign(boxes, found, self._anchors, crowds)
            codes[row], columns[row] = targets.codes, targets.columns
        return Batch(pixels, codes, columns)


class _DecodedImages:
    """Decoded images, of which those used last stay in memory: decoding costs more than all the rest of a sample."""

    def __init__(self, files: tuple[ImageFile, ...], most_bytes: int) -> None:
        self._files, self._most_bytes = files, most_bytes
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._bytes = 0

    def at(self, index: int) -> np.ndarray:
        """Returns (H, W, 3) uint8 RGB."""
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        pixels = _decoded(self._files[index])
        self._kept[index] = pixels
        self._bytes += pixels.nbytes
        while self._bytes > self._most_bytes:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return pixels
