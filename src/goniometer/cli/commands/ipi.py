"""``goniometer ipi`` and ``goniometer driver``: a model in i-PI, in process and over a socket."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from goniometer.cli.app import (
    MOST_SEED,
    USE,
    Device,
    Dtype,
    EnergyTolerance,
    Forces,
    ForceTolerance,
    Inversion,
    Model,
    Options,
    StressTolerance,
    app,
)

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
        help="The rotations, see `goniometer rules`; or plan, for the cheapest that meets tolerances on the structure. "
        "Without it, average takes the model as it is, and the other strategies turn it alone, without its inverse.",
    ),
]
Strategy = Annotated[
    str, typer.Option(help="average, random, frozen, or (in process) tumble: what is done with the rotations.")
]
Drawn = Annotated[int | None, typer.Option("--seed", help="Of every random turn; 0 by default.", min=0, max=MOST_SEED)]
Proper = Annotated[bool, typer.Option("--proper", help="Turn by proper rotations only.")]
Key = Annotated[str, typer.Option(help="What random turns are made from. i-PI counts no steps: positions.")]
SpaceGroup = Annotated[
    bool, typer.Option("--space-group", help="All structures keep the space group of the given one: evaluate less.")
]
FixedBatch = Annotated[
    int | None, typer.Option("--batch", min=1, help="Copies evaluated at a time; by default by the number of atoms.")
]
Unix = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The <address> of a unix socket in i-PI's input, or a path with a slash in it."),
]
Inet = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help="A port; without a host, of this machine."),
]
# What is no parameter of the potential.
_OTHERS = ("model", "structure", "unix", "address", "wait", "name")


@app.command(rich_help_panel=USE)
def ipi(
    model: Model,
    structure: Structure,
    unix: Unix = None,
    address: Inet = None,
    rule: RuleName = None,
    inversion: Inversion = None,
    strategy: Strategy = "average",
    seed: Drawn = None,
    proper: Proper = False,
    key: Key = "positions",
    timestep: Annotated[float | None, typer.Option(help="Of the simulation, in fs, for tumble.")] = None,
    period: Annotated[float | None, typer.Option(help="Of one turn of a tumbling frame, in fs.")] = None,
    memory: Annotated[float | None, typer.Option(help="Of the velocity of a tumbling frame, in fs.")] = None,
    space_group: SpaceGroup = False,
    force_tolerance: ForceTolerance = None,
    energy_tolerance: EnergyTolerance = None,
    stress_tolerance: StressTolerance = None,
    options: Options = None,
    device: Device = None,
    dtype: Dtype = None,
    forces: Forces = "conservative",
    batch: FixedBatch = None,
    name: Annotated[str, typer.Option(help="What i-PI's input calls it.")] = "goniometer",
) -> None:
    """Print the line of i-PI's input that evaluates a model in process, or, with an address, that listens for drivers.

    The model is tried before. `goniometer driver` is what connects. A plan is made here, once: the line names its rule.
    """
    parameters = _parameters(locals())
    from goniometer.interfaces.driver import one_address, socket_forcefield
    from goniometer.interfaces.ipi import forcefield, pes
    from goniometer.strategies import Planned

    line = forcefield(model, structure, name=name, **parameters)
    if unix is not None or address is not None:
        _check_driver(strategy)
        line = socket_forcefield(one_address(unix, address), name=name)
    face = pes(model, structure, **parameters)
    face.potential.predict(face.structure)
    if isinstance(face.potential, Planned) and face.potential.plan and unix is None and address is None:
        plan = face.potential.plan
        parameters |= {"rule": plan.rule, "inversion": plan.inversion}
        parameters |= dict.fromkeys(("force_tolerance", "energy_tolerance", "stress_tolerance"))
        line = forcefield(model, structure, name=name, **parameters)
    typer.echo(line)


@app.command(rich_help_panel=USE)
def driver(
    model: Model,
    structure: Structure,
    unix: Unix = None,
    address: Inet = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for somebody to listen there.", min=0)] = 10.0,
    rule: RuleName = None,
    inversion: Inversion = None,
    strategy: Strategy = "average",
    seed: Drawn = None,
    proper: Proper = False,
    key: Key = "positions",
    space_group: SpaceGroup = False,
    force_tolerance: ForceTolerance = None,
    energy_tolerance: EnergyTolerance = None,
    stress_tolerance: StressTolerance = None,
    options: Options = None,
    device: Device = None,
    dtype: Dtype = None,
    forces: Forces = "conservative",
    batch: FixedBatch = None,
) -> None:
    """Serve a model to i-PI over a socket, in a process of its own. Several may serve one i-PI.

    Exit code 0 after i-PI says EXIT; 2 if the model, the server or a structure cannot be used.
    """
    parameters = _parameters(locals())
    from goniometer.interfaces.driver import connected, one_address, serve
    from goniometer.interfaces.ipi import pes

    where = one_address(unix, address)
    _check_driver(strategy)
    face = pes(model, structure, **parameters)
    with connected(where, wait) as server:
        typer.echo(f"{face.potential.name} serves {where}")
        count = serve(face, server, where)
    typer.echo(f"{where} is done: {count} structures were evaluated")


def _parameters(given: dict[str, Any]) -> dict[str, Any]:
    """Of the arguments of a command, those that the library knows under the same names as parameters of a potential."""
    return {name: value for name, value in given.items() if name not in _OTHERS}


def _check_driver(strategy: str) -> None:
    from goniometer.errors import InputError

    if strategy == "tumble":
        raise InputError(
            "i-PI tells its drivers no time, which a tumbling frame needs: take it in process, by goniometer ipi"
        )
