"""Constraints of a structure in dynamics: fixed atoms are held, every other constraint is refused by its name."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCom
from jaxtyping import Int64

from goniometer.errors import InputError


def fixed_atoms(structure: Atoms, name: str) -> Int64[np.ndarray, " F"]:
    """Indices of the atoms that dynamics must hold, in increasing order.

    Fixed atoms have no momentum at any time step: the integrator, every thermostat (Langevin, velocity rescaling, GLE)
    and the levels of multiple time stepping act on the other degrees of freedom alone, so that the constraint is exact.
    A fixed centre of mass is what every run of a periodic structure without fixed atoms has.

    Parameters
    ----------
    structure
        With the constraints that ASE read.
    name
        What errors call it.

    Raises
    ------
    InputError
        For a constraint that dynamics do not honour, and if no atom can move.
    """
    fixed = np.zeros(len(structure), dtype=bool)
    for constraint in structure.constraints:
        if isinstance(constraint, FixAtoms):
            fixed[constraint.index] = True
        elif not isinstance(constraint, FixCom):
            raise _refused(constraint, name)
    if any(isinstance(each, FixCom) for each in structure.constraints) and (fixed.any() or not structure.pbc.any()):
        raise InputError(
            f"{name}: the constraint FixCom goes with a periodic structure without fixed atoms in dynamics: remove it"
        )
    if fixed.all():
        raise InputError(f"{name}: the constraint FixAtoms fixes all {len(structure)} atoms: nothing can move")
    return np.flatnonzero(fixed)


def _refused(constraint: object, name: str) -> InputError:
    kind = type(constraint).__name__
    return InputError(
        f"{name}: dynamics do not honour the constraint {kind}, only FixAtoms: remove it, or fix whole atoms instead"
    )
