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
        str,
        typer.Argument(
            help="gas: one molecule in vacuum, figure 1 of the study. liquid: water in bulk, figures 2 and 3. ice: "
            "cells of other protons, relaxed.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Runs, results and the figure.")],
    size: Annotated[str, typer.Option(help="smoke, laptop or paper.")] = "smoke",
    walkers: Annotated[
        int | None, typer.Option(min=1, help="liquid: independent runs of each strategy; 6 in the size laptop, or 1.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="liquid: this strategy besides raw; repeatable.")
    ] = None,
    frames: Annotated[int, typer.Option(min=0, help="liquid: frames that are evaluated over all grids.")] = 40,
    change: Change = None,
) -> None:
    """Run an experiment of the study with any model, and draw its figure; interrupted, the same command goes on."""
    from goniometer.cli.app import Stopped
    from goniometer.cli.progress import progress_bar
    from goniometer.errors import InputError
    from goniometer.experiments import gas, ice, liquid
    from goniometer.experiments.gas import Interrupted
    from goniometer.report.gas import gas_figure
    from goniometer.report.liquid import convergence_figure, liquid_figure
    from goniometer.report.sheet import write_sheet

    if name not in ("gas", "liquid", "ice"):
        raise InputError(f"there is no experiment '{name}'; there are gas, liquid and ice")
    out.mkdir(parents=True, exist_ok=True)
    settings = changes_of(change or [])
    try:
        with progress_bar() as progress:
            if name == "gas":
                lone = gas.gas(out, size=size, changes=settings, progress=progress)
                figures, lines, model = {"gas": gas_figure(lone)}, gas.summary(lone), lone.model
            elif name == "ice":
                keys = {"potential.model": "model", "potential.dtype": "dtype", "seed": "seed"}
                for key in settings:
                    if key not in keys:
                        raise InputError(f"'{key}' is no setting of ice; there are {', '.join(keys)}")
                given = {keys[key]: value for key, value in settings.items()}
                solid = ice.ice(out, size=size, progress=progress, **given)
                figures, lines, model = {}, ice.summary(solid), solid.model
            else:
                bulk = liquid.liquid(
                    out,
                    size=size,
                    only=only or (),
                    walkers=walkers,
                    frames=frames,
                    changes=settings,
                    progress=progress,
                )
                figures, lines, model = {"liquid": liquid_figure(bulk)}, liquid.summary(bulk), bulk.model
                if bulk.grids is not None:
                    figures["liquid-convergence"] = convergence_figure(bulk)
    except Interrupted as stopped:
        raise Stopped(str(stopped)) from None
    for kind, figure in figures.items():
        title, caption = _CAPTIONS[kind]
        stem, _, more = kind.partition("-")
        for suffix in (".png", ".html"):
            path = out / f"{'-'.join(each for each in (stem, size, more) if each)}{suffix}"
            write_sheet(figure, path, f"{model}: {title}", caption)
    for line in lines:
        typer.echo(line)


#: Title and caption of every figure.
_CAPTIONS = {
    "gas": (
        "one molecule in vacuum",
        "Angular momentum of the first replica; rms torque by grid with its error over replicas; power spectra; free "
        "energies of the direction of the dipole.",
    ),
    "liquid": (
        "water in bulk",
        "Free energies of the direction of the dipole; pair distribution of the oxygens; correlation of dipoles, "
        "longitudinal and transverse; mean squared displacement of the oxygens; reorientation of the dipoles. Bands "
        "are standard errors.",
    ),
    "liquid-convergence": (
        "what is left by grid",
        "Symmetry error on frames of the raw run; the largest change of static observables that averaging would make, "
        "by reweighting the same frames, and the largest error of that.",
    ),
}
