"""Curves of trainings: read as they were written, drawn with what they hold, refused if they are none."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from goniometer.errors import InputError
from goniometer.plotting.learning import learning_figure, read_curve

ROOT = Path(__file__).resolve().parent.parent
NEW = "step,seconds,training_force_mae,force_mae,force_rmse,energy_mae,energy_bias,symmetry_force,symmetry_energy\n"
BEGUN_BEFORE = f"{NEW}250,60,100,90,120,9,0.1,,\n500,120,80,70,100,7,0.2,7,0.7\n1000,240,60,50,80,5,0.1,4,0.4\n"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("learning_study", ROOT / "scripts" / "learning_study.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines(figure: object, panel: int) -> dict[str, tuple[list[float], list[float]]]:
    """The data of the lines of a panel, by style."""
    return {line.get_linestyle(): (list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[panel].lines}


def test_a_curve_is_drawn_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "curve.csv").write_text(BEGUN_BEFORE, encoding="utf-8")
    curve = read_curve(tmp_path)
    assert curve["force_mae"] == [90.0, 70.0, 50.0]
    figure = learning_figure({"run": curve})
    assert lines(figure, 0) == {"-": ([250.0, 500.0, 1000.0], [90.0, 70.0, 50.0]), "--": ([500.0, 1000.0], [7.0, 4.0])}
    assert lines(figure, 1)["--"] == ([500.0, 1000.0], [0.7, 0.4])
    assert lines(learning_figure({"run": curve}, "seconds"), 0)["--"] == ([2.0, 4.0], [7.0, 4.0])


def test_a_curve_without_symmetry_or_times_is_drawn_with_what_it_has(tmp_path: Path) -> None:
    # As files of an older version.
    (tmp_path / "curve.csv").write_text("step,force_mae,energy_mae\n250,900.0,30.0\n500,700.0,25.0\n")
    curve = read_curve(tmp_path / "curve.csv")
    figure = learning_figure({"older": curve})
    assert lines(figure, 0)["-"][1] == curve["force_mae"]
    assert lines(figure, 0)["--"] == ([], [])
    with pytest.raises(InputError, match="no curve says 'seconds'"):
        learning_figure({"older": curve}, "seconds")


def test_single_trainings_are_points_that_no_line_joins() -> None:
    # A line through one training of each size would state a trend that single trainings cannot show.
    curve = read_curve(ROOT / "models" / "learning" / "amount.csv")
    for axes in learning_figure({"one training each": curve}, "structures").axes:
        assert {line.get_linestyle() for line in axes.lines} == {"None"}
        assert {line.get_markerfacecolor() for line in axes.lines} == {axes.lines[0].get_color(), "none"}
        assert [len(line.get_xdata()) for line in axes.lines] == [4, 4]
    steps = learning_figure({"run": {"step": [1.0, 2.0], "force_mae": [3.0, 2.0]}})
    assert steps.axes[0].lines[0].get_linestyle() == "-"  # the control: steps of one training are joined


def test_what_is_no_curve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as a learning curve"):
        read_curve(tmp_path)
    (tmp_path / "curve.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(InputError, match="it has no rows with a step"):
        read_curve(tmp_path)
    (tmp_path / "curve.csv").write_text("step,force_mae\n1,two\n", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read as a learning curve"):
        read_curve(tmp_path)
    with pytest.raises(InputError, match="7 curves are too many"):
        learning_figure({str(number): {"step": [1.0]} for number in range(7)})


def test_the_script_draws_several_trainings(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "curve.csv").write_text(BEGUN_BEFORE, encoding="utf-8")
    older = ROOT / "models" / "pet-water.curve.csv"
    script().main([str(tmp_path / "run"), f"larger={older}", "-o", str(tmp_path / "study.html")])
    page = (tmp_path / "study.html").read_text(encoding="utf-8")
    assert ">run<" in page
    assert ">larger<" in page
    with pytest.raises(SystemExit, match=r"learning_study: .* cannot be read as a learning curve"):
        script().main([str(tmp_path / "none"), "-o", str(tmp_path / "study.png")])
