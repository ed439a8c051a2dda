"""Average precision: COCO AP of matches, on all images or on many resamples of them at once."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tasks.matches import IOU_THRESHOLDS, Matches

METRICS: dict[str, slice] = {"AP": slice(0, IOU_THRESHOLDS), "AP50": slice(0, 1), "AP75": slice(5, 6)}
"""AP over all IoU thresholds, or at 0.50 or 0.75 alone: the thresholds that each is a mean over."""

RECALL_POINTS = np.linspace(0.0, 1.0, 101)
"""`Params.recThrs` of pycocotools, to the bit: at 0.35 and others it lies one rounding above the fraction itself."""

_REACHED = np.searchsorted(RECALL_POINTS, np.arange(202) // 2 / 100, side="right") + np.arange(202) % 2
_REACHED[1::2] = np.arange(101) + 1
"""Recall points reached, by the sum of floor and ceiling of the recall in percent: odd between two whole percents."""

_BLOCK_CELLS = 1 << 17
"""Numbers worked on at once: about a MB, so that they stay in the cache."""

_CHUNK_DETECTIONS = 1 << 14
"""Detections of classes that are counted together, so that small classes do not cost a call each."""

_MOST_LANES = 8
"""Resamples packed into one integer at most; more would save no time."""


def average_precision(matches: Matches, weights: np.ndarray | None = None, metric: str = "AP") -> float:
    """Computes COCO AP with each image counted as often as its weight says.

    The formula is that of `COCOeval.accumulate` and `summarize` (pycocotools, `cocoeval.py`): precision made
    non-increasing from the right, read at 101 recall points, averaged over IoU thresholds and over the categories that
    have objects. An image of weight m is an image that occurs m times under ids that follow each other, but for one
    point of convention: where two detections of one class in one image have the same score, copies of a detection
    stay together.

    Args:
        matches: The matches.
        weights: (N,) integers, at least 0; all 1 if None.
        metric: `AP`, `AP50` or `AP75`.

    Returns:
        AP in [0, 1]; -1 if no object is left.

    Raises:
        ValueError: If the weights are not N integers of at least 0, or there is no such metric.
    """
    precision = average_precisions(matches, image_counts(matches, weights)[None], metric)[0]
    return -1.0 if np.isnan(precision) else float(precision)


def image_counts(matches: Matches, weights: np.ndarray | None) -> np.ndarray:
    """Checks how often each image counts.

    Args:
        matches: The matches.
        weights: (N,) integers, at least 0; all 1 if None.

    Returns:
        (N,) int32.

    Raises:
        ValueError: If the weights are not N integers of at least 0.
    """
    counts = np.ones(len(matches.image_ids), np.int32) if weights is None else np.asarray(weights)
    if counts.shape != matches.image_ids.shape or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ValueError(f"weights must be {len(matches.image_ids)} integers, at least 0")
    return counts.astype(np.int32)


def average_precisions(matches: Matches, weights: np.ndarray, metric: str = "AP") -> np.ndarray:
    """Computes AP for many weightings of the images at once; see `average_precision`.

    Args:
        matches: The matches.
        weights: (R, N) integers, at least 0.
        metric: `AP`, `AP50` or `AP75`.

    Returns:
        (R,) AP in [0, 1]; NaN where no object is left.

    Raises:
        ValueError: If there is no such metric.
    """
    if metric not in METRICS:
        raise ValueError(f"there is no metric {metric!r}; choices: {', '.join(METRICS)}")
    heaviest = np.diff(matches.detection_starts).max(initial=0) + np.diff(matches.object_starts).max(initial=0)
    lanes = _Lanes.holding(int(heaviest) * int(weights.max(initial=0)))
    # A column of zeros stands for the image that a list of finds is filled up with.
    packed = lanes.pack(np.hstack([weights, np.zeros((len(weights), 1), weights.dtype)]))
    total = np.zeros((lanes.count, len(packed)))
    classes = np.zeros((lanes.count, len(packed)), np.int64)
    for chunk in _chunks(matches, METRICS[metric]):
        rows = max(1, _BLOCK_CELLS // chunk.cells(lanes))
        for start in range(0, len(packed), rows):
            block = slice(start, start + rows)
            sums, present = chunk.sums(packed[block], lanes)
            total[:, block] += sums
            classes[:, block] += present
    points = len(range(*METRICS[metric].indices(IOU_THRESHOLDS))) * len(RECALL_POINTS)
    mean = np.divide(total / points, classes, out=np.full(total.shape, np.nan), where=classes > 0)
    return mean.ravel()[: len(weights)]


@dataclass(frozen=True)
class _Lanes:
    """How several counts share one int64, so that one addition adds them all: cumulative sums are much of the work.

    Sums may overflow as long as the difference that is read in the end does not: integers wrap.
    """

    bits: int
    """Width of a lane; no count may reach 2 to this power."""

    count: int
    """Lanes in one int64."""

    @classmethod
    def holding(cls, limit: int) -> "_Lanes":
        """As many lanes as can hold counts up to `limit`."""
        bits = max(1, limit.bit_length())
        return cls(bits, max(1, min(63 // bits, _MOST_LANES)))

    def pack(self, counts: np.ndarray) -> np.ndarray:
        """(R, n) counts to (P, n), P = R / lanes rounded up; lane l of row p is row l * P + p, or 0."""
        rows = -(-len(counts) // self.count)
        packed = np.zeros((rows, counts.shape[1]), np.int64)
        for lane in range(self.count):
            part = counts[lane * rows : (lane + 1) * rows]
            packed[: len(part)] += part.astype(np.int64) << (lane * self.bits)
        return packed

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        """(P, ...) to the (lanes, P, ...) counts, as float64."""
        counts = np.empty((self.count, *packed.shape))
        lane = np.empty_like(packed)
        for index, out in enumerate(counts):
            np.right_shift(packed, index * self.bits, out=lane)
            np.bitwise_and(lane, (1 << self.bits) - 1, out=lane)
            out[...] = lane
        return counts


@dataclass(frozen=True)
class _Curves:
    """S curves of precision over recall, each of one class at one IoU threshold, with at most L finds each.

    Precision can only rise where something is found, so a curve is its finds. Shorter ones are filled up with finds of
    an image without weight.
    """

    classes: np.ndarray
    """(S,) position of the class in the chunk."""

    images: np.ndarray
    """(S, L) position of the image of each find; rising with the place in the class's detections."""

    ends: np.ndarray
    """(S, L) detections of the chunk up to and with the find."""

    starts: np.ndarray
    """(S,) detections of the chunk before those of the class."""

    skipped: np.ndarray
    """Which of the S have detections that do not count."""

    skipped_ends: np.ndarray
    """(len(skipped), L) ignored detections of the chunk up to the find."""

    skipped_starts: np.ndarray
    """(len(skipped),) ignored detections of the chunk before those of the curve."""

    def sums(
        self, packed: np.ndarray, shown: np.ndarray, ignored: np.ndarray, drawn: np.ndarray, lanes: _Lanes
    ) -> np.ndarray:
        """Sum of precision over recall points and curves, for each resample.

        Args:
            packed: (P, N + 1) packed weights.
            shown: (P, D + 1) cumulated weights of the chunk's detections.
            ignored: (P, X + 1) those of the ignored ones, by threshold and class.
            drawn: (lanes, P, classes) objects.
            lanes: How to unpack.

        Returns:
            (lanes, P).
        """
        counted = np.take(shown, self.ends, axis=1)
        counted -= np.take(shown, self.starts, axis=1)[:, :, None]
        if len(self.skipped):
            before = np.take(ignored, self.skipped_starts, axis=1)[:, :, None]
            counted[:, self.skipped] -= np.take(ignored, self.skipped_ends, axis=1) - before
        true = lanes.unpack(np.cumsum(np.take(packed, self.images, axis=1), axis=2))
        precision = lanes.unpack(counted)
        precision += np.spacing(1)
        np.divide(true, precision, out=precision)
        # Between two finds precision falls, so the greatest precision at or after a recall is that of a find.
        backwards = precision[..., ::-1]
        np.maximum.accumulate(backwards, axis=-1, out=backwards)
        points = recall_points_reached(true, np.maximum(drawn[:, :, self.classes, None], 1))
        precision[..., 0] *= points[..., 0]
        precision[..., 1:] *= np.diff(points, axis=-1)
        return precision.reshape(*precision.shape[:2], -1).sum(axis=-1)


def recall_points_reached(finds: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Counts the recall points that are reached, compared as floats as pycocotools does.

    Args:
        finds: Whole numbers as float64; overwritten.
        objects: Whole numbers as float64, at least 1, and as many as there are finds.

    Returns:
        How many of `RECALL_POINTS` are at most finds / objects.
    """
    percent = finds
    percent *= 100
    # A ratio of whole numbers is rounded to a whole percent only if it is one.
    percent /= objects
    halves = np.floor(percent)
    halves += np.ceil(percent, out=percent)
    reached: np.ndarray = np.take(_REACHED, halves.astype(np.intp))
    return reached


@dataclass(frozen=True)
class _Chunk:
    """Some classes that have objects, and their detections as far as something is found at all."""

    images: np.ndarray
    """(D,) position of the image of each detection."""

    ignored_images: np.ndarray
    """(X,) position of the image of each ignored detection, by threshold and class."""

    object_images: np.ndarray
    """(G,) position of the image of each object."""

    object_starts: np.ndarray
    """(classes,) where the objects of each class start."""

    curves: tuple[_Curves, ...]
    """Those of similar length together."""

    def cells(self, lanes: _Lanes) -> int:
        """Numbers that the largest array has for each packed row."""
        curves = max((curves.images.size for curves in self.curves), default=0)
        return max(1, len(self.images), len(self.object_images), curves * lanes.count)

    def sums(self, packed: np.ndarray, lanes: _Lanes) -> tuple[np.ndarray, np.ndarray]:
        """Sum of precision over classes, thresholds and recall points, and how many classes have objects left."""
        objects = np.add.reduceat(np.take(packed, self.object_images, axis=1), self.object_starts, axis=1)
        drawn = lanes.unpack(objects)
        shown, ignored = _cumulated(packed, self.images), _cumulated(packed, self.ignored_images)
        total = np.zeros(drawn.shape[:2])
        for curves in self.curves:
            total += curves.sums(packed, shown, ignored, drawn, lanes)
        return total, np.count_nonzero(drawn, axis=2)


def _cumulated(packed: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Weight of the first 0, 1, 2, ... of some images: (P, len(images) + 1)."""
    sums = np.zeros((len(packed), len(images) + 1), np.int64)
    np.cumsum(np.take(packed, images, axis=1), axis=1, out=sums[:, 1:])
    return sums


def _chunks(matches: Matches, thresholds: slice) -> Iterator[_Chunk]:
    """Classes that have objects, in their order, some at a time."""
    present = np.flatnonzero(np.diff(matches.object_starts))
    sizes = np.cumsum(np.diff(matches.detection_starts)[present])
    groups = np.flatnonzero(np.diff(sizes // _CHUNK_DETECTIONS)) + 1
    for columns in np.split(present, groups) if len(present) else ():
        yield _chunk(matches, columns, thresholds)


def _chunk(matches: Matches, columns: np.ndarray, thresholds: slice) -> _Chunk:
    """Gathers some classes."""
    spans = [slice(*matches.detection_starts[column : column + 2]) for column in columns]
    sizes = np.array([span.stop - span.start for span in spans])
    found = np.concatenate([matches.found[thresholds, span] for span in spans], axis=1)
    ignored = np.concatenate([matches.ignored[thresholds, span] for span in spans], axis=1)
    images = np.concatenate([matches.detection_images[span] for span in spans])
    classes = np.repeat(np.arange(len(columns)), sizes)
    useful = _until_last_find(np.any(found, axis=0), classes, len(columns))
    found, ignored, images, classes = found[:, useful], ignored[:, useful], images[useful], classes[useful]
    counts = [np.diff(matches.object_starts)[column] for column in columns]
    objects = [matches.object_images[slice(*matches.object_starts[column : column + 2])] for column in columns]
    skips = np.flatnonzero(ignored)
    return _Chunk(
        images=images,
        ignored_images=images[skips % max(1, len(images))],
        object_images=np.concatenate(objects),
        object_starts=np.cumsum([0, *counts[:-1]]),
        curves=tuple(_curves(found, skips, images, classes, len(columns), len(matches.image_ids))),
    )


def _until_last_find(found: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Which detections do not come after their class's last find."""
    last = np.full(count, -1)
    places = np.flatnonzero(found)
    last[classes[places]] = places  # of several, the last assignment stays
    return np.arange(len(found)) <= last[classes]


def _curves(
    found: np.ndarray, skips: np.ndarray, images: np.ndarray, classes: np.ndarray, count: int, nowhere: int
) -> Iterator[_Curves]:
    """Puts curves of similar length together.

    Args:
        found: (T, D) whether each detection found something.
        skips: Rising positions in (T, D) of ignored detections.
        images: (D,) position of the image.
        classes: (D,) rising.
        count: Number of classes.
        nowhere: Position of the image without weight.
    """
    detections = len(images)
    finds = np.flatnonzero(found)
    thresholds, places = np.divmod(finds, max(1, detections))
    owners = thresholds * count + classes[places]
    lengths = np.bincount(owners, minlength=len(found) * count)
    firsts = np.cumsum(lengths) - lengths
    class_starts = np.searchsorted(classes, np.arange(count))
    widths = np.where(lengths, 2 ** np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64), 0)
    for width in np.unique(widths[widths > 0]):
        own = np.flatnonzero(widths == width)
        steps = np.arange(lengths[own].max())
        taken = firsts[own, None] + np.minimum(steps, lengths[own, None] - 1)
        starts = class_starts[own % count]
        skipped_starts = np.searchsorted(skips, own // count * detections + starts)
        skipped_ends = np.searchsorted(skips, finds[taken])
        skipped = np.flatnonzero(skipped_ends[:, -1] > skipped_starts)
        yield _Curves(
            classes=own % count,
            images=np.where(steps < lengths[own, None], images[places[taken]], nowhere),
            ends=places[taken] + 1,
            starts=starts,
            skipped=skipped,
            skipped_ends=skipped_ends[skipped],
            skipped_starts=skipped_starts[skipped],
        )
