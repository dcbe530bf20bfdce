"""Starting configurations: how long a liquid stays correlated with its start, and when runs have a bound."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from scipy.signal import lfilter
from typer.testing import CliRunner

from goniometer.cli.app import app
from goniometer.comparison.runs import compare_runs
from goniometer.dynamics.description import Run, read_runs
from goniometer.dynamics.run import digest, run, structure_of
from goniometer.dynamics.starts import read_starts
from goniometer.errors import InputError
from goniometer.observables import observe
from goniometer.observables.blocks import RUNS
from goniometer.observables.equilibration import SEVERAL, discarded, equilibration, slow_series
from goniometer.observables.relaxation import SlowSeries, correlation_time
from goniometer.observables.statics import Sampled, Static
from goniometer.sampling.orbits import Orbits, sampled
from goniometer.sampling.reweighting import Part, ReweightedSide, bound, reweighted, spread
from goniometer.sampling.starting_configurations import EquilibrationPlan, equilibrate
from goniometer.studies.experiments.liquid import liquid, with_starts
from goniometer.symmetrization.crystal import lattice_elements
from goniometer.trajectories.h5md import Frames, Trajectory, read_trajectory, write_segment
from test_experiments import small_box
from test_reweighting import KT
from test_verdict import recorded

# ---- a dipole that relaxes exponentially in a spurious field --------------------------------------------------------

# Molecules, Kirkwood factor of the liquid and of the starting box, correlation time and spacing of frames in ps.
MOLECULES, KIRKWOOD, BOX, TAU, SPACING = 64, 3.7, 1.07, 10.0, 0.1
VARIANCE = MOLECULES * KIRKWOOD / 3.0
# A field whose energy scatters by 7 meV, as that of the network without augmentation.
FIELD = 7e-3 / np.sqrt(VARIANCE)
SHIFT = FIELD * VARIANCE / KT
CUBE = lattice_elements(Atoms("H", cell=9.0 * np.eye(3), pbc=True))


def relaxing(rng: np.random.Generator, length: float, start: np.ndarray, tau: float = TAU) -> np.ndarray:
    """M along a run of the unsymmetrized model: an Ornstein-Uhlenbeck process about the mean in the field, (T, 3)."""
    kept = np.exp(-SPACING / tau)
    steps = np.sqrt(VARIANCE * (1.0 - kept**2)) * rng.standard_normal((round(length / SPACING) + 1, 3))
    mean = np.array([0.0, 0.0, SHIFT])
    steps[0] = start - mean
    return np.asarray(mean + lfilter([1.0], [1.0, -kept], steps, axis=0))


def starts_of(rng: np.random.Generator, runs: int, *, one_box: bool) -> np.ndarray:
    """M at the start of each run: of one box rotated by elements of its lattice, or of the equilibrated liquid."""
    if not one_box:
        return np.array([0.0, 0.0, SHIFT]) + np.sqrt(VARIANCE) * rng.standard_normal((runs, 3))
    direction = rng.standard_normal(3)
    box = np.sqrt(MOLECULES * BOX) * direction / np.linalg.norm(direction)
    return np.einsum("rij,j->ri", CUBE[:runs], box)


def dipole(frames: Frames) -> np.ndarray:
    return frames.positions[:, 0, 1] - frames.positions[:, 0, 0]


MOMENT = Static("u", "", {}, lambda frames: dipole(frames) / MOLECULES, np.asarray)
FLUCTUATION = Static(
    "G", "", {}, lambda frames: 3.0 / MOLECULES * np.einsum("ti,tj->tij", dipole(frames), dipole(frames)), np.asarray
)
#: What averaging changes in both, exactly: the mean of u_z, and G_zz.
EXACT = (SHIFT / MOLECULES, 3.0 / MOLECULES * SHIFT**2)


def parts(runs: list[np.ndarray]) -> tuple[list[Part], list[Part]]:
    """Both observables of frames of runs in all orientations of the lattice: unsymmetrized against averaged."""
    dipoles = np.concatenate(runs)
    count = len(dipoles)
    positions = np.zeros((count, 1, 2, 3))
    positions[:, 0, 1] = dipoles
    frames = Frames(np.arange(count), np.arange(count) * 1.0, positions, np.zeros_like(positions), {})
    raw = Orbits(CUBE, -FIELD * np.einsum("cj,fj->fc", CUBE[:, 2], dipoles))
    flat = raw.invariant(np.zeros(count), None)
    weights, free = [raw.weights(300.0), flat.weights(300.0)], raw.free_energies(300.0)
    ends = np.cumsum([len(each) for each in runs])[:-1]
    found = []
    for static in (MOMENT, FLUCTUATION):
        both = sampled(frames, CUBE, weights, lambda _, static=static: static)
        plain, averaged = ([Sampled(static, each) for each in np.split(one.samples, ends)] for one in both)
        found.append(
            [
                ReweightedSide(other, -each).less(ReweightedSide(one, 0.0 * each))
                for one, other, each in zip(plain, averaged, np.split(free, ends), strict=True)
            ]
        )
    return found[0], found[1]


class Recorded(Trajectory):
    """M(t) as if a run had recorded it; the file is never needed."""

    def __init__(self, dipoles: np.ndarray, start: dict[str, object] | None = None) -> None:
        self.dipoles, self.name, self.attributes = dipoles, "synthetic", {"start": start or {}}
        self.replica, self.replicas = Atoms("H2", cell=9.0 * np.eye(3), pbc=True), 1

    def __len__(self) -> int:
        return len(self.dipoles)

    @property
    def times(self) -> np.ndarray:  # type: ignore[override]
        return 1e3 * SPACING * np.arange(len(self.dipoles))


@pytest.fixture(autouse=True)
def _synthetic(monkeypatch: pytest.MonkeyPatch) -> None:
    from goniometer.observables import equilibration as module

    of_files = module.slow_series

    def series(trajectory: Trajectory) -> list[SlowSeries]:
        if isinstance(trajectory, Recorded) and not isinstance(trajectory, Waving):
            return [SlowSeries("M", trajectory.dipoles / np.sqrt(MOLECULES), True)]
        return of_files(trajectory)

    monkeypatch.setattr(module, "slow_series", series)


def trial(
    rng: np.random.Generator, runs: int, length: float, *, one_box: bool, rule: bool, frames: int = 20
) -> list[tuple[float, float]]:
    """Relative to the exact change of both observables its estimate, and its bound, of so many runs.

    With ``rule`` what is left out and whether there is a bound is measured; else a tenth is left out of each.
    """
    about = {} if one_box else {"independent": True, "same_ensemble": True, "sha256": "a"}
    series = [
        Recorded(relaxing(rng, length, start), about | {"configuration": place})
        for place, start in enumerate(starts_of(rng, runs, one_box=one_box))
    ]
    shares, too_short = discarded(series, None if rule else 0.1)
    both = parts([each.dipoles[spread(each, frames, share)] for each, share in zip(series, shares, strict=True)])
    found = []
    for of_runs, exact in zip(both, EXACT, strict=True):
        one = reweighted(of_runs, 300.0, too_short)
        found.append((abs(float(one.values.reshape(-1)[-1])) / exact, bound(one) / exact))
    return found


def rates(
    repeats: int, seed: int, *arguments: float, **options: bool | int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of both observables the mean estimate, how often the bound is wrong, and how often there is one."""
    rng = np.random.default_rng(seed)
    found = np.array([trial(rng, *arguments, **options) for _ in range(repeats)])
    return found[:, :, 0].mean(axis=0), (found[:, :, 1] < 1.0).mean(axis=0), np.isfinite(found[:, :, 1]).mean(axis=0)


@pytest.mark.parametrize("repeats", [60, pytest.param(400, marks=pytest.mark.nightly)])
def test_runs_from_one_box_have_no_bound_and_a_tenth_left_out_gives_wrong_ones(repeats: int) -> None:
    """Seven runs of 20 ps and six of 2.5 ps; the control is a tenth left out, and runs taken as independent."""
    for runs, length, seen, wrong in ((7, 20.0, (0.87, 0.77), 0.1), (6, 2.5, (0.45, 0.18), 0.8)):
        values, of_tenth, _ = rates(repeats, 1, runs, length, one_box=True, rule=False)
        np.testing.assert_allclose(values, seen, atol=0.02 + 0.6 / np.sqrt(repeats))
        assert (of_tenth > wrong - 0.4 / np.sqrt(repeats)).all(), "control: bounds of runs that share a box"
        _, _, bounded = rates(max(4, repeats // 8), 2, runs, length, one_box=True, rule=True)
        assert (bounded == 0.0).all()


@pytest.mark.parametrize("repeats", [40, pytest.param(1000, marks=pytest.mark.nightly)])
def test_bounds_of_runs_that_are_long_enough_hold(repeats: int) -> None:
    """First order: as often as they say. Second order: half as often again or twice as often wrong, as the docs say."""
    for runs, length, one_box in ((7, 60.0, False), (8, 120.0, True)):
        values, wrong, bounded = rates(repeats, 3, runs, length, one_box=one_box, rule=True)
        assert (bounded > 0.75).all()
        np.testing.assert_allclose(values, 1.0, atol=0.02 + 0.8 / np.sqrt(repeats))
        scatter = 3.0 * np.sqrt(0.05 * 0.95 / repeats)
        assert wrong[0] < 0.05 * 4.0 / 3.0 + scatter
        assert wrong[1] < 0.11 + scatter


def test_independent_starts_of_the_ensemble_need_nothing_left_out() -> None:
    rng = np.random.default_rng(4)
    shares: dict[bool, float] = {}
    for one_box in (False, True):
        about = {} if one_box else {"independent": True, "same_ensemble": True, "sha256": "a"}
        series = [
            Recorded(relaxing(rng, 120.0, start), about | {"configuration": place})
            for place, start in enumerate(starts_of(rng, 6, one_box=one_box))
        ]
        (shares[one_box], *_), said = discarded(series)
        assert said == ""
    assert shares[False] == 0.0
    assert shares[True] == pytest.approx(SEVERAL * 12.5 / 120.0, abs=0.12)
    # Two runs from one configuration are not independent.
    twice = [Recorded(each.dipoles, {**each.attributes["start"], "configuration": 0}) for each in series]
    assert discarded(twice)[0][0] > 0.2
    # What the user chooses is taken, and is the user's to vouch for.
    assert discarded(series, 0.1) == ([0.1] * 6, "")


# ---- correlation times -----------------------------------------------------------------------------------------------


def test_the_correlation_time_of_short_runs_from_one_box_is_not_biased() -> None:
    rng, found, naive, resolved = np.random.default_rng(5), [], [], 0
    for _ in range(40):
        series = [relaxing(rng, 12.0, start) for start in starts_of(rng, 12, one_box=True)]
        each = correlation_time([SlowSeries("M", one, True) for one in series], 1e3 * SPACING)
        found.append(1e-3 * each.time)
        resolved += each.resolved  # 1/e is beyond half of a run
        about_mean = [SlowSeries("M", one - one.mean(axis=0)) for one in series]
        naive.append(1e-3 * correlation_time(about_mean, 1e3 * SPACING).time)
    assert np.median(found) == pytest.approx(TAU, rel=0.2)
    assert resolved < 10
    assert np.median(naive) < 0.5 * TAU, "control: less the mean of each run"


@pytest.mark.parametrize(
    ("length", "repeats"),
    [(150.0, 40), *(pytest.param(each, 400, marks=pytest.mark.nightly) for each in (150.0, 600.0))],
)
def test_the_upper_limit_of_a_correlation_time_is_one(length: float, repeats: int) -> None:
    rng, above, ratio = np.random.default_rng(6), 0, []
    for start in starts_of(rng, repeats, one_box=False):
        series = SlowSeries("M", relaxing(rng, length, start), True)
        found = correlation_time([series], 1e3 * SPACING)
        above += found.upper > 1e3 * TAU
        ratio.append(found.time / (1e3 * TAU))
    assert above / repeats > 0.95 - 3.0 * np.sqrt(0.05 * 0.95 / repeats)
    assert np.median(ratio) == pytest.approx(1.1, abs=0.15)


def test_a_fast_decay_does_not_hide_a_slow_one() -> None:
    """A quarter of the variance is lost at once, as by librations: the crossing alone would be at 7 ps."""
    rng = np.random.default_rng(7)
    slow = relaxing(rng, 6000.0, np.zeros(3))
    noisy = slow + np.sqrt(VARIANCE / 3.0) * rng.standard_normal(slow.shape)
    found = correlation_time([SlowSeries("M", noisy, True)], 1e3 * SPACING)
    assert 1e-3 * found.time == pytest.approx(TAU, rel=0.15)


def test_what_never_moves_or_never_relaxes_is_told_apart() -> None:
    still = [SlowSeries("M", np.zeros((50, 3)), True)]
    assert correlation_time(still, 10.0).upper == 0.0
    fixed = correlation_time([SlowSeries("M", np.ones((50, 3)), True)], 10.0)
    assert fixed.time == float("inf")
    assert not fixed.resolved
    white = SlowSeries("E", np.random.default_rng(8).standard_normal((400, 1)))
    assert correlation_time([white], 10.0).upper < 25.0


def test_a_box_without_molecules_has_its_slowest_observable(tmp_path: Path) -> None:
    """A density wave that decays slowly beside an energy that does not."""
    rng = np.random.default_rng(9)
    crystal = bulk("Ar", "fcc", a=5.3, cubic=True).repeat(2)
    wave = relaxing(rng, 200.0, np.zeros(3))[:, :1] / np.sqrt(VARIANCE)
    shape = np.sin(2.0 * np.pi * crystal.get_scaled_positions()[:, 0])
    positions = np.repeat(crystal.positions[None], len(wave), axis=0) + 0.01 * rng.standard_normal((len(wave), 32, 3))
    positions[:, :, 0] += 0.1 * wave * shape
    steps = np.arange(len(wave))
    energies = {"potential_energy": rng.standard_normal((len(wave), 1))}
    frames = Frames(steps, 100.0 * steps, positions[:, None], np.zeros_like(positions)[:, None], energies)
    write_segment(tmp_path / "frames-000000.h5", crystal, frames, {})
    found = read_trajectory(tmp_path)
    assert [each.name for each in slow_series(found)] == ["the potential energy", "the density of Ar"]
    measured = equilibration([found])
    assert measured is not None
    assert measured.name == "the density of Ar"
    assert 4.0 < 1e-3 * measured.time < 30.0


def test_molecules_of_any_kind_have_an_orientation(tmp_path: Path) -> None:
    ammonia = molecule("NH3")
    atoms = Atoms(cell=12.0 * np.eye(3), pbc=True)
    for place in range(3):
        one = ammonia.copy()
        one.positions += 4.0 * place
        atoms += one
    atoms += Atoms("Ar", [[10.0, 2.0, 2.0]])
    steps = np.arange(4)
    positions = np.repeat(atoms.positions[None, None], 4, axis=0)
    write_segment(tmp_path / "frames-000000.h5", atoms, Frames(steps, 10.0 * steps, positions, 0 * positions, {}), {})
    names = {each.name: each.values.shape for each in slow_series(read_trajectory(tmp_path))}
    assert names == {"M": (4, 3), "the density of Ar": (4, 6)}


# ---- what is left out and said ---------------------------------------------------------------------------------------


def slowly(rng: np.random.Generator, count: int, tau: float) -> np.ndarray:
    return relaxing(rng, SPACING * (count - 1), np.sqrt(VARIANCE) * rng.standard_normal(3), tau)[:, :1]


def test_an_observable_leaves_out_what_was_measured_and_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    quick = recorded(tmp_path / "quick", rng.standard_normal((400, 1)))
    found = observe(quick, "potential-energy")
    assert found.about["discarded_ps"] < 0.1
    assert "too_short" not in found.about
    slow = recorded(tmp_path / "slow", slowly(rng, 400, 10.0))
    found = observe(slow, "potential-energy")
    assert found.about["too_short"].startswith("too short: the correlation time of the potential energy is ")
    assert found.about["frames"] == 200  # half at most
    chosen = observe(slow, "potential-energy", {"discard": 0.25})
    assert chosen.about["frames"] == 300
    assert "too_short" not in chosen.about


def test_a_comparison_of_runs_that_are_too_short_is_never_equivalent(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    for tau, answer in ((0.02, "equivalent"), (20.0, "undecided")):
        runs = [recorded(tmp_path / f"{tau}-{place}", slowly(rng, 300, tau)) for place in range(12)]
        sides = runs[:6], runs[6:]
        report = compare_runs(*sides, ["potential-energy"], {"potential-energy": 1e4})
        assert report.verdicts[0].answer == answer
        assert bool(report.too_short) == (answer == "undecided")
    assert report.too_short.startswith("too short: the correlation time of the potential energy is ")
    chosen = compare_runs(*sides, ["potential-energy"], {"potential-energy": 1e4}, discard=0.1)
    assert chosen.verdicts[0].answer == "equivalent"


class Fast(Recorded):
    """A run with such a dipole along it, and an energy that has nothing to do with it."""

    def __init__(self, name: str, dipoles: np.ndarray, energy: np.ndarray) -> None:
        super().__init__(dipoles)
        self.paths, self.name, self.energy = [Path(name)], name, energy

    def chunks(self, size: int | None = None) -> Iterator[Frames]:
        still, steps = np.zeros((len(self), 1, 2, 3)), np.arange(len(self))
        yield Frames(steps, self.times, still, still, {"potential_energy": self.energy[:, None]}, None)


def dipoles_of(rng: np.random.Generator, kind: float | str, count: int = 1000, fast: float = 0.25) -> np.ndarray:
    """M of a run of so many frames: frozen, zero, with one step, or relaxing in so many times the length of the run.

    Besides it fluctuates with a correlation time of two frames and so large a part of the variance.
    """
    if isinstance(kind, str):
        slow = np.ones((count, 3)) * rng.standard_normal(3) * (kind != "zero")
        slow[round(count * rng.uniform(0.1, 0.9)) :] += rng.standard_normal(3) * (kind == "step")
    else:
        slow = relaxing(rng, SPACING * (count - 1), rng.standard_normal(3), kind * count * SPACING)
        slow = (slow - [0.0, 0.0, SHIFT]) / np.sqrt(VARIANCE)
    quick = relaxing(rng, SPACING * (count - 1), np.zeros(3), 2.0 * SPACING) - [0.0, 0.0, SHIFT]
    return np.asarray(np.sqrt(1.0 - fast) * slow + np.sqrt(fast / VARIANCE) * quick)


@pytest.mark.parametrize("repeats", [60, pytest.param(400, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("runs", [1, 2, 6])
def test_a_frozen_dipole_is_told_from_one_that_relaxes_slowly(runs: int, repeats: int) -> None:
    """Of a crystal the fluctuation decides; one that relaxes in a third to three times the run is too short still."""
    rng, frozen, long_enough = np.random.default_rng(14), {}, {}
    for kind in ("frozen", "zero", "step", 0.3, 1.0, 3.0):
        found = [equilibration([Recorded(dipoles_of(rng, kind)) for _ in range(runs)]) for _ in range(repeats)]
        frozen[kind] = float(np.mean([bool(each.frozen) for each in found]))  # type: ignore[union-attr]
        long_enough[kind] = float(np.mean([not each.reason(RUNS) for each in found]))  # type: ignore[union-attr]
    scatter = 3.0 * np.sqrt(0.05 * 0.95 / repeats)
    assert frozen["frozen"] > 0.95 - scatter  # a drift is seen in a twentieth of those that have none
    assert long_enough["frozen"] >= frozen["frozen"]
    assert frozen["zero"] < 0.02
    assert long_enough["zero"] > 0.98 - scatter  # no plateau: it decays as it should
    assert frozen["step"] < 0.05
    assert long_enough["step"] < 0.1
    for kind in (0.3, 1.0, 3.0):
        assert frozen[kind] < 0.03
        assert long_enough[kind] < 0.03


def test_a_slow_dipole_that_has_only_begun_to_grow_does_not_hide_behind_a_fast_one() -> None:
    """Six runs from a box without a dipole, ten times as long as which it relaxes, beside libration of all sizes."""
    for fast in (0.25, 0.6):
        rng, hidden, naive = np.random.default_rng(16), 0, 0
        for _ in range(40):
            runs = [dipoles_of(rng, 10.0, fast=fast) for _ in range(6)]
            found = equilibration([Recorded(each) for each in runs])
            assert found is not None
            hidden += not found.reason(RUNS)
            each = correlation_time([SlowSeries("M", one, True) for one in runs], 1e3 * SPACING)
            naive += each.resolved and 2.0 * SEVERAL * each.upper < 1e3 * SPACING * 999
        assert hidden < 8
        assert naive > 30, "control: the time at which the correlation has fallen to 1/e"


def test_results_of_a_frozen_dipole_say_for_what_they_hold() -> None:
    rng = np.random.default_rng(15)
    runs = [Fast(str(each), dipoles_of(rng, "frozen"), rng.standard_normal(1000)) for each in range(8)]
    report = compare_runs(runs[:4], runs[4:], ["potential-energy"], {"potential-energy": 0.5})
    assert report.too_short == ""
    assert report.verdicts[0].answer == "equivalent"
    assert report.frozen.startswith("M is frozen in these runs (fluctuation about the mean of each run without a drift")
    assert "holds for these values, in a molecular crystal for this order of its protons" in report.frozen
    found = observe(runs[0], "potential-energy")
    assert found.about["frozen"].startswith("M is frozen in these runs")
    assert found.about["discarded_ps"] < 2.0
    # One of them that relaxes slowly makes all of its side too short.
    runs[0] = Fast("slow", dipoles_of(rng, 1.0), rng.standard_normal(1000))
    report = compare_runs(runs[:4], runs[4:], ["potential-energy"], {"potential-energy": 0.5})
    assert report.verdicts[0].answer == "undecided"
    assert report.too_short.startswith("too short: the correlation time of M is ")


class Waving(Recorded):
    """A run from the same box as all others: one slow density wave, and an energy of which it is a small part.

    The wave relaxes from zero to the mean of its ensemble; tau is in frames.
    """

    def __init__(self, name: str, rng: np.random.Generator, count: int, tau: float, mean: float) -> None:
        super().__init__(np.zeros((count, 3)))
        self.paths, self.name = [Path(name)], name
        self.replica = Atoms("O", [[0, 0, 0]], cell=12.0 * np.eye(3), pbc=True)
        kept = np.exp(-1.0 / tau)
        steps = np.sqrt(1.0 - kept**2) * rng.standard_normal(count)
        steps[0] = -mean
        self.slow = mean + lfilter([1.0], [1.0, -kept], steps)
        self.energy = 0.3 * self.slow + rng.standard_normal(count)

    def chunks(self, size: int | None = None) -> Iterator[Frames]:
        positions = np.zeros((len(self), 1, 1, 3))
        positions[:, 0, 0, 0] = 0.05 * self.slow
        cells = np.broadcast_to(self.replica.cell.array, (len(self), 3, 3))
        energies = {"potential_energy": self.energy[:, None]}
        yield Frames(np.arange(len(self)), self.times, positions, 0.0 * positions, energies, cells)


def decided(
    count: int, tau: float, apart: float, *, runs: int, repeats: int, discard: float | None = None
) -> list[str]:
    """The answers of comparisons of ensembles that differ in the slow wave alone, for a δ of a third of that."""
    rng, answers = np.random.default_rng(13), []
    for number in range(repeats):
        sides = [
            [Waving(f"{number}-{side}-{place}", rng, count, tau, mean) for place in range(runs)]
            for side, mean in enumerate((0.0, apart))
        ]
        try:
            report = compare_runs(*sides, ["potential-energy"], {"potential-energy": 0.4}, discard=discard)
        except InputError:
            answers.append("refused")
            continue
        (verdict,) = report.verdicts
        answers.append(verdict.answer)
        assert bool(report.too_short) == bool(verdict.comparison.too_short)
        if report.too_short:
            assert np.isinf(verdict.comparison.band()).all()
            assert verdict.comparison.bound() == np.inf
            assert np.isnan([verdict.p_differ, verdict.p_outside, verdict.longer]).all()
    return answers


@pytest.mark.parametrize("runs", [1, 2, 4])
@pytest.mark.parametrize("apart", [0.0, 4.0])
def test_few_runs_are_cut_by_the_slowest_correlation_time(runs: int, apart: float) -> None:
    """Runs that share their start and are a third to three of its times long are *undecided* in both directions.

    The control are stretches by the correlation time of the energy itself, of which the slow wave is a small part.
    """
    for part in (0.3, 1.0, 3.0):
        assert decided(400, 400 * part, apart, runs=runs, repeats=8) == ["undecided"] * 8
    if runs < 4:
        control = decided(400, 80.0, apart, runs=runs, repeats=20, discard=0.1)
        assert control.count("differ") + control.count("equivalent") > 4, "control: the energy's own correlation time"


@pytest.mark.parametrize(("runs", "count"), [(1, 1600), (2, 800), (4, 400)])
def test_runs_that_are_long_enough_are_decided(runs: int, count: int) -> None:
    for apart, answer in ((0.0, "equivalent"), (4.0, "differ")):
        assert decided(count, 4.0, apart, runs=runs, repeats=8).count(answer) >= 7


def test_a_declared_correlation_time_is_a_lower_limit() -> None:
    rng = np.random.default_rng(12)
    series = [Recorded(relaxing(rng, 40.0, start, tau=0.5)) for start in starts_of(rng, 6, one_box=False)]
    assert discarded(series)[1] == ""
    told = [Recorded(each.dipoles, {"correlation_time_ps": 10.0}) for each in series]
    assert discarded(told)[1].startswith(
        "too short: the correlation time of M is 10 ps by the ensemble that the runs started from, and the shortest run"
    )


# ---- the stage ------------------------------------------------------------------------------------------------------


@cache
def _argon() -> Atoms:
    argon = bulk("Ar", "fcc", a=5.6, cubic=True).repeat(2)
    argon.rattle(0.01, seed=1)
    return argon


def argon_run(folder: Path, atoms: Atoms | None = None, **more: object) -> Run:
    ase.io.write(folder / "argon.xyz", atoms or _argon())
    # An Einstein crystal, which costs nothing.
    (folder / "springs.py").write_text(
        "from ase.calculators.calculator import Calculator, all_changes\n"
        "from ase.io import read\n"
        "class Springs(Calculator):\n"
        "    implemented_properties = ['energy', 'forces']\n"
        "    def calculate(self, atoms=None, properties=('energy',), system_changes=all_changes):\n"
        "        super().calculate(atoms, properties, system_changes)\n"
        "        off = atoms.positions - self.parameters.rest\n"
        "        self.results = {'energy': 0.5 * (off**2).sum(), 'forces': -off}\n"
        "def make():\n"
        f"    return Springs(rest=read({str(folder / 'argon.xyz')!r}).positions)\n",
        encoding="utf-8",
    )
    settings = {
        "potential": {"model": f"{folder / 'springs.py'}:make"},
        "structure": str(folder / "argon.xyz"),
        "ensemble": "nvt",
        "temperature": 100.0,
        "thermostat": {"kind": "langevin", "time": 50.0},
        "timestep": 20.0,
        "frames_every": 40.0,
        "length": 4.0,
        "checks": {"molecules": None},
    }
    return Run.model_validate({**settings, **more})


def test_configurations_are_taken_several_correlation_times_apart_and_runs_start_from_them(tmp_path: Path) -> None:
    description = argon_run(tmp_path)
    with pytest.raises(InputError, match=r"too short: the correlation time of the .* is .*takes at least .* ps"):
        equilibrate(EquilibrationPlan(description.model_copy(update={"length": 0.2}), starts=2), tmp_path / "starts")
    ensemble = equilibrate(EquilibrationPlan(description, starts=2), tmp_path / "starts")  # goes on from the short one
    record = ensemble.record
    assert record["independent"]
    assert len(ensemble) == 2
    apart = record["configurations"][1]["time_ps"] - record["configurations"][0]["time_ps"]
    assert apart >= SEVERAL * record["correlation_time_ps"] - 0.04
    written = (tmp_path / "starts" / "starts.xyz").read_bytes()
    again = equilibrate(EquilibrationPlan(description, starts=2), tmp_path / "starts")
    assert again.record == record
    assert (tmp_path / "starts" / "starts.xyz").read_bytes() == written
    with pytest.raises(InputError, match="is a starting ensemble of another description"):
        equilibrate(EquilibrationPlan(description, starts=1), tmp_path / "starts")
    # Independent run number s starts from configuration s, with velocities of its own.
    starts = {"file": str(ensemble.path)}
    short = {"starts": starts, "length": 0.08, "orientations": "random"}
    for seed in range(2):
        started = argon_run(tmp_path, **short, seed=seed)
        trajectory = read_trajectory(run(started, tmp_path).folder)
        np.testing.assert_allclose(trajectory.replica.positions, ensemble.structure(seed).positions, atol=1e-12)
        origin = trajectory.attributes["start"]
        assert origin["configuration"] == seed
        assert origin["sha256"] == record["sha256"]
        assert origin["independent"]
        assert origin["same_ensemble"]
        assert origin["correlation_time_ps"] == record["correlation_time_ps"]
    with pytest.raises(InputError, match="there are 3 independent runs and 2 starting configurations"):
        run(argon_run(tmp_path, **short, seed=2), tmp_path)
    # Another temperature is another ensemble, and a run from a structure is not independent.
    other = read_trajectory(run(argon_run(tmp_path, **short, temperature=120.0), tmp_path).folder)
    assert other.attributes["start"]["independent"]
    assert not other.attributes["start"]["same_ensemble"]
    plain = read_trajectory(run(argon_run(tmp_path, length=0.08), tmp_path).folder)
    assert plain.attributes["start"] == {"structure": str(tmp_path / "argon.xyz"), "independent": False}


def test_a_run_can_be_described_before_its_start_is_there(tmp_path: Path) -> None:
    """Its hash is the same before and after, wherever the file lies, and another ensemble is refused."""
    description = argon_run(tmp_path, length=0.2)
    plan = EquilibrationPlan(description, starts=2, allow_short=True)
    starts = {"file": str(tmp_path / "starts" / "starts.xyz"), "key": plan.key()}
    planned = argon_run(tmp_path, starts=starts, seed=1)
    before = digest(planned)
    assert before != digest(argon_run(tmp_path, seed=1)) != digest(argon_run(tmp_path, starts=starts, seed=0))
    ensemble = equilibrate(plan, tmp_path / "starts")
    assert not ensemble.record["independent"]
    assert ensemble.record["note"].startswith("too short")
    assert digest(planned) == before
    assert digest(argon_run(tmp_path, starts={"file": starts["file"]}, seed=1)) == before
    assert len(structure_of(planned)) == 32
    with pytest.raises(InputError, match="is another starting ensemble than the one described"):
        structure_of(argon_run(tmp_path, starts={**starts, "key": "000000000000"}, seed=1))
    text = ensemble.path.read_text("utf-8")
    ensemble.path.write_text(text.replace("1", "2", 1), encoding="utf-8")
    with pytest.raises(InputError, match=r"is not the file that 'starts\.json' describes"):
        read_starts(ensemble.path)
    with pytest.raises(InputError, match="goniometer equilibrate makes one"):
        read_starts(tmp_path / "nowhere.xyz")


def test_a_liquid_with_more_runs_than_configurations_is_refused_before_any_run(tmp_path: Path) -> None:
    box = small_box(tmp_path / "box.xyz")
    short = {"timestep": 0.5, "frames_every": 5.0, "length": 0.05}
    plan = EquilibrationPlan(argon_run(tmp_path, ase.io.read(box), **short), starts=2, allow_short=True)
    ensemble = equilibrate(plan, tmp_path / "starts")
    assert ensemble.record["observable"] == "M"
    options = {"starts": str(ensemble.path), "only": ("i",), "changes": {"structure": str(box), "seed": 5}}
    with pytest.raises(InputError, match="there are 3 independent runs and 2 starting configurations"):
        liquid(tmp_path / "liquid", walkers=3, **options)
    with pytest.raises(InputError, match="have other atoms or another cell than 'ice'"):
        liquid(tmp_path / "liquid", walkers=2, **{**options, "changes": {"structure": "ice"}})
    assert not (tmp_path / "liquid").exists()
    changes = with_starts({"structure": str(box), "seed": 5}, str(ensemble.path), "smoke")
    (started,) = read_runs("liquid-nvt", size="smoke", only=("raw",), changes={**changes, "seed": 6}).values()
    assert started.configuration == 1
    np.testing.assert_allclose(structure_of(started).positions, ensemble.structure(1).positions)


def test_the_command_equilibrates(tmp_path: Path) -> None:
    description = argon_run(tmp_path, length=0.2).model_dump(mode="json", exclude={"starts"})
    (tmp_path / "argon.yaml").write_text(json.dumps(description), encoding="utf-8")
    command = ["equilibrate", str(tmp_path / "argon.yaml"), "--starts", "1", "-o", str(tmp_path / "starts")]
    shown = CliRunner().invoke(app, command)
    assert isinstance(shown.exception, InputError)
    assert str(shown.exception).startswith("too short: the correlation time of the")
    shown = CliRunner().invoke(app, [*command, "--allow-short"])
    assert shown.exit_code == 0, shown.exception
    assert "1 configurations" in shown.stdout or "1 configuration" in shown.stdout
    assert "they are not independent, too short" in shown.stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"starts": 0}, "wanted are one or more of both"),
        ({"several": 1.0}, "configurations 1 correlation times apart are not independent"),
    ],
)
def test_plans_that_cannot_be_are_refused(tmp_path: Path, changes: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EquilibrationPlan(argon_run(tmp_path), **changes)
