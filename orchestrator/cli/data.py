"""`quantsweep data`: looks at datasets."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from tasks.coco.check import CheckReport
    from tasks.coco.problems import Problem

app = typer.Typer(no_args_is_help=True, help="Look at datasets.")

EXAMPLES = 5
"""Cases of each kind of problem that the table shows; `--json` shows all."""


@app.callback()
def data() -> None:
    """Look at datasets."""


@app.command()
def check(
    images: Annotated[Path, typer.Argument(help="Folder of images.", show_default=False)],
    annotations: Annotated[
        Path | None, typer.Argument(help="Annotations in COCO format; none for images alone.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of flat objects.")] = False,
    decode: Annotated[bool, typer.Option(help="Decode every image, which finds truncated ones.")] = True,
) -> None:
    """Check a COCO-format set and show everything that is wrong with it.

    Exits with code 2 if anything is.
    """
    from rich.console import Console

    from tasks.coco.check import check_dataset

    with _progress(shown=decode and not as_json) as progress:
        report = check_dataset(images, annotations, decode=decode, progress=progress)
    if as_json:
        typer.echo(json.dumps(_rows(report), indent=2))
    else:
        _print(Console(), report, decode)
    if report.problems:
        raise typer.Exit(2)


@contextmanager
def _progress(shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Shows a bar on the terminal's standard error, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("decoding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("decoding", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _numbers(report: "CheckReport") -> dict[str, Any]:
    numbers = asdict(report)
    del numbers["problems"], numbers["notices"]
    return numbers


def _rows(report: "CheckReport") -> list[dict[str, Any]]:
    summary = {**_numbers(report), "problems": len(report.problems), "notices": len(report.notices)}
    found = [("problem", case) for case in report.problems] + [("notice", case) for case in report.notices]
    return [{"record": "summary", **summary}, *({"record": record, **asdict(case)} for record, case in found)]


def _print(console: "Console", report: "CheckReport", decode: bool) -> None:
    from rich.table import Table

    table = Table(show_header=False)
    for name, number in _numbers(report).items():
        if decode or name != "decoded":
            table.add_row(name.replace("_", " "), f"{number:,}")
    console.print(table)
    _print_cases(console, "notices (odd, but no obstacle)", report.notices)
    _print_cases(console, "problems", report.problems)
    if not report.problems:
        unseen = "" if decode else " (images were not decoded)"
        console.print(f"No problems found{unseen}.", style="green")


def _print_cases(console: "Console", title: str, cases: "tuple[Problem, ...]") -> None:
    from rich.text import Text

    if not cases:
        return
    groups: dict[str, list[str]] = {}
    for case in cases:
        groups.setdefault(case.kind, []).append(case.message)
    console.print(Text(f"{title}:", style="bold"))
    for kind, messages in groups.items():
        more = [f"and {len(messages) - EXAMPLES:,} more (--json shows all)"] if len(messages) > EXAMPLES else []
        console.print(Text(f"  {kind}: {len(messages):,}"), soft_wrap=True)
        for line in (*messages[:EXAMPLES], *more):
            # Not wrapped: paths are what the user copies.
            console.print(Text(f"    {line}"), soft_wrap=True)
