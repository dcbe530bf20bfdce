"""``goniometer plan`` and ``goniometer rules``."""

from __future__ import annotations

import json as jsonlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from goniometer.cli.app import (
    MEASURE,
    MOST_SEED,
    Batch,
    Device,
    Dtype,
    Forces,
    Format,
    Json,
    Options,
    Read,
    Structures,
    Vectors,
    Without,
    app,
    loaded,
    read_files,
    write_json,
)

if TYPE_CHECKING:
    from goniometer.planning.planner import RulePlan


@app.command(rich_help_panel=MEASURE)
def plan(
    source: Annotated[
        str, typer.Argument(help="A model, as for probe; or a JSON file that probe wrote.", show_default=False)
    ],
    structures: Structures = None,
    force: Annotated[str | None, typer.Option(metavar="TOLERANCE", help="0.1meV/Å: rms per component.")] = None,
    energy: Annotated[str | None, typer.Option(metavar="TOLERANCE", help="1meV per structure, or 0.1meV/atom.")] = None,
    stress: Annotated[str | None, typer.Option(metavar="TOLERANCE", help="1MPa: rms per component.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The model to certify with, where the source is a JSON file.")
    ] = None,
    certify: Annotated[bool, typer.Option(help="Measure the rule on the structures.")] = True,
    lmax: Annotated[int | None, typer.Option(help="Of a fresh probe. Default: 4.")] = None,
    without: Without = None,
    seed: Annotated[int, typer.Option(help="Of the turn of the finer rule that certifies.", min=0, max=MOST_SEED)] = 1,
    json: Json = None,
    options: Options = None,
    device: Device = None,
    dtype: Dtype = None,
    forces: Forces = "conservative",
    batch: Batch = None,
    format: Format = None,
    read: Read = None,
    vector: Vectors = None,
) -> None:
    """Find the cheapest rule of rotations that brings the symmetry error below a tolerance, and certify it.

    Exit code 0: certified, or not asked to be; 1: not certified, for the reason given; 2: a structure was left out.
    """
    from rich.console import Console

    from goniometer.cli.progress_bar import progress_bar
    from goniometer.errors import InputError
    from goniometer.files.records import check_writable
    from goniometer.planning.planner import plan as make_plan
    from goniometer.planning.tolerance import parse_tolerance
    from goniometer.probing.document import read_probe
    from goniometer.probing.measure import probe as measure
    from goniometer.reporting.listings import print_plan
    from goniometer.structures import packaged_structures

    given = {"force": force, "energy": energy, "stress": stress}
    tolerances: dict[str, Any] = {name: parse_tolerance(name, text) for name, text in given.items() if text is not None}
    if not tolerances:
        raise InputError("a plan needs a tolerance: --force 0.1meV/Å, --energy 0.1meV/atom or --stress 1MPa")
    if json is not None:
        check_writable(json)
    shared: tuple[Any, ...] = (options, device, dtype, forces, batch)
    with progress_bar() as progress:
        if source.endswith(".json"):
            fixed: dict[str, Any] = {
                "structures come": structures,
                "lmax comes": lmax,
                "what is left out comes": without,
            }
            if what := next((words for words, value in fixed.items() if value is not None), None):
                raise InputError(f"{what} from the probe's file {source}; give a model instead of it to probe anew")
            result = read_probe(source)
            potential = None if model is None else loaded(model, *shared)
        else:
            if model is not None:
                raise InputError(f"--model goes with the JSON file of a probe, and '{source}' is not named .json")
            potential = loaded(source, *shared)
            sources = read_files(structures or packaged_structures(), format, read, vector)
            result = measure(potential, sources, lmax=lmax, without=without or (), progress=progress)
            if not result.complete:
                raise KeyboardInterrupt
        made: RulePlan = make_plan(
            result,
            **tolerances,
            potential=potential,
            certify=certify,
            seed=seed,
            progress=progress,
        )
    if json is not None:
        write_json(json, jsonlib.dumps(made.to_dict(), allow_nan=False, indent=1))
    print_plan(made, Console())
    if not result.complete:
        print(f"goniometer: {source} is unfinished; the plan holds for what is in it", file=sys.stderr)
    for failure in result.failures:
        print(f"goniometer: left out of the plan: {failure.sentence}", file=sys.stderr)
    if result.failures:
        raise typer.Exit(2)
    if made.certified is False:
        raise typer.Exit(1)


@app.command(rich_help_panel=MEASURE)
def rules(
    name: Annotated[str | None, typer.Argument(help="One rule, with its residuals; by default all.")] = None,
    inversion: Annotated[bool, typer.Option(help="Include inversion.")] = False,
    largest: Annotated[int, typer.Option(help="Largest number of elements listed.", min=1)] = 1000,
    lmax: Annotated[int, typer.Option(help="Residuals to this angular momentum.", min=1, max=100)] = 14,
) -> None:
    """List the rules of rotations: elements, proven degree, and the angular momenta that they leave."""
    from rich.console import Console

    from goniometer.reporting.listings import print_rules
    from goniometer.rotations import rule
    from goniometer.rotations.summary import summaries, summarized

    listed = summaries(largest, inversion, lmax) if name is None else [summarized(rule(name, inversion), lmax)]
    print_rules(listed, Console())
