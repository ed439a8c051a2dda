"""What the values of an annotation file must be: ids, texts, numbers and boxes."""

from typing import Any

LARGEST_ID = 2**62
"""Ids are below this, so that they fit int64."""

_LARGEST_COORDINATE = 1e9


def is_id(value: Any) -> bool:
    """Says whether a value is a whole number from 0 to below `LARGEST_ID`."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST_ID


def is_text(value: Any) -> bool:
    """Says whether a value is a text that can name something."""
    return isinstance(value, str) and value != "" and "\0" not in value


def is_number(value: Any) -> bool:
    """Says whether a value is a finite number as coordinates and areas are."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST_COORDINATE


def is_box(value: Any) -> bool:
    """Says whether a value is a box [x, y, width, height] in pixels, with no side below 0."""
    well_formed = isinstance(value, list) and len(value) == 4 and all(map(is_number, value))
    return well_formed and value[2] >= 0 and value[3] >= 0


def short(value: Any) -> str:
    """Shows a value in an error message, with at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
