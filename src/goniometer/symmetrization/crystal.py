"""Averages for crystals: rotations that map a structure onto itself are permutations, and need not be evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from jaxtyping import Float64, Int64
from scipy.spatial import KDTree

from goniometer.errors import InputError
from goniometer.potentials.base import Potential, Prediction, Spread, inherit
from goniometer.rotations import Rule
from goniometer.symmetrization.average import averages, described
from goniometer.symmetrization.verification import Verification, Verified

# Elements of rules are compared as matrices; those of named rules agree to some roundings.
_SAME = 1e-8


@dataclass(frozen=True)
class Operation:
    """An operation of a space group: h·x is x with its atoms permuted, but for a translation.

    Attributes
    ----------
    matrix : (3, 3)
        The Cartesian h, an element of O(3).
    sites : (N,)
        Atom i of h·x lies where atom ``sites[i]`` of x is, or an image of it.
    """

    matrix: Float64[np.ndarray, "3 3"]
    sites: Int64[np.ndarray, " N"]


class CrystalAveraged(Verified):
    """A potential averaged over a rule, for structures that keep the space group of a reference structure.

    Let H be the rotations h, proper or not, that map the reference onto itself, and with which the rule Q, as it is
    oriented, is closed, Q h = Q. Then the response takes one value on each coset q H, and

        E(x) = |H| Σ_r w_r E(r·x)        F_i(x) = Σ_r w_r Σ_h F_h(i)(r·x) R_r R_h

    over one representative r of each coset: the same average with |Q| / |H| evaluations, up to 48 times fewer for a
    cubic crystal and the octahedral group with inversion. Forces and virial have the symmetry of the crystal, so that a
    relaxation keeps it.

    The group is fixed by the reference. A structure that has left it is refused: the average over representatives
    alone would be another energy surface, and one with a kink where the symmetry breaks. What breaks the symmetry
    (phonons, defects, dynamics) needs the whole rule: :class:`goniometer.symmetrization.Averaged`.

    Parameters
    ----------
    potential
        What is averaged.
    over
        The rule.
    reference
        A structure that is periodic in three directions.
    tolerance
        How far atoms may be off the symmetry, in Å.
    verify
        See :class:`goniometer.symmetrization.verification.Verified`.

    Raises :class:`InputError` if the reference is not periodic in three directions or no symmetry of it can be used.
    """

    def __init__(
        self, potential: Potential, over: Rule, reference: Atoms, tolerance: float = 1e-4, *, verify: bool = True
    ) -> None:
        self.potential, self.rule, self.tolerance = potential, over, tolerance
        self.operations = [each for each in operations(reference, tolerance) if _closed(over, each.matrix)]
        if len(self.operations) < 2:
            raise InputError(
                f"{described(over)}, as it is oriented, is closed under no symmetry of "
                f"{reference.get_chemical_formula()}: turn the rule or the crystal so that their axes agree, or "
                "average without a space group"
            )
        self._numbers = reference.numbers.copy()
        self.representatives = _representatives(over, [each.matrix for each in self.operations])
        few = f"{len(self.representatives)} of them with the space group"
        self.name = f"{potential.name} averaged over {described(over)}, {few}"
        inherit(self, potential)
        self.verification = Verification(potential, over.matrices, verify)

    def turned(self, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> Iterator[Prediction]:
        """See :meth:`Potential.turned`. The structure as it stands takes representatives; turned copies the whole rule.

        Raises :class:`InputError` if the structure has not the symmetry of the reference.
        """
        self._check(structure)
        self.verify(structure)
        for matrix in matrices:
            if np.array_equal(matrix, np.eye(3)):
                few = self.representatives
                (mean,) = averages(self.potential, structure, matrix[None], few.matrices[None], few)
                yield self._projected(mean)
            else:
                whole = self.rule
                yield from averages(self.potential, structure, matrix[None], whole.matrices[None], whole)

    def _projected(self, mean: Prediction) -> Prediction:
        """The mean over all of H, from that over the representatives."""
        group, atomic, virials = self.operations, mean.atomic, mean.virials
        spread = mean.spread or Spread(np.zeros(1), np.zeros(mean.forces.shape[:2]))
        forces = np.mean([mean.forces[:, each.sites] @ each.matrix for each in group], axis=0)
        # The variance between the elements of a coset is not in that between the representatives.
        squares = spread.forces**2 + np.mean(mean.forces**2, axis=2)
        variance = np.mean([squares[:, each.sites] for each in group], axis=0) - np.mean(forces**2, axis=2)
        deviation = np.sqrt(np.maximum(variance, 0.0))
        if atomic is not None:
            atomic = np.mean([atomic[:, each.sites] for each in group], axis=0)
        if virials is None or spread.virials is None:
            return Prediction(mean.energies, forces, virials, atomic, Spread(spread.energies, deviation))
        squares = spread.virials**2 + np.mean(virials**2, axis=(1, 2))
        virials = np.mean([each.matrix.T @ virials @ each.matrix for each in group], axis=0)
        over_virials = np.sqrt(np.maximum(squares - np.mean(virials**2, axis=(1, 2)), 0.0))
        return Prediction(mean.energies, forces, virials, atomic, Spread(spread.energies, deviation, over_virials))

    def _check(self, structure: Atoms) -> None:
        what = structure.get_chemical_formula()
        if not structure.pbc.all():
            raise InputError(f"{what} is not periodic in three directions, as the reference of the space group is")
        _check_sites_alike(structure)
        if not np.array_equal(structure.numbers, self._numbers):
            raise InputError(f"{what} has not the atoms, in their order, of the reference of the space group")
        for each in self.operations:
            off = _distance_from(each, structure)
            if off > self.tolerance:
                raise InputError(
                    f"{what} is {off:.2g} Å off the symmetry of its reference, more than {self.tolerance:g} Å: "
                    "average over the whole rule, without a space group, for what breaks the symmetry"
                )


def operations(reference: Atoms, tolerance: float = 1e-4) -> list[Operation]:
    """The operations of the space group of a structure, one for each rotation; the identity is the first.

    Found by spglib (A. Togo, I. Tanaka, arXiv 1808.01590), to a tolerance in Å.

    Raises :class:`InputError` if the structure is not periodic in three directions, or spglib finds no symmetry.
    """
    import spglib

    what = reference.get_chemical_formula()
    _check_sites_alike(reference)
    if not reference.pbc.all():
        raise InputError(f"{what} is not periodic in three directions, so it has no space group")
    cell = reference.cell.array
    try:
        found = spglib.get_symmetry((cell, reference.get_scaled_positions(), reference.numbers), symprec=tolerance)
    except spglib.SpglibError:
        found = None
    if found is None:
        raise InputError(f"spglib finds no symmetry of {what} to {tolerance:g} Å")
    kept: dict[bytes, Operation] = {}
    for rotation, translation in zip(found["rotations"], found["translations"], strict=True):
        # Of several translations with one rotation any will do: they permute the same response.
        if rotation.tobytes() not in kept:
            # Scaled positions are rows, s → s Wᵀ + w, and x = s A.
            matrix = (np.linalg.inv(cell) @ rotation.T @ cell).T
            moved = reference.positions @ matrix.T + translation @ cell
            kept[rotation.tobytes()] = Operation(_orthogonal(matrix), _sites(moved, reference, tolerance))
    return sorted(kept.values(), key=lambda each: float(np.abs(each.matrix - np.eye(3)).max()))


def lattice_elements(structure: Atoms) -> Float64[np.ndarray, "C 3 3"]:
    """Elements of O(3) that map the lattice of a structure onto itself, none first: 48 of a cube, 2 of any.

    Without a lattice in three directions they are none and inversion, too.
    """
    if not structure.pbc.all():
        return np.stack([np.eye(3), -np.eye(3)])
    return np.array([each.matrix for each in operations(Atoms("H", cell=structure.cell, pbc=True))])


def _check_sites_alike(structure: Atoms) -> None:
    """Refuse what a calculator may read and the space group does not see."""
    for name in ("initial_magmoms", "initial_charges"):
        if name in structure.arrays and structure.arrays[name].any():
            raise InputError(
                f"{structure.get_chemical_formula()} has {name}, which the space group found here does not know of: "
                "average over the whole rule, without a space group"
            )


def _orthogonal(matrix: np.ndarray) -> np.ndarray:
    """The nearest orthogonal matrix: a cell is as symmetric as its digits."""
    left, _, right = np.linalg.svd(matrix)
    return left @ right


def _sites(moved: np.ndarray, reference: Atoms, tolerance: float) -> np.ndarray:
    """For every moved atom the atom of the reference whose place it takes."""
    scaled = np.linalg.solve(reference.cell.array.T, moved.T).T % 1.0
    own = reference.get_scaled_positions() % 1.0
    # Distances in scaled coordinates suffice to tell sites apart.
    sites = KDTree(own % 1.0, boxsize=1.0).query(scaled % 1.0)[1]
    if len(set(sites.tolist())) != len(sites) or not np.array_equal(reference.numbers[sites], reference.numbers):
        raise InputError(
            f"a symmetry of {reference.get_chemical_formula()} does not permute its atoms to {tolerance:g} Å"
        )
    return np.asarray(sites, dtype=np.int64)


def _distance_from(operation: Operation, structure: Atoms) -> float:
    """How far h·x is from x with its atoms permuted and translated, in Å, cell included."""
    cell = structure.cell.array
    turned_cell = cell @ operation.matrix.T
    # h·x has the same lattice if its vectors are integer combinations of the cell's.
    combination = np.round(turned_cell @ np.linalg.inv(cell))
    off = float(np.abs(turned_cell - combination @ cell).max())
    shifts = structure.positions @ operation.matrix.T - structure.positions[operation.sites]
    differences, _ = find_mic(shifts - shifts[0], cell, structure.pbc)
    differences -= differences.mean(axis=0)
    return max(off, float(np.linalg.norm(differences, axis=1).max()))


def _closed(over: Rule, matrix: np.ndarray) -> bool:
    """Whether Q h = Q, weights included."""
    return _places(over, over.matrices @ matrix) is not None


def _places(over: Rule, matrices: np.ndarray) -> np.ndarray | None:
    """Where the given elements are in the rule, each once and with the same weight; None if they are not."""
    tree = KDTree(over.matrices.reshape(-1, 9))
    distances, places = tree.query(matrices.reshape(-1, 9))
    if distances.max() > _SAME or np.abs(over.weights[places] - over.weights).max() > _SAME * over.weights.max():
        return None
    return np.asarray(places) if len(np.unique(places)) == len(places) else None


def _representatives(over: Rule, group: list[np.ndarray]) -> Rule:
    """One element of each coset q H, with the weight of all."""
    found = (_places(over, over.matrices @ matrix) for matrix in group)
    cosets = np.stack([places for places in found if places is not None])
    chosen = np.flatnonzero(cosets.min(axis=0) == np.arange(len(over)))
    weights = len(group) * over.weights[chosen]
    return Rule(f"{over.name}/space group", over.matrices[chosen], weights / weights.sum(), 0)
