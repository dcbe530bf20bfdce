"""``goniometer ice`` and ``goniometer relax``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from goniometer.cli.app import MOST_SEED, STUDY, USE, Format, Read, Vectors, app, read_files


@app.command(rich_help_panel=STUDY)
def ice(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="In extended XYZ.")],
    molecules: Annotated[int, typer.Option(help="Of each cell: a multiple of 16.")] = 96,
    count: Annotated[int, typer.Option(help="How many cells, each with other protons.")] = 1,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the protons.")] = 0,
) -> None:
    """Make cells of proton-disordered ice Ih without a net dipole."""
    from goniometer.structures import write_structures
    from goniometer.studies.ice_cells import ice as make

    cells = make(molecules, count, seed)
    write_structures(out, cells)
    lengths = " × ".join(f"{edge:.2f}" for edge in cells[0].cell.lengths())
    typer.echo(f"{count} cells of {molecules} molecules, {lengths} Å, written to {out}")


@app.command(rich_help_panel=USE)
def relax(
    structures: Annotated[
        list[str],
        typer.Argument(help="Files in any format that ASE reads, or packaged structures.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="A file for each, and a table.")],
    model: Annotated[str, typer.Option(help="As for `goniometer probe`.")] = "pet-water",
    rule: Annotated[str | None, typer.Option(help="Average over this rule; by default the model as it is.")] = None,
    inversion: Annotated[bool, typer.Option(help="With the rule: inversion as well.")] = True,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="At most.")] = 1000,
    verify: Annotated[bool, typer.Option(help="With the rule: test first that the average is a potential.")] = True,
    format: Format = None,
    read: Read = None,
    vector: Vectors = None,
) -> None:
    """Relax structures by L-BFGS to the study's tolerances; the same command goes on with what is not finished."""
    from goniometer.cli.progress_bar import progress_bar
    from goniometer.dynamics.relaxation import relax_all, table
    from goniometer.potentials.loading import identity, load
    from goniometer.strategies import symmetrize

    named = read_files(structures, format, read, vector)
    potential = load(model, dtype=dtype)
    if rule is not None:
        potential = symmetrize(potential, rule, inversion=inversion, verify=verify)
    with progress_bar() as bar:
        found = relax_all(named, potential, out, identity=identity(model), steps=steps, progress=bar)
    for line in table(found):
        typer.echo(line)
