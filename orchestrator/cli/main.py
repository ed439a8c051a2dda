"""The `quantsweep` command."""

import sys
from typing import Annotated

import typer

from orchestrator.cli import data, db, demo, model, profile, results, sweep
from tasks.errors import QuantsweepError, UserMistake

app = typer.Typer(
    name="quantsweep",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=(
        "Find the fastest quantized build of an SSD MobileNetV1 that still detects.\n\n"
        "Start with `quantsweep demo`. For your own detector: `quantsweep model import`, write a spec "
        "(`quantsweep sweep --example`), `quantsweep sweep SPEC`, `quantsweep results leaderboard`."
    ),
)
app.command("demo")(demo.demo)
app.add_typer(model.app, name="model")
app.add_typer(data.app, name="data")
app.command("sweep")(sweep.sweep)
app.command("profile")(profile.profile)
app.add_typer(results.app, name="results")
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
    except KeyboardInterrupt:
        sys.stderr.write(
            "quantsweep: interrupted; what is finished is stored, and the same command goes on from there\n"
        )
        sys.exit(1)


if __name__ == "__main__":
    run()
