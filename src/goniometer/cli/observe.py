"""``goniometer observe`` and ``goniometer frames``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from goniometer.cli.app import app

Trajectory = Annotated[
    Path,
    typer.Argument(help="The folder of a run, or a file of frames in any format that ASE reads.", show_default=False),
]


@app.command()
def observe(
    trajectory: Trajectory,
    observable: Annotated[
        str,
        typer.Option(help="pair-distribution, displacement, orientation, drift …", show_default=False),
    ],
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the observable, --set pair=O-H; repeatable."),
    ] = None,
    spacing: Annotated[
        float | None, typer.Option(metavar="FS", help="Between two frames, for a file that does not say.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write it as netCDF.")] = None,
) -> None:
    """Work out an observable of a trajectory."""
    from goniometer.cli.run import changes_of
    from goniometer.data.trajectory import read_trajectory
    from goniometer.observables import check_observable
    from goniometer.observables import observe as find

    options = changes_of(change or [])
    check_observable(observable, options)
    found = find(read_trajectory(trajectory, spacing), observable, options)
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
