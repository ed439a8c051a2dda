"""Builders: the function that makes each scheme with each toolchain, found by (scheme type, toolchain)."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np

from tasks.detector.weights import Detector
from tasks.errors import UnsupportedScheme
from tasks.quantize.schemes import Scheme, Toolchain
from tasks.quantize.statistics import Statistics
from tasks.training.learner import Ranges

Framework = Literal["tensorflow", "torch", "none"]
"""What a worker must be able to import; workers of different frameworks are different processes."""

Calibration = Literal["statistics", "images"]
"""What a calibrated builder is handed: the merged statistics of activations, or the images themselves."""


@dataclass(frozen=True)
class Material:
    """What a builder works from."""

    detector: Detector
    """Architecture and weights. The scheme's transform is already done to them, except where `source` is given: a
    builder that works from a float artifact looks at the architecture alone."""

    source: bytes | None = None
    """Content of the float32 artifact of the (transformed) detector that `Builder.source` names, if it names one."""

    statistics: Statistics | None = None
    """Statistics of the activations of the float32 .tflite of the (transformed) detector over the scheme's sample, if
    the scheme is calibrated with `Builder.calibration` "statistics"."""

    pixels: np.ndarray | None = None
    """(N, S, S, 3) uint8 RGB, the images of the scheme's sample, if it is calibrated with "images"."""

    kept_float: tuple[str, ...] = ()
    """Names of the layers that stay in float."""

    ranges: Ranges | None = None
    """Ranges of the activations by layer, for `Qat` schemes, in place of statistics: those that training found, or that
    it would start from. The detector is the trained one then, and there is no source."""


BuildFunction = Callable[[Material, Any], bytes]
"""(material, scheme) -> content of the artifact file."""


@dataclass(frozen=True)
class Limit:
    """Values of an axis that a toolchain can make, where it cannot make all."""

    axis: str
    """The axis."""

    choices: tuple[str, ...]
    """Values that it can make."""

    reason: str
    """Why not the others, in a few words."""


@dataclass(frozen=True)
class Builder:
    """How one scheme is made with one toolchain."""

    scheme: type[Scheme]
    """The scheme type that it makes."""

    toolchain: str
    """The toolchain that it uses."""

    runtimes: tuple[str, ...]
    """The runtimes that run the artifact, the one that a spec means by default first."""

    framework: Framework
    """What the worker imports."""

    build: BuildFunction
    """Makes the artifact."""

    format: str = "tflite"
    """File format of the artifact, which has handlers in `tasks.quantize.formats`."""

    source: str | None = None
    """Toolchain of the float32 artifact that it starts from, made before it; None if it starts from the detector."""

    calibration: Calibration = "statistics"
    """What it is handed of calibration images."""

    is_compiled: bool = False
    """Whether the artifact holds machine code, so that it belongs to the instruction set of the node that runs it."""

    packages: tuple[str, ...] = ()
    """Distributions whose versions decide about the artifact's bytes."""

    limits: tuple[Limit, ...] = ()
    """What it cannot make."""

    defaults: tuple[tuple[str, str], ...] = ()
    """(axis, value) of its own defaults, where they differ from the scheme's: the trainer of its framework."""

    @property
    def forced(self) -> dict[str, str]:
        """Its own defaults: for axes whose usual default it cannot make, the first value that it can."""
        usual = {field.name: field.default for field in fields(self.scheme)}
        unable = {limit.axis: limit.choices[0] for limit in self.limits if usual[limit.axis] not in limit.choices}
        return {**dict(self.defaults), **unable}


_MODULES = (
    "tasks.quantize.litert_converter",
    "tasks.quantize.litert_quantizer",
    "tasks.quantize.keras_build",
    "tasks.quantize.torch_pt2e",
    "tasks.quantize.torch_inductor",
    "tasks.quantize.torch_eager",
    "tasks.quantize.onnx_export",
    "tasks.quantize.openvino_nncf",
    "tasks.quantize.onnx_quantizer",
)
_RANKS = {toolchain: rank for rank, toolchain in enumerate(get_args(Toolchain))}
_BUILDERS: dict[tuple[type[Scheme], str], Builder] = {}
_DECLINED: dict[tuple[type[Scheme], str], str] = {}


def register(builder: Builder) -> None:
    """Adds a builder; called by the toolchains' modules when they are imported."""
    _BUILDERS[builder.scheme, builder.toolchain] = builder


def decline(scheme: type[Scheme], reason: str, *names: str) -> None:
    """Says why there is no builder of a scheme where one could expect it; called as `register` is.

    Args:
        scheme: The scheme type.
        reason: Why not, in a few words.
        *names: The toolchain, and the runtimes that have no other one for the scheme.
    """
    _DECLINED.update({(scheme, name): reason for name in names})


def why_not(scheme: type[Scheme], name: str) -> str:
    """Says why there is no builder of a scheme.

    Args:
        scheme: The scheme type.
        name: A toolchain or a runtime that it cannot be made by or for.

    Returns:
        The reason after a colon, as a message goes on with it; empty if none is known.
    """
    builders()
    reason = _DECLINED.get((scheme, name))
    return f": {reason}" if reason else ""


def builders() -> tuple[Builder, ...]:
    """Returns all builders, those of preferred toolchains first. Importing them loads neither TensorFlow nor torch."""
    for module in _MODULES:
        importlib.import_module(module)
    return tuple(sorted(_BUILDERS.values(), key=lambda builder: _RANKS[builder.toolchain]))


def builder_of(scheme: Scheme) -> Builder:
    """Finds the builder of a scheme.

    Args:
        scheme: What is to be made.

    Returns:
        The builder.

    Raises:
        UnsupportedScheme: If the scheme's toolchain cannot make it; the message names what can be made, and why not
            this.
    """
    found = {builder.toolchain: builder for builder in builders() if builder.scheme is type(scheme)}
    if scheme.toolchain not in found:
        reason = why_not(type(scheme), scheme.toolchain)
        raise UnsupportedScheme(
            f"{scheme.name} cannot be made by the toolchain {scheme.toolchain}{reason}; "
            f"choices: {', '.join(sorted(found))}"
        )
    refused = refusals(found[scheme.toolchain], scheme)
    if refused:
        raise UnsupportedScheme("; ".join(message for _, message in refused))
    return found[scheme.toolchain]


def refusals(builder: Builder, scheme: Scheme) -> list[tuple[str, str]]:
    """Lists what a builder cannot make of a scheme.

    Args:
        builder: A builder of the scheme's type.
        scheme: What is to be made.

    Returns:
        (axis, message) of each value that it cannot make.
    """
    axes = scheme.axes()
    return [
        (
            limit.axis,
            f"{scheme.name} of the toolchain {builder.toolchain} cannot have {limit.axis} {axes[limit.axis]!r}: "
            f"{limit.reason}; choices: {', '.join(limit.choices)}",
        )
        for limit in builder.limits
        if limit.axis in axes and axes[limit.axis] not in limit.choices
    ]
