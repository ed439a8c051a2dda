"""Matches: what each detection found, so that AP on any images is a matter of counting."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.errors import ScoringFailed
from tasks.score import hotcoco_evaluation, merge
from tasks.types import DetectionShard

IOU_THRESHOLDS = 10
"""IoU thresholds 0.50, 0.55, ..., 0.95 of COCO AP."""


@dataclass(frozen=True, eq=False)
class Matches:
    """All that AP needs to know of detections on N images: what each one found, in the order in which they count.

    AP here is COCO's: 10 IoU thresholds, 101 recall points, all areas, 100 detections an image and class.
    """

    image_ids: np.ndarray
    """(N,) int64, rising. Positions below point into it."""

    category_ids: np.ndarray
    """(K,) int64, rising."""

    object_images: np.ndarray
    """(G,) int32, position of the image of each object to be found (crowds are not), sorted by category."""

    object_starts: np.ndarray
    """(K + 1,) int64, where the objects of each category start in `object_images`."""

    detection_images: np.ndarray
    """(D,) int32, position of the image of each detection; sorted by category, then falling score, then image."""

    detection_starts: np.ndarray
    """(K + 1,) int64, where the detections of each category start in `detection_images`."""

    scores: np.ndarray
    """(D,) float32, in [0, 1]."""

    found: np.ndarray
    """(10, D) bool, whether the detection found an object, by IoU threshold."""

    ignored: np.ndarray
    """(10, D) bool, whether the detection counts neither for nor against (it lies in a crowd), by IoU threshold."""

    def __post_init__(self) -> None:
        """Checks that the arrays belong together."""
        detections, categories = len(self.detection_images), len(self.category_ids)
        shapes = (self.scores.shape, self.found.shape, self.ignored.shape)
        if shapes != ((detections,), (IOU_THRESHOLDS, detections), (IOU_THRESHOLDS, detections)):
            raise ValueError(f"{detections} detections have arrays of the shapes {shapes}")
        if len(self.object_starts) != categories + 1 or len(self.detection_starts) != categories + 1:
            raise ValueError(f"{categories} categories need {categories + 1} starts of objects and of detections")


def match(ground_truth: dict[str, Any], shard: DetectionShard) -> Matches:
    """Matches detections to objects once, so that AP on any resample of the images is a matter of counting.

    The matching is hotcoco's own (`COCOeval.evaluate`); an image's matches do not depend on the other images. Matches
    are told by annotation id, as pycocotools does: an object whose id is 0 is never found.

    Args:
        ground_truth: COCO annotations.
        shard: Detections on some or all of the images; the others do not count.

    Returns:
        The matches, with the images in the order of their ids.

    Raises:
        ScoringFailed: If images are not in the ground truth.
    """
    merged = merge([shard])
    unknown = set(merged.image_ids.tolist()) - {image["id"] for image in ground_truth["images"]}
    if unknown:
        raise ScoringFailed(f"images {sorted(unknown)[:3]} have detections but are not in the ground truth")
    categories = np.unique([category["id"] for category in ground_truth["categories"]]).astype(np.int64)
    # Without images the evaluator would take all.
    entries, names = _evaluated(ground_truth, merged) if len(merged.image_ids) else ([], merged.image_ids)
    return _flatten(entries, names, merged.image_ids, categories)


def join(parts: Sequence[Matches]) -> Matches:
    """Joins the matches of disjoint sets of images; the result is that of matching all images at once, to the bit.

    Args:
        parts: Matches on shards of the images, in any order, with the same categories; at least one.

    Returns:
        The matches on all their images.

    Raises:
        ScoringFailed: If an image is in two parts, or the parts do not have the same categories.
    """
    categories = parts[0].category_ids
    if any(not np.array_equal(part.category_ids, categories) for part in parts):
        raise ScoringFailed("matches with different categories cannot be joined")
    image_ids, counts = np.unique(np.concatenate([part.image_ids for part in parts]), return_counts=True)
    if (counts > 1).any():
        raise ScoringFailed(f"matches overlap: image ids {image_ids[counts > 1][:3].tolist()} occur more than once")
    positions = [np.searchsorted(image_ids, part.image_ids).astype(np.int32) for part in parts]
    columns = np.arange(len(categories))
    return _sorted(
        image_ids,
        categories,
        np.concatenate([own[part.object_images] for own, part in zip(positions, parts, strict=True)]),
        np.concatenate([np.repeat(columns, np.diff(part.object_starts)) for part in parts]),
        np.concatenate([own[part.detection_images] for own, part in zip(positions, parts, strict=True)]),
        np.concatenate([np.repeat(columns, np.diff(part.detection_starts)) for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.found for part in parts], axis=1),
        np.concatenate([part.ignored for part in parts], axis=1),
    )


_Entry = dict[str, Any]
"""What an evaluator says of one class in one image: an element of `evalImgs`."""


def _flatten(entries: list[_Entry], names: np.ndarray, image_ids: np.ndarray, category_ids: np.ndarray) -> Matches:
    """Joins what an evaluator that calls the images by (N,) rising `names` says of each class in each image."""
    positions = np.searchsorted(names, np.array([entry["image_id"] for entry in entries], np.int64)).astype(np.int32)
    columns = np.searchsorted(category_ids, np.array([entry["category_id"] for entry in entries], np.int64))
    objects = np.array([np.count_nonzero(np.equal(entry["gtIgnore"], 0)) for entry in entries], np.int64)
    detections = np.array([len(entry["dtScores"]) for entry in entries], np.int64)
    object_images, object_columns = np.repeat(positions, objects), np.repeat(columns, objects)
    images, owners = np.repeat(positions, detections), np.repeat(columns, detections)
    scores = np.concatenate([np.empty(0, np.float32), *(np.array(entry["dtScores"], np.float32) for entry in entries)])
    ignored = _joined([entry["dtIgnore"] for entry in entries])
    found = _joined([entry["dtMatches"] for entry in entries]) & ~ignored
    return _sorted(image_ids, category_ids, object_images, object_columns, images, owners, scores, found, ignored)


def _sorted(
    image_ids: np.ndarray,
    category_ids: np.ndarray,
    object_images: np.ndarray,
    object_columns: np.ndarray,
    images: np.ndarray,
    owners: np.ndarray,
    scores: np.ndarray,
    found: np.ndarray,
    ignored: np.ndarray,
) -> Matches:
    """Puts objects, and detections with their categories `owners`, into the order of `Matches`."""
    order = np.lexsort((images, -scores, owners))  # stable: equal scores of one image stay in their order
    bounds = np.arange(len(category_ids) + 1)
    return Matches(
        image_ids=image_ids,
        category_ids=category_ids,
        object_images=object_images[np.lexsort((object_images, object_columns))],
        object_starts=np.searchsorted(np.sort(object_columns), bounds),
        detection_images=images[order],
        detection_starts=np.searchsorted(owners[order], bounds),
        scores=scores[order],
        found=np.ascontiguousarray(found[:, order]),
        ignored=np.ascontiguousarray(ignored[:, order]),
    )


def _joined(parts: list[Any]) -> np.ndarray:
    """(10, D) bool of parts (10, d)."""
    empty = np.empty((IOU_THRESHOLDS, 0), bool)
    return np.concatenate([empty, *(np.array(part).reshape(IOU_THRESHOLDS, -1) != 0 for part in parts)], axis=1)


def _evaluated(ground_truth: dict[str, Any], merged: DetectionShard) -> tuple[list[_Entry], np.ndarray]:
    """Runs hotcoco for area 'all'; gives its entries and the names that it knows the images by."""
    evaluation, ranks = hotcoco_evaluation(ground_truth, merged)
    evaluation.params.area_rng, evaluation.params.area_rng_lbl = evaluation.params.area_rng[:1], ["all"]
    evaluation.evaluate()
    return [entry for entry in evaluation.eval_imgs if entry is not None], ranks
