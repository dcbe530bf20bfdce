"""Geometry optimization by ASE's L-BFGS until energy, forces and steps are all small, on one energy surface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.optimize import LBFGS

from goniometer.errors import InputError
from goniometer.potentials.base import Potential
from goniometer.potentials.calculator import PotentialCalculator


@dataclass(frozen=True)
class Tolerances:
    """When an optimization has converged: all three at once. The defaults are those of arXiv 2406.17747.

    Attributes
    ----------
    energy
        The change in a step, in eV per atom (10⁻⁷ hartree).
    force
        The largest component, in eV/Å (2·10⁻⁴ atomic units).
    position
        The largest component of a step, in Å (10⁻³ bohr).
    """

    energy: float = 1e-7 * units.Hartree
    force: float = 2e-4 * units.Hartree / units.Bohr
    position: float = 1e-3 * units.Bohr


@dataclass(frozen=True)
class Relaxed:
    """A structure before and after.

    Attributes
    ----------
    start, end : Atoms
        With energies (eV) and forces (eV/Å) of the potential.
    steps
        That were made.
    converged
        Whether the tolerances were met.
    """

    start: Atoms
    end: Atoms
    steps: int
    converged: bool


def relax(
    structure: Atoms,
    potential: Potential,
    tolerances: Tolerances | None = None,
    *,
    steps: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> Relaxed:
    """Move atoms to where the forces on them vanish; the cell is kept.

    The first step is what L-BFGS makes of the forces and a curvature of 70 eV/Å², and no atom moves more than 0.2 Å in
    a step: D. C. Liu, J. Nocedal, Math. Program. 45, 503 (1989), in ASE.

    Parameters
    ----------
    structure
        Where to begin; constraints of ASE are kept.
    potential
        One energy surface: a potential that draws a turn at every evaluation has none, see
        :func:`goniometer.symmetrization.frozen` for a turn that is drawn once.
    tolerances, steps
        Where to end.
    progress
        Is told the steps made, and how many there may be.

    Raises :class:`InputError` for a potential that is not conservative or draws turns.
    """
    if potential.stochastic:
        raise InputError(f"{potential.name} is another surface at every evaluation: it has no minimum; freeze it")
    if not potential.conservative:
        raise InputError(f"the forces of {potential.name} are not the gradient of its energy: it has no minimum")
    wanted = tolerances or Tolerances()
    atoms = structure.copy()
    atoms.calc = PotentialCalculator(potential)
    start = _kept(atoms)
    before, energy, converged, made = atoms.positions.copy(), atoms.get_potential_energy(), False, 0
    optimizer = LBFGS(atoms, logfile=None)
    if _force(atoms) == 0.0:
        return Relaxed(start, _kept(atoms), 0, True)
    # A force of zero is none of ASE's criteria: ours end it.
    for _ in optimizer.irun(fmax=0.0, steps=steps):
        if optimizer.nsteps == made:
            continue
        made = optimizer.nsteps
        moved = float(np.abs(atoms.positions - before).max())
        change = abs(atoms.get_potential_energy() - energy) / len(atoms)
        before, energy = atoms.positions.copy(), atoms.get_potential_energy()
        if progress is not None:
            progress(made, steps)
        if change <= wanted.energy and moved <= wanted.position and _force(atoms) <= wanted.force:
            converged = True
            break
    return Relaxed(start, _kept(atoms), made, converged)


def _force(atoms: Atoms) -> float:
    return float(np.abs(atoms.get_forces()).max())


def _kept(atoms: Atoms) -> Atoms:
    kept = atoms.copy()
    kept.calc = SinglePointCalculator(kept, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
    return kept
