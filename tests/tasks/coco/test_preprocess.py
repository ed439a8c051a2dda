"""From files of every kind to one kind of pixels, and what the cache promises."""

import io
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tasks.coco import preprocess
from tasks.coco.dataset import load_dataset
from tasks.coco.image_file import ImageFile
from tasks.coco.preprocess import preprocess_shard, shard_files
from tasks.errors import DataMistake

ORIENTATION = 0x0112


def scene() -> Image.Image:
    """A 64 x 48 picture whose corners differ: red, green, blue, white from the upper left, clockwise."""
    image = Image.new("RGB", (64, 48), (255, 0, 0))
    image.paste((0, 255, 0), (32, 0, 64, 24))
    image.paste((0, 0, 255), (32, 24, 64, 48))
    image.paste((255, 255, 255), (0, 24, 32, 48))
    return image


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def turned(path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return saved(scene(), path, exif=exif, quality=95)


def pixels_of(path: Path, size: int = 16, width: int = 0, height: int = 0) -> np.ndarray:
    return preprocess_shard((ImageFile(5, str(path), width, height),), size, None).pixels[0]


def corners(pixels: np.ndarray) -> list[str]:
    """Names of the corner colours, clockwise from the upper left."""
    names = {(1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue", (1, 1, 1): "white", (0, 0, 0): "black"}
    chosen = [pixels[2, 2], pixels[2, -3], pixels[-3, -3], pixels[-3, 2]]
    return [names[tuple((pixel > 127).astype(int).tolist())] for pixel in chosen]


UPRIGHT = ["red", "green", "blue", "white"]


def test_a_shard_is_what_the_detector_takes(tmp_path: Path) -> None:
    files = (
        ImageFile(70, str(saved(scene(), tmp_path / "a.png")), 64, 48),
        ImageFile(3, str(saved(scene().resize((20, 90)), tmp_path / "b.png")), 20, 90),
    )
    shard = preprocess_shard(files, 32, None)
    assert shard.pixels.shape == (2, 32, 32, 3)
    assert (shard.pixels.dtype, shard.sizes.dtype, shard.image_ids.dtype) == (np.uint8, np.int32, np.int64)
    assert shard.image_ids.tolist() == [70, 3]
    assert shard.sizes.tolist() == [[48, 64], [90, 20]]
    assert np.array_equal(shard.pixels[0], np.asarray(scene().resize((32, 32), Image.Resampling.BILINEAR)))


def test_reduction_averages_rather_than_picks(tmp_path: Path) -> None:
    checkers = (np.indices((128, 128)).sum(axis=0) % 2 * 255).astype(np.uint8)
    pixels = pixels_of(saved(Image.fromarray(checkers), tmp_path / "a.png"), size=16)
    assert np.abs(pixels.astype(int) - 127).max() <= 3


COLOUR_FILES: dict[str, Callable[[Path], Path]] = {
    "jpeg": lambda folder: saved(scene(), folder / "a.jpg", quality=95),
    "progressive jpeg": lambda folder: saved(scene(), folder / "a.jpg", quality=95, progressive=True),
    "cmyk jpeg": lambda folder: saved(scene().convert("CMYK"), folder / "a.jpg", quality=95),
    "palette png": lambda folder: saved(scene().quantize(16), folder / "a.png"),
    "palette png with transparency": lambda folder: saved(
        scene().quantize(16), folder / "a.png", transparency=b"\x00\x80\xff"
    ),
    "rgba png": lambda folder: saved(scene().convert("RGBA"), folder / "a.png"),
    "gif": lambda folder: saved(scene(), folder / "a.gif"),
    "animated gif": lambda folder: saved(
        scene(), folder / "a.gif", save_all=True, append_images=[Image.new("RGB", (64, 48))]
    ),
    "webp": lambda folder: saved(scene(), folder / "a.webp", lossless=True),
    "tiff": lambda folder: saved(scene(), folder / "a.tif"),
    "bmp": lambda folder: saved(scene(), folder / "a.bmp"),
    "png named jpg": lambda folder: saved(scene(), folder / "a.jpg", format="PNG"),
}


# What other tests left to the garbage collector is not at issue here.
@pytest.mark.filterwarnings("error", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("case", COLOUR_FILES)
def test_files_of_every_kind_become_rgb(tmp_path: Path, case: str) -> None:
    assert corners(pixels_of(COLOUR_FILES[case](tmp_path), width=64, height=48)) == UPRIGHT


def ramp(kind: str) -> Image.Image:
    """Grey from 0 to 255, left to right, in 256 columns."""
    levels = np.tile(np.arange(256, dtype=np.uint8), (8, 1))
    if kind == "16-bit":
        return Image.fromarray(levels.astype(np.uint16) * 256 + 99)
    return Image.fromarray(levels).convert(kind)


@pytest.mark.parametrize(
    ("kind", "suffix"), [("L", "png"), ("L", "jpg"), ("LA", "png"), ("16-bit", "png"), ("16-bit", "tif")]
)
def test_greyscale_becomes_three_equal_channels_of_the_same_brightness(tmp_path: Path, kind: str, suffix: str) -> None:
    pixels = pixels_of(saved(ramp(kind), tmp_path / f"a.{suffix}"), size=256)
    assert (pixels == pixels[:, :, :1]).all()
    assert np.abs(pixels[100, :, 0].astype(int) - np.arange(256)).max() <= 3


def test_black_and_white_becomes_black_and_white(tmp_path: Path) -> None:
    pixels = pixels_of(saved(scene().convert("L").point(lambda grey: 255 * (grey > 200), "1"), tmp_path / "a.png"))
    assert corners(pixels) == ["black", "black", "black", "white"]


@pytest.mark.parametrize(
    ("orientation", "seen", "size"),
    [
        (1, ["red", "green", "blue", "white"], [48, 64]),
        (2, ["green", "red", "white", "blue"], [48, 64]),
        (3, ["blue", "white", "red", "green"], [48, 64]),
        (6, ["white", "red", "green", "blue"], [64, 48]),
        (8, ["green", "blue", "white", "red"], [64, 48]),
    ],
)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, seen: list[str], size: list[int]) -> None:
    path = turned(tmp_path / "a.jpg", orientation)
    for width, height in ((0, 0), (size[1], size[0])):
        shard = preprocess_shard((ImageFile(1, str(path), width, height),), 16, None)
        assert corners(shard.pixels[0]) == seen
        assert shard.sizes.tolist() == [size]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(tmp_path: Path, orientation: int) -> None:
    path = turned(tmp_path / "a.jpg", orientation)
    with Image.open(path) as stored:
        upright = ImageOps.exif_transpose(stored).resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(pixels_of(path), np.asarray(upright))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["JPEG", "WEBP"])
@settings(deadline=None)
@given(position=st.integers(0, 10**6), value=st.integers(0, 255))
def test_damaged_exif_data_costs_no_image(name: str, position: int, value: int) -> None:
    exif = Image.Exif()
    exif.update({ORIENTATION: 1, 0x010F: "maker", 0x011A: 72.0})
    data = io.BytesIO()
    scene().save(data, name, exif=exif, quality=95)
    content = bytearray(data.getvalue())
    tags = exif.tobytes().removeprefix(b"Exif\0\0")
    content[content.index(tags) + position % len(tags)] = value
    decoded = preprocess.decode_image(ImageFile(1, "a.jpg", 0, 0), bytes(content))
    assert isinstance(decoded, preprocess.DecodedImage)


def test_exif_orientation_is_ignored_where_the_annotations_ignored_it(tmp_path: Path) -> None:
    path = turned(tmp_path / "a.jpg", 6)
    shard = preprocess_shard((ImageFile(1, str(path), 64, 48),), 16, None)
    assert corners(shard.pixels[0]) == UPRIGHT
    assert shard.sizes.tolist() == [[48, 64]]


def cut(name: str, share: float, **options: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        data = io.BytesIO()
        scene().resize((300, 200)).save(data, name, **options)
        path.write_bytes(data.getvalue()[: int(len(data.getvalue()) * share)])

    return write


DAMAGED_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "cannot be read: No such file"),
    "a folder": (lambda path: path.mkdir(), "cannot be read: Is a directory"),
    "empty": (lambda path: path.write_bytes(b""), "is an empty file"),
    "text": (lambda path: path.write_text("<html>404 Not Found</html>"), "is not an image of a known format"),
    "jpeg without its end": (cut("JPEG", 0.98), "truncated"),
    "half a jpeg": (cut("JPEG", 0.5), "truncated"),
    "half a progressive jpeg": (cut("JPEG", 0.5, progressive=True), "truncated"),
    "half a png": (cut("PNG", 0.5), "truncated"),
    "half a webp": (cut("WEBP", 0.5), "cannot be decoded"),
    "half a bmp": (cut("BMP", 0.5), "truncated"),
    "half a tiff": (cut("TIFF", 0.5), r"cannot be decoded|not an image"),
    "floating-point pixels": (lambda path: Image.new("F", (300, 200), 0.5).save(path, "TIFF"), "floating-point pixels"),
    "another size": (lambda path: Image.new("RGB", (9, 8)).save(path), "is 9x8 pixels but annotated as 300x200"),
}


@pytest.mark.parametrize("case", DAMAGED_FILES)
def test_damaged_images_are_refused_by_name_and_never_used_in_part(tmp_path: Path, case: str) -> None:
    write, message = DAMAGED_FILES[case]
    path = tmp_path / "damaged.jpg"
    write(path)
    whole = ImageFile(4, str(saved(scene(), tmp_path / "whole.png")), 64, 48)
    cache = tmp_path / "cache"
    with pytest.raises(DataMistake, match=message) as caught:
        preprocess_shard((whole, ImageFile(77, str(path), 300, 200)), 16, str(cache))
    assert "damaged.jpg" in str(caught.value)
    assert not cache.exists()


def test_all_damaged_images_of_a_shard_are_named_at_once(tmp_path: Path) -> None:
    names = ("a.jpg", "b.jpg")
    files = tuple(ImageFile(id_, str(tmp_path / name), 0, 0) for id_, name in enumerate(names))
    for file in files:
        Path(file.path).write_bytes(b"no image")
    with pytest.raises(DataMistake, match=r"image 0 \(a\.jpg\) is not .*; image 1 \(b\.jpg\) is not"):
        preprocess_shard(files, 16, None)


@pytest.fixture
def files(tmp_path: Path) -> tuple[ImageFile, ...]:
    images = [scene().rotate(30 * turn) for turn in range(3)]
    return tuple(
        ImageFile(turn, str(saved(image, tmp_path / f"{turn}.png")), 64, 48) for turn, image in enumerate(images)
    )


def entries(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("decoded although the cache has it")

    monkeypatch.setattr(preprocess, "decode_image", decode)


def test_a_cached_shard_is_equal_and_decodes_nothing(
    tmp_path: Path, files: tuple[ImageFile, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    fresh = preprocess_shard(files, 16, None)
    made = preprocess_shard(files, 16, str(cache))
    forbid_decoding(monkeypatch)
    kept = preprocess_shard(files, 16, str(cache))
    for shard in (made, kept):
        assert shard.fingerprint == fresh.fingerprint
        assert np.array_equal(shard.pixels, fresh.pixels)
        assert np.array_equal(shard.sizes, fresh.sizes)
        assert np.array_equal(shard.image_ids, fresh.image_ids)
        assert (shard.pixels.dtype, shard.sizes.dtype) == (np.uint8, np.int32)
    assert len(entries(cache)) == 1


@pytest.mark.parametrize("damage", ["cut", "flip", "grow", "empty"])
def test_a_damaged_cache_entry_is_made_anew(
    tmp_path: Path, files: tuple[ImageFile, ...], damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    fresh = preprocess_shard(files, 16, str(cache))
    (entry,) = entries(cache)
    content = entry.read_bytes()
    flipped = content[:500] + bytes([content[500] ^ 1]) + content[501:]
    entry.write_bytes({"cut": content[:-9], "flip": flipped, "grow": content + b"x", "empty": b""}[damage])
    assert np.array_equal(preprocess_shard(files, 16, str(cache)).pixels, fresh.pixels)
    assert entry.read_bytes() == content
    forbid_decoding(monkeypatch)
    assert np.array_equal(preprocess_shard(files, 16, str(cache)).pixels, fresh.pixels)


def test_the_fingerprint_follows_content_not_place(tmp_path: Path, files: tuple[ImageFile, ...]) -> None:
    first = preprocess_shard(files, 16, None).fingerprint
    (tmp_path / "moved").mkdir()
    moved = []
    for file in files:
        path = tmp_path / "moved" / f"other {file.image_id}.png"
        path.write_bytes(Path(file.path).read_bytes())
        moved.append(ImageFile(file.image_id, str(path), file.width, file.height))
    assert preprocess_shard(tuple(moved), 16, None).fingerprint == first
    others = [
        preprocess_shard(files, 17, None).fingerprint,
        preprocess_shard(files[::-1], 16, None).fingerprint,
        preprocess_shard(files[:2], 16, None).fingerprint,
        preprocess_shard((ImageFile(9, files[0].path, 64, 48), *files[1:]), 16, None).fingerprint,
    ]
    saved(scene().rotate(5), Path(files[0].path))
    others.append(preprocess_shard(files, 16, None).fingerprint)
    assert len({first, *others}) == len(others) + 1


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, files: tuple[ImageFile, ...]) -> None:
    cache = tmp_path / "cache"
    cache.write_text("a file where a folder should be")
    with pytest.raises(DataMistake, match=r"the image cache .*cache cannot be (read|written): "):
        preprocess_shard(files, 16, str(cache))


def test_cache_entries_can_be_read_by_whom_the_umask_allows(tmp_path: Path, files: tuple[ImageFile, ...]) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    preprocess_shard(files, 16, str(tmp_path / "cache"))
    (entry,) = entries(tmp_path / "cache")
    assert stat.S_IMODE(entry.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@settings(deadline=None)
@given(count=st.integers(0, 60), shard_size=st.integers(1, 70))
def test_shards_hold_every_image_once_and_in_order(count: int, shard_size: int) -> None:
    files = [ImageFile(id_, f"{id_}.jpg", 0, 0) for id_ in range(count)]
    shards = shard_files(files, shard_size)
    assert [file for shard in shards for file in shard] == files
    assert all(len(shard) == shard_size for shard in shards[:-1])
    assert all(1 <= len(shard) <= shard_size for shard in shards)


def test_shards_of_nothing_are_bugs(files: tuple[ImageFile, ...]) -> None:
    with pytest.raises(ValueError, match="at least 1 image"):
        shard_files(files, 0)
    with pytest.raises(ValueError, match="0 images"):
        preprocess_shard((), 16, None)
    with pytest.raises(ValueError, match="size 0"):
        preprocess_shard(files, 0, None)


@pytest.mark.reference_data
def test_the_pixels_of_a_real_image_do_not_depend_on_its_shard(reference_data: Path) -> None:
    mini = reference_data / "coco-mini"
    images = load_dataset(mini / "val2017", mini / "annotations" / "instances_val2017.json").images[:6]
    whole = preprocess_shard(images, 300, None)
    assert whole.sizes.tolist() == [[image.height, image.width] for image in images]
    parts = [preprocess_shard(shard, 300, None).pixels for shard in shard_files(images, 4)]
    assert np.array_equal(np.concatenate(parts), whole.pixels)
