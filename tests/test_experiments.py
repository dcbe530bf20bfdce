"""The experiments as a whole, in their smallest size."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import xarray
from ase import Atoms
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from goniometer.cli.app import app
from goniometer.errors import InputError
from goniometer.interruption import Interrupted
from goniometer.observables.result import Axis, Observable
from goniometer.reporting.tables import NONE
from goniometer.structures import read_structures
from goniometer.studies.experiments.costs import NAMES, document
from goniometer.studies.experiments.gas import gas, summary
from goniometer.studies.experiments.liquid import liquid, pooled_free_energy, walks
from goniometer.studies.experiments.liquid import summary as liquid_summary
from goniometer.studies.experiments.numbers import liquid_numbers
from goniometer.studies.experiments.results import LiquidStudy
from goniometer.studies.plots.liquid import convergence_figure, cost_figure, drift_figure, liquid_figure
from goniometer.studies.report.page import Findings, sections
from test_study_report import BROKEN

# Sixteen frames of two molecules.
SHORT = {"length": 0.08, "frames_every": 5.0, "replicas": 2}


def test_the_lone_molecule_goes_on_after_an_interruption_and_is_drawn(tmp_path: Path) -> None:
    def interrupt(done: int, whole: int, label: str) -> None:
        if "2i" in label and done == 80:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="stopped in gas-nve-smoke-2i; the same command goes on"):
        gas(tmp_path, changes=SHORT, progress=interrupt)
    study = gas(tmp_path, changes=SHORT)
    assert len([each for each in tmp_path.iterdir() if each.is_dir()]) == 7
    assert set(study.free_energies) == {"raw", "2i", "by the response"}
    # What averaging is for, and the control.
    momentum = {name: found.about["largest_change"] for name, found in study.momenta.items()}
    assert momentum["2i"] < 1e-2 * momentum["raw"]
    torque = dict(zip(study.grids.axes["grid"].values.tolist(), study.grids.values[:, 0].tolist(), strict=True))
    assert torque["3i"] < torque["2i"] < 1e-2 * torque["none"]
    assert study.free_energies["by the response"].about["evaluations"] == 40 * 128
    lines = summary(study)
    assert lines[0] == "pet-water: one molecule in vacuum"
    assert len(lines) == 1 + 2 + 5 + 9 + 3

    saved = xarray.load_dataset(tmp_path / "gas-smoke-orientation-by-the-response.nc")
    assert "agrees_with_dynamics_p_value" not in saved.attrs
    arguments = ["experiment", "gas", "-o", str(tmp_path), *(f"--set={name}={value}" for name, value in SHORT.items())]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    figures = f"figures: {tmp_path / 'gas-smoke.html'}"
    assert [each for each in shown.stdout.splitlines() if each] == [*lines, figures]
    assert (tmp_path / "gas-smoke.png").stat().st_size > 20_000
    assert "<svg" in (tmp_path / "gas-smoke.html").read_text("utf-8")


def test_maps_of_several_runs_are_of_all_their_directions() -> None:
    """Of a run that went everywhere and one that went to half of it; the mean of both maps is nowhere near."""
    axes = {"phi": Axis(np.array([0.0, 1.0]), "rad")}
    maps = [np.zeros(2), np.array([-np.log(2.0), np.inf])]
    found = pooled_free_energy([Observable("free_energy", "kT", each, np.full(2, np.nan), axes) for each in maps])
    np.testing.assert_allclose(found.values, -np.log([1.5, 0.5]))


def test_an_unknown_experiment_is_refused(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["experiment", "stream", "-o", str(tmp_path)])
    assert isinstance(shown.exception, InputError)
    assert str(shown.exception) == "there is no experiment 'stream'; there are gas, liquid and ice"


@pytest.mark.parametrize("option", [["--only", "i"], ["--walkers", "2"], ["--frames", "1"], ["--grids", "2i"]])
def test_options_of_the_liquid_are_those_of_no_other(tmp_path: Path, option: list[str]) -> None:
    for name in ("gas", "ice"):
        shown = CliRunner().invoke(app, ["experiment", name, "-o", str(tmp_path / "runs"), *option])
        assert isinstance(shown.exception, InputError)
        assert str(shown.exception) == f"{option[0][2:]} goes with the experiment liquid, not with {name}"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("raw", "--walkers raw: wanted is a number from 1 on, or a strategy with one, raw=8"),
        ("raw=0", "--walkers raw=0: wanted is a number"),
        ("=4", "--walkers =4: wanted is a number"),
        ("3", "--walkers 3: there is another number for what is not named"),
        ("i=2", "walkers are of 'i', which is not run; the strategies are raw, tumble"),
    ],
)
def test_walkers_are_so_many_of_a_strategy(tmp_path: Path, given: str, message: str) -> None:
    arguments = ["experiment", "liquid", "-o", str(tmp_path), "--only", "tumble", "--walkers", "2", "--walkers", given]
    shown = CliRunner().invoke(app, arguments)
    assert isinstance(shown.exception, InputError)
    assert message in str(shown.exception)
    assert not list(tmp_path.iterdir())


def test_strategies_have_walkers_of_their_own() -> None:
    each = [(3, ("raw", "i", "tumble")), (4, ("raw", "tumble")), (5, ("raw",))]
    assert walks("laptop", ("tumble", "i"), {"raw": 3, "i": 1, "others": 2}, {"seed": 3}) == each
    assert walks("laptop", ("i",), {"i": 1}, {}) == [(0, ("raw", "i")), *((seed, ("raw",)) for seed in range(1, 8))]
    for changes, message in (
        ({"runs.raw.seed": 3, "runs.i.seed": 3}, "a strategy has no seed of its own"),
        ({"runs.raw.seed": 3}, "seed of i is another than of raw"),
        ({"runs": {"i": {"temperature": 310.0}}}, "temperature of i is another than of raw"),
        ({"seed": "x"}, "seed"),
    ):
        with pytest.raises(InputError, match=message):
            walks("laptop", ("i",), 2, changes)
    with pytest.raises(InputError, match="there are 0 walkers of 'raw': wanted is one or more"):
        walks("laptop", ("i",), {"raw": 0}, {})
    assert walks("smoke", ("i",), None, {}) == [(0, ("raw", "i"))]
    assert walks("smoke", (), 2, {})[1] == (1, ("raw", "2i", "i", "turned", "random", "tumble"))


def test_another_liquid_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    ase.io.write(
        tmp_path / "argon.xyz", Atoms("Ar8", np.random.default_rng(0).random((8, 3)) * 9, cell=[9.0] * 3, pbc=True)
    )
    arguments = ["experiment", "liquid", "-o", str(tmp_path / "out"), "--set", f"structure={tmp_path / 'argon.xyz'}"]
    shown = CliRunner().invoke(app, arguments)
    assert isinstance(shown.exception, InputError)
    assert str(shown.exception).startswith("the experiment liquid is one of water (")
    assert not list((tmp_path / "out").glob("liquid-nvt*"))


def test_frames_are_averaged_over_something_or_refused_before_anything_is_run(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["experiment", "liquid", "-o", str(tmp_path), "--grids", "none", "--frames", "1"])
    assert isinstance(shown.exception, InputError)
    assert "grids besides none: name one, for instance 2i, or take no frames" in str(shown.exception)
    assert not list(tmp_path.iterdir())


def test_what_changes_nothing_is_drawn_as_that() -> None:
    zero = Observable(
        "g", "", np.zeros(3), np.zeros(3), {"r": Axis(np.arange(3.0), "Angstrom")}, {"simultaneous_90": 0.0}
    )
    axes = {"grid": Axis(np.array(["none", "2i"])), "quantity": Axis(np.array(["energy", "forces"]))}
    grids = Observable("errors", "", np.zeros((2, 2)), np.zeros((2, 2)), axes, {"reference": "2i"})
    study = LiquidStudy("symmetric", {"raw": 1.0}, {}, {}, grids, {"g_OO": {"2i": zero}}, {}, {}, {}, 1)
    (axes, *others) = convergence_figure(study).axes
    assert [each.get_text() for each in axes.texts] == ["averaging changes nothing"]
    assert not any(each.get_lines() for each in others)


def test_changes_that_are_not_resolved_are_drawn_open() -> None:
    r = {"r": Axis(np.array([1.0, 2.6, 3.0]), "Angstrom")}

    def changed(values: list[float], band: float) -> dict[str, Observable]:
        about = {"simultaneous_90": band}
        whole = Observable("g", "", np.array(values), np.full(3, 0.1), r, about)
        return {"i": replace(whole, values=0.9 * whole.values), "2i": whole}

    axes = {"grid": Axis(np.array(["none", "i", "2i"])), "quantity": Axis(np.array(["energy", "forces"]))}
    size = np.array([[1.0, 1.0], [0.1, 0.1], [0.0, 0.0]])
    grids = Observable("errors", "", size, 0.1 * size, axes, {"reference": "2i"})
    differences = {
        "g_OO": changed([np.nan, 0.5, 0.2], 3.0),
        "pressure": changed([0.1, 0.2, 0.1], 3.0),
        "c_uu(r)": changed([np.nan, 0.5, 0.2], float("inf")),
    }
    remaining = {
        kind: {"none": each["2i"], "i": replace(each["2i"], values=each["2i"].values - each["i"].values)}
        for kind, each in differences.items()
    }
    study = LiquidStudy("planted", {"raw": 1.0}, {}, {}, grids, differences, {}, {}, {}, 1, remaining=remaining)
    _, left, resolved = convergence_figure(study).axes
    assert [line.get_label() for line in left.get_lines()] == list(differences)
    for line in left.get_lines():
        np.testing.assert_allclose(line.get_ydata(), [1.0, 0.1])
    assert [line.get_markerfacecolor() == "none" for line in left.get_lines()] == [False, True, True]
    markers = {float(line.get_xdata()[0]) for line in resolved.get_lines()}
    assert markers == {5.0, 2.0, 3.0}  # |change| / error, and the band
    # Of one grid alone there is nothing that another one leaves.
    whole = differences["g_OO"]["2i"]
    alone = replace(study, differences={"g_OO": {"2i": whole}}, remaining={"g_OO": {"none": whole}})
    _, left, _ = convergence_figure(alone).axes
    assert [list(line.get_ydata()) for line in left.get_lines()] == [[1.0]]


def small_box(path: Path) -> Path:
    """Eight molecules of water on a lattice."""
    water = read_structures("molecule")[0].atoms
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * 3.3
    turns = Rotation.random(8, rng=np.random.default_rng(0))
    body = water.positions - water.positions[0]
    positions = np.concatenate([place + turn.apply(body) for place, turn in zip(grid, turns, strict=True)])
    ase.io.write(path, Atoms("OHH" * 8, positions, cell=6.6 * np.eye(3), pbc=True))
    return path


def assert_without_bounds(study: LiquidStudy) -> None:
    """Of a study whose runs are all too short no output holds a bound, a band, an error of a change, or a verdict."""
    numbers = liquid_numbers(study)
    assert set(numbers["too_short"]) == set(study.lengths)
    verdicts = [each for report in numbers["verdicts"].values() for each in report.values()]
    assert len(verdicts) > 4
    for each in verdicts:
        assert (each["answer"], each["p_differ"], each["longer"]) == ("undecided", None, None)
        assert each["words"].startswith("undecided; too short: the correlation time of ")
    changes = [each for by_grid in numbers["changes"].values() for each in by_grid.values()]
    assert {(each["error"], each["t"]) for each in changes} == {(None, None)}
    assert {each["height"][1] for each in numbers["first_peak_of_g_OO"].values()} == {None}
    strategies = document(study)["strategies"].values()
    known = [one for each in strategies for kind in ("bias", "bias_of_potential") for one in each[kind].values()]
    assert len(known) > 20
    assert {one["below"] for one in known} == {None}
    assert all(one["seen"] is not None for one in known)
    lines = [line for line in liquid_summary(study) if "conserved" not in line]
    assert not any(re.search(r"below|at most|t up to|p = ", line) for line in lines if "correlation time" not in line)
    assert sum("without an error: too short" in line for line in lines) == len(changes)
    # The page and the figures.
    chapter = replace(BROKEN, experiment="liquid", values={**numbers, "costs": document(study)})
    tables = {each.title: each for part in sections(Findings(liquid={"m": chapter})) for each in part.tables}
    for title in ("m: what the bias is below", "m: what the bias of the potential alone is below"):
        assert {cell for row in tables[title].rows for cell in row[1:]} == {NONE}
        assert "too short: the correlation time of " in tables[title].note
    answers = {cell for row in tables["m: each strategy against raw"].rows for cell in row[1:]}
    assert answers <= {"undecided, too short", "not compared"}
    assert {tuple(row[2:4]) for row in tables["By reweighting"].rows} == {(NONE, NONE)}
    for axes in liquid_figure(study).axes[-4:]:
        bands = [path.vertices for each in axes.collections for path in each.get_paths()]
        assert not any(np.isfinite(each).all(axis=1).any() for each in bands)
    *_, resolved = convergence_figure(study).axes
    assert not any(np.isfinite(each.get_xdata()).any() for each in resolved.get_lines())


def test_a_liquid_is_run_evaluated_compared_and_drawn(tmp_path: Path) -> None:
    changes = {"structure": str(small_box(tmp_path / "small.xyz")), "frames_every": 5.0, "length": 0.12}
    changes |= {"potential.model": "pet-water-unaugmented", "checks.energy": None, "checks.temperature": None}
    told: list[str] = []
    changes["runs.tumble.length"] = 0.06
    arguments = {"only": ("tumble", "i"), "frames": 3, "grids": ("none", "i", "2i"), "changes": changes}
    arguments["walkers"] = {"raw": 2, "others": 1}
    study = liquid(tmp_path, progress=lambda done, whole, label: told.append(label), **arguments)
    assert study.lengths == {"raw": 0.24, "i": 0.12, "tumble": 0.06}
    assert told[-1] == "frames over all grids"
    assert study.drawn["g_OO"]["raw"].about["runs"] == 2
    # Curves that are drawn together are of one window, and reach to the same lags: half of the shortest run is left
    # out, which is correlated with its start over all its length.
    assert study.window == pytest.approx((0.03, 0.065))
    for kind in ("displacement", "c_uu(t)"):
        lags = [each.axes["time"].values.tolist() for each in study.drawn[kind].values()]
        assert lags[0] == lags[1] == lags[2]
        assert len({each.about["length_ps"] for each in study.drawn[kind].values()}) == 1
    assert study.grids is not None
    assert study.grids.about["frames"] == 3
    for seed, share in enumerate((2, 1)):  # of both runs
        with np.load(tmp_path / f"liquid-smoke-frames-{seed}.npz") as kept:
            assert len(kept["frames"]) == share
    by_grid = dict(zip(study.grids.axes["grid"].values.tolist(), study.grids.values[:, 1].tolist(), strict=True))
    assert by_grid["none"] > by_grid["i"] > by_grid["2i"] == 0.0
    assert set(study.differences["g_OO"]) == set(study.differences["stress"]) == {"i", "2i"}
    # What an average leaves is known of the frames of raw; of what samples no potential it is not.
    for kind, by_grid in study.differences.items():
        gone = by_grid["2i"].values - by_grid["i"].values
        np.testing.assert_allclose(study.remaining[kind]["i"].values, gone, atol=1e-12, rtol=1e-6)
        assert study.remaining[kind]["none"] is by_grid["2i"]
    assert {name: set(each.potential) for name, each in study.costs.items()} == {
        "raw": set(NAMES.values()),
        "i": set(NAMES.values()),
        "tumble": set(),
    }
    # Averaged, a frame has no rotational gradient.
    change = study.differences["stress"]["2i"].values[2]
    assert 0.0 < np.abs(change).max() < 1.0
    said = liquid_numbers(study)["reweighting"]
    assert said["2i"]["frames"] == 3
    assert 0.0 < said["2i"]["effective_share"] <= 1.0
    assert any(
        line.startswith("  2i less raw, over orientations: ") and "meV rms, 3 frames count for" in line
        for line in liquid_summary(study)
    )
    ways = {kind: each.way for kind, each in study.costs["raw"].bounds.items()}
    assert ways["pressure"] == ways["pair-distribution"] == "by reweighting"
    assert study.reference == "raw, and what reweighting says of it"
    documents = json.loads((tmp_path / "liquid-smoke-costs.json").read_text("utf-8"))
    assert documents["strategies"]["tumble"]["evaluations_a_step"] == 1.0
    assert documents["strategies"]["raw"]["bias"]["pressure"]["unit"] == "MPa"
    told.clear()
    again = liquid(tmp_path, progress=lambda done, whole, label: told.append(label), **arguments)
    assert told == []
    assert liquid_summary(again) == liquid_summary(study)
    saved = xarray.load_dataset(tmp_path / "liquid-smoke-g_OO-raw.nc")
    assert saved.sizes == {"r": len(study.drawn["g_OO"]["raw"].values)}
    assert len(liquid_figure(study).axes) == 3 + 1 + 4
    _, left, resolved = convergence_figure(study).axes
    remains = {line.get_label(): np.asarray(line.get_ydata()) for line in left.get_lines()}
    assert len(remains) == len(resolved.get_yticks()) == len(study.differences)
    for kind, by_grid in study.differences.items():
        start, inverted = remains[kind]
        gone = np.abs(by_grid["2i"].values - by_grid["i"].values)
        assert (start, inverted) == (1.0, pytest.approx(np.nanmax(gone) / np.nanmax(np.abs(by_grid["2i"].values))))
    (heat,) = drift_figure(study).axes
    drawn = {name: line.get_xydata() for name, line in zip(study.conserved, heat.get_lines(), strict=False)}
    for name, points in drawn.items():
        slope = np.polyfit(*points.T, 1)[0]  # meV/ps a molecule
        # Least squares and the estimator of the drift weigh the points differently, each within its error.
        drift, error = (1e3 * float(each) / 8 for each in (study.drifts[name].values, study.drifts[name].errors))
        assert abs(slope - drift) < 2.0 * error < 1e2
        assert points[0].tolist() == [0.0, 0.0]
    # Three frames of two runs bound nothing: what is left is heat and temperature.
    assert len(cost_figure(study).axes) == 2
    assert not any(np.isfinite(each.upper) for each in study.costs["raw"].bounds.values())
    (said,) = (line for line in liquid_summary(study) if line.startswith("  bias of raw: not bounded for "))
    assert "pressure" in said
    assert said.endswith(
        "that takes 6 raw runs, or 50 frames that have forgotten each other, and four runs of a strategy"
    )
    assert_without_bounds(study)
    # Of half the length nothing is run.
    told.clear()
    shorter = {**arguments, "frames": 0, "changes": {**changes, "length": 0.06}}
    half = liquid(tmp_path, progress=lambda done, whole, label: told.append(label), **shorter)
    assert told == []
    assert half.conserved["raw"].axes["time"].values[-1] <= 60.0 < study.conserved["raw"].axes["time"].values[-1]
    assert half.costs["raw"].seconds == pytest.approx(study.costs["raw"].seconds, rel=0.2)
