import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.training.augmentation import (
    COVERED_SHARES,
    CROP_AREA,
    CROP_ASPECT,
    Window,
    augmented,
    cropped,
    mirrored,
    recoloured,
    window_of,
)
from tasks.training.recipe import NO_AUGMENTATION, Augmentation

ALWAYS_CROPPED = Augmentation(mirror=0, crop=1, colour=0)
ALWAYS_MIRRORED = Augmentation(mirror=1, crop=0, colour=0)
ALWAYS_COLOURED = Augmentation(mirror=0, crop=0, colour=1)
EVERYTHING = Augmentation(mirror=1, crop=1, colour=1)

PICTURE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
PICTURE[20:60, 30:90] //= 3
BOXES = np.array([[0.2, 0.25, 0.7, 0.75], [0.0, 0.0, 0.3, 0.2], [0.5, 0.1, 1.0, 1.0]], np.float32)
COLUMNS = np.array([4, 2, 9], np.int32)
CROWDS = np.array([False, False, True])


def drawn(settings: Augmentation, seed: int = 0, side: int = 40) -> tuple[np.ndarray, ...]:
    return augmented(PICTURE, BOXES, COLUMNS, CROWDS, np.random.default_rng(seed), settings, side)


@st.composite
def objects(draw: st.DrawFn) -> np.ndarray:
    share, length = st.floats(0, 1), st.floats(0.01, 1)
    found = draw(st.lists(st.tuples(share, share, length, length), max_size=5))
    corners = [[y * (1 - h), x * (1 - w), y * (1 - h) + h, x * (1 - w) + w] for y, x, h, w in found]
    return np.array(corners, np.float32).reshape(-1, 4).clip(0, 1)


def covered(box: list[float], window: Window, height: int, width: int) -> float:
    """The share of a box that lies in a window."""
    top, left, bottom, right = box[0] * height, box[1] * width, box[2] * height, box[3] * width
    high = min(bottom, window.top + window.height) - max(top, window.top)
    wide = min(right, window.left + window.width) - max(left, window.left)
    return max(high, 0) * max(wide, 0) / ((bottom - top) * (right - left))


def test_without_augmentation_an_image_is_resized_and_nothing_else() -> None:
    pixels, boxes, columns, crowds = drawn(NO_AUGMENTATION)
    expected = Image.fromarray(PICTURE).resize((40, 40), Image.Resampling.BILINEAR)
    assert pixels.tobytes() == expected.tobytes()
    assert (boxes == BOXES).all() and (columns == COLUMNS).all() and (crowds == CROWDS).all()


@pytest.mark.parametrize("change", [ALWAYS_CROPPED, ALWAYS_MIRRORED, ALWAYS_COLOURED, EVERYTHING])
def test_equal_seeds_give_equal_images_and_each_change_changes_them(change: Augmentation) -> None:
    first, again = drawn(change, seed=3), drawn(change, seed=3)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (first[0] != drawn(NO_AUGMENTATION)[0]).any()
    assert first[0].shape == (40, 40, 3) and first[0].dtype == np.uint8


def test_the_original_image_is_left_as_it_is() -> None:
    before = PICTURE.copy(), BOXES.copy()
    for seed in range(5):
        drawn(EVERYTHING, seed)
    assert (before[0] == PICTURE).all() and (before[1] == BOXES).all()


def test_each_change_is_made_to_its_share_of_the_images() -> None:
    plain = drawn(NO_AUGMENTATION)[0]
    flipped = plain[:, ::-1]
    images = [drawn(Augmentation(mirror=0.3, crop=0, colour=0), seed)[0] for seed in range(400)]
    assert all((image == plain).all() or (image == flipped).all() for image in images)
    assert np.mean([(image == flipped).all() for image in images]) == pytest.approx(0.3, abs=0.07)


def test_a_mirrored_object_is_where_its_pixels_are() -> None:
    blank = np.zeros((40, 40, 3), np.uint8)
    blank[10:20, 4:12] = 255
    pixels, boxes = mirrored(blank, np.array([[10, 4, 20, 12]], np.float32) / 40)
    top, left, bottom, right = (boxes[0] * 40).round().astype(int)
    assert (pixels[top:bottom, left:right] == 255).all() and pixels.sum() == blank.sum()


@settings(deadline=None)
@given(boxes=objects())
def test_mirroring_twice_changes_nothing(boxes: np.ndarray) -> None:
    pixels, again = mirrored(*mirrored(PICTURE, boxes))
    np.testing.assert_array_equal(pixels, PICTURE)
    np.testing.assert_allclose(again, boxes, atol=1e-7)


@settings(max_examples=150, deadline=None)
@given(
    boxes=objects(),
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    least=st.sampled_from(COVERED_SHARES),
    seed=st.integers(0, 2**20),
)
def test_a_window_lies_in_the_image_keeps_area_and_aspect_and_shows_enough_of_one_object(
    boxes: np.ndarray, height: int, width: int, least: float, seed: int
) -> None:
    window = window_of(boxes, height, width, least, np.random.default_rng(seed))
    if window is None:
        return
    assert window.top >= 0 and window.top + window.height <= height and window.height >= 1
    assert window.left >= 0 and window.left + window.width <= width and window.width >= 1
    assert CROP_AREA[0] <= window.height * window.width / (height * width) <= CROP_AREA[1]
    # The width is rounded to whole pixels after the aspect ratio was drawn.
    assert (window.width - 0.5) / window.height <= CROP_ASPECT[1]
    assert (window.width + 0.5) / window.height >= CROP_ASPECT[0]
    shown = boxes.tolist() or [[0, 0, 1, 1]]
    assert max(covered(box, window, height, width) for box in shown) >= least - 1e-6


def test_windows_are_of_every_size_and_place() -> None:
    random = np.random.default_rng(0)
    windows = [window_of(BOXES[:1], 300, 400, 0.0, random) for _ in range(300)]
    areas = [window.height * window.width / 120000 for window in windows if window]
    assert len(areas) == 300
    assert min(areas) < 0.15 and max(areas) > 0.75
    assert {window.top < 30 for window in windows if window} == {True, False}
    assert {window.left > 100 for window in windows if window} == {True, False}


def test_an_image_that_has_no_window_stays_whole() -> None:
    # A strip of 1 x 100 pixels has no part of a tenth of its area that is at most twice as wide as high.
    strip = np.zeros((1, 100, 3), np.uint8)
    nothing = np.empty((0, 4), np.float32), np.empty(0, np.int32), np.empty(0, bool)
    pixels, *_ = augmented(strip, *nothing, np.random.default_rng(0), ALWAYS_CROPPED, 8)
    assert pixels.shape == (8, 8, 3)
    assert window_of(nothing[0], 1, 100, 0.0, np.random.default_rng(0)) is None


@settings(max_examples=150, deadline=None)
@given(boxes=objects(), least=st.sampled_from(COVERED_SHARES), seed=st.integers(0, 2**20), data=st.data())
def test_a_crop_keeps_the_objects_of_which_enough_is_left_and_clips_them(
    boxes: np.ndarray, least: float, seed: int, data: st.DataObject
) -> None:
    crowds = np.array(data.draw(st.lists(st.booleans(), min_size=len(boxes), max_size=len(boxes))), bool)
    window = window_of(boxes, 90, 120, least, np.random.default_rng(seed))
    if window is None:
        return
    moved, kept, flags = cropped(boxes, np.arange(len(boxes)), crowds, window, (90, 120), least)
    for index, box in enumerate(boxes.tolist()):
        share = covered(box, window, 90, 120)
        needed = 0 if crowds[index] else least
        if share > max(needed, 0) + 1e-6:
            assert index in kept
        if share < needed - 1e-6 or share == 0:
            assert index not in kept
    assert (flags == crowds[kept]).all()
    assert ((moved >= 0) & (moved <= 1)).all() and (moved[:, 2:] > moved[:, :2]).all()
    size, first = np.array([90, 120] * 2), np.array([window.top, window.left] * 2)
    sides = np.array([window.height, window.width] * 2)
    expected = np.clip(boxes[kept] * size, first, first + sides)
    np.testing.assert_allclose(moved * sides + first, expected, atol=1e-3)


def test_the_pixels_of_a_cropped_object_are_where_its_box_is() -> None:
    scene = np.zeros((200, 300, 3), np.uint8)
    scene[60:140, 90:210] = 255
    place = np.array([[60 / 200, 90 / 300, 140 / 200, 210 / 300]], np.float32)
    for seed in range(30):
        pixels, boxes, _, _ = augmented(
            scene, place, COLUMNS[:1], CROWDS[:1], np.random.default_rng(seed), Augmentation(0.5, 1, 0), 100
        )
        assert pixels.mean() == pytest.approx(255 * sum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)), abs=3)


@pytest.mark.parametrize("seed", range(40))
def test_augmented_boxes_lie_in_the_image_and_keep_their_column(seed: int) -> None:
    _, boxes, columns, crowds = drawn(Augmentation(0.5, 1, 0), seed)
    assert ((boxes >= 0) & (boxes <= 1)).all() and (boxes[:, 2:] > boxes[:, :2]).all()
    assert boxes.dtype == np.float32
    assert len(boxes) == len(columns) == len(crowds) <= 3
    assert (crowds == (columns == 9)).all()


def test_a_grey_image_keeps_its_grey_and_a_black_one_can_only_become_brighter() -> None:
    grey = np.repeat(np.random.default_rng(1).integers(0, 256, (20, 20, 1), np.uint8), 3, axis=2)
    for seed in range(10):
        found = recoloured(grey, np.random.default_rng(seed)).astype(int)
        assert np.ptp(found, axis=2).max() <= 1
        assert recoloured(np.zeros((4, 4, 3), np.uint8), np.random.default_rng(seed)).max() <= 32


def test_colours_move_as_far_as_they_may() -> None:
    flat = np.full((8, 8, 3), (120, 100, 80), np.uint8)
    found = np.array([recoloured(flat, np.random.default_rng(seed))[0, 0] for seed in range(200)], int)
    # A flat image has no contrast; brightness moves its brightest channel, saturation the distance between channels.
    assert 120 - 32 <= found.max(axis=1).min() < 95 and 145 < found.max(axis=1).max() <= 120 + 32
    spread = np.ptp(found, axis=1) / found.max(axis=1)
    assert spread.min() < 40 / 120 * 0.75 and spread.max() > 40 / 120 * 1.25
    # Its hue is 30 degrees, and moves by up to 72.
    hues = [(360 * colorsys.rgb_to_hsv(*colour)[0] + 180) % 360 - 180 for colour in (found / 255).tolist()]
    assert -46 < min(hues) < -30 and 90 < max(hues) < 106
