"""Codebooks: the few values that stand for many weights."""

import heapq
from typing import Any

import numpy as np

_CELLS = (4, 256)
"""(a, b): clusters are put together from at most a * size + b cells."""

_ROUNDS = 300
"""Most Lloyd iterations. They stop sooner, where nothing moves any more."""


def codebook(values: np.ndarray, size: int) -> np.ndarray:
    """Finds the values that stand for an array with the least squared error, or nearly so.

    k-means in one dimension has a best solution that dynamic programming finds (Wang and Song 2011, "Ckmeans.1d.dp"):
    clusters are ranges of the sorted values, and the best end of the last one moves up as values are added, which
    divide and conquer makes use of (Gronlund et al. 2017, "Fast exact k-means, k-medians and Bregman divergence
    clustering in 1D"). Of more distinct values than some hundreds, cells of neighbours are clustered instead, and Lloyd
    iterations over all values follow. Cells are made by splitting the worst one at its mean, again and again. Nothing
    is random.

    Args:
        values: Numbers in any shape, at least one.
        size: Most values of the codebook, at least 1.

    Returns:
        (K,) float32, rising, distinct, K at most `size`; the distinct numbers themselves where they are no more.
    """
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= size:
        return distinct.astype(np.float32)
    sums = _Sums(distinct.astype(np.float64), counts)
    cells = _split(sums, min(len(distinct), _CELLS[0] * size + _CELLS[1]))
    return np.unique(_lloyd(_best(cells, sums, size), sums).astype(np.float32))


def nearest(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Replaces each number by the nearest of a codebook.

    Args:
        values: Numbers in any shape.
        codes: (K,) float32, rising.

    Returns:
        Values of `codes` in the shape of `values`; the greater one where two are equally near.
    """
    found: np.ndarray = codes[np.searchsorted(_borders(codes.astype(np.float64)), values, side="right")]
    return found


class _Sums:
    """Prefix sums over sorted distinct values, from which sums over any range of them follow."""

    def __init__(self, points: np.ndarray, counts: np.ndarray) -> None:
        """Sums up."""
        self.points = points
        self.count = _prefix(counts)
        self.first = _prefix(counts * points)
        self.second = _prefix(counts * points**2)

    def mean(self, start: int, end: int) -> float:
        """Returns the mean of the values of a range of points."""
        return float((self.first[end] - self.first[start]) / (self.count[end] - self.count[start]))

    def error(self, start: Any, end: Any) -> Any:
        """Returns the sum of squared distances of the values of ranges of points to their means."""
        count, first, second = (sums[end] - sums[start] for sums in (self.count, self.first, self.second))
        return second - first**2 / count


def _split(sums: _Sums, size: int) -> np.ndarray:
    """Cuts the points into cells with errors alike: (size + 1,) positions, the first 0, the last their number."""
    worst = [(-1.0, 0, len(sums.points))]
    while len(worst) < size:
        _, start, end = heapq.heappop(worst)
        middle = int(np.searchsorted(sums.points[start:end], sums.mean(start, end), side="left")) + start
        # Rounding may put the mean of two near points outside of them.
        middle = min(max(middle, start + 1), end - 1)
        for part in ((start, middle), (middle, end)):
            is_one = part[1] - part[0] == 1
            heapq.heappush(worst, (1.0 if is_one else -max(sums.error(*part), 0.0), *part))
    return np.append(np.sort([start for _, start, _ in worst]), len(sums.points))


def _best(cells: np.ndarray, sums: _Sums, size: int) -> np.ndarray:
    """Joins cells to at most `size` clusters of least error: their starts, and the number of points."""
    last = len(cells) - 1
    # errors[j]: of the first j cells in as many clusters as rows were made; froms: where the last of them starts.
    errors = np.concatenate([[0.0], sums.error(cells[0], cells[1:])])
    froms = []
    for _ in range(size - 1):
        errors, start = _row(errors, cells, sums)
        froms.append(start)
    ends = [last]
    for start in reversed(froms):
        ends.append(int(start[ends[-1]]))
    # A cluster that gains nothing may have been left without cells.
    return np.unique(cells[[0, *reversed(ends)]])


def _row(errors: np.ndarray, cells: np.ndarray, sums: _Sums) -> tuple[np.ndarray, np.ndarray]:
    """Adds a cluster: for each number of cells j, the least of errors[i] + error of cells i to j, and that i.

    The best i does not fall as j rises: the middle j is searched first, and bounds the search to both of its sides.
    """
    last = len(cells) - 1
    least, best = errors.copy(), np.zeros(last + 2, np.int64)
    best[-1] = last
    stride = 1 << last.bit_length()
    while stride:
        ends = np.arange(stride, last + 1, 2 * stride)
        low = best[ends - stride]
        high = np.minimum(best[np.minimum(ends + stride, last + 1)], ends - 1)
        widths = high - low + 1
        first = np.cumsum(widths) - widths
        starts = np.arange(widths.sum()) - np.repeat(first - low, widths)
        found = errors[starts] + sums.error(cells[starts], cells[np.repeat(ends, widths)])
        if len(ends):
            least[ends] = np.minimum.reduceat(found, first)
            winners = np.flatnonzero(found == np.repeat(least[ends], widths))
            best[ends] = starts[winners[np.searchsorted(winners, first)]]
        stride //= 2
    return least, best[:-1]


def _lloyd(ends: np.ndarray, sums: _Sums) -> np.ndarray:
    codes = _means(ends, sums)
    for _ in range(_ROUNDS):
        moved = np.concatenate([[0], np.searchsorted(sums.points, _borders(codes), side="left"), ends[-1:]])
        if (moved == ends).all():
            break
        # A cluster of no points would have no mean: it goes.
        ends = np.unique(moved)
        codes = _means(ends, sums)
    return codes


def _means(ends: np.ndarray, sums: _Sums) -> np.ndarray:
    means: np.ndarray = np.diff(sums.first[ends]) / np.diff(sums.count[ends])
    return means


def _borders(codes: np.ndarray) -> np.ndarray:
    borders: np.ndarray = (codes[1:] + codes[:-1]) / 2
    return borders


def _prefix(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
