"""`quantsweep db`: looks after the database's schema."""

from typing import Annotated

import typer

from orchestrator.cli.output import print_json, print_line
from orchestrator.cli.results import DEFAULT_DATABASE, AsJson, Database

app = typer.Typer(no_args_is_help=True, help="Look after the database.")


@app.callback()
def db() -> None:
    """Look after the database."""


@app.command()
def upgrade(
    db: Database = DEFAULT_DATABASE,
    create: Annotated[bool, typer.Option("--create", help="Make the database if there is none.")] = False,
) -> None:
    """Bring the schema of a database to the newest version."""
    from results.connect import name_of, open_unchecked, upgrade_database

    engine = open_unchecked(db, create=create)
    before, after = upgrade_database(engine)
    done = f"is at schema {after} already" if before == after else f"upgraded from {before or 'nothing'} to {after}"
    print_line(f"{name_of(engine)}: {done}")


@app.command()
def check(db: Database = DEFAULT_DATABASE, as_json: AsJson = False) -> None:
    """Check that a database can be read and that its schema is whole and the newest."""
    from results.connect import check_database, name_of, open_database

    engine = open_database(db, read_only=True)
    facts = check_database(engine)
    if as_json:
        print_json([facts])
    else:
        print_line(f"{name_of(engine)}: schema {facts['schema']}, whole, {facts['sweeps']} sweeps")
