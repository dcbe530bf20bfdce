"""The heat of multiple time stepping: what linear response predicts is what kicked dynamics take up."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from ase import units
from scipy.linalg import expm, solve_continuous_lyapunov

from goniometer.errors import InputError
from goniometer.observables import observe
from goniometer.observables.heat import mts_heat, predicted_heat

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


def exact() -> float:
    """−T/(2 kT) Σ_k C″(kT) of λx⁴ by ⟨x⁴ x′⁴⟩ = 24 ρ⁴ + 72 ρ², from the correlation ρ of the position; in eV/ps."""
    times = OUTER * np.arange(0, 200)
    rho = np.array([expm(DRIFT * time) for time in times])[:, 0, 0]
    # ρ″ and ρ′² from the equation of motion of ⟨x(t) x(0)⟩, (ρ, ρ′) = e^{Dt} (1, 0).
    slope = np.array([expm(DRIFT * time) for time in times])[:, 1, 0]
    bend = -rho - GAMMA * slope
    second = 24.0 * (12.0 * rho**2 * slope**2 + 4.0 * rho**3 * bend) + 72.0 * (2.0 * slope**2 + 2.0 * rho * bend)
    return float(-1e3 * OUTER / 2.0 * LAMBDA**2 * (2.0 * second.sum() - second[0]))


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
    """Measured by kicking, predicted from the spectrum of unkicked motion, and known exactly."""
    rng = np.random.default_rng(0)
    measured, error = kicked(rng, 300, 20000)
    assert error < 0.04 * measured
    assert abs(measured - exact()) < 3.0 * error + 0.05 * exact()  # the next order: λ²⟨x²⟩²/(γ/ω₀)² is some percent
    series = LAMBDA * positions(rng, 4000, 64, OUTER / 10.0) ** 4
    predicted = predicted_heat(series, OUTER / 10.0, [OUTER], KELVIN, window=100.0)
    assert predicted.errors[0] < 0.1 * predicted.values[0]
    assert abs(predicted.values[0] - exact()) < 3.0 * predicted.errors[0] + 0.02 * exact()
    assert abs(external_noise() - measured) > 15.0 * error, "control: the force as noise that nothing depends on"
    assert external_noise() < 0.4 * exact()


