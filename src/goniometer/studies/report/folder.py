"""The report of a study from its folder: what is there is gathered, what is missing is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from goniometer.errors import InputError
from goniometer.files.records import replace_text
from goniometer.files.settings import read_yaml, validated
from goniometer.probing.document import read_probe
from goniometer.reporting.figures import write_figure
from goniometer.studies.report.chapter import read_chapter
from goniometer.studies.report.page import Findings, render_study
from goniometer.studies.report.reproduction import grid_figures
from goniometer.studies.workflow.description import Study, label
from goniometer.studies.workflow.engine import recorded
from goniometer.studies.workflow.outcomes import read_evaluation
from goniometer.units import listing


def write_report(folder: str | Path) -> Path:
    """Write ``report.html`` into the folder of a study, of all that has been finished there, and its figures as PNG.

    Those of experiments lie beside their results; those of all together, ``grids-MODEL.png``, beside the report.

    Raises :class:`InputError` if it is no folder of a study, or holds nothing yet.
    """
    folder = Path(folder)
    path = folder / "study.yaml"
    if not path.is_file():
        raise InputError(f"'{folder}' is not the folder of a study: it has no study.yaml")
    study = validated(Study, read_yaml(path, "description of a study"), f"the study in '{folder}'")
    found, missing = gathered(study, folder)
    if not (found.chapters or found.probes or found.evaluations):
        raise InputError(f"there is nothing in '{folder}' to report yet: goniometer study goes on with it")
    models = [label(each) for each in study.models]
    sizes = list(dict.fromkeys(each.size for each in found.chapters))
    title = "Does a broken rotational symmetry matter?"
    lead = f"What Langer, Pozdnyakov and Ceriotti asked (arXiv 2406.17747), of {listing(models)}"
    lead += f", size {listing(sizes)}" if sizes else ""
    lead += ": in the order of their paper, beside its numbers, and then what goes beyond it. Runs are raw, "
    lead += "the model as it is; 2i, averaged over 36 rotations, with a thermostat as the slow force of multiple time "
    lead += "steps (mts); random, turned anew at every step; tumble, in a frame that turns slowly."
    if "smoke" in sizes:
        lead += " Runs of the size smoke are so short that their numbers mean nothing: they show that everything works."
    report = folder / "report.html"
    replace_text(report, render_study(found, title, lead, missing))
    for model, figure in grid_figures(found).items():
        write_figure(figure, folder / f"grids-{model}.png", f"{model}: symmetry error by grid", "")
    return report


def gathered(study: Study, folder: Path) -> tuple[Findings, list[str]]:
    """What a study has found so far, and what it has not."""
    probes: dict[str, Any] = {}
    evaluations: dict[str, Any] = {}
    chapters: dict[str, dict[str, Any]] = {"gas": {}, "liquid": {}, "ice": {}}
    keys = _keys(folder)
    missing = []
    for model in study.models:
        name = label(model)
        place = folder / name
        wanted: list[tuple[str, Path, Callable[[Path], Any], dict[str, Any]]] = []
        if study.probe:
            wanted.append((f"{name}/probe", place / "probe.json", read_probe, probes))
        if study.evaluate:
            wanted.append((f"{name}/evaluation", place / "evaluation.json", read_evaluation, evaluations))
        for each in study.experiments:
            if model in (each.models or study.models):
                path = place / each.experiment / f"{each.experiment}-{each.size or study.size}.json"
                task = f"{name}/{each.experiment}/analysis"
                wanted.append((task, path, read_chapter, chapters[each.experiment]))
        for task, path, read, kept in wanted:
            # What is there of a study that was described otherwise is not shown.
            if path.is_file() and recorded(folder, task) == keys.get(task):
                try:
                    kept[name] = read(path)
                except InputError:  # `goniometer study` does it again
                    missing.append(task)
            else:
                missing.append(task)
    return Findings(probes, evaluations, **chapters), missing


def _keys(folder: Path) -> dict[str, str]:
    """The keys of the tasks of a study, by name."""
    path = folder / "graph.json"
    try:
        return {each["name"]: each["key"] for each in json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"'{path}' cannot be read: `goniometer study` with this folder writes it anew") from error
