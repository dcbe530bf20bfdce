"""Observables of isolated molecules, where a broken symmetry shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import units
from jaxtyping import Float64
from scipy.signal import welch

from goniometer.errors import InputError
from goniometer.observables.result import Axis, Observable
from goniometer.observables.statistics import REPLICAS, autocorrelation_time, slope
from goniometer.potentials.base import Potential, Prediction
from goniometer.rotations import GRIDS, check_grids, grid_rule
from goniometer.symmetrization.average import Averaged
from goniometer.trajectories.h5md import Trajectory, check_velocities

#: eV fs in u Å²/fs.
_EV_FS = 1.0 / units.fs**2
#: cm⁻¹ in 1/fs.
WAVENUMBER = 1e15 / 2.99792458e10
#: Times that a power spectrum takes.
SPECTRUM_TIMES = 16


def angular_momentum(trajectory: Trajectory) -> Observable:
    """L = Σ_a m_a (x_a − x̄) × v_a of every replica about its centre of mass, against time, in eV fs.

    Components x, y, z and the norm. It is conserved by a potential that rotates with the molecule, at constant energy.

    Raises :class:`InputError` for a periodic structure, a single atom, and frames without velocities.
    """
    _isolated(trajectory)
    _several_atoms(trajectory)
    masses = trajectory.replica.get_masses()
    times, momenta = [], []
    for frames in trajectory.chunks():
        check_velocities(frames, trajectory.name, "an angular momentum")
        centre = np.einsum("a,traj->trj", masses, frames.positions) / masses.sum()
        motion = np.einsum("a,traj->trj", masses, frames.velocities) / masses.sum()
        arms, speeds = frames.positions - centre[:, :, None], frames.velocities - motion[:, :, None]
        momenta.append(_EV_FS * np.einsum("a,traj->trj", masses, np.cross(arms, speeds)))
        times.append(frames.times)
    components = np.concatenate(momenta)
    values = np.concatenate([components, np.linalg.norm(components, axis=-1, keepdims=True)], axis=-1)
    axes = {
        "time": Axis(np.concatenate(times), "fs"),
        "replica": Axis(np.arange(trajectory.replicas)),
        "component": Axis(np.array(["x", "y", "z", "norm"])),
    }
    change = np.linalg.norm(components - components[0], axis=-1)
    about = {
        "frames": len(values),
        "replicas": trajectory.replicas,
        "rms_change": float(np.sqrt(np.mean(change**2))),
        "largest_change": float(change.max()),
    }
    return Observable("angular_momentum", "eV fs", values, np.full_like(values, np.nan), axes, about)


def conserved(trajectory: Trajectory) -> Observable:
    """The conserved quantity less that of the first frame, in eV a replica, against time in fs; it has no error."""
    times, energies = _conserved(trajectory)
    axes = {"time": Axis(times - times[0], "fs")}
    return Observable("conserved_energy", "eV", energies - energies[0], np.full(len(times), np.nan), axes, {})


def drift(trajectory: Trajectory) -> Observable:
    """The slope of the conserved quantity against time, in eV/ps a replica, by least squares.

    Its error is that of :func:`goniometer.observables.statistics.slope`.
    """
    times, per_replica = _conserved(trajectory)
    if len(times) < 3:
        raise InputError(f"'{trajectory.name}' has {len(times)} frames; a drift with an error takes 3 or more")
    value, error = slope(1e-3 * times, per_replica)
    about = {
        "frames": len(times),
        "replicas": trajectory.replicas,
        "length_ps": 1e-3 * float(times[-1] - times[0]),
        "autocorrelation_time_fs": _spacing(times) * autocorrelation_time(per_replica),
    }
    return Observable("conserved_energy_drift", "eV/ps", np.array(value), np.array(error), {}, about)


def _conserved(trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Times in fs, and the conserved quantity in eV a replica."""
    try:
        frames = [(each.times, each.observables["conserved_energy"]) for each in trajectory.chunks()]
    except KeyError:
        raise InputError(f"'{trajectory.name}' holds no conserved_energy: it is no run of this program") from None
    times, energies = (np.concatenate(each) for each in zip(*frames, strict=True))
    return times, energies / trajectory.replicas


def power_spectrum(
    series: Float64[np.ndarray, "T R"], spacing: float, *, name: str = "power_spectrum", unit: str = "eV^2 cm"
) -> Observable:
    """The power spectral density of a series of each replica, in the mean over them, against wavenumber in cm⁻¹.

        S(ν̃) = lim (2/T) |∫ (A(t) − ⟨A⟩) exp(−2πi c ν̃ t) dt|² c

    one-sided, so that ∫ S dν̃ is the variance; by the method of P. D. Welch (IEEE Trans. Audio 15, 70 (1967)) with Hann
    windows over a quarter of the series, half overlapping. The error is the scatter over replicas; NaN for fewer than
    eight.

    Parameters
    ----------
    series : (T, R)
        Of energies in eV, for the default unit.
    spacing
        Of the times, in fs.

    Raises :class:`InputError` for fewer than 16 times.
    """
    if len(series) < SPECTRUM_TIMES:
        raise InputError(f"a power spectrum takes {SPECTRUM_TIMES} times or more, not {len(series)}")
    window = max(SPECTRUM_TIMES, len(series) // 4)
    frequencies, density = welch(series, fs=1.0 / spacing, window="hann", nperseg=window, detrend="constant", axis=0)
    density = density / WAVENUMBER
    replicas = density.shape[1]
    errors = density.std(axis=1, ddof=1) / np.sqrt(replicas) if replicas >= REPLICAS else np.full(len(density), np.nan)
    axes = {"wavenumber": Axis(frequencies * WAVENUMBER, "cm^-1")}
    about = {"times": len(series), "replicas": replicas, "window_fs": window * spacing}
    return Observable(name, unit, density.mean(axis=1), errors, axes, about)


def potential_spectrum(trajectory: Trajectory) -> Observable:
    """:func:`power_spectrum` of the potential energy of each replica."""
    return _spectrum_of(trajectory, "potential_energy", lambda frames: frames["potential_energy"])


def correction_spectrum(trajectory: Trajectory) -> Observable:
    """:func:`power_spectrum` of V_avg − V_raw of each replica, which runs with multiple time steps record."""
    return _spectrum_of(
        trajectory, "averaged_minus_raw", lambda frames: frames["potential_energy"] - frames["raw_potential_energy"]
    )


def _spectrum_of(trajectory: Trajectory, name: str, of: object) -> Observable:
    assert callable(of)
    times, series = [], []
    for frames in trajectory.chunks():
        try:
            series.append(of(frames.observables))
        except KeyError as error:
            raise InputError(f"'{trajectory.name}' has no {error.args[0]}: it is not that kind of run") from error
        times.append(frames.times)
    return power_spectrum(np.concatenate(series), _spacing(np.concatenate(times)), name=f"spectrum_of_{name}")


def _spacing(times: np.ndarray) -> float:
    return float(times[-1] - times[0]) / max(1, len(times) - 1)


def _isolated(trajectory: Trajectory) -> None:
    if trajectory.replica.pbc.any():
        raise InputError(f"'{trajectory.name}' is periodic, and this observable is that of isolated molecules")


def _several_atoms(trajectory: Trajectory) -> None:
    if len(trajectory.replica) < 2:
        raise InputError(f"'{trajectory.name}' is of single atoms, which have no angular momentum and no orientation")


#: What symmetry errors are taken from.
REFERENCE = "3i"
# Frames of each replica that are evaluated anew.
_FRAMES = 50


def by_grid(
    trajectory: Trajectory, potential: Potential, grids: Sequence[str] = tuple(GRIDS), frames: int = _FRAMES
) -> Observable:
    """What each grid leaves of a broken symmetry on stored frames, evaluated anew by a potential.

    ==========  ==============================================================================================
    ``torque``  √⟨|Σ_a (x_a − x̄) × F_a|²⟩ in eV, of forces averaged over the grid
    ``energy``  ⟨|E_grid − E_3i|⟩ in eV
    ``forces``  ⟨|F_grid − F_3i|⟩ per component in eV/Å
    ==========  ==============================================================================================

    The mean is over replicas and times that are evenly spaced; the error is the scatter over replicas, NaN for fewer
    than eight. An average of a model that conserves angular momentum has no torque at all. Values have the axes grid
    and quantity.

    Raises :class:`InputError` for a periodic structure and an unknown grid.
    """
    _isolated(trajectory)
    check_grids(grids)
    positions = _spread(trajectory, frames)
    times, replicas = positions.shape[:2]
    flat = positions.reshape(-1, *positions.shape[2:])
    reference = _averaged(potential, trajectory, flat, REFERENCE)
    arms = flat - flat.mean(axis=1, keepdims=True)
    values, errors = [], []
    for name in grids:
        found = reference if name == REFERENCE else _averaged(potential, trajectory, flat, name)
        torque = (np.cross(arms, found.forces).sum(axis=1) ** 2).sum(axis=1)
        energy = np.abs(found.energies - reference.energies)
        force = np.abs(found.forces - reference.forces).mean(axis=(1, 2))
        each = [_over_replicas(quantity.reshape(times, replicas)) for quantity in (torque, energy, force)]
        root = np.sqrt(each[0][0])
        each[0] = root, each[0][1] / (2.0 * root) if root > 0.0 else 0.0
        values.append([mean for mean, _ in each])
        errors.append([error for _, error in each])
    axes = {"grid": Axis(np.array(list(grids))), "quantity": Axis(np.array(["torque", "energy", "forces"]))}
    about = {"frames": times, "replicas": replicas, "potential": potential.name, "reference": REFERENCE}
    return Observable("by_grid", "eV, eV, eV/Angstrom", np.array(values), np.array(errors), axes, about)


def _averaged(potential: Potential, trajectory: Trajectory, positions: np.ndarray, grid: str) -> Prediction:
    # The reference, which is the first, is tested to be a potential.
    averaged = Averaged(potential, grid_rule(grid), verify=grid == REFERENCE)
    unturned = np.broadcast_to(np.eye(3), (len(positions), 3, 3))
    return Prediction.joined(averaged.turned_each(trajectory.replica, positions, unturned))


def _spread(trajectory: Trajectory, frames: int) -> Float64[np.ndarray, "T R N 3"]:
    """The positions of so many frames, evenly spaced."""
    chosen = set(np.linspace(0, len(trajectory) - 1, min(frames, len(trajectory))).astype(int).tolist())
    found, number = [], 0
    for chunk in trajectory.chunks():
        found += [chunk.positions[index] for index in range(len(chunk)) if number + index in chosen]
        number += len(chunk)
    return np.stack(found)


def _over_replicas(values: Float64[np.ndarray, "T R"]) -> tuple[float, float]:
    """The mean, and the scatter over replicas."""
    each = values.mean(axis=0)
    enough = len(each) >= REPLICAS
    return float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each))) if enough else float("nan")
