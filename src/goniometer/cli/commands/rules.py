"""``goniometer rules``."""

from __future__ import annotations

from typing import Annotated

import typer

from goniometer.cli.app import app


@app.command()
def rules(
    name: Annotated[str | None, typer.Argument(help="One rule, with its residuals; by default all.")] = None,
    inversion: Annotated[bool, typer.Option(help="Include inversion.")] = False,
    largest: Annotated[int, typer.Option(help="Largest number of elements listed.", min=1)] = 1000,
    lmax: Annotated[int, typer.Option(help="Residuals to this angular momentum.", min=1, max=100)] = 14,
) -> None:
    """List the rules of rotations: elements, proven degree, and the angular momenta that they leave."""
    from rich.console import Console

    from goniometer.reporting.listings import print_rules
    from goniometer.rotations import catalogue, rule

    listed = catalogue(largest, inversion) if name is None else [rule(name, inversion)]
    print_rules(listed, lmax, Console())
