"""Statistics of activations over calibration images; they merge exactly, in any order."""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.errors import ArtifactUnreadable

BINS = 2048
"""Bins of a histogram. The grid decides how many of them a tensor fills: between half and all, as its span falls
between two powers of two; four to eight for each step of an 8-bit grid."""

FORMAT = "v1: bins of a power of two, aligned to it"
"""Part of the key of kept statistics: what the numbers mean. A change of meaning needs a new version number."""

_LEAST_EXPONENT = -126
"""Bins are never narrower than the least normal float32, so that scaling by them stays within float32."""

_PRECISION = 22
"""Bins are never narrower than 2**-22 of the tensor's greatest magnitude, so that bin numbers are exact in float32."""


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
    """(B,) int64, number of elements in each bin; the first and the last bin are not empty."""

    @property
    def low(self) -> float:
        """Least value of all."""
        return float(self.minima.min())

    @property
    def high(self) -> float:
        """Greatest value of all."""
        return float(self.maxima.max())


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

    def __post_init__(self) -> None:
        """Checks that the numbers fit together."""
        for name, (dtype, shape) in _layout(len(self.images), len(self.tensors)).items():
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(f"{name} is {array.dtype}{array.shape}; it must be {np.dtype(dtype)}{shape}")
        if not self.tensors or len(set(self.tensors)) != len(self.tensors):
            raise ValueError("the names of the tensors must be distinct, and at least one")
        if not self.images or list(self.images) != sorted(set(self.images)):
            raise ValueError("the keys of the images must be sorted and distinct, and at least one")
        if not (np.isfinite(self.minima).all() and np.isfinite(self.maxima).all()):
            raise ValueError("the least and greatest values must be finite")
        if (self.minima > self.maxima).any():
            raise ValueError("a least value is above the greatest")
        exponents, firsts = bin_grid(self.minima.min(axis=0), self.maxima.max(axis=0))
        if (exponents != self.exponents).any() or (firsts != self.firsts).any():
            raise ValueError("the bins do not follow from the least and greatest values")
        if (self.histograms < 0).any() or (self.histograms.sum(axis=1) != self.counts).any():
            raise ValueError("a histogram does not add up to its count")

    def tensor(self, name: str) -> TensorStatistics:
        """Returns the statistics of one tensor.

        Args:
            name: One of `tensors`.

        Returns:
            Its statistics, with the bins from the least to the greatest value.

        Raises:
            KeyError: If there is no such tensor.
        """
        if name not in self.tensors:
            raise KeyError(f"there are no statistics of the tensor {name!r}")
        index = self.tensors.index(name)
        exponent, first = int(self.exponents[index]), int(self.firsts[index])
        bins = int(np.flatnonzero(self.histograms[index])[-1]) + 1
        return TensorStatistics(
            count=int(self.counts[index]),
            minima=self.minima[:, index],
            maxima=self.maxima[:, index],
            edges=np.ldexp(np.arange(first, first + bins + 1, dtype=np.float64), exponent),
            histogram=self.histograms[index, :bins],
        )

    def to_bytes(self) -> bytes:
        """Returns a compact form: safetensors, the histograms as variable-length numbers, compressed by zlib.

        Returns:
            Content of the file; equal statistics give equal bytes.
        """
        from safetensors.numpy import save

        arrays = {name: getattr(self, name) for name in _layout(0, 0) if name != "histograms"}
        # The safetensors file holds no strings but its header's, whose order is not fixed: so one value, not several.
        metadata = {"statistics": json.dumps({"format": FORMAT, "tensors": self.tensors, "images": self.images})}
        return zlib.compress(save(arrays | {"histograms": _packed(self.histograms)}, metadata), level=6)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Statistics":
        """Reads what `to_bytes` gave.

        Args:
            data: Content of the file.

        Returns:
            Equal statistics.

        Raises:
            ArtifactUnreadable: If the content is damaged, or of another format.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            content = zlib.decompress(data)
            length = int.from_bytes(content[:8], "little")
            header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["statistics"])
            if header["format"] != FORMAT:
                raise ValueError(f"their format is {header['format']!r}, not {FORMAT!r}")
            arrays = load(content)
            histograms = _unpacked(arrays.pop("histograms"), len(header["tensors"]) * BINS).reshape(-1, BINS)
            return cls(tuple(header["tensors"]), tuple(header["images"]), **arrays, histograms=histograms)
        except (zlib.error, SafetensorError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise ArtifactUnreadable(f"the statistics of activations are damaged: {error}") from error


def merge(*statistics: Statistics) -> Statistics:
    """Merges statistics of different images of one model.

    The result depends on the set of images alone: bins are powers of two wide and aligned, so that each wide bin is
    a whole number of narrow ones, and which width is taken follows from the least and greatest value of all.

    Args:
        *statistics: At least one; no image in two of them.

    Returns:
        The statistics of all their images.

    Raises:
        ValueError: If there are none, their tensors differ, or they share an image.
    """
    if not statistics:
        raise ValueError("there are no statistics to merge")
    if len(statistics) == 1:
        return statistics[0]
    tensors = statistics[0].tensors
    if any(part.tensors != tensors for part in statistics):
        raise ValueError("statistics of different tensors cannot be merged")
    images = [image for part in statistics for image in part.images]
    if len(set(images)) != len(images):
        twice = sorted({image for image in images if images.count(image) > 1})
        raise ValueError(f"statistics to be merged share images: {', '.join(twice[:3])}")
    order = sorted(range(len(images)), key=images.__getitem__)
    minima = np.concatenate([part.minima for part in statistics])[order]
    maxima = np.concatenate([part.maxima for part in statistics])[order]
    exponents, firsts = bin_grid(minima.min(axis=0), maxima.max(axis=0))
    histograms = np.zeros((len(tensors), BINS), np.int64)
    for part in statistics:
        _add(part, exponents, firsts, histograms)
    return Statistics(
        tensors=tensors,
        images=tuple(images[position] for position in order),
        minima=minima,
        maxima=maxima,
        counts=np.sum([part.counts for part in statistics], axis=0),
        exponents=exponents,
        firsts=firsts,
        histograms=histograms,
    )


def joined(parts: Sequence[TensorStatistics]) -> TensorStatistics:
    """Returns the statistics of the concatenation of tensors.

    Args:
        parts: Of each tensor, over the same images; at least one.

    Returns:
        The same as if the concatenated tensor had been observed.
    """
    minima = np.min([part.minima for part in parts], axis=0)
    maxima = np.max([part.maxima for part in parts], axis=0)
    (exponent,), (first,) = bin_grid(minima.min(keepdims=True), maxima.max(keepdims=True))
    histogram = np.zeros(BINS, np.int64)
    for part in parts:
        # Edges are whole multiples of a power of two that this one is a multiple of: nothing is rounded but downwards.
        bins = np.floor(np.ldexp(part.edges[:-1], -exponent)).astype(np.int64) - first
        np.add.at(histogram, bins, part.histogram)
    size = int(np.flatnonzero(histogram)[-1]) + 1
    return TensorStatistics(
        count=sum(part.count for part in parts),
        minima=minima,
        maxima=maxima,
        edges=np.ldexp(np.arange(first, first + size + 1, dtype=np.float64), exponent),
        histogram=histogram[:size],
    )


def bin_grid(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chooses the bins of each tensor: the narrowest with which `BINS` of them hold all its values.

    Wider values never have narrower bins, which is what makes statistics mergeable.

    Args:
        low: (T,) float32, least values, finite.
        high: (T,) float32, greatest values.

    Returns:
        (T,) int32 exponents and (T,) int64 numbers of the first bins.
    """
    low, high = low.astype(np.float64), high.astype(np.float64)
    magnitude = np.maximum(np.abs(low), np.abs(high))
    # frexp(x)[1] is the least exponent with x < 2**exponent, and 0 for 0.
    precise = np.where(magnitude > 0, np.frexp(magnitude)[1] - _PRECISION, _LEAST_EXPONENT)
    span = np.where(high > low, np.frexp(high - low)[1] - BINS.bit_length(), _LEAST_EXPONENT)
    exponents = np.maximum(np.maximum(precise, span), _LEAST_EXPONENT)
    while True:
        firsts, lasts = (np.floor(np.ldexp(end, -exponents)) for end in (low, high))
        too_narrow = lasts - firsts >= BINS
        if not too_narrow.any():
            return exponents.astype(np.int32), firsts.astype(np.int64)
        exponents = exponents + too_narrow


def _add(part: Statistics, exponents: np.ndarray, firsts: np.ndarray, histograms: np.ndarray) -> None:
    """Adds the counts of a part to histograms of bins that are as wide or wider."""
    rows, columns = np.nonzero(part.histograms)
    # Bin numbers fit 24 bits, so a shift by 62 already leaves 0 or -1, as any longer one would.
    shifts = np.minimum(exponents - part.exponents, 62)
    bins = ((part.firsts[rows] + columns) >> shifts[rows]) - firsts[rows]
    np.add.at(histograms.reshape(-1), rows * BINS + bins, part.histograms[rows, columns])


def _layout(images: int, tensors: int) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Element type and shape of each array."""
    return {
        "minima": (np.float32, (images, tensors)),
        "maxima": (np.float32, (images, tensors)),
        "counts": (np.int64, (tensors,)),
        "exponents": (np.int32, (tensors,)),
        "firsts": (np.int64, (tensors,)),
        "histograms": (np.int64, (tensors, BINS)),
    }


def _packed(numbers: np.ndarray) -> np.ndarray:
    """Writes numbers as LEB128 does, but plane by plane: all first bytes, then the second ones where there are, ..."""
    planes, rest = [], numbers.reshape(-1)
    while rest.size:
        more = rest > 0x7F
        planes.append((rest & 0x7F).astype(np.uint8) | (more.astype(np.uint8) << 7))
        rest = rest[more] >> 7
    return np.concatenate(planes)


def _unpacked(data: np.ndarray, size: int) -> np.ndarray:
    """Reads back `size` numbers, (size,) int64.

    Raises:
        ValueError: If the data end too early or too late.
    """
    numbers = np.zeros(size, np.int64)
    places, start = np.arange(size), 0
    for shift in range(0, 63, 7):
        plane = data[start : start + len(places)]
        if len(plane) != len(places):
            raise ValueError("the histograms end too early")
        numbers[places] |= (plane & 0x7F).astype(np.int64) << shift
        start += len(places)
        places = places[plane > 0x7F]
    if start != len(data) or len(places):
        raise ValueError("the histograms do not end where they should")
    return numbers
