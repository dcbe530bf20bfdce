"""``goniometer observe`` and ``goniometer frames``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from goniometer.cli.app import ANALYSE, Format, Read, app

if TYPE_CHECKING:
    from goniometer.observables.result import Observable

# As many numbers are shown one by one.
_FEW = 30
Trajectory = Annotated[
    Path,
    typer.Argument(help="The folder of a run, or a file of frames in any format that ASE reads.", show_default=False),
]


@app.command(rich_help_panel=ANALYSE)
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
        float | None, typer.Option(metavar="FS", help="Between two frames of a file, in place of what it says.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--change-by",
            metavar="POTENTIAL",
            help="Say what this one would change, by reweighting: a grid (2i) or rule (gauss:5) that the model is "
            "averaged over, or another model.",
        ),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=4, help="How many are evaluated for --change-by; 100 by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write it as netCDF.")] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it with its errors: .png, or .html for light and dark.")
    ] = None,
    format: Format = None,
    read: Read = None,
) -> None:
    """Work out an observable of a trajectory, or what another potential would change in it."""
    from goniometer.cli.commands.run import changes_of
    from goniometer.errors import InputError
    from goniometer.observables import check_name

    check_name(observable)
    from goniometer.cli.progress_bar import progress_bar
    from goniometer.observables import check_observable
    from goniometer.observables import observe as find
    from goniometer.reporting.figures import check_figure_path, write_figure
    from goniometer.structures.formats import reader_options
    from goniometer.trajectories.h5md import read_trajectory

    if figure is not None:
        check_figure_path(figure)
    options = changes_of(change or [])
    check_observable(observable, options)
    if frames is not None and by is None:
        raise InputError("--frames goes with --change-by")
    opened = read_trajectory(trajectory, spacing, format=format, options=reader_options(read or []))
    with progress_bar() as progress:
        if by is None:
            found = find(opened, observable, options, progress)
        else:
            from goniometer.sampling.change import change as reweigh
            from goniometer.sampling.reweighting import FRAMES

            found = reweigh(
                opened,
                observable,
                by,
                options,
                frames=frames or FRAMES,
                progress=lambda done, whole: progress(done, whole, "frames"),
            )
    if out is not None:
        found.save(out)
    if figure is not None:
        from goniometer.plotting.observables import observable_figure

        changed = f", what {by} changes" if by else ""
        title, caption = found.name.replace("_", " "), f"Of {trajectory}{changed}. Bands and bars: standard errors."
        for key in ("too_short", "frozen"):
            caption += f" {found.about[key]}." if key in found.about else ""
        write_figure(observable_figure(found), figure, title, caption)
    for line in shown(found):
        typer.echo(line)
    for key, value in found.about.items():
        typer.echo(f"  {key}: {value:.6g}" if isinstance(value, float) else f"  {key}: {value}")


def shown(found: Observable) -> list[str]:
    """A number with its error, a few numbers one a line, or what there is of many; stresses in MPa."""
    from itertools import product
    from math import isfinite

    from goniometer.observables.stress import in_readable_units
    from goniometer.units import typeset

    found = in_readable_units(found)
    unit = typeset(found.unit)

    def known(error: float) -> str:
        return f" ± {error:.2g}" if isfinite(error) else ""

    if found.values.size > _FEW:
        shape = " × ".join(f"{len(axis.values)} {name}" for name, axis in found.axes.items())
        value, error, _ = found.largest
        said = f"{found.name}, {shape}" + (f", in {unit}" if unit else "")
        return [f"{said}: largest value {value:.4g}{known(error)}"]
    places = product(*(axis.values.tolist() for axis in found.axes.values()))
    return [
        f"{' '.join([found.name, *map(str, place)])} = {value:.4g}{known(error)} {unit}".rstrip()
        for place, value, error in zip(places, found.values.ravel(), found.errors.ravel(), strict=True)
    ]


@app.command(rich_help_panel=ANALYSE)
def frames(
    trajectory: Trajectory,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="In extended XYZ.")],
    every: Annotated[int, typer.Option(min=1, help="Take every such frame.")] = 1,
    format: Format = None,
    read: Read = None,
) -> None:
    """Write the frames of a trajectory as extended XYZ, with velocities and what was recorded."""
    from goniometer.structures import write_structures
    from goniometer.structures.formats import reader_options
    from goniometer.trajectories.h5md import read_trajectory

    opened = read_trajectory(trajectory, format=format, options=reader_options(read or []))
    write_structures(out, opened.structures(every))
