"""Boxes of a few toy water molecules with energies and forces that are known in closed form."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from scipy.spatial.transform import Rotation

BONDS = ((0, 1, 0.96, 40.0), (0, 2, 0.96, 40.0), (1, 2, 1.52, 8.0))
#: Energy of a molecule at rest, eV: large, as in a real calculation.
PER_MOLECULE = -470.0


def toy_water(count: int, seed: int = 0, molecules: int = 4, spread: float = 0.06) -> list[Atoms]:
    """Boxes of molecules bound by springs, in any orientation, jiggled by more or less."""
    generator = np.random.default_rng(seed)
    corners = np.array([[x, y, z] for x in range(2) for y in range(2) for z in range(2)])[:molecules]
    boxes = []
    for _ in range(count):
        parts = [molecule("H2O").positions @ Rotation.random(rng=generator).as_matrix().T for _ in corners]
        positions = np.concatenate([part + 3.6 * corner for part, corner in zip(parts, corners, strict=True)])
        positions += generator.normal(scale=spread * generator.uniform(0.3, 1.5), size=positions.shape)
        box = Atoms("OHH" * molecules, positions, cell=np.eye(3) * 7.2, pbc=True)
        energy, forces = springs(box)
        box.calc = SinglePointCalculator(box, energy=energy, forces=forces)
        boxes.append(box)
    return boxes


def springs(box: Atoms) -> tuple[float, np.ndarray]:
    """Energy and forces of the springs."""
    energy, forces = 0.0, np.zeros((len(box), 3))
    for first in range(0, len(box), 3):
        energy += PER_MOLECULE
        for a, b, rest, stiffness in BONDS:
            vector = box.positions[first + b] - box.positions[first + a]
            length = np.linalg.norm(vector)
            energy += 0.5 * stiffness * (length - rest) ** 2
            pull = stiffness * (length - rest) * vector / length
            forces[first + a] += pull
            forces[first + b] -= pull
    return energy, forces


def relabelled(box: Atoms, energy: float = 1.0, forces: float = 1.0, lengths: float = 1.0) -> Atoms:
    """The same box in other units: each label and length times a factor."""
    copy = box.copy()
    copy.set_cell(copy.cell * lengths, scale_atoms=True)
    labels = box.calc.results
    copy.calc = SinglePointCalculator(copy, energy=labels["energy"] * energy, forces=labels["forces"] * forces)
    return copy
