"""``goniometer evaluate``."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from goniometer.cli.app import Batch, Device, Dtype, Forces, Json, Model, Options, app, loaded, write_json


@app.command()
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
    options: Options = None,
    device: Device = None,
    dtype: Dtype = None,
    forces: Forces = "conservative",
    batch: Batch = None,
) -> None:
    """Measure the errors of a model against labelled structures, and its symmetry error beside them.

    Structures that the model's card says it was trained on are left out.
    """
    from goniometer.cli.progress import progress_bar
    from goniometer.data import packaged_files
    from goniometer.data.labelled import read_labelled
    from goniometer.training.card import card_path, known_hashes
    from goniometer.training.evaluate import GRIDS, table
    from goniometer.training.evaluate import evaluate as measure

    if parity is not None:
        from goniometer.report.sheet import check_sheet

        check_sheet(parity)
    samples = read_labelled(data)
    potential = loaded(model, options, device, dtype, forces, batch)
    card = card_path(packaged_files("models", ".pt").get(model, model))
    chosen = tuple(grids.split(",")) if grids is not None else tuple(GRIDS)
    with progress_bar() as progress:
        result = measure(
            potential,
            samples,
            known_hashes(card) if card.exists() else None,
            grids=chosen if symmetry else (),
            progress=progress,
        )
    if json is not None:
        write_json(json, jsonlib.dumps(result.to_dict(), allow_nan=False, indent=1))
    if parity is not None:
        from goniometer.report.parity import write_parity

        write_parity(result, parity)
    typer.echo(table(result))
