"""Keys: the sha256 of a canonical form of plain values."""

import hashlib
import json
from dataclasses import fields, is_dataclass
from typing import Any


def canonical(value: Any) -> Any:
    """Turns a value into plain JSON types, the same for equal values in any process.

    Args:
        value: None, bool, int, float, str, or tuples, lists, dicts and dataclasses of these. Dataclasses carry
            their class name, so that two types with equal fields differ.

    Returns:
        The value as dicts, lists and scalars.

    Raises:
        TypeError: For a value of another type (arrays and bytes are named by their own sha256 instead).
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        content = {field.name: canonical(getattr(value, field.name)) for field in fields(value)}
        return {"type": type(value).__name__, **content}
    if isinstance(value, dict):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no canonical form")


def key_of(*parts: Any) -> str:
    """Names the parts by one sha256.

    Args:
        *parts: Values that `canonical` takes.

    Returns:
        64 hexadecimal digits.
    """
    text = json.dumps(canonical(parts), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of(data: bytes) -> str:
    """Returns the sha256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
