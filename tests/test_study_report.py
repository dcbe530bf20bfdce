"""The report of a study: what it says of models that are broken, symmetric, too short, or not there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from goniometer.errors import InputError
from goniometer.studies.experiments.results import GridComparison
from goniometer.studies.plots.grids import grid_figure
from goniometer.studies.report import paper
from goniometer.studies.report import reproduction as asked
from goniometer.studies.report.chapter import SCHEMA, Chapter, read_chapter
from goniometer.studies.report.folder import write_report
from goniometer.studies.report.page import Findings, render_study, sections, summary
from goniometer.studies.report.reproduction import by_grid, liquid_errors, liquid_verdict, molecule_verdicts

GRIDS = ("none", "i", "2i", "3i")


def gas(torques: tuple[float, ...], momenta: tuple[float, float], size: str = "laptop") -> Chapter:
    grids = {
        name: {"torque_meV": [torque, 0.01 * torque], "energy_meV": [torque, None], "forces_meV_per_A": [torque, None]}
        for name, torque in zip(GRIDS, torques, strict=True)
    }
    values: dict[str, Any] = {
        "grids": grids,
        "momentum_change_eV_fs": dict(zip(("raw", "2i"), momenta, strict=True)),
        "drift_meV_per_ps": {"raw": [0.1, 0.2], "random": [None, None]},
        "orientation_kT": {
            "raw": {"range": 0.4, "uniform_p_value": 0.3},
            "by the response": {"range": 0.1, "agrees_with_dynamics_p_value": 0.7},
        },
    }
    run = {
        "ps": 3.0,
        "runs": 2,
        "replicas": 4,
        "seconds": 7200.0,
        "days": ["2026-01-01"],
        "hardware": ["a"],
        "versions": [],
    }
    return Chapter("gas", size, "m.pt", values, ["a line"], [], {"gas-nve raw": run})


BROKEN = gas((3.4, 1.6, 2e-3, 2e-5), (1.3, 1e-3))
WEAK = gas((3.4, 3.0, 1.9, 2e-5), (1.3, 0.7))
#: What averages leave of a symmetric model in float32.
SYMMETRIC = gas((2e-5, 1e-5, 8e-6, 7e-6), (2e-5, 5e-6))


@pytest.mark.parametrize(
    ("chapter", "said"),
    [
        (BROKEN, "as in the paper, averaging restores what the model breaks"),
        (WEAK, "averaging over 2i is not enough for this model"),
        (SYMMETRIC, "the model is symmetric"),
    ],
)
def test_verdicts_on_the_molecule(chapter: Chapter, said: str) -> None:
    found = list(molecule_verdicts(chapter.values))
    assert said in found[0]
    assert (len(found) == 1) == (chapter is SYMMETRIC)


def test_the_symmetry_error_by_grid_is_drawn_beside_the_papers() -> None:
    grids = {grid: {"energy_meV": [value, 0.1 * value], "forces_meV_per_A": [value, None]} for grid, value in ERRORS}
    liquid = replace(BROKEN, experiment="liquid", values={"grids": grids, "measured_against": "2i"})
    (found,) = by_grid(Findings(gas={"m": BROKEN}, liquid={"m": liquid}))
    (drawing,) = found.drawings
    assert drawing.title == "m: symmetry error by grid"
    assert "Not against 3i: Frames of the liquid of m against 2i." in drawing.caption
    figure = grid_figure(
        [GridComparison("liquid", "a liquid", *columns(grids), paper.ENERGY_BY_GRID["liquid"], {"none": 1.21})]
    )
    energy, forces = figure.axes
    ours, given = (each.get_xydata() for each in energy.get_lines()[:2])
    np.testing.assert_allclose(ours, [[0, 3.0], [1, 1.0], [3, 0.1]])
    np.testing.assert_allclose(given, list(enumerate((7.938, 4.880, 1.088, 0.683, 0.415))))
    assert len(forces.get_lines()[1].get_xydata()) == 1


ERRORS = (("none", 3.0), ("i", 1.0), ("2i", 0.1), ("3i", 0.0))


def columns(grids: dict[str, dict[str, list[float | None]]]) -> list[dict[str, list[float | None]]]:
    return [{grid: each[key] for grid, each in grids.items()} for key in ("energy_meV", "forces_meV_per_A")]


def test_rounding_is_no_figure() -> None:
    verdicts = {each.id: dict(each.verdicts) for each in sections(Findings(gas={"m": SYMMETRIC, "b": BROKEN}))}
    assert verdicts["grids"]["m"] == "Forces of the lone molecule err by no more than rounding."
    assert "0.29 times the paper's" in verdicts["grids"]["b"]


def test_what_is_too_short_has_no_verdict() -> None:
    short = gas((3.4, 1.6, 2e-3, 2e-5), (1.3, 1e-3), "smoke")
    found = Findings(gas={"m": short})
    assert summary(found) == []
    assert all(each.verdicts == [] for each in sections(found))
    assert summary(Findings(gas={"m": BROKEN}))[0][0] == "m"


def test_a_liquid_says_why_nothing_was_compared() -> None:
    lengths = {"raw": 20.0}
    assert "no other strategy" in liquid_verdict({"lengths_ps": lengths, "verdicts": {}})
    errors = {
        grid: {"energy_meV": [5 * size, 0.1 * size], "forces_meV_per_A": [size, 0.01 * size]}
        for grid, size in {"none": 0.8, "2": 0.0003, "3i": 0.0}.items()
    }
    (broken,) = liquid_errors({"grids": errors, "measured_against": "3i"})
    assert "is 4.00 ± 0.08 meV a box and 0.800 ± 0.008 meV/Å; the least that an average leaves of the" in broken
    errors["none"] = {"energy_meV": [0.002, 0.0001], "forces_meV_per_A": [0.0004, 1e-5]}
    (kept,) = liquid_errors({"grids": errors, "measured_against": "3i"})
    assert kept.endswith("the rounding of its arithmetic: the model is symmetric.")
    assert not list(liquid_errors({}))
    said = liquid_verdict({"lengths_ps": lengths, "verdicts": {"i": "their cells differ"}})
    assert said == "raw 20 ps: nothing could be compared, their cells differ."
    verdicts = {"i": {"a": {"answer": "differ"}, "b": {"answer": "undecided"}}}
    assert "1 comparison of 2 differ from raw, 0 are equivalent, 1 undecided" in liquid_verdict(
        {"lengths_ps": lengths, "verdicts": verdicts}
    )


def test_an_observable_has_one_row_whether_it_could_be_compared_or_not() -> None:
    said = {"answer": "undecided", "p_differ": 0.46, "longer": 6.9}
    verdicts = {"i": {"temperature": said, "pair-moments": said}, "tumble": {"temperature": said}}
    skipped = {"i": {"displacement": "too short"}, "tumble": {"pair-moments": "too short", "displacement": "too short"}}
    table = asked._verdict_table("m", replace(BROKEN, values={"verdicts": verdicts, "not_compared": skipped}))
    assert [[each[0], *(cell.partition(",")[0] for cell in each[1:])] for each in table.rows] == [
        ["temperature", "undecided", "undecided"],
        ["pair-moments", "undecided", "not compared"],
        ["displacement", "not compared", "not compared"],
    ]
    assert table.note.count("too short") == 1


def test_a_study_of_the_molecule_alone_is_a_page() -> None:
    page = render_study(Findings(gas={"m <b>": BROKEN}), "A title", "A lead.", ["m/ice/analysis"])
    assert [each.id for each in sections(Findings(gas={"m": BROKEN}))] == ["grids", "molecule", "drift", "runs"]
    assert "m &lt;b&gt;" in page
    assert "m <b>" not in page
    assert "m/ice/analysis" in page
    assert sections(Findings()) == []


def study(folder: Path, size: str, keys: dict[str, str]) -> Path:
    """A folder with the chapter of a broken model, and records of what has ended."""
    (folder / "pet-water" / "gas").mkdir(parents=True)
    described = {"models": ["pet-water"], "size": size, "experiments": [{"experiment": "gas"}]}
    (folder / "study.yaml").write_text(yaml.safe_dump(described), encoding="utf-8")
    graph = [{"name": "pet-water/gas/analysis", "needs": [], "key": "new"}]
    (folder / "graph.json").write_text(json.dumps(graph), encoding="utf-8")
    BROKEN.write(folder / "pet-water" / "gas" / f"gas-{size}.json")
    for name, key in keys.items():
        (folder / "done" / name).parent.mkdir(parents=True)
        (folder / "done" / name).write_text(f"{key}\n", encoding="utf-8")
    return folder


def test_what_was_found_under_another_description_is_not_shown(tmp_path: Path) -> None:
    page = write_report(study(tmp_path / "new", "laptop", {"pet-water/gas/analysis": "new"})).read_text("utf-8")
    assert 'id="failures"' not in page
    assert (tmp_path / "new" / "grids-pet-water.png").stat().st_size > 10000
    assert "size laptop" in page
    assert "mean nothing" not in page
    for number, keys in enumerate(({"pet-water/gas/analysis": "old"}, {})):
        with pytest.raises(InputError, match=r"there is nothing in .* to report yet"):
            write_report(study(tmp_path / str(number), "laptop", keys))
    with pytest.raises(InputError, match=r"is not the folder of a study: it has no study\.yaml"):
        write_report(tmp_path)


def test_a_chapter_is_what_was_written(tmp_path: Path) -> None:
    BROKEN.write(tmp_path / "a.json")
    assert read_chapter(tmp_path / "a.json") == BROKEN
    (tmp_path / "b.json").write_text(json.dumps({"schema": SCHEMA, "experiment": "gas"}), encoding="utf-8")
    with pytest.raises(InputError, match="is not what an experiment leaves"):
        read_chapter(tmp_path / "b.json")
