"""The architecture of a detector, inferred from the shapes that a file holds."""

import math
from dataclasses import dataclass, replace

import numpy as np

from tasks.detector.anchors import anchors
from tasks.detector.ssd_mobilenet_v1 import BACKBONE, AnchorSpec, SSDMobileNetV1Spec, feature_map_sizes
from tasks.errors import ModelMistake

_FIRST_CHANNELS = 32
"""Output channels of `Conv2d_0` at depth multiplier 1."""

_MIN_DEPTHS = (16, 8, 1)
"""Least channel numbers tried, the default of the TF1 configurations first."""

BOX_CODE = 4
"""Numbers that encode one box."""


@dataclass(frozen=True)
class Shapes:
    """What a file says about the architecture of its detector."""

    image_size: int
    """Side of the square input in pixels."""

    backbone: tuple[int, ...]
    """Output channels of `Conv2d_0` and of the 13 pointwise convolutions."""

    extras: tuple[int, ...]
    """Output channels of the extra 3x3 convolutions."""

    source_blocks: tuple[int, ...]
    """Backbone blocks that carry heads."""

    box_channels: tuple[int, ...]
    """Output channels of the box head of each feature map."""

    score_channels: tuple[int, ...]
    """Output channels of the class head of each feature map."""


@dataclass(frozen=True)
class StoredAnchors:
    """Anchors found in a file."""

    values: np.ndarray
    """(A, 4) float32 [ycenter, xcenter, height, width] as shares of the image side."""

    tolerance: float
    """How far the values may be from the true ones, because of their storage."""


def infer_spec(shapes: Shapes, stored: StoredAnchors | None, origin: str) -> SSDMobileNetV1Spec:
    """Finds the architecture that has these shapes and anchors.

    Args:
        shapes: The shapes in the file.
        stored: The anchors in the file, or None if it has none; then the TF1 defaults are taken.
        origin: What to call the file in an error.

    Returns:
        The architecture. Score columns are COCO ids counted from 0, the background.

    Raises:
        ModelMistake: If no SSD MobileNetV1 has these shapes, or none of its anchor settings gives these anchors.
    """
    counts, classes = _anchors_and_classes(shapes, origin)
    multiplier, min_depth = _depth_multiplier(shapes.backbone, origin)
    try:
        spec = SSDMobileNetV1Spec(
            depth_multiplier=multiplier,
            image_size=shapes.image_size,
            class_ids=tuple(range(classes)),
            min_depth=min_depth,
            source_blocks=shapes.source_blocks,
            extra_depths=_extra_depths(shapes.extras, multiplier, min_depth),
        )
    except ValueError as error:
        raise ModelMistake(f"{origin} is not an SSD MobileNetV1: {error}") from error
    return _with_anchors(spec, counts, stored, origin)


def _anchors_and_classes(shapes: Shapes, origin: str) -> tuple[tuple[int, ...], int]:
    counts = tuple(channels // BOX_CODE for channels in shapes.box_channels)
    classes = {
        divmod(channels, count) if count else (0, 1)
        for channels, count in zip(shapes.score_channels, counts, strict=True)
    }
    whole = all(channels % BOX_CODE == 0 for channels in shapes.box_channels)
    if not whole or len(classes) != 1 or next(iter(classes))[1] != 0:
        raise ModelMistake(
            f"{origin} is not an SSD: its heads have {shapes.box_channels} box channels and {shapes.score_channels} "
            "score channels, which must be 4 and the number of classes for each anchor"
        )
    return counts, classes.pop()[0]


def _depth_multiplier(widths: tuple[int, ...], origin: str) -> tuple[float, int]:
    nominal = (_FIRST_CHANNELS, *(channels for channels, _ in BACKBONE))
    for min_depth in _MIN_DEPTHS:
        free = [(width, base) for width, base in zip(widths, nominal, strict=True) if width > min_depth]
        if not free:
            continue
        multiplier = _roundest(max(w / base for w, base in free), min((w + 1) / base for w, base in free))
        if multiplier and all(
            max(int(base * multiplier), min_depth) == width for width, base in zip(widths, nominal, strict=True)
        ):
            return multiplier, min_depth
    raise ModelMistake(
        f"{origin} is not an SSD MobileNetV1: its backbone has {widths} channels, which is no multiple of {nominal}"
    )


def _roundest(low: float, high: float) -> float | None:
    """Returns the number with the fewest decimals in [low, high), or None if there is none."""
    for decimals in range(1, 10):
        candidate = math.ceil(low * 10**decimals - 1e-9) / 10**decimals
        if low - 1e-12 <= candidate < high:
            return candidate
    return None


def _extra_depths(widths: tuple[int, ...], multiplier: float, min_depth: int) -> tuple[int, ...]:
    usual = SSDMobileNetV1Spec.extra_depths
    if widths == tuple(max(int(depth * multiplier), min_depth) for depth in usual):
        return usual
    return tuple(math.ceil(width / multiplier - 1e-9) for width in widths)


def _with_anchors(
    spec: SSDMobileNetV1Spec, counts: tuple[int, ...], stored: StoredAnchors | None, origin: str
) -> SSDMobileNetV1Spec:  # fmt: skip
    candidates = [AnchorSpec(), AnchorSpec(reduce_boxes_in_lowest_layer=False)]
    if stored is not None and stored.values.shape == (_total(spec, counts), BOX_CODE):
        candidates.append(_read_off(stored.values, counts, spec))
    for settings in candidates:
        candidate = _replaced(spec, settings)
        fits = tuple(candidate.anchors_per_location(index) for index in range(candidate.feature_maps)) == counts
        if fits and (stored is None or _agree(anchors(candidate), stored)):
            return candidate
    if stored is None:
        raise ModelMistake(
            f"{origin} has {counts} anchors a location on its feature maps; without stored anchors only the usual "
            "settings (3 or 6 on the finest, 6 on the others) are understood"
        )
    raise ModelMistake(
        f"the anchors stored in {origin} are not those of an SSD anchor generator (ssd_anchor_generator)"
    )


def _total(spec: SSDMobileNetV1Spec, counts: tuple[int, ...]) -> int:
    return sum(size**2 * count for size, count in zip(feature_map_sizes(spec), counts, strict=True))


def _replaced(spec: SSDMobileNetV1Spec, settings: AnchorSpec) -> SSDMobileNetV1Spec:
    return replace(spec, anchors=settings)


def _agree(made: np.ndarray, stored: StoredAnchors) -> bool:
    return made.shape == stored.values.shape and bool(np.abs(made - stored.values).max() <= stored.tolerance)


def _read_off(values: np.ndarray, counts: tuple[int, ...], spec: SSDMobileNetV1Spec) -> AnchorSpec:
    """Reads the settings from the anchors at the first location of each map."""
    firsts, start = [], 0
    for size, count in zip(feature_map_sizes(spec), counts, strict=True):
        firsts.append(values[start : start + count, 2:].astype(np.float64))
        start += size**2 * count
    scales = [np.round(np.sqrt(sides[:, 0] * sides[:, 1]), 6) for sides in firsts]
    ratios = np.round(firsts[-1][:, 1] / firsts[-1][:, 0], 5)
    between = len(ratios) > 1 and abs(scales[-1][-1] - scales[-1][0]) > 1e-4
    reduced = counts[0] == 3 and len(counts) > 1 and counts[1] != 3
    return AnchorSpec(
        # The first anchor of a reduced finest map is the small extra one.
        min_scale=float(scales[0][1] if reduced else scales[0][0]),
        max_scale=float(scales[-1][0]),
        aspect_ratios=tuple(float(ratio) for ratio in (ratios[:-1] if between else ratios)),
        interpolated_scale_aspect_ratio=float(ratios[-1]) if between else 0.0,
        reduce_boxes_in_lowest_layer=reduced,
    )
