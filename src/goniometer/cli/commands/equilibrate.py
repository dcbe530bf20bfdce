"""``goniometer equilibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from goniometer.cli.app import USE, app
from goniometer.cli.commands.run import Change, changes_of


@app.command(rich_help_panel=USE)
def equilibrate(
    description: Annotated[
        str,
        typer.Argument(
            help="A packaged description of a liquid (liquid-nvt), or a YAML file like it.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="For starts.xyz, starts.json and the runs.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="A cheap model (soap-bpnn-water, model.pt, file.py:factory); by default that of the description."
        ),
    ] = None,
    starts: Annotated[int, typer.Option(min=1, help="How many independent configurations are wanted.")] = 8,
    runs: Annotated[int, typer.Option(min=1, help="How many runs they are taken from.")] = 1,
    length: Annotated[float | None, typer.Option(metavar="PS", help="Of each run, in ps.")] = None,
    size: Annotated[str | None, typer.Option(help="smoke, laptop or paper in packaged descriptions.")] = None,
    only: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of several runs of the description this one; raw by default.")
    ] = None,
    allow_short: Annotated[
        bool,
        typer.Option(
            "--allow-short", help="Write configurations of runs that are too short as well, marked as not independent."
        ),
    ] = False,
    change: Change = None,
) -> None:
    """Make independent starting configurations from long runs; interrupted, the same command resumes."""
    from goniometer.cli.progress_bar import progress_bar
    from goniometer.sampling.starting_configurations import EquilibrationPlan, described
    from goniometer.sampling.starting_configurations import equilibrate as make

    changes = changes_of(change or [])
    if model is not None:
        changes["potential.model"] = model
    if length is not None:
        changes["length"] = length
    plan = EquilibrationPlan(described(description, size, only, changes), starts, runs, allow_short=allow_short)
    with progress_bar() as progress:
        found = make(plan, out, progress=progress)
    time = found.record["correlation_time_ps"]
    known = "not known" if time is None else f"at most {time:.3g} ps"
    typer.echo(f"{found.path}: {len(found)} configurations; correlation time of {found.record['observable']}: {known}")
    if not found.record["independent"]:
        typer.echo(f"they are not independent, {found.record['note']}")
