"""``goniometer train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from goniometer.cli.app import TRAIN, Format, Read, Seed, app, read_files


@app.command(rich_help_panel=TRAIN)
def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A packaged recipe (pet-water, pet-water-unaugmented, soap-bpnn-water, pet-paper, polish, "
            "fine-tune-energy), or a YAML file like them.",
            show_default=False,
        ),
    ],
    data: Annotated[
        list[str],
        typer.Option(
            "--data", metavar="FILE", help="Structures with energies and forces; file.xyz@:100 selects frames."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="The run's folder; one that exists goes on.")],
    validation: Annotated[
        list[str] | None,
        typer.Option("--validation", metavar="FILE", help="Held back; by default every tenth structure of the data."),
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--start", metavar="CHECKPOINT", help="What polish and fine-tune-energy go on from.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's number.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the processor; by default PyTorch's choice.")] = None,
    licence: Annotated[str | None, typer.Option(help="Of the data, for the model's card.")] = None,
    citation: Annotated[list[str] | None, typer.Option(help="Of the data, for the model's card; repeatable.")] = None,
    seed: Seed = 0,
    format: Format = None,
    read: Read = None,
) -> None:
    """Train a model, or go on where it was killed, and export it with its card.

    A file STOP in the folder brings the end forward.
    """
    import sys

    from goniometer.cli.progress_bar import progress_bar
    from goniometer.extras import require
    from goniometer.interruption import Interrupted
    from goniometer.structures.labelled import read_labelled
    from goniometer.training.recipe import read_recipe
    from goniometer.training.split import held_back

    require("train")
    settings = read_recipe(recipe, steps=steps)
    samples = read_labelled(read_files(data, format, read))
    held = read_labelled(read_files(validation, format, read)) if validation else None
    training, held = (samples, held) if held is not None else held_back(samples, seed)
    from goniometer.training.train import train as run

    try:
        with progress_bar() as progress:
            model = run(
                settings,
                training,
                held,
                out,
                seed=seed,
                threads=threads,
                start=start,
                name=Path(recipe).stem,
                sources=[
                    *([f"licence: {licence}"] if licence else []),
                    *(f"please cite {each}" for each in citation or []),
                ],
                progress=progress,
            )
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; the same command goes on from the checkpoint in {out}") from None
    print(f"goniometer: the model is {model}, its card {model.with_suffix('.md')}", file=sys.stderr)
