"""Structures without any symmetry, for tests of several modules."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk


def molecule() -> Atoms:
    """Five unlike atoms, chiral."""
    positions = [[0, 0, 0], [1.1, 0, 0.1], [-0.4, 1.3, 0], [-0.5, -0.8, 1.5], [-0.6, -0.9, -1.6]]
    return Atoms("CHFClBr", positions)


def crystal(seed: int = 1) -> Atoms:
    """Four ions in a triclinic cell, shaken."""
    rng = np.random.default_rng(seed)
    structure = bulk("NaCl", "rocksalt", 5.6) * (2, 1, 1)
    structure.set_cell(structure.cell.array + 0.3 * rng.standard_normal((3, 3)), scale_atoms=True)
    structure.rattle(0.1, seed=seed)
    return structure
