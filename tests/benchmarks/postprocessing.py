"""Postprocessing against the textbook loop, on the real detector's outputs for real images.

Run by `make bench`; needs QUANTSWEEP_REFERENCE_DATA. Prints ms per image, the ratio, and the share of inference.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tasks.coco.dataset import load_dataset
from tasks.coco.preprocess import preprocess_shard
from tasks.detector.anchors import anchors
from tasks.detector.boxes import decode
from tasks.detector.importers import import_detector
from tasks.postprocess import detections_of
from tasks.quantize.artifact import make
from tasks.quantize.schemes import Float32
from tasks.runtimes.base import runtime_of
from tasks.types import Postprocessing, RuntimeSettings

IMAGES = 24
REPEATS = 3


def textbook(boxes, scores, places, class_ids, size, post) -> np.ndarray:
    """Per-class greedy NMS as found in tutorials: NumPy inside, a Python loop over kept boxes."""
    corners = np.clip(decode(boxes, places), 0, 1)
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    found = []
    for column, category in enumerate(class_ids):
        if category == 0:
            continue
        order = np.flatnonzero((scores[:, column] > post.score_threshold) & (areas > 0))
        order = order[np.argsort(-scores[order, column], kind="stable")]
        count = 0
        while len(order) and count < post.max_per_class:
            best, rest = order[0], order[1:]
            found.append((-scores[best, column], best, column, category))
            count += 1
            low, high = (
                np.maximum(corners[best, :2], corners[rest, :2]),
                np.minimum(corners[best, 2:], corners[rest, 2:]),
            )
            sides = np.maximum(high - low, 0)
            shared = sides[:, 0] * sides[:, 1]
            order = rest[~(shared / (areas[best] + areas[rest] - shared) > post.iou_threshold)]
    rows = []
    height, width = np.float32(size[0]), np.float32(size[1])
    for negative, anchor, _, category in sorted(found)[: post.max_per_image]:
        top, left, bottom, right = corners[anchor]
        rows.append([left * width, top * height, (right - left) * width, (bottom - top) * height, -negative, category])
    return np.array(rows, np.float32).reshape(-1, 6)


def best_ms(job: Callable[[], object], repeats: int = REPEATS) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        times.append((time.perf_counter() - start) * 1e3)
    return min(times)


def main() -> None:
    folder = os.environ.get("QUANTSWEEP_REFERENCE_DATA")
    if not folder:
        sys.exit("QUANTSWEEP_REFERENCE_DATA does not name the folder with the real detector and COCO images")
    root = Path(folder)
    detector = import_detector(root / "models" / "coco_ssd_mobilenet_v1_0.75_quant_2018_06_29.tflite")
    data = make(detector, Float32())
    mini = root / "coco-mini"
    dataset = load_dataset(mini / "val2017", mini / "annotations" / "instances_val2017.json")
    images = preprocess_shard(dataset.images[:IMAGES], detector.spec.image_size, None)
    session = runtime_of("litert").open(data, RuntimeSettings())
    outputs = [session.run(images.pixels[index : index + 1]) for index in range(len(images))]
    prepared = [session.prepare(images.pixels[index : index + 1]) for index in range(len(images))]
    inference = np.mean([best_ms(lambda one=one: session.infer(one)) for one in prepared])
    print(f"inference, LiteRT float32, 1 thread: {inference:.2f} ms an image")
    places, class_ids = anchors(detector.spec), detector.spec.class_ids
    for threshold in (0.3, 0.05, 1e-2):
        post = Postprocessing(score_threshold=threshold)
        jobs = [
            (b[0], s[0], places, class_ids, tuple(size), post)
            for (b, s), size in zip(outputs, images.sizes, strict=True)
        ]
        for job in jobs:
            np.testing.assert_array_equal(detections_of(*job), textbook(*job))
        ours = np.mean([best_ms(lambda job=job: detections_of(*job)) for job in jobs])
        loop = np.mean([best_ms(lambda job=job: textbook(*job), repeats=1) for job in jobs])
        print(
            f"score threshold {threshold:g}: ours {ours:.2f} ms, textbook {loop:.1f} ms,"
            f" {loop / ours:.0f} times faster, {ours / inference:.1%} of inference; equal to the bit"
        )


if __name__ == "__main__":
    main()
