"""`quantsweep demo`: the whole loop on the built-in detector and synthetic data."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.sweep import Address, AsJson


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the database, models and images.")] = Path(
        "quantsweep-demo"
    ),
    address: Address = "local",
    as_json: AsJson = False,
) -> None:
    """Sweep the built-in detector on synthetic COCO-format images, and show what to look at next."""
    from orchestrator.cli.output import print_line
    from orchestrator.cli.sweep import sweep_and_show
    from orchestrator.demo import demo_spec
    from orchestrator.spec import parse_spec
    from tasks.errors import DataMistake

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataMistake(f"the folder {out} cannot be made: {error.strerror}") from error
    database = out / "quantsweep.db"
    spec = parse_spec(demo_spec(), "the demo's spec", out.resolve())
    sweep_and_show(spec, str(database), str(out / "artifacts"), address, as_json)
    if as_json:
        return
    print_line("")
    print_line("Look further:")
    for command, purpose in (
        (f"quantsweep results leaderboard --db {database} --json", "the same as JSON"),
        (f"quantsweep results show VARIANT --db {database}", "all statistics, audit and latency of one variant"),
        (f"quantsweep results sql 'SELECT * FROM pareto_front' --db {database}", "SQL over everything measured"),
        ("quantsweep sweep --example", "a spec to start from with your own detector"),
    ):
        print_line(f"  {command}\n      {purpose}")
