"""`quantsweep study`: the fastest variant within the budget, searched for."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.results import DEFAULT_DATABASE, Database
from orchestrator.cli.sweep import DEFAULT_ARTIFACTS, Address, Artifacts, dry_run_of, prepared

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from orchestrator.plan import Plan
    from orchestrator.spec import Spec
    from orchestrator.study import Study
    from orchestrator.study_view import SearchView
    from orchestrator.summary import Found


def study(
    spec: Annotated[Path | None, typer.Argument(metavar="SPEC", help="The spec, a YAML file.")] = None,
    db: Database = DEFAULT_DATABASE,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
    address: Address = "local",
    trials: Annotated[
        int | None, typer.Option(help="Most variants tried, without those that are known already; 200 unless given.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Most wall time, earlier runs included; no limit.")] = None,
    images: Annotated[int | None, typer.Option(help="Most images inferred, earlier runs included; no limit.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Most verdicts in a row without a better feasible variant; 50 unless given.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="tpe, gp, nsga2, random, qmc or brute_force; tpe unless given.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the sampler and of the order of images; 0 unless given.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and list the variants; run nothing.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="End with one object: winner, nearest, trials, verdicts, images_inferred, ..."),
    ] = False,
    example: Annotated[bool, typer.Option("--example", help="Print an example of a spec and exit.")] = False,
) -> None:
    """Find the fastest variant within the budget, without scoring them all.

    What happens, in order:

    1. Optuna proposes variants of the space, several at a time, and learns from
       every verdict. What the database knows already costs nothing.

    2. Each is built and timed beside float32: seconds. One that is not faster
       than a variant within the budget ends here.

    3. The fastest of the others is scored, on a few images, then on twice as
       many, until it is sure that it loses more than the budget allows, or all
       images are scored.

    4. The winner is timed a second time, on its own bytes, and its score
       confirmed by pycocotools; on other images, too, if the spec names some
       (evaluation: {search: ..., confirm: ...}).

    5. A summary says what it gains, what it costs and how sure that is. If
       nothing is within the budget, it names the nearest variants instead.

    The flags stand in for the section `study` of the spec, which also has
    objectives (latency; with ap_loss or size besides: a Pareto front), in_flight
    (8), error_rate (0.05), stop_early (true):

      study: {sampler: tpe, seed: 0, stop: {trials: 200, patience: 50}}

    Everything is stored as it comes. After Ctrl-C, a crash or a limit, the same
    command goes on; with a higher limit, it goes on to that. Another sampler or
    seed is another study, which starts from what is measured already.

    For example:

      quantsweep study study.yaml --trials 60 --db results.db
    """
    if example:
        from orchestrator.demo import example_study

        typer.echo(example_study(), nl=False)
        return
    from orchestrator.spec import STUDY, load_spec, refuse_aimless, with_study
    from tasks.errors import SpecMistake

    if spec is None:
        raise SpecMistake("name a spec file; `quantsweep study --example` prints one to start from")
    loaded = load_spec(spec)
    stop = {"trials": trials, "seconds": seconds, "images": images, "patience": patience}
    loaded = with_study(loaded, _given({"sampler": sampler, "seed": seed}), _given(stop))
    refuse_aimless(loaded, str(spec), STUDY, loaded.study.objectives)
    if dry_run:
        from orchestrator.forecast import study_lines

        dry_run_of(loaded, db, artifacts, as_json, study_lines)
        return

    def begin(plan: "Plan", engine: "Engine", view: "SearchView") -> "Study":
        from orchestrator.study import Study

        return Study(plan, engine, db, view.stages, view)

    search_and_show(loaded, db, artifacts, address, as_json, begin)


def find_best(spec: "Spec", origin: str, db: str, artifacts: str, address: str, as_json: bool) -> None:
    """Finds the exact optimum of a grid and prints its leaderboard and a summary; `quantsweep sweep --find-best`.

    Args:
        spec: A checked spec.
        origin: What to call it in messages.
        db: The database.
        artifacts: Where files go.
        address: Where tasks run.
        as_json: Whether to print JSON.
    """
    from orchestrator.spec import FIND_BEST, refuse_aimless

    refuse_aimless(spec, origin, FIND_BEST, ["latency"])

    def begin(plan: "Plan", engine: "Engine", view: "SearchView") -> "Study":
        from orchestrator.find_best import FindBest

        return FindBest(plan, engine, view.stages, view)

    search_and_show(spec, db, artifacts, address, as_json, begin, is_exact=True)


def search_and_show(
    spec: "Spec",
    db: str,
    artifacts: str,
    address: str,
    as_json: bool,
    begin: "Callable[[Plan, Engine, SearchView], Study]",
    is_exact: bool = False,
) -> None:
    """Runs a search and prints what it found.

    Args:
        spec: What to search.
        db: The database.
        artifacts: Where files go.
        address: Where tasks run.
        as_json: Whether to print JSON.
        begin: Makes the search of a plan, the database and a view.
        is_exact: Whether it scores variants on all images only, for the latency alone, and has no limits.
    """
    from orchestrator.cli.output import print_json
    from orchestrator.search.stops import StopRules
    from orchestrator.study_view import Standing, open_search_view
    from orchestrator.summary import report
    from results.connect import database_for_results

    plan = prepared(spec, artifacts)
    stops = StopRules() if is_exact else StopRules(**spec.study.stop.model_dump())
    standing = Standing(spec.name, len(spec.space.variants) - 1, spec.budget, stops)
    with database_for_results(db) as engine, closing(open_search_view(standing)) as view:
        running = begin(plan, engine, view)
        _run(running, engine, view, address)
        found = _found(running, engine, spec, is_exact)
    if as_json:
        print_json(report(found))
    else:
        _print(found, engine, is_exact)


def _run(running: "Study", engine: "Engine", view: "SearchView", address: str) -> None:
    from cluster.connect import connect

    if running.is_finished:
        view.stages.stage("it has ended before; no task was submitted")
        return
    _resume(running, engine, view)
    executor = connect(address)
    try:
        running.run(executor)
    finally:
        executor.close()


def _resume(running: "Study", engine: "Engine", view: "SearchView") -> None:
    """Shows what earlier runs have found, if there were any."""
    from dataclasses import replace

    from orchestrator.study_view import Leader
    from results import queries

    if all(each["sweep_key"] != running.key for each in queries.sweeps(engine)):
        return
    rows, before = queries.leaderboard(engine, running.key), running.outcome
    feasible = [
        Leader(row["variant"], row["latency_ratio"], row["verdict_loss"])
        for row in rows
        if row["verdict"] == "feasible"
    ]
    standing = replace(
        view.standing,
        verdicts={row["variant"]: row["verdict"] for row in rows if row["verdict"]},
        trials=before.trials,
        images=before.images_inferred,
        earlier_seconds=before.seconds,
        earlier_best=min(feasible, key=lambda leader: leader.ratio, default=None),
    )
    view.resume(standing)


def _found(running: "Study", engine: "Engine", spec: "Spec", is_exact: bool) -> "Found":
    from orchestrator.summary import Found
    from results import queries

    key = running.key
    return Found(
        outcome=running.outcome,
        rows=queries.leaderboard(engine, key),
        sweep=queries.find_sweep(engine, key),
        nearest=queries.nearest(engine, key),
        objectives=("latency",) if is_exact else tuple(spec.study.objectives),
        error_rate=spec.study.error_rate if spec.study.stop_early and not is_exact else None,
    )


def _print(found: "Found", engine: "Engine", with_leaderboard: bool) -> None:
    from orchestrator.cli.leaderboard import leaderboard_columns, print_leaderboard
    from orchestrator.cli.output import print_line, print_rows
    from orchestrator.explanations import explanations
    from orchestrator.summary import summary
    from results.connect import name_of

    key = found.outcome.sweep_key
    if with_leaderboard:
        print_leaderboard(found.rows, found.sweep, explanations(engine, key))
        print_line("")
    if len(found.objectives) > 1:
        title = f"{found.sweep['sweep']}: nothing feasible beats these in {', '.join(found.objectives)} at once"
        print_rows(found.front, leaderboard_columns(found.front), title=title, empty="nothing is feasible")
        print_line("")
    for line in summary(found, f"--sweep {key[:12]} --db {name_of(engine)}"):
        print_line(line)


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None}
