"""`quantsweep results`: reads the database."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.output import Column, Row, number_of, print_line, print_rows, text_of

if TYPE_CHECKING:
    from sqlalchemy import Engine

app = typer.Typer(no_args_is_help=True, help="Read the database of results.")

Database = Annotated[
    str,
    typer.Option("--db", envvar="QUANTSWEEP_DB", help="Path of an SQLite database, or postgresql://USER@HOST/NAME."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a list of flat objects.")]
Sweep = Annotated[
    str | None, typer.Option("--sweep", help="Name or start of the key of a sweep; the latest if not given.")
]
VariantName = Annotated[
    str, typer.Argument(metavar="VARIANT", help="Label, or start of the key or of the artifact's sha256.")
]

DEFAULT_DATABASE = "./quantsweep.db"


@app.callback()
def results() -> None:
    """Read the database of results."""


@app.command()
def leaderboard(db: Database = DEFAULT_DATABASE, sweep: Sweep = None, as_json: AsJson = False) -> None:
    """List the variants of a sweep, the fastest within the budget first."""
    from results import queries

    engine = _open(db)
    rows = queries.leaderboard(engine, sweep)
    if as_json:
        print_rows(rows, (), json=True)
    else:
        print_leaderboard(rows, queries.find_sweep(engine, sweep))


def print_leaderboard(rows: list[dict[str, Any]], sweep: Row) -> None:
    """Prints a leaderboard for people.

    Args:
        rows: What `results.queries.leaderboard` lists.
        sweep: What `results.queries.find_sweep` finds: its name, evaluation set and budget.
    """
    budget = "no budget"
    if sweep["budget_metric"] is not None:
        kind = " of the reference's" if sweep["budget_relative"] else ""
        budget = f"budget: {sweep['budget_metric']} loss <= {sweep['budget_max_loss']:g}{kind}"
    print_rows(rows, LEADERBOARD, title=f"{sweep['sweep']}: {sweep['images']} images of {sweep['dataset']}, {budget}")
    for row in rows:
        if row["status"] == "failed":
            print_line(f"failed: {row['variant']}: {row['failure_reason']}: {row['failure_message']}")
    hosts = {row["host"] for row in rows if row["host"]}
    if len(hosts) > 1:
        print_line(f"latencies come from {len(hosts)} hosts: each host is ranked by itself")
    elif rows:
        print_line(_verdict(rows, sweep["budget_metric"] is not None))


def _verdict(rows: list[dict[str, Any]], has_budget: bool) -> str:
    """Names the best row and how sure that is; the rows are in the leaderboard's order."""
    timed = [row for row in rows if row["status"] == "done" and row["latency_ratio"] is not None]
    within = [row for row in timed if row["feasible"] is not False]
    if not within:
        return "no variant is within the budget" if timed else "no variant has been measured yet"
    best = within[0]
    rivals = [row for row in within[1:] if row["latency_ratio_low"] <= best["latency_ratio_high"]]
    label = "fastest within the budget" if has_budget else "fastest"
    gain = f"{best['latency_ratio']:.2f} of float32's time, AP loss {best['ap_loss']:+.3f}"
    tie = f"; {len(rivals)} more as fast within their intervals" if rivals else ""
    return f"{label}: {best['variant']}\n  {gain}{tie}"


@app.command()
def pareto(db: Database = DEFAULT_DATABASE, sweep: Sweep = None, as_json: AsJson = False) -> None:
    """List the variants that no other beats in AP and latency at once."""
    from results import queries

    rows = queries.pareto_front(_open(db), sweep)
    print_rows(rows, LEADERBOARD, as_json, empty="no variant has both an accuracy and a latency")


@app.command()
def show(variant: VariantName, db: Database = DEFAULT_DATABASE, sweep: Sweep = None, as_json: AsJson = False) -> None:
    """Show everything that is known of one variant."""
    from results import queries

    found = queries.show(_open(db), variant, sweep)
    if as_json:
        print_rows([found], (), json=True)
        return
    facts = [{"what": name, "value": _readable(value)} for name, value in found.items() if value is not None]
    print_rows(facts, (text_of("what", ""), text_of("value", "")), title=str(found["variant"]))


@app.command()
def classes(
    variant: Annotated[str | None, typer.Argument(metavar="[VARIANT]", help="Only this variant.")] = None,
    db: Database = DEFAULT_DATABASE,
    sweep: Sweep = None,
    as_json: AsJson = False,
) -> None:
    """List AP and loss of each category, the largest loss first."""
    from results import queries

    rows = queries.class_losses(_open(db), sweep, variant)
    columns = (
        text_of("variant"),
        text_of("category_id", "id"),
        text_of("category"),
        number_of("ap", "AP"),
        number_of("reference_ap", "reference AP"),
        number_of("ap_loss", "loss", "+.3f"),
    )
    print_rows(rows, columns, as_json, empty="no variant has an accuracy yet")


@app.command()
def failures(db: Database = DEFAULT_DATABASE, sweep: Sweep = None, as_json: AsJson = False) -> None:
    """List the variants that failed, and why."""
    from results import queries

    columns = (
        text_of("variant"),
        text_of("stage"),
        text_of("reason"),
        Column("on rerun", lambda row: "kept" if row["kept"] else "tried again"),
        text_of("message"),
    )
    print_rows(queries.failures(_open(db), sweep), columns, as_json, empty="nothing failed")


@app.command()
def sweeps(db: Database = DEFAULT_DATABASE, as_json: AsJson = False) -> None:
    """List the sweeps in the database, the latest first."""
    from results import queries

    columns = (
        text_of("sweep"),
        Column("key", lambda row: str(row["sweep_key"])[:12]),
        text_of("detector"),
        text_of("dataset"),
        text_of("done"),
        text_of("failed"),
        text_of("pending"),
        Column("started (UTC)", lambda row: str(row["started_at"])[:19].replace("T", " ")),
        Column("finished (UTC)", lambda row: str(row["finished_at"] or "-")[:19].replace("T", " ")),
    )
    print_rows(queries.sweeps(_open(db)), columns, as_json, empty="the database holds no sweep yet")


@app.command()
def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="One SELECT; `quantsweep results sql --help`.")],
    db: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Run one SELECT on the tables and views that docs/schema.md describes; the database is opened for reading only."""
    from results import queries

    rows = queries.sql(_open(db), query)
    print_rows(rows, [text_of(name) for name in (rows[0] if rows else ())], as_json)


@app.command()
def export(
    detections: Annotated[str, typer.Option(metavar="VARIANT", help="Variant whose detections to export.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="File to write: a COCO results file.")],
    db: Database = DEFAULT_DATABASE,
    sweep: Sweep = None,
    artifacts: Annotated[
        str | None, typer.Option(help="Folder or URL of the artifacts; where the sweep put them if not given.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a variant's detections as a COCO results file that any evaluator can score again."""
    from results import queries
    from tasks.errors import ArtifactUnreadable, UserMistake

    _check_out(out, force)
    engine = _open(db)
    sha256 = queries.detections_sha256_of(engine, detections, sweep)
    url = artifacts or queries.find_sweep(engine, sweep)["artifacts_url"]
    try:
        rows = _coco_results(url, sha256)
    except ArtifactUnreadable as error:
        raise UserMistake(f"{error}; `--artifacts` names another place") from error
    _write_json(out, rows)
    if as_json:
        print_rows([{"file": str(out), "detections": len(rows), "detections_sha256": sha256}], (), json=True)
    else:
        print_line(f"{len(rows)} detections written to {out}")


def _open(db: str) -> "Engine":
    from results.connect import open_database

    return open_database(db, read_only=True)


def _check_out(out: Path, force: bool) -> None:
    from tasks.errors import UserMistake

    if out.is_dir():
        raise UserMistake(f"--out {out} is a folder; name a file")
    if not out.parent.is_dir():
        raise UserMistake(f"--out {out}: the folder {out.parent} does not exist")
    if out.exists() and not force:
        raise UserMistake(f"--out {out} exists; name another file, or add --force to replace it")


def _coco_results(artifacts_url: str, sha256: str) -> list[dict[str, Any]]:
    from tasks.detect import coco_results, detections_from_bytes
    from tasks.score import DETECTIONS_SUFFIX
    from tasks.storage import ArtifactStorage

    return coco_results(detections_from_bytes(ArtifactStorage(artifacts_url).get(sha256, DETECTIONS_SUFFIX)))


def _write_json(out: Path, value: Any) -> None:
    import json

    from tasks.errors import UserMistake
    from tasks.storage import write_whole

    try:
        write_whole(out, json.dumps(value, allow_nan=False).encode())
    except OSError as error:
        raise UserMistake(f"--out {out} cannot be written: {error.strerror}") from error


def _readable(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _ratio(row: Row) -> str:
    if row["latency_ratio"] is None:
        return "-"
    return f"{row['latency_ratio']:.2f} [{row['latency_ratio_low']:.2f},{row['latency_ratio_high']:.2f}]"


def _status(row: Row) -> str:
    if row["status"] != "done" or row["feasible"] is None:
        return str(row["status"])
    return "within" if row["feasible"] else "over"


LEADERBOARD = (
    text_of("variant"),
    number_of("ap", "AP"),
    number_of("ap50", "AP50"),
    number_of("ap_loss", "loss", "+.3f"),
    number_of("latency_ms_p50", "ms", ".1f"),
    Column("ratio [95 %]", _ratio, "right"),
    number_of("size_bytes", "MB", ".1f", 1e-6),
    Column("status", _status),
)
"""Columns of a leaderboard; they fit 120 characters with the longest label."""
