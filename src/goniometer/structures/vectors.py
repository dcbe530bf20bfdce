"""What in a structure is a vector, and how it changes under a rotation; names that are not known can be declared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from goniometer.errors import InputError

Matrix = Float64[np.ndarray, "3 3"]

#: ``rotate``: a polar vector or a tensor, v → R v. ``axial``: a pseudovector, v → det(R) R v. ``leave``: v → v.
Role: TypeAlias = Literal["rotate", "axial", "leave"]
ROLES: tuple[str, ...] = get_args(Role)
#: The entry of ``info`` that holds the declared roles by name; copies of a structure and extended XYZ files keep it.
DECLARED = "vector_roles"
#: Per-atom arrays (N, 3) that are vectors; one of another name may be anything (a colour, scaled coordinates).
POLAR_ARRAYS = ("positions", "momenta", "velocities", "forces", "dipoles")
#: Per-atom arrays that, if they are (N, 3), are pseudovectors: they are rotated by det(R) R.
AXIAL_ARRAYS = ("initial_magmoms", "magmoms")
#: Entries of ``info`` that are tensors (3, 3) and vectors (3,).
INFO_TENSORS = ("stress", "virial")
INFO_VECTORS = ("dipole",)


def declare_vectors(structures: Iterable[Atoms], roles: Mapping[str, str]) -> None:
    """Say how entries of ``arrays`` and ``info`` change when a structure is rotated, in every structure that has them.

    Parameters
    ----------
    structures
        They are changed: the entry :data:`DECLARED` of their ``info`` holds the roles.
    roles
        Name to ``rotate``, ``axial`` or ``leave``. Arrays (N, 3) and entries (3,) are vectors, (N, 3, 3) and (3, 3)
        are tensors.

    Raises
    ------
    InputError
        For another role, a name that no structure has, and values that are neither vectors nor tensors.
    """
    for name, role in roles.items():
        if role not in ROLES:
            raise InputError(f"the role of the vector '{name}' is {', '.join(ROLES[:-1])} or {ROLES[-1]}, not '{role}'")
        if name in ("positions", "numbers"):
            raise InputError(f"'{name}' always changes with the structure: it cannot be declared")
    missing = set(roles)
    for atoms in structures:
        found = {name: role for name, role in roles.items() if name in atoms.arrays or name in atoms.info}
        for name, role in found.items():
            if role != "leave" and not _can_change(atoms, name):
                shape = _shape(atoms.arrays[name] if name in atoms.arrays else atoms.info[name])
                raise InputError(
                    f"'{name}' has the shape {shape}, which is no vector or tensor of {len(atoms)} atoms: it cannot "
                    f"be declared as {role}"
                )
        if found:
            atoms.info[DECLARED] = {**atoms.info.get(DECLARED, {}), **found}
        missing -= set(found)
    if missing:
        raise InputError(f"no structure holds '{sorted(missing)[0]}' in its arrays or info: it cannot be a vector")


def _can_change(atoms: Atoms, name: str) -> bool:
    """Whether there are numbers in the shape of vectors or tensors under this name."""
    array, entry = atoms.arrays.get(name), atoms.info.get(name)
    in_arrays = array is not None and _rank_of_array(array, len(atoms)) > 0 and array.dtype.kind in "fiu"
    in_info = entry is not None and _rank_of_entry(entry, len(atoms)) > 0 and np.asarray(entry).dtype.kind in "fiu"
    return in_arrays or in_info


def rotated_values(atoms: Atoms, matrix: Matrix) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Per-atom arrays and entries of ``info`` that change under an element R of O(3), after it: v → R v, T → R T Rᵀ."""
    axial = np.sign(np.linalg.det(matrix))
    arrays = {name: _rotated(atoms.arrays[name], rank, matrix, sign) for name, rank, sign in _arrays(atoms, axial)}
    info = {name: _rotated(atoms.info[name], rank, matrix, sign) for name, rank, sign in _entries(atoms, axial)}
    return arrays, info


def undeclared(atoms: Atoms) -> list[str]:
    """Names of what looks like a vector or tensor, has no known name, and was not declared: it is left as it is."""
    declared = atoms.info.get(DECLARED, {})
    arrays = [
        name
        for name, values in atoms.arrays.items()
        if name not in declared
        and _rank_of_array(values, len(atoms)) == 1
        and values.dtype.kind == "f"
        and not _known(name)
    ]
    entries = [
        name
        for name, value in atoms.info.items()
        if name not in declared
        and name not in (*INFO_TENSORS, *INFO_VECTORS)
        and not isinstance(value, str | dict)
        and _rank_of_entry(value, len(atoms)) > 0
        and np.asarray(value).dtype.kind == "f"
    ]
    return arrays + entries


def directed(atoms: Atoms) -> list[str]:
    """Names of vectors and tensors besides the positions and momenta that change under a rotation."""
    names = [name for name, *_ in (*_arrays(atoms, 1.0), *_entries(atoms, 1.0))]
    return [name for name in names if name not in ("positions", "momenta")]


def vector_notes(structures: Iterable[tuple[str, Atoms]]) -> list[str]:
    """One sentence for each name that :func:`undeclared` finds, with the first structure that has it."""
    found: dict[str, str] = {}
    for label, atoms in structures:
        for name in undeclared(atoms):
            found.setdefault(name, label)
    return [
        f"'{name}' of {label} looks like a vector, and is left as it is when the structure is rotated: declare it by "
        f"--vector {name}=rotate, {name}=axial or {name}=leave"
        for name, label in found.items()
    ]


def _known(name: str) -> bool:
    return name in POLAR_ARRAYS or name in AXIAL_ARRAYS or name.lower().endswith("forces")


def _arrays(atoms: Atoms, axial: float) -> Iterator[tuple[str, int, float]]:
    """Names of arrays that change, each with its rank, and the sign of det(R) if it is axial."""
    declared = atoms.info.get(DECLARED, {})
    for name, values in atoms.arrays.items():
        rank, role = _rank_of_array(values, len(atoms)), declared.get(name)
        if role is None and (rank == 2 or _known(name)):
            role = "axial" if name in AXIAL_ARRAYS else "rotate"
        if rank and role in ("rotate", "axial"):
            yield name, rank, axial if role == "axial" else 1.0


def _entries(atoms: Atoms, axial: float) -> Iterator[tuple[str, int, float]]:
    declared = atoms.info.get(DECLARED, {})
    for name, value in atoms.info.items():
        rank, role = _rank_of_entry(value, len(atoms)), declared.get(name)
        if role is None and ((name in INFO_TENSORS and rank == 2) or (name in INFO_VECTORS and _shape(value) == (3,))):
            role = "rotate"
        if rank and role in ("rotate", "axial"):
            yield name, rank, axial if role == "axial" else 1.0


def _rank_of_array(values: np.ndarray, atoms: int) -> int:
    """1 of a vector an atom, 2 of a tensor an atom, 0 of anything else."""
    return {(atoms, 3): 1, (atoms, 3, 3): 2}.get(values.shape, 0)


def _rank_of_entry(value: Any, atoms: int) -> int:
    """1 of a vector, or one an atom; 2 of a tensor; 0 of anything else."""
    return {(atoms, 3): 1, (3,): 1, (3, 3): 2}.get(_shape(value), 0)


def _shape(value: Any) -> tuple[int, ...]:
    try:
        return np.shape(value)
    except ValueError:  # of lists that are not all alike
        return ()


def _rotated(values: Any, rank: int, matrix: Matrix, sign: float) -> np.ndarray:
    given = np.asarray(values)
    return np.asarray(sign * (matrix @ given @ matrix.T if rank == 2 else given @ matrix.T))
