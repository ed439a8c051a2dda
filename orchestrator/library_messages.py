"""What native libraries print while they work: into a file, so that it does not cut through what we show."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STANDARD_ERROR = 2


@contextmanager
def library_messages_in(place: Path) -> Iterator[None]:
    """Sends what libraries write to the standard error into a file, which Python's own `sys.stderr` does not join.

    TensorFlow 2.21 tells of itself in several lines when it is imported, whatever its environment variables say.

    Args:
        place: The file; what is in it stays.

    Yields:
        Nothing. Where `sys.stderr` is not the process's standard error, nothing is changed.
    """
    if not _is_standard_error():
        yield
        return
    before, kept = sys.stderr, os.dup(_STANDARD_ERROR)
    before.flush()
    with os.fdopen(kept, "w", buffering=1, encoding=before.encoding, errors=before.errors) as ours:
        with place.open("ab") as file:
            os.dup2(file.fileno(), _STANDARD_ERROR)
        sys.stderr = ours
        try:
            yield
        finally:
            ours.flush()
            sys.stderr = before
            os.dup2(kept, _STANDARD_ERROR)


def _is_standard_error() -> bool:
    try:
        return sys.stderr.fileno() == _STANDARD_ERROR
    except (AttributeError, io.UnsupportedOperation):
        return False
