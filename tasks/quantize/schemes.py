"""Schemes: how an artifact is made from a detector. One frozen dataclass each; its fields are its axes."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, get_args

Toolchain = Literal["converter", "litert_quantizer"]
Granularity = Literal["per_channel", "per_tensor"]


@dataclass(frozen=True)
class Scheme:
    """Base of all schemes."""

    name: ClassVar[str]
    """The identifier in specs, database and command line."""

    toolchain: Toolchain = "converter"
    """What makes the artifact: `converter` is TFLiteConverter, `litert_quantizer` is litert-quantizer."""

    def __post_init__(self) -> None:
        """Checks the toolchain and, where the scheme has them, granularity and calibration sample."""
        axes = self.axes()
        for axis, choices in (("toolchain", get_args(Toolchain)), ("granularity", get_args(Granularity))):
            if axis in axes and axes[axis] not in choices:
                raise ValueError(f"{axis} is {axes[axis]!r}; choices: {', '.join(choices)}")
        if axes.get("calibration_images", 1) < 1:
            raise ValueError(f"calibration_images is {axes['calibration_images']}; it must be at least 1")

    def axes(self) -> dict[str, Any]:
        """Returns the axes of this scheme and their values, in order of declaration."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Float32(Scheme):
    """Float weights and activations, as trained: the reference."""

    name = "float32"


@dataclass(frozen=True)
class Float16(Scheme):
    """Weights stored in IEEE half precision, computed in float32 where the runtime has no half kernels."""

    name = "float16"


@dataclass(frozen=True)
class DynamicInt8(Scheme):
    """8-bit weights; activations quantized on the fly by their range in each inference."""

    name = "dynamic_int8"

    granularity: Granularity = "per_channel"
    """Whether each output channel of a weight tensor has its own scale."""


@dataclass(frozen=True)
class StaticInt8(Scheme):
    """8-bit weights and activations with ranges fixed from a representative dataset; float32 input and output."""

    name = "static_int8"

    granularity: Granularity = "per_channel"
    """Whether each output channel of a weight tensor has its own scale."""

    calibration_images: int = 64
    """Size of the representative dataset, in images."""

    calibration_seed: int = 0
    """Seed of the sample of calibration images; samples of one seed are nested."""


SCHEMES: dict[str, type[Scheme]] = {scheme.name: scheme for scheme in (Float32, Float16, DynamicInt8, StaticInt8)}
"""Every scheme by its identifier."""
