"""``goniometer export``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from goniometer.cli.app import USE, Dtype, EnergyTolerance, ForceTolerance, Inversion, StressTolerance, app


@app.command(rich_help_panel=USE)
def export(
    model: Annotated[
        str,
        typer.Argument(
            help="A packaged model (pet-water) or an exported metatomic model (model.pt).", show_default=False
        ),
    ],
    rule: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What to average over; see `goniometer rules`. Or plan: the cheapest that meets tolerances.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The model file to write.")],
    inversion: Inversion = None,
    structures: Annotated[
        list[str] | None,
        typer.Option("--structure", metavar="FILE", help="What to plan on: a file, or a packaged name; repeatable."),
    ] = None,
    force_tolerance: ForceTolerance = None,
    energy_tolerance: EnergyTolerance = None,
    stress_tolerance: StressTolerance = None,
    dtype: Dtype = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Copies evaluated at a time; by default as many as hold 768 atoms together."),
    ] = None,
    verify: Annotated[
        bool, typer.Option(help="Test first that forces and virials of rotated copies are derivatives of the energy.")
    ] = True,
) -> None:
    """Write a metatomic model whose energy is the average of another's over a rule; it needs no goniometer to run."""
    from goniometer.strategies import chosen_rule
    from goniometer.symmetrization.export import export as write

    over = chosen_rule(
        model,
        rule,
        inversion=inversion,
        dtype=dtype,
        structures=structures or None,
        force_tolerance=force_tolerance,
        energy_tolerance=energy_tolerance,
        stress_tolerance=stress_tolerance,
    )
    done = write(model, over, output, dtype=dtype, batch=batch, verify=verify)
    elements = f"{len(done.rule)} elements{', inversion included' if done.rule.inversion else ''}"
    print(f"{done.path}: {', '.join(done.kept)} averaged over {done.rule.name} ({elements})")
    if done.dropped:
        print(f"goniometer: outputs left out, for which no average is made: {', '.join(done.dropped)}", file=sys.stderr)
