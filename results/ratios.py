"""Ratios of what was measured of two variants."""

import math
from collections.abc import Mapping
from typing import Any

_OF_A_HOST = {
    "load_ratio": "load_ms", "first_inference_ratio": "first_inference_ms", "peak_memory_ratio": "peak_memory_bytes",
    "throughput_ratio": "images_per_second",
}  # fmt: skip
"""Ratios of what depends on the host, and the columns that they are of."""

_OF_FILES = {"size_ratio": "size_bytes", "compressed_ratio": "compressed_bytes"}


def ratios(row: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, float | None]:
    """Divides what was measured of one variant by what was measured of another.

    Args:
        row: A row of the leaderboard.
        other: The one to divide by.

    Returns:
        `load_ratio`, `first_inference_ratio`, `peak_memory_ratio`, `throughput_ratio`, `size_ratio` and
        `compressed_ratio`; None where either is unknown, and for the first four where the hosts differ.
    """
    of_a_host = {name: _ratio(row[column], other[column]) for name, column in _OF_A_HOST.items()}
    if row["host"] != other["host"]:
        of_a_host = dict.fromkeys(of_a_host)
    return of_a_host | {name: _ratio(row[column], other[column]) for name, column in _OF_FILES.items()}


def derived_ratio(first: tuple[float, float, float], second: tuple[float, float, float]) -> tuple[float, float, float]:
    """Divides two ratios to a common reference.

    In logarithms, the distances of the ends of two independent intervals from their middles add up in squares (Zou and
    Donner 2008, "Construction of confidence limits about effect measures: a general approach", for a difference).

    Args:
        first: (ratio, low, high) of the first, above 0.
        second: That of the second.

    Returns:
        (ratio, low, high) of second / first.
    """
    middle = math.log(second[0] / first[0])
    below = math.hypot(math.log(second[0] / second[1]), math.log(first[2] / first[0]))
    above = math.hypot(math.log(second[2] / second[0]), math.log(first[0] / first[1]))
    return math.exp(middle), math.exp(middle - below), math.exp(middle + above)


def _ratio(value: float | None, other: float | None) -> float | None:
    return None if value is None or not other else value / other
