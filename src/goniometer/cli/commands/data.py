"""``goniometer data``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from goniometer.cli.app import TRAIN, Format, Read, app, read_files

data = typer.Typer(help="Data sets of structures with energies and forces.", no_args_is_help=True)
app.add_typer(data, name="data", rich_help_panel=TRAIN)


@data.command()
def check(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Structures with labels.", show_default=False)],
    format: Format = None,
    read: Read = None,
) -> None:
    """Look for missing labels, units off by bohr or hartree, net forces, and structures that come twice.

    Exit code 1 if something looks wrong, 2 if a structure cannot be used at all.
    """
    from goniometer.structures.labelled import read_labelled
    from goniometer.structures.plausibility import look_for_trouble

    findings = look_for_trouble(read_labelled(read_files(files, format, read)))
    typer.echo(f"{findings.structures} structures of {findings.atoms} atoms in all, each with an energy and forces")
    lines = findings.lines()
    for line in lines:
        typer.echo(line)
    if lines:
        print(f"goniometer: {len(lines)} {'things look' if len(lines) > 1 else 'thing looks'} wrong", file=sys.stderr)
        raise typer.Exit(1)


@data.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Which set: water.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Extended XYZ; by default NAME.xyz.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(envvar="GONIOMETER_DATA_URL", help="A mirror of the original file.", show_default=False),
    ] = None,
) -> None:
    """Fetch a public data set, check that it is the one that was meant, and convert it to eV and Å.

    The original is kept in a cache, the folder GONIOMETER_CACHE or that of the system; a download that broke off goes
    on.
    """
    from ase.io import write

    from goniometer.cli.progress_bar import progress_bar
    from goniometer.files.records import replacing
    from goniometer.structures.public_sets import converted, public_set
    from goniometer.structures.public_sets import fetch as original

    wanted = public_set(name)
    out = out or Path(f"{name}.xyz")
    with progress_bar() as progress:
        path = original(name, url, progress)
        frames = list(converted(path, wanted, progress))
    with replacing(out) as partial:
        write(partial, frames, format="extxyz")
    typer.echo(f"{out}: {len(frames)} structures of {path.name} (git blob {wanted.blob}) in eV and Å")
    typer.echo(f"please cite {wanted.citation}")
