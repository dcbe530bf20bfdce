"""The commands, and the options that several of them share."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from goniometer.potentials import Potential

app = typer.Typer(
    name="goniometer",
    help="Measure how broken the rotational symmetry of an interatomic potential is, and what it costs to mend it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


class Stopped(Exception):  # noqa: N818 - it is no error
    """A run that Ctrl-C ended; the message says what is kept and how to go on. Exit code 130."""


Model = Annotated[
    str,
    typer.Argument(
        help="A packaged model (pet-water), an exported metatomic model (model.pt), or a function that returns an ASE "
        "calculator: package.module:factory or file.py:factory.",
        show_default=False,
    ),
]
Structures = Annotated[
    list[str] | None,
    typer.Argument(
        help="Files in any format that ASE reads (file.xyz@::10 selects frames), or packaged structures by name: "
        "molecule, box, ice. All of the latter by default.",
        show_default=False,
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="KEY=VALUE", help="An argument of the factory; repeatable."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, …: where a metatomic model runs.")]
Dtype = Annotated[str | None, typer.Option(help="float32 or float64; by default the model's own.")]
Forces = Annotated[str, typer.Option(help="conservative, or non-conservative: the model's own force output.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Copies evaluated at a time; by default chosen by measurement.")]
Inversion = Annotated[bool | None, typer.Option(help="Include inversion; by default it is.")]
ForceTolerance = Annotated[
    str | None, typer.Option(metavar="TOLERANCE", help="Of a planned rule, 0.1meV/Å: rms per component.")
]
EnergyTolerance = Annotated[
    str | None, typer.Option(metavar="TOLERANCE", help="Of a planned rule, 1meV per structure, or 0.1meV/atom.")
]
StressTolerance = Annotated[
    str | None, typer.Option(metavar="TOLERANCE", help="Of a planned rule, 1MPa: rms per component.")
]
Seed = Annotated[int, typer.Option(help="Of every random turn.", min=0)]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        import goniometer

        typer.echo(goniometer.__version__)
        raise typer.Exit


def loaded(
    model: str, options: list[str] | None, device: str | None, dtype: str | None, forces: str, batch: int | None
) -> Potential:
    """The potential that the shared options describe."""
    from goniometer.potentials.loading import load, parse_options

    given: dict[str, Any] = parse_options(options or [])
    return load(model, device=device, dtype=dtype, forces=forces, batch=batch, options=given)


def write_json(path: Path, text: str) -> None:
    """Replace a file in one step, so that it is whole at any moment."""
    from goniometer.data.records import replace_text
    from goniometer.errors import InputError

    try:
        replace_text(path, text)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


# Each command registers itself.
for _name in (
    *("check", "compare", "data", "equilibrate", "evaluate", "experiment", "export", "ipi"),
    *("ice", "observe", "plan", "probe", "report", "rules", "run", "study", "train"),
):
    import_module(f"goniometer.cli.{_name}")
