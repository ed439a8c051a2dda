"""`quantsweep sweep`: every variant of a spec."""

from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.results import DEFAULT_DATABASE, Database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.plan import Plan
    from orchestrator.spec import Spec
    from orchestrator.sweep import Sweep
    from results.store import Store

DEFAULT_ARTIFACTS = "./quantsweep-artifacts"

Artifacts = Annotated[
    str,
    typer.Option("--artifacts", envvar="QUANTSWEEP_ARTIFACTS", help="Folder or fsspec URL for models and detections."),
]
Address = Annotated[
    str,
    typer.Option(
        "--address", envvar="QUANTSWEEP_ADDRESS",
        help="local (a Ray for this command alone), in-process (no Ray), auto, or HOST:PORT of a Ray cluster.",
    ),
]  # fmt: skip
AsJson = Annotated[bool, typer.Option("--json", help="Print a list of flat objects.")]


def sweep(
    spec: Annotated[Path | None, typer.Argument(metavar="SPEC", help="The spec, a YAML file.")] = None,
    db: Database = DEFAULT_DATABASE,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
    address: Address = "local",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and list the variants; run nothing.")
    ] = False,
    as_json: AsJson = False,
    best_only: Annotated[
        bool,
        typer.Option("--find-best", help="Score only what the exact optimum needs: the fastest within the budget."),
    ] = False,
    example: Annotated[bool, typer.Option("--example", help="Print an example of a spec and exit.")] = False,
) -> None:
    """Build, score and time every variant of a spec.

    Everything is stored as it comes, under keys of its content: a second run of the same sweep does no work, and an
    interrupted one goes on where it stopped.

    With --find-best, every variant is built and timed, but scored in order of
    latency, the fastest first, until one is within the budget: the exact optimum
    of the grid, for a part of the images that scoring the grid takes. It prints
    the leaderboard and a summary; with --json one object, as `quantsweep study`.
    For a space too large to build and time, `quantsweep study` searches.
    """
    if example:
        from orchestrator.demo import example_spec

        typer.echo(example_spec(), nl=False)
        return
    from orchestrator.spec import load_spec
    from tasks.errors import SpecMistake

    if spec is None:
        raise SpecMistake("name a spec file; `quantsweep sweep --example` prints one to start from")
    loaded = load_spec(spec)
    if dry_run:
        from orchestrator.forecast import find_best_lines

        dry_run_of(loaded, db, artifacts, as_json, find_best_lines if best_only else None)
        return
    if best_only:
        from orchestrator.cli.study import find_best

        find_best(loaded, str(spec), db, artifacts, address, as_json)
        return
    sweep_and_show(loaded, db, artifacts, address, as_json)


def sweep_and_show(spec: "Spec", db: str, artifacts: str, address: str, as_json: bool) -> str:
    """Runs a sweep and prints its leaderboard.

    Args:
        spec: What to run.
        db: The database.
        artifacts: Where files go.
        address: Where tasks run.
        as_json: Whether to print JSON.

    Returns:
        The sweep's key.
    """
    from orchestrator.cli.output import print_rows
    from orchestrator.cli.results import print_leaderboard
    from orchestrator.explanations import explanations
    from orchestrator.progress import open_view
    from orchestrator.sweep import Sweep
    from results import queries
    from results.connect import database_for_results

    plan = prepared(spec, artifacts)
    with database_for_results(db) as engine, closing(open_view()) as view:
        running = Sweep(plan, engine, view)
        if not running.is_finished:
            _run(running, address)
        else:
            view.stage("every variant is known already; no task was submitted")
        rows, found = queries.leaderboard(engine, running.key), queries.find_sweep(engine, running.key)
        why = explanations(engine, running.key)
    if as_json:
        print_rows(rows, (), json=True)
    else:
        print_leaderboard(rows, found, why)
    return running.key


def _run(running: "Sweep", address: str) -> None:
    from cluster.connect import connect

    executor = connect(address)
    try:
        running.run(executor)
    finally:
        executor.close()


def prepared(spec: "Spec", artifacts: str) -> "Plan":
    """Reads and checks what a spec names.

    Args:
        spec: A checked spec.
        artifacts: Where files will go: a folder or an fsspec URL.

    Returns:
        The plan.
    """
    from orchestrator.plan import prepare
    from tasks.storage import ArtifactStorage

    url = artifacts if "://" in artifacts else str(Path(artifacts).resolve())
    storage = ArtifactStorage(url)
    demo_sets = Path(url if storage.is_local else DEFAULT_ARTIFACTS).resolve() / "demo"
    return prepare(spec, storage, demo_sets)


def dry_run_of(
    spec: "Spec", db: str, artifacts: str, as_json: bool, search: "Callable[[Plan], list[str]] | None" = None
) -> None:
    """Lists what a spec asks for, and runs nothing.

    Args:
        spec: A checked spec.
        db: The database, which need not be there.
        artifacts: Where files would go.
        as_json: Whether to print JSON.
        search: Says in lines what a search would do with the plan; None for a sweep.
    """
    from orchestrator.cli.output import print_line, print_rows, text_of
    from orchestrator.forecast import forecast

    plan = prepared(spec, artifacts)
    with _known(db) as store:
        found = forecast(plan, store)
    rows = [
        {"variant": each.label, "runtime": each.settings.runtime, "scheme": each.scheme.name, **each.scheme.axes(),
         "threads": each.settings.threads, "state": found.states[each.label],
         "artifact_request": plan.request_key(each.scheme)}
        for each in spec.space.variants
    ]  # fmt: skip
    print_rows(rows, [text_of("variant"), text_of("state")], as_json, title=spec.name)
    if not as_json:
        for line in (*found.lines(), *(search(plan) if search else ())):
            print_line(line)


@contextmanager
def _known(db: str) -> "Iterator[Store | None]":
    """Opens the database if there is one: a dry run makes none."""
    from results.connect import open_database
    from results.store import Store
    from tasks.errors import DatabaseMistake

    try:
        engine = open_database(db, create=False, read_only=True)
    except DatabaseMistake:
        yield None
        return
    try:
        yield Store(engine)
    finally:
        engine.dispose()
