"""One potential on one structure under examination, and what a check of it finds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from goniometer.potentials.base import Potential, Prediction
from goniometer.rotations import random_rotations
from goniometer.structures.rotation import turned

# Structures up to this size are turned more often: packing and batching show best with many copies.
_SMALL = 32
_COPIES_SMALL, _COPIES = 24, 8


@dataclass(frozen=True)
class CheckItem:
    """One rule of the contract: whether it holds, the worst value found, what was allowed, and a sentence on it.

    ``value`` and ``tolerance`` are in ``unit``; they are None where the rule is not about a number, and the tolerance
    is None where the number is only reported. ``warning``: the rule holds but for something small that the sentence
    names. ``skipped``: the rule could not be tested, for the reason that the sentence gives.
    """

    name: str
    passed: bool
    sentence: str
    value: float | None = None
    tolerance: float | None = None
    unit: str = ""
    warning: bool = False
    skipped: bool = False

    @property
    def status(self) -> str:
        """``ok``, ``warn``, ``skip`` or ``FAIL``."""
        if not self.passed:
            return "FAIL"
        return "skip" if self.skipped else "warn" if self.warning else "ok"

    @property
    def excess(self) -> float:
        """How bad it is, to find the worst of several: failures first, then the value in units of the tolerance."""
        if self.skipped:
            return -1.0
        share = 0.0 if self.value is None else self.value / (self.tolerance or 1.0)
        return {"FAIL": 1e300, "warn": 1e200}.get(self.status, 0.0) + min(share, 1e199)


@dataclass(frozen=True)
class Noise:
    """By how much rounding alone may change the energy (eV), a force component (eV/Å), a virial component (eV)."""

    energy: float
    forces: float
    virial: float


class Subject:
    """A potential, a structure slightly off the given one (so that forces are not zero), and its noise.

    Attributes
    ----------
    given
        The structure with its constraints, which potentials do not apply; ``structure`` has none.
    eps
        Relative rounding of the potential's dtype.
    reference
        The prediction for the structure as it stands.
    noise
        The largest change under translations by some hundred roundings, eight times over, and not less than some tens
        of roundings of 1 eV, of 1 eV/Å or of the largest component.
    """

    def __init__(self, potential: Potential, structure: Atoms, rng: np.random.Generator, label: str) -> None:
        self.potential, self.rng, self.label = potential, rng, label
        self.given = structure.copy()
        self.given.set_constraint()
        self.given.positions += 0.02 * rng.standard_normal(structure.positions.shape)
        self.structure = self.given.copy()
        self.given.set_constraint(structure.constraints)
        self.eps = float(np.finfo(potential.dtype).eps)

    @cached_property
    def reference(self) -> Prediction:
        return self.potential.predict(self.structure)

    @cached_property
    def matrices(self) -> Float64[np.ndarray, "K 3 3"]:
        """Uniform on O(3), proper and improper mixed."""
        count = _COPIES_SMALL if len(self.structure) <= _SMALL else _COPIES
        signs = self.rng.permutation(np.resize([1.0, 1.0, -1.0], count))
        return random_rotations(count, self.rng) * signs[:, None, None]

    def keep_orientation(self) -> None:
        """Use copies in the input orientation alone, for potentials that fail on others."""
        self.__dict__["matrices"] = np.repeat(np.eye(3)[None], 3, axis=0)

    def moved(self, positions: np.ndarray) -> Atoms:
        """The structure with other positions."""
        copy = self.structure.copy()
        copy.positions = positions
        return copy

    def strained(self, matrix: np.ndarray) -> Atoms:
        """The structure with positions and cell under x → x M (row vectors)."""
        copy = self.moved(self.structure.positions @ matrix)
        copy.cell = self.structure.cell.array @ matrix
        return copy

    def turned(self, matrix: np.ndarray) -> Atoms:
        """The whole structure, turned."""
        return turned(self.structure, matrix)

    @cached_property
    def noise(self) -> Noise:
        extent = 1.0 + np.abs(self.structure.positions).max()
        shifts = 100.0 * self.eps * extent * self.rng.uniform(-1.0, 1.0, (6, 3))
        moved = Prediction.joined(
            [self.potential.predict(self.moved(self.structure.positions + shift)) for shift in shifts]
        )
        reference = self.reference

        def level(values: np.ndarray, central: np.ndarray, scale: float) -> float:
            return float(8.0 * np.abs(values - central).max() + 64.0 * self.eps * scale)

        def largest(values: np.ndarray) -> float:
            return max(1.0, float(np.abs(values).max()))

        # The total is summed in float64 whatever the model's arithmetic is: its size as such adds no roundings of eps.
        total = 64.0 * float(np.finfo(np.float64).eps) * abs(float(reference.energies[0]))
        virial = 0.0
        if moved.virials is not None and reference.virials is not None:
            virial = level(moved.virials, reference.virials, largest(reference.virials))
        return Noise(
            energy=level(moved.energies, reference.energies, len(self.structure) ** 0.5) + total,
            forces=level(moved.forces, reference.forces, largest(reference.forces)),
            virial=virial,
        )
