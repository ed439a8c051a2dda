"""Scoring: shards and scorers do not matter, pycocotools decides."""

import contextlib
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.detect import coco_results, detections_from_bytes
from tasks.errors import ScoringFailed
from tasks.score import DETECTIONS_SUFFIX, merge, score, score_detections
from tasks.storage import ArtifactStorage
from tasks.types import DetectionShard


def plain_pycocotools(ground_truth: dict, results: list[dict]) -> tuple[float, ...]:
    """What any evaluator of a results file does, by JSON text as it would."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(ground_truth))
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(results))), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return tuple(evaluation.stats.tolist())


def make_case(seed: int, images: int, objects: int, detections: int, levels: int, first_id: int = 1):
    """Ground truth with crowds and areas on the borders of the ranges; detections near it, with ties."""
    random = np.random.default_rng(seed)
    image_ids = random.choice(10 ** int(random.integers(2, 18)), images, replace=False).astype(np.int64)
    categories = random.choice(90, 4, replace=False) + 1
    boxes = np.round(random.uniform(0, 200, (objects, 4))) + np.array([0, 0, 1, 1])
    areas = np.where(random.random(objects) < 0.5, boxes[:, 2] * boxes[:, 3], random.choice([1024, 9216, 5.5], objects))
    owners, kinds = random.integers(images, size=objects), random.choice(categories[:3], objects)
    ground_truth = {
        "images": [{"id": int(image_id), "width": 400, "height": 400} for image_id in image_ids],
        "categories": [{"id": int(category), "name": f"c{category}"} for category in categories],
        "annotations": [
            {"id": first_id + index, "image_id": int(image_ids[owners[index]]), "category_id": int(kinds[index]),
             "bbox": boxes[index].tolist(), "area": float(areas[index]), "iscrowd": int(random.random() < 0.2)}
            for index in range(objects)
        ],
    }  # fmt: skip
    rows = np.empty((detections, 7), np.float32)
    source = random.integers(objects, size=detections)
    rows[:, 0], rows[:, 1:5] = owners[source], boxes[source]
    moved = random.random(detections) < 0.7
    rows[moved, 1:5] += random.normal(0, 5, (moved.sum(), 4))
    rows[:, 3:5] = np.maximum(rows[:, 3:5], 0)
    rows[:, 5] = random.integers(1, levels, detections, endpoint=True) / levels
    rows[:, 6] = np.where(random.random(detections) < 0.8, kinds[source], random.choice([*categories, 91], detections))
    rows = rows[np.lexsort((-rows[:, 5], rows[:, 0]))]
    return ground_truth, DetectionShard(image_ids, rows, 1.0, 0.5)


def split(shard: DetectionShard, pieces: int, seed: int) -> list[DetectionShard]:
    """Deals the images out to shards in a random order."""
    random = np.random.default_rng(seed)
    parts = np.array_split(random.permutation(len(shard.image_ids)), pieces)
    shards = []
    for part in parts:
        rows = [np.empty((0, 7), np.float32)]
        for new, old in enumerate(part):
            mine = shard.detections[shard.detections[:, 0] == old]
            mine[:, 0] = new
            rows.append(mine)
        shards.append(DetectionShard(shard.image_ids[part], np.concatenate(rows), 0.1, 0.1))
    return shards


cases = st.builds(
    make_case,
    st.integers(0, 2**32),
    images=st.integers(1, 8),
    objects=st.integers(1, 40),
    detections=st.sampled_from([1, 20, 300]),
    levels=st.sampled_from([1, 5, 255, 10**6]),
)


@given(cases, st.integers(1, 9), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_shards_in_any_number_and_order_score_as_one_plain_pycocotools_run(case, pieces, seed):
    ground_truth, whole = case
    merged = merge(split(whole, pieces, seed))
    assert score(ground_truth, merged, "hotcoco").statistics == plain_pycocotools(ground_truth, coco_results(whole))


@given(cases)
@settings(max_examples=60, deadline=None)
def test_both_scorers_give_the_same_bits(case):
    ground_truth, whole = case
    assert score(ground_truth, merge([whole]), "hotcoco") == score(ground_truth, merge([whole]), "pycocotools")


@pytest.mark.parametrize("seed", range(5))
def test_an_annotation_id_of_zero_is_scored_as_pycocotools_scores_it(seed):
    """pycocotools never counts that object as found; hotcoco would."""
    ground_truth, whole = make_case(seed, images=2, objects=6, detections=60, levels=1000, first_id=0)
    assert score(ground_truth, merge([whole]), "hotcoco").statistics == plain_pycocotools(
        ground_truth, coco_results(whole)
    )


@pytest.mark.parametrize("scorer", ["hotcoco", "pycocotools"])
def test_no_detections_at_all_score_zero(scorer):
    ground_truth, whole = make_case(0, images=3, objects=9, detections=1, levels=5)
    nothing = merge([DetectionShard(whole.image_ids, whole.detections[:0], 0.0, 0.0)])
    assert score(ground_truth, nothing, scorer).statistics[0] == 0


@pytest.mark.parametrize("scorer", ["hotcoco", "pycocotools"])
def test_a_class_without_objects_has_no_ap(scorer):
    ground_truth, whole = make_case(0, images=3, objects=9, detections=30, levels=5)
    class_ap = score(ground_truth, merge([whole]), scorer).class_ap
    present = {annotation["category_id"] for annotation in ground_truth["annotations"] if not annotation["iscrowd"]}
    assert {category for category, ap in class_ap.items() if ap == -1} == class_ap.keys() - present


@pytest.mark.parametrize("scorer", ["hotcoco", "pycocotools"])
def test_images_that_were_not_inferred_do_not_count(scorer):
    ground_truth, whole = make_case(1, images=6, objects=40, detections=200, levels=100)
    part = split(whole, 2, seed=0)[0]
    wanted = set(part.image_ids.tolist())
    smaller = {
        **ground_truth,
        "images": [image for image in ground_truth["images"] if image["id"] in wanted],
        "annotations": [item for item in ground_truth["annotations"] if item["image_id"] in wanted],
    }
    assert score(ground_truth, merge([part]), scorer).statistics == plain_pycocotools(smaller, coco_results(part))


def test_scoring_leaves_the_ground_truth_alone_and_says_nothing(capfd):
    ground_truth, whole = make_case(3, images=3, objects=9, detections=30, levels=5)
    before = json.dumps(ground_truth)
    for scorer in ("hotcoco", "pycocotools"):
        score(ground_truth, merge([whole]), scorer)
    assert json.dumps(ground_truth) == before
    assert capfd.readouterr() == ("", "")


def test_changed_ground_truth_is_not_taken_for_the_one_scored_before():
    ground_truth, whole = make_case(3, images=3, objects=9, detections=30, levels=5)
    score(ground_truth, merge([whole]))
    for annotation in ground_truth["annotations"]:
        annotation["bbox"] = [value + 40 for value in annotation["bbox"]]
    assert score(ground_truth, merge([whole])) == score(ground_truth, merge([whole]), "pycocotools")


def test_merging_sorts_by_image_and_adds_up_the_times():
    _, whole = make_case(2, images=8, objects=40, detections=100, levels=3)
    merged = merge(split(whole, 4, seed=1))
    assert (np.diff(merged.image_ids) > 0).all()
    assert (np.diff(merged.detections[:, 0]) >= 0).all()
    assert merged.inference_seconds == pytest.approx(0.4)


def test_shards_that_share_an_image_are_refused():
    _, whole = make_case(0, images=3, objects=9, detections=30, levels=5)
    with pytest.raises(ScoringFailed, match="more than once"):
        merge([whole, whole])


def test_images_outside_the_ground_truth_are_refused():
    ground_truth, whole = make_case(0, images=3, objects=9, detections=30, levels=5)
    ground_truth["images"] = ground_truth["images"][:1]
    with pytest.raises(ScoringFailed, match="not in the ground truth"):
        score(ground_truth, merge([whole]))


def test_an_unknown_scorer_is_refused_with_the_choices():
    ground_truth, whole = make_case(0, images=3, objects=9, detections=30, levels=5)
    with pytest.raises(ScoringFailed, match="choices: hotcoco, pycocotools"):
        score(ground_truth, merge([whole]), "lvis")


def test_the_accuracy_can_be_scored_again_from_the_detections_kept(tmp_path):
    ground_truth, whole = make_case(5, images=5, objects=30, detections=100, levels=255)
    storage = ArtifactStorage(str(tmp_path))
    accuracy = score_detections(ground_truth, split(whole, 3, seed=0), storage)
    kept = detections_from_bytes(storage.get(accuracy.detections_sha256, DETECTIONS_SUFFIX))
    assert accuracy.statistics == plain_pycocotools(ground_truth, coco_results(kept))
    assert (accuracy.images, accuracy.detections) == (5, 100)
    assert accuracy.scorer.startswith("hotcoco ")


def test_the_order_of_shards_does_not_change_the_file_of_detections(tmp_path):
    ground_truth, whole = make_case(5, images=5, objects=30, detections=100, levels=2)
    storage = ArtifactStorage(str(tmp_path))
    hashes = {
        score_detections(ground_truth, split(whole, pieces, seed), storage).detections_sha256
        for pieces, seed in [(1, 0), (2, 1), (5, 2)]
    }
    assert len(hashes) == 1
