"""Toys with faults that are no rotational symmetry error, or one that random orientations do not show.

Each wraps a potential, whose own symmetry error is then known beside the fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from goniometer.errors import PotentialError
from goniometer.potentials.base import Potential, Prediction
from goniometer.testing.toys import Wrapped


class _OneByOne(Wrapped):
    """A potential that is evaluated at one copy after the other, and whose predictions are changed each."""

    def turned(self, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> Iterator[Prediction]:
        """Evaluate rotated copies, see :meth:`goniometer.potentials.Potential.turned`."""
        for matrix in matrices:
            (prediction,) = self.potential.turned(structure, matrix[None])
            yield self._changed(prediction, structure, matrix)

    def _changed(self, prediction: Prediction, structure: Atoms, matrix: np.ndarray) -> Prediction:
        raise NotImplementedError


class Outliers(_OneByOne):
    """A share of the evaluations, at random, is wrong: by ``size`` in eV, and by as much in eV/Å in each component."""

    def __init__(self, potential: Potential, rate: float, size: float, seed: int) -> None:
        super().__init__(potential)
        self.rate, self.size = rate, size
        self._rng = np.random.default_rng(seed)

    def _changed(self, prediction: Prediction, structure: Atoms, matrix: np.ndarray) -> Prediction:
        if self._rng.random() >= self.rate:
            return prediction
        wrong = self.size * self._rng.standard_normal(prediction.forces.shape)
        return replace(prediction, energies=prediction.energies + self.size, forces=prediction.forces + wrong)


class History(_OneByOne):
    """Each prediction depends on the orientation that was evaluated before, by up to ``size`` in eV and in forces."""

    def __init__(self, potential: Potential, size: float) -> None:
        super().__init__(potential)
        self.size, self._last = size, 0.0

    def _changed(self, prediction: Prediction, structure: Atoms, matrix: np.ndarray) -> Prediction:
        last, self._last = self._last, self.size * float(np.sin(7.0 * matrix.sum()))
        return replace(prediction, energies=prediction.energies + last, forces=prediction.forces * (1.0 + last))


class EggBox(_OneByOne):
    """Adds ε Σ_i Σ_a cos(2π x_ia / d): the energy depends on where the atoms are on a grid of spacing d (Å)."""

    def __init__(self, potential: Potential, strength: float, spacing: float = 0.5) -> None:
        super().__init__(potential)
        self.strength, self.spacing = strength, spacing

    def _changed(self, prediction: Prediction, structure: Atoms, matrix: np.ndarray) -> Prediction:
        wave = 2.0 * np.pi / self.spacing
        phases = wave * structure.positions @ matrix.T
        energies = prediction.energies + self.strength * np.cos(phases).sum()
        return replace(prediction, energies=energies, forces=prediction.forces + self.strength * wave * np.sin(phases))


class Aligned(_OneByOne):
    """Wrong where a pair of atoms lies along z to 10⁻⁹: by ``size`` in eV for each, and forces by that share."""

    def __init__(self, potential: Potential, size: float) -> None:
        super().__init__(potential)
        self.size = size

    def _changed(self, prediction: Prediction, structure: Atoms, matrix: np.ndarray) -> Prediction:
        first, second = np.triu_indices(len(structure), 1)
        edges = structure.get_all_distances(mic=bool(structure.pbc.any()), vector=True)[first, second] @ matrix.T
        count = np.sum(np.abs(edges[:, 2]) > (1.0 - 1e-9) * np.linalg.norm(edges, axis=1))
        energies = prediction.energies + count * self.size
        return replace(prediction, energies=energies, forces=prediction.forces * (1.0 + count * self.size))


class Fussy(_OneByOne):
    """Fails on copies that a calculator may not take: ``"inversion"``, ``"rotation"`` (tilted cells) or a permutation.

    For ``"permutation"`` the numbers of the atoms must be those of ``order``.
    """

    def __init__(self, potential: Potential, fault: str, order: Atoms | None = None) -> None:
        super().__init__(potential)
        self.fault, self.order = fault, order

    def _changed(self, prediction: Prediction, structure: Atoms, matrix: np.ndarray) -> Prediction:
        cell = structure.cell.array @ matrix.T
        if self.fault == "inversion" and np.linalg.det(matrix) < 0:
            raise PotentialError("the handedness of C1 is not that of the topology")
        if self.fault == "rotation" and np.any(cell != np.diag(np.diag(cell))):
            raise PotentialError("the box is not orthogonal")
        if self.fault == "permutation" and self.order is not None and np.any(structure.numbers != self.order.numbers):
            raise PotentialError("the atoms are not those of the topology")
        return prediction
