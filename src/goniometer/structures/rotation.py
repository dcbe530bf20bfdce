"""Whole structures, rotated: everything that has a direction rotates with the positions and the cell."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import ase.constraints as ase_constraints
import numpy as np
from ase import Atoms
from jaxtyping import Float64

from goniometer.errors import InputError
from goniometer.structures.vectors import Matrix, rotated_values

Cells = Float64[np.ndarray, "*batch 3 3"]


def turned(atoms: Atoms, matrix: Matrix) -> Atoms:
    """A copy of a structure rotated by R, an element of O(3): x → x Rᵀ for positions and cell (row vectors).

    The cell of the copy is right-handed, see :func:`right_handed`: an improper R inverts the positions in the rotated
    cell that is kept, and a left-handed cell is replaced by the right-handed one of the same lattice.

    Momenta, velocities and forces rotate as vectors, non-collinear magnetic moments (N, 3) as pseudovectors (with
    det R), arrays (N, 3, 3) as tensors, R T Rᵀ; anything else is copied as it is, unless
    :func:`goniometer.structures.declare_vectors` says what it is. Constraints rotate with the structure. Nothing
    is wrapped. The copy has no calculator and no stored results.

    Raises :class:`InputError` if the matrix is not orthogonal, or if a constraint cannot be expressed after the turn.
    """
    if matrix.shape != (3, 3) or not np.abs(matrix @ matrix.T - np.eye(3)).max() < 1e-9:
        raise InputError("a structure is turned by an orthogonal 3 × 3 matrix (R Rᵀ = 1), and this one is not")
    copy = atoms.copy()
    copy.constraints = [_turned_constraint(constraint, matrix) for constraint in atoms.constraints]
    cell = atoms.cell.array @ matrix.T
    copy.cell = right_handed(cell)
    if not np.array_equal(copy.cell.array, cell):
        copy.constraints = [_with_cell_reversed(constraint) for constraint in copy.constraints]
    copy.set_celldisp(matrix @ np.asarray(atoms.get_celldisp()).reshape(3))
    arrays, info = rotated_values(atoms, matrix)
    copy.arrays.update(arrays)
    copy.info.update(info)
    return copy


def handedness(cells: Cells) -> Float64[np.ndarray, "*batch 1 1"]:
    """−1 for cells whose determinant is negative and 1 for all others, those with fewer than three vectors included."""
    return np.asarray(np.where(np.linalg.det(cells) < 0.0, -1.0, 1.0))[..., None, None]


def right_handed(cells: Cells) -> Cells:
    """The cells with the vectors of each left-handed one reversed: a, b, c → −a, −b, −c.

    The lattice, the set of all integer combinations of the vectors, is the same, and so are positions, strains and
    virials. Many calculators reject a cell of negative determinant, find no neighbors in it, or divide the virial by
    its signed volume. Integer shifts of a neighbor list change their sign with the vectors.
    """
    return np.asarray(cells * handedness(cells))


# Constraints that speak of indices, distances, angles and scaled coordinates only.
_INVARIANT = (
    ase_constraints.FixAtoms,
    ase_constraints.FixBondLengths,
    ase_constraints.FixCom,
    ase_constraints.FixLinearTriatomic,
    ase_constraints.FixScaled,
    ase_constraints.FixScaledParametricRelations,
    ase_constraints.ExternalForce,
    ase_constraints.MirrorForce,
)
# The same with dihedral angles, which change their sign under an improper rotation.
_CHIRAL = (ase_constraints.FixInternals, ase_constraints.MirrorTorque)


def _turned_constraint(constraint: Any, matrix: Matrix) -> Any:
    if isinstance(constraint, _INVARIANT) or (isinstance(constraint, _CHIRAL) and np.linalg.det(matrix) > 0):
        return deepcopy(constraint)
    for kind, turn in _DIRECTED.items():
        if isinstance(constraint, kind):
            return turn(constraint, matrix)
    hint = " by an improper rotation" if isinstance(constraint, _CHIRAL) else ""
    raise InputError(
        f"the constraint {type(constraint).__name__} cannot be turned{hint}: remove it, or use FixAtoms, FixedPlane "
        "or FixedLine"
    )


def _with_cell_reversed(constraint: Any) -> Any:
    """The constraint where all cell vectors are reversed: scaled coordinates change their sign, s = J p + c as well."""
    if isinstance(constraint, ase_constraints.FixScaledParametricRelations):
        constraint.const_shift = -np.asarray(constraint.const_shift)
    return constraint


def _turned_direction(constraint: Any, matrix: Matrix) -> Any:
    copy = deepcopy(constraint)
    copy.dir = matrix @ copy.dir
    return copy


def _turned_mode(constraint: Any, matrix: Matrix) -> Any:
    copy = deepcopy(constraint)
    copy.mode = (copy.mode.reshape(-1, 3) @ matrix.T).ravel()
    return copy


def _turned_cartesian(constraint: Any, matrix: Matrix) -> Any:
    """Fixed axes stay axes under a signed permutation; else one is a fixed plane, two are a fixed line."""
    index, mask = constraint.index.copy(), constraint.mask
    projector = matrix @ np.diag(mask.astype(float)) @ matrix.T
    diagonal = np.diag(projector)
    if np.abs(projector - np.diag(np.round(diagonal))).max() < 1e-9:
        return ase_constraints.FixCartesian(index, mask=diagonal > 0.5)
    if mask.sum() == 1:
        return ase_constraints.FixedPlane(index, matrix @ mask.astype(float))
    return ase_constraints.FixedLine(index, matrix @ (~mask).astype(float))


def _turned_hookean(constraint: Any, matrix: Matrix) -> Any:
    copy = deepcopy(constraint)
    if copy._type == "point":
        copy.origin = matrix @ copy.origin
    elif copy._type == "plane":
        *normal, offset = copy.plane
        copy.plane = (*(matrix @ np.array(normal)), offset)
    return copy


_DIRECTED: dict[type, Callable[[Any, Matrix], Any]] = {
    ase_constraints.FixedPlane: _turned_direction,
    ase_constraints.FixedLine: _turned_direction,
    ase_constraints.FixedMode: _turned_mode,
    ase_constraints.FixCartesian: _turned_cartesian,
    ase_constraints.Hookean: _turned_hookean,
}
