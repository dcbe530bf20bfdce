"""Verdicts: how often they are wrong when nothing differs, how often they find what was planted, what they refuse."""

from __future__ import annotations

import math
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from scipy.stats import norm

from goniometer.data.trajectory import Trajectory, read_trajectory
from goniometer.errors import InputError
from goniometer.report.compare import compare_figure, in_words
from goniometer.verdict import compare_curves, decide
from goniometer.verdict.runs import compare_runs, ensembles
from test_liquid import trajectory

POINTS = 40


def curves(rng: np.random.Generator, count: int, planted: float = 0.0) -> np.ndarray:
    """Smooth curves whose neighbouring points go together, and whose noise grows along them a hundredfold."""
    white = rng.standard_normal((count, POINTS + 10))
    smooth = np.array([np.convolve(each, np.ones(11) / np.sqrt(11), "valid") for each in white])
    bump = np.exp(-0.5 * ((np.arange(POINTS) - 25) / 4.0) ** 2)
    return smooth * np.linspace(0.01, 1.0, POINTS) + planted * bump


def series(rng: np.random.Generator, count: int, length: int, memory: float) -> np.ndarray:
    """Autoregressive, of unit variance."""
    noise = rng.standard_normal((length, count)) * math.sqrt(1.0 - memory**2)
    found = np.empty((length, count))
    found[0] = rng.standard_normal(count)
    for index in range(1, length):
        found[index] = memory * found[index - 1] + noise[index]
    return found


@pytest.mark.parametrize("units", [4, 8])
def test_nothing_is_found_where_nothing_is(units: int) -> None:
    rng, wrong, outside, naive = np.random.default_rng(units), 0, 0, 0
    repeats = 300
    for _ in range(repeats):
        one, other = curves(rng, units), curves(rng, units)
        found = compare_curves(one, other, exchanges=400)
        wrong += found.p_value <= 0.05
        outside += bool((np.abs(found.difference) > found.band(0.95)).any())
        naive += bool((np.abs(found.difference) > 1.96 * found.errors).any())
    # 5 % within three standard errors of 300 repeats: 1.3 %.
    assert 0.015 < wrong / repeats < 0.09
    assert 0.01 < outside / repeats < 0.1
    assert naive / repeats > 0.2, "control: bands for single points are wrong far too often"


def test_a_planted_difference_is_found() -> None:
    rng, found, where = np.random.default_rng(1), 0, []
    for _ in range(60):
        each = compare_curves(curves(rng, 8, planted=1.6), curves(rng, 8), exchanges=400)
        found += each.p_value <= 0.05
        where.append(each.where)
    assert found >= 45
    assert abs(np.median(where) - 24) < 6


def test_run_lengths_are_those_that_decide() -> None:
    """Of an undecided verdict the length that it asks for decides four times in five."""
    rng = np.random.default_rng(2)
    first = compare_curves(curves(rng, 8), curves(rng, 8), exchanges=400)
    delta = 0.9 * float(np.nanmax(first.band(0.90)))
    (verdict,) = decide({"a": first}, {"a": delta})
    assert verdict.answer == "undecided"
    assert verdict.longer > 1.0
    again = 0
    for _ in range(60):
        one, other = (curves(rng, 8) / math.sqrt(verdict.longer) for _ in range(2))
        (later,) = decide({"a": compare_curves(one, other, exchanges=400)}, {"a": delta})
        again += later.answer == "equivalent"
    assert again / 60 > 0.65


def test_equivalence_is_not_claimed_of_what_lies_outside() -> None:
    rng, wrong = np.random.default_rng(3), 0
    for _ in range(200):
        one, other = curves(rng, 8, planted=1.0), curves(rng, 8)
        (verdict,) = decide({"a": compare_curves(one, other, exchanges=400)}, {"a": 1.0})
        wrong += verdict.answer == "equivalent"
    assert wrong / 200 <= 0.08
    (verdict,) = decide({"a": compare_curves(curves(rng, 8), curves(rng, 8), exchanges=400)}, {"a": 10.0})
    assert verdict.answer == "equivalent"


def test_many_observables_are_not_many_chances() -> None:
    rng, wrong, alone = np.random.default_rng(4), 0, 0
    for _ in range(60):
        found = {str(each): compare_curves(curves(rng, 6), curves(rng, 6), exchanges=400) for each in range(8)}
        wrong += any(each.answer == "differ" for each in decide(found))
        alone += any(each.p_value <= 0.05 for each in found.values())
    assert wrong / 60 < 0.16
    assert alone / 60 > 0.2, "control: without a correction"


def test_looks_spend_what_there_is_and_no_more() -> None:
    rng = np.random.default_rng(5)
    found = {"a": compare_curves(curves(rng, 6), curves(rng, 6), exchanges=400)}
    found["a"].maxima[:] = 0.0
    object.__setattr__(found["a"], "maxima", np.concatenate([[found["a"].largest], np.zeros(99)]))
    assert found["a"].p_value == 0.01
    answers = [decide(found, look=(look, 4))[0].answer for look in (1, 2, 3, 4)]
    assert answers == ["undecided", "undecided", "differ", "differ"]
    spent = [2 * norm.sf(norm.isf(0.025) / math.sqrt(part)) for part in (0.25, 0.5, 0.75, 1.0)]
    assert spent[-1] == pytest.approx(0.05)
    assert spent[1] - spent[0] < 0.01 < spent[2] - spent[1]
    with pytest.raises(InputError, match="look 5 of 4 is none"):
        decide(found, look=(5, 4))


def test_points_without_values_or_noise_do_not_decide() -> None:
    rng = np.random.default_rng(6)
    one, other = curves(rng, 6), curves(rng, 6)
    one[:, 0], other[:, 0] = np.nan, 1.0
    one[:, 1] = other[:, 1] = 3.0
    found = compare_curves(one, other, exchanges=400)
    assert np.isnan(found.difference[0])
    assert found.difference[1] == 0.0
    assert found.p_value > 0.01
    assert compare_curves(np.ones((3, 4)), np.ones((3, 4))).p_value == 1.0
    with pytest.raises(InputError, match="two independent curves or more on each side, not 1 and 3"):
        compare_curves(np.ones((1, 4)), np.ones((3, 4)))
    with pytest.raises(InputError, match="there is no 'b' to be equivalent in; compared are a"):
        decide({"a": found}, {"b": 1.0})
    with pytest.raises(InputError, match="a positive number, not 0"):
        decide({"a": found}, {"a": 0.0})


# ---- runs -----------------------------------------------------------------------------------------------------------


def recorded(folder: Path, energies: np.ndarray) -> Trajectory:
    folder.mkdir()
    structure = Atoms("O", [[0, 0, 0]], cell=12.0 * np.eye(3), pbc=True)
    return trajectory(folder, structure, np.zeros((len(energies), 1, 3)), potential_energy=energies)


def test_stretches_of_a_run_are_as_long_as_it_remembers(tmp_path: Path) -> None:
    """A correlated series: stretches of the right length are rarely wrong, samples taken one by one mostly are."""
    rng, repeats, wrong, naive = np.random.default_rng(7), 60, 0, 0
    for number in range(repeats):
        one, other = series(rng, 2, 2000, 0.95).T
        runs = [recorded(tmp_path / f"{number}-{side}", each) for side, each in enumerate((one, other))]
        report = compare_runs(runs[:1], runs[1:], ["potential-energy"])
        assert "stretches of" in report.compared["potential-energy"].first.units
        (verdict,) = report.verdicts
        wrong += verdict.answer == "differ"
        each = compare_curves(one[::4, None], other[::4, None], exchanges=200)
        naive += each.p_value <= 0.05
    assert wrong / repeats < 0.15
    assert naive / repeats > 0.3, "control: samples that remember each other, taken as independent"


def test_runs_that_remember_all_their_length_are_not_compared(tmp_path: Path) -> None:
    drifting = np.linspace(0.0, 1.0, 200)
    runs = [recorded(tmp_path / name, drifting) for name in "ab"]
    with pytest.raises(InputError, match="too short for two stretches that have forgotten each other"):
        compare_runs(runs[:1], runs[1:], ["potential-energy"])


def test_runs_are_units_where_there_are_enough(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    runs = [recorded(tmp_path / str(each), rng.standard_normal(200) + 0.5 * (each >= 4)) for each in range(8)]
    for number, each in enumerate(runs):
        each.attributes["description"] = {"strategy": {"kind": "raw" if number < 4 else "tumble"}, "seed": number}
    sides = ensembles(runs)
    assert list(sides) == ["raw", "tumble"]
    assert [len(each) for each in sides.values()] == [4, 4]
    report = compare_runs(*sides.values(), ["potential-energy"], {"potential-energy": 0.01}, names=("raw", "tumble"))
    (verdict,) = report.verdicts
    assert report.compared["potential-energy"].first.units == "4 runs"
    assert verdict.answer == "differ"
    assert verdict.comparison.difference[0] == pytest.approx(-0.5, abs=0.2)
    assert in_words(verdict).startswith("differ: most clearly by 0.")


def test_curves_are_drawn_with_their_difference(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    cell, runs = 12.0 * np.eye(3), []
    structure = Atoms("O40", rng.random((40, 3)) @ cell, cell=cell, pbc=True)
    for number in range(8):
        (tmp_path / str(number)).mkdir()
        runs.append(trajectory(tmp_path / str(number), structure, rng.random((30, 40, 3)) @ cell))
    names = ["pair-distribution", "pair-moments", "displacement"]
    report = compare_runs(runs[:4], runs[4:], names, {"pair-distribution": 1e6})
    assert [each.answer for each in report.verdicts] == ["equivalent", "undecided", "undecided"]
    figure = compare_figure(report)
    assert len(figure.axes) == 6
    assert figure.axes[0].get_title(loc="left") == "pair-distribution: equivalent"


def test_units_of_both_sides_have_one_length(tmp_path: Path) -> None:
    """Four short runs and four that are nine times as long: their means scatter differently, the units do not."""
    rng = np.random.default_rng(10)
    sides = [
        [recorded(tmp_path / f"{length}-{each}", rng.standard_normal(length)) for each in range(4)]
        for length in (100, 900)
    ]
    report = compare_runs(sides[0], sides[1], ["potential-energy"])
    one, other = report.compared["potential-energy"].first, report.compared["potential-energy"].second
    assert one.curves.shape == (4,)
    assert other.curves.shape == (36,)
    assert 0.5 < one.curves.std() / other.curves.std() < 2.0


def test_too_few_units_are_said_to_be_too_few() -> None:
    rng = np.random.default_rng(11)
    found = {str(each): compare_curves(curves(rng, 4, planted=50.0), curves(rng, 4)) for each in range(8)}
    assert found["0"].least == found["0"].p_value == 2 / 70
    for verdict in decide(found):
        assert verdict.answer == "undecided"
        assert verdict.few
        assert math.isnan(verdict.longer)
        assert "4 and 4 units are too few" in in_words(verdict)
    assert decide({"0": found["0"]})[0].answer == "differ"
    assert math.isinf(compare_curves(curves(rng, 2), curves(rng, 2)).quantile(0.95))


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(12)
    runs = [recorded(tmp_path / str(each), rng.standard_normal(200)) for each in range(2)]
    with pytest.raises(InputError, match="is given twice: it is one run"):
        compare_runs(runs[:1], runs[:1], ["potential-energy"])
    with pytest.raises(InputError, match="there is no 'energy' to be equivalent in"):
        compare_runs(runs[:1], runs[1:], ["potential-energy"], {"energy": 1.0})
    with pytest.raises(InputError, match=r"nothing can be compared \(temperature: .* holds no temperature\)"):
        compare_runs(runs[:1], runs[1:], ["temperature"])
    report = compare_runs(runs[:1], runs[1:], ["potential-energy", "temperature"])
    assert "holds no temperature" in report.skipped["temperature"]
    for name, each in zip("ab", runs, strict=True):
        ase.io.write(tmp_path / f"{name}.xyz", list(each.structures())[0:20])
    for name in "ab":
        frames = ase.io.read(tmp_path / f"{name}.xyz", ":")
        for frame in frames:
            frame.info = {}
        ase.io.write(tmp_path / f"{name}.traj", frames)
    silent = [read_trajectory(tmp_path / f"{name}.traj") for name in "ab"]
    with pytest.raises(InputError, match="does not say the time between its frames"):
        compare_runs(silent[:1], silent[1:], ["displacement"])
