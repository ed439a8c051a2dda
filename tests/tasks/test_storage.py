"""Artifacts are named by their content, computed files by what they come from; whole, and never read back changed."""

import os
import resource
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ArtifactUnreadable
from tasks.identity import sha256_of
from tasks.storage import ArtifactStorage, write_whole

DATA = b"a model" * 1000


@pytest.fixture(params=["folder", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ArtifactStorage]:
    """A folder that is not there yet, and a place behind an fsspec URL."""
    if request.param == "folder":
        yield ArtifactStorage(str(tmp_path / "artifacts"))
        return
    url = f"memory://{uuid4().hex}"
    yield ArtifactStorage(url)
    fsspec.core.url_to_fs(url)[0].rm(url, recursive=True)


@pytest.fixture
def folder(tmp_path: Path) -> ArtifactStorage:
    return ArtifactStorage(str(tmp_path / "artifacts"))


def files(folder: str | Path) -> list[Path]:
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Files of this process cannot grow beyond some bytes, so that a longer write really fails half way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_what_was_put_is_found_by_its_hash(storage: ArtifactStorage) -> None:
    sha256 = storage.put(DATA, "tflite")
    assert sha256 == sha256_of(DATA)
    assert storage.has(sha256, "tflite")
    assert storage.get(sha256, "tflite") == DATA


def test_equal_content_is_kept_once_and_other_content_beside_it(folder: ArtifactStorage) -> None:
    first = folder.put(DATA, "tflite")
    assert folder.put(DATA, "tflite") == first
    second = folder.put(b"other", "tflite")
    expected = [f"{sha256[:2]}/{sha256}.tflite" for sha256 in (first, second)]
    assert [str(path.relative_to(folder.url)) for path in files(folder.url)] == sorted(expected)


def test_a_file_is_missed_by_name(storage: ArtifactStorage) -> None:
    there, missing = storage.put(DATA, "tflite"), sha256_of(b"never put")
    assert not storage.has(missing, "tflite")
    assert not storage.has(there, "npy")
    with pytest.raises(ArtifactUnreadable, match=f"artifact {missing[:12]} is not in {storage.url}"):
        storage.get(missing, "tflite")
    with pytest.raises(ArtifactUnreadable, match="is not in"):
        storage.get(there, "npy")


def test_a_storage_that_is_not_there_lacks_every_file(tmp_path: Path) -> None:
    nowhere = ArtifactStorage(str(tmp_path / "nowhere"))
    assert not nowhere.has(sha256_of(DATA), "tflite")
    with pytest.raises(ArtifactUnreadable, match="nowhere"):
        nowhere.get(sha256_of(DATA), "tflite")


@pytest.mark.parametrize(
    "changed", [b"", DATA[:-1], DATA + b"\0", b"b" + DATA[1:]], ids=["empty", "cut", "long", "bit"]
)
def test_changed_content_is_refused(storage: ArtifactStorage, changed: bytes) -> None:
    sha256 = storage.put(DATA, "tflite")
    with fsspec.open(f"{storage.url}/{sha256[:2]}/{sha256}.tflite", "wb") as file:
        file.write(changed)
    with pytest.raises(ArtifactUnreadable, match=rf"{sha256}\.tflite has been changed"):
        storage.get(sha256, "tflite")


def test_a_write_that_fails_half_way_leaves_nothing(folder: ArtifactStorage) -> None:
    with full_disk(len(DATA) // 2), pytest.raises(OSError, match="File too large"):
        folder.put(DATA, "tflite")
    assert not folder.has(sha256_of(DATA), "tflite")
    assert files(folder.url) == []


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "detector.safetensors"
    path.write_bytes(b"before")
    with full_disk(len(DATA) // 2), pytest.raises(OSError, match="File too large"):
        write_whole(path, DATA)
    assert path.read_bytes() == b"before"
    write_whole(path, DATA)
    assert path.read_bytes() == DATA
    assert files(tmp_path) == [path]


def test_readers_see_whole_files_while_several_write_the_same(folder: ArtifactStorage) -> None:
    contents = [bytes([number]) * 1_000_000 for number in range(8)]

    def read(data: bytes) -> bytes:
        while not folder.has(sha256_of(data), "bin"):
            pass
        return folder.get(sha256_of(data), "bin")

    with ThreadPoolExecutor(4) as readers, ThreadPoolExecutor(4) as writers:
        read_back = [readers.submit(read, data) for data in contents]
        written = [writers.submit(folder.put, data, "bin") for data in contents for _ in range(3)]
        assert [future.result(timeout=60) for future in written] == [sha256_of(d) for d in contents for _ in range(3)]
        assert [future.result(timeout=60) for future in read_back] == contents
    assert len(files(folder.url)) == len(contents)


@pytest.mark.parametrize("mask", [0o002, 0o022, 0o077])
def test_files_and_folders_can_be_read_by_whom_the_umask_allows(folder: ArtifactStorage, mask: int) -> None:
    with umask(mask):
        folder.put(DATA, "tflite")
    (path,) = files(folder.url)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o777 & ~mask


@given(data=st.binary(), suffix=st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8))
def test_any_bytes_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str) -> None:
    for url in (str(tmp_path_factory.getbasetemp() / "any"), "memory://any"):
        storage = ArtifactStorage(url)
        assert storage.get(storage.put(data, suffix), suffix) == data


@pytest.mark.parametrize(("url", "local"), [("artifacts", True), ("/a/b", True), ("s3://a/b", False)])
def test_urls_are_told_from_folders(url: str, local: bool) -> None:
    assert ArtifactStorage(url).is_local is local


KEY = sha256_of(b"what it was computed from")


def test_what_was_kept_is_recalled_by_its_key(storage: ArtifactStorage) -> None:
    assert storage.recall(KEY, "statistics") is None
    storage.keep(KEY, DATA, "statistics")
    assert storage.recall(KEY, "statistics") == DATA
    assert storage.recall(KEY, "other") is None
    assert storage.recall(sha256_of(b"other"), "statistics") is None


def test_kept_files_lie_apart_from_artifacts(folder: ArtifactStorage) -> None:
    folder.keep(KEY, DATA, "statistics")
    assert [str(path.relative_to(folder.url)) for path in files(folder.url)] == [f"computed/{KEY[:2]}/{KEY}.statistics"]
    assert not folder.has(KEY, "statistics")


@pytest.mark.parametrize(
    "damage",
    [lambda stored: b"", lambda stored: stored[:-1], lambda stored: stored[:40], lambda stored: stored + b"\0",
     lambda stored: stored[:-1] + b"!", lambda stored: b"0" * 64 + stored[64:]],
    ids=["empty", "cut", "cut in its checksum", "long", "changed", "changed checksum"],
)  # fmt: skip
def test_damaged_files_count_as_absent_and_are_replaced(
    storage: ArtifactStorage, damage: Callable[[bytes], bytes]
) -> None:
    storage.keep(KEY, DATA, "statistics")
    location = f"{storage.url}/computed/{KEY[:2]}/{KEY}.statistics"
    with fsspec.open(location, "rb") as file:
        stored = file.read()
    with fsspec.open(location, "wb") as file:
        file.write(damage(stored))
    assert storage.recall(KEY, "statistics") is None
    storage.keep(KEY, DATA, "statistics")
    assert storage.recall(KEY, "statistics") == DATA


def test_a_file_that_cannot_be_kept_leaves_nothing(folder: ArtifactStorage) -> None:
    with full_disk(len(DATA) // 2), pytest.raises(OSError, match="File too large"):
        folder.keep(KEY, DATA, "statistics")
    assert folder.recall(KEY, "statistics") is None
    assert files(folder.url) == []


def test_several_keep_the_same_while_others_read(folder: ArtifactStorage) -> None:
    contents = [bytes([number]) * 500_000 for number in range(4)]

    def read(data: bytes) -> bytes:
        while (found := folder.recall(sha256_of(data), "bin")) is None:
            pass
        return found

    with ThreadPoolExecutor(4) as readers, ThreadPoolExecutor(4) as writers:
        read_back = [readers.submit(read, data) for data in contents]
        written = [writers.submit(folder.keep, sha256_of(data), data, "bin") for data in contents for _ in range(3)]
        for future in written:
            future.result(timeout=60)
        assert [future.result(timeout=60) for future in read_back] == contents


@given(data=st.binary())
def test_any_bytes_are_recalled_as_they_were(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    for url in (str(tmp_path_factory.getbasetemp() / "kept"), "memory://kept"):
        storage = ArtifactStorage(url)
        storage.keep(KEY, data, "bin")
        assert storage.recall(KEY, "bin") == data
