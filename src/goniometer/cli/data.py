"""``goniometer data``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from goniometer.cli.app import app

data = typer.Typer(help="Data sets of structures with energies and forces.", no_args_is_help=True)
app.add_typer(data, name="data")


@data.command()
def check(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Structures with labels.", show_default=False)],
) -> None:
    """Look for missing labels, units off by bohr or hartree, net forces, and structures that come twice.

    Exit code 1 if something looks wrong, 2 if a structure cannot be used at all.
    """
    from goniometer.data.labelled import read_labelled
    from goniometer.data.suspicion import look_for_trouble

    findings = look_for_trouble(read_labelled(files))
    typer.echo(f"{findings.structures} structures of {findings.atoms} atoms in all, each with an energy and forces")
    lines = findings.lines()
    for line in lines:
        typer.echo(line)
    if lines:
        print(f"goniometer: {len(lines)} {'things look' if len(lines) > 1 else 'thing looks'} wrong", file=sys.stderr)
        raise typer.Exit(1)
