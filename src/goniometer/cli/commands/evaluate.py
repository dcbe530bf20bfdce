"""``goniometer evaluate``."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from goniometer.cli.app import (
    TRAIN,
    Batch,
    Device,
    Dtype,
    Forces,
    Format,
    Json,
    Model,
    Options,
    Read,
    Vectors,
    app,
    loaded,
    read_files,
    write_json,
)
from goniometer.errors import InputError

if TYPE_CHECKING:
    from goniometer.potentials import Potential
    from goniometer.structures.labelled import Labelled
    from goniometer.training.evaluate import Evaluation


@app.command(rich_help_panel=TRAIN)
def evaluate(
    model: Model,
    data: Annotated[list[str], typer.Argument(metavar="DATA...", help="Structures with labels.", show_default=False)],
    grids: Annotated[
        str | None,
        typer.Option(help="Which grids to average over: some of none,i,2,2i,3,3i,T,O,I. By default all."),
    ] = None,
    symmetry: Annotated[bool, typer.Option(help="Measure the symmetry error as well.")] = True,
    json: Json = None,
    parity: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw predictions against labels: .png, or .html for light and dark."),
    ] = None,
    card: Annotated[
        bool,
        typer.Option("--card", help="Record the errors, and the spectrum of the first structure, in the model's card."),
    ] = False,
    options: Options = None,
    device: Device = None,
    dtype: Dtype = None,
    forces: Forces = "conservative",
    batch: Batch = None,
    format: Format = None,
    read: Read = None,
    vector: Vectors = None,
) -> None:
    """Measure the errors of a model against labelled structures, and its symmetry error beside them.

    Structures that the model's card says it was trained on are left out.
    """
    from goniometer.cli.progress_bar import progress_bar
    from goniometer.files.packaged import packaged_files
    from goniometer.rotations import GRIDS
    from goniometer.structures.labelled import read_labelled
    from goniometer.training.card import card_path, known_hashes
    from goniometer.training.evaluate import evaluate as measure
    from goniometer.training.evaluate import table

    if parity is not None:
        from goniometer.reporting.figures import check_figure_path

        check_figure_path(parity)
    path = Path(packaged_files("models", ".pt").get(model, model))
    beside = card_path(path)
    if card and not beside.exists():
        raise InputError(f"there is no card {beside} to record in: `goniometer train` writes one beside its model")
    samples = read_labelled(read_files(data, format, read, vector))
    potential = loaded(model, options, device, dtype, forces, batch)
    known = known_hashes(beside) if beside.exists() else None
    chosen = tuple(grids.split(",")) if grids is not None else tuple(GRIDS)
    with progress_bar() as progress:
        result = measure(potential, samples, known, grids=chosen if symmetry else (), progress=progress)
    if json is not None:
        write_json(json, jsonlib.dumps(result.to_dict(), allow_nan=False, indent=1))
    if parity is not None:
        from goniometer.reporting.figures import write_parity

        write_parity(result, parity)
    typer.echo(table(result))
    if card:
        with progress_bar() as progress:
            _record(potential, path, result, [each for each in samples if each.hash not in (known or {})], progress)


def _record(
    potential: Potential, model: Path, result: Evaluation, kept: list[Labelled], progress: Callable[..., None]
) -> None:
    """Write what was measured into the card; the first structure is probed for it where grids were."""
    from goniometer.probing.measure import probe
    from goniometer.structures import NamedStructure
    from goniometer.training.card import card_path, record_measured
    from goniometer.training.measured import measured_lines

    first = NamedStructure(kept[0].name, kept[0].atoms)
    probed = probe(potential, first, measured=(), progress=progress).structures if result.grids else []
    hashes = [each.hash for each in kept]
    record_measured(card_path(model), measured_lines(model, potential, result, hashes, probed[0] if probed else None))
