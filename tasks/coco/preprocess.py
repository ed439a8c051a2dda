"""From image files to the detector's input: uint8 shards, cached by the content that they were made from."""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.coco.image_file import ImageFile, read_bytes
from tasks.coco.problems import Problem
from tasks.errors import DataMistake
from tasks.identity import key_of, sha256_of
from tasks.storage import write_whole
from tasks.types import ImageShard

if TYPE_CHECKING:
    from PIL.Image import Image

PREPROCESSING = "v1: EXIF orientation applied unless the annotated size says otherwise, RGB without alpha, "
PREPROCESSING += "Pillow bilinear with antialias to a square, uint8"
"""What is done to an image. Part of every key of an accuracy; a change of pixels needs a new version number."""

_ORIENTATION_TAG = 0x0112
_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_GREYSCALE_MODES = ("1", "L", "LA", "La", *_SIXTEEN_BIT_MODES)
_CHECKSUM_BYTES = 64


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """An image as boxes see it."""

    image: "Image"
    """RGB, upright."""

    oddities: dict[str, str]
    """What had to be dealt with: kind and one line for a person."""


def preprocess_shard(files: tuple[ImageFile, ...], image_size: int, cache: str | None) -> ImageShard:
    """Decodes images and resizes them to the detector's input.

    Args:
        files: The images of the shard, at least one.
        image_size: Side of the square input in pixels.
        cache: Folder that shards are kept in between runs, shared by all processes; None to always decode. A damaged
            entry is made anew.

    Returns:
        The shard, with `pixels` (N, image_size, image_size, 3) uint8 RGB in the order of `files`.

    Raises:
        DataMistake: If an image is missing, unreadable, truncated or not of its annotated size, or the cache folder
            cannot be written.
        ValueError: If there are no files, or image_size is below 1.
    """
    if not files or image_size < 1:
        raise ValueError(f"a shard needs images and a positive size; got {len(files)} images, size {image_size}")
    contents = [read_bytes(file.path) for file in files]
    key = _shard_key(files, contents, image_size)
    entry = None if cache is None else Path(cache) / key[:2] / f"{key}.shard"
    shape = (len(files), image_size, image_size, 3)
    kept = None if entry is None else _read_entry(entry, shape)
    if kept is None:
        kept = _decode_all(files, contents, image_size)
        if entry is not None:
            _write_entry(entry, *kept)
    sizes, pixels = kept
    image_ids = np.array([file.image_id for file in files], dtype=np.int64)
    return ImageShard(image_ids=image_ids, sizes=sizes, pixels=pixels, fingerprint=key)


def shard_files(files: Sequence[ImageFile], shard_size: int) -> tuple[tuple[ImageFile, ...], ...]:
    """Cuts images into shards.

    Args:
        files: Any images.
        shard_size: Images in each shard but the last, at least 1.

    Returns:
        The shards, which hold every image once and in order.

    Raises:
        ValueError: If shard_size is below 1.
    """
    if shard_size < 1:
        raise ValueError(f"a shard needs at least 1 image; got a size of {shard_size}")
    return tuple(tuple(files[start : start + shard_size]) for start in range(0, len(files), shard_size))


def decode_image(file: ImageFile, data: bytes) -> DecodedImage | Problem:
    """Decodes one image, whole or not at all.

    The boxes of an image refer to its annotated size. If that is the size of the stored pixels but not of the image
    turned as its EXIF orientation asks, the annotations were made on the stored pixels and the image is not turned.
    Alpha is dropped, as OpenCV does; 16-bit greyscale keeps its high byte.

    Args:
        file: The image, with its annotated size if known.
        data: Content of the file.

    Returns:
        The image, or what is wrong with it.
    """
    from PIL import Image

    def problem(kind: str, reason: str) -> Problem:
        name = Path(file.path).name
        return Problem(kind, file.image_id, name, f"image {file.image_id} ({name}) {reason}")

    if not data:
        return problem("unreadable_image", "is an empty file")
    try:
        with Image.open(io.BytesIO(data)) as stored:
            # Counting frames moves between them, so it comes before the first one is loaded.
            frames = getattr(stored, "n_frames", 1)
            stored.load()
            orientation = _orientation(stored)
            upright = _turned(stored, orientation)
            oddities = _oddities(stored, orientation, frames)
    except Image.UnidentifiedImageError:
        return problem("unreadable_image", "is not an image of a known format")
    # What Pillow's decoders raise on damaged files; each ends as a problem that names the file.
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        LookupError,
        ArithmeticError,
        TypeError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        cut = "truncated" in str(error).lower()
        return problem("truncated_image" if cut else "unreadable_image", f"cannot be decoded: {error}")
    annotated = (file.width, file.height)
    if 0 not in annotated and annotated != upright.size:
        if annotated != stored.size:
            sizes = f"is {upright.width}x{upright.height} pixels but annotated as {file.width}x{file.height}"
            return problem("size_mismatch", sizes)
        upright = stored
        oddities = {**oddities, "exif_ignored": "is not turned by its EXIF orientation, as its annotations are not"}
        del oddities["exif_rotated"]
    if upright.mode == "F":
        return problem("unreadable_image", "holds floating-point pixels, whose range is unknown")
    return DecodedImage(image=_to_rgb(upright), oddities=oddities)


def _orientation(image: "Image") -> int | None:
    """Reads EXIF tag 0x0112: 1 is upright, 2 to 8 ask for a turn; None if the EXIF data cannot be read."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except (SyntaxError, ValueError, TypeError, struct.error):
        return None


def _turned(image: "Image", orientation: int | None) -> "Image":
    """Turns an image upright (EXIF 2.32, tag 0x0112).

    `ImageOps.exif_transpose` turns alike, but also writes the EXIF data anew, which fails on damaged data.
    """
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _oddities(image: "Image", orientation: int | None, frames: int) -> dict[str, str]:
    cases = {
        "exif_rotated": (orientation in range(2, 9), "is turned as its EXIF orientation asks"),
        "exif_damaged": (orientation is None, "has damaged EXIF data and is taken to be upright"),
        "greyscale": (image.mode in _GREYSCALE_MODES, "is greyscale"),
        "sixteen_bit": (image.mode in _SIXTEEN_BIT_MODES, "has 16-bit pixels, of which the high byte is kept"),
        "palette": (image.mode in ("P", "PA"), "has a palette"),
        "cmyk": (image.mode == "CMYK", "is CMYK"),
        "transparency": (image.has_transparency_data, "has transparency, which is dropped"),
        "frames": (frames > 1, "has several frames, of which the first is used"),
    }
    return {kind: words for kind, (applies, words) in cases.items() if applies}


def _to_rgb(image: "Image") -> "Image":
    from PIL import Image

    if image.mode == "RGB":
        return image
    if image.mode in _SIXTEEN_BIT_MODES:
        high_bytes = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return Image.fromarray(high_bytes).convert("RGB")
    if image.mode in ("P", "PA"):
        # Straight to RGB, Pillow would warn about transparent palette entries.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _decode_all(files: tuple[ImageFile, ...], contents: list[bytes], image_size: int) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    sizes = np.empty((len(files), 2), dtype=np.int32)
    pixels = np.empty((len(files), image_size, image_size, 3), dtype=np.uint8)
    problems = []
    for position, (file, data) in enumerate(zip(files, contents, strict=True)):
        decoded = decode_image(file, data)
        if isinstance(decoded, Problem):
            problems.append(decoded.message)
            continue
        image = decoded.image
        sizes[position] = image.height, image.width
        pixels[position] = np.asarray(image.resize((image_size, image_size), Image.Resampling.BILINEAR))
    if problems:
        raise DataMistake(f"every image must decode whole, to its annotated size: {'; '.join(problems)}")
    return sizes, pixels


def _shard_key(files: tuple[ImageFile, ...], contents: list[bytes], image_size: int) -> str:
    import PIL

    images = [
        [file.image_id, file.width, file.height, sha256_of(data)] for file, data in zip(files, contents, strict=True)
    ]
    return key_of("image shard", PREPROCESSING, PIL.__version__, image_size, images)


def _read_entry(entry: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    """Reads a cached shard: the sha256 of the rest in hexadecimal, sizes as little-endian int32, pixels."""
    try:
        stored = entry.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataMistake(f"the image cache {entry.parent.parent} cannot be read: {error.strerror}") from error
    body = memoryview(stored)[_CHECKSUM_BYTES:]
    sizes_bytes = shape[0] * 2 * 4
    whole = len(body) == sizes_bytes + int(np.prod(shape))
    if not whole or sha256_of(bytes(body)).encode() != stored[:_CHECKSUM_BYTES]:
        return None
    sizes = np.frombuffer(body[:sizes_bytes], dtype="<i4").reshape(-1, 2).astype(np.int32)
    return sizes, np.frombuffer(body[sizes_bytes:], dtype=np.uint8).reshape(shape)


def _write_entry(entry: Path, sizes: np.ndarray, pixels: np.ndarray) -> None:
    """Puts a shard into the cache in one step, in place of a damaged one if there is one."""
    body = sizes.astype("<i4").tobytes() + pixels.tobytes()
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        write_whole(entry, sha256_of(body).encode() + body)
    except OSError as error:
        raise DataMistake(f"the image cache {entry.parent.parent} cannot be written: {error.strerror}") from error
