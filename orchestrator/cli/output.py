"""Printing rows: a table for people, a JSON list for programs."""

import json as json_module
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Row = Mapping[str, Any]

TABLE_WIDTH = 120
"""Characters of a table that goes into a file or a pipe; a terminal gives its own width."""


@dataclass(frozen=True)
class Column:
    """One column of a printed table."""

    heading: str
    """What stands above it."""

    text: Callable[[Row], str]
    """The cell of a row."""

    justify: Literal["left", "right"] = "left"
    """Side that the cells keep to."""


def text_of(name: str, heading: str | None = None) -> Column:
    """Makes a column of words."""
    return Column(heading or name, lambda row: "" if row.get(name) is None else str(row[name]))


def number_of(name: str, heading: str, form: str = ".3f", scale: float = 1.0) -> Column:
    """Makes a column of numbers.

    Args:
        name: Key of the value in a row.
        heading: What stands above the column; names the unit.
        form: Format of the number.
        scale: Factor on the value.

    Returns:
        The column; a missing value is shown as a dash.
    """

    def text(row: Row) -> str:
        value = row.get(name)
        return "-" if value is None else format(value * scale, form)

    return Column(heading, text, "right")


def plain(value: Any) -> Any:
    """Replaces numbers that JSON does not have, such as NaN, by None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def print_json(value: Any) -> None:
    """Prints plain values as JSON on the standard output, and nothing else.

    Args:
        value: Dicts, lists and scalars.
    """
    sys.stdout.write(json_module.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def print_rows(
    rows: Sequence[Row],
    columns: Iterable[Column],
    json: bool = False,
    title: str | None = None,
    empty: str = "no rows",
    width: int = TABLE_WIDTH,
) -> None:
    """Prints rows on the standard output.

    Args:
        rows: Flat dicts.
        columns: What the table shows. JSON shows everything.
        json: Whether to print a JSON list instead of a table.
        title: Line above the table.
        empty: Line to print instead of a table without rows.
        width: Characters of a line where the output is no terminal; more than `TABLE_WIDTH` on any terminal, too.
    """
    if json:
        print_json(list(rows))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal or console.width < width > TABLE_WIDTH:
        console = Console(width=width)
    if title:
        console.print(Text(title, style="bold"), soft_wrap=True)
    if not rows:
        console.print(Text(empty), soft_wrap=True)
        return
    chosen = tuple(columns)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for column in chosen:
        # Labels are what the user copies into the next command: fold them rather than cut them.
        heading = Text(column.heading)
        table.add_column(heading, justify=column.justify, overflow="fold", no_wrap=column.justify == "right")
    for row in rows:
        table.add_row(*(Text(column.text(row)) for column in chosen))
    console.print(table)


def print_markdown(rows: Sequence[Row], columns: Iterable[Column]) -> None:
    """Prints rows as a Markdown table on the standard output.

    Args:
        rows: Flat dicts.
        columns: What the table shows.
    """
    chosen = tuple(columns)
    lines = [[column.heading for column in chosen]]
    lines.append(["---:" if column.justify == "right" else "---" for column in chosen])
    lines += [[column.text(row) for column in chosen] for row in rows]
    for cells in lines:
        print_line(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")


def print_line(text: str) -> None:
    """Prints one line for people on the standard output, as it is, not wrapped."""
    sys.stdout.write(text + "\n")
