"""Reading: rows as flat dictionaries of plain JSON values, and near matches for mistaken names."""

import difflib
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, Row, Select
from sqlalchemy.exc import DBAPIError

from results.connect import mistake_of

Rows = list[dict[str, Any]]
"""What every query returns."""

_SHOWN_CHOICES = 8


def rows_of(engine: Engine, query: Select[Any]) -> Rows:
    """Runs a query.

    Args:
        engine: A database.
        query: What to select.

    Returns:
        The rows, by column name.

    Raises:
        DatabaseMistake: If the database cannot be used.
    """
    try:
        with engine.execution_options(reads=True).connect() as connection:
            return [plain_row(row) for row in connection.execute(query)]
    except DBAPIError as error:
        raise mistake_of(engine, error) from error


def plain_row(row: Row[Any]) -> dict[str, Any]:
    """Turns a row into plain JSON values by column name; times become ISO 8601, numbers that are not finite None."""
    return {name: _plain(value) for name, value in row._mapping.items()}


def flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Takes nested values out of a row.

    Args:
        row: Plain values, dictionaries and lists.
        prefix: What to put before the names.

    Returns:
        Scalars; names of what was nested have dots, lists are joined by commas.
    """
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            found[f"{prefix}{name}"] = ", ".join(str(item) for item in value)
        else:
            found[f"{prefix}{name}"] = value
    return found


def choices(wanted: str, names: Sequence[str]) -> str:
    """Writes what a mistaken name may have meant.

    Args:
        wanted: The name got.
        names: The names that there are.

    Returns:
        Near matches as a question, or the first choices.
    """
    distinct = list(dict.fromkeys(names))
    near = difflib.get_close_matches(wanted, distinct, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    more = len(distinct) - _SHOWN_CHOICES
    return f"choices: {', '.join(distinct[:_SHOWN_CHOICES])}" + (f", and {more} more" if more > 0 else "")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Decimal):
        # What PostgreSQL makes of sums and means of whole numbers.
        value = int(value) if value.as_tuple().exponent == 0 else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str | dict | list):
        return value
    return str(value)
