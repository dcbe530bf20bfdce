"""The commands, and the options that several of them share."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from goniometer.potentials import Potential
    from goniometer.structures import NamedStructure

app = typer.Typer(
    name="goniometer",
    help="Measure how broken the rotational symmetry of an interatomic potential is, and what it costs to mend it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
#: The groups in which the help lists the commands.
MEASURE, USE, ANALYSE = "Measure a symmetry error", "Use a symmetrized potential", "Analyse trajectories"
TRAIN, STUDY = "Train and evaluate models", "Reproduce the study of arXiv 2406.17747"


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
Format = Annotated[
    str | None,
    typer.Option(
        "--format", metavar="FORMAT", help="Of the files, as ASE calls it: lammps-data …; by default it is recognised."
    ),
]
Read = Annotated[
    list[str] | None,
    typer.Option(
        "--read",
        metavar="KEY=VALUE",
        help="An argument of ASE's reader of the files: atom_style=full, Z_of_type=1:Cu,2:O …; repeatable.",
    ),
]
Vectors = Annotated[
    list[str] | None,
    typer.Option(
        "--vector",
        metavar="NAME=ROLE",
        help="How an array of the structures or an entry of their info rotates: rotate, axial (a pseudovector) or "
        "leave; repeatable.",
    ),
]
Without = Annotated[
    list[str] | None,
    typer.Option(
        metavar="OPERATION",
        help="Leave out an operation that the calculator does not take: translation, permutation, cell, "
        "rounding, or rotation (only orientations that exchange the axes are evaluated then); repeatable.",
    ),
]
#: The largest seed that every library takes.
MOST_SEED = 2**32 - 1
Seed = Annotated[int, typer.Option(help="Of every random turn.", min=0, max=MOST_SEED)]
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


def read_files(
    sources: list[str], format: str | None, read: list[str] | None, vectors: list[str] | None = None
) -> list[NamedStructure]:
    """The structures that the shared options describe; standard error tells what they hold that is left out.

    That is: vectors that nobody declared, which stay as they are when a structure is rotated.
    """
    import sys

    from goniometer.structures import read_structures, vector_notes
    from goniometer.structures.formats import reader_options

    found = read_structures(sources, format=format, options=reader_options(read or []), vectors=roles_of(vectors or []))
    for note in vector_notes(found):
        print(f"goniometer: {note}", file=sys.stderr)
    return found


def note_constraints(structures: list[NamedStructure]) -> None:
    """Say on standard error that forces are measured without the constraints of the structures."""
    import sys

    held: dict[str, str] = {}
    for name, atoms in structures:
        for constraint in atoms.constraints:
            held.setdefault(type(constraint).__name__, name)
    for kind, name in held.items():
        print(
            f"goniometer: the constraint {kind} of {name} is left out: what is measured are the forces of the model, "
            "without constraints",
            file=sys.stderr,
        )


def roles_of(pairs: list[str]) -> dict[str, str]:
    """Names and roles of ``NAME=ROLE``."""
    from goniometer.errors import InputError

    found = {}
    for pair in pairs:
        name, equals, role = pair.partition("=")
        if not name or not equals:
            raise InputError(f"'{pair}' declares no vector: write NAME=rotate, NAME=axial or NAME=leave")
        found[name] = role
    return found


def write_json(path: Path, text: str) -> None:
    """Replace a file in one step, so that it is whole at any moment."""
    from goniometer.files.records import replace_text

    replace_text(path, text)


# Each command registers itself, in the order in which the help lists them.
for _name in (
    *("probe", "plan", "check"),
    *("export", "run", "equilibrate", "ipi"),
    *("observe", "compare"),
    *("data", "train", "evaluate"),
    *("experiment", "ice", "study"),
):
    import_module(f"goniometer.cli.commands.{_name}")
