"""`quantsweep model`: import detectors and look at them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tasks.detector.weights import Detector

app = typer.Typer(help="Import a trained detector, or show its layers.", no_args_is_help=True)

_SHOWN_COLUMNS = ("name", "kind", "kernel", "stride", "input_shape", "output_shape", "parameters", "macs")


@app.command("import")
def import_command(
    source: Annotated[
        Path, typer.Argument(help="A .tflite file, a TF1 frozen graph (.pb), or a TF1 checkpoint's folder.")
    ],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("detector.safetensors"),
    labels: Annotated[
        Path | None, typer.Option(help="Names of the score columns, one a line; the first is the background, ???.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="The TF1 pipeline.config that the detector was trained with, for its loss, which trainings then go on "
            "with; a pipeline.config beside the source is found."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
) -> None:
    """Import a trained SSD MobileNetV1 as canonical float weights.

    Raises:
        UserMistake: If the source is no detector, labels or configuration do not fit, or the file cannot be written.
    """
    from tasks.detector.importers import import_detector
    from tasks.errors import UserMistake

    if out.exists() and not force:
        raise UserMistake(f"{out} exists; name another file with --out, or replace it with --force")
    detector = import_detector(source)
    if labels is not None:
        detector = _named(detector, labels)
    detector = _with_loss(detector, source, config)
    _write(out, detector.to_bytes())
    _print_summary(detector, out)


@app.command("show")
def show_command(
    detector: Annotated[Path, typer.Argument(help="A detector.safetensors made by `quantsweep model import`.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects, one a layer.")] = False,
) -> None:
    """Show the layers of a detector: shapes, parameters and multiply-accumulates.

    Raises:
        UserMistake: If the file is no detector.
    """
    from tasks.detector.layer_table import layer_rows
    from tasks.detector.weights import Detector

    rows = layer_rows(Detector.load(detector).spec)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    _print_table(rows, str(detector))


def _named(detector: "Detector", labels: Path) -> "Detector":
    from dataclasses import replace

    from tasks.errors import UserMistake

    try:
        names = labels.read_text(encoding="utf-8").rstrip().splitlines()
    except OSError as error:
        raise UserMistake(f"the labels {labels} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserMistake(f"the labels {labels} are not a text file: {error}") from error
    columns = len(detector.spec.class_ids)
    if len(names) < columns:
        raise UserMistake(
            f"{labels} has {len(names)} lines; the detector has {columns} score columns, the first of which is the "
            "background (write ??? for it)"
        )
    if len(names) > columns:
        unused = ", ".join(names[columns:][:5])
        typer.echo(f"note: {labels} has {len(names)} lines for {columns} score columns; not used: {unused}", err=True)
    stripped = tuple(name.strip() for name in names[:columns])
    return replace(detector, spec=replace(detector.spec, class_names=stripped))


def _with_loss(detector: "Detector", source: Path, config: Path | None) -> "Detector":
    """Adds the loss that a configuration names; one that only happens to lie there may be of no use."""
    from dataclasses import replace

    from tasks.detector.importers.pipeline import CONFIG
    from tasks.detector.importers.pipeline_loss import loss_of
    from tasks.errors import ModelMistake

    path = config or (source if source.is_dir() else source.parent) / CONFIG
    if config is None and not path.is_file():
        return detector
    try:
        return replace(detector, loss=loss_of(path, detector.spec))
    except ModelMistake as error:
        if config is not None:
            raise
        typer.echo(f"note: what it was trained with stays unknown: {error}", err=True)
        return detector


def _write(path: Path, data: bytes) -> None:
    from tasks.errors import UserMistake
    from tasks.storage import write_whole

    try:
        write_whole(path, data)
    except OSError as error:
        raise UserMistake(f"{path} cannot be written: {error.strerror} ({path.parent})") from error


def _print_summary(detector: "Detector", out: Path) -> None:
    from tasks.detector.ssd_mobilenet_v1 import layers

    spec, table = detector.spec, layers(detector.spec)
    lines = {
        "sha256": detector.sha256,
        "depth multiplier": f"{spec.depth_multiplier:g}",
        "image size": f"{spec.image_size} x {spec.image_size} pixels",
        "classes": f"{sum(map(bool, spec.class_ids))} and the background",
        "parameters": f"{sum(layer.parameters for layer in table):,}",
        "MACs": f"{sum(layer.macs for layer in table):,} an image",
        "trained with": str(detector.loss or "unknown; a pipeline.config (--config) would tell"),
    }
    typer.echo(f"wrote {out}")
    for name, value in lines.items():
        typer.echo(f"  {name:<17} {value}")
    typer.echo(
        f"next: quantsweep model show {out}\n  or: quantsweep sweep SPEC, where SPEC has the line `detector: {out}`"
    )


def _print_table(rows: list[dict[str, str | int]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_footer=True)
    totals = {"name": "total", **{name: f"{sum(int(row[name]) for row in rows):,}" for name in ("parameters", "macs")}}
    for name in _SHOWN_COLUMNS:
        words = isinstance(rows[0][name], str)
        table.add_column(
            "MACs" if name == "macs" else name.replace("_", " "),
            justify="left" if words else "right",
            footer=totals.get(name, ""),
            no_wrap=True,
        )
    for row in rows:
        table.add_row(*(f"{row[name]:,}" if isinstance(row[name], int) else str(row[name]) for name in _SHOWN_COLUMNS))
    console = Console()
    # A pipe has no width of its own; cut names would be of no use to grep.
    Console(width=console.width if console.is_terminal else 140).print(table)
