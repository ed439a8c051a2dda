"""Uncertainty: AP on resampled images is pycocotools' AP, and the interval of the loss is paired."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.average_precision import average_precision
from tasks.errors import ScoringFailed
from tasks.matches import Matches, match
from tasks.types import DetectionShard
from tasks.uncertainty import loss_interval
from tests.benchmarks.uncertainty import sample_matches
from tests.tasks.test_average_precision import box, repeated, without_ties
from tests.tasks.test_score import cases, make_case, split


def pair(quality: float = 0.66, seed: int = 0, images: int = 150) -> tuple[Matches, Matches]:
    """Two detectors that mostly find the same objects."""
    return sample_matches(0.72, seed, images), sample_matches(quality, seed, images)


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
    monkeypatch.setattr("tasks.average_precision._BLOCK_CELLS", 1)
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


@pytest.mark.parametrize("wrong", [{"resamples": 0}, {"level": 0.0}, {"level": 95}])
def test_numbers_of_resamples_and_levels_out_of_range_are_refused(wrong):
    reference, variant = pair(images=20)
    with pytest.raises(ValueError, match="at least 1 and in"):
        loss_interval(reference, variant, **wrong)


@given(cases, st.integers(0, 2**32), st.sampled_from(["AP", "AP50", "AP75"]))
@settings(max_examples=20, deadline=None)
def test_a_weight_is_as_good_as_the_image_written_down_that_many_times(case, seed, metric):
    ground_truth, shard = case[0], without_ties(case[1])
    worse = DetectionShard(shard.image_ids, shard.detections[::3], 0.0, 0.0)
    weights = np.random.default_rng(seed).integers(0, 4, len(shard.image_ids))
    pairs = match(ground_truth, shard), match(ground_truth, worse)
    if average_precision(pairs[0], weights) < 0:
        return
    weighted = loss_interval(*pairs, 30, metric=metric, weights=weights)
    written = loss_interval(
        *(match(*repeated(ground_truth, each, weights)) for each in (shard, worse)), 30, metric=metric
    )
    assert weighted.images == written.images == weights.sum()
    assert (weighted.loss, weighted.low, weighted.high) == pytest.approx(
        (written.loss, written.low, written.high), abs=1e-12
    )


@given(st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_images_of_weight_zero_do_not_exist(seed):
    ground_truth, shard = make_case(seed, images=6, objects=40, detections=200, levels=100)
    part = split(shard, 2, seed=0)[0]
    weights = np.isin(np.sort(shard.image_ids), part.image_ids).astype(int)
    worse = DetectionShard(shard.image_ids, shard.detections[::2], 0.0, 0.0)
    whole, few = (
        [match(ground_truth, each) for each in both] for both in ((shard, worse), (part, split(worse, 2, seed=0)[0]))
    )
    if average_precision(few[0]) < 0:
        return
    ours, theirs = loss_interval(*whole, 30, weights=weights), loss_interval(*few, 30)
    assert (ours.loss, ours.low, ours.high) == pytest.approx((theirs.loss, theirs.low, theirs.high), abs=1e-12)
    assert ours.images == theirs.images == 3


def test_weights_of_one_are_no_weights():
    reference, variant = pair(images=40)
    assert loss_interval(reference, variant, 50, weights=np.ones(40, int)) == loss_interval(reference, variant, 50)


def test_the_numbers_are_those_that_databases_hold():
    """A change of these needs another `INTERVAL_METHOD`."""
    interval = loss_interval(*pair(images=60), 200, seed=7)
    assert (interval.loss, interval.low, interval.high) == pytest.approx(
        (0.05940526508497976, 0.05185867107717614, 0.07056792121133242), abs=1e-14
    )


@pytest.mark.parametrize("metric", ["AP", "AP50", "AP75"])
def test_the_loss_is_that_of_the_metric_and_lies_within_its_interval(metric):
    reference, variant = pair(0.6, images=100)
    interval = loss_interval(reference, variant, 200, metric=metric)
    assert interval.loss == average_precision(reference, metric=metric) - average_precision(variant, metric=metric)
    assert 0 < interval.low < interval.loss < interval.high


def test_a_relative_loss_is_a_share_of_the_reference_in_every_resample():
    reference, variant = pair(0.6, images=100)
    share, points = (loss_interval(reference, variant, 200, is_relative=relative) for relative in (True, False))
    assert share.loss == pytest.approx(points.loss / average_precision(reference), abs=1e-15)
    assert share.low < share.loss < share.high
    nothing = dataclasses.replace(variant, found=np.zeros_like(variant.found))
    all_of_it = loss_interval(reference, nothing, 50, is_relative=True)
    assert (all_of_it.loss, all_of_it.low, all_of_it.high) == (1, 1, 1)


def test_nothing_is_a_share_of_a_reference_that_finds_nothing():
    reference, variant = pair(images=20)
    nothing = dataclasses.replace(reference, found=np.zeros_like(reference.found))
    with pytest.raises(ScoringFailed, match="the reference's AP is 0 on these images"):
        loss_interval(nothing, variant, 20, is_relative=True)


def test_without_any_object_among_the_weighted_images_there_is_no_loss():
    reference, variant = pair(images=20)
    with pytest.raises(ScoringFailed, match="no object on these images"):
        loss_interval(reference, variant, 20, weights=np.zeros(20, int))
