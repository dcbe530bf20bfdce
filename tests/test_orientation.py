"""Orientations: exact free energies by dynamics and without, and a test of uniformity that keeps its promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from scipy.stats import binom

from goniometer import load, rule
from goniometer.dynamics.description import Run
from goniometer.dynamics.run import run
from goniometer.errors import InputError
from goniometer.observables.orientation import (
    DirectionalResponse,
    agreement,
    directions,
    free_energy,
    moments,
    response,
    reweighted_free_energy,
    uniformity,
)
from goniometer.trajectories.h5md import Trajectory, read_trajectory
from springs import Springs

KT = units.kB * 300.0


def uniform(shape: tuple[int, ...], seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((*shape, 3))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def persistent(times: int, replicas: int, seed: int) -> np.ndarray:
    """Uniform directions that each last for ten times: a naive test would see ten times the data."""
    return np.repeat(uniform((times // 10, replicas), seed), 10, axis=0)


def smoothed(strength: float, kernel: float = 0.1, points: int = 101) -> np.ndarray:
    """−ln 4πP of P ∝ exp(−s cos²θ / 2) over cos θ, by the kernel with mirrored walls, from quadrature."""
    fine = np.linspace(-1.0, 1.0, 4001)
    weight = np.exp(-0.5 * strength * fine**2)
    weight /= np.trapezoid(weight, fine) / 2.0
    at = np.linspace(-1.0, 1.0, points)[:, None]
    images = sum(np.exp(-0.5 * ((at - image) / kernel) ** 2) for image in (fine, 2.0 - fine, -2.0 - fine))
    return -np.log(np.trapezoid(images * weight, fine, axis=1) / (np.sqrt(2.0 * np.pi) * kernel))


def test_moments_of_a_fixed_direction_are_those_of_legendre_polynomials() -> None:
    along = np.broadcast_to([0.0, 0.0, 1.0], (3, 2, 3))
    found = moments(along, 4)
    assert found.shape == (2, 24)
    expected = [np.sqrt(2 * ell + 1) if m == 0 else 0.0 for ell in range(1, 5) for m in range(-ell, ell + 1)]
    np.testing.assert_allclose(found, [expected] * 2, atol=1e-12)
    many = moments(uniform((20000, 2), 0), 3)
    assert np.abs(many).max() < 5.0 / np.sqrt(20000)


def test_uniform_directions_are_refused_as_often_as_the_test_says() -> None:
    refused = sum(uniformity(persistent(100, 80, seed)) < 0.05 for seed in range(200))
    low, high = binom.interval(0.999, 200, 0.05)
    assert low <= refused <= high


def test_uniformity_needs_no_long_replicas() -> None:
    """One direction of each replica: moments are far from normal, and Hotelling's test refuses 63 % of them."""
    refused = sum(uniformity(uniform((1, 40), seed)) < 0.05 for seed in range(300))
    low, high = binom.interval(0.999, 300, 0.05)
    assert low <= refused <= high


def test_a_test_that_takes_times_for_independent_refuses_too_often() -> None:
    """The control."""
    refused = sum(uniformity(persistent(100, 8, seed).reshape(1, -1, 3)) < 0.05 for seed in range(50))
    assert refused > 25


def test_a_preferred_direction_is_found() -> None:
    vectors = uniform((100, 80), 0)
    vectors[..., 2] += 0.1
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    assert uniformity(vectors) < 1e-6


def test_the_free_energy_of_uniform_directions_is_zero_within_its_error() -> None:
    found = free_energy(uniform((400, 40), 1), discard=0.0)
    assert found.values.shape == (101, 201)
    inner = np.abs(found.values / found.errors)
    assert 0.3 < np.mean(inner < 1.0) < 0.95
    assert np.abs(found.values).max() < 6.0 * found.errors.max()
    assert abs(np.mean(np.exp(-found.values[:, :-1])) - 1.0) < 0.01


def reweighted(strength: float, geometries: int = 40, transposed: bool = False, sign: float = 1.0):
    """A rotor along u in the potential s (u·z)² / 2 kT, its geometries turned at random and by a rule."""
    over = rule("gauss:9")
    start = uniform((geometries,), 3)
    turned = np.einsum("kij,gj->gki", over.matrices, start)
    energies = 0.5 * sign * strength * turned[..., 2] ** 2
    average = energies @ over.weights
    if transposed:
        turned = np.einsum("kji,gj->gki", over.matrices, start)
    return reweighted_free_energy(turned, energies - average[:, None], over.weights)


@pytest.mark.parametrize("strength", [0.5, 2.0, -2.0])
def test_the_response_gives_the_exact_free_energy_of_a_rotor(strength: float) -> None:
    found = reweighted(strength)
    exact = smoothed(strength)[:, None]
    assert np.abs(found.values - exact).max() < 0.05 * max(1.0, np.ptp(exact))
    assert np.sqrt(np.mean((found.values - exact) ** 2)) < 0.01 * max(1.0, np.ptp(exact))


def test_a_wrong_sign_or_rotation_does_not() -> None:
    """The controls."""
    exact = smoothed(2.0)[:, None]
    assert np.sqrt(np.mean((reweighted(2.0, sign=-1.0).values - exact) ** 2)) > 0.3
    assert np.sqrt(np.mean((reweighted(2.0, transposed=True).values - exact) ** 2)) > 0.1


def test_an_isotropic_potential_gives_exactly_nothing() -> None:
    np.testing.assert_allclose(reweighted(0.0).values, 0.0, atol=1e-12)


DIATOMIC = Atoms("OH", [[0.0, 0.0, 0.0], [0.97, 0.0, 0.0]])


def rotor(field: float, tmp_path: Path, thermostat: dict | None = None) -> np.ndarray:
    """Directions of a diatomic molecule by Langevin dynamics, from uniform ones at the start."""
    return directions(rotors(field, tmp_path, thermostat), [-1.0, 1.0])[25:]


def rotors(field: float, tmp_path: Path, thermostat: dict | None = None, **more: Any) -> Trajectory:
    tmp_path.mkdir(exist_ok=True)
    DIATOMIC.write(tmp_path / "diatomic.xyz")
    settings = {
        "structure": str(tmp_path / "diatomic.xyz"),
        "orientations": "random",
        "replicas": 300,
        "ensemble": "nvt",
        "thermostat": thermostat or {"kind": "langevin", "time": 50.0},
        "length": 2.0,
        "timestep": 1.0,
        "frames_every": 20.0,
        "checks": {"temperature": None, "energy": None, "molecules": None},
        **more,
    }
    folder = run(Run.model_validate(settings), tmp_path, potential=Springs(DIATOMIC, 5.0, field)).folder
    return read_trajectory(folder)


def test_dynamics_give_the_exact_free_energy_of_a_rotor(tmp_path: Path) -> None:
    strength = 2.0
    vectors = rotor(strength * KT, tmp_path)
    found, exact = free_energy(vectors, discard=0.0), smoothed(strength)[:, None]
    # The studentized maximum over the grid, calibrated by the replicas: here against five standard errors of 20000
    # points that are worth some 200.
    assert np.abs((found.values - exact) / found.errors).max() < 5.0
    assert np.ptp(exact) > 0.8
    assert uniformity(vectors) < 1e-6


def test_dynamics_agree_with_the_response_on_geometries_of_the_average(tmp_path: Path) -> None:
    strength = 0.7
    free = rotors(0.0, tmp_path / "free")
    found = response(free, Springs(DIATOMIC, 5.0, strength * KT), rule("gauss:5"), 300.0, weights=[-1.0, 1.0])
    assert found.evaluations < 300 * 2000 / 90
    vectors = rotor(strength * KT, tmp_path / "field")
    assert agreement(vectors, found) > 1e-3
    # The controls: another field, and another sign of this one.
    assert agreement(rotor(0.0, tmp_path / "free"), found) < 1e-6
    assert agreement(vectors, DirectionalResponse(found.vectors, -found.corrections, found.weights)) < 1e-6
    assert np.abs(found.free_energy().values - smoothed(strength)[:, None]).max() < 0.03


def test_agreement_is_refused_as_often_as_it_says() -> None:
    over = rule("gauss:5")
    refused = 0
    for seed in range(200):
        vectors = np.einsum("kij,gj->gki", over.matrices, uniform((60,), seed))
        corrections = 0.3 * np.random.default_rng(seed).standard_normal(60)[:, None] * vectors[..., 2]
        found = DirectionalResponse(vectors, corrections, over.weights)
        refused += agreement(persistent(100, 80, 1000 + seed), found) < 0.05
    assert binom.ppf(1e-3, 200, 0.03) <= refused <= binom.ppf(0.999, 200, 0.05)


def test_without_a_field_the_directions_are_uniform(tmp_path: Path) -> None:
    assert uniformity(rotor(0.0, tmp_path)) > 1e-3


@pytest.mark.parametrize("outer", ["average", pytest.param("random", marks=pytest.mark.nightly)])
def test_multiple_time_steps_of_ratio_ten_have_the_distribution_of_the_average(outer: str, tmp_path: Path) -> None:
    """The raw rotor in this field, two tests above, is the control."""
    strategy = {"kind": "mts", "rule": "octahedral", "ratio": 10, "outer": outer}
    found = rotors(2.0 * KT, tmp_path, strategy=strategy)
    assert uniformity(directions(found, [-1.0, 1.0])[25:]) > 1e-3
    # ½ kT of the stretch, and the mean ε/6 of the field over all directions.
    stretch = found.frames().observables["potential_energy"][25:].mean(axis=0)
    assert abs(stretch.mean() - 0.5 * KT - 2.0 * KT / 6.0) < 4.0 * stretch.std() / np.sqrt(len(stretch))


@pytest.mark.nightly
def test_velocity_rescaling_of_the_rotor_does_not_sample_the_field(tmp_path: Path) -> None:
    """The control: the norm of each angular momentum hardly changes its direction, so that not all is visited."""
    vectors = rotor(2.0 * KT, tmp_path, {"kind": "svr", "time": 50.0})
    found, exact = free_energy(vectors, discard=0.0), smoothed(2.0)[:, None]
    assert np.abs((found.values - exact) / found.errors).max() > 5.0


def test_directions_in_the_frame_of_the_model(tmp_path: Path) -> None:
    settings = {"strategy": {"kind": "tumble"}, "replicas": 2, "length": 0.02, "frames_every": 2.0}
    trajectory = read_trajectory(run(Run.model_validate(settings), tmp_path).folder)
    there, here = directions(trajectory, frame="model"), directions(trajectory)
    frames = trajectory.frames().observables["frame"]
    np.testing.assert_allclose(there, np.einsum("trij,trj->tri", frames, here), atol=1e-12)
    water = trajectory.frames().positions[3, 1]
    order = trajectory.replica.numbers
    axis = water[order == 1].mean(axis=0) - water[order == 8][0]
    np.testing.assert_allclose(here[3, 1], axis / np.linalg.norm(axis), atol=1e-12)


def test_what_directions_refuse(tmp_path: Path) -> None:
    settings = {"length": 0.01}
    trajectory = read_trajectory(run(Run.model_validate(settings), tmp_path).folder)
    with pytest.raises(InputError, match="records no frame of the model"):
        directions(trajectory, frame="model")
    with pytest.raises(InputError, match="takes 3 weights, one an atom, that sum to zero"):
        directions(trajectory, [1.0, 1.0, 1.0])
    with pytest.raises(InputError, match="the frame is 'laboratory' or 'model', not 'mine'"):
        directions(trajectory, frame="mine")
    with pytest.raises(InputError, match="a direction takes proper rotations"):
        response(trajectory, load("pet-water"), rule("legendre:2", inversion=True), 300.0)
    with pytest.raises(InputError, match="takes 26 replicas or more, not 1"):
        uniformity(directions(trajectory))


def test_turned_directions_turn_the_free_energy() -> None:
    """A field along x instead of z: what was at the poles is at φ = 0 and ±π."""
    over, start = rule("gauss:9"), uniform((40,), 3)
    turned = np.einsum("kij,gj->gki", over.matrices, start)
    energies = turned[..., 0] ** 2
    found = reweighted_free_energy(turned, energies - (energies @ over.weights)[:, None], over.weights)
    equator = found.values[50]
    assert equator[100] == pytest.approx(equator[0], abs=0.05)
    assert equator[100] - equator[50] > 0.6
