"""``goniometer check``."""

from __future__ import annotations

import sys

import typer

from goniometer.cli.app import (
    MEASURE,
    Batch,
    Device,
    Dtype,
    Forces,
    Format,
    Model,
    Options,
    Read,
    Seed,
    Structures,
    Vectors,
    app,
    loaded,
    note_constraints,
    read_files,
)


@app.command(rich_help_panel=MEASURE)
def check(
    model: Model,
    structures: Structures = None,
    seed: Seed = 0,
    options: Options = None,
    device: Device = None,
    dtype: Dtype = None,
    forces: Forces = "conservative",
    batch: Batch = None,
    format: Format = None,
    read: Read = None,
    vector: Vectors = None,
) -> None:
    """Put a potential to the test: units, gradients, virials, turned copies, determinism.

    Exit code 1 if an item fails.
    """
    from goniometer.structures import check_structure
    from goniometer.testing import check_potential

    sources = read_files(structures or ["molecule"], format, read, vector)
    note_constraints(sources)
    for name, atoms in sources:
        check_structure(atoms, name)
    potential = loaded(model, options, device, dtype, forces, batch)
    report = check_potential(potential, [atoms for _, atoms in sources], seed=seed)
    typer.echo(str(report))
    if not report.passed:
        print(f"goniometer: {potential.name} fails {', '.join(report.failed)}", file=sys.stderr)
        raise typer.Exit(1)
