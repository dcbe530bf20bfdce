"""``goniometer experiment``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from goniometer.cli.app import STUDY, app
from goniometer.cli.commands.run import Change, changes_of
from goniometer.errors import InputError


@app.command(rich_help_panel=STUDY)
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
        list[str] | None,
        typer.Option(
            metavar="[NAME=]N",
            help="liquid: independent runs of each strategy, or of the one that is named; repeatable. 8 in the size "
            "laptop, or 1.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="liquid: this strategy besides raw; repeatable.")
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="liquid: frames of all raw runs together that are evaluated over the grids; 4, 120 or 200 by size.",
        ),
    ] = None,
    grids: Annotated[
        str | None, typer.Option(help="liquid: which grids, some of none,i,2,2i,3,3i,T,O,I; by default all.")
    ] = None,
    starts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="liquid: starts.xyz of `goniometer equilibrate`; each independent run starts from a configuration of "
            "its own.",
        ),
    ] = None,
    change: Change = None,
) -> None:
    """Run an experiment of the study with any model, and draw its figure; interrupted, the same command goes on."""
    from goniometer.cli.progress_bar import progress_bar
    from goniometer.studies.experiments.chapters import experiment as perform

    with progress_bar() as progress:
        found = perform(
            name,
            out,
            size=size,
            changes=changes_of(change or []),
            only=only or (),
            walkers=_walkers(walkers or []),
            frames=frames,
            grids=None if grids is None else tuple(grids.split(",")),
            starts=None if starts is None else str(starts),
            progress=progress,
        )
    for line in found.lines:
        typer.echo(line)
    pages = sorted(out.glob(f"{name}-{size}*.html"))
    typer.echo(f"figures: {', '.join(map(str, pages))}")


def _walkers(given: list[str]) -> dict[str, int] | None:
    """Numbers by the name of a strategy, of the others without one."""
    from goniometer.studies.experiments.liquid import OTHERS

    found = {}
    for each in given:
        name, equals, count = each.rpartition("=")
        if bool(name) != bool(equals) or not count.isdecimal() or int(count) < 1:
            raise InputError(f"--walkers {each}: wanted is a number from 1 on, or a strategy with one, raw=8")
        if (name or OTHERS) in found:
            raise InputError(f"--walkers {each}: there is another number for {name or 'what is not named'}")
        found[name or OTHERS] = int(count)
    return found or None
