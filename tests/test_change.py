"""What another potential would change in a run: the same as by hand, of any rule and model, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray
from typer.testing import CliRunner

from goniometer.cli.app import app
from goniometer.dynamics.description import read_runs
from goniometer.dynamics.run import run
from goniometer.errors import InputError
from goniometer.observables import STATICS
from goniometer.observables.result import Observable
from goniometer.observables.statics import Static, pair_distribution
from goniometer.potentials.loading import load
from goniometer.rotations import rule
from goniometer.sampling.change import change
from goniometer.sampling.reweighting import Part, bound, reevaluate, reweighted
from goniometer.symmetrization import Averaged
from goniometer.trajectories.h5md import Trajectory, read_trajectory
from test_experiments import small_box

MODEL = "pet-water-unaugmented"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trajectory]:
    """A few steps of eight molecules."""
    folder = tmp_path_factory.mktemp("change")
    changes = {"structure": str(small_box(folder / "small.xyz")), "frames_every": 5.0, "length": 0.04}
    changes |= {"potential.model": MODEL, "checks.energy": None, "checks.temperature": None}
    wanted = ["raw", "i", "tumble"]
    described = read_runs("liquid-nvt", size="smoke", only=wanted, changes=changes)
    return {
        name: read_trajectory(run(each, folder, name=name).folder)
        for name, each in zip(wanted, described.values(), strict=True)
    }


def test_it_is_what_reweighting_by_hand_says(runs: dict[str, Trajectory]) -> None:
    model, raw = load(MODEL), runs["raw"]
    # So short a run is correlated over all its length, and half of it is left out at most.
    table = reevaluate(raw, model, ("none", "2i"), frames=2, discard=0.5)
    orbits = table.by_orbit("2i")

    def by_hand(of: str | Static) -> Observable:
        sides = table.sides_by_orbit(raw, of, {each: orbits[each] for each in ("none", "2i")}, 300.0)
        return reweighted([sides["2i"].less(sides["none"])], 300.0)

    options = {"pair": "O-H", "farthest": 3.0}
    found = change(raw, "pair-distribution", "2i", options, frames=2)
    np.testing.assert_allclose(found.values, by_hand(pair_distribution(raw, "O-H", 3.0)).values, atol=1e-12)
    assert (found.about["frames"], found.about["orientations"]) == (2, 48)
    directions = change(raw, "direction-moments", "2i", frames=2)
    np.testing.assert_allclose(directions.values, by_hand(STATICS["direction-moments"](raw)).values, atol=1e-12)
    # As they are the frames say something else, and so they are taken where copies cannot be worked out.
    taken = raw.taken(table.frames)
    plain = Part(STATICS["direction-moments"](raw).on(taken), table.correction("2i"))
    assert not np.allclose(directions.values, reweighted([plain], 300.0).values)
    proper = Averaged(model, rule("legendre:2"))
    as_they_are = change(raw, "direction-moments", proper, frames=2)
    assert as_they_are.about["orientations"] == 1
    rule_of_water = {"molecules": {"size": 3, "weights": [-1, 0.5, 0.5]}, "discard": 0.1}
    early = change(raw, "direction-moments", "2i", rule_of_water, frames=2)
    np.testing.assert_allclose(early.values, change(raw, "direction-moments", "2i", {"discard": 0.1}, frames=2).values)
    assert not np.allclose(early.values, directions.values)
    assert directions.about["too_short"].startswith("too short: the correlation time of M is ")
    assert bound(directions) == float("inf")
    assert "too_short" not in early.about
    pressure = change(raw, "pressure", Averaged(model, rule("legendre:2", True)), frames=2)
    assert pressure.values == pytest.approx(float(by_hand("pressure").values), abs=1e-9)
    # Another rule, which needs no name among the grids, is as good as that one here, and another model is another.
    fine = change(raw, "pressure", "gauss:5", frames=2)
    other = change(raw, "pressure", "pet-water", frames=2)
    assert abs(fine.values - pressure.values) < 0.1 * abs(float(pressure.values)) < abs(float(other.values))


def test_a_run_of_an_average_is_what_it_samples(runs: dict[str, Trajectory]) -> None:
    """With inversion averaged over already, inversion changes nothing; in raw it does."""
    none = change(runs["i"], "potential-energy", "i", frames=2)
    assert abs(float(none.values)) < 1e-9
    assert abs(float(change(runs["raw"], "potential-energy", "i", frames=2).values)) > 1e-5


def test_the_command(runs: dict[str, Trajectory], tmp_path: Path) -> None:
    command = ["observe", runs["raw"].name, "--observable", "pair-distribution", "--set", "pair=O-H"]
    shown = CliRunner().invoke(
        app,
        [
            *command,
            "--change-by",
            "2i",
            "--frames",
            "4",
            "-o",
            str(tmp_path / "change.nc"),
            "--figure",
            str(tmp_path / "change.png"),
        ],
    )
    assert shown.exit_code == 0, shown.exception
    assert "effective_share: " in shown.stdout
    saved = xarray.load_dataset(tmp_path / "change.nc")
    assert saved.attrs["frames"] == 4
    assert "g_OH_difference" in saved
    assert (tmp_path / "change.png").stat().st_size > 10_000
    shown = CliRunner().invoke(app, [*command, "--figure", "curve.gif"])
    assert str(shown.exception).startswith("cannot write curve.gif: a figure ends in .png")


def test_refusals(runs: dict[str, Trajectory], tmp_path: Path) -> None:
    cases = {
        "'displacement' is not static; reweighted are pair-distribution": ("raw", "displacement", "2i"),
        "every does not go with it": ("raw", "pressure", "2i", {"every": 2}),
        "samples no potential of its own": ("tumble", "pair-distribution", "2i"),
        "'gaus:5' is no grid, no rule and no model": ("raw", "pair-distribution", "gaus:5"),
    }
    for sentence, (name, observable, by, *options) in cases.items():
        with pytest.raises(InputError, match=sentence):
            change(runs[name], observable, by, *options, frames=2)
    shown = CliRunner().invoke(app, ["observe", runs["raw"].name, "--observable", "pressure", "--frames", "3"])
    assert shown.exit_code == 2
    shown = CliRunner().invoke(app, ["observe", runs["raw"].name, "--observable", "pressure", "--frames", "8"])
    assert str(shown.exception) == "--frames goes with --change-by"
    CliRunner().invoke(app, ["frames", runs["raw"].name, "-o", str(tmp_path / "frames.xyz")])
    with pytest.raises(InputError, match="does not say which model made it"):
        change(read_trajectory(tmp_path / "frames.xyz"), "pressure", "2i")
