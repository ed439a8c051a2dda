"""A synthetic detection set in COCO format: cluttered scenes of twelve flat shapes, the same bytes for the same seed.

The classes differ by outline alone; colour, shading, lighting, size and place say nothing about them. Scenes hold
small, medium and large objects in COCO's sense, crowds of overlapping ones, and distractors of no class.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import DataMistake

CATEGORIES: dict[int, str] = {
    1: "circle", 2: "square", 3: "triangle", 5: "diamond", 7: "star", 8: "cross", 10: "ring", 11: "arrow",
    13: "heart", 16: "moon", 17: "house", 20: "bolt",
}  # fmt: skip
"""Name of each category by its id. The ids have gaps, as COCO's have."""

SIZES: tuple[tuple[int, int], ...] = (
    (320, 240), (320, 256), (320, 288), (320, 320), (288, 320), (256, 320), (240, 320)
)  # fmt: skip
"""(width, height) of the images in pixels; each scene draws one."""

_JPEG_QUALITY = 92
_CLUSTER_SHARE = 0.45
_LEAST_VISIBLE = 0.8
_MOST_IOU = 0.4
_LEAST_CONTRAST = 90.0
_SIDES: tuple[tuple[float, float], ...] = ((20.0, 31.0), (36.0, 92.0), (98.0, 150.0))
_SIDE_SHARES = (0.27, 0.45, 0.28)
_MARGIN = 1.0


@dataclass(frozen=True, eq=False)
class Scene:
    """One rendered image and what is in it."""

    pixels: np.ndarray
    """(H, W, 3) uint8 RGB."""

    boxes: np.ndarray
    """(N, 4) float64 [x, y, width, height] in pixels, of each whole shape, also of what others hide of it."""

    category_ids: np.ndarray
    """(N,) int64, keys of `CATEGORIES`."""

    polygons: tuple[np.ndarray, ...]
    """Outline of each object, (P, 2) float64 [x, y] in pixels; a ring is one outline with a seam."""

    areas: np.ndarray
    """(N,) float64, area within each outline in square pixels."""


@dataclass(frozen=True)
class SyntheticSet:
    """Where a synthetic set was written."""

    images: Path
    """Folder of the JPEG files."""

    annotations: Path
    """Annotation file in COCO's instances format."""

    image_ids: tuple[int, ...]
    """Ids of the images, rising."""


def render(seed: int, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Renders one image of a set in memory.

    Args:
        seed: Seed of the set, at least 0.
        index: Position of the image in the set, from 0.

    Returns:
        pixels (H, W, 3) uint8 RGB; boxes (N, 4) float64 [x, y, width, height] in pixels; category ids (N,) int64.
    """
    made = scene(seed, index)
    return made.pixels, made.boxes, made.category_ids


def scene(seed: int, index: int) -> Scene:
    """Renders one image of a set with the outlines of its objects.

    Args:
        seed: Seed of the set, at least 0.
        index: Position of the image in the set, from 0.

    Returns:
        The scene; its pixels are those before JPEG.
    """
    random = np.random.default_rng((seed, index))
    width, height = SIZES[random.integers(len(SIZES))]
    canvas = _Canvas(_background(random, width, height))
    _draw_distractors(canvas.pixels, random, int(random.integers(3, 8)))
    for wish in _wishes(random):
        _try_to_place(canvas, wish, random)
    _draw_distractors(canvas.pixels, random, int(random.integers(0, 2)), thin=True)
    return Scene(
        pixels=_photograph(canvas.pixels, random),
        boxes=np.array([placed.box for placed in canvas.objects]).reshape(-1, 4),
        category_ids=np.array([placed.category_id for placed in canvas.objects], np.int64),
        polygons=tuple(placed.polygon for placed in canvas.objects),
        areas=np.array([_area(placed.polygon) for placed in canvas.objects]),
    )


def write_synthetic(folder: Path, images: int, seed: int, first_id: int = 1) -> SyntheticSet:
    """Writes a set in COCO's instances format: `folder/images/*.jpg` and `folder/annotations.json`.

    Args:
        folder: Where to write; made if missing. Files of the same names are replaced.
        images: Number of images, at least 1.
        seed: Seed of the set, at least 0. Sets of different seeds share no image.
        first_id: Id of the first image; the others follow it. Sets that are used together need distinct ids.

    Returns:
        The paths and the image ids.

    Raises:
        DataMistake: If a number is out of its range or the folder cannot be written.
    """
    for name, value, least in (("images", images, 1), ("seed", seed, 0), ("first_id", first_id, 1)):
        if value < least:
            raise DataMistake(f"{name} of a synthetic set is {value}; it must be at least {least}")
    image_folder = folder / "images"
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    try:
        image_folder.mkdir(parents=True, exist_ok=True)
        for index in range(images):
            made, image_id = scene(seed, index), first_id + index
            records.append(_write_image(image_folder, image_id, made.pixels))
            annotations += _annotations(made, image_id, first_id=len(annotations) + 1)
        target = folder / "annotations.json"
        target.write_text(json.dumps(_instances(records, annotations, seed)), encoding="utf-8")
    except OSError as error:
        raise DataMistake(f"the synthetic set cannot be written to {folder}: {error}") from error
    return SyntheticSet(image_folder, target, tuple(range(first_id, first_id + images)))


def _write_image(folder: Path, image_id: int, pixels: np.ndarray) -> dict[str, Any]:
    from PIL import Image

    name = f"{image_id:012d}.jpg"
    Image.fromarray(pixels).save(folder / name, quality=_JPEG_QUALITY)
    return {"id": image_id, "file_name": name, "width": pixels.shape[1], "height": pixels.shape[0], "license": 1}


def _annotations(made: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    return [
        {
            "id": first_id + position,
            "image_id": image_id,
            "category_id": int(made.category_ids[position]),
            "bbox": [float(value) for value in made.boxes[position]],
            "area": float(made.areas[position]),
            "segmentation": [[float(value) for value in made.polygons[position].ravel()]],
            "iscrowd": 0,
        }
        for position in range(len(made.boxes))
    ]


def _instances(records: list[dict[str, Any]], annotations: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    return {
        "info": {"description": f"quantsweep synthetic shapes, seed {seed}", "version": "1", "contributor": ""},
        "licenses": [{"id": 1, "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}],
        "images": records,
        "annotations": annotations,
        "categories": [{"id": key, "name": name, "supercategory": "shape"} for key, name in CATEGORIES.items()],
    }


# Outlines: contours of points (x, y), y down, about the origin. A second contour is a hole.


def _arc(radius: float, start: float, stop: float, points: int, centre: float = 0.0) -> np.ndarray:
    angles = np.linspace(start, stop, points)
    return np.stack([centre + radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _circle(radius: float = 1.0) -> np.ndarray:
    return _arc(radius, 0.0, 2 * math.pi, 41)[:-1]


def _star() -> np.ndarray:
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    angles = -math.pi / 2 + np.arange(10) * math.pi / 5
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _heart() -> np.ndarray:
    turn = np.linspace(0.0, 2 * math.pi, 41)[:-1]
    x = 16 * np.sin(turn) ** 3
    y = -(13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn))
    return np.stack([x, y], axis=1) / 16


def _moon() -> np.ndarray:
    tip = math.radians(50)
    centre = 0.6
    radius = math.hypot(math.cos(tip) - centre, math.sin(tip))
    inner = math.atan2(math.sin(tip), math.cos(tip) - centre)
    outer_arc = _arc(1.0, tip, 2 * math.pi - tip, 31)
    inner_arc = _arc(radius, 2 * math.pi - inner, inner, 21, centre)
    return np.concatenate([outer_arc, inner_arc[1:-1]])


def _points(*values: tuple[float, float]) -> np.ndarray:
    return np.array(values, np.float64)


_CONTOURS: dict[str, Callable[[], list[np.ndarray]]] = {
    "circle": lambda: [_circle()],
    "square": lambda: [_points((-1, -1), (1, -1), (1, 1), (-1, 1))],
    "triangle": lambda: [_points((0, -1), (1, 0.8), (-1, 0.8))],
    "diamond": lambda: [_points((0, -1), (0.55, 0), (0, 1), (-0.55, 0))],
    "star": lambda: [_star()],
    "cross": lambda: [
        _points((-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3), (0.3, 1), (-0.3, 1), (-0.3, 0.3),
                (-1, 0.3), (-1, -0.3), (-0.3, -0.3))
    ],
    "ring": lambda: [_circle(), _circle(0.55)],
    "arrow": lambda: [
        _points((0, -1), (0.75, -0.1), (0.28, -0.1), (0.28, 1), (-0.28, 1), (-0.28, -0.1), (-0.75, -0.1))
    ],
    "heart": lambda: [_heart()],
    "moon": lambda: [_moon()],
    "house": lambda: [
        _points((0, -1), (1, -0.15), (0.72, -0.15), (0.72, 1), (-0.72, 1), (-0.72, -0.15), (-1, -0.15))
    ],
    "bolt": lambda: [
        _points((0.15, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.3, 1), (0.6, -0.25), (0.05, -0.25), (0.5, -1))
    ],
}  # fmt: skip


def _area(polygon: np.ndarray) -> float:
    x, y = polygon[:, 0], polygon[:, 1]
    return round(float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2), 2)


def _one_outline(contours: list[np.ndarray]) -> np.ndarray:
    if len(contours) == 1:
        return contours[0]
    outer, hole = contours
    return np.concatenate([outer, outer[:1], hole[:1], hole[:0:-1], hole[:1]])


def _turned(contours: list[np.ndarray], side: float, random: np.random.Generator) -> list[np.ndarray]:
    """Stretches, rotates and scales contours so that their area is the square of `side`."""
    angle = math.radians(float(np.clip(random.normal(0, 12), -30, 30)))
    stretch = float(np.exp(random.uniform(-0.18, 0.18)))
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = rotation @ np.diag([stretch, 1 / stretch])
    scale = side / math.sqrt(_exact_area(_one_outline(contours)))
    return [scale * contour @ matrix.T for contour in contours]


def _exact_area(polygon: np.ndarray) -> float:
    x, y = polygon[:, 0], polygon[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


# Composition.


@dataclass(frozen=True)
class _Wish:
    category_id: int
    side: float
    """Square root of the area in pixels."""
    cluster: bool


@dataclass(frozen=True, eq=False)
class _Placed:
    category_id: int
    polygon: np.ndarray
    box: np.ndarray
    cluster: bool
    pixels: int


@dataclass(eq=False)
class _Canvas:
    pixels: np.ndarray
    """(H, W, 3) float32 in [0, 255]."""
    objects: list[_Placed] = field(default_factory=list)
    owner: np.ndarray = field(init=False)
    """(H, W) int16: 1 + position of the object seen at each pixel, 0 for none."""

    def __post_init__(self) -> None:
        self.owner = np.zeros(self.pixels.shape[:2], np.int16)


def _wishes(random: np.random.Generator) -> list[_Wish]:
    ids = list(CATEGORIES)

    def any_category() -> int:
        return ids[random.integers(len(ids))]

    def any_side(kind: int) -> float:
        low, high = _SIDES[kind]
        return float(np.exp(random.uniform(math.log(low), math.log(high))))

    kinds = random.choice(3, size=random.integers(2, 6), p=_SIDE_SHARES)
    wishes = [_Wish(any_category(), any_side(int(kind)), cluster=False) for kind in kinds]
    if random.random() < _CLUSTER_SHARE:
        side = float(np.exp(random.uniform(math.log(26), math.log(64))))
        shared = any_category() if random.random() < 0.5 else None
        for _ in range(random.integers(3, 6)):
            category_id = any_category() if shared is None else shared
            wishes.append(_Wish(category_id, side * random.uniform(0.85, 1.2), cluster=True))
    return sorted(wishes, key=lambda wish: -wish.side)


def _try_to_place(canvas: _Canvas, wish: _Wish, random: np.random.Generator) -> None:
    """Draws the object where it hides no other too much; leaves it out if no place is found."""
    height, width = canvas.owner.shape
    contours = _turned(_CONTOURS[CATEGORIES[wish.category_id]](), wish.side, random)
    low, high = contours[0].min(axis=0), contours[0].max(axis=0)
    room = np.array([width, height]) - 2 * _MARGIN
    shrink = min(1.0, 0.85 * float((room / (high - low)).min()))
    contours, extent, low = [contour * shrink for contour in contours], (high - low) * shrink, low * shrink
    for _ in range(12):
        corner = np.clip(_corner(canvas, wish, extent, room, random), _MARGIN, _MARGIN + room - extent)
        moved = [np.round(contour - low + corner, 2) for contour in contours]
        polygon = _one_outline(moved)
        box = np.concatenate([polygon.min(axis=0), np.round(np.ptp(polygon, axis=0), 2)])
        rows, columns, alpha = _coverage(moved, height, width)
        if not _is_crowded(canvas, wish, box, alpha[..., 0] >= 0.5, canvas.owner[rows, columns]):
            _paint(canvas.pixels[rows, columns], alpha, random)
            inside = alpha[..., 0] >= 0.5
            canvas.objects.append(_Placed(wish.category_id, polygon, box, wish.cluster, int(inside.sum())))
            canvas.owner[rows, columns][inside] = len(canvas.objects)
            return


def _corner(
    canvas: _Canvas, wish: _Wish, extent: np.ndarray, room: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    neighbours = [placed for placed in canvas.objects if placed.cluster and wish.cluster]
    if not neighbours:
        return _MARGIN + random.random(2) * (room - extent)
    neighbour = neighbours[random.integers(len(neighbours))]
    angle, reach = random.uniform(0, 2 * math.pi), random.uniform(0.55, 0.95)
    step = reach * (extent + neighbour.box[2:]) / 2 * np.array([math.cos(angle), math.sin(angle)])
    return neighbour.box[:2] + neighbour.box[2:] / 2 + step - extent / 2


def _is_crowded(canvas: _Canvas, wish: _Wish, box: np.ndarray, inside: np.ndarray, owner: np.ndarray) -> bool:
    if not canvas.objects:
        return False
    same = [placed.box for placed in canvas.objects if placed.category_id == wish.category_id]
    if same and _iou(box, np.array(same)).max() > _MOST_IOU:
        return True
    seen = np.bincount(canvas.owner.ravel(), minlength=len(canvas.objects) + 1)[1:]
    hidden = np.bincount(owner[inside], minlength=len(canvas.objects) + 1)[1:]
    whole = np.array([placed.pixels for placed in canvas.objects])
    return bool(((seen - hidden < _LEAST_VISIBLE * whole) & (hidden > 0)).any())


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    overlap = np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.clip(overlap, 0, None).prod(axis=1)
    return shared / (box[2:].prod() + others[:, 2:].prod(axis=1) - shared)


# Drawing. Everything is float32 in [0, 255] until `_photograph`.


def _coverage(contours: list[np.ndarray], height: int, width: int) -> tuple[slice, slice, np.ndarray]:
    """Returns the rows and columns that the contours touch and the share of each pixel there, (h, w, 1) in [0, 1]."""
    import cv2

    left, top = np.maximum(np.floor(contours[0].min(axis=0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(contours[0].max(axis=0)).astype(int) + 2, [width, height])
    mask = np.zeros((bottom - top, right - left), np.uint8)
    # COCO's coordinates have pixel corners at integers, OpenCV's have pixel centres there.
    fixed = [np.round((contour - [left, top] - 0.5) * 16).astype(np.int32) for contour in contours]
    cv2.fillPoly(mask, fixed, 255, lineType=cv2.LINE_AA, shift=4)
    return slice(top, bottom), slice(left, right), (mask.astype(np.float32) / 255)[..., None]


def _paint(region: np.ndarray, alpha: np.ndarray, random: np.random.Generator) -> None:
    """Blends a shaded colour, far enough from what lies beneath, into a view of the canvas."""
    import cv2

    height, width = region.shape[:2]
    below = (region * alpha).sum(axis=(0, 1)) / alpha.sum()
    colour = _unlike(below, random)
    shade = _ramp(height, width, float(random.uniform(0, 2 * math.pi))) * float(random.uniform(0, 45))
    filling = colour + shade[..., None]
    if random.random() < 0.15:
        filling = filling + _stripes(height, width, random)[..., None] * float(random.uniform(8, 22))
    if random.random() < 0.4:
        edge = cv2.erode(alpha[..., 0], np.ones((3, 3), np.uint8), iterations=1 + (region.shape[0] > 70))[..., None]
        filling = edge * filling + (1 - edge) * (colour * float(random.choice([0.45, 1.5])))
    region[:] = (1 - alpha) * region + alpha * np.clip(filling, 0, 255)


def _unlike(below: np.ndarray, random: np.random.Generator) -> np.ndarray:
    candidates = random.uniform(10, 245, (12, 3)).astype(np.float32)
    distances = np.linalg.norm(candidates - below, axis=1)
    enough = np.flatnonzero(distances >= _LEAST_CONTRAST)
    return candidates[enough[0] if enough.size else distances.argmax()]


def _ramp(height: int, width: int, angle: float) -> np.ndarray:
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(math.sin(angle))
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :] * np.float32(math.cos(angle))
    return y + x


def _stripes(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    angle, period = random.uniform(0, math.pi), random.uniform(5, 26)
    y = np.arange(height, dtype=np.float32)[:, None] * np.float32(math.sin(angle))
    x = np.arange(width, dtype=np.float32)[None, :] * np.float32(math.cos(angle))
    return np.sin((y + x) * np.float32(2 * math.pi / period))


def _background(random: np.random.Generator, width: int, height: int) -> np.ndarray:
    import cv2

    first, second = random.uniform(20, 235, (2, 3)).astype(np.float32)
    mix = (_ramp(height, width, float(random.uniform(0, 2 * math.pi))) / 2.9 + 0.5)[..., None]
    pixels = first * (1 - mix) + (first + (second - first) * np.float32(random.uniform(0.2, 1.0))) * mix
    cells = int(random.integers(3, 14))
    clouds = random.normal(0, 1, (cells, cells, 1 if random.random() < 0.6 else 3)).astype(np.float32)
    clouds = cv2.resize(clouds, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, -1)
    pixels = pixels + clouds * np.float32(random.uniform(4, 16))
    if random.random() < 0.3:
        pixels = pixels + _stripes(height, width, random)[..., None] * np.float32(random.uniform(4, 14))
    return np.ascontiguousarray(np.clip(pixels, 0, 255), np.float32)


def _draw_distractors(pixels: np.ndarray, random: np.random.Generator, count: int, thin: bool = False) -> None:
    """Draws lines, bent lines and ragged blobs, none of any class."""
    import cv2

    height, width = pixels.shape[:2]
    for _ in range(count):
        colour = [float(value) for value in random.uniform(0, 255, 3)]
        start = random.random(2) * [width, height]
        if not thin and random.random() < 0.35:
            radii = random.uniform(0.35, 1.0, 14) * random.uniform(6, 34)
            blob = _arc(1.0, 0, 2 * math.pi, 15)[:-1] * radii[:, None] * random.uniform(0.4, 1.0, 2) + start
            cv2.fillPoly(pixels, [np.round(blob * 16).astype(np.int32)], colour, lineType=cv2.LINE_8, shift=4)
            continue
        steps = random.normal(0, 60, (int(random.integers(1, 4)), 2))
        path = np.round((start + np.concatenate([np.zeros((1, 2)), steps]).cumsum(axis=0)) * 16).astype(np.int32)
        thickness = 1 if thin else int(random.integers(1, 4))
        cv2.polylines(pixels, [path], False, colour, thickness, lineType=cv2.LINE_8, shift=4)


def _photograph(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Lights, tints, blurs and adds sensor noise; returns (H, W, 3) uint8."""
    import cv2

    height, width = pixels.shape[:2]
    light = 1 + _ramp(height, width, float(random.uniform(0, 2 * math.pi)))[..., None] * random.uniform(0, 0.22)
    gain, lift = random.uniform(0.7, 1.1), random.uniform(-10, 20)
    tint = random.uniform(0.88, 1.12, 3).astype(np.float32)
    lit = (pixels * light.astype(np.float32) * tint * np.float32(gain) + np.float32(lift)).astype(np.float32)
    if random.random() < 0.3:
        lit = cv2.GaussianBlur(lit, (0, 0), float(random.uniform(0.4, 1.0)))
    noise = random.standard_normal((height, width, 3), np.float32) * np.float32(random.uniform(1, 6))
    return np.clip(np.round(lit + noise), 0, 255).astype(np.uint8)
