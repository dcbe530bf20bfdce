"""What tasks of a study leave, and whether it can still be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from goniometer.dynamics.checkpoint import is_damaged
from goniometer.errors import InputError
from goniometer.probing.document import read_probe
from goniometer.studies.report.chapter import read_chapter
from goniometer.studies.workflow.graph import Graph, Task


def read_evaluation(path: Path) -> dict[str, Any]:
    """What ``goniometer evaluate`` has written. Raises :class:`InputError` for a file that is none of its."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' is not what an evaluation leaves ({error}): run the evaluation again") from error
    if not isinstance(found, dict):
        raise InputError(f"'{path}' is not what an evaluation leaves: run the evaluation again")
    return found


#: How the outcome of a task is read, by the last part of its name.
READERS: dict[str, Callable[[Path], Any]] = {
    "probe": read_probe,
    "evaluation": read_evaluation,
    "analysis": read_chapter,
}


def discard_damaged(graph: Graph) -> list[str]:
    """Let tasks be done anew whose outcome is missing or cannot be read; their names.

    The folder of a damaged run is not removed, but renamed: ``.damaged`` is put behind its name.
    """
    found = []
    for task in graph.tasks:
        if not _is_sound(graph, task):
            (graph.folder / "done" / task.name).unlink(missing_ok=True)
            found.append(task.name)
    return found


def _is_sound(graph: Graph, task: Task) -> bool:
    """Whether a task that has ended has left what it should; one that has not ended is sound but for a damaged run."""
    ended = (graph.folder / "done" / task.name).is_file()
    if task.run is not None and task.folder is not None:
        if task.folder.exists() and is_damaged(task.run, task.folder):
            _set_aside(task.folder)
            return False
        return not ended or (task.folder / "state.json").is_file()
    if not ended or task.outcome is None:
        return True
    try:
        READERS[task.name.rpartition("/")[2]](task.outcome)
    except InputError:
        with suppress(OSError):  # what goes on from it would refuse it
            task.outcome.unlink()
        return False
    return True


def _set_aside(folder: Path) -> None:
    number, place = 1, folder.with_name(f"{folder.name}.damaged")
    while place.exists():
        number += 1
        place = folder.with_name(f"{folder.name}.damaged-{number}")
    try:
        folder.rename(place)
    except OSError as error:
        raise InputError(f"'{folder}' is damaged, and cannot be renamed: {error.strerror or error}") from error
