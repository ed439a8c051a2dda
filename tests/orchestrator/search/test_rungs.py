from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.search.rungs import SMALLEST_IMAGES, SMALLEST_SHARE, rungs
from tasks.looks import spent_levels


@given(st.integers(1, 20_000), st.sampled_from([0.01, 0.05, 0.2]))
def test_each_look_is_on_about_twice_the_images_of_the_one_before_and_the_last_on_all(images, error_rate):
    found = rungs(images, error_rate)

    sizes = [rung.images for rung in found]
    assert sizes[-1] == images
    assert all(2 * small - 1 <= large <= 2 * small for small, large in pairwise(sizes))
    assert [rung.is_last for rung in found] == [False] * (len(found) - 1) + [True]
    if len(found) > 1:
        assert sizes[0] >= max(SMALLEST_IMAGES, images * SMALLEST_SHARE)


@given(st.integers(1, 20_000), st.sampled_from([0.01, 0.05, 0.2]))
def test_early_looks_share_the_error_rate_and_the_last_one_has_an_ordinary_interval(images, error_rate):
    *early, last = rungs(images, error_rate)

    assert tuple(rung.level for rung in early) == spent_levels([rung.images for rung in early], images, error_rate)
    assert last.level == 1 - error_rate


@pytest.mark.parametrize(
    ("images", "sizes"),
    [(80, [20, 40, 80]), (5000, [157, 313, 625, 1250, 2500, 5000]), (39, [20, 39]), (38, [38]), (1, [1])],
)
def test_sizes_of_the_looks(images, sizes):
    assert [rung.images for rung in rungs(images, 0.05)] == sizes


def test_without_early_looks_there_is_one_of_all_images():
    (only,) = rungs(80, 0.05, looks_early=False)

    assert (only.images, only.is_last) == (80, True)
