"""The report of a study: what was found in the order of arXiv 2406.17747, beside its numbers, and then beyond it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from goniometer.studies.report.chapter import Chapter
from goniometer.studies.report.extensions import changes, costs, provenance, spectra
from goniometer.studies.report.reproduction import (
    by_grid,
    drift,
    errors,
    ice,
    liquid,
    liquid_errors,
    liquid_verdict,
    molecule,
    molecule_verdicts,
)
from goniometer.studies.report.sections import Findings, Section, meant, sentence

__all__ = ["Findings", "Section", "render_study", "sections", "summary"]


def sections(found: Findings) -> list[Section]:
    """The report from its beginning to its end; what the study does not have is left out."""
    made = (errors, by_grid, molecule, liquid, drift, ice, spectra, changes, costs, provenance)
    return [each for make in made for each in make(found)]


def summary(found: Findings) -> list[tuple[str, str]]:
    """For each model, in a sentence or two, what the report says."""
    of: dict[str, list[str]] = {}
    makers: tuple[tuple[Mapping[str, Chapter], Callable[[Mapping[str, Any]], str]], ...] = (
        (found.gas, lambda values: next(molecule_verdicts(values))),
        (found.liquid, lambda values: next(_without_others(values), liquid_verdict(values))),
    )
    for chapters, say in makers:
        for model, each in meant(chapters):
            said = say(each.values)
            of.setdefault(model, []).append(sentence(said))
    return [(model, " ".join(said)) for model, said in of.items()]


def _without_others(values: Mapping[str, Any]) -> Iterator[str]:
    """Of a liquid with no other strategy beside raw: how large its error is."""
    return liquid_errors(values) if not values["verdicts"] else iter(())


def render_study(found: Findings, title: str, lead: str, missing: Sequence[str] = ()) -> str:
    """The report as one self-contained page; ``missing`` names what it was to hold and does not."""
    from goniometer.reporting.templates import rendered

    return rendered(
        "study.html.j2",
        "studies/report",
        title=title,
        lead=lead,
        summary=summary(found),
        sections=sections(found),
        missing=list(missing),
    )
