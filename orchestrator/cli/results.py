"""`quantsweep results`: reads the database."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.comparison import print_comparison
from orchestrator.cli.layers import LAYERS, NO_LAYERS, subject
from orchestrator.cli.leaderboard import LEADERBOARD, print_for_documents, print_leaderboard, print_nearest
from orchestrator.cli.output import Column, Row, number_of, print_line, print_markdown, print_rows, text_of
from orchestrator.cli.profile_table import print_profile
from orchestrator.cli.trainings import print_curve, print_trainings

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
def leaderboard(
    db: Database = DEFAULT_DATABASE,
    sweep: Sweep = None,
    wide: Annotated[
        bool,
        typer.Option(
            "--wide",
            help="Also AP by size of object, intervals, images/s, cold start, compressed bytes, shares of MACs.",
        ),
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the wide table as Markdown, in the order of the spec.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the variants of a sweep, the fastest within the budget first.

    loss is AP of the float32 reference minus AP, on the same images, with its
    interval where it was computed: had other images been drawn, the loss would
    likely lie in there. ms is the median time of one inference; ratio is the
    time beside that of float32 in the same run. status says whether the loss is
    within the budget of the spec. A star marks weights whose form no kernel
    makes use of (clustered, binary): AP and size are true, the time is that
    without the transform. A tilde marks a ratio that was measured while other
    work disturbed the machine: such a row stands after the others and makes no
    winner.

    Of a study, variants that were given up before they were scored on every image
    stand below, with what was decided and on how many images. Losses on a part of
    the images are no scores: they have an interval, and no AP.

    The wide table also has what a fresh process pays: load ms from the file's
    bytes to a loaded model, first ms for the first inference, and its peak memory
    over what it held before it imported the runtime. images/s is the throughput
    of the whole machine, with a process on each share of its CPUs.

    Where variants were trained, core-h is what that took, in hours of CPU time;
    AP50 is in the wide table then.
    """
    from results import queries
    from tasks.errors import UserMistake

    if wide + markdown + as_json > 1:
        raise UserMistake("--wide, --markdown and --json are three forms of one table; choose one of them")
    engine = _open(db)
    rows = queries.leaderboard(engine, sweep)
    if as_json:
        print_rows(rows, (), json=True)
        return
    found = queries.find_sweep(engine, sweep)
    if markdown:
        print_for_documents(rows, found["images"])
    else:
        from orchestrator.explanations import explanations

        print_leaderboard(rows, found, explanations(engine, sweep), wide)


@app.command()
def pareto(db: Database = DEFAULT_DATABASE, sweep: Sweep = None, as_json: AsJson = False) -> None:
    """List the variants that no other beats in AP and latency at once; noisy latencies are left out."""
    from results import queries

    rows = queries.pareto_front(_open(db), sweep)
    print_rows(rows, LEADERBOARD, as_json, empty="no variant has both an accuracy and a latency that is not noisy")


@app.command()
def nearest(
    db: Database = DEFAULT_DATABASE,
    sweep: Sweep = None,
    limit: Annotated[int, typer.Option(min=1, help="Most variants to list.")] = 5,
    as_json: AsJson = False,
) -> None:
    """List the variants that missed the budget by the least, and what each would need."""
    from results import queries

    rows = queries.nearest(_open(db), sweep, limit)
    if as_json or not rows:
        print_rows(rows, (), as_json, empty="no variant with a loss is over the budget")
    else:
        print_nearest(rows)


@app.command()
def show(
    variant: VariantName,
    db: Database = DEFAULT_DATABASE,
    sweep: Sweep = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Print where its time goes instead, operator by operator.")
    ] = False,
    curve: Annotated[
        bool, typer.Option("--curve", help="Print the learning curve of its training alone, point by point.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show everything that is known of one variant.

    Axes of its scheme, statistics and their losses, the interval of the AP loss,
    latency and machine, what the artifact really holds (`mac_share`; where
    layers differ, also `layer_count` and `layers`), versions and keys. Ratios
    such as `load_ratio` are to the sweep's float32 reference on the same host;
    `noisy` says what disturbed the measurement, `not_faster` why integers gain
    nothing on this machine.

    With --profile: each operator in the order of execution with its kernel,
    arithmetic, time, share of the time and speed in GMAC/s (10^9
    multiply-accumulates a second), then the same summed up by kind of operator,
    kernel and arithmetic. `fallback` marks what runs in float although its
    weights are integers, or on a kernel that was written to be read; conversions
    change types or memory layouts and compute nothing. `quantsweep profile
    VARIANT` takes a profile.

    Of a trained variant the learning curve stands below: means of the losses of
    the updates since the point before, and the loss on held-out training images,
    with a star at the weights that were kept. --curve prints it alone; in JSON,
    an object for each point. VARIANT may be the key of a training then.
    """
    from results import queries
    from tasks.errors import UserMistake

    if profile and curve:
        raise UserMistake("--profile and --curve are two tables; choose one of them")
    engine = _open(db)
    if curve:
        points = queries.learning_curve(engine, variant, sweep)
        if as_json:
            print_rows(points, (), json=True)
        else:
            print_curve(points)
        return
    if profile:
        rows = queries.profile(engine, variant, sweep)
        if as_json:
            print_rows(rows, (), json=True)
        else:
            header = queries.profile_header(engine, variant, sweep)
            print_profile(rows, header, _why(engine, header))
        return
    found = queries.show(engine, variant, sweep)
    found["not_faster"] = _why(engine, found)
    if as_json:
        print_rows([found], (), json=True)
        return
    facts = [
        {"what": name, "value": _readable(value)}
        for name, value in found.items()
        if value not in (None, "") and not name.startswith("learning_curve.")
    ]
    print_rows(facts, (text_of("what", ""), text_of("value", "")), title=str(found["variant"]))
    if found["training_key"] is not None:
        print_line("")
        print_curve(queries.learning_curve(engine, str(found["training_key"])))


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Label, or start of the key or of the artifact's sha256.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Likewise.")],
    db: Database = DEFAULT_DATABASE,
    sweep: Sweep = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="First time the two in turn, and store what comes out.")
    ] = False,
    artifacts: Annotated[
        str | None,
        typer.Option(help="With --measure: folder or URL of the artifacts; where the sweep put them if not given."),
    ] = None,
    address: Annotated[
        str,
        typer.Option(help="With --measure: in-process, local, auto, or HOST:PORT of a Ray cluster to measure on."),
    ] = "in-process",
    max_seconds: Annotated[
        float, typer.Option(help="With --measure: no round of timings begins after this many seconds.")
    ] = 20.0,
    as_json: AsJson = False,
) -> None:
    """Set two variants side by side: AP, time, memory, size, and which one is faster.

    B / A is what B needs for each of what A needs. The sweep timed both beside
    float32, so the ratio of their times follows from those two ratios, with an
    interval that is wider than either. --measure times the two beside each other
    instead, round after round of fresh processes on one machine: that is what
    tells a few percent apart.

    "A is 12.3 % faster than B [10.1, 14.4]" says that B takes 112.3 % of A's
    time, and that 10.1 to 14.4 is the 95 % interval of the 12.3. Where it
    contains 0, or the machine was disturbed, no winner is named.
    """
    from results.comparison import compare as compare_stored
    from results.reading import flat
    from tasks.errors import UserMistake

    if max_seconds <= 0:
        raise UserMistake(f"--max-seconds is {max_seconds:g}; it must be above 0")
    if measure:
        from orchestrator.comparison import measure_pair

        measure_pair(db, first, second, sweep, artifacts, address, max_seconds)
    found = compare_stored(_open(db), first, second, sweep)
    if as_json:
        print_rows([flat(found)], (), json=True)
    else:
        print_comparison(found)


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
def layers(
    detector: Annotated[
        str | None, typer.Option(help="Only this one: its name, or the start of its sha256; all if not given.")
    ] = None,
    scheme: Annotated[str | None, typer.Option(help="Only this one, such as static_int4; all if not given.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    db: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """List what quantizing each layer alone does, the most sensitive layer first.

    SQNR is the ratio of signal to quantization noise in the detector's outputs,
    on calibration images, in dB: the lower, the more the layer hurts; 10 dB less
    is ten times the noise. AP loss is on the evaluation images, measured if the
    spec asks for it. MACs is the share of all multiply-accumulates that the
    layer makes: what keeping it in float costs.

    A spec asks for this list in its section `sensitivity`, by schemes such as
    `{scheme: static_int4}`. In a block of the space,
    `keep_float: most_sensitive_3` keeps its first three layers in float.
    """
    from results import queries
    from tasks.errors import UserMistake

    if markdown and as_json:
        raise UserMistake("--markdown and --json are two forms of one table; choose one of them")
    rows = queries.layers(_open(db), detector, scheme)
    if as_json or not rows:
        print_rows(rows, (), as_json, empty=NO_LAYERS)
        return
    for number, key in enumerate(dict.fromkeys(row["sensitivity_key"] for row in rows)):
        if number:
            print_line("")
        block = [row for row in rows if row["sensitivity_key"] == key]
        if markdown:
            print_line(f"{subject(block[0])}\n")
            print_markdown(block, LAYERS)
        else:
            print_rows(block, LAYERS, title=subject(block[0]))


@app.command()
def trainings(
    named: Annotated[
        str | None, typer.Argument(metavar="[SWEEP]", help="Name or start of the key; the latest if not given.")
    ] = None,
    db: Database = DEFAULT_DATABASE,
    sweep: Sweep = None,
    as_json: AsJson = False,
) -> None:
    """List the trained variants of a sweep: what each training cost, and what it bought.

    untrained AP is that of the same variant with `epochs: 0`, if the sweep has
    it; gained is what the training added, and AP/core-h what an hour of CPU time
    added. The losses are those on held-out training images, at first and for the
    weights that were kept, which are those after `best at` updates. Variants that
    share a training, such as those of two toolchains, share its cost.

    `quantsweep results show VARIANT --curve` shows how a training went.
    """
    from results import queries
    from tasks.errors import UserMistake

    if named is not None and sweep is not None:
        raise UserMistake(f"{named} and --sweep {sweep} both name a sweep; choose one of them")
    engine, sweep = _open(db), named or sweep
    rows = queries.trainings(engine, sweep)
    if as_json:
        print_rows(rows, (), json=True)
    else:
        print_trainings(rows, queries.find_sweep(engine, sweep))


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
    """List the sweeps and studies in the database, the latest first."""
    from results import queries

    columns = (
        text_of("sweep"),
        Column("key", lambda row: str(row["sweep_key"])[:12]),
        text_of("kind"),
        text_of("detector"),
        text_of("dataset"),
        text_of("done"),
        text_of("stopped"),
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


def _why(engine: "Engine", found: "Row") -> str | None:
    """Says why a variant gains nothing, if it gains nothing."""
    from orchestrator.explanations import explanations

    return explanations(engine, found["sweep_key"], found["variant_key"]).get(found["variant"])


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
