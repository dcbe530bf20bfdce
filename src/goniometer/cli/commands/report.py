"""``goniometer report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from goniometer.cli.app import app


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Of `goniometer study`.", show_default=False)],
) -> None:
    """Write the report of a study anew, of what has been finished so far."""
    from goniometer.studies.report.folder import write_report

    typer.echo(f"report: {write_report(folder)}")
