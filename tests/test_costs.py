"""The cost table: bounds that hold as often as they say, what they are taken from, and the front."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from scipy.stats import norm, t

from goniometer.comparison import compare_curves, decide
from goniometer.comparison.runs import compare_runs
from goniometer.dynamics.description import Strategy
from goniometer.observables.blocks import Blocks
from goniometer.observables.result import Observable
from goniometer.observables.statics import Sampled, Static
from goniometer.plotting.style import front
from goniometer.sampling.reweighting import Part, bound, reweighted
from goniometer.studies.experiments import costs
from goniometer.studies.experiments.results import LiquidStudy, StrategyCost
from goniometer.studies.plots.liquid import cost_figure
from goniometer.trajectories.h5md import Trajectory
from test_liquid import trajectory
from test_reweighting import KT
from test_verdict import curves, recorded, series


def number(name: str, value: float, error: float, unit: str = "", **about: object) -> Observable:
    return Observable(name, unit, np.array(value), np.array(error), {}, about)


# ---- bounds of comparisons -------------------------------------------------------------------------------------------


def test_bounds_hold_as_often_as_they_say() -> None:
    """Of a planted difference at one point and of none at all; what was seen alone is no bound."""
    rng, below, seen, less = np.random.default_rng(0), 0, 0, 0
    repeats = 200
    for _ in range(repeats):
        found = compare_curves(curves(rng, 8, planted=1.5), curves(rng, 8))
        # 1.5 on the top of the bump, which has a point.
        below += found.bound() < 1.5
        seen += np.nanmax(np.abs(found.difference)) < 1.5
        # What was planted is known from elsewhere: what is left is none, and the bound is below the one without.
        shift = 1.5 * np.exp(-0.5 * ((np.arange(40) - 25) / 4.0) ** 2)
        less += found.bound(shift=shift) < found.bound()
    assert below / repeats < 0.05 + 3 * 0.0154
    assert seen / repeats > 0.2, "control: the largest difference that was seen"
    assert less / repeats > 0.9


def test_a_bound_is_what_would_be_equivalent() -> None:
    found = compare_curves(curves(np.random.default_rng(1), 6), curves(np.random.default_rng(2), 6))
    for level in (0.95, 0.8):
        upper = found.bound(level)
        for factor, answer in ((1.0 + 1e-6, "equivalent"), (1.0 - 1e-6, "undecided")):
            (verdict,) = decide({"a": found}, {"a": factor * upper}, level=1.0 - level)
            assert verdict.answer == answer
    assert found.bound(0.99) > found.bound(0.95) > found.bound(0.8) > np.nanmax(np.abs(found.difference))
    # What is known with an error of its own widens it.
    nothing = np.zeros(40)
    assert found.bound(shift=nothing, margin=nothing + 1.0) > found.bound() == found.bound(shift=nothing)
    # A point of which it is not known can be anything.
    somewhere = np.where(np.arange(40) == 7, np.nan, 0.0)
    assert found.bound(shift=somewhere) == float("inf")
    few = compare_curves(curves(np.random.default_rng(3), 2), curves(np.random.default_rng(4), 2))
    assert found.bound() < few.bound() < float("inf")
    assert compare_curves(np.ones((3, 4)), np.ones((3, 4))).bound() == 0.0
    # Points that never change, as g(r) where no pair is, have no error; those beside them have a bound all the same.
    sides = [np.column_stack([np.zeros(6), curves(np.random.default_rng(seed), 6), np.ones(6)]) for seed in (1, 2)]
    assert compare_curves(*sides).bound() == pytest.approx(found.bound())


# ---- bounds by reweighting -------------------------------------------------------------------------------------------


def held(samples: np.ndarray) -> Blocks:
    blocks = Blocks()
    blocks.add(samples)
    return blocks


def test_quantiles_are_those_of_so_many_components() -> None:
    rng = np.random.default_rng(5)
    white = rng.standard_normal((240, 50))
    one = held(white[:, :1]).simultaneous(np.asarray)
    assert one == pytest.approx(t.ppf(0.95, 239), abs=0.08)
    # The same component fifty times is one, and fifty of their own are fifty.
    assert held(np.repeat(white[:, :1], 50, axis=1)).simultaneous(np.asarray) == pytest.approx(one, abs=0.05)
    many = held(white).simultaneous(np.asarray)
    assert many == pytest.approx(t.ppf(1.0 - 0.5 * (1.0 - 0.9 ** (1.0 / 50.0)), 160), rel=0.08)
    assert held(np.zeros((240, 3))).simultaneous(np.asarray) == 0.0
    assert np.isnan(held(white[:3]).simultaneous(np.asarray))
    # From so few, or from as many that remember each other, there is no band.
    assert held(white[:40]).simultaneous(np.asarray) == float("inf")
    assert held(series(rng, 2, 200, 0.9)).simultaneous(np.asarray) == float("inf")


def test_bounds_by_reweighting_hold(tmp_path: Path) -> None:
    """⟨x⟩ under a field that is a fifth of ΔV, from correlated frames; frames taken as independent claim too much."""
    rng, stiffness, count, repeats = np.random.default_rng(6), 0.5, 600, 100
    width, spread, part = np.sqrt(KT / stiffness), 0.2 * KT, 0.2
    force, other = part * spread / width, np.sqrt(1.0 - part**2) * spread / width
    exact, below, unknown, naive = force / stiffness, 0, 0, 0
    place = Static("x", "Angstrom", {}, lambda frames: frames.positions[:, 0, 0, 0], np.asarray)
    structure = Atoms("H2", np.zeros((2, 3)), cell=9.0 * np.eye(3), pbc=True)
    for _ in range(repeats):
        x, y = width * series(rng, 2, count, 0.7).T
        positions = np.zeros((count, 2, 3))
        positions[:, 0, 0], positions[:, 1, 0] = x, y
        run = trajectory(tmp_path, structure, positions)
        correction = other * y - force * x
        found = reweighted([Part(place.on(run.frames()), correction)], 300.0)
        below += bound(found) < exact
        unknown += not np.isfinite(bound(found))
        factors = np.exp(-correction / KT)
        error = ((factors / factors.mean() - 1.0) * x).std() / np.sqrt(count)
        naive += abs(float(found.values)) + norm.ppf(0.95) * error < exact
    assert below / repeats < 0.05 + 3 * 0.022
    assert unknown / repeats < 0.1
    assert naive / repeats > 0.15, "control: frames taken as independent"


def test_bounds_from_six_runs_hold_whatever_these_remember() -> None:
    """The same of eight runs that never forget where they began: their frames say nothing of each other's scatter."""
    rng, part, spread, repeats = np.random.default_rng(8), 0.2, 0.5, 100
    of = Static("x", "", {}, lambda frames: np.zeros(len(frames)), np.asarray)
    below, naive = 0, 0
    for _ in range(repeats):
        x, other = (np.repeat(rng.standard_normal((8, 1)), 15, axis=1) for _ in range(2))
        x, other = (each + 0.1 * rng.standard_normal((8, 15)) for each in (x, other))
        correction = spread * KT * (np.sqrt(1.0 - part**2) * other - part * x)
        runs = [Part(Sampled(of, one), changes) for one, changes in zip(x, correction, strict=True)]
        found = reweighted(runs, 300.0)
        below += bound(found) < part * spread
        assert np.isfinite(bound(found))
        factors = np.exp(-correction / KT)
        seen = (factors * x).mean() / factors.mean() - x.mean()
        error = ((factors / factors.mean() - 1.0) * x).std() / np.sqrt(x.size)
        naive += abs(seen) + norm.ppf(0.95) * error < part * spread
    assert below / repeats < 0.05 + 3 * 0.022
    assert naive / repeats > 0.15, "control: frames taken as independent"
    # Of curves the band is as wide as so few runs need it to be, whose points do not know their own scatter.
    inside = []
    for _ in range(repeats):
        points = rng.standard_normal((7, 60))
        curves_of_runs = Blocks()
        for each in points:
            curves_of_runs.begin()
            curves_of_runs.add(each[None])
        curves_of_runs = curves_of_runs.independent()
        value, error, _ = curves_of_runs.estimate(np.asarray)
        inside.append(((np.abs(value) / error).max(), curves_of_runs.simultaneous(np.asarray)))
    assert np.mean([one < other for one, other in inside]) == pytest.approx(0.9, abs=0.09)
    assert np.mean([one < norm.ppf(0.95) for one, _ in inside]) < 0.1, "control: of single points"
    # Five runs are too few, and have no more than their frames say.
    assert bound(reweighted(runs[:5], 300.0)) == float("inf")
    # Errors are those of the scatter of runs, with Student's factor of six; the band does not have it twice.
    six = Blocks()
    for place in range(6):
        six.begin()
        six.add(np.array([float(place)] * (3 + place)))
    value, error, _ = six.independent().estimate(np.asarray)
    assert value == pytest.approx(2.5)
    factor = t.ppf(0.975, 5) / norm.ppf(0.975)
    assert error == pytest.approx(factor * np.arange(6.0).std(ddof=1) / np.sqrt(6))
    assert factor * six.independent().simultaneous(np.asarray) == pytest.approx(t.ppf(0.95, 5), abs=0.1)


# ---- the table -------------------------------------------------------------------------------------------------------


def ensemble(folder: Path, rng: np.random.Generator, mean: float) -> list[Trajectory]:
    folder.mkdir()
    each = 0.01 * series(rng, 6, 400, 0.5).T + mean
    return [recorded(folder / str(place), energies[:, None]) for place, energies in enumerate(each)]


def study(runs: dict[str, list[Trajectory]], differences: dict[str, dict[str, Observable]]) -> LiquidStudy:
    times = {"raw": (1.0, 10.0), "2i": (4.8, 48.0), "i": (1.1, 11.0), "tumble": (1.0, 11.0)}
    temperature = number("temperature", 301.0, 0.4, "K", runs=6)
    heat = number("drift", 1e-3, 2e-4, "eV/ps")
    found = {name: StrategyCost(*times[name], temperature, 0.1, 300.0, heat) for name in runs}
    verdicts = {
        name: compare_runs(runs["raw"], each, ("potential-energy",)) for name, each in runs.items() if name != "raw"
    }
    reference, by = costs.bounds(runs, found, differences, verdicts)
    whole = {name: StrategyCost(*times[name], temperature, 0.1, 300.0, heat, by[name]) for name in runs}
    lengths = dict.fromkeys(runs, 24.0)
    return LiquidStudy(
        "toy", lengths, {}, dict.fromkeys(runs, heat), None, differences, whole, verdicts, {}, 1, reference
    )


def test_biases_are_taken_from_the_average(tmp_path: Path) -> None:
    """Raw is off by 0.1, tumbling by 0.02, and averages, with multiple time steps, by nothing."""
    rng = np.random.default_rng(7)
    means = {"raw": 0.1, "2i": 0.0, "i": 0.0, "tumble": 0.02}
    runs = {name: ensemble(tmp_path / name, rng, mean) for name, mean in means.items()}
    change = number("potential_energy_difference", -0.1, 1e-4, "eV", simultaneous_90=1.7)
    differences = {"potential energy": {"i": change, "2i": change}}
    found = study(runs, differences)
    assert found.reference == "raw, and what reweighting says of it; the runs of 2i"
    bounds = {name: each.bounds["potential-energy"] for name, each in found.costs.items()}
    assert bounds["raw"].way == "by reweighting"
    assert bounds["raw"].upper == pytest.approx(0.1 + 1.7e-4)
    # All that ran is bounded in one way: less raw, and less what reweighting says of raw.
    for name in ("2i", "i", "tumble"):
        assert bounds[name].way == "by runs, against raw less reweighting"
    assert 0.02 < bounds["tumble"].upper < 0.03
    for name in ("2i", "i"):
        assert bounds[name].seen < bounds[name].upper < 0.01
    assert bounds["i"].upper == pytest.approx(bounds["2i"].upper, rel=0.5)
    # Where frames are too few for a bound of raw, the others stand against the runs of the reference.
    unbounded = {"potential energy": {"2i": replace(change, about={**change.about, "simultaneous_90": float("inf")})}}
    other = study(runs, unbounded)
    assert other.reference == "the runs of 2i"
    for name, below in {"raw": 0.12, "i": 0.01, "tumble": 0.03}.items():
        bound = other.costs[name].bounds["potential-energy"]
        assert bound.way == "by runs, against those of 2i"
        assert bound.seen < bound.upper < below
    assert other.costs["2i"].bounds["potential-energy"].upper == float("inf")
    for each in found.costs.values():
        assert each.bounds["temperature"].upper == pytest.approx(1.0 + 0.4 * t.ppf(0.95, 5))
    # Without runs of the average, raw reweighted is the reference.
    del runs["2i"]
    other = study(runs, differences)
    assert other.reference == "raw, and what reweighting says of it"
    tumble = other.costs["tumble"].bounds["potential-energy"]
    assert tumble.way == "by runs, against raw less reweighting"
    assert 0.02 < tumble.upper < 0.03
    # Control: against raw alone its bias is that of raw.
    alone = study(runs, {}).costs["tumble"].bounds["potential-energy"]
    assert alone.way == "by runs, against raw"
    assert alone.upper > 0.07
    costs.save(found, tmp_path / "costs.json")
    read = json.loads((tmp_path / "costs.json").read_text(encoding="utf-8"))
    assert read["schema"] == "goniometer/costs/1"
    assert read["strategies"]["2i"]["time_against_raw"] == pytest.approx([4.8, 4.8 * np.hypot(0.1 / 48, 0.01)])
    assert read["strategies"]["raw"]["heat_meV_per_ps"] == pytest.approx([1.0, 0.2])
    assert read["strategies"]["raw"]["temperature_bias_K"] == [1.0, 0.4]
    text = "\n".join(costs.lines(found))
    assert "4.800 ± 0.05 times the time of raw, 301.0 ± 0.4 K (+1.0 K)" in text
    assert "bias of raw, potential-energy: 0.1 seen, below 0.1 eV by reweighting" in text
    assert len(cost_figure(found).axes) == 3


def test_of_averages_the_bias_of_the_potential_is_known_from_raw(tmp_path: Path) -> None:
    """Of 2i, though no run of it and of raw could show that; of what samples no potential nothing is said."""
    strategies = {
        "raw": Strategy(),
        "2i": Strategy(kind="mts", rule="legendre:2", inversion=True),
        "i": Strategy(kind="average", rule="identity", inversion=True),
        "O": Strategy(kind="average"),
        "turned": Strategy(kind="mts", rule="identity", inversion=True, outer="random"),
        "tumble": Strategy(kind="tumble"),
    }

    def known(value: float) -> Observable:
        return number("potential_energy_difference", value, 0.1 * value, "eV", simultaneous_90=2.0)

    differences = {"potential energy": {"i": known(0.1), "2i": known(0.1), "3i": known(0.1)}}
    remaining = {"potential energy": {"none": known(0.1), "i": known(1e-3), "2i": known(1e-5)}}
    found = costs.potential_bounds(strategies, remaining, "3i")
    upper = {name: each["potential-energy"].upper for name, each in found.items() if each}
    assert upper == pytest.approx({"raw": 0.12, "i": 1.2e-3, "2i": 1.2e-5})
    rng = np.random.default_rng(9)
    runs = {name: ensemble(tmp_path / name, rng, 0.0) for name in ("raw", "2i", "tumble")}
    whole = study(runs, differences)
    whole = replace(whole, costs={name: replace(each, potential=found[name]) for name, each in whole.costs.items()})
    assert costs.document(whole)["strategies"]["2i"]["bias_of_potential"]["potential-energy"]["below"] == upper["2i"]
    assert (
        "  bias of the potential of 2i, potential-energy: 1e-05 seen, below 1.2e-05 eV by reweighting, against 3i"
        in costs.lines(whole)
    )
    panel = cost_figure(whole).axes[2]
    faces = [
        line.get_markerfacecolor() == "none" for line in panel.get_lines() if line.get_marker() not in ("", "None")
    ]
    assert sorted(faces) == [False, False, False, True]  # the bounds of three strategies, and of one potential


def test_the_front_holds_what_nothing_is_better_than() -> None:
    points = {"raw": (1.0, 0.5), "slow": (3.0, 0.6), "2i": (4.8, 0.1), "tumble": (1.05, 0.2), "same": (1.05, 0.2)}
    assert front(points) == ["raw", "tumble", "same", "2i"]
