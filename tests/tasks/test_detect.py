"""Postprocessing equals the textbook; detections survive being written down."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.detect import coco_results, detections_from_bytes, detections_to_bytes
from tasks.detector.boxes import decode
from tasks.errors import ArtifactUnreadable
from tasks.postprocess import detections_of
from tasks.types import DetectionShard, Postprocessing

ANCHORS = np.array([[0.5, 0.5, 0.4, 0.4]], np.float32)


def textbook_detections(boxes, scores, anchors, class_ids, size, post):
    """Class by class, box by box, as the papers have it; slow."""
    corners = np.clip(decode(boxes, anchors), 0, 1)
    found = []
    for column, category in enumerate(class_ids):
        if category == 0:
            continue
        order = sorted(np.flatnonzero(scores[:, column] > post.score_threshold), key=lambda a: (-scores[a, column], a))
        kept = []
        for anchor in order:
            if len(kept) == post.max_per_class:
                break
            box = corners[anchor]
            if area(box) > 0 and all(not overlap(corners[k], box) > post.iou_threshold for k in kept):
                kept.append(anchor)
        found += [(-scores[anchor, column], anchor, column) for anchor in kept]
    rows = []
    height, width = np.float32(size[0]), np.float32(size[1])
    for negative, anchor, column in sorted(found)[: post.max_per_image]:
        top, left, bottom, right = corners[anchor]
        box = [left * width, top * height, (right - left) * width, (bottom - top) * height]
        rows.append([*box, -negative, class_ids[column]])
    return np.array(rows, np.float32).reshape(-1, 6)


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def overlap(one, other):
    sides = np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), np.float32(0))
    shared = sides[0] * sides[1]
    return shared / (area(one) + area(other) - shared)


@st.composite
def outputs(draw):
    """Raw outputs of a detector: few places, so that boxes overlap, and few score levels, so that scores tie."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, classes = draw(st.integers(1, 400)), draw(st.integers(1, 6))
    places = random.choice(draw(st.integers(1, 12)), count)
    anchors = random.uniform(0.05, 0.9, (12, 4)).astype(np.float32)[places]
    boxes = (random.normal(0, draw(st.sampled_from([0.0, 1.0, 8.0, 1e4])), (count, 4))).astype(np.float32)
    levels = draw(st.sampled_from([1, 3, 255, 2**20]))
    scores = (random.integers(0, levels, (count, classes), endpoint=True) / levels).astype(np.float32)
    class_ids = tuple(int(c) for c in random.choice(91, classes, replace=False))
    return boxes, scores, anchors, class_ids


@given(
    outputs(),
    st.sampled_from([0.0, 1e-8, 1e-2, 0.3, 1.0]),
    st.sampled_from([0.3, 0.6, 1.0]),
    st.sampled_from([1, 3, 20, 100]),
    st.sampled_from([1, 7, 100, 400]),
)
@settings(max_examples=150, deadline=None)
def test_detections_equal_the_textbook_to_the_bit(raw, threshold, iou, per_class, per_image):
    post = Postprocessing(threshold, iou, per_class, per_image)
    with np.errstate(over="ignore"):
        wanted = textbook_detections(*raw, (480, 640), post)
    np.testing.assert_array_equal(detections_of(*raw, (480, 640), post), wanted)


def test_background_is_never_detected():
    scores = np.array([[0.99, 0.5]], np.float32)
    found = detections_of(np.zeros((1, 4), np.float32), scores, ANCHORS, (0, 7), (100, 200), Postprocessing())
    np.testing.assert_allclose(found, [[60, 30, 80, 40, 0.5, 7]], rtol=1e-6)


def test_a_score_at_the_threshold_is_dropped():
    scores = np.array([[0.25]], np.float32)
    assert not len(
        detections_of(np.zeros((1, 4), np.float32), scores, ANCHORS, (1,), (9, 9), Postprocessing(score_threshold=0.25))
    )


def test_boxes_are_clipped_to_the_image_and_those_outside_it_dropped():
    boxes = np.array([[0, 10, 0, 0], [0, 1000, 0, 0], [0, 0, 1000, 1000]], np.float32)
    scores = np.array([[0.5], [0.6], [0.4]], np.float32)
    found = detections_of(boxes, scores, np.repeat(ANCHORS, 3, 0), (1,), (100, 100), Postprocessing())
    np.testing.assert_allclose(found[:, :5], [[70, 30, 30, 40, 0.5], [0, 0, 100, 100, 0.4]], rtol=1e-5)


def test_collapsed_outputs_with_every_score_above_the_threshold_give_one_box_a_class():
    """What a badly quantized build gives: nothing is suppressed early, and it must still end soon."""
    found = detections_of(
        np.zeros((1917, 4), np.float32),
        np.full((1917, 91), 0.5, np.float32),
        np.repeat(ANCHORS, 1917, 0),
        tuple(range(91)),
        (300, 300),
        Postprocessing(score_threshold=1e-8),
    )
    assert found[:, 5].tolist() == list(range(1, 91))


def test_every_candidate_is_considered_once():
    """At an IoU threshold of 1 nothing is suppressed, not even an equal box: doubles would show."""
    random = np.random.default_rng(0)
    scores = random.random((2000, 1)).astype(np.float32)
    post = Postprocessing(score_threshold=0.0, iou_threshold=1.0, max_per_class=3000, max_per_image=3000)
    found = detections_of(np.zeros((2000, 4), np.float32), scores, np.repeat(ANCHORS, 2000, 0), (1,), (9, 9), post)
    np.testing.assert_array_equal(found[:, 4], np.sort(scores[:, 0])[::-1])


def shard() -> DetectionShard:
    rows = np.array([[0, 1.1, 2.2, 3.3, 4.4, 0.9, 5], [2, 0.1, 0.2, 0.3, 0.4, 0.7, 90]], np.float32)
    return DetectionShard(np.array([139, 2**53 + 1, 7], np.int64), rows, 1.5, 0.5)


def test_detections_are_written_and_read_without_loss():
    content = detections_to_bytes(shard())
    read = detections_from_bytes(content)
    np.testing.assert_array_equal(read.image_ids, shard().image_ids)
    np.testing.assert_array_equal(read.detections, shard().detections)
    assert detections_to_bytes(read) == content


@pytest.mark.parametrize("content", [b"", b"not an array", detections_to_bytes(shard())[:-8]])
def test_what_is_not_a_file_of_detections_is_refused(content):
    with pytest.raises(ArtifactUnreadable, match="not a file of detections"):
        detections_from_bytes(content)


def test_coco_results_hold_the_float32_values_exactly():
    first, second = coco_results(shard())
    assert (first["image_id"], first["category_id"], second["image_id"], second["category_id"]) == (139, 5, 7, 90)
    assert first["bbox"] == [float(np.float32(value)) for value in (1.1, 2.2, 3.3, 4.4)]
    assert second["score"] == float(np.float32(0.7))
