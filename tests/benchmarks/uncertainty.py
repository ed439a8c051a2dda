"""The paired bootstrap of the AP loss against running pycocotools' `accumulate` anew on every resample.

Both get the same matches: 5000 images, 80 classes, 36 000 objects and 100 detections an image, as COCO val2017 gives
at a score threshold of 0.01. Matching, which both need once, is not counted.

Run: `python -m tests.benchmarks.uncertainty`. One core. Prints seconds, the ratio and the greatest difference of AP.
"""

import argparse
import contextlib
import io
import time
from typing import Any

import numpy as np

from tasks.average_precision import average_precision
from tasks.matches import IOU_THRESHOLDS, Matches
from tasks.uncertainty import loss_interval

CLASSES = 80


def sample_matches(quality: float, seed: int = 0, images: int = 5000) -> Matches:
    """Makes matches with the sizes of COCO val2017; equal seeds and images give the same objects.

    Args:
        quality: Mean IoU of the detections that overlap an object.
        seed: Seed.
        images: Number of images.

    Returns:
        7.2 objects and 100 detections an image; the commonest class has 30 % of them, as people have.
    """
    objects, detections = int(7.2 * images), 100 * images
    random = np.random.default_rng(seed)
    shares = np.append(0.3, 0.7 * np.exp(-np.arange(CLASSES - 1) / 30) / np.exp(-np.arange(CLASSES - 1) / 30).sum())
    object_classes = np.sort(random.choice(CLASSES, objects, p=shares))
    object_images = random.integers(images, size=objects).astype(np.int32)
    near = np.flatnonzero(random.random(objects) < 0.8)
    overlap = random.normal(quality, 0.2, len(near)).clip(0, 1)
    strays = detections - len(near)
    classes = np.append(object_classes[near], random.choice(CLASSES, strays, p=shares))
    places = np.append(object_images[near], random.integers(images, size=strays)).astype(np.int32)
    scores = np.append(0.01 + 0.99 * overlap * random.beta(1.2, 2, len(near)), 0.01 + 0.5 * random.beta(0.4, 8, strays))
    scores = scores.astype(np.float32)
    thresholds = np.linspace(0.5, 0.95, IOU_THRESHOLDS)[:, None]
    found = np.concatenate([overlap >= thresholds, np.zeros((IOU_THRESHOLDS, strays), bool)], axis=1)
    ignored = ~found & (random.random((IOU_THRESHOLDS, detections)) < 0.01)
    order = np.lexsort((places, -scores, classes))
    bounds = np.arange(CLASSES + 1)
    return Matches(
        image_ids=np.arange(images, dtype=np.int64),
        category_ids=np.arange(1, CLASSES + 1, dtype=np.int64),
        object_images=object_images,
        object_starts=np.searchsorted(object_classes, bounds),
        detection_images=places[order],
        detection_starts=np.searchsorted(classes[order], bounds),
        scores=scores[order],
        found=np.ascontiguousarray(found[:, order]),
        ignored=np.ascontiguousarray(ignored[:, order]),
    )


def evaluated(matches: Matches) -> list[list[dict[str, Any] | None]]:
    """Puts matches into the form that `COCOeval.accumulate` reads: `evalImgs`, for each class and each image."""
    return [_evaluated_class(matches, column) for column in range(len(matches.category_ids))]


def _evaluated_class(matches: Matches, column: int) -> list[dict[str, Any] | None]:
    start, stop = matches.detection_starts[column : column + 2]
    images = len(matches.image_ids)
    order = start + np.argsort(matches.detection_images[start:stop], kind="stable")
    ends = np.searchsorted(matches.detection_images[order], np.arange(images + 1))
    objects = np.bincount(
        matches.object_images[slice(*matches.object_starts[column : column + 2])].astype(np.int64), minlength=images
    )
    entries: list[dict[str, Any] | None] = []
    for image in range(images):
        mine = order[ends[image] : ends[image + 1]]
        entry = {
            "dtScores": matches.scores[mine].astype(np.float64),
            "dtMatches": matches.found[:, mine],
            "dtIgnore": matches.ignored[:, mine],
            "gtIgnore": np.zeros(objects[image], bool),
        }
        entries.append(entry if len(mine) or objects[image] else None)
    return entries


def accumulated(classes: list[list[dict[str, Any] | None]], drawn: np.ndarray) -> float:
    """AP by pycocotools on the drawn images, each as often as it was drawn; area 'all' and 100 detections only."""
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(iouType="bbox")
        evaluation.params.imgIds, evaluation.params.catIds = list(range(len(drawn))), list(range(len(classes)))
        evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
        evaluation.params.maxDets = [100]
        evaluation._paramsEval = evaluation.params
        evaluation.evalImgs = [entries[image] for entries in classes for image in drawn]
        evaluation.accumulate()
    precision = evaluation.eval["precision"]
    return float(precision[precision > -1].mean())


def main() -> None:
    """Times both and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--accumulations", type=int, default=4, help="of pycocotools; its time is extrapolated")
    options = parser.parse_args()
    reference, variant = (sample_matches(quality, images=options.images) for quality in (0.72, 0.70))
    start = time.perf_counter()
    interval = loss_interval(reference, variant, options.resamples)
    ours = time.perf_counter() - start
    print(f"AP {average_precision(reference):.4f}, loss {interval.loss:.4f} [{interval.low:.4f}, {interval.high:.4f}]")
    print(f"loss_interval: {options.resamples} resamples in {ours:.2f} s", flush=True)
    classes = evaluated(reference)
    random = np.random.default_rng(1)
    differences, seconds = [], 0.0
    for _ in range(options.accumulations):
        drawn = np.sort(random.integers(options.images, size=options.images))
        start = time.perf_counter()
        theirs = accumulated(classes, drawn)
        seconds += time.perf_counter() - start
        differences.append(abs(theirs - average_precision(reference, np.bincount(drawn, minlength=options.images))))
    extrapolated = seconds / options.accumulations * 2 * (options.resamples + 1)
    print(f"pycocotools' accumulate: {extrapolated:.1f} s, extrapolated from {options.accumulations} accumulations")
    print(f"loss_interval is {extrapolated / ours:.0f} times faster; APs differ by at most {max(differences):.1e}")


if __name__ == "__main__":
    main()
