"""Builders: the function that makes each scheme with each toolchain, found by (scheme type, toolchain)."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tasks.detector.weights import Detector
from tasks.errors import UnsupportedScheme
from tasks.quantize.schemes import Scheme

Framework = Literal["tensorflow", "none"]
"""What a worker must be able to import; workers of different frameworks are different processes."""

BuildFunction = Callable[[Detector, Any, Any], bytes]
"""(detector, scheme, calibration or None) -> content of the artifact file."""

CalibrateFunction = Callable[[Detector, np.ndarray, tuple[int, ...]], dict[int, Any]]
"""(detector, images (N, S, S, 3) uint8, sample sizes) -> calibration over the first `size` images, by size."""


@dataclass(frozen=True)
class Builder:
    """How one scheme is made with one toolchain."""

    scheme: type[Scheme]
    """The scheme type that it makes."""

    toolchain: str
    """The toolchain that it uses."""

    runtime: str
    """The runtime that runs the artifact."""

    framework: Framework
    """What the worker imports."""

    build: BuildFunction
    """Makes the artifact."""

    calibrate: CalibrateFunction | None = None
    """Runs the representative images once for all nested sample sizes; None if the scheme needs none."""

    packages: tuple[str, ...] = ()
    """Distributions whose versions decide about the artifact's bytes."""


_MODULES = ("tasks.quantize.litert_converter", "tasks.quantize.litert_quantizer")
_BUILDERS: dict[tuple[type[Scheme], str], Builder] = {}


def register(builder: Builder) -> None:
    """Adds a builder; called by the toolchains' modules when they are imported."""
    _BUILDERS[builder.scheme, builder.toolchain] = builder


def builders() -> tuple[Builder, ...]:
    """Returns all builders. Importing them loads neither TensorFlow nor torch."""
    for module in _MODULES:
        importlib.import_module(module)
    return tuple(_BUILDERS.values())


def builder_of(scheme: Scheme) -> Builder:
    """Finds the builder of a scheme.

    Args:
        scheme: What is to be made.

    Returns:
        The builder.

    Raises:
        UnsupportedScheme: If the scheme's toolchain cannot make it; the message names those that can.
    """
    found = {builder.toolchain: builder for builder in builders() if builder.scheme is type(scheme)}
    if scheme.toolchain not in found:
        raise UnsupportedScheme(
            f"{scheme.name} cannot be made by the toolchain {scheme.toolchain}; choices: {', '.join(sorted(found))}"
        )
    return found[scheme.toolchain]
