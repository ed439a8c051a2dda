"""Matches: shards and their order do not matter."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.average_precision import average_precision
from tasks.errors import ScoringFailed
from tasks.matches import Matches, join, match
from tests.benchmarks.uncertainty import sample_matches
from tests.tasks.test_score import cases, make_case, split


def assert_same(ours: Matches, theirs: Matches) -> None:
    for name in (field.name for field in dataclasses.fields(Matches)):
        one, other = getattr(ours, name), getattr(theirs, name)
        assert one.dtype == other.dtype, name
        np.testing.assert_array_equal(one, other, err_msg=name)


@given(cases, st.integers(1, 9), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_images_matched_apart_and_joined_are_as_if_matched_at_once(case, pieces, seed):
    ground_truth, shard = case
    whole = match(ground_truth, shard)
    joined = join([match(ground_truth, part) for part in split(shard, pieces, seed)])
    assert_same(joined, whole)
    assert average_precision(joined) == average_precision(whole)


@given(cases, st.permutations(range(4)), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_parts_may_be_joined_in_any_order_and_step_by_step(case, order, first):
    ground_truth, shard = case
    parts = [match(ground_truth, part) for part in split(shard, 4, seed=0)]
    mixed = [parts[index] for index in order]
    assert_same(join([join(mixed[:first]), join(mixed[first:])]), join(parts))


def test_an_image_in_two_parts_is_refused():
    matches = sample_matches(0.7, 0, 20)
    with pytest.raises(ScoringFailed, match=r"image ids \[0, 1, 2\] occur more than once"):
        join([matches, matches])


def test_parts_with_different_categories_are_refused():
    first, second = make_case(0, 3, 9, 30, 5), make_case(1, 3, 9, 30, 5)
    with pytest.raises(ScoringFailed, match="different categories"):
        join([match(*first), match(*second)])


@given(cases, st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_the_order_of_the_images_does_not_change_the_matches(case, seed):
    ground_truth, shard = case
    ours, shuffled = match(ground_truth, shard), match(ground_truth, split(shard, 1, seed)[0])
    for name in (field.name for field in dataclasses.fields(Matches)):
        np.testing.assert_array_equal(getattr(ours, name), getattr(shuffled, name))


def test_images_outside_the_ground_truth_are_refused():
    ground_truth, shard = make_case(0, images=3, objects=9, detections=30, levels=5)
    ground_truth["images"] = ground_truth["images"][:1]
    with pytest.raises(ScoringFailed, match="not in the ground truth"):
        match(ground_truth, shard)


def test_arrays_that_do_not_belong_together_are_no_matches():
    matches = sample_matches(0.7, 0, 20)
    with pytest.raises(ValueError, match="detections have arrays of the shapes"):
        dataclasses.replace(matches, scores=matches.scores[1:])
    with pytest.raises(ValueError, match="starts"):
        dataclasses.replace(matches, category_ids=matches.category_ids[1:])
