"""Range estimators: what range an activation is quantized over, from its statistics."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from tasks.quantize.statistics import TensorStatistics

FIXED = "fixed"
"""The estimator that takes no statistics: ranges follow from the graph, see `tasks.quantize.ranges`."""

SMOOTHING = 0.95
"""Share of the former range that a moving average keeps with each further image."""

_CANDIDATES = 128
"""Ends that a search tries on each side."""

_OBSERVER_BINS = 2048
"""Bins of torchao's `HistogramObserver`."""

_OBSERVER_STEP = 1e-5
"""Share of the values by which its search moves an end at least."""


@dataclass(frozen=True)
class Grid:
    """The numbers that an activation is rounded to: evenly spaced, with zero among them."""

    bits: int
    """Width of a number."""

    symmetric: bool
    """Whether the zero point is 0; then the least number, -2**(bits - 1), is not used."""

    @property
    def steps(self) -> int:
        """Number of steps from the least to the greatest number."""
        return 2**self.bits - (2 if self.symmetric else 1)


Estimator = Callable[[TensorStatistics, Grid], tuple[float, float]]
"""(statistics, grid) -> (low, high) within the least and the greatest value seen. The grid that is made of it reaches
to zero in any case, and if symmetric from -max(|low|, |high|) to max(|low|, |high|)."""


def min_max(statistics: TensorStatistics, grid: Grid) -> tuple[float, float]:
    """Takes the least and the greatest value seen: nothing is clipped.

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference"; it is what TFLiteConverter does.

    Args:
        statistics: Of one tensor.
        grid: What it is rounded to.

    Returns:
        (low, high).
    """
    return statistics.low, statistics.high


def moving_average(statistics: TensorStatistics, grid: Grid) -> tuple[float, float]:
    """Averages the least and the greatest value of each image, later images counting more.

    range <- 0.95 range + 0.05 range of the next image, from the range of the first image, in the order of the images'
    keys. Source: litert-quantizer, `utils/qsv_utils.py: moving_average_update`, whose constant this is. That of
    PyTorch's `MovingAverageMinMaxObserver` is 0.01 and that of TensorFlow's `fake_quant` 0.001: they are made for the
    thousands of steps of a training, and would leave the range of the first of 64 images as it is.

    Args:
        statistics: Of one tensor.
        grid: What it is rounded to.

    Returns:
        (low, high).
    """
    ages = np.arange(len(statistics.minima))[::-1]
    weights = (1 - SMOOTHING) * SMOOTHING**ages
    weights[0] = SMOOTHING ** ages[0]
    low, high = (float(weights @ ends.astype(np.float64)) for ends in (statistics.minima, statistics.maxima))
    return _within(statistics, low, high)


def mean_min_max(statistics: TensorStatistics, grid: Grid) -> tuple[float, float]:
    """Averages the least and the greatest value of each image, all images alike.

    Source: NNCF, `quantization/range_estimator.py: RangeEstimatorParametersSet.MEAN_MINMAX`, its default for
    activations.

    Args:
        statistics: Of one tensor.
        grid: What it is rounded to.

    Returns:
        (low, high).
    """
    low, high = (float(ends.mean(dtype=np.float64)) for ends in (statistics.minima, statistics.maxima))
    return _within(statistics, low, high)


def percentile(statistics: TensorStatistics, grid: Grid, share: float) -> tuple[float, float]:
    """Keeps a share of the values and clips the outermost ones.

    Where values lie on both sides of zero, half of what is cut is cut on each side; where they lie on one side, or the
    grid is symmetric and so only the magnitude matters, all of it is cut at the far end. Within a bin, values are taken
    to be spread evenly. Source: ONNX Runtime, `quantization/calibrate.py: HistogramCollector.compute_percentile`;
    McKinstry et al. 2018, "Discovering Low-Precision Networks Close to Full-Precision Networks for Efficient Embedded
    Inference".

    Args:
        statistics: Of one tensor.
        grid: What it is rounded to.
        share: Percentage to keep, above 50 and up to 100.

    Returns:
        (low, high).
    """
    cut = statistics.count * (1 - share / 100)
    if grid.symmetric:
        edges, counts = _magnitudes(statistics)
        bound = _quantile(edges, counts, statistics.count - cut)
        return _within(statistics, -bound, bound)
    two_sided = statistics.low < 0 < statistics.high
    each = cut / 2 if two_sided else cut
    low, high = (_quantile(statistics.edges, statistics.histogram, rank) for rank in (each, statistics.count - each))
    return _within(
        statistics,
        low if statistics.low < 0 else statistics.low,
        high if statistics.high > 0 else statistics.high,
    )


def mse(statistics: TensorStatistics, grid: Grid) -> tuple[float, float]:
    """Seeks the range with the least expected squared error of rounding and clipping.

    For a range [l, h] in steps of d: sum of (x - h)^2 above h, of (l - x)^2 below l, and d^2 / 12 for each value
    between, but for those in the bin of zero, which every grid holds. Both ends are sought together, at the edges of
    bins. Source: Sung et al. 2015, "Resiliency of Deep Neural Networks under Quantization"; Banner et al. 2019,
    "Post training 4-bit quantization of convolutional networks for rapid-deployment", which has the sum of both errors;
    TensorFlow's `calibration_algorithm.py: _HistogramMseBruteforce` seeks both ends in a histogram.

    Args:
        statistics: Of one tensor.
        grid: What it is rounded to.

    Returns:
        (low, high).
    """
    if grid.symmetric:
        edges, counts = _magnitudes(statistics)
        bounds = _ends(edges, max(-statistics.low, statistics.high))
        cost = _beyond(edges, counts, bounds) + _rounding(edges, counts) * (2 * bounds / grid.steps) ** 2 / 12
        bound = float(bounds[np.argmin(cost)])
        return _within(statistics, -bound, bound)
    edges, counts = statistics.edges, statistics.histogram
    highs = _ends(edges, statistics.high) if statistics.high > 0 else np.zeros(1)
    lows = -_ends(-edges[::-1], -statistics.low) if statistics.low < 0 else np.zeros(1)
    above, below = _beyond(edges, counts, highs), _beyond(-edges[::-1], counts[::-1], -lows)
    steps = (highs[None, :] - lows[:, None]) / grid.steps
    cost = below[:, None] + above[None, :] + _rounding(edges, counts) * steps**2 / 12
    low, high = np.unravel_index(np.argmin(cost), cost.shape)
    return _within(statistics, float(lows[low]), float(highs[high]))


def histogram(statistics: TensorStatistics, grid: Grid) -> tuple[float, float]:
    """Narrows the range from both ends as long as the squared error of rounding and clipping falls.

    A histogram of 2048 bins from the least to the greatest value; at each step the end that has fewer values beyond
    itself moves inwards over empty or thin bins, and the first step that makes the error larger ends the search. It is
    greedy, so it clips less than `mse`. Source: `HistogramObserver` of torchao (`quantization/pt2e/observer.py`) and
    PyTorch (`ao/quantization/observer.py`): `_non_linear_param_search`, `_compute_quantization_error`, after Caffe2's
    `norm_minimization.cc`. They collect a histogram per batch and stretch it when values lie outside; this one is made
    of the merged histogram, whose values are taken to be spread evenly within a bin.

    Args:
        statistics: Of one tensor.
        grid: What it is rounded to.

    Returns:
        (low, high).
    """
    if statistics.low == statistics.high:
        return statistics.low, statistics.high
    counts = _rebinned(statistics, _OBSERVER_BINS)
    total, running = counts.sum(), np.cumsum(counts)
    start, end = 0, _OBSERVER_BINS - 1
    from_start, from_end = 1, 1
    least = np.inf
    while (from_start + from_end - 2) * _OBSERVER_STEP < 1:
        left = int(np.clip(np.searchsorted(running, from_start * _OBSERVER_STEP * total), start, end))
        share = (1 - from_end * _OBSERVER_STEP) * total
        right = int(np.clip(np.searchsorted(running, share, side="right") - 1, start, end))
        if left - start > end - right:
            new_start, new_end = left, end
            from_start += 1
        elif right != end:
            new_start, new_end = start, right
            from_end += 1
        else:
            # Nothing moves before the upper share has fallen below what lies up to the last bin.
            falls = math.floor((1 - running[end] / total) / _OBSERVER_STEP)
            from_end = max(from_end, falls) + 1
            continue
        error = _observer_error(counts, new_start, new_end, 2**grid.bits)
        if error > least:
            break
        start, end, least = new_start, new_end, error
    width = (statistics.high - statistics.low) / _OBSERVER_BINS
    return _within(statistics, statistics.low + width * start, statistics.low + width * (end + 1))


def entropy(statistics: TensorStatistics, grid: Grid) -> tuple[float, float]:
    """Seeks the clipping that loses the least information: the least Kullback-Leibler divergence.

    For each candidate bound, P is the histogram with what lies beyond added to its end bins, and Q is the histogram
    without that, its bins averaged in as many groups as the grid has numbers, empty bins left empty. The bound with
    the least KL(P || Q) wins. Source: Migacz 2017, "8-bit Inference with TensorRT" (GTC). He treats magnitudes, that
    is symmetric grids; on asymmetric ones the bound clips both ends alike, where values reach it (as in ONNX Runtime's
    `compute_entropy`), and all numbers of the grid are between. The bin of zero counts as much as its neighbours, as
    in NVIDIA's pytorch-quantization (`calib/histogram.py: _compute_amax_entropy`): after ReLU it holds exact zeros,
    which no grid loses. A grid of more numbers than there are bins (16 bits) clips nothing.

    Args:
        statistics: Of one tensor.
        grid: What it is rounded to.

    Returns:
        (low, high).
    """
    if grid.symmetric:
        edges, counts = _magnitudes(statistics)
        levels = grid.steps // 2 + 1
    else:
        edges, counts = statistics.edges, statistics.histogram
        levels = grid.steps + 1
    counts = _without_zeros(edges, counts)
    bounds = _ends(np.unique(np.abs(edges)), max(-statistics.low, statistics.high))
    starts = np.searchsorted(edges[1:], -bounds, side="right")
    stops = np.searchsorted(edges[:-1], bounds)
    stops[-1] = len(counts)
    wide_enough = stops - starts >= levels
    if not wide_enough[:-1].any():
        return statistics.low, statistics.high
    divergences = _divergences(counts, starts[wide_enough], stops[wide_enough], levels)
    # Of equals the widest: where several bounds lose nothing, there is nothing to be clipped.
    best = len(divergences) - 1 - int(np.argmin(divergences[::-1]))
    bound = float(bounds[wide_enough][best])
    return _within(statistics, -bound, bound)


def estimator_of(name: str) -> Estimator:
    """Finds a range estimator that works from statistics.

    Args:
        name: A name that `check_estimator` passes, other than `fixed`.

    Returns:
        The estimator.

    Raises:
        ValueError: If there is none of this name.
    """
    check_estimator(name)
    if name == FIXED:
        raise ValueError("fixed ranges are not estimated from statistics")
    share = _percentage(name)
    return _ESTIMATORS[name] if share is None else partial(percentile, share=share)


def check_estimator(name: str) -> None:
    """Checks the name of a range estimator.

    Args:
        name: Such as `min_max`, `moving_average`, `percentile_99_99`, `mse`, `entropy` or `fixed`.

    Raises:
        ValueError: If there is none of this name; the message names the choices.
    """
    share = _percentage(name)
    if name not in (*_ESTIMATORS, FIXED) and (share is None or not 50 < share <= 100):
        raise ValueError(
            f"range_estimator is {name!r}; choices: min_max, moving_average, mean_min_max, percentile_99_99 (any "
            "percentage above 50 and up to 100, with _ for the point), mse, histogram, entropy, fixed"
        )


_ESTIMATORS: dict[str, Estimator] = {
    "min_max": min_max,
    "moving_average": moving_average,
    "mean_min_max": mean_min_max,
    "mse": mse,
    "histogram": histogram,
    "entropy": entropy,
}
_PERCENTILE = re.compile(r"percentile_([1-9]\d*)(?:_(\d*[1-9]))?")


def _percentage(name: str) -> float | None:
    """Reads 99.99 out of `percentile_99_99`; each percentage has one name, so zeros at the end have none."""
    found = _PERCENTILE.fullmatch(name)
    return float(f"{found[1]}.{found[2] or 0}") if found else None


def _within(statistics: TensorStatistics, low: float, high: float) -> tuple[float, float]:
    """Keeps a range within the values seen, and with zero on the side where they reach or pass it."""
    low, high = max(min(low, 0.0), statistics.low), min(max(high, 0.0), statistics.high)
    # Where nearly all values are zero, cutting the others would leave a range within the bin of zero, and nothing to be
    # told apart.
    width = float(statistics.edges[1] - statistics.edges[0])
    return (low, high) if high - low > width else (statistics.low, statistics.high)


def _magnitudes(statistics: TensorStatistics) -> tuple[np.ndarray, np.ndarray]:
    """Edges and counts of the histogram of |x|: bins are aligned, so each negative one has its counterpart."""
    width = statistics.edges[1] - statistics.edges[0]
    first = round(float(statistics.edges[0] / width))
    numbers = first + np.arange(len(statistics.histogram))
    numbers = np.where(numbers < 0, -numbers - 1, numbers)
    start = int(numbers.min())
    counts = np.bincount(numbers - start, weights=statistics.histogram)
    return (start + np.arange(len(counts) + 1)) * width, counts


def _quantile(edges: np.ndarray, counts: np.ndarray, rank: float) -> float:
    """Value below which `rank` values lie."""
    return float(np.interp(rank, np.concatenate([[0], np.cumsum(counts)]), edges))


def _ends(edges: np.ndarray, last: float) -> np.ndarray:
    """Candidates for the upper end: evenly chosen edges above zero, and the greatest value."""
    inside = edges[(edges > 0) & (edges < last)]
    chosen = np.unique(np.linspace(0, len(inside), _CANDIDATES - 1, endpoint=False).astype(np.intp))
    return np.append(inside[chosen[: len(inside)]], last)


def _beyond(edges: np.ndarray, counts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Sum of (x - end)^2 over the values above each end; values are taken to be at the centres of their bins.

    Above the last end there are none.
    """
    centres = (edges[:-1] + edges[1:]) / 2
    moments = [np.append(np.cumsum((counts * centres**power)[::-1])[::-1], 0) for power in range(3)]
    start = np.searchsorted(edges[:-1], ends)
    start[-1] = len(counts)
    zeroth, first, second = (moment[start] for moment in moments)
    return np.maximum(second - 2 * ends * first + ends**2 * zeroth, 0)


def _rounding(edges: np.ndarray, counts: np.ndarray) -> float:
    """Number of values that are rounded: all but those in the bin of zero."""
    zero = (edges[:-1] <= 0) & (edges[1:] > 0)
    return float(counts.sum() - counts[zero].sum())


def _rebinned(statistics: TensorStatistics, bins: int) -> np.ndarray:
    """Counts in bins of one width from the least to the greatest value, (bins,) float64."""
    low, high = statistics.low, statistics.high
    # The outermost bins hold no values beyond the least and the greatest.
    edges = np.clip(statistics.edges, low, high)
    inner = low + (high - low) / bins * np.arange(1, bins)
    below = np.interp(inner, edges, np.concatenate([[0.0], np.cumsum(statistics.histogram)]))
    return np.diff(below, prepend=0.0, append=float(statistics.count))


def _observer_error(counts: np.ndarray, start: int, end: int, levels: int) -> float:
    """Squared error of rounding to `levels` numbers from bin start to bin end and of clipping what lies outside.

    `_compute_quantization_error` of the source of `histogram`, with bins of the width 1: that which is at the end of a
    bin is rounded like its begin but for the levels between; the first and the last level reach to infinity.
    """
    width = (end - start + 1) / levels
    begins = np.arange(len(counts)) - float(start)
    ends = begins + 1
    first, last = (np.clip(np.floor(edge / width), 0, levels - 1) for edge in (begins, ends))
    half = width / 2
    integrals = (
        half**3
        - (begins - (first + 0.5) * width) ** 3
        + (last - first - 1) * 2 * half**3
        + (ends - (last + 0.5) * width) ** 3
        + half**3
    )
    return float((counts * integrals).sum() / 3)


def _without_zeros(edges: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Gives the bin of zero the average of its neighbours' counts."""
    zero = int(np.searchsorted(edges, 0, side="right")) - 1
    beside = counts[[index for index in (zero - 1, zero + 1) if 0 <= index < len(counts)]]
    if not (0 <= zero < len(counts) and beside.size):
        return counts
    counts = counts.astype(np.float64)
    counts[zero] = beside.mean()
    return counts


def _divergences(counts: np.ndarray, starts: np.ndarray, stops: np.ndarray, levels: int) -> np.ndarray:
    """KL(P || Q) of each candidate, which keeps the bins from start to stop (excluded); (candidates,) float64.

    All sums over bins are differences of running sums: sum of P log P over bins, sum of P log Q over groups.
    """
    total, filled, information = (
        np.concatenate([[0.0], np.cumsum(values)]) for values in (counts, counts > 0, _x_log_x(counts))
    )
    left, right = total[starts], total[-1] - total[stops]
    first, last = counts[starts], counts[stops - 1]
    of_p = information[stops] - information[starts]
    of_p += _x_log_x(first + left) - _x_log_x(first) + _x_log_x(last + right) - _x_log_x(last)
    groups = starts[:, None] + (stops - starts)[:, None] * np.arange(levels + 1) // levels
    inside = np.diff(total[groups], axis=1)
    bins = np.diff(filled[groups], axis=1)
    # An end bin that only the values beyond it fill counts as filled: Q has its share of the group there.
    bins[:, 0] += (first == 0) & (left > 0)
    bins[:, -1] += (last == 0) & (right > 0)
    level = inside / np.maximum(bins, 1)
    of_q = _x_log_y(inside, level).sum(axis=1) + _x_log_y(left, level[:, 0]) + _x_log_y(right, level[:, -1])
    kept = inside.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        divergences = (of_p - of_q) / total[-1] - np.log(total[-1]) + np.log(kept)
    return np.where(kept > 0, divergences, np.inf)


def _x_log_x(values: np.ndarray) -> np.ndarray:
    return _x_log_y(values, values)


def _x_log_y(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Computes x log y: 0 where x is 0, and minus infinity where y alone is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(values > 0, values * np.log(others), 0.0)
