"""Scoring: detections against ground truth by the COCO protocol, once over all shards, never averaged."""

import contextlib
import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from tasks.detect import coco_results, detections_to_bytes
from tasks.errors import ScoringFailed
from tasks.storage import ArtifactStorage
from tasks.types import Accuracy, DetectionShard

DETECTIONS_SUFFIX = "detections"
"""Suffix of detections in artifact storage."""

_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
"""Area ranges, in the order of `Params.areaRng`."""

_AP50, _AP75 = 0, 5
"""Positions of 0.50 and 0.75 in `Params.iouThrs`."""


@dataclass(frozen=True)
class Curves:
    """What a COCO evaluator accumulates: -1 where a class has no ground truth."""

    precision: np.ndarray
    """(T, R, K, 4, 3): IoU thresholds, recall thresholds, classes, area ranges, detection limits."""

    recall: np.ndarray
    """(T, K, 4, 3)."""


@dataclass(frozen=True)
class Scores:
    """Outcome of one evaluation. AP in [0, 1]; -1 where there is nothing to score."""

    statistics: tuple[float, ...]
    """The 12 COCO statistics in pycocotools' order."""

    class_ap: dict[int, float]
    """AP by category id."""


def merge(shards: Iterable[DetectionShard]) -> DetectionShard:
    """Joins shards into one, sorted by image id; any split and any order of the shards give the same result.

    Args:
        shards: Detections on disjoint slices of images.

    Returns:
        All detections; times are added up.

    Raises:
        ScoringFailed: If two shards hold the same image.
    """
    parts = list(shards)
    image_ids = np.concatenate([np.empty(0, np.int64), *(part.image_ids for part in parts)])
    ordered, counts = np.unique(image_ids, return_counts=True)
    if (counts > 1).any():
        raise ScoringFailed(f"shards overlap: image ids {ordered[counts > 1][:3].tolist()} occur more than once")
    moved = [np.empty((0, 7), np.float32)]
    for part in parts:
        rows = part.detections.astype(np.float32)
        rows[:, 0] = np.searchsorted(ordered, part.image_ids)[part.detections[:, 0].astype(np.int64)]
        moved.append(rows)
    detections = np.concatenate(moved)
    return DetectionShard(
        ordered,
        detections[np.argsort(detections[:, 0], kind="stable")],
        sum(part.inference_seconds for part in parts),
        sum(part.postprocessing_seconds for part in parts),
    )


def score(ground_truth: dict[str, Any], merged: DetectionShard, scorer: str = "hotcoco") -> Scores:
    """Scores detections on the images that they were made on.

    Args:
        ground_truth: COCO annotations.
        merged: Detections on some or all of the images; the others do not count.
        scorer: `hotcoco` (fast) or `pycocotools` (the reference). Both give the same bits.

    Returns:
        The 12 statistics and the AP of each class.

    Raises:
        ScoringFailed: If images are not in the ground truth, or there is no such scorer.
    """
    if scorer not in SCORERS:
        raise ScoringFailed(f"there is no scorer {scorer!r}; choices: {', '.join(SCORERS)}")
    unknown = set(merged.image_ids.tolist()) - {image["id"] for image in ground_truth["images"]}
    if unknown:
        raise ScoringFailed(f"images {sorted(unknown)[:3]} have detections but are not in the ground truth")
    curves = SCORERS[evaluator_of(ground_truth, scorer)](ground_truth, merged)
    categories = sorted({category["id"] for category in ground_truth["categories"]})
    by_class = {category: _mean(curves.precision[:, :, column, _ALL, -1]) for column, category in enumerate(categories)}
    return Scores(statistics_of(curves), by_class)


def evaluator_of(ground_truth: dict[str, Any], scorer: str) -> str:
    """Says which evaluator gives the reference's statistics on this ground truth.

    pycocotools counts an object whose annotation id is 0 as never found, since it marks matches by id. hotcoco does
    not share that error, and the reference is the reference: such ground truth goes to pycocotools.

    Args:
        ground_truth: COCO annotations.
        scorer: The one asked for.

    Returns:
        `scorer`, or `pycocotools` where `hotcoco` would differ.
    """
    marked_by_zero = any(annotation["id"] == 0 for annotation in ground_truth["annotations"])
    return "pycocotools" if marked_by_zero else scorer


def score_detections(
    ground_truth: dict[str, Any],
    shards: Sequence[DetectionShard],
    storage: ArtifactStorage,
    scorer: str = "hotcoco",
) -> Accuracy:
    """Merges, scores and keeps detections.

    Args:
        ground_truth: COCO annotations.
        shards: Detections on disjoint slices of its images.
        storage: Where the detections are kept, with the suffix `DETECTIONS_SUFFIX`.
        scorer: `hotcoco` or `pycocotools`.

    Returns:
        The accuracy.

    Raises:
        ScoringFailed: If the shards overlap or do not belong to the ground truth.
    """
    merged = merge(shards)
    scores = score(ground_truth, merged, scorer)
    evaluator = evaluator_of(ground_truth, scorer)
    return Accuracy(
        statistics=scores.statistics,
        class_ap=scores.class_ap,
        images=len(merged.image_ids),
        detections=len(merged.detections),
        detections_sha256=storage.put(detections_to_bytes(merged), DETECTIONS_SUFFIX),
        scorer=f"{evaluator} {metadata.version(evaluator)}",
    )


def statistics_of(curves: Curves) -> tuple[float, ...]:
    """Summarizes curves as `pycocotools.cocoeval.COCOeval.summarize` does.

    Args:
        curves: Accumulated precision and recall.

    Returns:
        AP, AP50, AP75, AP small, medium, large, AR1, AR10, AR100, AR small, medium, large.
    """
    precision, recall = curves.precision, curves.recall
    # The indexing with lists keeps the memory layout, and so the order of summation, of pycocotools.
    return (
        *(_mean(part[:, :, :, [_ALL], [2]]) for part in (precision, precision[[_AP50]], precision[[_AP75]])),
        *(_mean(precision[:, :, :, [area], [2]]) for area in (_SMALL, _MEDIUM, _LARGE)),
        *(_mean(recall[:, :, [_ALL], [limit]]) for limit in (0, 1, 2)),
        *(_mean(recall[:, :, [area], [2]]) for area in (_SMALL, _MEDIUM, _LARGE)),
    )


def _mean(values: np.ndarray) -> float:
    present = values[values > -1]
    return float(np.mean(present)) if present.size else -1.0


def _with_pycocotools(ground_truth: dict[str, Any], merged: DetectionShard) -> Curves:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = _essential(ground_truth)
        truth.createIndex()
        found = _empty_results(truth, COCO()) if not len(merged.detections) else truth.loadRes(coco_results(merged))
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.imgIds = merged.image_ids.tolist()
        evaluation.evaluate()
        evaluation.accumulate()
    return Curves(evaluation.eval["precision"], evaluation.eval["recall"])


def _empty_results(truth: Any, results: Any) -> Any:
    """`COCO.loadRes` fails on an empty list."""
    results.dataset = {**truth.dataset, "annotations": []}
    results.createIndex()
    return results


def _with_hotcoco(ground_truth: dict[str, Any], merged: DetectionShard) -> Curves:
    evaluation, _ = hotcoco_evaluation(ground_truth, merged)
    evaluation.evaluate()
    evaluation.accumulate()
    accumulated = evaluation.eval or {}
    return Curves(accumulated["precision"], accumulated["recall"])


def hotcoco_evaluation(ground_truth: dict[str, Any], merged: DetectionShard) -> tuple[Any, np.ndarray]:
    """Prepares an evaluation with hotcoco.

    Args:
        ground_truth: COCO annotations.
        merged: Detections, as `merge` gives them.

    Returns:
        A `hotcoco.COCOeval` that has not evaluated yet, and the number by which it knows each image of `merged`.
    """
    from hotcoco import COCOeval

    truth = _hotcoco_truth(ground_truth)
    # Its array of results is float64, too narrow for some ids; ranks keep their order.
    ranks = np.searchsorted(sorted(image["id"] for image in ground_truth["images"]), merged.image_ids) + 1
    categories = [category["id"] for category in ground_truth["categories"]]
    rows = merged.detections[np.isin(merged.detections[:, 6], categories)].astype(np.float64)
    rows[:, 0] = ranks[rows[:, 0].astype(np.int64)]
    evaluation = COCOeval(truth, truth.load_res(rows), "bbox")
    evaluation.params.img_ids = ranks.tolist()
    return evaluation, ranks


SCORERS: dict[str, Callable[[dict[str, Any], DetectionShard], Curves]] = {
    "hotcoco": _with_hotcoco,
    "pycocotools": _with_pycocotools,
}
"""Evaluators by name, which is also the name of the distribution."""

_TRUTHS: "OrderedDict[str, Any]" = OrderedDict()
_TRUTHS_KEPT = 4


def _hotcoco_truth(ground_truth: dict[str, Any]) -> Any:
    """Loads annotations, with images named by their rank from 1, once per process and content."""
    from hotcoco import COCO

    content = _essential(ground_truth)
    key = hashlib.sha256(repr(content).encode()).hexdigest()
    if key not in _TRUTHS:
        ranks = {image_id: rank for rank, image_id in enumerate(sorted(image["id"] for image in content["images"]), 1)}
        for image in content["images"]:
            image["id"] = ranks[image["id"]]
        for annotation in content["annotations"]:
            annotation["image_id"] = ranks[annotation["image_id"]]
        _TRUTHS[key] = COCO(content)
        while len(_TRUTHS) > _TRUTHS_KEPT:
            _TRUTHS.popitem(last=False)
    _TRUTHS.move_to_end(key)
    return _TRUTHS[key]


def _essential(ground_truth: dict[str, Any]) -> dict[str, Any]:
    """Copies what box scoring reads; the evaluators write into their input, and outlines are most of its size."""
    keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
    return {
        "images": [{key: image.get(key, 0) for key in ("id", "width", "height")} for image in ground_truth["images"]],
        "categories": [{"id": category["id"], "name": category["name"]} for category in ground_truth["categories"]],
        "annotations": [{key: annotation[key] for key in keys} for annotation in ground_truth["annotations"]],
    }
