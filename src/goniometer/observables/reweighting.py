"""Another potential's static observables from the frames of this one's, and how small a difference can be seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from jaxtyping import Float64, Int64

from goniometer.data.trajectory import DISCARD, Frames, Trajectory
from goniometer.errors import InputError
from goniometer.observables.blocks import Blocks
from goniometer.observables.gas import GRIDS
from goniometer.observables.result import Axis, Observable
from goniometer.observables.statics import Static
from goniometer.potentials.base import Potential, Prediction
from goniometer.rotations import rule as named_rule
from goniometer.symmetrize.average import Averaged

# Frames that are evaluated anew by default.
_FRAMES = 100


@dataclass(frozen=True)
class Reevaluated:
    """What averages over grids say of frames of a trajectory.

    Attributes
    ----------
    frames : (F,)
        Their numbers.
    grids
        Names, in the order of the second axis.
    energies : (F, G)
        In eV.
    forces : (F, G, N, 3)
        In eV/Å.
    """

    frames: Int64[np.ndarray, "F"]
    grids: tuple[str, ...]
    energies: Float64[np.ndarray, "F G"]
    forces: Float64[np.ndarray, "F G N 3"]

    def correction(self, grid: str, base: str = "none") -> Float64[np.ndarray, "F"]:
        """ΔV = V_grid − V_base in eV."""
        for name in (grid, base):
            if name not in self.grids:
                raise InputError(f"grid '{name}' was not evaluated; there are {', '.join(self.grids)}")
        return np.asarray(self.energies[:, self.grids.index(grid)] - self.energies[:, self.grids.index(base)])

    def symmetry_errors(self, reference: str = "3i") -> Observable:
        """⟨|E_grid − E_reference|⟩ in eV and ⟨|F_grid − F_reference|⟩ a component in eV/Å: the study's table.

        Errors are those of the mean over frames, with their correlation. Axes grid and quantity.
        """
        place = self.grids.index(reference)
        energy = np.abs(self.energies - self.energies[:, place : place + 1])
        force = np.abs(self.forces - self.forces[:, place : place + 1]).mean(axis=(2, 3))
        blocks = Blocks()
        blocks.add(np.stack([energy, force], axis=-1))
        values, errors, _ = blocks.estimate(lambda mean: mean)
        axes = {"grid": Axis(np.array(self.grids)), "quantity": Axis(np.array(["energy", "forces"]))}
        about = {"frames": len(self.frames), "reference": reference}
        return Observable("symmetry_error_by_grid", "eV, eV/Angstrom", values, errors, axes, about)


def reevaluate(
    trajectory: Trajectory,
    potential: Potential,
    grids: Sequence[str] = ("none", "i", "2i"),
    *,
    frames: int = _FRAMES,
    discard: float = DISCARD,
    progress: Callable[[int, int], None] | None = None,
) -> Reevaluated:
    """Evaluate averages over grids on so many frames, evenly spaced.

    Raises :class:`InputError` for a grid that is not known, and for replicas.
    """
    if trajectory.replicas > 1:
        raise InputError(f"'{trajectory.name}' is of {trajectory.replicas} replicas, and this is for a liquid")
    for name in grids:
        if name not in GRIDS:
            raise InputError(f"there is no grid '{name}'; there are {', '.join(GRIDS)}")
    chosen = spread(trajectory, frames, discard)
    averages = [Averaged(potential, named_rule(*GRIDS[name])) for name in grids]
    energies, forces = [], []
    for done, (atoms, _) in enumerate(_structures(trajectory, chosen)):
        said = [Prediction.joined([each.predict(atoms)]) for each in averages]
        energies.append([float(each.energies[0]) for each in said])
        forces.append([each.forces[0] for each in said])
        if progress is not None:
            progress(done + 1, len(chosen))
    return Reevaluated(chosen, tuple(grids), np.array(energies), np.array(forces))


def spread(trajectory: Trajectory, frames: int, discard: float = DISCARD) -> Int64[np.ndarray, "F"]:
    """The numbers of so many frames, evenly spaced."""
    first = int(discard * len(trajectory))
    return np.unique(np.linspace(first, len(trajectory) - 1, min(frames, len(trajectory) - first)).astype(np.int64))


def _structures(trajectory: Trajectory, chosen: np.ndarray) -> Iterator[tuple[Atoms, Frames]]:
    """Structures and one-frame stretches of chosen frames."""
    wanted, number = set(chosen.tolist()), 0
    for chunk in trajectory.chunks():
        for index in range(len(chunk)):
            if number + index in wanted:
                one = chunk[index : index + 1]
                cell = trajectory.replica.cell if one.cells is None else one.cells[0]
                atoms = Atoms(trajectory.replica.numbers, one.positions[0, 0], cell=cell, pbc=trajectory.replica.pbc)
                yield atoms, one
        number += len(chunk)


def reweighted(
    trajectory: Trajectory,
    of: Static,
    frames: Int64[np.ndarray, "F"],
    correction: Float64[np.ndarray, "F"],
    temperature: float,
) -> Observable:
    """⟨A⟩_{V+ΔV} − ⟨A⟩_V from frames of V alone, for a static observable A = f(⟨a⟩).

        f(Σ_f w_f a_f / Σ_f w_f) − f(Σ_f a_f / F)        w = exp(−ΔV / kT)

    R. W. Zwanzig, J. Chem. Phys. 22, 1420 (1954). To first order −Cov(A, ΔV)/kT. The noise of A is in both terms, and
    cancels: with ΔV of some meV a difference is resolved that two runs show only if they are (kT/σ(ΔV))² times longer.
    The error is that of blocks left out of both terms at once.

    Parameters
    ----------
    trajectory
        At constant temperature, with V.
    of
        Of the same trajectory.
    frames, correction
        Their numbers, and ΔV in eV; see :class:`Reevaluated`.
    temperature
        In K.

    ``about`` holds the effective share of frames, (Σ w)² / (F Σ w²), and σ(ΔV) in meV: a share far below one means that
    the frames of V say little about V + ΔV.
    """
    weights = np.exp(-(correction - correction.mean()) / (units.kB * temperature))
    blocks, shape = Blocks(), None
    for (_, one), weight in zip(_structures(trajectory, frames), weights, strict=True):
        sample = np.asarray(of.samples(one))[0]
        shape = sample.shape
        blocks.add(np.concatenate([[weight], weight * sample.ravel(), sample.ravel()])[None])

    def difference(mean: np.ndarray) -> np.ndarray:
        size = (len(mean) - 1) // 2
        turned, plain = mean[1 : 1 + size] / mean[0], mean[1 + size :]
        return np.asarray(of.finish(turned.reshape(shape)) - of.finish(plain.reshape(shape)))

    values, errors, _ = blocks.estimate(difference)
    share = float(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))
    about = {**of.about, "frames": len(frames), "effective_share": share, "spread_meV": 1e3 * float(correction.std())}
    return Observable(f"{of.name}_difference", of.unit, values, errors, of.axes, about)
