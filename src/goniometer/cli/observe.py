"""``goniometer observe`` and ``goniometer frames``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from goniometer.cli.app import app

Trajectory = Annotated[Path, typer.Argument(help="The folder of a run, or one of its segments.", show_default=False)]


@app.command()
def observe(
    trajectory: Trajectory,
    observable: Annotated[
        str,
        typer.Option(help="angular-momentum, drift, potential-spectrum or correction-spectrum.", show_default=False),
    ],
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write it as netCDF.")] = None,
) -> None:
    """Work out an observable of a trajectory."""
    from goniometer.data.trajectory import read_trajectory
    from goniometer.errors import InputError, did_you_mean
    from goniometer.observables import OBSERVABLES

    if observable not in OBSERVABLES:
        hint = did_you_mean(observable, OBSERVABLES)
        raise InputError(f"there is no observable '{observable}'; there are {', '.join(OBSERVABLES)}{hint}")
    found = OBSERVABLES[observable](read_trajectory(trajectory))
    if out is not None:
        found.save(out)
    if found.values.ndim == 0:
        typer.echo(f"{found.name} = {float(found.values):.4g} ± {float(found.errors):.2g} {found.unit}")
    else:
        shape = " × ".join(f"{len(axis.values)} {name}" for name, axis in found.axes.items())
        typer.echo(f"{found.name}, {shape}, in {found.unit}")
    for key, value in found.about.items():
        typer.echo(f"  {key}: {value:.6g}" if isinstance(value, float) else f"  {key}: {value}")


@app.command()
def frames(
    trajectory: Trajectory,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="In extended XYZ.")],
    every: Annotated[int, typer.Option(min=1, help="Take every such frame.")] = 1,
) -> None:
    """Write the frames of a trajectory as extended XYZ, with velocities and what was recorded."""
    from ase.io import write

    from goniometer.data.trajectory import read_trajectory
    from goniometer.errors import InputError

    read = read_trajectory(trajectory)
    partial = out.with_name(out.name + ".part")
    try:
        write(partial, read.structures(every), format="extxyz")
        partial.replace(out)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror or error}") from error
