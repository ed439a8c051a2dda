"""Augmentation: what is done to a training image before it is learned from, the same for every framework.

Source: TensorFlow Object Detection API (TF1), `core/preprocessor.py`: `ssd_random_crop`, `_strict_random_crop_image`,
`random_horizontal_flip`, `random_distort_color`; and of TensorFlow `sample_distorted_bounding_box`.
"""

from typing import NamedTuple

import numpy as np

from tasks.training.recipe import Augmentation
from tasks.training.targets import shares_inside

COVERED_SHARES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""A crop draws one of them: one object at least must lie in the window by this share, and those that lie in it by a
smaller one are dropped."""

CROP_AREA = (0.1, 1.0)
"""Least and greatest share of the image that a crop takes."""

CROP_ASPECT = (0.5, 2.0)
"""Least and greatest width / height of a crop."""

_TRIES = 100
_BRIGHTNESS = 32.0
_CONTRAST = (0.5, 1.5)
_SATURATION = (0.5, 1.5)
_HUE = 0.2


class Window(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def augmented(
    pixels: np.ndarray,
    boxes: np.ndarray,
    columns: np.ndarray,
    crowds: np.ndarray,
    random: np.random.Generator,
    settings: Augmentation,
    side: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Takes a random part of an image, resizes it as the evaluation does, flips it and changes its colours.

    With `NO_AUGMENTATION` the pixels are those of `tasks.coco.preprocess`, byte for byte.

    Args:
        pixels: (H, W, 3) uint8 RGB, the upright image at its own size.
        boxes: (N, 4) float [ymin, xmin, ymax, xmax] in [0, 1], as shares of the image's height and width.
        columns: (N,) int score column of each object.
        crowds: (N,) bool, which objects are crowds.
        random: Where the draws come from; how many are drawn depends on what was drawn before.
        settings: How often each change is made.
        side: Side of the detector's square input in pixels.

    Returns:
        pixels (side, side, 3) uint8 RGB; boxes (M, 4) float32 in [0, 1], clipped to the part; columns (M,) and crowds
        (M,) of the M objects that are left: those whose share inside the part is large enough, and every crowd of
        which anything is left.
    """
    is_cropped, is_mirrored, is_coloured = random.random(3) < (settings.crop, settings.mirror, settings.colour)
    boxes = np.asarray(boxes, np.float32)
    if is_cropped:
        least = COVERED_SHARES[random.integers(len(COVERED_SHARES))]
        window = window_of(boxes[~crowds], pixels.shape[0], pixels.shape[1], least, random)
        if window is not None:
            boxes, columns, crowds = cropped(boxes, columns, crowds, window, pixels.shape[:2], least)
            pixels = pixels[window.top : window.top + window.height, window.left : window.left + window.width]
    small = _resized(pixels, side)
    if is_mirrored:
        small, boxes = mirrored(small, boxes)
    return recoloured(small, random) if is_coloured else small, boxes, columns, crowds


def window_of(objects: np.ndarray, height: int, width: int, least: float, random: np.random.Generator) -> Window | None:
    """Draws a part of an image that shows enough of one object: `sample_distorted_bounding_box`.

    Args:
        objects: (N, 4) float [ymin, xmin, ymax, xmax] in [0, 1]; if there are none, the whole image is one.
        height: Of the image in pixels.
        width: Of the image in pixels.
        least: Share of one object at least that must lie inside.
        random: Where the draws come from.

    Returns:
        The first of 100 draws that keeps the rules, None if none does.
    """
    aspects = random.uniform(*CROP_ASPECT, _TRIES)
    lowest, highest = (np.sqrt(share * height * width / aspects) for share in CROP_AREA)
    highest = np.minimum(highest, np.minimum(height, width / aspects))
    heights = np.rint(lowest + np.maximum(highest - lowest, 0) * random.random(_TRIES))
    widths = np.rint(heights * aspects)
    tops = np.floor(random.random(_TRIES) * (height - heights + 1))
    lefts = np.floor(random.random(_TRIES) * (width - widths + 1))
    shares = heights * widths / (height * width)
    is_inside = (heights >= 1) & (widths >= 1) & (heights <= height) & (widths <= width)
    keeps_area = (shares >= CROP_AREA[0]) & (shares <= CROP_AREA[1])
    corners = np.stack([tops, lefts, tops + heights, lefts + widths], axis=1) / [height, width, height, width]
    whole = np.array([[0.0, 0.0, 1.0, 1.0]])
    is_covered = shares_inside(objects if len(objects) else whole, corners).max(axis=0) >= least
    kept = np.flatnonzero(is_inside & keeps_area & is_covered)
    if not len(kept):
        return None
    return Window(*(int(sides[kept[0]]) for sides in (tops, lefts, heights, widths)))


def cropped(
    boxes: np.ndarray,
    columns: np.ndarray,
    crowds: np.ndarray,
    window: Window,
    size: tuple[int, ...],
    least: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keeps the objects of a part of an image.

    Args:
        boxes: (N, 4) float [ymin, xmin, ymax, xmax] in [0, 1], as shares of the image's height and width.
        columns: (N,) int score column of each object.
        crowds: (N,) bool, which objects are crowds.
        window: The part.
        size: Height and width of the image in pixels.
        least: Share of an object that must lie inside; of a crowd, any share will do.

    Returns:
        boxes (M, 4) float32 in [0, 1], as shares of the part, clipped to it; columns (M,); crowds (M,).
    """
    extent = np.array([size[0], size[1], size[0], size[1]], np.float64)
    first = np.array([window.top, window.left] * 2, np.float64)
    sides = np.array([window.height, window.width] * 2, np.float64)
    last = first[:2] + sides[:2]
    inside = shares_inside(boxes, np.concatenate([first[:2], last])[None] / extent)[:, 0]
    moved = ((np.asarray(boxes, np.float64) * extent - first) / sides).clip(0, 1).astype(np.float32)
    kept = (inside > 0) & (crowds | (inside >= least)) & (moved[:, 2:] > moved[:, :2]).all(axis=1)
    return moved[kept], columns[kept], crowds[kept]


def mirrored(pixels: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flips an image left to right.

    Args:
        pixels: (H, W, 3) uint8.
        boxes: (N, 4) float [ymin, xmin, ymax, xmax] as shares of the image's sides.

    Returns:
        The flipped pixels and boxes.
    """
    return pixels[:, ::-1], np.stack([boxes[:, 0], 1 - boxes[:, 3], boxes[:, 2], 1 - boxes[:, 1]], axis=1)


def recoloured(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Changes brightness, then saturation, hue and contrast, in one of two orders: `random_distort_color`.

    Brightness moves by up to 32 of 255, hue by up to a fifth of the circle; saturation and the distance of each channel
    from its mean are multiplied by 0.5 to 1.5. The result of each is clipped and rounded to uint8.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        random: Where the draws come from.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    brightness, contrast = random.uniform(-_BRIGHTNESS, _BRIGHTNESS), random.uniform(*_CONTRAST)
    saturation, hue = random.uniform(*_SATURATION), random.uniform(-_HUE, _HUE)
    brighter = _mapped(pixels, np.arange(256)[:, None] + np.full(3, brightness))
    if random.random() < 0.5:
        return _contrasted(_tinted(brighter, saturation, hue), contrast)
    return _tinted(_contrasted(brighter, contrast), saturation, hue)


def _contrasted(pixels: np.ndarray, factor: float) -> np.ndarray:
    import cv2

    means = np.array(cv2.mean(pixels)[:3])
    return _mapped(pixels, (np.arange(256)[:, None] - means) * factor + means)


def _tinted(pixels: np.ndarray, saturation: float, hue: float) -> np.ndarray:
    import cv2

    # `_FULL` uses all 256 levels for the circle of hues, so that a turn is an addition that wraps around.
    tinted = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)
    levels = np.arange(256)
    table = np.stack([(levels + round(hue * 256)) % 256, levels * saturation, levels], axis=1)
    return cv2.cvtColor(_mapped(tinted, table), cv2.COLOR_HSV2RGB_FULL)


def _mapped(pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replaces each value of each channel by what a (256, 3) table says, clipped and rounded."""
    import cv2

    return cv2.LUT(np.ascontiguousarray(pixels), np.rint(table).clip(0, 255).astype(np.uint8)[:, None])


def _resized(pixels: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))
