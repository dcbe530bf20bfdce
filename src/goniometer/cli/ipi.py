"""``goniometer ipi`` and ``goniometer driver``: a model in i-PI, in process and over a socket."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from goniometer.cli.app import Device, Dtype, Forces, Model, Options, Seed, app

Structure = Annotated[
    str,
    typer.Argument(
        help="A file with one structure that has the atoms of the simulation, in its order (file.xyz@0 chooses one of "
        "several), or a packaged structure: molecule, box, ice.",
        show_default=False,
    ),
]
RuleName = Annotated[
    str | None,
    typer.Option(
        "--rule",
        help="The rotations, see `goniometer rules`. Without it, average takes the model as it is, and the other "
        "strategies turn it alone, without its inverse.",
    ),
]
Inversion = Annotated[bool, typer.Option(help="Include inversion.")]
Strategy = Annotated[
    str, typer.Option(help="average, random, frozen, or (in process) tumble: what is done with the rotations.")
]
FixedBatch = Annotated[
    int | None, typer.Option("--batch", min=1, help="Copies evaluated at a time; by default by the number of atoms.")
]


@app.command()
def ipi(
    model: Model,
    structure: Structure,
    rule: RuleName = None,
    inversion: Inversion = True,
    strategy: Strategy = "average",
    seed: Seed = 0,
    options: Options = None,
    device: Device = None,
    dtype: Dtype = None,
    forces: Forces = "conservative",
    batch: FixedBatch = None,
    timestep: Annotated[float | None, typer.Option(help="Of the simulation, in fs, for tumble.")] = None,
    name: Annotated[str, typer.Option(help="What i-PI's input calls it.")] = "goniometer",
) -> None:
    """Print the line of i-PI's input that evaluates a model in process. The model is tried before.

    `goniometer driver` does the same in a process of its own.
    """
    from goniometer.engines.ipi import forcefield, pes

    parameters: dict[str, Any] = {"rule": rule, "inversion": inversion, "strategy": strategy, "seed": seed}
    parameters |= {"options": options, "device": device, "dtype": dtype, "forces": forces, "batch": batch}
    parameters["timestep"] = timestep
    line = forcefield(model, structure, name=name, **parameters)
    face = pes(model, structure, **parameters)
    face.potential.predict(face.structure)
    typer.echo(line)


@app.command()
def driver(
    model: Model,
    structure: Structure,
    unix: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The <address> of a unix socket in i-PI's input, or a path with a slash in it."
        ),
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A port; without a host, of this machine.")
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for somebody to listen there.", min=0)] = 10.0,
    rule: RuleName = None,
    inversion: Inversion = True,
    strategy: Strategy = "average",
    seed: Seed = 0,
    options: Options = None,
    device: Device = None,
    dtype: Dtype = None,
    forces: Forces = "conservative",
    batch: FixedBatch = None,
) -> None:
    """Serve a model to i-PI over a socket, in a process of its own. Several may serve one i-PI.

    Exit code 0 after i-PI says EXIT; 2 if the model, the server or a structure cannot be used.
    """
    from goniometer.engines.driver import connected, inet_address, serve, unix_address
    from goniometer.engines.ipi import pes
    from goniometer.errors import InputError

    if unix is not None and address is not None:
        raise InputError("a driver has one address, and two are given: leave out --unix or --address")
    if unix is None and address is None:
        raise InputError("a driver needs an address: --unix NAME, or --address HOST:PORT")
    if strategy == "tumble":
        raise InputError(
            "i-PI tells its drivers no time, which a tumbling frame needs: take it in process, by goniometer ipi"
        )
    where = unix_address(unix) if unix is not None else inet_address(str(address))
    parameters: dict[str, Any] = {"rule": rule, "inversion": inversion, "strategy": strategy, "seed": seed}
    parameters |= {"options": options, "device": device, "dtype": dtype, "forces": forces, "batch": batch}
    face = pes(model, structure, **parameters)
    with connected(where, wait) as server:
        typer.echo(f"{face.potential.name} serves {where}")
        count = serve(face, server, where)
    typer.echo(f"{where} is done: {count} structures were evaluated")
