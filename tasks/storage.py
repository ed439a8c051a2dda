"""Artifact storage: files named by their content, or by what they were computed from, in a folder or behind a URL."""

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import fsspec

from tasks.errors import ArtifactUnreadable
from tasks.identity import sha256_of

_CHECKSUM_BYTES = 64


@dataclass(frozen=True)
class ArtifactStorage:
    """A place for files, shared by all workers."""

    url: str
    """A folder path or an fsspec URL such as `s3://bucket/prefix`."""

    def _location(self, sha256: str, suffix: str) -> str:
        return f"{self.url.rstrip('/')}/{sha256[:2]}/{sha256}.{suffix}"

    @property
    def is_local(self) -> bool:
        """Whether the files lie in a folder of this machine's file system."""
        return "://" not in self.url

    def put(self, data: bytes, suffix: str) -> str:
        """Stores bytes under their content hash; a file is there whole or not at all.

        Args:
            data: The content.
            suffix: File suffix without the dot.

        Returns:
            The sha256 of the content.
        """
        sha256 = sha256_of(data)
        if not self.has(sha256, suffix):
            self._write(self._location(sha256, suffix), data)
        return sha256

    def get(self, sha256: str, suffix: str) -> bytes:
        """Reads a file back and checks its hash.

        Args:
            sha256: Content hash.
            suffix: File suffix without the dot.

        Returns:
            The content.

        Raises:
            ArtifactUnreadable: If the file is missing or its content has changed.
        """
        location = self._location(sha256, suffix)
        try:
            with fsspec.open(location, "rb") as file:
                data: bytes = file.read()
        except OSError as error:
            raise ArtifactUnreadable(f"artifact {sha256[:12]} is not in {self.url}") from error
        if sha256_of(data) != sha256:
            raise ArtifactUnreadable(
                f"{location} has been changed: its content no longer has the hash in its name; "
                "delete it, and the next run makes it again"
            )
        return data

    def has(self, sha256: str, suffix: str) -> bool:
        """Says whether a file is there."""
        location = self._location(sha256, suffix)
        filesystem, path = fsspec.core.url_to_fs(location)
        return bool(filesystem.exists(path))

    def keep(self, key: str, data: bytes, suffix: str) -> None:
        """Stores bytes under the key of what they were computed from; a file is there whole or not at all.

        A file that is there already is replaced: what was computed from the same things is as good, and the file may
        be a damaged one.

        Args:
            key: Names everything that the bytes depend on; 64 hexadecimal digits.
            data: The content.
            suffix: File suffix without the dot.
        """
        self._write(self._computed(key, suffix), sha256_of(data).encode() + data)

    def recall(self, key: str, suffix: str) -> bytes | None:
        """Reads back what `keep` stored.

        Args:
            key: The key that it was kept under.
            suffix: File suffix without the dot.

        Returns:
            The content, or None if there is none or it has been damaged, so that it must be computed again.

        Raises:
            OSError: If the storage cannot be read.
        """
        try:
            with fsspec.open(self._computed(key, suffix), "rb") as file:
                stored: bytes = file.read()
        except FileNotFoundError:
            return None
        data = stored[_CHECKSUM_BYTES:]
        return data if sha256_of(data).encode() == stored[:_CHECKSUM_BYTES] else None

    def _computed(self, key: str, suffix: str) -> str:
        return f"{self.url.rstrip('/')}/computed/{key[:2]}/{key}.{suffix}"

    def _write(self, location: str, data: bytes) -> None:
        if self.is_local:
            path = Path(location)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
            return
        filesystem, name = fsspec.core.url_to_fs(location)
        filesystem.makedirs(filesystem._parent(name), exist_ok=True)
        filesystem.pipe_file(name, data)


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file that is there whole or not at all, in place of the one that is there.

    Args:
        path: The file, in a folder that is there.
        data: Its content.

    Raises:
        OSError: If it cannot be written; nothing has changed then.
    """
    # Not tempfile, whose files only their owner may read: several users may share a folder.
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
