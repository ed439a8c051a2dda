"""The `quantsweep` command."""

import sys
from typing import Annotated, Any

import typer
import typer.core

from orchestrator.cli import data, db, demo, export, model, profile, replay, results, study, sweep, train
from tasks.errors import QuantsweepError, UserMistake


class _Interrupted(Exception):
    """Ctrl-C was pressed."""


class _Commands(typer.core.TyperGroup):
    """The commands; Ctrl-C goes past typer, which would end without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _Interrupted from error


app = typer.Typer(
    name="quantsweep",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=(
        "Find the fastest quantized build of an SSD MobileNetV1 that still detects.\n\n"
        "Start with `quantsweep demo`. For your own detector: `quantsweep model import`, write a spec "
        "(`quantsweep sweep --example`), then `quantsweep study SPEC` to search for the fastest variant within a "
        "budget, or `quantsweep sweep SPEC` to measure every variant, and `quantsweep results leaderboard`."
    ),
)
app.command("demo")(demo.demo)
app.add_typer(model.app, name="model")
app.add_typer(data.app, name="data")
app.command("sweep")(sweep.sweep)
app.command("study")(study.study)
app.command("train")(train.train)
app.command("replay")(replay.replay)
app.command("profile")(profile.profile)
app.add_typer(results.app, name="results")
app.command("export")(export.export)
app.add_typer(db.app, name="db")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if show_version:
        from importlib.metadata import version

        typer.echo(f"quantsweep {version('quantsweep')}")
        raise typer.Exit


def run() -> None:
    """Runs the command; exit code 2 for a user's mistake, 1 for what failed, 0 otherwise."""
    try:
        app()
    except UserMistake as mistake:
        sys.stderr.write(f"quantsweep: {mistake}\n")
        sys.exit(2)
    except QuantsweepError as error:
        sys.stderr.write(f"quantsweep: {error}\n")
        sys.exit(1)
    except _Interrupted:
        sys.stderr.write(
            "quantsweep: interrupted; what is finished is stored, and the same command goes on from there\n"
        )
        sys.exit(1)


if __name__ == "__main__":
    run()
