"""What training gives: float weights, and ranges of activations, in one safetensors file."""

import json
from dataclasses import dataclass

from tasks.detector.weights import Detector, metadata_of, with_metadata
from tasks.training.learner import Ranges

TRAINED_SUFFIX = "trained.safetensors"
"""Suffix of these files in artifact storage."""

_RANGES_KEY = "quantsweep.ranges"


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained detector."""

    detector: Detector
    """Its float weights."""

    ranges: Ranges
    """Ranges of its activations; empty if it was not trained for quantization."""

    def to_bytes(self) -> bytes:
        """Returns the content of its file: that of a detector, with the ranges in the metadata."""
        return with_metadata(self.detector.to_bytes(), _RANGES_KEY, json.dumps(self.ranges, sort_keys=True))

    @classmethod
    def from_bytes(cls, data: bytes, origin: str) -> "Trained":
        """Reads one.

        Args:
            data: Content of a file made by `to_bytes`.
            origin: What to call the file in an error.

        Returns:
            The trained detector.

        Raises:
            ModelMistake: If the content is not a detector.
        """
        ranges: dict[str, list[float]] = json.loads(metadata_of(data, origin).get(_RANGES_KEY, "{}"))
        return cls(Detector.from_bytes(data, origin), {name: (low, high) for name, (low, high) in ranges.items()})
