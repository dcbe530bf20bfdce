"""``goniometer experiment``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from goniometer.cli.app import app
from goniometer.cli.run import Change, changes_of


@app.command()
def experiment(
    name: Annotated[
        str, typer.Argument(help="gas: one molecule in vacuum, figure 1 of the study.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Runs, results and the figure.")],
    size: Annotated[str, typer.Option(help="smoke, laptop or paper.")] = "smoke",
    change: Change = None,
) -> None:
    """Run an experiment of the study with any model, and draw its figure; interrupted, the same command goes on."""
    from goniometer.cli.app import Stopped
    from goniometer.cli.progress import progress_bar
    from goniometer.errors import InputError
    from goniometer.experiments.gas import Interrupted, gas, summary
    from goniometer.report.gas import gas_figure
    from goniometer.report.sheet import write_sheet

    if name != "gas":
        raise InputError(f"there is no experiment '{name}'; there is gas")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with progress_bar() as progress:
            study = gas(out, size=size, changes=changes_of(change or []), progress=progress)
    except Interrupted as stopped:
        raise Stopped(str(stopped)) from None
    caption = (
        "Angular momentum of the first replica; rms torque by grid with its error over replicas; power spectra; free "
        "energies of the direction of the dipole."
    )
    for suffix in (".png", ".html"):
        write_sheet(gas_figure(study), out / f"gas-{size}{suffix}", f"{study.model}: one molecule in vacuum", caption)
    for line in summary(study):
        typer.echo(line)
