"""Observables of isolated molecules: known answers, and what they refuse."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray
from ase import Atoms, units
from ase.io import read

from goniometer import load, symmetrize
from goniometer.cli.commands.observe import shown
from goniometer.dynamics.description import Run
from goniometer.dynamics.run import run
from goniometer.errors import InputError
from goniometer.observables.gas import (
    angular_momentum,
    by_grid,
    correction_spectrum,
    drift,
    potential_spectrum,
    power_spectrum,
)
from goniometer.observables.result import Axis, Observable
from goniometer.potentials.base import placed
from goniometer.structures import read_structures
from goniometer.trajectories.h5md import Frames, Trajectory, read_trajectory, write_segment

WATER = read_structures("molecule")[0].atoms


#: Of the packaged models the one that prefers directions the most: there is something to see.
NAME = "pet-water-unaugmented"


def stored(path: Path, positions: np.ndarray, velocities: np.ndarray, spacing: float, **observables) -> Trajectory:
    """A trajectory of water in two segments."""
    steps = np.arange(len(positions))
    for number, part in enumerate((slice(0, 3), slice(3, None))):
        frames = Frames(
            steps[part],
            spacing * steps[part],
            positions[part],
            velocities[part],
            {name: values[part] for name, values in observables.items()},
        )
        write_segment(path / f"frames-{number:06d}.h5", WATER, frames, {})
    return read_trajectory(path)


def flat() -> np.ndarray:
    """Water about its centre of mass in the plane z = 0, for which z is a principal axis."""
    return (WATER.positions - WATER.get_center_of_mass()) * [1.0, 1.0, 0.0]


def spinning(path: Path, rate: float = 0.02, count: int = 9) -> Trajectory:
    """Water that turns about z by ``rate`` rad/fs as a rigid body, and drifts; the second replica rests."""
    angles = rate * 2.0 * np.arange(count)
    turns = np.stack([[[np.cos(a), np.sin(a), 0], [-np.sin(a), np.cos(a), 0], [0, 0, 1]] for a in angles])
    centred = flat()
    arms = centred @ turns
    moving, speed = np.array([0.1, 0.2, 0.3]), rate * np.cross([0.0, 0.0, 1.0], arms)
    places = arms + 7.0 + 2.0 * np.arange(count)[:, None, None] * moving
    positions = np.stack([places, np.broadcast_to(centred, places.shape)], axis=1)
    velocities = np.stack([speed + moving, np.zeros_like(speed)], axis=1)
    return stored(path, positions, velocities, 2.0)


def test_the_angular_momentum_of_a_rigid_body_is_inertia_times_rate(tmp_path: Path) -> None:
    found = angular_momentum(spinning(tmp_path))
    masses, centred = WATER.get_masses(), flat()
    inertia = (masses * (centred[:, 0] ** 2 + centred[:, 1] ** 2)).sum()
    expected = 0.02 * inertia / units.fs**2  # eV fs, 1 eV being so many u Å²/fs²
    assert found.values.shape == (9, 2, 4)
    np.testing.assert_allclose(found.values[:, 0, 2], expected, rtol=1e-10)
    np.testing.assert_allclose(found.values[:, 0, 3], np.linalg.norm(found.values[:, 0, :3], axis=-1), rtol=1e-12)
    np.testing.assert_allclose(found.values[:, 1], 0.0, atol=1e-12)
    assert found.about["largest_change"] == pytest.approx(0.0, abs=1e-9)
    assert expected == pytest.approx(2.0 * inertia, rel=0.05)  # 0.02 × 103.6


def test_a_drift_is_the_slope_that_was_put_in(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    still = np.zeros((400, 2, 3, 3)) + WATER.positions
    energies = 5.0 + 2.0 * 3e-6 * 2.0 * np.arange(400) + 1e-4 * rng.standard_normal(400)
    found = drift(stored(tmp_path, still, still, 2.0, conserved_energy=energies))
    assert found.unit == "eV/ps"
    assert abs(found.values - 3e-3) < 4.0 * found.errors
    assert found.errors < 1e-4


def test_a_power_spectrum_holds_the_variance_at_its_wavenumber() -> None:
    times = 0.5 * np.arange(8000)
    wavenumbers = np.array([400.0, 1600.0] * 4)
    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, 8)
    series = 0.3 * np.sin(2.0 * np.pi * 2.99792458e-5 * wavenumbers * times[:, None] + phases) + 12.0
    found = power_spectrum(series, 0.5)
    grid, density = found.axes["wavenumber"].values, found.values
    assert np.trapezoid(density, grid) == pytest.approx(0.5 * 0.3**2, rel=0.02)
    for wavenumber in (400.0, 1600.0):
        near = np.abs(grid - wavenumber) < 100.0
        assert np.trapezoid(density[near], grid[near]) == pytest.approx(0.25 * 0.3**2, rel=0.05)
        assert grid[near][np.argmax(density[near])] == pytest.approx(wavenumber, abs=2.0 * grid[1])
    assert np.isfinite(found.errors).all()
    assert np.isnan(power_spectrum(series[:, :2], 0.5).errors).all()


def gas(strategy: dict, folder: Path, **settings) -> Trajectory:
    description = {"potential": {"model": NAME}, "strategy": strategy, "replicas": 3, "orientations": "random"}
    description = {**description, "length": 0.1, "frames_every": 2.0}
    return read_trajectory(run(Run.model_validate({**description, **settings}), folder).folder)


def test_an_average_conserves_what_the_model_does_not(tmp_path: Path) -> None:
    raw = angular_momentum(gas({"kind": "raw"}, tmp_path)).about
    averaged = angular_momentum(gas({"kind": "average", "rule": "octahedral"}, tmp_path)).about
    assert averaged["largest_change"] < 1e-2 * raw["largest_change"]
    assert raw["rms_change"] > 0.1


def test_the_correction_of_a_run_with_multiple_time_steps_has_a_spectrum(tmp_path: Path) -> None:
    trajectory = gas({"kind": "mts", "rule": "tetrahedral", "ratio": 4}, tmp_path)
    correction, whole = correction_spectrum(trajectory), potential_spectrum(trajectory)
    assert 0.0 < correction.values.sum() < whole.values.sum()


def test_every_grid_leaves_what_the_single_evaluations_say(tmp_path: Path) -> None:
    trajectory = gas({"kind": "raw"}, tmp_path, replicas=8, length=0.02)
    model = load(NAME, dtype="float64", batch=64)
    found = by_grid(trajectory, model, ("none", "i", "T", "3i"), frames=3)
    assert found.values.shape == (4, 3)
    positions = trajectory.frames().positions[[0, 5, 10]].reshape(-1, 3, 3)
    fine = symmetrize(model, "legendre:3")
    torques, energies, forces = [], [], []
    for each in positions:
        raw, averaged = (potential.predict(placed(WATER, each)) for potential in (model, fine))
        torques.append(np.cross(each - each.mean(axis=0), raw.forces[0]).sum(axis=0))
        energies.append(abs(raw.energies[0] - averaged.energies[0]))
        forces.append(np.abs(raw.forces[0] - averaged.forces[0]).mean())
    expected = [np.sqrt(np.mean(np.sum(np.square(torques), axis=1))), np.mean(energies), np.mean(forces)]
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-8)
    assert (found.values[2, 1:] < 0.2 * found.values[0, 1:]).all()
    assert (found.values[3, 1:] == 0.0).all()
    assert (found.errors[0] > 0.0).all()
    assert (found.errors[0] < found.values[0]).all()
    with pytest.raises(InputError, match="there is no grid '4'; there are none, i, 2"):
        by_grid(trajectory, model, ["4"])


def test_what_observables_refuse(tmp_path: Path) -> None:
    trajectory = spinning(tmp_path)
    with pytest.raises(InputError, match="has no potential_energy: it is not that kind of run"):
        potential_spectrum(trajectory)
    with pytest.raises(InputError, match="takes 16 times or more, not 9"):
        power_spectrum(np.zeros((9, 2)), 1.0)
    trajectory.replica.pbc = True
    with pytest.raises(InputError, match="is periodic"):
        angular_momentum(trajectory)


def observed(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "goniometer.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_has_no_error_is_shown_without_one() -> None:
    found = Observable("x", "Angstrom^2", np.array([1.5, 2.0]), np.array([np.nan, 0.25]), {"t": Axis(np.arange(2))})
    assert shown(found) == ["x 0 = 1.5 Å²", "x 1 = 2 ± 0.25 Å²"]
    assert shown(replace(found, errors=np.full(2, np.nan)))[1] == "x 1 = 2 Å²"


def test_the_commands_write_what_the_library_finds(tmp_path: Path) -> None:
    trajectory = spinning(tmp_path)
    done = observed("observe", tmp_path, "--observable", "angular-momentum", "-o", tmp_path / "l.nc")
    assert done.returncode == 0, done.stderr
    assert "angular_momentum, 9 time × 2 replica × 4 component, in eV fs" in done.stdout
    with xarray.open_dataset(tmp_path / "l.nc", engine="h5netcdf") as data:
        np.testing.assert_array_equal(data["angular_momentum"].values, angular_momentum(trajectory).values)
        assert data["angular_momentum"].attrs["units"] == "eV fs"
        assert data["time"].attrs["units"] == "fs"
    done = observed("frames", tmp_path, "-o", tmp_path / "all.xyz", "--every", "4")
    assert done.returncode == 0, done.stderr
    written = read(tmp_path / "all.xyz", ":")
    assert [atoms.info["time"] for atoms in written] == [0.0, 8.0, 16.0]
    expected = next(trajectory.structures())
    assert isinstance(expected, Atoms)
    np.testing.assert_allclose(written[0].get_velocities(), expected.get_velocities(), atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["observe", "nowhere", "--observable", "drift"], "'nowhere' cannot be read: there is no such file"),
        (["observe", "nowhere", "--observable", "drif"], "there is no observable 'drif'"),
        (["observe", ".", "--observable", "drift"], "'.' holds no trajectory: no files frames-000000.h5"),
    ],
)
def test_bad_input_gets_one_sentence(arguments, message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = observed(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
