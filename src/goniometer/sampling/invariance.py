"""How far an average still depends on the orientation, measured on rotated copies of some frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import units
from jaxtyping import Float64, Int64

from goniometer.observables.stress import structure_at
from goniometer.rotations.quadrature import random_rotations
from goniometer.symmetrization.average import Averaged
from goniometer.symmetrization.crystal import lattice_elements
from goniometer.symmetrization.responses import response
from goniometer.trajectories.h5md import Trajectory

# Frames that are rotated, and rotated copies of each besides the frame itself.
_FRAMES, _COPIES = 4, 2
# The part of the standard error of a reweighted difference that the residual error may reach at worst.
_ALLOWED = 0.5
# The part of kT below which a residual error changes nothing that could be measured: rounding of invariant models.
_NOTHING = 1e-4


@dataclass(frozen=True)
class Residual:
    """How far energies of rotated copies of one frame differ.

    Attributes
    ----------
    averaged, unsymmetrized : float
        Standard deviation over the copies of a frame, root mean square over frames, in eV: of the average, and of the
        potential that is averaged.
    degrees : int
        Degrees of freedom: the relative error of both is some 1/√(2 · degrees).
    """

    averaged: float
    unsymmetrized: float
    degrees: int

    @property
    def error(self) -> float:
        """The standard error of ``averaged`` in eV, for normal deviations."""
        return self.averaged / np.sqrt(2.0 * self.degrees) if self.degrees else float("nan")

    def negligible(self, corrections: Float64[np.ndarray, " F"], temperature: float) -> bool:
        """Whether a reweighted difference may take the average to have the same energy in all orientations.

        To first order a difference by reweighting is −Cov(A, ΔF)/kT with a standard error of about σ(A) σ(ΔF)/(kT √n)
        for n frames, and what depends on the orientation in the average changes it by −Cov(A, ε)/kT, which is at most
        σ(A) σ(ε)/kT. This is less than half the error if

            averaged · √n ≤ ½ min(σ(ΔF), unsymmetrized)

        where the second takes the place of the first for observables that have a direction. Anything below 10⁻⁴ kT is
        rounding and negligible as well.

        Parameters
        ----------
        corrections : (F,)
            ΔF = F_avg − F of the frames in eV, see :class:`goniometer.sampling.orbits.Orbits`.
        temperature
            In K.
        """
        if self.averaged <= _NOTHING * units.kB * temperature:
            return True
        scatter = min(float(np.std(corrections)), self.unsymmetrized)
        return bool(self.averaged * np.sqrt(len(corrections)) <= _ALLOWED * scatter)

    def said(self) -> str:
        """In one clause, in meV."""
        return (
            f"energies of rotated copies differ by {1e3 * self.averaged:.2g} ± {1e3 * self.error:.1g} meV rms after "
            f"averaging, and by {1e3 * self.unsymmetrized:.2g} meV before"
        )

    @staticmethod
    def pooled(found: Sequence[Residual]) -> Residual:
        """Of frames of several runs."""
        degrees = np.array([each.degrees for each in found])
        share = degrees / degrees.sum()
        averaged, unsymmetrized = (
            float(np.sqrt(share @ np.array([getattr(each, name) ** 2 for each in found])))
            for name in ("averaged", "unsymmetrized")
        )
        return Residual(averaged, unsymmetrized, int(degrees.sum()))


def residuals(
    trajectory: Trajectory,
    average: Averaged,
    numbers: Int64[np.ndarray, " F"],
    *,
    lattice: bool = True,
    frames: int = _FRAMES,
    seed: int = 0,
) -> tuple[Residual, Residual | None]:
    """Evaluate the average, and the potential that it averages, on rotated copies of some frames.

    Parameters
    ----------
    trajectory
        Of one replica.
    average
        What is evaluated.
    numbers
        Frames that are reweighted; a few of them, evenly spaced, are rotated.
    lattice
        Whether copies by elements that map the lattice of the cell onto itself are evaluated as well.
    frames
        How many frames are rotated at most.
    seed
        Of the rotations.

    Returns
    -------
    tuple
        Over random rotations, with the cell rotated alike; and over elements that map the lattice onto itself: None
        if these are not wanted, and zero if there are only the identity and inversion and the rule holds inversion.
    """
    rng = np.random.default_rng(seed)
    chosen = np.unique(numbers[np.linspace(0, len(numbers) - 1, min(frames, len(numbers))).round().astype(int)])
    taken = trajectory.taken(chosen)
    elements = _besides_inversion(lattice_elements(trajectory.replica)) if lattice else np.empty((0, 3, 3))
    count = min(_COPIES, len(elements))
    by_rotation, by_lattice = [], []
    for place in range(len(taken)):
        picked = elements[rng.permutation(len(elements))[:count]]
        copies = np.concatenate([np.eye(3)[None], random_rotations(_COPIES, rng), picked])
        structure = structure_at(trajectory, taken, place)
        energies = np.stack([response(each, structure, copies).energies for each in (average, average.potential)])
        by_rotation.append(energies[:, : 1 + _COPIES])
        by_lattice.append(energies[:, [0, *range(1 + _COPIES, len(copies))]])
    of_lattice = None
    if lattice:
        of_lattice = _residual(by_lattice) if count else Residual(0.0, 0.0, 0)
    return _residual(by_rotation), of_lattice


def _besides_inversion(elements: Float64[np.ndarray, "C 3 3"]) -> Float64[np.ndarray, "P 3 3"]:
    """Proper elements but the identity: a rule with inversion has the same average for −h as for h."""
    proper = np.linalg.det(elements) > 0.0
    return elements[proper & (np.abs(elements - np.eye(3)).max(axis=(1, 2)) > 1e-6)]


def _residual(energies: Sequence[Float64[np.ndarray, "2 C"]]) -> Residual:
    variances = np.mean([each.var(axis=1, ddof=1) for each in energies], axis=0)
    averaged, unsymmetrized = np.sqrt(variances).tolist()
    return Residual(averaged, unsymmetrized, sum(each.shape[1] - 1 for each in energies))
