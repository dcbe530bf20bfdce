"""Structures with energies and forces: reading them, what they must have, and the hash that identifies each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from jaxtyping import Float64

from goniometer.errors import InputError
from goniometer.structures.reading import check_structure, read_structures


class Labelled(NamedTuple):
    """A structure with its energy (eV) and forces (N, 3) in eV/Å, and what reports call it."""

    name: str
    atoms: Atoms
    energy: float
    forces: Float64[np.ndarray, "N 3"]

    @property
    def hash(self) -> str:
        """See :func:`structure_hash`."""
        return structure_hash(self.atoms)


def structure_hash(atoms: Atoms) -> str:
    """The identity of a geometry: SHA-256, shortened to 16 digits, of elements, cell, and positions to 10⁻⁵ Å.

    Labels do not count, the order of the atoms does. Rounding lets a structure keep its hash through a text file.
    """
    digest = hashlib.sha256()
    for part in (atoms.numbers, atoms.pbc, atoms.cell.array * 1e5, atoms.positions * 1e5):
        digest.update(np.rint(part).astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def read_labelled(sources: Iterable[Any]) -> list[Labelled]:
    """Read structures with their labels, as :func:`goniometer.structures.read_structures` does.

    Raises :class:`InputError` with the name of the first structure that is senseless or whose energy or forces are
    missing, not finite, or of the wrong shape.
    """
    found = []
    for name, atoms in read_structures(sources):
        check_structure(atoms, name)
        found.append(labelled(name, atoms))
    return found


def labelled(name: str, atoms: Atoms) -> Labelled:
    """The structure with the labels it carries, checked."""
    energy = _label(atoms, "energy", name)
    forces = _label(atoms, "forces", name)
    if forces.shape != (len(atoms), 3):
        raise InputError(f"{name}: the forces have the shape {forces.shape}; they must be ({len(atoms)}, 3)")
    if energy.shape != ():
        raise InputError(f"{name}: the energy has the shape {energy.shape}; it must be one number, in eV")
    return Labelled(name, atoms, float(energy), forces)


def _label(atoms: Atoms, what: str, name: str) -> np.ndarray:
    value = None
    if atoms.calc is not None:
        try:
            # From the results, and not through a getter, which checks shapes in its own words or calculates.
            value = atoms.calc.results.get(what) if hasattr(atoms.calc, "results") else None
        except PropertyNotImplementedError:
            value = None
    if value is None:
        value = atoms.info.get("energy") if what == "energy" else atoms.arrays.get("forces")
    if value is None:
        raise InputError(
            f"{name}: there is no {what}; training data needs 'energy' (eV) for each structure and 'forces' (eV/Å) for "
            "each atom, under these names"
        )
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name}: the {what} is no number") from None
    if not np.isfinite(array).all():
        raise InputError(f"{name}: the {what} {'is' if what == 'energy' else 'are'} not finite (NaN or infinity)")
    return array


def composition_baseline(samples: Sequence[Labelled]) -> dict[int, float]:
    """Energy of each element, eV: the least-squares fit of the total energies by the composition, of least norm."""
    elements = sorted({int(number) for sample in samples for number in sample.atoms.numbers})
    counts = np.array([[np.count_nonzero(sample.atoms.numbers == z) for z in elements] for sample in samples])
    energies = np.array([sample.energy for sample in samples])
    fitted = np.linalg.lstsq(counts.astype(float), energies, rcond=None)[0]
    return dict(zip(elements, fitted.tolist(), strict=True))
