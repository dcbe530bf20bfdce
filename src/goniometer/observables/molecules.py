"""Molecules in a liquid: which atoms belong together, and where each points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import find_mic
from jaxtyping import Float64, Int64
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from vesin import ase_neighbor_list

from goniometer.dynamics.limits import BONDED
from goniometer.errors import InputError
from goniometer.trajectories.h5md import Frames


@dataclass(frozen=True)
class Molecules:
    """Molecules that are all alike.

    Attributes
    ----------
    atoms : (M, n)
        Indices of the atoms of each, the heaviest element first: the first atom stands for the place of the molecule.
    weights : (n,)
        Of the direction u = Σ_a w_a x_a; they sum to zero.
    pbc
        In which directions the structure is periodic.
    """

    atoms: Int64[np.ndarray, "M n"]
    weights: Float64[np.ndarray, " n"]
    pbc: tuple[bool, bool, bool]

    def __len__(self) -> int:
        return len(self.atoms)

    def directions(self, frames: Frames) -> Float64[np.ndarray, "T M 3"]:
        """Unit vectors along u, whether or not the cell cuts a molecule."""
        positions = frames.positions[:, 0]
        arms = positions[:, self.atoms[:, 1:]] - positions[:, self.atoms[:, :1]]
        vectors = np.einsum("a,tmaj->tmj", self.weights[1:], shortest(arms, frames.cells, self.pbc))
        return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))

    def places(self, frames: Frames) -> Float64[np.ndarray, "T M 3"]:
        """Positions of the first atoms."""
        return np.asarray(frames.positions[:, 0, self.atoms[:, 0]])


def shortest(
    vectors: Float64[np.ndarray, "T ..."], cells: Float64[np.ndarray, "T 3 3"] | None, pbc: Sequence[bool]
) -> Float64[np.ndarray, "T ..."]:
    """The shortest of the periodic images of vectors (T, ..., 3), in cells of any shape."""
    if cells is None:
        return vectors
    if np.array_equal(cells, np.broadcast_to(cells[0], cells.shape)):
        return np.asarray(find_mic(vectors.reshape(-1, 3), cells[0], pbc)[0].reshape(vectors.shape))
    return np.stack(
        [
            find_mic(each.reshape(-1, 3), cell, pbc)[0].reshape(each.shape)
            for each, cell in zip(vectors, cells, strict=True)
        ]
    )


def find_molecules(structure: Atoms, size: int | None = None, weights: Sequence[float] | None = None) -> Molecules:
    """The molecules of a structure.

    Parameters
    ----------
    structure
        Of molecules that are all alike.
    size
        So many atoms in a row are a molecule. By default atoms are that hang together by bonds: pairs closer than 1.25
        sums of covalent radii.
    weights : (n,)
        Of the direction of a molecule, in the order of its elements, heaviest first, and of its indices. By default
        those of water: the middle of the hydrogens less the oxygen.

    Raises :class:`InputError` where molecules differ, or a direction is not known.
    """
    labels = _by_bonds(structure) if size is None else _in_a_row(structure, size)
    numbers = structure.numbers
    order = np.lexsort((np.arange(len(numbers)), -numbers, labels))
    counts = np.bincount(labels)
    if (counts != counts[0]).any():
        sizes = ", ".join(str(each) for each in np.unique(counts))
        raise InputError(
            f"the molecules of {structure.symbols} are not all alike: they have {sizes} atoms. Name their size if "
            "bonds do not tell them apart"
        )
    atoms = order.reshape(-1, counts[0])
    kinds = numbers[atoms]
    if (kinds != kinds[0]).any():
        raise InputError(f"the molecules of {structure.symbols} are not all alike: they differ in their elements")
    if weights is None:
        if kinds[0].tolist() != [8, 1, 1]:
            raise InputError(
                "only water has a direction by default; give weights for the atoms of a molecule, the heaviest first"
            )
        weights = (-1.0, 0.5, 0.5)
    chosen = np.asarray(weights, dtype=float)
    if chosen.shape != kinds[0].shape or abs(chosen.sum()) > 1e-9 * np.abs(chosen).sum():
        raise InputError(f"the direction takes {kinds.shape[1]} weights, one an atom, that sum to zero")
    x, y, z = (bool(each) for each in structure.pbc)
    return Molecules(atoms, chosen, (x, y, z))


def bond_vectors(
    structure: Atoms,
) -> tuple[Callable[[Frames], Float64[np.ndarray, "T M 3"]] | None, Int64[np.ndarray, " A"]]:
    """A unit vector for each molecule of any kind, along the bond of its two heaviest atoms, and the unbonded atoms.

    Returns
    -------
    function
        Frames to unit vectors (T, M, 3) of the M molecules with two atoms or more; None if there are fewer than two,
        as in a network that holds all atoms.
    atoms : (A,)
        Indices of the atoms that belong to no such molecule.
    """
    labels = _by_bonds(structure)
    order = np.lexsort((np.arange(len(labels)), -structure.numbers, labels))
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    first, several = order[starts], np.bincount(labels) > 1
    if several.sum() < 2:
        return None, np.arange(len(labels))
    pairs = np.stack([first[several], order[starts[several] + 1]])
    x, y, z = (bool(each) for each in structure.pbc)

    def vectors(frames: Frames) -> np.ndarray:
        positions = frames.positions[:, 0]
        arms = shortest(positions[:, pairs[1]] - positions[:, pairs[0]], frames.cells, (x, y, z))
        return np.asarray(arms / np.linalg.norm(arms, axis=-1, keepdims=True))

    return vectors, np.sort(first[~several])


def _by_bonds(structure: Atoms) -> np.ndarray:
    radii = covalent_radii[structure.numbers]
    first, second, distances = ase_neighbor_list("ijd", structure, 2.0 * BONDED * float(radii.max()))
    bonded = distances < BONDED * (radii[first] + radii[second])
    count = len(structure)
    graph = coo_matrix((np.ones(bonded.sum()), (first[bonded], second[bonded])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1])


def _in_a_row(structure: Atoms, size: int) -> np.ndarray:
    if size < 1 or len(structure) % size:
        raise InputError(f"{len(structure)} atoms are no molecules of {size} atoms in a row")
    return np.arange(len(structure)) // size
