"""Orientations with a name: the one of the input, and its copies under the 48 operations that map axes onto axes.

Structures in files lie along the axes, and so do the faults of local frames and of ties; random orientations never
meet them. A calculator that takes no tilted cell can be evaluated in these orientations alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from goniometer.potentials.base import Potential, checked, placed
from goniometer.progress import Advance
from goniometer.rotations import Rule
from goniometer.structures.rotation import turned
from goniometer.symmetrization import Response, response

#: Evaluates the back-rotated response of a structure at elements of O(3).
Respond = Callable[[Atoms, Float64[np.ndarray, "M 3 3"], Advance | None], Response]

# An element keeps an axis along an axis if one of its entries is ±1 to this.
_ALIGNED = 1e-9


def anywhere(potential: Potential) -> Respond:
    """Evaluates rotated copies as the potential does it."""

    def respond(structure: Atoms, matrices: np.ndarray, progress: Advance | None = None) -> Response:
        return response(potential, structure, matrices, progress)

    return respond


def along_axes(potential: Potential) -> Respond:
    """Evaluates copies under signed permutations of the axes, each in a cell along the axes as the structure's own.

    A lattice vector is as good as its negative, and the order of the vectors does not matter: of a box along x, y and z
    every copy is a box along x, y and z.
    """

    def respond(structure: Atoms, matrices: np.ndarray, progress: Advance | None = None) -> Response:
        parts = []
        free = placed(structure, structure.positions)
        for matrix in matrices:
            copy = turned(free, matrix)
            place = np.abs(matrix).argmax(axis=1)  # the axis of the structure that comes to lie along each axis
            signs = matrix[np.arange(3), place]
            copy.set_cell(signs[:, None] * copy.cell.array[place], scale_atoms=False)
            copy.pbc = structure.pbc[place]
            prediction = checked(potential.predict(copy), copy, potential.name)
            virials = None if prediction.virials is None else matrix.T @ prediction.virials @ matrix
            parts.append(Response(matrix[None], prediction.energies, prediction.forces @ matrix, virials))
            if progress is not None:
                progress(1)
        return joined_responses(parts)

    return respond


def is_box(structure: Atoms) -> bool:
    """Whether the cell vectors lie along x, y and z (or are zero)."""
    return bool(np.all(structure.cell.array == np.diag(np.diag(structure.cell.array))))


def aligned_weight(matrices: Float64[np.ndarray, "K 3 3"], weights: Float64[np.ndarray, " K"]) -> float:
    """The weight of the elements of a rule that keep some axis along an axis."""
    return float(weights[(np.abs(matrices) > 1.0 - _ALIGNED).any(axis=(1, 2))].sum())


def averaged_over_copies(rule: Rule, copies: Float64[np.ndarray, "M 3 3"]) -> Float64[np.ndarray, "M M"] | None:
    """Weights (M, M) that make averages over a rule, on each copy h of a structure, from the response at all copies.

    The copies form a group; the average on h·x is Σ_k w_k r(q_k h). None if an element of the rule is not among them.
    """
    if len(rule) > len(copies):
        return None
    places = {np.rint(copy).astype(int).tobytes(): place for place, copy in enumerate(copies)}
    weights = np.zeros((len(copies), len(copies)))
    for matrix, weight in zip(rule.matrices, rule.weights, strict=True):
        if np.abs(matrix - np.rint(matrix)).max() > _ALIGNED or np.rint(matrix).astype(int).tobytes() not in places:
            return None
        for row, copy in enumerate(copies):
            weights[row, places[np.rint(matrix @ copy).astype(int).tobytes()]] += weight
    return weights


def joined_responses(parts: Sequence[Response]) -> Response:
    """Responses at some elements each as one."""
    virials = [part.virials for part in parts if part.virials is not None]
    return Response(
        np.concatenate([part.matrices for part in parts]),
        np.concatenate([part.energies for part in parts]),
        np.concatenate([part.forces for part in parts]),
        np.concatenate(virials) if len(virials) == len(parts) else None,
    )


def part_of(whole: Response, part: slice | np.ndarray) -> Response:
    """The response at some of the elements."""
    virials = None if whole.virials is None else whole.virials[part]
    return Response(whole.matrices[part], whole.energies[part], whole.forces[part], virials)
