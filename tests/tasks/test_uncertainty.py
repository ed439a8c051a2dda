"""Uncertainty: AP on resampled images is pycocotools' AP, and the interval of the loss is paired."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.coco.dataset import load_dataset
from tasks.errors import ScoringFailed
from tasks.score import merge, score
from tasks.types import DetectionShard
from tasks.uncertainty import (
    RECALL_POINTS,
    Matches,
    _recall_points_reached,
    average_precision,
    loss_interval,
    match,
)
from tests.benchmarks.uncertainty import accumulated, evaluated, sample_matches
from tests.tasks.test_score import cases, make_case, split


def reference_ap(ground_truth: dict, shard: DetectionShard) -> float:
    return score(ground_truth, merge([shard]), "pycocotools").statistics[0]


def without_ties(shard: DetectionShard) -> DetectionShard:
    """Makes the scores of each image different; those of different images may be the same."""
    rows = shard.detections.copy()
    for position in range(len(shard.image_ids)):
        mine = rows[:, 0] == position
        rows[mine, 5] = np.linspace(0.9, 0.1, mine.sum())
    return DetectionShard(shard.image_ids, rows, 0.0, 0.0)


def repeated(ground_truth: dict, shard: DetectionShard, weights: np.ndarray) -> tuple[dict, DetectionShard]:
    """Writes each image down as often as its weight says, under new ids that follow each other."""
    order = np.repeat(np.argsort(shard.image_ids), weights)
    images, annotations, rows = [], [], [np.empty((0, 7), np.float32)]
    for new, old in enumerate(order.tolist()):
        images.append({"id": new + 1, "width": 400, "height": 400})
        mine = [item for item in ground_truth["annotations"] if item["image_id"] == shard.image_ids[old]]
        annotations += [{**item, "id": len(annotations) + n, "image_id": new + 1} for n, item in enumerate(mine, 1)]
        found = shard.detections[shard.detections[:, 0] == old]
        found[:, 0] = new
        rows.append(found)
    written = {"images": images, "categories": ground_truth["categories"], "annotations": annotations}
    return written, DetectionShard(np.arange(1, len(order) + 1), np.concatenate(rows), 0.0, 0.0)


def box(image_id: int, category: int, left: float, annotation: int = 1) -> dict:
    return {"id": annotation, "image_id": image_id, "category_id": category, "bbox": [left, 0, 10, 10], "area": 100,
            "iscrowd": 0}  # fmt: skip


def pair(quality: float = 0.66, seed: int = 0, images: int = 150) -> tuple[Matches, Matches]:
    """Two detectors that mostly find the same objects."""
    return sample_matches(0.72, seed, images), sample_matches(quality, seed, images)


@given(cases)
@settings(max_examples=60, deadline=None)
def test_on_all_images_it_is_the_ap_of_pycocotools(case):
    ground_truth, shard = case
    assert average_precision(match(ground_truth, shard)) == pytest.approx(reference_ap(ground_truth, shard), abs=1e-12)


@given(st.integers(0, 2**32), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_an_annotation_id_of_zero_is_matched_as_pycocotools_matches_it(seed, objects):
    ground_truth, shard = make_case(seed, images=2, objects=objects, detections=60, levels=1000, first_id=0)
    assert average_precision(match(ground_truth, shard)) == pytest.approx(reference_ap(ground_truth, shard), abs=1e-12)


def test_recall_points_are_reached_where_pycocotools_finds_them():
    """It compares floats: 35 of 100 objects do not reach the recall point 0.35."""
    for objects in range(1, 1201):
        reached = _recall_points_reached(np.array([objects]))[0]
        recalls = np.arange(objects + 1) / objects
        np.testing.assert_array_equal(reached, np.searchsorted(RECALL_POINTS, recalls, side="right"))
    assert _recall_points_reached(np.array([100]))[0, 34:37].tolist() == [35, 35, 37]


@given(cases, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_weight_is_the_image_written_down_that_many_times(case, seed):
    ground_truth, shard = case[0], without_ties(case[1])
    weights = np.random.default_rng(seed).integers(0, 4, len(shard.image_ids))
    weights[0] += 1
    assert average_precision(match(ground_truth, shard), weights) == pytest.approx(
        reference_ap(*repeated(ground_truth, shard, weights)), abs=1e-12
    )


@given(st.integers(0, 2**32), st.sampled_from([1, 30, 200]))
@settings(max_examples=8, deadline=None)
def test_many_classes_of_all_sizes_score_as_pycocotools_accumulates(seed, images):
    matches = sample_matches(0.7, seed, images)
    drawn = np.sort(np.random.default_rng(seed).integers(images, size=images))
    assert average_precision(matches, np.bincount(drawn, minlength=images)) == pytest.approx(
        accumulated(evaluated(matches), drawn), abs=1e-12
    )


@pytest.mark.reference_data
def test_real_objects_and_crowds_score_as_in_pycocotools(reference_data):
    mini = reference_data / "coco-mini"
    ground_truth = load_dataset(mini / "val2017", mini / "annotations" / "instances_val2017.json").ground_truth()
    random = np.random.default_rng(0)
    image_ids = np.sort([image["id"] for image in ground_truth["images"]])
    rows = []
    for item in ground_truth["annotations"] * 4:
        moved = random.normal(item["bbox"], np.maximum(item["bbox"][2:] * 2, 1) * np.float64(0.1)).clip(0)
        rows.append([np.searchsorted(image_ids, item["image_id"]), *moved, random.random(), item["category_id"]])
    shard = without_ties(DetectionShard(image_ids, np.array(rows, np.float32), 0.0, 0.0))
    matches = match(ground_truth, shard)
    assert matches.ignored.any()
    assert average_precision(matches) == pytest.approx(reference_ap(ground_truth, shard), abs=1e-12)
    weights = random.integers(0, 4, len(image_ids))
    assert average_precision(matches, weights) == pytest.approx(
        reference_ap(*repeated(ground_truth, shard, weights)), abs=1e-12
    )


@given(cases, st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_the_order_of_the_images_does_not_change_the_matches(case, seed):
    ground_truth, shard = case
    ours, shuffled = match(ground_truth, shard), match(ground_truth, split(shard, 1, seed)[0])
    for name in (field.name for field in dataclasses.fields(Matches)):
        np.testing.assert_array_equal(getattr(ours, name), getattr(shuffled, name))


def test_images_of_weight_zero_are_as_if_they_were_not_there():
    ground_truth, shard = make_case(1, images=6, objects=40, detections=200, levels=100)
    part = split(shard, 2, seed=0)[0]
    weights = np.isin(np.sort(shard.image_ids), part.image_ids).astype(int)
    assert average_precision(match(ground_truth, shard), weights) == average_precision(match(ground_truth, part))


def test_a_class_that_no_drawn_image_holds_is_left_out_of_the_mean():
    ground_truth = {
        "images": [{"id": 1, "width": 40, "height": 40}, {"id": 2, "width": 40, "height": 40}],
        "categories": [{"id": 1, "name": "found"}, {"id": 2, "name": "missed"}, {"id": 3, "name": "nowhere"}],
        "annotations": [box(1, 1, 0, 1), box(2, 2, 0, 2)],
    }
    rows = np.array([[0, 0, 0, 10, 10, 0.9, 1], [0, 0, 0, 10, 10, 0.9, 2]], np.float32)
    matches = match(ground_truth, DetectionShard(np.array([1, 2]), rows, 0.0, 0.0))
    assert average_precision(matches) == pytest.approx(0.5)
    assert average_precision(matches, np.array([2, 0])) == pytest.approx(1.0)
    assert average_precision(matches, np.array([0, 2])) == 0.0
    assert average_precision(matches, np.array([0, 0])) == -1.0


def test_copies_of_a_detection_stay_together_where_scores_are_the_same():
    """pycocotools would read find, stray, find, stray from two copies of the image: 1, 1/2, 2/3, 1/2."""
    ground_truth = {
        "images": [{"id": 1, "width": 40, "height": 40}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [box(1, 1, 0)],
    }
    rows = np.array([[0, 0, 0, 10, 10, 0.9, 1], [0, 30, 0, 10, 10, 0.9, 1]], np.float32)
    shard = DetectionShard(np.array([1]), rows, 0.0, 0.0)
    assert average_precision(match(ground_truth, shard), np.array([2])) == pytest.approx(1.0)
    assert reference_ap(*repeated(ground_truth, shard, np.array([2]))) == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_no_detections_have_an_ap_of_zero_and_lose_all_of_the_reference():
    ground_truth, shard = make_case(5, images=8, objects=40, detections=300, levels=100)
    nothing = DetectionShard(shard.image_ids, shard.detections[:0], 0.0, 0.0)
    reference, variant = match(ground_truth, shard), match(ground_truth, nothing)
    assert average_precision(variant) == 0
    interval = loss_interval(reference, variant, 50)
    assert interval.loss == average_precision(reference) > 0
    assert 0 < interval.low <= interval.high <= 1


def test_a_detector_loses_nothing_against_itself_for_certain():
    reference, _ = pair()
    interval = loss_interval(reference, reference, 50)
    assert (interval.loss, interval.low, interval.high) == (0, 0, 0)


def test_swapping_the_two_turns_the_interval_round():
    reference, variant = pair(images=60)
    there, back = loss_interval(reference, variant, 50, seed=3), loss_interval(variant, reference, 50, seed=3)
    assert (there.loss, there.low, there.high) == pytest.approx((-back.loss, -back.high, -back.low), abs=1e-15)


def test_the_point_loss_is_that_of_the_two_aps_and_lies_within_the_interval():
    reference, variant = pair()
    interval = loss_interval(reference, variant, 200)
    assert interval.loss == average_precision(reference) - average_precision(variant)
    assert interval.low < interval.loss < interval.high
    assert (interval.level, interval.resamples, interval.seed, interval.images) == (0.95, 200, 0, 150)


def test_a_worse_variant_has_a_higher_interval_and_a_clear_loss_excludes_zero():
    intervals = [loss_interval(*pair(quality), 200) for quality in (0.70, 0.66, 0.60)]
    for ends in ("low", "loss", "high"):
        values = [getattr(interval, ends) for interval in intervals]
        assert values == sorted(values)
    assert intervals[-1].low > 0


def test_a_higher_level_gives_a_wider_interval():
    reference, variant = pair()
    narrow, wide = loss_interval(reference, variant, 200, level=0.5), loss_interval(reference, variant, 200, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_drawing_the_same_images_for_both_makes_the_interval_narrower():
    """Drawn apart, the spread of the loss is that of two APs; the objects that both miss do not cancel."""
    reference, variant = pair(0.70, images=80)
    interval = loss_interval(reference, variant, 200)
    random, shares = np.random.default_rng(0), np.full(80, 1 / 80)
    apart = [
        average_precision(reference, random.multinomial(80, shares))
        - average_precision(variant, random.multinomial(80, shares))
        for _ in range(60)
    ]
    low, high = np.quantile(apart, [0.025, 0.975])
    assert interval.high - interval.low < 0.7 * (high - low)


def test_more_images_make_the_interval_narrower():
    few, many = (loss_interval(*pair(images=images), 200) for images in (100, 900))
    assert many.high - many.low < 0.6 * (few.high - few.low)


def test_a_seed_gives_the_same_interval_again_and_another_seed_another():
    reference, variant = pair(images=60)
    first, again, other = (loss_interval(reference, variant, 50, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert first.loss == other.loss


def test_the_size_of_the_blocks_does_not_change_the_bits(monkeypatch):
    reference, variant = pair(images=60)
    whole = loss_interval(reference, variant, 50)
    monkeypatch.setattr("tasks.uncertainty._BLOCK_CELLS", 1)
    assert loss_interval(reference, variant, 50) == whole


def test_resamples_without_objects_are_left_out():
    ground_truth = {
        "images": [{"id": image_id, "width": 40, "height": 40} for image_id in (1, 2, 3)],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [box(2, 1, 0)],
    }
    rows = np.array([[1, 0, 0, 10, 10, 0.9, 1]], np.float32)
    reference = match(ground_truth, DetectionShard(np.array([1, 2, 3]), rows, 0.0, 0.0))
    variant = match(ground_truth, DetectionShard(np.array([1, 2, 3]), rows[:0], 0.0, 0.0))
    interval = loss_interval(reference, variant, 50)
    assert (interval.low, interval.high) == pytest.approx((1, 1))


def test_detections_on_other_images_or_objects_are_not_compared():
    ground_truth, shard = make_case(1, images=6, objects=40, detections=200, levels=100)
    whole = match(ground_truth, shard)
    with pytest.raises(ScoringFailed, match="not matched on the same images: their image_ids differ"):
        loss_interval(whole, match(ground_truth, split(shard, 2, seed=0)[0]))
    fewer = {**ground_truth, "annotations": [item for item in ground_truth["annotations"] if not item["iscrowd"]][1:]}
    with pytest.raises(ScoringFailed, match="their object_"):
        loss_interval(whole, match(fewer, shard))


def test_without_any_object_there_is_no_loss():
    ground_truth, shard = make_case(1, images=6, objects=40, detections=200, levels=100)
    empty = match({**ground_truth, "annotations": []}, shard)
    assert average_precision(empty) == -1
    with pytest.raises(ScoringFailed, match="no object on these images"):
        loss_interval(empty, empty)


def test_images_outside_the_ground_truth_are_refused():
    ground_truth, shard = make_case(0, images=3, objects=9, detections=30, levels=5)
    ground_truth["images"] = ground_truth["images"][:1]
    with pytest.raises(ScoringFailed, match="not in the ground truth"):
        match(ground_truth, shard)


@pytest.mark.parametrize("weights", [[1, 1], [1, 1, -1], [1.0, 0.5, 1.0]])
def test_weights_must_be_multiplicities_of_the_images(weights):
    ground_truth, shard = make_case(0, images=3, objects=9, detections=30, levels=5)
    with pytest.raises(ValueError, match="weights must be 3 integers"):
        average_precision(match(ground_truth, shard), np.array(weights))


@pytest.mark.parametrize("wrong", [{"resamples": 0}, {"level": 0.0}, {"level": 95}])
def test_numbers_of_resamples_and_levels_out_of_range_are_refused(wrong):
    reference, variant = pair(images=20)
    with pytest.raises(ValueError, match="at least 1 and in"):
        loss_interval(reference, variant, **wrong)


def test_arrays_that_do_not_belong_together_are_no_matches():
    matches = sample_matches(0.7, 0, 20)
    with pytest.raises(ValueError, match="detections have arrays of the shapes"):
        dataclasses.replace(matches, scores=matches.scores[1:])
    with pytest.raises(ValueError, match="starts"):
        dataclasses.replace(matches, category_ids=matches.category_ids[1:])
