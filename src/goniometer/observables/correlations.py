"""Time correlations in liquids: mean squared displacement, reorientation, velocities, vibrations."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from ase import units
from ase.data import atomic_numbers
from jaxtyping import Float64
from scipy.signal import get_window

from goniometer.errors import InputError
from goniometer.observables.blocks import Blocks
from goniometer.observables.gas import WAVENUMBER
from goniometer.observables.molecules import Molecules, find_molecules
from goniometer.observables.result import Axis, Observable
from goniometer.observables.statics import _one_replica
from goniometer.trajectories.h5md import DISCARD, Frames, Trajectory, check_velocities

#: Times in fs to which the study goes.
DISPLACEMENT, REORIENTATION = 5000.0, 10000.0
#: In cm⁻¹: the stretches of water and all that is slower.
HIGHEST = 4000.0
#: ξ of a cubic cell: B. Dünweg, K. Kremer, J. Chem. Phys. 99, 6983 (1993).
_XI = 2.837297
# Pa s in eV fs / Å³.
_PASCAL_SECOND = 1e15 * units.Pascal

# What is followed in time: frames to (T, ...); what is followed and a number of origins to sums and their counts.
Quantity = Callable[[Frames], np.ndarray]
Sums = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def mean_squared_displacement(
    trajectory: Trajectory, element: str = "O", longest: float = DISPLACEMENT, discard: float = DISCARD
) -> Observable:
    """⟨Δx_i(t) Δx_j(t)⟩ in Å² of the atoms of one element, over all of them and all origins of time.

    The mean squared displacement is its trace, the component ``trace``; the others, xx … xy, tell whether the liquid
    moves alike in all directions. The motion of the centre of mass is that of the trajectory, and in a cell that
    changes so is that of the cell, which carries atoms along. Values have the axes component and time.
    """
    values, errors, times, about = _over_origins(trajectory, *_squares(trajectory, element), longest, discard)
    axes = {"component": Axis(np.array(["trace", "xx", "yy", "zz", "yz", "xz", "xy"])), "time": Axis(times, "fs")}
    return Observable("mean_squared_displacement", "Angstrom^2", values, errors, axes, {**about, "element": element})


def _squares(trajectory: Trajectory, element: str) -> tuple[Quantity, Sums]:
    """What is followed, and the sums over origins of its products of displacements: trace, xx … xy."""
    sites = _of_element(trajectory, element)

    def squares(followed: np.ndarray, origins: int) -> tuple[np.ndarray, np.ndarray]:
        # ⟨(x(o + t) − x(o))_i (…)_j⟩ by convolutions, about the first frame: numbers of one size are subtracted.
        x = followed - followed[0]
        counts, found = _counts(len(x), origins), []
        for i, j in _TENSOR:
            product = (x[..., i] * x[..., j]).reshape(len(x), -1).sum(axis=1)
            late, early = _window_sums(product, origins)
            crossed = _correlate(x[..., i], x[..., j], origins) + _correlate(x[..., j], x[..., i], origins)
            found.append(late + early - crossed)
        sums = np.stack(found) / x.shape[1]
        return np.concatenate([sums[:3].sum(axis=0, keepdims=True), sums]), counts

    return lambda frames: frames.positions[:, 0][:, sites], squares


_TENSOR = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def diffusion(
    trajectory: Trajectory,
    element: str = "O",
    start: float = 1000.0,
    end: float = DISPLACEMENT,
    viscosity: float | None = None,
    temperature: float | None = None,
    discard: float = DISCARD,
) -> Observable:
    """The diffusion coefficient in Å²/ps: a sixth of the slope of the mean squared displacement over times.

    Parameters
    ----------
    trajectory, element
        See :func:`mean_squared_displacement`.
    start, end
        Of these times, in fs; by least squares.
    viscosity, temperature
        In Pa s and K: adds k T ξ / (6 π η L), ξ = 2.837297, for the size of a cubic cell of edge L; I.-C. Yeh,
        G. Hummer, J. Phys. Chem. B 108, 15873 (2004). The temperature is by default that of the run.

    The error is that of the slopes of stretches of the trajectory. Raises :class:`InputError` for a correction of a
    cell that is not cubic, or of a temperature that is not known.
    """
    if temperature is not None and viscosity is None:
        raise InputError("the temperature goes with the correction for the size, which takes a viscosity")
    if not 0.0 <= start < end:
        raise InputError(f"a slope is from a start to a later end, not from {start:g} to {end:g} fs")

    def slope(values: np.ndarray, times: np.ndarray) -> np.ndarray:
        chosen = times >= start
        if chosen.sum() < 2:
            raise InputError(f"'{trajectory.name}' is too short: fewer than two times between {start:g} and {end:g} fs")
        centred = times[chosen] - times[chosen].mean()
        return np.asarray(values[0][chosen] @ centred / (centred @ centred))

    found, error, times, about = _over_origins(trajectory, *_squares(trajectory, element), end, discard, slope)
    correction = 0.0 if viscosity is None else _of_size(trajectory, viscosity, temperature)
    value = 1e3 * (found / 6.0 + correction)
    about |= {"start_fs": start, "end_fs": float(times[-1]), "size_correction": 1e3 * correction}
    return Observable("diffusion", "Angstrom^2/ps", np.array(value), np.array(1e3 * error / 6.0), {}, about)


def _of_size(trajectory: Trajectory, viscosity: float, temperature: float | None) -> float:
    """What diffusion lacks for the size of the cell, in Å²/fs."""
    cell = trajectory.replica.cell
    edge = float(cell.lengths()[0])
    if not np.allclose(cell.array @ cell.array.T, edge**2 * np.eye(3), atol=1e-6 * edge**2):
        raise InputError(f"the correction for the size is that of a cubic cell, and that of '{trajectory.name}' is not")
    known = trajectory.attributes.get("description", {}).get("temperature") if temperature is None else temperature
    if known is None:
        raise InputError(f"'{trajectory.name}' does not say its temperature, which the correction for the size takes")
    return float(units.kB * known * _XI / (6.0 * np.pi * viscosity * _PASCAL_SECOND * edge))


def reorientation(
    trajectory: Trajectory,
    longest: float = REORIENTATION,
    molecules: Molecules | None = None,
    discard: float = DISCARD,
) -> Observable:
    """c_uu(t) = ⟨P_ℓ(u(0)·u(t))⟩ of the directions of molecules for ℓ = 1 and 2. Axes degree and time."""
    chosen = molecules or find_molecules(trajectory.replica)
    _one_replica(trajectory)

    def legendre(u: np.ndarray, origins: int) -> tuple[np.ndarray, np.ndarray]:
        first = sum(_correlate(u[..., i], u[..., i], origins) for i in range(3))
        second = sum(
            (1.0 if i == j else 2.0) * _correlate(u[..., i] * u[..., j], u[..., i] * u[..., j], origins)
            for i, j in _TENSOR
        )
        counts = _counts(len(u), origins)
        return np.stack([first / u.shape[1], 1.5 * second / u.shape[1] - 0.5 * counts]), counts

    values, errors, times, about = _over_origins(trajectory, chosen.directions, legendre, longest, discard)
    axes = {"degree": Axis(np.array([1, 2])), "time": Axis(times, "fs")}
    return Observable("c_uu_of_t", "", values, errors, axes, {**about, "molecules": len(chosen)})


def velocity_autocorrelation(
    trajectory: Trajectory, element: str | None = None, longest: float = 1000.0, discard: float = DISCARD
) -> Observable:
    """⟨v(0)·v(t)⟩ / ⟨v²⟩ of the atoms of one element, or of all of them weighted by their masses."""
    sites, masses = _moving(trajectory, element)

    def correlate(v: np.ndarray, origins: int) -> tuple[np.ndarray, np.ndarray]:
        found = np.sum([_correlate(v[..., i], v[..., i], origins) for i in range(3)], axis=0)
        return found[None], _counts(len(v), origins)

    values, errors, times, about = _over_origins(
        trajectory,
        lambda frames: _velocities(trajectory, frames, sites, masses),
        correlate,
        longest,
        discard,
        lambda found, _: found[0] / found[0, 0],
    )
    return Observable("velocity_autocorrelation", "", values, errors, {"time": Axis(times, "fs")}, about)


def vibrations(
    trajectory: Trajectory,
    element: str | None = None,
    window: float = 1000.0,
    highest: float = HIGHEST,
    discard: float = DISCARD,
) -> Observable:
    """The vibrational density of states: the power spectrum of velocities weighted by mass, ∫ S dν̃ = 1, in cm.

    By Welch's method with Hann windows, half overlapping; the error is that of the windows.

    Parameters
    ----------
    trajectory, element
        See :func:`velocity_autocorrelation`.
    window
        Its length in fs.
    highest
        In cm⁻¹, what nothing vibrates faster than: frames Δ apart fold what is beyond 1/2cΔ back on what is below.

    Raises :class:`InputError` for frames that are too far apart for that.
    """
    sites, masses = _moving(trajectory, element)
    _one_replica(trajectory)
    spacing = _spacing(trajectory)
    length = round(window / spacing)
    fastest = 0.5 * WAVENUMBER / spacing
    if not fastest >= highest:
        raise InputError(
            f"'{trajectory.name}' has frames {spacing:g} fs apart, and all that is faster than {fastest:.0f} cm^-1 is "
            f"folded back: up to {highest:g} takes frames {0.5 * WAVENUMBER / highest:.2g} fs apart "
            "(frames_every), or name what nothing is faster than (highest)"
        )
    if length < 16:
        raise InputError(f"a window of {window:g} fs holds {length} frames {spacing:g} fs apart; 16 are needed")
    taper, blocks = get_window("hann", length)[:, None, None], Blocks()
    held = np.empty((0, len(sites), 3))
    for frames in trajectory.settled(discard):
        held = np.concatenate([held, _velocities(trajectory, frames, sites, masses)])
        while len(held) >= length:
            power = np.abs(np.fft.rfft(held[:length] * taper, axis=0)) ** 2
            blocks.add(power.sum(axis=(1, 2))[None])
            held = held[length // 2 :]
    if not len(blocks):
        raise InputError(f"'{trajectory.name}' is shorter than a window of {window:g} fs")
    grid = np.fft.rfftfreq(length, spacing) * WAVENUMBER

    def finish(mean: np.ndarray) -> np.ndarray:
        return np.asarray(mean / np.trapezoid(mean, grid))

    values, errors, time = blocks.estimate(finish)
    about = {"windows": len(blocks), "window_fs": length * spacing, "element": element or "all"}
    about["autocorrelation_time_fs"] = time * (length - length // 2) * spacing
    return Observable("vibrations", "cm", values, errors, {"wavenumber": Axis(grid, "cm^-1")}, about)


def _over_origins(
    trajectory: Trajectory,
    quantity: Quantity,
    sums: Sums,
    longest: float,
    discard: float,
    finish: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda values, times: values,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, object]]:
    """Sums over origins, stretch by stretch as long as the longest time, divided by the number of origins.

    ``sums(followed, origins)`` has the sums over the first so many frames as origins, (C, L + 1) for lags 0 … L, and
    the numbers of origins, (L + 1,). No more than two stretches are held at a time, and these are the error's blocks.
    """
    _one_replica(trajectory)
    spacing = _spacing(trajectory)
    kept = len(trajectory) - int(discard * len(trajectory))
    if not longest > 0.0:
        raise InputError(f"the longest time is above 0 fs, not {longest:g}")
    lags = min(round(longest / spacing), kept // 2)
    if lags < 1:
        raise InputError(f"'{trajectory.name}' is too short: {kept} frames {spacing:g} fs apart")
    blocks, number, total = Blocks(), 0, np.array(0.0)
    for followed in _stretches(trajectory, quantity, lags, discard):
        found, counts = sums(followed, min(lags, len(followed)))
        found, counts = _padded(found, lags + 1), _padded(counts, lags + 1)
        total = total + np.concatenate([found, counts[None]])
        # Stretches at the end, which lack their longest times, are in the mean but tell nothing of its error.
        if counts[-1] == lags:
            blocks.add(np.concatenate([found, counts[None]])[None])
            number += 1

    times = spacing * np.arange(lags + 1)

    def ratio(mean: np.ndarray) -> np.ndarray:
        return np.asarray(finish(mean[:-1] / mean[-1], times))

    values = ratio(total)
    errors, time = np.full_like(values, np.nan), float("nan")
    if number:
        _, errors, time = blocks.estimate(ratio)
    about: dict[str, object] = {"frames": kept, "length_ps": 1e-3 * spacing * (kept - 1), "stretches": number}
    about["autocorrelation_time_fs"] = time * lags * spacing
    return values, errors, times, about


def _stretches(trajectory: Trajectory, quantity: Quantity, length: int, discard: float) -> Iterator[np.ndarray]:
    """What is followed, over twice the length from every multiple of it on; what is left at the end is shorter."""
    held: np.ndarray | None = None
    for frames in trajectory.settled(discard):
        more = quantity(frames)
        held = more if held is None else np.concatenate([held, more])
        while len(held) >= 2 * length + 1:
            yield held[: 2 * length]
            held = held[length:]
    while held is not None and len(held):
        yield held[: 2 * length]
        held = held[length:]


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    missing = length - values.shape[-1]
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, max(0, missing))])[..., :length]


def _counts(frames: int, origins: int) -> Float64[np.ndarray, " L"]:
    """How many of the first frames are the origin of a pair so many frames apart."""
    return np.clip(frames - np.arange(origins + 1), 0, origins).astype(float)


def _correlate(one: np.ndarray, other: np.ndarray, origins: int) -> np.ndarray:
    """Σ_o Σ_a one[o, a] other[o + t, a] over the first origins, for lags up to their number."""
    size = 1 << (2 * len(one) - 1).bit_length()
    early = np.fft.rfft(one[:origins].reshape(origins, -1), size, axis=0)
    late = np.fft.rfft(other.reshape(len(other), -1), size, axis=0)
    return np.asarray(np.fft.irfft((early.conj() * late).sum(axis=1), size)[: origins + 1])


def _window_sums(values: np.ndarray, origins: int) -> tuple[np.ndarray, np.ndarray]:
    """Σ_o v[o + t] and Σ_o v[o] over the origins that have a partner, for lags up to their number."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    lags = np.arange(origins + 1)
    lags = np.minimum(lags, len(values))
    last = np.clip(len(values) - lags, 0, origins)
    return sums[lags + last] - sums[lags], sums[last]


def _spacing(trajectory: Trajectory) -> float:
    """Of the frames, in fs. Raises :class:`InputError` if times are not known or not evenly spaced."""
    times = trajectory.times
    if len(times) < 2:
        raise InputError(f"'{trajectory.name}' holds {len(times)} frames: there is no time between them")
    if not np.isfinite(times).all():
        frame = int(np.argmin(np.isfinite(times)))
        raise InputError(
            f"frame {frame} of '{trajectory.name}' has no time: give the time between two frames (spacing)"
        )
    steps = np.diff(times)
    uneven = np.abs(steps - steps[0]) > 1e-6 * abs(steps[0])
    if steps[0] <= 0.0 or uneven.any():
        frame = int(np.argmax(uneven)) + 1 if uneven.any() else 1
        raise InputError(f"frame {frame} of '{trajectory.name}' comes at another distance of time than the first ones")
    return float(steps[0])


def _of_element(trajectory: Trajectory, element: str) -> np.ndarray:
    sites = np.flatnonzero(trajectory.replica.numbers == atomic_numbers.get(element, -1))
    if not len(sites):
        raise InputError(f"'{trajectory.name}' holds no {element}: it is {trajectory.replica.symbols}")
    return sites


def _moving(trajectory: Trajectory, element: str | None) -> tuple[np.ndarray, np.ndarray]:
    sites = np.arange(len(trajectory.replica)) if element is None else _of_element(trajectory, element)
    return sites, np.sqrt(trajectory.replica.get_masses()[sites])


def _velocities(trajectory: Trajectory, frames: Frames, sites: np.ndarray, roots: np.ndarray) -> np.ndarray:
    check_velocities(frames, trajectory.name, "an observable of them")
    return np.asarray(frames.velocities[:, 0][:, sites] * roots[:, None])
