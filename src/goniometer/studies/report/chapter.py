"""What an experiment leaves for reports: numbers, lines and figures of one model, as one JSON document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from goniometer.errors import InputError
from goniometer.files.records import replace_text
from goniometer.reporting.panel import Panel

SCHEMA = "goniometer/experiment/2"


@dataclass(frozen=True)
class Chapter:
    """One experiment with one model.

    Attributes
    ----------
    experiment, size, model
        Which.
    values
        Numbers; see :mod:`goniometer.studies.experiments.numbers`.
    lines
        The same in words.
    drawings
        Figures.
    runs
        Strategy to what was run: length in ps, number of runs and replicas, seconds, when, where, with which versions.
    """

    experiment: str
    size: str
    model: str
    values: Mapping[str, Any]
    lines: list[str]
    drawings: list[Panel] = field(default_factory=list)
    runs: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write it, in one step."""
        replace_text(path, json.dumps({"schema": SCHEMA, **asdict(self)}, allow_nan=False, indent=1))


def read_chapter(path: Path) -> Chapter:
    """A chapter from its file. Raises :class:`InputError` for a file that holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        found["drawings"] = [Panel(**each) for each in found["drawings"]]
        return Chapter(**found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"'{path}' is not what an experiment leaves ({error}): run the experiment again") from error
