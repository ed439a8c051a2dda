"""Detection: from images through a runtime to boxes, with one postprocessing for all runtimes."""

import io
import time
from typing import Any

import numpy as np

from tasks.detector.anchors import anchors
from tasks.detector.ssd_mobilenet_v1 import SSDMobileNetV1Spec
from tasks.errors import ArtifactUnreadable, InferenceFailed
from tasks.postprocess import detections_of
from tasks.runtimes.base import Session, runtime_of
from tasks.types import DetectionShard, ImageShard, Postprocessing, RuntimeSettings


def detect_shard(
    data: bytes,
    settings: RuntimeSettings,
    spec: SSDMobileNetV1Spec,
    images: ImageShard,
    postprocessing: Postprocessing,
) -> DetectionShard:
    """Detects objects on a slice of images.

    Args:
        data: Content of the artifact file.
        settings: How to run it.
        spec: Architecture that the artifact was made from.
        images: Preprocessed images.
        postprocessing: How raw outputs become detections.

    Returns:
        The detections on these images.

    Raises:
        ArtifactUnreadable: If the artifact cannot be loaded.
        InferenceFailed: If the runtime fails, or its outputs do not belong to the architecture.
    """
    session = runtime_of(settings.runtime).open(data, settings)
    try:
        return _detect(session, spec, images, postprocessing)
    finally:
        session.close()


def _detect(
    session: Session, spec: SSDMobileNetV1Spec, images: ImageShard, postprocessing: Postprocessing
) -> DetectionShard:
    places = anchors(spec)
    rows: list[np.ndarray] = []
    inference = finishing = 0.0
    for position in range(len(images)):
        start = time.perf_counter()
        boxes, scores = session.run(images.pixels[position : position + 1])
        middle = time.perf_counter()
        _check_shapes(boxes, scores, len(places), len(spec.class_ids))
        height, width = images.sizes[position]
        found = detections_of(boxes[0], scores[0], places, spec.class_ids, (height, width), postprocessing)
        rows.append(np.column_stack([np.full(len(found), position, np.float32), found]))
        end = time.perf_counter()
        inference, finishing = inference + middle - start, finishing + end - middle
    detections = np.concatenate([np.empty((0, 7), np.float32), *rows])
    return DetectionShard(images.image_ids.astype(np.int64), detections, inference, finishing)


def _check_shapes(boxes: np.ndarray, scores: np.ndarray, places: int, classes: int) -> None:
    if boxes.shape != (1, places, 4) or scores.shape != (1, places, classes):
        raise InferenceFailed(
            f"outputs have the shapes {boxes.shape} and {scores.shape};"
            f" the architecture has {places} anchors and {classes} classes"
        )


def detections_to_bytes(shard: DetectionShard) -> bytes:
    """Makes the file that detections are kept in: two .npy arrays, ids then rows; the same bytes for equal detections.

    Args:
        shard: The detections. The times are not kept: they are not part of what was detected.

    Returns:
        The content.
    """
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(shard.image_ids, np.int64), allow_pickle=False)
    np.save(file, np.ascontiguousarray(shard.detections, np.float32), allow_pickle=False)
    return file.getvalue()


def detections_from_bytes(data: bytes) -> DetectionShard:
    """Reads what `detections_to_bytes` made.

    Args:
        data: The content.

    Returns:
        The detections, with times of zero.

    Raises:
        ArtifactUnreadable: If the content is something else.
    """
    file = io.BytesIO(data)
    try:
        image_ids, detections = np.load(file, allow_pickle=False), np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ArtifactUnreadable(f"this is not a file of detections: {error}") from error
    if image_ids.ndim != 1 or detections.ndim != 2 or detections.shape[1] != 7:
        raise ArtifactUnreadable(f"this is not a file of detections: {image_ids.shape} and {detections.shape}")
    return DetectionShard(image_ids, detections, 0.0, 0.0)


def coco_results(shard: DetectionShard) -> list[dict[str, Any]]:
    """Lists detections in COCO's results format.

    Args:
        shard: The detections.

    Returns:
        Dicts of image_id, category_id, bbox [x, y, width, height] in pixels and score, in the order of the rows. The
        floats are the float32 values exactly, so that scoring the list gives what scoring the rows gives.
    """
    image_ids = shard.image_ids[shard.detections[:, 0].astype(np.int64)].tolist()
    rows = shard.detections.tolist()
    return [
        {"image_id": image_id, "category_id": int(row[6]), "bbox": row[1:5], "score": row[5]}
        for image_id, row in zip(image_ids, rows, strict=True)
    ]
