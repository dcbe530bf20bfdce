"""``goniometer probe``."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from goniometer.cli.app import (
    MEASURE,
    Batch,
    Device,
    Dtype,
    Forces,
    Format,
    Json,
    Model,
    Options,
    Read,
    Seed,
    Structures,
    Vectors,
    Without,
    app,
    loaded,
    note_constraints,
    read_files,
    write_json,
)
from goniometer.interruption import Interrupted

#: Where finished structures are kept when a run without ``--json`` is stopped.
PARTIAL = Path("goniometer-probe.partial.json")


@app.command(rich_help_panel=MEASURE)
def probe(
    model: Model,
    structures: Structures = None,
    rule: Annotated[
        str | None,
        typer.Option(help="A rule by name, see `goniometer rules`; by default the smallest of degree 2 LMAX."),
    ] = None,
    inversion: Annotated[bool, typer.Option(help="Include inversion, and tell the parities apart.")] = True,
    without: Without = None,
    lmax: Annotated[int | None, typer.Option(help="Resolve the spectrum to this angular momentum. Default: 4.")] = None,
    seed: Seed = 0,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report, one HTML page.")] = None,
    json: Json = None,
    fail_above: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIMIT", help="force=1meV/Å, energy=0.1meV/atom, …: exit code 1 where exceeded; repeatable."
        ),
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="FILE", help="Go on from an unfinished result.")] = None,
    options: Options = None,
    device: Device = None,
    dtype: Dtype = None,
    forces: Forces = "conservative",
    batch: Batch = None,
    format: Format = None,
    read: Read = None,
    vector: Vectors = None,
) -> None:
    """Measure the symmetry error of energies, forces and stress, what carries it, and what would remove it."""
    from rich.console import Console

    from goniometer.cli.progress_bar import progress_bar
    from goniometer.extras import require
    from goniometer.files.records import check_writable
    from goniometer.planning.gate import breaches
    from goniometer.planning.tolerance import parse_limit
    from goniometer.probing.document import read_probe
    from goniometer.probing.journal import Journal, journal_of
    from goniometer.probing.measure import probe as measure
    from goniometer.reporting import print_probe, write_page
    from goniometer.structures import packaged_structures

    if report is not None:
        require("report")
    limits = [parse_limit(text) for text in fail_above or []]
    for path in (report, json):
        if path is not None:
            check_writable(path)
    earlier = None if resume is None else read_probe(resume)
    sources = read_files(structures or packaged_structures(), format, read, vector)
    note_constraints(sources)
    potential = loaded(model, options, device, dtype, forces, batch)
    kept = json or PARTIAL
    journal = None if json is None else Journal(journal_of(json))

    with journal or nullcontext(), progress_bar() as progress:
        result = measure(
            potential,
            sources,
            lmax=lmax,
            rule=rule,
            inversion=inversion,
            seed=seed,
            without=without or (),
            resume=earlier,
            progress=progress,
            journal=journal,
        )
    if json is not None or (not result.complete and result.structures):
        write_json(kept, result.to_json())
    if journal is not None:
        journal.remove()
    if report is not None and (result.structures or result.failures):
        write_page(result, report)
    print_probe(result, Console())
    if report is not None:
        typer.echo(f"report: {report}")
    if json is not None:
        typer.echo(f"json: {json}")
    if not result.complete:
        how = f"; go on with the same command and --resume {kept}" if result.structures else ""
        raise Interrupted(f"stopped after {len(result.structures)} of {len(sources)} structures{how}")
    for failure in result.failures:
        print(f"goniometer: {failure.sentence}", file=sys.stderr)
    for each in result.faults:
        print(f"goniometer: warning: {each.sentence}", file=sys.stderr)
    broken = breaches(result, limits)
    for line in broken:
        print(f"goniometer: {line}", file=sys.stderr)
    if result.failures:
        raise typer.Exit(2)
    if broken or (limits and result.faults):
        raise typer.Exit(1)
