"""The heat of multiple time stepping: what linear response predicts is what kicked dynamics take up."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from ase import units
from scipy.linalg import expm, solve_continuous_lyapunov
from typer.testing import CliRunner

from goniometer.cli.app import app
from goniometer.dynamics.description import Run
from goniometer.dynamics.run import run
from goniometer.errors import InputError
from goniometer.observables import observe
from goniometer.observables.heat import predicted_heat
from goniometer.potentials.base import placed
from goniometer.potentials.loading import load
from goniometer.symmetrization import response
from goniometer.trajectories.h5md import read_trajectory

# A Langevin oscillator in the units of the package: ω₀ = 1/fs, kT = 1 eV, and a mass of 1 eV fs²/Å².
GAMMA, KELVIN = 0.2, 1.0 / units.kB
#: ΔV = λ x⁴, kicked four times a period: Ω = 4 ω₀.
LAMBDA, OUTER = 2e-3, math.pi / 2.0
DRIFT = np.array([[0.0, 1.0], [-1.0, -GAMMA]])


def propagator(time: float) -> tuple[np.ndarray, np.ndarray]:
    """Of (x, v) over a time: the matrix, and a root of the covariance of the noise; exact for any time."""
    matrix = expm(DRIFT * time)
    stationary = solve_continuous_lyapunov(DRIFT, np.diag([0.0, -2.0 * GAMMA]))
    return matrix, np.linalg.cholesky(stationary - matrix @ stationary @ matrix.T)


def positions(rng: np.random.Generator, times: int, replicas: int, spacing: float) -> np.ndarray:
    """x of oscillators in equilibrium that are not kicked, (T, R)."""
    matrix, noise = propagator(spacing)
    state, found = rng.standard_normal((2, replicas)), np.empty((times, replicas))
    for time in range(times):
        found[time] = state[0]
        state = matrix @ state + noise @ rng.standard_normal((2, replicas))
    return found


def kicked(rng: np.random.Generator, steps: int, replicas: int, strength: float = LAMBDA) -> tuple[float, float]:
    """The mean power of the kicks by −dΔV/dx every OUTER, in eV/ps, and its standard error."""
    matrix, noise = propagator(OUTER)
    state, work = rng.standard_normal((2, replicas)), np.zeros(replicas)
    for step in range(steps + 10):
        before = state[1] ** 2
        state[1] -= OUTER * 4.0 * strength * state[0] ** 3
        if step >= 10:  # ten steps, three times 1/γ, until the response to the first kicks is stationary
            work += (state[1] ** 2 - before) / 2.0
        state = matrix @ state + noise @ rng.standard_normal((2, replicas))
    power = 1e3 * work / (steps * OUTER)
    return float(power.mean()), float(power.std(ddof=1) / math.sqrt(replicas))


def exact(power: int, outer: float, strength: float = LAMBDA) -> float:
    """−T/(2 kT) Σ_k C″(kT) in eV/ps, the same sum in the time domain: of ΔV = λx⁴ or λx², by ρ(t) = ⟨x(t) x(0)⟩.

    ⟨x⁴ x′⁴⟩ − ⟨x⁴⟩² = 24 ρ⁴ + 72 ρ² and ⟨x² x′²⟩ − ⟨x²⟩² = 2 ρ².
    """
    rho, slope = np.array([expm(DRIFT * outer * each)[:, 0] for each in range(200)]).T
    bend = -rho - GAMMA * slope  # the equation of motion
    second = 4.0 * (slope**2 + rho * bend)
    if power == 4:
        second = 24.0 * (12.0 * rho**2 * slope**2 + 4.0 * rho**3 * bend) + 36.0 * second
    return float(-1e3 * outer / 2.0 * strength**2 * (2.0 * second.sum() - second[0]))


def external_noise() -> float:
    """The formula that this one replaces, (1/2m) Σ_{n ≠ 0} S_f(ω₀ + nΩ): kicks that do not depend on where they act."""
    times = np.linspace(0.0, 100.0, 200001)
    decay, frequency = np.exp(-GAMMA * times / 2.0), math.sqrt(1.0 - GAMMA**2 / 4.0)
    rho = decay * (np.cos(frequency * times) + GAMMA / (2.0 * frequency) * np.sin(frequency * times))
    force = (4.0 * LAMBDA) ** 2 * (9.0 * rho + 6.0 * rho**3)
    shifted = 1.0 + 2.0 * math.pi / OUTER * np.array([-2, -1, 1, 2])
    density = [2.0 * np.trapezoid(force * np.cos(each * times), times) for each in shifted]
    return 1e3 * 0.5 * sum(density)


def test_linear_response_predicts_the_heat_and_external_noise_does_not() -> None:
    """Measured by kicking, predicted from the spectrum of motion without kicks, and known exactly."""
    rng, known = np.random.default_rng(0), exact(4, OUTER)
    measured, error = kicked(rng, 300, 20000)
    assert error < 0.04 * measured
    assert abs(measured - known) < 3.0 * error + 0.02 * known  # of the next order in λ
    spacing = OUTER / 8.0
    predicted = predicted_heat(LAMBDA * positions(rng, 1000, 1000, spacing) ** 4, spacing, [OUTER], KELVIN, window=90.0)
    assert predicted.errors[0] < 0.15 * predicted.values[0]
    assert abs(predicted.values[0] - known) < 3.0 * predicted.errors[0]
    assert predicted.about["last_term_share"] < 0.05
    assert abs(external_noise() - measured) > 15.0 * error, "control: the force as noise that nothing depends on"
    assert external_noise() < 0.4 * known


def test_errors_of_the_prediction_are_those_of_its_scatter() -> None:
    """Of several replicas, and of one long series each."""
    outer, spacing = math.pi, math.pi / 8.0
    known = exact(2, outer)
    series = LAMBDA * positions(np.random.default_rng(1), 4000, 800, spacing) ** 2
    for replicas, part in ((16, series), (1, series[:, :200])):
        parts = np.split(part, part.shape[1] // replicas, 1)
        found = [predicted_heat(each, spacing, [outer], KELVIN, window=110.0) for each in parts]
        values, errors = (
            np.array([float(each[0]) for each in pair])
            for pair in zip(*((f.values, f.errors) for f in found), strict=True)
        )
        # Of 50 parts the scatter is known to a tenth; that of the skewed estimates of single series a little worse.
        assert 0.75 < values.std(ddof=1) / errors.mean() < 1.3
        assert np.mean(np.abs(values - known) < 2.0 * errors) > 0.8
        assert abs(values.mean() / known - 1.0) < 0.06
    resolved, smeared = (predicted_heat(series, spacing, [outer], KELVIN, window=each) for each in (110.0, 30.0))
    assert abs(resolved.about["half_window_ratio"] - 1.0) < 0.1
    assert smeared.about["half_window_ratio"] < 0.85, "control: windows that do not resolve the line at 2 ω₀"
    assert float(smeared.values[0]) < 0.85 * known


def test_steps_that_frames_do_not_resolve_are_refused() -> None:
    series = np.random.default_rng(2).normal(size=(1000, 2))
    with pytest.raises(InputError, match=r"an outer time step of 5 fs takes frames at a third of it or less"):
        predicted_heat(series, 2.5, [5.0], 300.0)
    with pytest.raises(InputError, match=r"and these are 1\.5 fs apart"):
        predicted_heat(series, 1.5, [5.0], 300.0)
    with pytest.raises(InputError, match=r"1000 frames 0\.25 fs apart are shorter than a window of 500 fs"):
        predicted_heat(series, 0.25, [5.0], 300.0)
    # White noise has most of its heat in the fastest term, which says that frames are too far apart.
    assert predicted_heat(series, 1.0, [5.0], 300.0).about["last_term_share"] > 0.6
    assert np.isnan(predicted_heat(series[:500, :1], 1.0, [5.0], 300.0).errors).all()


def test_the_heat_of_a_run_is_that_of_its_corrections(tmp_path: Path) -> None:
    description = {"potential": {"model": "pet-water-unaugmented"}, "replicas": 8, "orientations": "random"}
    description |= {"ensemble": "nvt", "thermostat": {"kind": "langevin"}, "length": 0.04, "frames_every": 0.5}
    raw = read_trajectory(run(Run.model_validate(description), tmp_path, name="raw").folder)
    told: list[int] = []
    options = {"outer": [2.0, 3.0], "over": "i", "window": 12.0, "discard": 0.2}
    found = observe(raw, "mts-heat", options, lambda done, whole, what: told.append(done))
    assert found.axes["outer_step"].values.tolist() == [2.0, 3.0]
    assert told[-1] == len(raw) - int(0.2 * len(raw))
    model = load("pet-water-unaugmented")
    late = raw.frames().positions[int(0.2 * len(raw)) :]
    correction = np.empty(late.shape[:2])
    for time, each in enumerate(late):
        for replica, positions_now in enumerate(each):
            energies = response(model, placed(raw.replica, positions_now), np.stack([np.eye(3), -np.eye(3)])).energies
            correction[time, replica] = (energies[1] - energies[0]) / 2.0
    by_hand = predicted_heat(correction, 0.5, [2.0, 3.0], 300.0, 12.0)
    np.testing.assert_allclose(found.values, by_hand.values, rtol=1e-3)
    assert (found.errors > 0.0).all()
    shown = CliRunner().invoke(
        app, ["observe", str(raw.name), "--observable", "mts-heat", "--set", "over=i", "--set", "window=20.0"]
    )
    assert shown.exit_code == 0, shown.exception
    assert shown.stdout.startswith("predicted_heat 5.0 = ")
    with pytest.raises(InputError, match=r"'outer' is a positive time in fs, or a list of them, not -1\.0"):
        observe(raw, "mts-heat", {"outer": -1.0})
    description |= {"strategy": {"kind": "mts", "ratio": 2}, "frames_every": 1.0, "length": 0.002}
    kicked_run = read_trajectory(run(Run.model_validate(description), tmp_path, name="mts").folder)
    with pytest.raises(InputError, match="has the strategy mts, and heat is predicted from dynamics without kicks"):
        observe(kicked_run, "mts-heat")
