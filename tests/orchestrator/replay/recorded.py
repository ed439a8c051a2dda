"""A small finished sweep with real detections: images of squares, and detectors that miss some of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from results.connect import open_database
from results.store import Store
from results.sweep_record import SweepRecord, variant_key
from tasks.identity import key_of
from tasks.quantize.schemes import DynamicInt8, Float16, StaticInt4, StaticInt8
from tasks.score import score_detections
from tasks.storage import ArtifactStorage
from tasks.types import DetectionShard, Failure, Host, Variant
from tests.results import samples
from tests.results.samples import DETECTOR, HOST, REFERENCE

IMAGES = 40
DATASET = key_of("squares")

FASTEST = Variant(StaticInt8(granularity="per_tensor"))
FAST = Variant(StaticInt8())
GOOD = Variant(StaticInt8(calibration_images=8))
SAME_STRUCTURE = Variant(StaticInt8(calibration_images=16))
NOISY = Variant(StaticInt8(range_estimator="moving_average"))
SLOW = Variant(DynamicInt8())
SAME_BUILD = Variant(Float16())
UNSUPPORTED = Variant(StaticInt4())

MEASURED: dict[Variant, tuple[float, float, str]] = {
    REFERENCE: (1.0, 0.0, "reference"),
    SLOW: (0.9, 0.0, "reference"),
    SAME_BUILD: (0.95, 0.0, "float16"),
    GOOD: (0.5, 0.02, "good"),
    SAME_STRUCTURE: (0.5, 0.03, "same structure"),
    FAST: (0.4, 0.4, "fast"),
    FASTEST: (0.3, 0.8, "fastest"),
    NOISY: (0.2, 0.0, "noisy"),
}
"""Latency ratio, share of the squares that are missed, and what names the build."""

VARIANTS = (*MEASURED, UNSUPPORTED)
FAILURE = Failure("quantize", "quantization_failed", "no such kernel")


def ground_truth() -> dict[str, Any]:
    """Two squares of two classes in each image."""
    images = [{"id": 10 + at, "file_name": f"{at}.png", "width": 100, "height": 100} for at in range(IMAGES)]
    boxes = [
        {
            "id": 1 + 2 * at + which, "image_id": 10 + at, "category_id": 1 + which, "iscrowd": 0, "area": 400.0,
            "bbox": [10.0 + 40 * which, 10.0, 20.0, 20.0],
        }
        for at in range(IMAGES)
        for which in range(2)
    ]  # fmt: skip
    return {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}


def detections(missed: float) -> DetectionShard:
    """Finds all squares but a share of them, which it puts beside; the same for equal shares."""
    random = np.random.default_rng(int(100 * missed))
    rows = [
        [
            at,
            10.0 + 40 * which + (15 if random.random() < missed else 0),
            10,
            20,
            20,
            0.5 + random.random() / 2,
            which + 1,
        ]
        for at in range(IMAGES)
        for which in range(2)
    ]
    return DetectionShard(np.arange(10, 10 + IMAGES), np.array(rows, np.float32), 0.0, 0.0)


def record(folder: Path, finish: bool = True, host: Host = HOST, **changed: Any) -> Path:
    """Writes the sweep into `folder`: a database, detections and annotations.

    Returns:
        The database.
    """
    annotations = folder / "annotations.json"
    annotations.write_text(json.dumps(ground_truth()))
    storage = ArtifactStorage(str(folder / "artifacts"))
    store = Store(open_database(str(folder / "results.db")))
    samples.register(store)
    store.put_dataset(DATASET, "squares", IMAGES, {1: "a", 2: "b"}, str(annotations))
    arguments = {
        "name": "squares", "spec": "name: squares", "detector_sha256": DETECTOR, "dataset_fingerprint": DATASET,
        "variants": VARIANTS, "reference": REFERENCE, "artifacts_url": storage.url, "provenance": {"seed": 0},
        "budget_metric": "AP", "budget_max_loss": 0.1,
    }  # fmt: skip
    sweep = store.begin_sweep(SweepRecord(**(arguments | changed)))
    for variant, (ratio, missed, build) in MEASURED.items():
        if finish or variant != SLOW:
            noisy = ("busy",) if variant == NOISY else ()
            where = host if variant == SLOW else HOST
            structure = f"structure {ratio}"
            made = replace(samples.artifact(variant.label), structure_sha256=key_of(structure))
            found = score_detections(ground_truth(), [detections(missed)], storage)
            _settle(store, sweep, variant, made, (key_of(build), found), (structure, ratio, noisy, where))
    samples.fail(store, sweep, UNSUPPORTED, FAILURE)
    return folder / "results.db"


def _settle(store: Store, sweep: str, variant: Variant, made: Any, scored: Any, timed: Any) -> None:
    (accuracy_key, accuracy), (structure, ratio, noisy, host) = scored, timed
    request, latency = key_of("request", variant.label), key_of("latency", structure)
    store.put_artifact(request, DETECTOR, variant.scheme, {}, made, 1.0)
    store.put_accuracy(accuracy_key, made.sha256, DATASET, accuracy, {})
    store.put_latency(latency, made.structure_sha256, {}, host, samples.latency(ratio, noisy=noisy))
    store.settle_variant(
        sweep, variant_key(DETECTOR, variant), "done", request_key=request, accuracy_key=accuracy_key,
        latency_key=latency,
    )  # fmt: skip


def shifted(path: Path) -> Path:
    """Writes annotations of the same images with all boxes elsewhere."""
    content = ground_truth()
    for each in content["annotations"]:
        each["bbox"][1] += 30
    path.write_text(json.dumps(content))
    return path
