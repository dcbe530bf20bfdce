"""Verdicts: how often they are wrong when nothing differs, how often they find what was planted, what they refuse."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from scipy.optimize import brentq
from scipy.stats import norm
from typer.testing import CliRunner

from goniometer.cli.app import app
from goniometer.comparison import compare_curves, decide
from goniometer.comparison.runs import Compared, Report, Side, common_window, compare_runs, ensembles, within
from goniometer.dynamics.description import read_runs
from goniometer.dynamics.run import run
from goniometer.errors import InputError
from goniometer.observables import observe
from goniometer.observables.orientation import directions, moments
from goniometer.observables.result import Axis, Observable
from goniometer.plotting.comparison import compare_figure, in_words
from goniometer.trajectories.h5md import Frames, Trajectory, read_trajectory, write_segment
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
        found = compare_curves(one, other)
        wrong += found.p_value <= 0.05
        outside += bool((np.abs(found.difference) > found.band(0.95)).any())
        naive += bool((np.abs(found.difference) > 1.96 * found.errors).any())
    # 5 % within three standard errors of 300 repeats: 1.3 %.
    assert 0.015 < wrong / repeats < 0.09
    assert 0.01 < outside / repeats < 0.1
    assert naive / repeats > 0.2, "control: bands for single points are wrong far too often"


def by_exchanges(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> float:
    """The control: the p-value of exchanges of units between the sides, exact only if both have the same spread."""
    pooled, count, maxima = np.concatenate([one, other]), len(one), []
    orders = [np.arange(len(pooled)), *(rng.permutation(len(pooled)) for _ in range(199))]
    for order in orders:
        a, b = pooled[order[:count]], pooled[order[count:]]
        error = np.sqrt(a.var(axis=0, ddof=1) / len(a) + b.var(axis=0, ddof=1) / len(b))
        maxima.append(np.max(np.abs(a.mean(axis=0) - b.mean(axis=0)) / np.maximum(error, 0.1 * np.median(error))))
    return float(np.mean(np.array(maxima) >= maxima[0]))


@pytest.mark.parametrize("spread", [3.0, 1.0 / 3.0])
@pytest.mark.parametrize("units", [(7, 4), (4, 7), (4, 4), (8, 8)])
def test_unequal_spreads_and_numbers_are_no_difference(units: tuple[int, int], spread: float) -> None:
    rng, wrong, outside, exchanged = np.random.default_rng(30), 0, 0, 0
    repeats, controls = 300, 40
    for number in range(repeats):
        one, other = curves(rng, units[0]), spread * curves(rng, units[1])
        found = compare_curves(one, other)
        wrong += found.p_value <= 0.05
        outside += bool((np.abs(found.difference) > found.band(0.90)).any())
        exchanged += number < controls and by_exchanges(one, other, rng) <= 0.05
    for count, nominal in ((wrong, 0.05), (outside, 0.10)):
        most = 4.0 / 3.0 * nominal
        assert 0.3 * nominal < count / repeats < most + 3.0 * math.sqrt(most / repeats)
    if units in ((7, 4), (4, 7)) and (units[1] < units[0]) == (spread > 1.0):
        assert exchanged / controls > 0.15, "control: the smaller side has the larger spread"


def test_a_planted_difference_is_found() -> None:
    rng, found, where = np.random.default_rng(1), 0, []
    for _ in range(60):
        each = compare_curves(curves(rng, 8, planted=1.6), curves(rng, 8))
        found += each.p_value <= 0.05
        where.append(each.where)
    assert found >= 45
    assert abs(np.median(where) - 24) < 6


@pytest.mark.parametrize("repeats", [60, pytest.param(400, marks=pytest.mark.nightly)])
def test_run_lengths_are_those_that_decide(repeats: int) -> None:
    """Of an undecided verdict the length that it asks for decides four times in five."""
    rng = np.random.default_rng(2)
    first = compare_curves(curves(rng, 8), curves(rng, 8))
    delta = 0.9 * float(np.nanmax(first.band(0.90)))
    (verdict,) = decide({"a": first}, {"a": delta})
    assert verdict.answer == "undecided"
    assert verdict.longer > 1.0
    again = 0
    for _ in range(repeats):
        one, other = (curves(rng, 8) / math.sqrt(verdict.longer) for _ in range(2))
        (later,) = decide({"a": compare_curves(one, other)}, {"a": delta})
        again += later.answer == "equivalent"
    # The band is as wide everywhere as where it is widest, and so a little more is found.
    assert -3.0 * math.sqrt(0.8 * 0.2 / repeats) < again / repeats - 0.8 < 0.12


def test_equivalence_is_not_claimed_of_what_lies_outside() -> None:
    rng, wrong = np.random.default_rng(3), 0
    for _ in range(200):
        one, other = curves(rng, 8, planted=1.0), curves(rng, 8)
        (verdict,) = decide({"a": compare_curves(one, other)}, {"a": 1.0})
        wrong += verdict.answer == "equivalent"
    assert wrong / 200 <= 0.08
    (verdict,) = decide({"a": compare_curves(curves(rng, 8), curves(rng, 8))}, {"a": 10.0})
    assert verdict.answer == "equivalent"


def test_many_observables_are_not_many_chances() -> None:
    rng, wrong, alone = np.random.default_rng(4), 0, 0
    for _ in range(60):
        found = {str(each): compare_curves(curves(rng, 6), curves(rng, 6)) for each in range(8)}
        wrong += any(each.answer == "differ" for each in decide(found))
        alone += any(each.p_value <= 0.05 for each in found.values())
    assert wrong / 60 < 0.16
    assert alone / 60 > 0.2, "control: without a correction"


def test_looks_spend_what_there_is_and_no_more() -> None:
    rng = np.random.default_rng(5)
    found = {"a": compare_curves(curves(rng, 6), curves(rng, 6))}
    largest = brentq(lambda u: found["a"].exceeds(u) - 0.01, 1.0, 100.0)
    found = {"a": replace(found["a"], largest=largest)}
    assert found["a"].p_value == pytest.approx(0.01)
    answers = [decide(found, look=(look, 4))[0].answer for look in (1, 2, 3, 4)]
    assert answers == ["undecided", "undecided", "differ", "differ"]
    spent = [2 * norm.sf(norm.isf(0.025) / math.sqrt(part)) for part in (0.25, 0.5, 0.75, 1.0)]
    assert spent[-1] == pytest.approx(0.05)
    assert spent[1] - spent[0] < 0.01 < spent[2] - spent[1]
    with pytest.raises(InputError, match="look 5 of 4 is none"):
        decide(found, look=(5, 4))


def test_looks_at_runs_that_grow_are_not_as_many_chances() -> None:
    """Sixteen units that come four at a time: whoever asks each time as if it were the only one is wrong too often."""
    rng, wrong, naive, repeats = np.random.default_rng(14), 0, 0, 300
    for _ in range(repeats):
        one, other = rng.standard_normal((2, 16, 1))
        found = {look: {"a": compare_curves(one[: 4 * look], other[: 4 * look])} for look in (1, 2, 3, 4)}
        wrong += any(decide(each, look=(look, 4))[0].answer == "differ" for look, each in found.items())
        naive += any(decide(each)[0].answer == "differ" for each in found.values())
    assert wrong / repeats < 0.05 + 3.0 * 0.0126
    assert naive / repeats > 0.09, "control: each look at the whole level"


@pytest.mark.parametrize("repeats", [60, pytest.param(400, marks=pytest.mark.nightly)])
def test_a_difference_that_was_seen_takes_the_length_that_is_given(repeats: int) -> None:
    """If the difference that eight units show and leave undecided is the true one, it is found two times in three.

    Not four in five: the clearest difference is where errors happen to be small as well.
    """
    rng, decided, asked = np.random.default_rng(15), 0, 0
    while asked < repeats:
        first = compare_curves(curves(rng, 8, planted=1.0), curves(rng, 8))
        (verdict,) = decide({"a": first})
        if not verdict.longer > 1.0:
            continue
        asked += 1
        one, other = (curves(rng, 8) / math.sqrt(verdict.longer) for _ in range(2))
        one[:, first.where] += first.difference[first.where]
        (later,) = decide({"a": compare_curves(one, other)})
        decided += later.answer == "differ"
    assert abs(decided / repeats - 0.65) < 3.0 * math.sqrt(0.65 * 0.35 / repeats)


def test_points_without_values_or_noise_do_not_decide() -> None:
    rng = np.random.default_rng(6)
    one, other = curves(rng, 6), curves(rng, 6)
    one[:, 0], other[:, 0] = np.nan, 1.0
    one[:, 1] = other[:, 1] = 3.0
    found = compare_curves(one, other)
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


@pytest.mark.parametrize("repeats", [60, pytest.param(400, marks=pytest.mark.nightly)])
def test_stretches_of_a_run_are_as_long_as_it_remembers(tmp_path: Path, repeats: int) -> None:
    """A correlated series: stretches of the right length are rarely wrong, samples taken one by one mostly are."""
    rng, wrong, naive, short = np.random.default_rng(7), 0, 0, 0
    for number in range(repeats):
        one, other = series(rng, 2, 2000, 0.9).T
        runs = [recorded(tmp_path / f"{number}-{side}", each) for side, each in enumerate((one, other))]
        report = compare_runs(runs[:1], runs[1:], ["potential-energy"])
        assert "stretches of" in report.compared["potential-energy"].first.units
        short += bool(report.too_short)
        (verdict,) = report.verdicts
        wrong += verdict.answer == "differ"
        each = compare_curves(one[::2, None], other[::2, None])
        naive += each.p_value <= 0.05
    assert wrong / repeats < 0.05 + 3.0 * math.sqrt(0.05 * 0.95 / repeats)
    assert short / repeats < 0.04 + 3.0 * math.sqrt(0.04 * 0.96 / repeats)  # two tests at a level of 2 %
    assert naive / repeats > 0.3, "control: samples that remember each other, taken as independent"


def test_runs_that_are_correlated_over_all_their_length_are_not_decided(tmp_path: Path) -> None:
    drifting = np.linspace(0.0, 1.0, 200)
    runs = [recorded(tmp_path / name, drifting) for name in "ab"]
    report = compare_runs(runs[:1], runs[1:], ["potential-energy"], {"potential-energy": 10.0})
    (verdict,) = report.verdicts
    assert verdict.answer == "undecided"
    assert in_words(verdict, report).startswith("undecided; too short: the correlation time of the potential energy is")
    with pytest.raises(InputError, match=r"too short for two independent stretches: .* or 4 runs on each side"):
        compare_runs(runs[:1], runs[1:], ["potential-energy"], discard=0.1)


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
    # One run under two names, of another length for instance, is one run.
    runs[1].attributes["description"] = {"strategy": {"kind": "raw"}, "seed": 0, "length": 3.0}
    with pytest.raises(InputError, match="have one description and one seed: they are one run"):
        compare_runs(*ensembles(runs).values(), ["potential-energy"])


def scattered(folder: Path, formula: str, rng: np.random.Generator) -> list[Trajectory]:
    """Eight runs of forty atoms, anywhere in every frame."""
    cell, runs = 12.0 * np.eye(3), []
    structure = Atoms(formula, rng.random((40, 3)) @ cell, cell=cell, pbc=True)
    for number in range(8):
        (folder / str(number)).mkdir()
        runs.append(trajectory(folder / str(number), structure, rng.random((30, 40, 3)) @ cell))
    return runs


def test_curves_are_drawn_with_their_difference(tmp_path: Path) -> None:
    runs = scattered(tmp_path, "O40", np.random.default_rng(9))
    names = ["pair-distribution", "pair-moments", "displacement"]
    report = compare_runs(runs[:4], runs[4:], names, {"pair-distribution": 1e6})
    assert [each.answer for each in report.verdicts] == ["equivalent", "undecided", "undecided"]
    figure = compare_figure(report)
    assert len(figure.axes) == 6
    assert figure.axes[0].get_title(loc="left").startswith("pair-distribution: equivalent within 1e+06")
    # Every curve of both sides, and every difference.
    for name, upper, lower in zip(names, figure.axes[::2], figure.axes[1::2], strict=True):
        count = int(np.prod(report.compared[name].observable.values.shape[:-1]))
        assert len(upper.get_lines()) == 2 * count
        assert sum(len(line.get_xdata()) > 2 for line in lower.get_lines()) == count


def test_units_of_both_sides_are_of_the_same_time(tmp_path: Path) -> None:
    """Four short runs and four that are nine times as long, all of which relax from where they began."""
    rng, wrong, naive, repeats = np.random.default_rng(10), 0, 0, 24
    relaxing = 3.0 * np.exp(-np.arange(900) / 60.0)
    for number in range(repeats):
        noise = [[rng.standard_normal(length) + relaxing[:length] for _ in range(4)] for length in (100, 900)]
        sides = [
            [recorded(tmp_path / f"{number}-{len(each)}-{place}", each) for place, each in enumerate(side)]
            for side in noise
        ]
        report = compare_runs(sides[0], sides[1], ["potential-energy"])
        compared = report.compared["potential-energy"]
        assert compared.first.curves.shape == compared.second.curves.shape == (4,)
        wrong += report.verdicts[0].answer == "differ"
        means = [np.array([[each[len(each) // 10 :].mean()] for each in side]) for side in noise]
        naive += compare_curves(*means).p_value <= 0.05
    assert wrong / repeats < 0.05 + 3.0 * math.sqrt(0.05 * 0.95 / repeats)
    assert naive / repeats > 0.9, "control: whole runs, each without its own first tenth"


def moving(folder: Path, rng: np.random.Generator, spacing: float, frames: int, first: float = 0.0) -> Trajectory:
    """Ten atoms that diffuse, with frames so many fs apart from some time on."""
    folder.mkdir()
    steps = rng.normal(scale=0.1 * math.sqrt(spacing / 10.0), size=(frames, 10, 3))
    structure = Atoms("O10", rng.random((10, 3)) * 12.0, cell=12.0 * np.eye(3), pbc=True)
    positions = (structure.positions + np.cumsum(steps, axis=0))[:, None]
    numbers = np.arange(frames)
    each = Frames(numbers, first + numbers * spacing, positions, np.zeros_like(positions), {})
    write_segment(folder / "frames-000000.h5", structure, each, {})
    return read_trajectory(folder)


def test_displacements_at_different_times_are_not_compared(tmp_path: Path) -> None:
    """Frames 4.5 and 5 fs apart: as many points of the curves, and none but the first at the same time."""
    rng = np.random.default_rng(13)
    sides = [
        [moving(tmp_path / f"{spacing}-{number}", rng, spacing, 40) for number in range(4)] for spacing in (5.0, 4.5)
    ]
    options = {"displacement": {"longest": 20.0}}
    with pytest.raises(InputError, match=r"curves are compared at the same points, and those along time differ"):
        compare_runs(sides[0], sides[1], ["displacement"], options=options)
    # Control: as many points as that, which is all that used to be looked at.
    one, other = (observe(each[0], "displacement", {"longest": 20.0}) for each in sides)
    assert one.values.shape == other.values.shape
    assert one.disagreeing_axis(other) == "time"
    same = [moving(tmp_path / f"same-{number}", rng, 5.0, 40) for number in range(4)]
    assert list(compare_runs(sides[0], same, ["displacement"], options=options).compared) == ["displacement"]


def test_saved_curves_are_refused_and_runs_are_compared_at_common_lags(tmp_path: Path) -> None:
    """Curves of two lengths and of two distances of frames, saved one by one: nothing would make them alike."""
    rng, saved, runs = np.random.default_rng(25), [], []
    for number, (longest, frames) in enumerate(((50.0, 40), (100.0, 80))):
        runs.append([moving(tmp_path / f"{number}-{place}", rng, 10.0, frames) for place in range(4)])
        saved.append(tmp_path / f"{number}.nc")
        command = ["observe", runs[-1][0].name, "--observable", "displacement", "--set", f"longest={longest}"]
        shown = CliRunner().invoke(app, [*command, "-o", str(saved[-1])])
        assert shown.exit_code == 0, shown.exception
    for sides in ([saved[0], "--against", saved[1]], [saved[0], saved[1]], [runs[0][0].name, "--against", saved[0]]):
        shown = CliRunner().invoke(app, ["compare", *map(str, sides), "--observable", "displacement"])
        assert isinstance(shown.exception, InputError)
        assert re.match(
            r"'.*\.nc' holds values of mean_squared_displacement as 'goniometer observe' saved them, and no frames: "
            r"give the run itself \(.* at the same lags and of the same stretch of time\)",
            str(shown.exception),
        )
    # Of the runs themselves, which have two lengths, all is of the shorter one.
    report = compare_runs(*runs, ["displacement"])
    first, second = report.compared["displacement"].first, report.compared["displacement"].second
    assert first.curves.shape == second.curves.shape
    assert report.compared["displacement"].observable.axes["time"].values[-1] <= 400.0 / 4.0


def test_runs_are_compared_over_one_stretch_of_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(14)
    early = [moving(tmp_path / f"early-{number}", rng, 10.0, 40) for number in range(4)]
    late = [moving(tmp_path / f"late-{number}", rng, 10.0, 40, first=5000.0) for number in range(4)]
    with pytest.raises(InputError, match=r"begins at 0 ps and '.*' at 5 ps, and runs are compared over the same"):
        compare_runs(early, late, ["displacement"])
    assert compare_runs(
        late, [moving(tmp_path / f"{each}", rng, 10.0, 40, 5000.0) for each in range(4)], ["displacement"]
    )
    longer = moving(tmp_path / "longer", rng, 10.0, 400)
    assert common_window([longer, *early]) == (40.0, 400.0)
    assert len(within(longer, (40.0, 400.0))) == 36


def test_few_units_have_wide_bands_and_find_what_is_large() -> None:
    rng = np.random.default_rng(11)
    found = {str(each): compare_curves(curves(rng, 4, planted=50.0), curves(rng, 4)) for each in range(8)}
    assert {each.answer for each in decide(found)} == {"differ"}
    widths = [compare_curves(curves(rng, units), curves(rng, units)).quantile(0.95) for units in (2, 4, 8, 30)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 8.0
    assert 2.2 < widths[-1] < 3.6
    same = curves(rng, 8)
    (verdict,) = decide({"0": compare_curves(same, same)})
    assert in_words(verdict).startswith("undecided; nothing speaks for a difference")


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(12)
    runs = [recorded(tmp_path / str(each), rng.standard_normal(200)) for each in range(2)]
    with pytest.raises(InputError, match="is given twice: it is one run"):
        compare_runs(runs[:1], runs[:1], ["potential-energy"])
    with pytest.raises(InputError, match="there is no 'energy' to be equivalent in"):
        compare_runs(runs[:1], runs[1:], ["potential-energy"], {"energy": 1.0})
    with pytest.raises(InputError, match=r"nothing can be compared \(reorientation: "):
        compare_runs(runs[:1], runs[1:], ["reorientation"])
    report = compare_runs(runs[:1], runs[1:], ["potential-energy", "reorientation"])
    assert list(report.skipped) == ["reorientation"]
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


# ---- the command ----------------------------------------------------------------------------------------------------


def described(folder: Path, rng: np.random.Generator, planted: float) -> list[str]:
    """Four runs of each of two strategies, whose energies differ by so much."""
    structure = Atoms("O", [[0, 0, 0]], cell=12.0 * np.eye(3), pbc=True)
    for number in range(8):
        kind, seed = ("raw", number) if number < 4 else ("tumble", number - 4)
        energies = rng.standard_normal(200) + planted * (kind == "tumble")
        steps, still = np.arange(200), np.zeros((200, 1, 1, 3))
        frames = Frames(steps, 10.0 * steps, still, still, {"potential_energy": energies[:, None]})
        (folder / f"{kind}-{seed}").mkdir()
        description = {"strategy": {"kind": kind}, "seed": seed, "length": 2.0, "temperature": 300.0}
        write_segment(folder / f"{kind}-{seed}" / "frames-000000.h5", structure, frames, {"description": description})
    return [str(each) for each in sorted(folder.iterdir())]


def test_the_command_answers_and_draws(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    runs = described(tmp_path / "runs", np.random.default_rng(16), 0.5)
    command = ["compare", *runs, "--observable", "potential-energy"]
    page = tmp_path / "verdict.html"
    shown = CliRunner().invoke(app, [*command, "-o", str(page)])
    assert shown.exit_code == 0
    assert re.fullmatch(r"potential-energy: differ: most clearly by 0\.\d+ ± \S+, .*; 4 runs\n", shown.stdout)
    text = page.read_text("utf-8")
    assert "raw and tumble" in text
    assert "potential-energy: differ: most clearly by" in text
    shown = CliRunner().invoke(app, [*command, "--within", "potential-energy=2"])
    assert "potential-energy: equivalent within 2 (p = " in shown.stdout
    shown = CliRunner().invoke(app, [*command, "--look", "1/8"])
    assert "potential-energy: undecided; " in shown.stdout
    shown = CliRunner().invoke(app, [*command, "--within", "potential-energy=0.55"])
    assert re.search(r"undecided within 0\.55|differ", shown.stdout)


def test_the_command_gives_no_bound_of_runs_that_are_too_short(tmp_path: Path) -> None:
    rng, paths = np.random.default_rng(24), []
    structure = Atoms("O", [[0, 0, 0]], cell=12.0 * np.eye(3), pbc=True)
    for number in range(8):
        (tmp_path / str(number)).mkdir()
        energies = np.cumsum(rng.standard_normal(200)) + 100.0 * (number > 3)
        trajectory(tmp_path / str(number), structure, np.zeros((200, 1, 3)), potential_energy=energies[:, None])
        paths.append(str(tmp_path / str(number)))
    others = [word for each in paths[4:] for word in ("--against", each)]
    page, command = tmp_path / "verdict.html", ["compare", *paths[:4], *others, "--within", "potential-energy=100000"]
    command += ["--observable", "potential-energy", "--observable", "pair-distribution"]
    shown = CliRunner().invoke(app, [*command, "-o", str(page)])
    assert shown.exit_code == 0, shown.exception
    first, reason, *_ = shown.stdout.splitlines()
    assert first == "potential-energy: undecided; 4 runs"
    assert reason.startswith("nothing is decided and there is no bound, too short: the correlation time of the ")
    text = page.read_text("utf-8")
    assert "Nothing is decided and there is no bound, too short: the correlation time of the " in text
    for word in ("±", "p = ", "differ:", "equivalent within", "95 %"):
        assert word not in shown.stdout
        assert word not in text
    control = CliRunner().invoke(app, [*command, "--discard", "0.1"])
    assert "potential-energy: equivalent within" in control.stdout


def test_a_difference_is_said_with_its_place_and_a_length_in_ps(tmp_path: Path) -> None:
    rng = np.random.default_rng(17)
    axes = {"r": Axis(np.linspace(0.0, 3.9, POINTS), "Angstrom")}
    for planted, said in (
        (4.0, r"differ: most clearly by \S+ ± \S+ at r (2\.\d|3) Å, "),
        (1.0, r" ps and .* ps, would"),
    ):
        one, other = curves(rng, 8, planted=planted), curves(rng, 8)
        compared = Compared(Side(one, "8 runs"), Side(other, "8 runs"), Observable("g", "", one[0], one[0], axes))
        (verdict,) = decide({"g": compare_curves(one, other)})
        report = Report(("a", "b"), (16.0, 8.0), [verdict], {"g": compared}, {})
        assert re.search(said, in_words(verdict, report)), in_words(verdict, report)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--look", "3"], "'3' is no look: write 2/4 for the second of four"),
        (["--within", "potential-energy=small"], "'potential-energy=small' is no size: write OBSERVABLE=NUMBER"),
        (["--within", "temperature=1"], "there is no 'temperature' to be equivalent in"),
        (["--spacing", "2"], "runs have times of their own"),
        (["--set", "pair=O-H"], "'pair=O-H' is no option of an observable: write OBSERVABLE.OPTION=VALUE"),
        (["--set", "stress.every=2"], "there is no 'stress' to have options"),
        (["--set", "potential-energy.pair=O-H"], "the observable 'potential-energy' has no option 'pair'"),
        (["-o", "verdict.pdf"], "a figure ends in .png, or in .html"),
    ],
)
def test_the_command_refuses_in_a_sentence(tmp_path: Path, more: list[str], sentence: str) -> None:
    runs = described(tmp_path, np.random.default_rng(18), 0.0)
    shown = CliRunner().invoke(app, ["compare", *runs, "--observable", "potential-energy", *more])
    assert isinstance(shown.exception, InputError)
    assert sentence in str(shown.exception)


def test_one_side_alone_is_no_comparison(tmp_path: Path) -> None:
    runs = described(tmp_path, np.random.default_rng(19), 0.0)
    shown = CliRunner().invoke(app, ["compare", *runs[:4]])
    assert isinstance(shown.exception, InputError)
    assert str(shown.exception).startswith("a comparison is of two ensembles, and these runs are of 1: raw; --against")
    shown = CliRunner().invoke(app, ["compare", runs[0], "--against", runs[0], "--observable", "potential-energy"])
    assert isinstance(shown.exception, InputError)


def test_files_of_frames_have_a_side_each(tmp_path: Path) -> None:
    """Four files on each side, of which none says what it is."""
    rng, paths = np.random.default_rng(23), []
    for number in range(8):
        steps = rng.standard_normal((60, 20, 3)) * (0.1 if number < 4 else 0.2)
        positions = rng.random((20, 3)) * 12.0 + np.cumsum(steps, axis=0)
        frames = [Atoms("O20", each, cell=12.0 * np.eye(3), pbc=True) for each in positions]
        paths.append(str(tmp_path / f"{number}.xyz"))
        ase.io.write(paths[-1], frames)
    others = [word for each in paths[4:] for word in ("--against", each)]
    command = ["compare", *paths[:4], *others, "--observable", "displacement", "--spacing", "10"]
    command += ["--discard", "0.1"]  # density waves of so few atoms take longer to decay than these runs are
    shown = CliRunner().invoke(app, [*command, "--set", "displacement.longest=50"])
    assert shown.exit_code == 0, shown.exception
    assert re.match(r"displacement: differ: .* at component \S+, time \d+ fs, .*; 4 runs", shown.stdout)


def test_options_of_observables_are_heeded(tmp_path: Path) -> None:
    runs = scattered(tmp_path, "O20H20", np.random.default_rng(20))
    options = {"pair-distribution": {"pair": "O-H", "farthest": 4.0}, "displacement": {"element": "H", "longest": 50.0}}
    report = compare_runs(runs[:4], runs[4:], list(options), options=options, discard=0.1)
    assert report.compared["pair-distribution"].observable.axes["r"].values[-1] == pytest.approx(4.0, abs=0.05)
    assert report.compared["displacement"].observable.axes["time"].values.tolist() == [0, 10, 20, 30, 40, 50]
    whole = observe(runs[0], "pair-distribution", {**options["pair-distribution"], "discard": 0.1})
    np.testing.assert_allclose(report.compared["pair-distribution"].first.curves[0], whole.values)
    with pytest.raises(InputError, match=r"'temperature\.discard' has no place here: all runs are taken from one"):
        compare_runs(runs[:4], runs[4:], ["temperature"], options={"temperature": {"discard": 0.5}})


@pytest.mark.nightly
def test_packed_replicas_are_calibrated(tmp_path: Path) -> None:
    """Eight replicas of the molecule beside eight others, of one packed run: as often different as is claimed."""
    changes = {"replicas": 480, "length": 0.3, "potential.dtype": "float32"}
    (description,) = read_runs("gas-nvt", size="smoke", only=["raw"], changes=changes).values()
    packed = read_trajectory(run(description, tmp_path).folder)
    each = moments(directions(packed))  # of every replica, averaged over time
    rng, wrong, found, naive, repeats = np.random.default_rng(21), 0, 0, 0, 600
    shift = 1.7 * each.std(axis=0).max()
    for _ in range(repeats):
        one, other = each[rng.permutation(480)[:16]].reshape(2, 8, -1)
        compared = compare_curves(one, other)
        wrong += compared.p_value <= 0.05
        naive += bool((np.abs(compared.difference / compared.errors) > 1.96).any())
        planted = one.copy()
        planted[:, 3] += shift
        found += compare_curves(planted, other).p_value <= 0.05
    assert wrong / repeats < 0.05 + 4.0 * math.sqrt(0.05 * 0.95 / repeats)
    assert naive / repeats > 0.3, "control: every moment by itself"
    assert found / repeats > 0.6
