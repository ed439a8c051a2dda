"""torch: runs a detector's module as it is, or the package that AOTInductor compiled of it."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from tasks.detector.weights import Detector, metadata_of, with_metadata
from tasks.errors import ArtifactUnreadable, InferenceFailed, ModelMistake
from tasks.host import this_host
from tasks.quantize.formats.pt2 import MODEL, ROOT, executed, read_package
from tasks.quantize.schemes import MemoryLayout
from tasks.runtimes.base import Runtime, checked, input_table, register, run_each
from tasks.types import Profile, RuntimeSettings

_LAYOUT_KEY = "quantsweep.torch_memory_layout"
_ZIP_MAGIC = b"PK\x03\x04"

_Outputs = tuple[Any, Any]


@dataclass(frozen=True)
class _Model:
    """What a session runs."""

    run: Callable[[Any], _Outputs]
    """(1, 3, S, S) float32 -> boxes and scores."""

    image_size: int
    """S."""

    memory_layout: str
    """What the input must lie in memory as."""


class TorchSession:
    """A detector that torch runs."""

    def __init__(self, data: bytes, settings: RuntimeSettings) -> None:
        """Loads the model. Compiles nothing.

        Args:
            data: Content of a .pt2 file, or of a .torch.safetensors file.
            settings: Number of threads.

        Raises:
            ArtifactUnreadable: If the content is neither, or a package for another CPU.
        """
        import torch

        self._model: _Model | None = _loaded_package(data) if is_package(data) else _loaded_module(data)
        self._size, self._layout = self._model.image_size, self._model.memory_layout
        torch.set_num_threads(settings.threads)
        self._table = input_table(np.dtype(np.float32))
        self._raw: _Outputs | None = None

    def prepare(self, pixels: np.ndarray) -> Any:
        """See `Session.prepare`."""
        import torch

        # A package would read past the end of a smaller image.
        if pixels.shape[1:] != (self._size, self._size, 3):
            raise InferenceFailed(
                f"images have the shape {pixels.shape[1:]}; the model takes {self._size} x {self._size}"
            )
        images = torch.from_numpy(self._table[pixels]).permute(0, 3, 1, 2)
        # What is permuted lies in memory as channels_last already.
        return images if self._layout == "channels_last" else images.contiguous()

    def infer(self, prepared: Any) -> None:
        """See `Session.infer`."""
        import torch

        run = self.module
        try:
            with torch.inference_mode():
                self._raw = run(prepared)
        except RuntimeError as error:
            raise InferenceFailed(f"torch failed: {error}") from error

    def outputs(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Session.outputs`."""
        if self._raw is None:
            raise InferenceFailed("nothing was inferred yet")
        boxes, scores = self._raw
        return checked(boxes.numpy(), scores.numpy())

    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Session.run`."""
        return run_each(self, pixels)

    @property
    def module(self) -> Any:
        """What is called for each inference: the `torch.nn.Module` of a detector, or the entry of a package."""
        if self._model is None:
            raise InferenceFailed("the session is closed")
        return self._model.run

    def close(self) -> None:
        """See `Session.close`."""
        self._model = self._raw = None


def eager_file(detector: Detector, memory_layout: MemoryLayout) -> bytes:
    """Makes the file that is run as a module: the detector's own, with the memory layout in its metadata.

    Args:
        detector: Architecture and weights.
        memory_layout: Order of the dimensions of weights and activations in memory.

    Returns:
        Content of a .torch.safetensors file.
    """
    return with_metadata(detector.to_bytes(), _LAYOUT_KEY, memory_layout)


def opened(data: bytes) -> tuple[Detector, MemoryLayout]:
    """Reads an artifact of the format `torch.safetensors`.

    Args:
        data: Content of the file.

    Returns:
        The detector, and the memory layout that torch is to run it in.

    Raises:
        ArtifactUnreadable: If the content is not a detector, or has no memory layout that torch has.
    """
    try:
        detector, found = Detector.from_bytes(data, "the artifact"), metadata_of(data, "the artifact").get(_LAYOUT_KEY)
    except ModelMistake as error:
        raise ArtifactUnreadable(str(error)) from error
    if found not in get_args(MemoryLayout):
        raise ArtifactUnreadable(
            f"the artifact has the memory layout {found!r}; choices: {', '.join(get_args(MemoryLayout))}"
        )
    return detector, cast(MemoryLayout, found)


def executed_share(data: bytes, settings: RuntimeSettings) -> dict[str, float]:
    """Tells what an artifact is computed in: see `Runtime.executed`."""
    return executed(data) if is_package(data) else {"float32": 1.0}


def is_package(data: bytes) -> bool:
    """Says whether an artifact is a compiled package, rather than a detector that is run as a module."""
    return data.startswith(_ZIP_MAGIC)


def _loaded_module(data: bytes) -> _Model:
    detector, memory_layout = opened(data)
    import torch

    from tasks.detector.torch_model import build_torch

    order = torch.channels_last if memory_layout == "channels_last" else torch.contiguous_format
    return _Model(build_torch(detector).to(memory_format=order), detector.spec.image_size, memory_layout)


def _loaded_package(data: bytes) -> _Model:
    package = read_package(data)
    missing = package.isa - set(this_host().properties["isa"])
    if missing:
        raise ArtifactUnreadable(
            f"the artifact is machine code for a CPU with {', '.join(sorted(missing))}, which this one has not; "
            "compile it on a machine of this kind"
        )
    import torch

    with tempfile.TemporaryDirectory(prefix="quantsweep-torch-") as folder:
        path = Path(folder) / f"{ROOT}.pt2"
        path.write_bytes(data)
        try:
            # `torch._inductor.aoti_load_package` ends here too, but first compiles and runs C++ programs to find out
            # which vector instructions there are. True: calls come one at a time. 1: runner. -1: any device.
            loader = torch._C._aoti.AOTIModelPackageLoader(str(path), MODEL, True, 1, -1)
        except RuntimeError as error:
            raise ArtifactUnreadable(f"torch cannot load the artifact: {error}") from error
    return _Model(lambda images: tuple(loader.run([images])), package.image_size, package.memory_layout)


def profiled(data: bytes, settings: RuntimeSettings, pixels: np.ndarray, seconds: float) -> Profile:
    """Tells where the time goes: see `Runtime.profile`."""
    from tasks.profiles.torch import profile

    return profile(data, settings, pixels, seconds)


def imported() -> Any:
    """Imports torch; see `Runtime.imported`."""
    import torch

    return torch


register(
    Runtime(
        "torch",
        ("pt2", "torch.safetensors"),
        "torch",
        TorchSession,
        packages=("torch", "torchao"),
        extra="torch",
        imported=imported,
        executed=executed_share,
        profile=profiled,
    )
)
