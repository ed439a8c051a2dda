"""The registry of transforms: functions from a detector to a detector, found by name."""

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tasks.detector.weights import Detector

NONE = "none"
"""The weights stay as they are."""


@dataclass(frozen=True)
class Transform:
    """One way of changing the float weights."""

    pattern: str
    """Regular expression of its names, such as `clustered_(2|4|8|16|32|64|128|256)`."""

    example: str
    """One of its names, for messages."""

    apply: Callable[[Detector, str], Detector]
    """(detector, full name) -> detector with other weights."""

    framework: Literal["tensorflow", "none"] = "none"
    """What the worker imports."""

    packages: tuple[str, ...] = ()
    """Distributions whose versions decide about the result."""


_MODULES = (
    "tasks.quantize.transforms.equalization",
    "tasks.quantize.transforms.clustering",
    "tasks.quantize.transforms.binarization",
)
_TRANSFORMS: dict[str, Transform] = {}


def register(transform: Transform) -> None:
    """Adds a transform; called by the modules of this folder when they are imported."""
    _TRANSFORMS[transform.pattern] = transform


def transforms() -> tuple[Transform, ...]:
    """Returns all transforms. Importing them loads no framework."""
    for module in _MODULES:
        importlib.import_module(module)
    return tuple(_TRANSFORMS.values())


def transform_of(name: str) -> Transform | None:
    """Finds a transform by a name that it answers to; None for `none`.

    Raises:
        ValueError: If no transform has this name; the message names examples.
    """
    if name == NONE:
        return None
    for transform in transforms():
        if re.fullmatch(transform.pattern, name):
            return transform
    examples = ", ".join([NONE, *(transform.example for transform in transforms())])
    raise ValueError(f"transform is {name!r}; choices: {examples}")


def check_transform(name: str) -> None:
    """Checks a name.

    Raises:
        ValueError: As `transform_of`.
    """
    transform_of(name)


def transformed(detector: Detector, name: str) -> Detector:
    """Applies a transform.

    Args:
        detector: Architecture and weights.
        name: A checked name, or `none`.

    Returns:
        The detector with the transformed weights; itself for `none`.
    """
    transform = transform_of(name)
    return detector if transform is None else transform.apply(detector, name)
