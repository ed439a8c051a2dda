"""Runtimes: what runs an artifact. Each opens bytes into a session; all sessions keep one contract."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal, Protocol

import numpy as np

from tasks.errors import InferenceFailed, UnsupportedScheme
from tasks.types import Profile, RuntimeSettings


class Session(Protocol):
    """A loaded artifact, ready to run. Not shared between threads."""

    def prepare(self, pixels: np.ndarray) -> Any:
        """Turns images into the model's own input.

        Args:
            pixels: (B, S, S, 3) uint8 RGB.

        Returns:
            What `infer` takes: the pixels scaled to [-1, 1], in the element type of the model's input.
        """

    def infer(self, prepared: Any) -> None:
        """Runs the model on one prepared image: what latency is measured on.

        Args:
            prepared: What `prepare` made of a batch of one.

        Raises:
            InferenceFailed: If the runtime fails.
        """

    def outputs(self) -> tuple[np.ndarray, np.ndarray]:
        """Reads the outputs of the last inference.

        Returns:
            Encoded boxes (1, A, 4) [ty, tx, th, tw] and scores (1, A, C) in [0, 1], both float32, dequantized.

        Raises:
            InferenceFailed: If shapes do not belong together or values are not finite.
        """

    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Prepares, infers and reads the outputs, image by image.

        Args:
            pixels: (B, S, S, 3) uint8 RGB.

        Returns:
            Encoded boxes (B, A, 4) and scores (B, A, C), float32.

        Raises:
            InferenceFailed: If the runtime fails or its outputs are not boxes and scores.
        """

    def close(self) -> None:
        """Frees the model; the session cannot be used any more. Closing twice does no harm."""


@dataclass(frozen=True)
class Option:
    """A setting that one runtime has and others have not."""

    name: str
    """The key in specs."""

    choices: tuple[str, ...]
    """Its values, the default first."""

    meaning: str
    """What it does, in a few words."""


@dataclass(frozen=True)
class Runtime:
    """One way of running artifacts."""

    name: str
    """The identifier in specs, database and command line."""

    formats: tuple[str, ...]
    """File formats that it opens (suffixes without the dot)."""

    framework: Literal["tensorflow", "torch", "none"]
    """What the worker must be able to import."""

    open: Callable[[bytes, RuntimeSettings], Session]
    """(content of an artifact file, settings) -> session. Raises ArtifactUnreadable."""

    packages: tuple[str, ...]
    """Distributions whose versions decide about outputs and latency."""

    extra: str | None = None
    """The extra of the quantsweep distribution that installs it with all its toolchains; None if it always is."""

    options: tuple[Option, ...] = ()
    """Settings of its own, which may change outputs."""

    imported: Callable[[], object] | None = None
    """Imports what a session needs, which is timed apart from loading an artifact; None if that is not told."""

    rounds_by_isa: bool = False
    """Whether its integer kernels give other outputs on CPUs with other instructions: without AVX512-VNNI some saturate
    sums in 16 bits. Then an accuracy belongs to the instruction set, too."""

    executed: Callable[[bytes, RuntimeSettings], dict[str, float]] | None = None
    """(content of an artifact file, settings) -> share of multiply-accumulates by the arithmetic that it is executed
    in, in the words of `Audit.mac_share`. None if the runtime does not tell."""

    profile: Callable[[bytes, RuntimeSettings, np.ndarray, float], Profile] | None = None
    """(content of an artifact file, settings, (N, S, S, 3) uint8 RGB images, seconds to spend) -> where the time goes,
    operator by operator; called in a fresh process. None if there is no way to tell."""

    def version(self) -> str:
        """Returns names and versions of the packages: `ai-edge-litert 2.3.0`. Imports none of them."""
        return ", ".join(f"{package} {metadata.version(package)}" for package in self.packages)

    @property
    def is_installed(self) -> bool:
        """Whether its packages are installed."""
        try:
            return bool(self.version())
        except metadata.PackageNotFoundError:
            return False

    def settings(self, threads: int = 1, **options: str) -> RuntimeSettings:
        """Makes settings.

        Args:
            threads: Intra-operator threads.
            **options: Values of its options; those left out are at their default.

        Returns:
            The settings.

        Raises:
            ValueError: If there is no such option or value; the message names the choices.
        """
        known = {option.name: option for option in self.options}
        for name, value in options.items():
            if name not in known:
                raise ValueError(f"{self.name} has no option {name}; options: {', '.join(known) or 'none'}")
            if value not in known[name].choices:
                raise ValueError(f"{name} is {value!r}; choices: {', '.join(known[name].choices)}")
        chosen = sorted((name, value) for name, value in options.items() if value != known[name].choices[0])
        return RuntimeSettings(self.name, threads, tuple(chosen))


_MODULES = (
    "tasks.runtimes.litert",
    "tasks.runtimes.keras",
    "tasks.runtimes.torch",
    "tasks.runtimes.onnxruntime",
    "tasks.runtimes.openvino",
)
_RUNTIMES: dict[str, Runtime] = {}


def register(runtime: Runtime) -> None:
    """Adds a runtime; called by the runtimes' modules when they are imported."""
    _RUNTIMES[runtime.name] = runtime


def runtimes() -> tuple[Runtime, ...]:
    """Returns all runtimes. Importing them loads no framework."""
    for module in _MODULES:
        importlib.import_module(module)
    return tuple(_RUNTIMES.values())


def runtime_of(name: str) -> Runtime:
    """Finds a runtime.

    Args:
        name: Its identifier.

    Returns:
        The runtime.

    Raises:
        UnsupportedScheme: If there is none of that name; the message names the choices.
    """
    found = {runtime.name: runtime for runtime in runtimes()}
    if name not in found:
        raise UnsupportedScheme(f"there is no runtime {name!r}; choices: {', '.join(sorted(found))}")
    return found[name]


def input_table(dtype: np.dtype, scale: float = 1.0, zero_point: int = 0) -> np.ndarray:
    """Tabulates the model's input for each pixel value.

    Args:
        dtype: Element type of the model's input.
        scale: Real value of one step, where the type is an integer.
        zero_point: Integer that stands for 0.0, where the type is an integer.

    Returns:
        (256,) of `dtype`: pixel / 127.5 - 1, quantized and saturated where the type is an integer.
    """
    real = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1)
    if np.issubdtype(dtype, np.floating):
        return real.astype(dtype)
    limits = np.iinfo(dtype)
    # As LiteRT's own QUANTIZE does it (XNNPACK: times the reciprocal in float32, halves to even), so that an artifact
    # with integer input computes, to the bit, what the one with float input computes. It matters: the usual scale of
    # 1 / 127.5 puts every pixel halfway between two steps, and which one is taken moves AP by up to .006 on 80 images.
    steps = np.rint(real * (np.float32(1) / np.float32(scale)))
    return np.clip(steps + zero_point, limits.min, limits.max).astype(dtype)


def checked(boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Holds outputs to the contract of a detector.

    Args:
        boxes: Encoded boxes, wanted (B, A, 4) float32.
        scores: Scores, wanted (B, A, C) float32.

    Returns:
        Both, as they are.

    Raises:
        InferenceFailed: If shapes do not belong together or values are not finite.
    """
    if boxes.ndim != 3 or scores.ndim != 3 or boxes.shape[:2] != scores.shape[:2] or boxes.shape[2] != 4:
        raise InferenceFailed(
            f"outputs have the shapes {boxes.shape} and {scores.shape}; (B, A, 4) and (B, A, C) belong together"
        )
    for role, values in (("boxes", boxes), ("scores", scores)):
        if not np.isfinite(values).all():
            raise InferenceFailed(f"{np.count_nonzero(~np.isfinite(values))} of the {role} are not finite numbers")
    return boxes, scores


def run_each(session: Session, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs a session image by image: `Session.run` of runtimes whose models take one image.

    Args:
        session: What runs.
        pixels: (B, S, S, 3) uint8 RGB, at least one.

    Returns:
        Encoded boxes (B, A, 4) and scores (B, A, C), float32.

    Raises:
        InferenceFailed: If the runtime fails or its outputs are not boxes and scores.
    """
    results = []
    for index in range(len(pixels)):
        session.infer(session.prepare(pixels[index : index + 1]))
        results.append(session.outputs())
    return np.concatenate([boxes for boxes, _ in results]), np.concatenate([scores for _, scores in results])
