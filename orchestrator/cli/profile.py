"""`quantsweep profile`: where the time of a variant goes."""

from typing import Annotated

import typer

from orchestrator.cli.results import DEFAULT_DATABASE, Database, Sweep, VariantName
from orchestrator.cli.sweep import Address


def profile(
    variant: VariantName,
    db: Database = DEFAULT_DATABASE,
    sweep: Sweep = None,
    artifacts: Annotated[
        str | None, typer.Option(help="Folder or URL of the artifacts; where the sweep put them if not given.")
    ] = None,
    address: Address = "in-process",
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Time to spend, about.")] = 10.0,
) -> None:
    """Time each operator of a variant, and store the profile with its latency.

    The machine must be the one that its latency was measured on, and should have nothing else to do. Then
    `quantsweep results show VARIANT --profile` shows which operators take the time, what executes them, and which fell
    back to float or to slow kernels. `latency: {profile: true}` in a spec does it for every variant of a sweep.
    """
    from orchestrator.cli.output import print_line
    from orchestrator.comparison import measure_profile

    measure_profile(db, variant, sweep, artifacts, address, seconds)
    print_line(f"the profile is stored; to see it: quantsweep results show {variant} --profile --db {db}")
