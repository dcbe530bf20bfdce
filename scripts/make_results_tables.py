"""Write the tables of the results pages from the measured numbers in docs/results.

    python scripts/make_results_tables.py

A table stands between the comments ``begin: NAME`` and ``end: NAME`` of a page. A test compares pages and numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from results_comparison import paired
from results_comparison import rows as comparison_rows

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = ("results.md", "ice.md", "observables.md", "training.md")
MODELS = ("pet-water", "pet-water-unaugmented", "pet-water-fine-tuned")
GRIDS = ("none", "i", "2", "2i", "3")
#: Mean |E_grid − E_3i| in meV and mean |F − F_3i| in meV/Å of the study; forces with averages are read off a figure.
STUDY = {
    "test set": ((5.085, 2.569, 0.558, 0.284, 0.157), (2.04, None, None, 0.1, 0.05)),
    "liquid": ((7.938, 4.880, 1.088, 0.683, 0.415), (1.21, None, None, 0.1, 0.05)),
    "molecule": ((2.822, 1.058, 0.084, 0.045, 0.015), (11.77, None, None, 0.1, 0.05)),
}
NAMES = {
    "test set": "test set, 9 boxes of 64 H₂O",
    "liquid": "liquid, one frame of 512 H₂O",
    "molecule": "molecule, 250 frames",
}
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Data = dict[str, dict[str, Any]]


def load(folder: Path = DOCS / "results") -> Data:
    """The documents by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def plain(value: float, digits: int = 3) -> str:
    """A number with so many significant digits; a power of ten below 0.001."""
    if value and abs(value) < 1e-3:
        power = int(np.floor(np.log10(abs(value))))
        return f"{value / 10.0**power:.{digits - 1}g}·10{str(power).translate(SUPERSCRIPTS)}"
    places = max(0, digits - 1 - int(np.floor(np.log10(abs(value))))) if value else 0
    return f"{value:.{places}f}".replace("-", "−")


def pair(both: Sequence[float | None]) -> str:
    """A value with its standard error, to the two leading digits of the error (one if that begins with more than 2)."""
    value, error = both
    assert value is not None
    if error is None or error == 0.0:
        return plain(value)
    power = int(np.floor(np.log10(error)))
    power -= error / 10.0**power < 2.95
    if 0.0 < abs(value) < 1e-3 and error < 1e-3:
        base = int(np.floor(np.log10(abs(value))))
        places = max(0, base - power)
        ten = f"·10{str(base).translate(SUPERSCRIPTS)}"
        return f"({value / 10.0**base:.{places}f} ± {error / 10.0**base:.{places}f}){ten}"
    places = max(0, -power)
    return f"{value:.{places}f} ± {error:.{places}f}".replace("-", "−")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(each) + " |" for each in lines)


def grids(data: Data) -> str:
    """The table of the study's supplement with both sets of numbers."""
    rows = []
    for name, (energies, forces) in STUDY.items():
        for quantity, study in (("energy_meV", energies), ("forces_meV_per_A", forces)):
            unit = {"energy_meV": "energy, meV", "forces_meV_per_A": "forces, meV/Å"}[quantity]
            rows.append([f"{NAMES[name]}: {unit}", "the study", *("" if x is None else f"{x:g}" for x in study)])
            for model in MODELS:
                part = data.get(model, {}).get("sets", {}).get(name)
                if part is None or part["reference"] != "3i":
                    continue
                found = part[quantity]
                rows.append(["", f"`{model}`", *(pair(found[grid]) for grid in GRIDS)])
    return table(["mean deviation from 3i", "", *GRIDS], rows)


def paper(data: Data) -> str:
    """Line by line what the study has, what was measured here, and why they differ."""
    head = ["", "the study", "here, `pet-water`", "command", "why different"]
    return table(head, comparison_rows(data, pair, plain))


def fine_tuned(data: Data) -> str:
    """Paired differences of symmetry errors over the test boxes."""
    rows = []
    for model in MODELS[1:]:
        if "test set" in data.get(model, {}).get("sets", {}):
            found = paired(data, model)
            rows.append([f"`{model}` less `pet-water`", pair(found["energy"]), pair(found["forces"])])
    return table(["", "energy, meV a box", "forces, meV/Å"], rows)


def dipole(data: Data) -> str:
    """The relation between the energy error and the dipole."""
    rows = []
    for model in (each for each in MODELS if "dipole" in data.get(each, {}).get("sets", {})):
        found = data[model]["sets"]["dipole"]
        for what, part in (("all", found), ("molecules intact", found["intact"])):
            slope = float(np.linalg.norm(part["slope_meV"]))
            error, rest = part["error_rms_meV"], part["residual_rms_meV"]
            rows.append(
                [
                    f"`{model}`",
                    f"{part['structures']} ({what})",
                    plain(error),
                    plain(slope),
                    f"{part['R2']:.2f}",
                    plain(rest),
                ]
            )
    head = ["", "boxes", "E − E_i, rms, meV", "\\|a\\|, meV", "share explained by a·Σu", "rest, rms, meV"]
    return table(head, rows)


def frame(data: Data) -> str:
    """The frame of 512 molecules: what the dipole predicts, and what was measured."""
    rows = []
    for model in (each for each in MODELS if "liquid" in data.get(each, {}).get("sets", {})):
        sets = data[model]["sets"]
        (row,) = sets["liquid"]["rows"]
        total = np.array(row["dipole"])
        predicted = abs(np.array(sets["dipole"]["intact"]["slope_meV"]) @ total)
        figures = (total @ total / row["molecules"], predicted, abs(row["dE"]["none"]), row["spread"])
        rows.append([f"`{model}`", *(plain(each) for each in figures)])
    head = ["512 H₂O, meV", "\\|Σu\\|²/N", "predicted: a·Σu", "as oriented", "rms over orientations"]
    return table(head, rows)


def ice(data: Data) -> str:
    """Starting energies of the study's own cells, in its own measure."""
    rows = [["the study (nine cells)", "15 to 23", "", "", ""]]
    for model in (each for each in MODELS if "ice" in data.get(each, {}).get("sets", {})):
        found = data[model]["sets"]["ice"]
        per_atom = {key: 1e3 * value for key, value in found["energy_meV_per_atom"].items()}
        after = max(1e3 * abs(row["dE"]["i"]) / (3 * row["molecules"]) for row in found["rows"])
        span = f"{plain(per_atom['least'], 2)} to {plain(per_atom['largest'], 2)}"
        forces = pair(found["forces_meV_per_A"]["none"])
        what = f"`{model}`, {found['structures']} of these cells"
        rows.append([what, span, plain(per_atom["rms"], 2), plain(after, 2), forces])
    head = ["", "energy, µeV/atom: least to largest", "rms", "largest after inversion", "forces, mean, meV/Å"]
    return table(head, rows)


def polar(data: Data) -> str:
    """Cells with a net dipole, with the error that the relation to the dipole predicts."""
    rows = []
    for model in (each for each in MODELS if "polar ice" in data.get(each, {}).get("sets", {})):
        sets = data[model]["sets"]
        slope = np.array(sets["dipole"]["intact"]["slope_meV"])
        for row in sets["polar ice"]["rows"]:
            atoms, total = 3 * row["molecules"], np.array(row["dipole"])
            figures = (abs(row["dE"]["none"]), abs(slope @ total), row["spread"], abs(row["dE"]["i"]))
            rows.append(
                [
                    f"`{model}`, {row['name']}",
                    f"{np.linalg.norm(total) / row['molecules']:.2f}",
                    *(plain(1e3 * each / atoms, 3) for each in figures),
                ]
            )
    head = [
        "energy, µeV/atom",
        "\\|Σu\\|/N",
        "as oriented",
        "predicted: a·Σu",
        "rms over orientations",
        "after inversion",
    ]
    return table(head, rows)


def orientation(data: Data) -> str:
    """Depths of orientational free energies."""
    models = data.get("orientation", {"models": {}})["models"]
    rows = [[f"`{name}`", pair(each["range_kT"]), str(each["geometries"])] for name, each in models.items()]
    return table(["", "between extremes, kT", "geometries"], rows)


TABLES: dict[str, Callable[[Data], str]] = {
    "paper": paper,
    "grids": grids,
    "dipole": dipole,
    "fine-tuned": fine_tuned,
    "frame": frame,
    "ice": ice,
    "polar": polar,
    "orientation": orientation,
}


def filled(text: str, data: Data) -> str:
    """The page with every table made anew."""

    def made(match: re.Match[str]) -> str:
        return f"<!-- begin: {match[1]} -->\n\n{TABLES[match[1]](data)}\n\n<!-- end: {match[1]} -->"

    return re.sub(r"<!-- begin: ([\w-]+) -->.*?<!-- end: \1 -->", made, text, flags=re.DOTALL)


def main() -> None:
    """Write the pages."""
    data = load()
    for name in PAGES:
        page = DOCS / name
        page.write_text(filled(page.read_text(encoding="utf-8"), data), encoding="utf-8")


if __name__ == "__main__":
    main()
