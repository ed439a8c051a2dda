"""What an importer is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tasks.detector.weights import Detector


@dataclass(frozen=True)
class Importer:
    """Reads detectors of one file format."""

    source: str
    """What it reads, for the list of choices in a message."""

    recognizes: Callable[[Path], bool]
    """Whether a path that exists looks like this format, judged by content first; cheap, never raises for content."""

    read: Callable[[Path], Detector]
    """Reads a path that it recognizes; raises `ModelMistake` if the content is not an SSD MobileNetV1."""


def first_bytes(path: Path, count: int) -> bytes:
    """Returns the start of a file, or nothing for a folder.

    Args:
        path: A path that exists.
        count: Number of bytes.

    Returns:
        At most `count` bytes.

    Raises:
        OSError: If the file cannot be read.
    """
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(count)
