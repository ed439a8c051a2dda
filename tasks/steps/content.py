"""The bytes of artifacts, as steps read them."""

from functools import lru_cache

from tasks.storage import ArtifactStorage


@lru_cache(maxsize=4)
def content_of(storage: ArtifactStorage, sha256: str, suffix: str) -> bytes:
    """Reads a file of artifact storage; a worker meets the same few in a row.

    Args:
        storage: Where it is.
        sha256: Its content hash.
        suffix: Its format.

    Returns:
        The bytes.

    Raises:
        ArtifactUnreadable: If it is gone, or is not what its name says.
    """
    return storage.get(sha256, suffix)
