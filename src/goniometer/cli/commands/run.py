"""``goniometer run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from goniometer.cli.app import USE, Format, Read, Vectors, app, roles_of

Change = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Another value, --set potential.model=model.pt; repeatable."),
]


@app.command(rich_help_panel=USE)
def run(
    description: Annotated[
        str,
        typer.Argument(
            help="A packaged description (gas-nve, gas-nvt), or a YAML file like them.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Where runs have their folders, each under a hash.")
    ] = Path("runs"),
    size: Annotated[
        str | None, typer.Option(help="smoke, laptop or paper in packaged descriptions; by default the first.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Of several runs this one; repeatable.")
    ] = None,
    drivers: Annotated[
        int, typer.Option(min=0, help="Evaluate in so many processes on this machine instead of this one.")
    ] = 0,
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Listen there for `goniometer driver`, on this machine or on others."),
    ] = None,
    wait: Annotated[bool, typer.Option(help="If another process is at a run, wait until it has ended.")] = False,
    change: Change = None,
    format: Format = None,
    read: Read = None,
    vector: Vectors = None,
) -> None:
    """Run molecular dynamics, go on where it was killed, or say that it is finished."""
    import sys

    from goniometer.cli.progress_bar import progress_bar
    from goniometer.dynamics.description import read_runs
    from goniometer.dynamics.run import driver_options, start_notes
    from goniometer.dynamics.run import run as start
    from goniometer.interruption import Interrupted
    from goniometer.progress import named
    from goniometer.structures.formats import reader_options

    changes = changes_of(change or [])
    for key, given in {"format": format, "read": reader_options(read or []), "vectors": roles_of(vector or [])}.items():
        if given:
            changes[key] = given
    runs = read_runs(description, size=size, only=only or (), changes=changes)
    for note in dict.fromkeys(note for each in runs.values() for note in start_notes(each)):
        print(f"goniometer: {note}", file=sys.stderr)
    for name, each in runs.items():
        if address is not None:
            options = " ".join(["", *driver_options(each)])
            where = f"goniometer driver {each.potential.model} {each.structure} --address {address}{options}"
            print(f"goniometer: start drivers by: {where}", file=sys.stderr)
        with progress_bar() as bar:
            result = start(each, out, name=name, drivers=drivers, address=address, progress=named(bar, name), wait=wait)
        if not result.finished:
            raise Interrupted(
                f"stopped at step {result.steps} of {each.steps}; the same command goes on from {result.folder}"
            )
        longer = result.steps * each.step * 1e-3
        more = f" (it holds {longer:g} ps)" if result.steps > each.steps else ""
        print(f"goniometer: {result.folder} is finished, {each.length:g} ps{more}", file=sys.stderr)


def changes_of(pairs: list[str]) -> dict[str, Any]:
    """Keys and values of ``KEY=VALUE``, read as YAML."""
    import yaml

    from goniometer.errors import InputError

    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise InputError(f"'{pair}' is no change: write KEY=VALUE, for instance length=5")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"the value in '{pair}' cannot be read: {' '.join(str(error).split())}") from error
    return found
