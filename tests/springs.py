"""A molecule of springs in a field, cheap enough for thousands of steps of hundreds of replicas."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase import Atoms

from goniometer.potentials import Potential, Prediction


class Springs(Potential):
    """½ k Σ_ij (|x_i − x_j| − d_ij)² + ε (u·z)² / 2, u the unit vector from atom 0 to atom 1 of the copy.

    The second term breaks the symmetry at ℓ = 2.
    """

    virial = "none"

    def __init__(self, rest: Atoms, stiffness: float = 20.0, field: float = 0.0) -> None:
        self.stiffness, self.field = stiffness, field
        self.first, self.second = np.triu_indices(len(rest), 1)
        self.rest = rest.get_all_distances()[self.first, self.second]
        self.name = f"springs of {stiffness} eV/Å² in a field of {field} eV"

    def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
        return self.turned_each(structure, np.repeat(structure.positions[None], len(matrices), axis=0), matrices)

    def turned_each(self, structure: Atoms, positions: np.ndarray, matrices: np.ndarray) -> Iterator[Prediction]:
        x = positions @ matrices.transpose(0, 2, 1)
        vectors = x[:, self.first] - x[:, self.second]
        lengths = np.linalg.norm(vectors, axis=2)
        off = lengths - self.rest
        energies = 0.5 * self.stiffness * (off**2).sum(axis=1)
        pulls = -self.stiffness * (off / lengths)[..., None] * vectors
        forces = np.zeros_like(x)
        for pair, (i, j) in enumerate(zip(self.first, self.second, strict=True)):
            forces[:, i] += pulls[:, pair]
            forces[:, j] -= pulls[:, pair]
        axis = x[:, 1] - x[:, 0]
        length = np.linalg.norm(axis, axis=1)[:, None]
        up = axis[:, 2:] / length
        energies = energies + 0.5 * self.field * up[:, 0] ** 2
        slope = self.field * up * (np.array([0.0, 0.0, 1.0]) - up * axis / length) / length
        forces[:, 1] -= slope
        forces[:, 0] += slope
        yield Prediction(energies, forces)
