"""The registry of artifact formats: how a file is audited and what its structure is, by suffix."""

import importlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tasks.errors import ArtifactUnreadable
from tasks.types import Audit


@dataclass(frozen=True)
class Format:
    """One file format of artifacts."""

    name: str
    """The suffix without the dot."""

    audit: Callable[[bytes], Audit]
    """Reads a file back. Raises ArtifactUnreadable, and AuditMismatch for what is wrong whatever the scheme."""

    structure: Callable[[bytes], str]
    """Hashes its graph without values; see `tasks.quantize.structure`. Raises ArtifactUnreadable."""


_MODULES = (
    "tasks.quantize.formats.tflite",
    "tasks.quantize.formats.safetensors",
    "tasks.quantize.formats.torch_safetensors",
    "tasks.quantize.formats.pt2",
    "tasks.quantize.formats.onnx",
    "tasks.quantize.formats.openvino_ir",
)
_FORMATS: dict[str, Format] = {}


def register(form: Format) -> None:
    """Adds a format; called by the modules of this folder when they are imported."""
    _FORMATS[form.name] = form


def format_of(name: str) -> Format:
    """Finds a format.

    Args:
        name: The suffix without the dot.

    Returns:
        The format.

    Raises:
        ArtifactUnreadable: If there is none of that name.
    """
    for module in _MODULES:
        importlib.import_module(module)
    if name not in _FORMATS:
        raise ArtifactUnreadable(f"there is no artifact format {name!r}; choices: {', '.join(sorted(_FORMATS))}")
    return _FORMATS[name]


def shares(counts: Counter[str]) -> dict[str, float]:
    """Returns the share of each count in all, in [0, 1], the largest first; nothing if there is nothing to count."""
    total = counts.total()
    return {name: count / total for name, count in counts.most_common()} if total else {}
