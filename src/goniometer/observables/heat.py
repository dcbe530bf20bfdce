"""The heat that multiple time stepping brings in, predicted from the motion of the correction without it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import units
from jaxtyping import Float64
from scipy.signal import get_window

from goniometer.dynamics.description import Run
from goniometer.dynamics.forces import Forces
from goniometer.errors import InputError
from goniometer.observables.result import Axis, Observable
from goniometer.observables.statistics import mean
from goniometer.potentials.base import Potential
from goniometer.progress import Progress
from goniometer.rotations import GRIDS, Rule, grid_rule, rule
from goniometer.symmetrization.average import Averaged
from goniometer.symmetrization.replicas import Replicas
from goniometer.trajectories.h5md import DISCARD, Trajectory

#: Length in fs of the stretches whose power spectra are averaged.
WINDOW = 500.0
# Windows of all replicas together that an error takes: of fewer the scatter of a spectrum is not known.
_FEWEST = 25
# Outer steps that a window holds at least: slow motions are then no part of what a Hann window has at Ω.
_LEAST = 4
# Evaluations of the model between two reports of progress.
_AT_ONCE = 2000
# Relative deviation of an outer time step from a multiple of the time between frames that counts as none.
_EXACT = 1e-6


def predicted_heat(
    correction: Float64[np.ndarray, "T R"],
    spacing: float,
    outer: Sequence[float],
    temperature: float,
    window: float = WINDOW,
) -> Observable:
    """The heat of multiple time stepping by linear response, in eV/ps for each replica, by outer time step.

        dE/dt = Σ_{n ≥ 1} (nΩ)² S(nΩ) / kT        Ω = 2π/T_outer

    with the two-sided power spectral density S(ω) = ∫ ⟨δΔV(0) δΔV(t)⟩ cos(ωt) dt (∫ S dω/2π is the variance) of the
    correction ΔV = V_avg − V_unsymmetrized, along dynamics in equilibrium that are *not* kicked by it. A kick by ΔV
    every T_outer is a potential ΔV (1 + 2 Σ cos nΩt), and S(nΩ) is by the fluctuation-dissipation theorem what the
    molecule absorbs from each cosine: R. Kubo, J. Phys. Soc. Jpn. 12, 570 (1957). The derivation and its limits are in
    ``docs/theory.md``. Density S is that of Hann windows, half overlapping, evaluated at nΩ below the Nyquist frequency
    of the frames.

    Parameters
    ----------
    correction : (T, R)
        ΔV in eV at equally spaced times, of R independent replicas.
    spacing
        Of the times, in fs.
    outer
        Outer time steps in fs, each a multiple, three times or more, of the spacing.
    temperature
        In K.
    window
        Length of the windows in fs. The resolution is some 1.4/window in frequency, 100 cm⁻¹ for 500 fs; lines of ΔV
        that are narrower are smeared out to it. It is cut to whole outer steps, and is no shorter than four of them.

    Returns
    -------
    Observable
        Values (K,) over the axis ``outer_step``. The error is the scatter over replicas, of eight or more, and that of
        windows otherwise; NaN for fewer than 25 windows. Two numbers in ``about`` say whether the spectrum is resolved.
        ``last_term_share`` is the largest share that the fastest of several terms has in any of the sums: if it is not
        small, frames are too far apart. ``half_window_ratio`` is the value with windows half as long, divided by
        the value, for the outer step where it is farthest from 1: if it is not near 1, windows are too short.

    Raises :class:`InputError` for outer steps that the frames do not resolve and for a series shorter than a window.
    """
    found = [_terms(correction, spacing, each, temperature, window) for each in outer]
    estimates = [mean(terms.sum(axis=0)) for terms in found]
    windows = min(terms[0].size for terms in found)
    halves = [_terms(correction, spacing, each, temperature, window / 2.0).sum(axis=0).mean() for each in outer]
    values = np.array([float(each.value) for each in estimates])
    errors = np.array([float(each.error) if windows >= _FEWEST else np.nan for each in estimates])
    shares = [
        float(terms[-1].mean() / terms.sum(axis=0).mean()) if len(terms) > 1 and terms.any() else 0.0 for terms in found
    ]
    ratios = [float(half / value) if value > 0.0 else 1.0 for half, value in zip(halves, values, strict=True)]
    about = {
        "times": len(correction),
        "replicas": correction.shape[1],
        "windows": windows,
        "window_fs": window,
        "last_term_share": max(shares),
        "half_window_ratio": max(ratios, key=lambda ratio: abs(np.log(ratio))),
    }
    return Observable("predicted_heat", "eV/ps", values, errors, {"outer_step": Axis(np.array(outer), "fs")}, about)


def _terms(
    correction: np.ndarray, spacing: float, outer: float, temperature: float, window: float
) -> Float64[np.ndarray, "N W R"]:
    """(nΩ)² S(nΩ) / kT in eV/ps of every window and replica, for all nΩ below the Nyquist frequency."""
    ratio = round(outer / spacing)
    if ratio < 3 or abs(outer / spacing - ratio) > _EXACT * ratio:
        raise InputError(
            f"an outer time step of {outer:g} fs takes frames at a third of it or less, by a whole fraction, and these "
            f"are {spacing:g} fs apart: store them every inner time step (frames_every)"
        )
    # Whole outer steps: nΩ is then a frequency of the discrete transform; of four the next ones have no part in it.
    length = ratio * max(_LEAST, int(window / outer + _EXACT))
    if len(correction) < length:
        raise InputError(
            f"{len(correction)} frames {spacing:g} fs apart are shorter than a window of {length * spacing:g} fs: give "
            "a smaller one (window), or a longer run"
        )
    taper = get_window("hann", length)
    frequencies = 2.0 * np.pi / outer * np.arange(1, (ratio + 1) // 2)
    waves = taper * np.exp(-1j * np.outer(frequencies, spacing * np.arange(length)))
    starts = range(0, len(correction) - length + 1, max(1, length // 2))
    found = []
    for start in starts:
        part = correction[start : start + length]
        amplitudes = waves @ (part - part.mean(axis=0))
        found.append(spacing * np.abs(amplitudes) ** 2 / np.sum(taper**2))
    density = np.stack(found, axis=1)
    return np.asarray(1e3 * frequencies[:, None, None] ** 2 * density / (units.kB * temperature))


def mts_heat(
    trajectory: Trajectory,
    outer: float | Sequence[float] | None = None,
    over: str = "2i",
    window: float = WINDOW,
    discard: float = DISCARD,
    progress: Progress | None = None,
) -> Observable:
    """:func:`predicted_heat` of multiple time steps for the model of a run, from the frames of the run.

    The correction is evaluated anew on every frame that is not discarded, so that frames at every inner time step
    (``frames_every`` equal to ``timestep``) of a picosecond are better than a long run.

    Parameters
    ----------
    trajectory
        Of a run of this program at constant temperature, unsymmetrized or averaged at every step.
    outer
        Outer time steps in fs, one or several; ten times the time step of the run by default.
    over
        The grid or rule that the model is averaged over; a rule with inversion.
    window
        See :func:`predicted_heat`.
    discard
        The part of the frames at the start that is left out.
    progress
        Is told how many frames are evaluated, of how many, and what is going on.

    Raises :class:`InputError` for a run that is kicked, rotated or at no constant temperature, a rule that is not
    known, and outer steps that the frames do not resolve.
    """
    run = _described(trajectory)
    steps = [10.0 * run.timestep] if outer is None else [outer] if isinstance(outer, int | float) else list(outer)
    if not steps or not all(isinstance(each, int | float) and each > 0.0 for each in steps):
        raise InputError(f"'outer' is a positive time in fs, or a list of them, not {outer}")
    average = Averaged(_model(run, trajectory), _rule(over))
    if len(trajectory) < 2:
        raise InputError(f"'{trajectory.name}' holds {len(trajectory)} frames: there is no time between them")
    spacing = float(trajectory.times[1] - trajectory.times[0])
    # Refused before the model is evaluated on all frames.
    none = np.zeros((len(trajectory) - int(discard * len(trajectory)), 1))
    predicted_heat(none, spacing, steps, run.temperature, window)
    found = predicted_heat(corrections(trajectory, average, discard, progress), spacing, steps, run.temperature, window)
    return Observable(found.name, found.unit, found.values, found.errors, found.axes, {**found.about, "over": over})


def _described(trajectory: Trajectory) -> Run:
    """The description of a run whose dynamics is not kicked, and in equilibrium at a temperature."""
    description = trajectory.attributes.get("description")
    if not description:
        raise InputError(f"'{trajectory.name}' does not say which model made it, and at what temperature")
    run = Run.model_validate(description)
    if run.strategy.kind not in ("raw", "average"):
        raise InputError(
            f"'{trajectory.name}' has the strategy {run.strategy.kind}, and heat is predicted from dynamics without "
            "kicks: give an unsymmetrized run, or one that is averaged at every step"
        )
    if run.ensemble != "nvt":
        raise InputError(
            f"'{trajectory.name}' is of no constant temperature, and the heat is that in equilibrium at one"
        )
    return run


def _model(run: Run, trajectory: Trajectory) -> Potential:
    """What the run averages, or samples as it is."""
    potential = Forces(run.model_copy(update={"replicas": 1}), trajectory.replica).potentials[-1]
    if isinstance(potential, Replicas):
        potential = potential.potential
    return potential.potential if isinstance(potential, Averaged) else potential


def _rule(name: str) -> Rule:
    return grid_rule(name) if name in GRIDS else rule(name, inversion=True)


def corrections(
    trajectory: Trajectory,
    average: Averaged,
    discard: float = 0.0,
    progress: Progress | None = None,
    replicas: int | None = None,
) -> Float64[np.ndarray, "T R"]:
    """ΔV = V_avg − V of the model that is averaged, in eV, on every frame that is not discarded.

    Parameters
    ----------
    trajectory
        Replicas of an isolated molecule, or a box whose cell does not change.
    average
        The average; it holds the model.
    discard
        The part of the frames at the start that is left out.
    progress
        Is told how many frames are evaluated.
    replicas
        How many replicas are evaluated; all by default.
    """
    count = trajectory.replicas if replicas is None else min(replicas, trajectory.replicas)
    at_once, whole = max(1, _AT_ONCE // (count * len(average.rule))), len(trajectory) - int(discard * len(trajectory))
    found: list[np.ndarray] = []
    for frames in trajectory.settled(discard):
        for start in range(0, len(frames), at_once):
            positions = frames.positions[start : start + at_once, :count]
            flat = positions.reshape(-1, *positions.shape[2:])
            energies = [_energies(each, trajectory, flat) for each in (average, average.potential)]
            found.append((energies[0] - energies[1]).reshape(positions.shape[:2]))
            if progress is not None:
                progress(sum(map(len, found)), whole, "corrections of frames")
    return np.concatenate(found)


def _energies(potential: Potential, trajectory: Trajectory, positions: np.ndarray) -> np.ndarray:
    unrotated = np.broadcast_to(np.eye(3), (len(positions), 3, 3))
    return np.concatenate([each.energies for each in potential.turned_each(trajectory.replica, positions, unrotated)])
