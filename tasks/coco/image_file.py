"""Image files of a dataset."""

from dataclasses import dataclass
from pathlib import Path

from tasks.errors import DataMistake
from tasks.identity import sha256_of

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""What counts as an image file of a folder without annotations, in lower case."""


@dataclass(frozen=True)
class ImageFile:
    """One image of a dataset."""

    image_id: int
    """Id as in the annotations."""

    path: str
    """Absolute path."""

    width: int
    """Pixels, as the annotations have it (their boxes refer to it); 0 where no annotation says."""

    height: int
    """Pixels, as the annotations have it; 0 where no annotation says."""


def is_image_name(name: str) -> bool:
    """Says whether a file counts as an image by its name."""
    # macOS leaves hidden "._name.jpg" files beside the real ones on foreign file systems.
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")


def content_sha256(path: str) -> str:
    """Hashes a file.

    Args:
        path: The file.

    Returns:
        The sha256 of its bytes.

    Raises:
        DataMistake: If it cannot be read.
    """
    return sha256_of(read_bytes(path))


def read_bytes(path: str) -> bytes:
    """Reads a file of a dataset whole.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        DataMistake: If it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataMistake(f"image {path} cannot be read: {error.strerror}") from error


def file_size(path: str) -> int:
    """Measures a file.

    Args:
        path: The file.

    Returns:
        Its size in bytes.

    Raises:
        DataMistake: If it cannot be read.
    """
    try:
        return Path(path).stat().st_size
    except OSError as error:
        raise DataMistake(f"image {path} cannot be read: {error.strerror}") from error
