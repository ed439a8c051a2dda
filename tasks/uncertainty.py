"""Uncertainty: how far the AP loss of a variant could move if other images had been drawn."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from tasks.errors import ScoringFailed
from tasks.score import hotcoco_evaluation, merge
from tasks.types import DetectionShard, LossInterval

IOU_THRESHOLDS = 10
"""IoU thresholds 0.50, 0.55, ..., 0.95 of COCO AP."""

RECALL_POINTS = np.linspace(0.0, 1.0, 101)
"""`Params.recThrs` of pycocotools, to the bit: at 0.35 and others it lies one rounding above the fraction itself."""

_BLOCK_CELLS = 1 << 18
"""Packed resamples times detections worked on at once: a few MB, so that they stay in the cache."""

_MOST_LANES = 8
"""Resamples packed into one integer at most; more would save no time."""


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


@dataclass(frozen=True)
class _Lanes:
    """How several counts share one int64, so that one addition adds them all: cumulative sums are most of the work."""

    bits: int
    """Width of a lane; no count may reach 2 to this power."""

    count: int
    """Lanes in one int64."""

    @classmethod
    def holding(cls, limit: int) -> "_Lanes":
        """As many lanes as can hold counts up to `limit`."""
        bits = max(1, limit.bit_length())
        return cls(bits, max(1, min(63 // bits, _MOST_LANES)))

    def pack(self, counts: np.ndarray) -> np.ndarray:
        """(R, n) counts to (P, n), P = R / lanes rounded up; lane l of row p is row l * P + p, or 0."""
        rows = -(-len(counts) // self.count)
        packed = np.zeros((rows, counts.shape[1]), np.int64)
        for lane in range(self.count):
            part = counts[lane * rows : (lane + 1) * rows]
            packed[: len(part)] += part.astype(np.int64) << (lane * self.bits)
        return packed

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        """(P, n) to the (P * lanes, n) counts."""
        counts = np.empty((self.count, *packed.shape), np.int64)
        for lane, out in enumerate(counts):
            np.right_shift(packed, lane * self.bits, out=out)
            np.bitwise_and(out, (1 << self.bits) - 1, out=out)
        return counts.reshape(-1, packed.shape[1])


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
    entries, names = _evaluated(ground_truth, merged)
    return _flatten(entries, names, merged.image_ids, categories)


def average_precision(matches: Matches, weights: np.ndarray | None = None) -> float:
    """Computes COCO AP with each image counted as often as its weight says.

    The formula is that of `COCOeval.accumulate` and `summarize` (pycocotools, `cocoeval.py`): precision made
    non-increasing from the right, read at 101 recall points, averaged over IoU thresholds and over the categories that
    have objects. An image of weight m is an image that occurs m times under ids that follow each other, but for one
    point of convention: where two detections of one class in one image have the same score, copies of a detection
    stay together.

    Args:
        matches: The matches.
        weights: (N,) integers, at least 0; all 1 if None.

    Returns:
        AP in [0, 1]; -1 if no object is left.

    Raises:
        ValueError: If the weights are not N integers of at least 0.
    """
    counts = np.ones(len(matches.image_ids), np.int32) if weights is None else np.asarray(weights)
    if counts.shape != matches.image_ids.shape or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ValueError(f"weights must be {len(matches.image_ids)} integers, at least 0")
    precision = _average_precisions(matches, counts[None].astype(np.int32))[0]
    return -1.0 if np.isnan(precision) else float(precision)


def loss_interval(
    reference: Matches, variant: Matches, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> LossInterval:
    """Says how sure the AP loss is, by the paired bootstrap over images.

    Each resample draws as many images as there are, with replacement, and scores both detectors on them, so that what
    makes images hard for both cancels. The interval is the percentile interval of Efron and Tibshirani, "An
    Introduction to the Bootstrap" (1993), chapter 13. Resamples without any object are left out.

    Args:
        reference: What the reference found.
        variant: What the variant found on the same images.
        resamples: Number of resamples, at least 1. With fewer than 1000 the ends of the interval are visibly random.
        seed: Seed of the draws; equal seeds draw the same images.
        level: Nominal coverage, in (0, 1).

    Returns:
        The loss on all images and its interval.

    Raises:
        ScoringFailed: If the two were not matched on the same images and objects, or there is no object at all.
        ValueError: If `resamples` or `level` is out of range.
    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples is {resamples} and level {level}; they must be at least 1 and in (0, 1)")
    _check_same_images(reference, variant)
    images = len(reference.image_ids)
    losses = _resampled(reference, resamples, seed) - _resampled(variant, resamples, seed)
    tail = (1 - level) / 2
    # Where every resample missed the few images that hold objects, the loss itself is all there is to say.
    loss, resampled = float(losses[0]), losses[1:]
    present = resampled[~np.isnan(resampled)]
    low, high = np.quantile(present, [tail, 1 - tail]) if present.size else (loss, loss)
    return LossInterval(loss, float(low), float(high), level, resamples, seed, images)


def _check_same_images(reference: Matches, variant: Matches) -> None:
    for name in ("image_ids", "category_ids", "object_starts", "object_images"):
        if not np.array_equal(getattr(reference, name), getattr(variant, name)):
            raise ScoringFailed(f"reference and variant were not matched on the same images: their {name} differ")
    if not len(reference.object_images):
        raise ScoringFailed("there is no object on these images, so there is no AP to lose")


@lru_cache(maxsize=2)
def _resampled(matches: Matches, resamples: int, seed: int) -> np.ndarray:
    """AP on all images, then in each resample; remembered, since a worker compares many variants with one reference."""
    images = len(matches.image_ids)
    return _average_precisions(matches, np.vstack([np.ones((1, images), np.int32), _draw(images, resamples, seed)]))


def _draw(images: int, resamples: int, seed: int) -> np.ndarray:
    """Counts how often each image is drawn: (resamples, images) int32."""
    random = np.random.default_rng(seed)
    weights = np.empty((resamples, images), np.int32)
    for row in weights:
        row[:] = np.bincount(random.integers(images, size=images), minlength=images)
    return weights


def _average_precisions(matches: Matches, weights: np.ndarray) -> np.ndarray:
    """AP for each row of (R, N) weights; NaN where a row leaves no object."""
    heaviest = int(np.diff(matches.detection_starts).max(initial=0)) + len(matches.object_images)
    lanes = _Lanes.holding(heaviest * int(weights.max(initial=0)))
    packed = lanes.pack(weights)
    total = np.zeros(len(packed) * lanes.count)
    classes = np.zeros(len(total), np.int64)
    for column in range(len(matches.category_ids)):
        objects = matches.object_images[slice(*matches.object_starts[column : column + 2])]
        drawn = np.take(packed, objects, axis=1).sum(axis=1, keepdims=True)
        if len(objects):
            classes += lanes.unpack(drawn)[:, 0] > 0
            total += _class_average_precisions(matches, column, packed, drawn, lanes)
    return np.divide(total, classes, out=np.full(len(total), np.nan), where=classes > 0)[: len(weights)]


def _class_average_precisions(
    matches: Matches, column: int, packed: np.ndarray, drawn: np.ndarray, lanes: _Lanes
) -> np.ndarray:
    """AP of one class for each resample, of which (P, 1) packed `drawn` objects are left; 0 where that is none."""
    span = slice(*matches.detection_starts[column : column + 2])
    images, found, ignored = matches.detection_images[span], matches.found[:, span], matches.ignored[:, span]
    # Precision can only rise where something is found: nothing after the last find is looked at.
    end = int(np.flatnonzero(found.any(axis=0)).max(initial=-1)) + 1
    result = np.zeros((lanes.count, len(packed)))
    if not end:
        return result.ravel()
    finds = [np.flatnonzero(row) for row in found]
    skips = [np.flatnonzero(row[:end]) for row in ignored]
    rows = max(1, _BLOCK_CELLS // end)
    for start in range(0, len(packed), rows):
        block = slice(start, start + rows)
        sums = _block(packed[block], drawn[block], images[:end], finds, skips, lanes)
        result[:, block] = sums.reshape(lanes.count, -1)
    return result.ravel() / (IOU_THRESHOLDS * len(RECALL_POINTS))


def _block(
    packed: np.ndarray,
    drawn: np.ndarray,
    images: np.ndarray,
    finds: list[np.ndarray],
    skips: list[np.ndarray],
    lanes: _Lanes,
) -> np.ndarray:
    """Sum of the precision over IoU thresholds and recall points, for each resample in some packed rows."""
    reached = _recall_points_reached(lanes.unpack(drawn)[:, 0])
    firsts = np.arange(len(reached))[:, None] * reached.shape[1]
    shown = _cumulated(packed, images)
    total = np.zeros(len(reached))
    for places, skipped in zip(finds, skips, strict=True):
        if not len(places):
            continue
        counted = np.take(shown, places, axis=1)
        if len(skipped):
            counted -= _skipped_before(packed, images[skipped], np.searchsorted(skipped, places))
        true = lanes.unpack(_cumulated(packed, images[places]))
        precision = true / (lanes.unpack(counted) + np.spacing(1))
        # Between two finds precision falls, so the greatest precision at or after a recall is that of a find.
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        points = np.take(reached, true + firsts)
        points[:, 1:] -= points[:, :-1].copy()
        total += np.einsum("rn,rn->r", best, points)
    return total


def _cumulated(packed: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Weight of each image and all before it: (P, len(images))."""
    return np.cumsum(np.take(packed, images, axis=1), axis=1)


def _skipped_before(packed: np.ndarray, images: np.ndarray, befores: np.ndarray) -> np.ndarray:
    """Weight of the first `befores` of some ignored detections: (P, len(befores))."""
    sums = np.zeros((len(packed), len(images) + 1), np.int64)
    sums[:, 1:] = _cumulated(packed, images)
    return np.take(sums, befores, axis=1)


def _recall_points_reached(drawn: np.ndarray) -> np.ndarray:
    """How many recall points 0, 1, 2, ... finds reach: (R, max(drawn) + 1), compared as floats as pycocotools does."""
    objects = np.maximum(drawn, 1)[:, None]
    needed = np.ceil(RECALL_POINTS * objects).astype(np.int64)
    # The product above is rounded: one find less may do, or one more be needed.
    needed -= (needed - 1) / objects >= RECALL_POINTS
    needed += needed / objects < RECALL_POINTS
    width = int(objects.max()) + 1
    firsts = np.arange(len(drawn))[:, None] * width
    steps = np.bincount((needed + firsts).ravel(), minlength=len(drawn) * width)
    return np.cumsum(steps.reshape(len(drawn), width), axis=1).astype(np.float64)


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
