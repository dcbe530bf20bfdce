"""The likely cause where forces or virials are not derivatives of the energy: each candidate is tried on the numbers.

A candidate is a mistake that front ends are known to make, and a way to undo it; it is named if undoing it makes the
forces or virials of all copies agree with differences of their energies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import ase.units
import numpy as np
from ase import Atoms
from ase.cell import Cell
from jaxtyping import Float64
from scipy.spatial.transform import Rotation

from goniometer.potentials.derivatives import central
from goniometer.structures import turned

if TYPE_CHECKING:
    from goniometer.symmetrization.verification import Copies

#: How well a candidate must agree, as a share of the largest slope or virial component.
_AGREES = 0.02
_DIRECTIONS = 3
_STEP, _STRAIN = 0.01, 0.002
#: Energies that agree to this share of their variation are the same energies.
_SAME = 1e-6

#: Units of energy relative to eV, of forces to eV/Å and of stresses to eV/Å³: what a number in them is too large by.
_ENERGY = {
    "kcal/mol": ase.units.mol / ase.units.kcal,
    "kJ/mol": ase.units.mol / ase.units.kJ,
    "hartree": 1.0 / ase.units.Hartree,
    "Ry": 1.0 / ase.units.Rydberg,
    "meV": 1e3,
}
FORCE_UNITS = {
    **{f"{name}/Å": factor for name, factor in _ENERGY.items()},
    "hartree/bohr": ase.units.Bohr / ase.units.Hartree,
    "Ry/bohr": ase.units.Bohr / ase.units.Rydberg,
    "eV/bohr": ase.units.Bohr,
    "eV/nm": 10.0,
    "kJ/mol/nm": 10.0 * ase.units.mol / ase.units.kJ,
}
STRESS_UNITS = {
    "GPa": 1.0 / ase.units.GPa,
    "kbar": 10.0 / ase.units.GPa,
    "MPa": 1e3 / ase.units.GPa,
    "bar": 1e4 / ase.units.GPa,
    "atm": 1e5 / 1.01325 / (10.0 * ase.units.GPa),
    "Pa": 1e9 / ase.units.GPa,
    "hartree/bohr³": ase.units.Bohr**3 / ase.units.Hartree,
    "Ry/bohr³": ase.units.Bohr**3 / ase.units.Rydberg,
    "eV/bohr³": ase.units.Bohr**3,
    "kcal/mol/Å³": ase.units.mol / ase.units.kcal,
    "kJ/mol/Å³": ase.units.mol / ase.units.kJ,
}
_VOIGT = {
    (0, 1, 2): "yz xz xy",
    (2, 1, 0): "xy xz yz",
    (1, 0, 2): "xz yz xy",
    (0, 2, 1): "yz xy xz",
    (1, 2, 0): "xz xy yz",
    (2, 0, 1): "xy yz xz",
}
_OFF = ((1, 2), (0, 2), (0, 1))


# ---- the cell -------------------------------------------------------------------------------------------------------


def cell_fault(sample: Copies) -> str | None:
    """Whether the model is handed another cell than that of the structure, from the energy of a rotated copy.

    If the energy does not change where the cell is replaced by one that holds less (its lengths, its diagonal), but
    does when the cell is stretched, the model saw no more than that.
    """
    structure = sample.structure
    if not structure.pbc.all():
        return None
    rotation = Rotation.from_rotvec([0.7, -0.4, 1.1]).as_matrix()
    copy = turned(structure, rotation)
    cell = copy.cell.array
    own, given = _energy(sample, structure), _energy(sample, copy)
    variation = abs(given - own)
    if variation <= 20.0 * sample.noise:
        return None
    if abs(
        _energy(sample, _with_cell(copy, cell.T)) - _energy(sample, _with_cell(structure, structure.cell.array.T))
    ) < (1e-3 * variation):
        return "the cell is transposed on its way to the model: its rows, not its columns, are the cell vectors"
    lengths, diagonal = np.diag(copy.cell.lengths()), np.diag(np.diag(cell))
    partial = {
        "only the lengths of the cell vectors reach the model, not their directions": lengths,
        "only the diagonal of the cell reaches the model": diagonal,
        "elements of the cell above its diagonal are ignored by the model": np.tril(cell),
        "elements of the cell below its diagonal are ignored by the model": np.triu(cell),
        "only lengths and angles of the cell reach the model, and positions are not rotated into the standard cell "
        "that it makes of them": copy.cell.standard_form()[0].array,
    }
    for said, handed in partial.items():
        if abs(np.linalg.det(handed)) < 1e-6 * abs(np.linalg.det(cell)) or np.allclose(handed, cell):
            continue
        same = abs(_energy(sample, _with_cell(copy, handed)) - given) <= _SAME * variation + 4.0 * sample.noise
        if same and abs(_energy(sample, _with_cell(copy, 1.02 * handed)) - given) > 1e-3 * variation:
            return said
    return None


def _with_cell(structure: Atoms, cell: np.ndarray) -> Atoms:
    copy = structure.copy()
    copy.cell = cell
    return copy


def _energy(sample: Copies, structure: Atoms) -> float:
    return float(sample.potential.predict(structure).energies[0])


# ---- forces ---------------------------------------------------------------------------------------------------------


def force_fault(sample: Copies, missed: np.ndarray) -> str:
    """What is wrong with forces that are not minus the gradient in the copies that ``missed`` marks."""
    rng = np.random.default_rng(3)
    directions = rng.standard_normal((_DIRECTIONS, *sample.structure.positions.shape))
    slopes = np.array([central(sample.displaced(each), _STEP) for each in directions])
    forces = sample.response.forces
    laboratory = forces @ sample.matrices.swapaxes(1, 2)

    def agrees(candidate: np.ndarray) -> bool:
        return _close(-np.einsum("kia,dia->dk", candidate, directions), slopes)

    undone = {"their sign is opposite": -forces}
    if sample.structure.cell.rank == 3:
        back = _from_standard(sample)
        undone["they are not rotated back from the standard orientation of the cell (a along x, b in the xy plane)"] = (
            laboratory @ back @ sample.matrices
        )
    undone["they are not rotated back into the orientation of the copy"] = laboratory
    for said, candidate in undone.items():
        if agrees(candidate):
            return f"the forces are not minus the gradient of the energy: {said}"
    claimed = -np.einsum("kia,dia->dk", forces, directions)
    factor = _ratio(claimed, slopes)
    if factor is not None:
        return f"the forces are not minus the gradient of the energy: they are {_unit(factor, FORCE_UNITS, 'eV/Å')}"
    return _where(sample, missed, "forces", "minus the gradient of the energy", "they are not rotated back")


def _from_standard(sample: Copies) -> np.ndarray:
    """The rotations that lead from the standard form of each cell back to it, for row vectors, (M, 3, 3)."""
    cells = [turned(sample.structure, matrix).cell for matrix in sample.matrices]
    return np.array([cell.standard_form()[1] for cell in cells])


# ---- virials --------------------------------------------------------------------------------------------------------


def virial_fault(sample: Copies, missed: np.ndarray) -> str:
    """What is wrong with virials that are not strain derivatives in the copies that ``missed`` marks."""
    assert sample.virials is not None  # the caller has compared them
    measured = measured_virials(sample)
    turn, back = sample.matrices, sample.matrices.swapaxes(1, 2)
    claimed, true = turn @ sample.virials @ back, turn @ measured @ back
    wrong = "the stress is not the derivative of the energy with respect to strain: "
    cells = [turned(sample.structure, matrix).cell for matrix in turn]
    found = virial_cause(claimed, true, cells, len(sample.structure))
    if found is not None:
        return wrong + found
    if _close(sample.virials, turn @ measured @ back) or _close(turn @ claimed @ back, true):
        return f"{wrong}it is not rotated with the copy"
    improper = np.linalg.det(turn) < 0.0
    if _close(np.where(improper[:, None, None], -claimed, claimed), true):
        return f"{wrong}the stress of inverted copies has the opposite sign, as that of a left-handed cell often has"
    return _where(
        sample, missed, "stress", "the derivative of the energy with respect to strain", "it is not rotated back"
    )


def measured_virials(sample: Copies) -> Float64[np.ndarray, "M 3 3"]:
    """Symmetric virials from differences of energies, in the frame of the structure, in eV."""
    virials = np.zeros((len(sample.matrices), 3, 3))
    for a in range(3):
        for b in range(a + 1):
            strain = np.zeros((3, 3))
            strain[a, b] += 0.5
            strain[b, a] += 0.5
            virials[:, a, b] = virials[:, b, a] = central(sample.strained(strain), _STRAIN)
    return virials


def virial_cause(
    claimed: Float64[np.ndarray, "M 3 3"], true: Float64[np.ndarray, "M 3 3"], cells: Sequence[Cell], atoms: int
) -> str | None:
    """The mistake that turns symmetric virials into claimed ones, the same in every copy, each in its own frame."""
    back = np.array([cell.standard_form()[1] for cell in cells if cell.rank == 3])
    if len(back) == len(claimed) and _close(back.swapaxes(1, 2) @ claimed @ back, true):
        return "it is not rotated back from the standard orientation of the cell (a along x, b in the xy plane)"
    for said, undo in _undone():
        for sign in (1.0, -1.0):
            if _close(sign * undo(claimed), true):
                opposite = "" if sign > 0 else ", and its sign is opposite"
                return said + opposite if said else "its sign is opposite (ASE counts tension as positive)"
    factor = _ratio(claimed, true)
    if factor is not None:
        volume = float(cells[0].volume) if cells[0].rank == 3 else 1.0
        special = {
            "it is a virial, a stress times the volume": volume,
            "it is a stress where a virial, a stress times the volume, belongs": 1.0 / volume,
            "it is a stress per atom": 1.0 / atoms,
        }
        for said, off in special.items():
            if abs(abs(factor) * off - 1.0) < 0.01 and abs(off - 1.0) > 0.05:
                return said + (", and its sign is opposite" if factor < 0 else "")
        return f"it is {_unit(factor, STRESS_UNITS, 'eV/Å³')}"
    return _parts(claimed, true)


def _undone() -> Iterator[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    """Mistakes in the order and the counting of components, each with what undoes it."""
    yield "", lambda w: w
    for order, name in _VOIGT.items():
        if order != (0, 1, 2):
            said = f"its shear components are in the order {name}, and ASE's is yz xz xy (Voigt order)"
            yield said, lambda w, order=order: _with_shear(w, _shear(w)[:, np.argsort(order)])  # type: ignore[misc]
    trace = lambda w: np.trace(w, axis1=1, axis2=2)[:, None, None] * np.eye(3)  # noqa: E731
    diagonal = lambda w: w * np.eye(3)  # noqa: E731
    yield "its diagonal components are twice what they should be", lambda w: w - 0.5 * diagonal(w)
    yield "its diagonal components are half of what they should be", lambda w: w + diagonal(w)
    yield "its shear components are twice what they should be", lambda w: 0.5 * (w + diagonal(w))
    yield "its shear components are half of what they should be", lambda w: 2.0 * w - diagonal(w)
    yield "its trace is added twice", lambda w: w - trace(w) / 6.0
    yield "its trace, not a third of it, is on the diagonal", lambda w: w - 2.0 * trace(w) / 9.0


def _shear(virials: np.ndarray) -> np.ndarray:
    return np.stack([virials[:, a, b] for a, b in _OFF], axis=1)


def _with_shear(virials: np.ndarray, shear: np.ndarray) -> np.ndarray:
    changed = virials.copy()
    for place, (a, b) in enumerate(_OFF):
        changed[:, a, b] = changed[:, b, a] = shear[:, place]
    return changed


def _parts(claimed: np.ndarray, true: np.ndarray) -> str | None:
    """Which components are wrong, if the others are right."""
    miss = np.abs(claimed - true).max(axis=0)
    wrong = miss > 1e-3 * np.abs(true).max()
    diagonal, off = np.diag(wrong), wrong[~np.eye(3, dtype=bool)]
    names = [name for name, (a, b) in zip(("yz", "xz", "xy"), _OFF, strict=True) if wrong[a, b]]
    if diagonal.any() and not off.any():
        return (
            "its diagonal components are wrong and its shear components right: is it made by differences that do not "
            "deform a tilted cell as a whole?"
        )
    if off.any() and not diagonal.any():
        return (
            f"its diagonal components are right and {', '.join(names)} wrong: is one side taken of a stress that is "
            "not symmetric, or a factor of two missing?"
        )
    return None


# ---- common ---------------------------------------------------------------------------------------------------------


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one - other).max() <= _AGREES * max(float(np.abs(other).max()), 1e-12))


def _ratio(claimed: np.ndarray, true: np.ndarray) -> float | None:
    """claimed / true, if one number says it all."""
    across, square = float(np.vdot(claimed, true)), float(np.vdot(true, true))
    if square == 0.0 or across == 0.0:
        return None
    factor = across / square
    return factor if abs(factor - 1.0) > 0.03 and _close(claimed / factor, true) else None


def _unit(factor: float, units: dict[str, float], right: str) -> str:
    sign = ", and of the opposite sign" if factor < 0 else ""
    for unit, off in units.items():
        if abs(abs(factor) / off - 1.0) < 0.01:
            return f"in {unit} where {right} is expected{sign}"
    return f"{abs(factor):.5g} times too large{sign}: is the unit {right}?"


def _where(sample: Copies, missed: np.ndarray, name: str, what: str, likely: str) -> str:
    """The orientations in which a derivative is missed, where no single mistake explains it."""
    improper = np.linalg.det(sample.matrices) < 0.0
    are = "are" if name == "forces" else "is"
    if missed[0] or missed.all():
        hint = (
            " (forces that a model predicts by themselves are declared as non-conservative)" if name == "forces" else ""
        )
        return f"the {name} {are} not {what}, in the input orientation as in others{hint}"
    where = "inverted" if not missed[~improper].any() else "rotated"
    return f"the {name} {are} {what} in the input orientation and not in {where} copies: {likely}, or a cell is misread"
