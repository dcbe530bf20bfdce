"""A progress bar on the error stream, with the time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from goniometer.progress import Progress as Report


@contextmanager
def progress_bar() -> Iterator[Report]:
    """A callback ``(done, whole, label)`` that draws the bar; nothing is drawn where the stream is no terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("loading", total=None)

        def advance(done: int | float, whole: int | float, label: str, /) -> None:
            bar.update(task, completed=done, total=whole, description=label)

        yield advance
