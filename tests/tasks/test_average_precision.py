"""Average precision: on any multiset of images it is pycocotools'."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.average_precision import RECALL_POINTS, average_precision, average_precisions, recall_points_reached
from tasks.coco.dataset import load_dataset
from tasks.matches import match
from tasks.score import merge, score
from tasks.types import DetectionShard
from tests.benchmarks.uncertainty import accumulated, evaluated, sample_matches
from tests.tasks.test_score import cases, make_case, split


def reference_ap(ground_truth: dict, shard: DetectionShard, statistic: int = 0) -> float:
    return score(ground_truth, merge([shard]), "pycocotools").statistics[statistic]


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
    for objects in (*range(1, 1201), 10_000, 123_456, 700_000):
        finds = np.unique(np.linspace(0, objects, 20_001).astype(int)).astype(float)
        recalls = finds / objects
        reached = recall_points_reached(finds, np.float64(objects))
        np.testing.assert_array_equal(reached, np.searchsorted(RECALL_POINTS, recalls, side="right"))
    assert recall_points_reached(np.arange(34.0, 37), np.float64(100)).tolist() == [35, 35, 37]


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


@pytest.mark.parametrize("weights", [[1, 1], [1, 1, -1], [1.0, 0.5, 1.0]])
def test_weights_must_be_multiplicities_of_the_images(weights):
    ground_truth, shard = make_case(0, images=3, objects=9, detections=30, levels=5)
    with pytest.raises(ValueError, match="weights must be 3 integers"):
        average_precision(match(ground_truth, shard), np.array(weights))


@given(cases, st.sampled_from([("AP", 0), ("AP50", 1), ("AP75", 2)]))
@settings(max_examples=40, deadline=None)
def test_each_metric_is_the_statistic_of_pycocotools(case, metric):
    name, statistic = metric
    assert average_precision(match(*case), metric=name) == pytest.approx(reference_ap(*case, statistic), abs=1e-12)


@given(cases, st.integers(0, 2**32), st.sampled_from(["AP", "AP50", "AP75"]))
@settings(max_examples=20, deadline=None)
def test_many_weightings_at_once_score_as_each_alone(case, seed, metric):
    matches = match(*case)
    weights = np.random.default_rng(seed).integers(0, [[3], [1], [900]], (3, len(matches.image_ids)))
    alone = [average_precision(matches, row, metric) for row in weights]
    assert np.nan_to_num(average_precisions(matches, weights, metric), nan=-1).tolist() == alone


def test_other_metrics_are_refused():
    with pytest.raises(ValueError, match="there is no metric 'AP90'; choices: AP, AP50, AP75"):
        average_precision(sample_matches(0.7, 0, 5), metric="AP90")
