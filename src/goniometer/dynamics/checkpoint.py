"""What a run keeps in its folder besides its trajectory: the state that it resumes from, and when it ran.

The state has a checksum, and what it counts has to be there; the log of sessions is a log, which nothing depends on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from goniometer.dynamics.description import Run
from goniometer.dynamics.integrators import Engine
from goniometer.errors import InputError
from goniometer.files.records import hardware, replace_text, versions
from goniometer.trajectories.h5md import check_segments

PACKAGES = ("goniometer", "ipi", "torch", "metatomic-torch", "metatensor-torch", "vesin", "ase", "numpy")

# How to end with a folder that is damaged.
_ANEW = "remove the folder, and the same command starts anew"


def _checksum(state: dict[str, Any]) -> str:
    return sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Put a state in the place of the last one, with its checksum."""
    replace_text(folder / "state.json", json.dumps({**state, "sha256": _checksum(state)}))


def read_state(folder: Path) -> dict[str, Any] | None:
    """The state in a folder; None if there is none. Raises :class:`InputError` if it is damaged."""
    path = folder / "state.json"
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = {"step", "ipi", "momenta", "exchanged", "forces", "segments", "conserved"} - state.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"'{path}' is not the state of a run ({error}): {_ANEW}") from error
    if missing:
        raise InputError(f"'{path}' is not the state of a run: it lacks {', '.join(sorted(missing))}; {_ANEW}")
    written = state.pop("sha256", None)  # older ones have none
    if written is not None and written != _checksum(state):
        raise InputError(f"'{path}' has been damaged since it was written: its checksum is another one; {_ANEW}")
    return state


def check_folder(folder: Path, description: Run, state: dict[str, Any]) -> None:
    """That the segments which the state counts are there and can be read, with all their frames."""
    try:
        check_segments(folder, int(state["segments"]), int(state["step"]) // description.stride + 1)
    except InputError as error:
        raise InputError(f"the run in '{folder}' is damaged: {error}; {_ANEW}") from error


def is_damaged(description: Run, folder: Path) -> bool:
    """Whether what a run has left in its folder is of no use, for it to be resumed or to be analysed."""
    try:
        state = read_state(folder)
        if state is not None:
            check_folder(folder, description, state)
    except InputError:
        return True
    return False


def read_sessions(folder: Path, steps: int | None = None) -> list[dict[str, Any]]:
    """When a run was at work, with which versions, on what; none of one that was killed before it could be noted.

    Of a run that is longer only those are given that went to so many ``steps``, and of the last one its share.
    """
    path = folder / "sessions.json"
    found = _readable_sessions(path)
    if steps is None:
        return found
    kept = [each for each in found if each["from_step"] < steps]
    for each in kept:
        if each["to_step"] > steps:
            each["seconds"] *= (steps - each["from_step"]) / (each["to_step"] - each["from_step"])
            each["to_step"] = steps
    return kept


def _readable_sessions(path: Path) -> list[dict[str, Any]]:
    """What can be read of a log, which nothing depends on: a file that is cut or garbled holds nothing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    numbers = ("from_step", "to_step", "seconds")
    entries = found if isinstance(found, list) else []
    return [
        each
        for each in entries
        if isinstance(each, dict) and all(isinstance(each.get(name), int | float) for name in numbers)
    ]


@contextmanager
def session(folder: Path, engine: Engine) -> Iterator[None]:
    """Note when it ran, with which versions."""
    path, sessions = folder / "sessions.json", read_sessions(folder)
    entry: dict[str, Any] = {
        "began": _now(),
        "from_step": engine.step,
        "versions": versions(PACKAGES),
        "hardware": hardware(),
    }
    began = time.monotonic()
    try:
        yield
    finally:
        entry.update(ended=_now(), seconds=round(time.monotonic() - began, 1), to_step=engine.step)
        with suppress(InputError):  # nothing depends on the log
            replace_text(path, json.dumps([*sessions, entry], indent=1))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
