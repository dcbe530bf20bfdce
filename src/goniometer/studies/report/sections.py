"""What the parts of the report of a study share: what is known, sections, and words for numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from goniometer.probing.result import ProbeResult
from goniometer.reporting.panel import Panel
from goniometer.reporting.tables import NONE, Table
from goniometer.rotations import GRIDS
from goniometer.studies.report.chapter import Chapter
from goniometer.units import number, with_error


@dataclass(frozen=True)
class Findings:
    """All that is known of a study.

    Attributes
    ----------
    probes, evaluations
        By model: results of probes, and documents ``goniometer/evaluation/1``.
    gas, liquid, ice
        Chapters by model.
    """

    probes: Mapping[str, ProbeResult] = field(default_factory=dict)
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gas: Mapping[str, Chapter] = field(default_factory=dict)
    liquid: Mapping[str, Chapter] = field(default_factory=dict)
    ice: Mapping[str, Chapter] = field(default_factory=dict)

    @property
    def chapters(self) -> list[Chapter]:
        """All of them."""
        return [chapter for each in (self.gas, self.liquid, self.ice) for chapter in each.values()]


@dataclass(frozen=True)
class Section:
    """A part of the report: a heading, what was seen in words, tables, figures.

    ``verdicts`` are sentences with the model that they are of; ``short`` is what the navigation calls it, and ``wide``
    figures have a row of their own.
    """

    id: str
    short: str
    title: str
    lead: str
    verdicts: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    drawings: list[Panel] = field(default_factory=list)
    wide: bool = False


def sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def meant(chapters: Mapping[str, Chapter]) -> list[tuple[str, Chapter]]:
    """Those that are long enough to say something."""
    return [(model, each) for model, each in chapters.items() if each.size != "smoke"]


def drawings_of(chapters: Mapping[str, Chapter], kind: str) -> list[Panel]:
    """The figures of one kind, with the model of each."""
    return [
        replace(one, title=f"{model}: {one.title}")
        for model, each in chapters.items()
        for one in each.drawings
        if one.id.rpartition("-")[0] == kind
    ]


def pair(values: Sequence[float | None] | None) -> str:
    """A value with its error if it has one; a dash for what is not known."""
    if values is None or values[0] is None:
        return NONE
    value, error = values[0], values[1] if len(values) > 1 else None
    return number(value) if error is None or not error > 0.0 else with_error(value, error)


def grid_table(
    title: str, unit: str, by_model: Mapping[str, Mapping[str, Any]], key: str, given: Mapping[str, float]
) -> Table:
    there = {*given, *(grid for each in by_model.values() for grid in each)}
    rows = [
        [
            f"{grid}",
            *(pair(each.get(grid, {}).get(key)) for each in by_model.values()),
            *([f"{given[grid]:g}" if grid in given else NONE] if given else []),
        ]
        for grid in GRIDS
        if grid in there
    ]
    columns = [("grid", ""), *((model, unit) for model in by_model)]
    return Table(title, [*columns, ("the paper", unit)] if given else columns, rows)
