"""Statistics of activations over calibration images; they merge exactly, in any order."""

from dataclasses import dataclass

import numpy as np

BINS = 2048
"""Bins of a histogram."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """What a pass over images says about each of T activation tensors."""

    tensors: tuple[str, ...]
    """Names of the tensors in the float flatbuffer, in its order: input, activations and outputs."""

    images: tuple[str, ...]
    """Key of each of the N images, sorted, distinct."""

    minima: np.ndarray
    """(N, T) float32, least value of each tensor for each image."""

    maxima: np.ndarray
    """(N, T) float32, greatest value of each tensor for each image."""

    counts: np.ndarray
    """(T,) int64, number of elements seen, over all images."""

    exponents: np.ndarray
    """(T,) int32; the bins of a tensor are 2**exponent wide and start at multiples of that."""

    firsts: np.ndarray
    """(T,) int64; number of the first bin: it begins at first * 2**exponent."""

    histograms: np.ndarray
    """(T, BINS) int64, number of elements in each bin."""


@dataclass(frozen=True, eq=False)
class TensorStatistics:
    """The statistics of one tensor, as a range estimator sees them."""

    count: int
    """Number of elements seen."""

    minima: np.ndarray
    """(N,) least value for each image, in the order of the images' keys."""

    maxima: np.ndarray
    """(N,) greatest value for each image."""

    edges: np.ndarray
    """(B + 1,) float64, rising: bin i holds edges[i] <= value < edges[i + 1]."""

    histogram: np.ndarray
    """(B,) int64, number of elements in each bin."""
