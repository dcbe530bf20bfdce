"""Structures whose symmetry makes forces vanish, whatever the potential is."""

from __future__ import annotations

import numpy as np
from ase import Atoms

# Å: two atoms closer than this are at the same place.
_TOLERANCE = 1e-5


def forces_vanish(structure: Atoms) -> bool:
    """Whether the symmetry of a crystal allows no force on any atom, as at centres of inversion.

    For each atom the symmetry operations are averaged that leave it in place; what they leave of a vector is the force
    that it may have. Of other than periodic structures only a lone atom has no force.
    """
    import spglib

    if len(structure) == 1:
        return True
    if not structure.pbc.all():
        return False
    scaled = structure.get_scaled_positions()
    try:
        found = spglib.get_symmetry((structure.cell.array, scaled, structure.numbers), symprec=_TOLERANCE)
    except spglib.SpglibError:
        return False
    if found is None or len(found["rotations"]) == 1:
        return False
    rotations, translations = found["rotations"], found["translations"]
    lengths = np.linalg.norm(structure.cell.array, axis=1)
    for place in scaled:
        shift = rotations @ place + translations - place
        fixed = np.abs((shift - np.round(shift)) * lengths).max(axis=1) < 10.0 * _TOLERANCE
        if np.abs(rotations[fixed].mean(axis=0)).max() > 1e-9:
            return False
    return True
