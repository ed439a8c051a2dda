"""`quantsweep replay`: searches against a recorded sweep."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orchestrator.cli.output import Column, Row, number_of, print_json, print_line, print_rows, text_of
from orchestrator.cli.results import DEFAULT_DATABASE, Sweep

if TYPE_CHECKING:
    from orchestrator.budget import Budget
    from orchestrator.replay.table import Table


def replay(
    db: Annotated[
        str,
        typer.Argument(
            metavar="DB",
            envvar="QUANTSWEEP_DB",
            help="Path of an SQLite database with a finished sweep, or postgresql://USER@HOST/NAME.",
        ),
    ] = DEFAULT_DATABASE,
    sweep: Sweep = None,
    artifacts: Annotated[
        str | None, typer.Option(help="Folder or URL of the artifacts; where the sweep put them if not given.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="COCO annotations of the sweep's images; where it read them if not given.")
    ] = None,
    strategies: Annotated[
        str, typer.Option(help="Strategies, joined by commas; all of them: --strategies list.")
    ] = "exhaustive,find_best,random,tpe",
    seeds: Annotated[int, typer.Option(min=1, help="Searches of each strategy, each with its own seed.")] = 20,
    images: Annotated[
        int | None,
        typer.Option(
            min=1, help="Draw so many images with replacement for each seed; the sweep's own, shuffled, if not given."
        ),
    ] = None,
    max_loss: Annotated[
        float | None, typer.Option(min=0, help="The budget: largest loss; the sweep's own budget if not given.")
    ] = None,
    relative: Annotated[
        bool, typer.Option("--relative", help="With --max-loss: it is a share of the reference's value.")
    ] = False,
    metric: Annotated[
        Literal["AP", "AP50", "AP75"], typer.Option(help="With --max-loss: the statistic that it is about.")
    ] = "AP",
    in_flight: Annotated[int, typer.Option(min=1, help="Variants without a verdict at a time.")] = 8,
    trials: Annotated[int | None, typer.Option(min=1, help="Most variants of a search; no limit if not given.")] = None,
    patience: Annotated[
        int, typer.Option(min=0, help="A search ends after so many verdicts without a better variant; 0: never.")
    ] = 50,
    error_rate: Annotated[
        float, typer.Option(help="How often a variant within the budget may be ended wrongly, above 0 and below 0.5.")
    ] = 0.05,
    plot: Annotated[Path | None, typer.Option(dir_okay=False, help="Also write plots to this HTML file.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that share the seeds.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with every search.")] = False,
) -> None:
    """Try search strategies on a finished sweep, without measuring anything.

    The sweep has measured every variant, so any search over the same variants
    can be run against what it measured, in seconds, with as many seeds as
    needed. Each seed shuffles the images, or draws new ones (--images), and
    decides anew which variants are within the budget: the report says how often
    a strategy finds the fastest of those, how many images it infers on the way,
    and how often the interval ended a variant that was within the budget.

    optimum: share of searches that find the fastest feasible variant; as fast:
    or one whose latency interval overlaps its. regret: time of what was found /
    time of the optimum - 1, mean. images: share of what scoring everything
    takes, mean, and how many are inferred until the optimum is found, median.
    timed: latencies measured, likewise. wrong: builds within the budget that
    were ended as over it, of all that were looked at. unsupported: variants
    asked for that cannot be made, in the first and in the second half of the
    trials.
    """
    from orchestrator.replay.report import replay_all
    from orchestrator.replay.run import ReplayOptions
    from orchestrator.replay.strategies import STRATEGIES, strategies_of
    from orchestrator.search.stops import StopRules
    from tasks.errors import UserMistake

    if strategies == "list":
        print_line("\n".join(STRATEGIES))
        return
    if not 0 < error_rate < 0.5:
        raise UserMistake(f"--error-rate is {error_rate:g}; it must be above 0 and below 0.5")
    chosen = strategies_of(name.strip() for name in strategies.split(",") if name.strip())
    if not chosen:
        raise UserMistake(f"--strategies names none; choices: {', '.join(STRATEGIES)}")
    if plot is not None and not plot.parent.is_dir():
        raise UserMistake(f"--plot {plot}: the folder {plot.parent} does not exist")
    table = _table(db, sweep, artifacts, annotations, _budget(max_loss, relative, metric))
    options = ReplayOptions(images, in_flight, error_rate, StopRules(trials=trials, patience=patience or None))

    def show(done: int) -> None:
        sys.stderr.write(f"{done} of {seeds} seeds\n")

    report = replay_all(table, chosen, options, range(seeds), jobs, show).plain()
    if plot is not None:
        from orchestrator.replay.plot import write_plot

        write_plot(report, plot)
    if as_json:
        print_json(report)
    else:
        _print_report(report)


def _budget(max_loss: float | None, relative: bool, metric: str) -> "Budget | None":
    from orchestrator.budget import Budget
    from tasks.errors import UserMistake

    if max_loss is not None:
        return Budget(metric, max_loss, relative)
    if relative or metric != "AP":
        raise UserMistake("--relative and --metric say what --max-loss means; give --max-loss, too")
    return None


def _table(
    db: str, sweep: str | None, artifacts: str | None, annotations: Path | None, budget: "Budget | None"
) -> "Table":
    from orchestrator.replay.table import load_table
    from results.connect import open_database

    engine = open_database(db, read_only=True)
    try:
        return load_table(engine, sweep, artifacts, annotations, budget)
    finally:
        engine.dispose()


def _print_report(report: dict[str, Any]) -> None:
    drawn = f"{report['images']} images drawn from" if report["is_resampled"] else "the"
    title = (
        f"{report['sweep']}: {report['variants']} variants with {report['latencies']} latencies, {drawn} "
        f"{report['table_images']} images of {report['dataset']}, {report['budget']['text']}, {report['seeds']} seeds"
    )
    print_rows(report["strategies"], COLUMNS, title=title)
    if any(each["images_to_optimum"]["reached"] < each["seeds"] for each in report["strategies"]):
        print_line("never: fewer than half of the searches found the optimum")
    without = sum(run["optimum"] is None for run in report["runs"])
    if without:
        print_line(f"{without} of {len(report['runs'])} searches had no feasible variant to find")


def _percent(name: str, heading: str, part: str = "", form: str = ".0f") -> Column:
    def text(row: Row) -> str:
        value = row[name][part] if part else row[name]
        return "-" if value is None else f"{format(100 * value, form)} %"

    return Column(heading, text, "right")


def _median(name: str, heading: str) -> Column:
    def text(row: Row) -> str:
        value = row[name]["median"]
        return "never" if value is None else f"{value:.0f}"

    return Column(heading, text, "right")


COLUMNS = (
    text_of("strategy"),
    _percent("optimum_share", "optimum"),
    _percent("as_fast_share", "as fast"),
    _percent("regret", "regret", "mean", ".2f"),
    _percent("images_share", "images", "mean", ".1f"),
    _median("images_to_optimum", "to optimum"),
    number_of("timed", "timed", ".1f"),
    _median("timed_to_optimum", "to optimum"),
    number_of("trials", "trials", ".1f"),
    Column("wrong", lambda row: f"{row['wrong_verdicts']} of {row['decisions_within_budget']}", "right"),
    Column(
        "unsupported",
        lambda row: f"{row['unsupported_first_half']:.1f} + {row['unsupported_second_half']:.1f}",
        "right",
    ),
)
"""Columns of the table: a row for each strategy."""
