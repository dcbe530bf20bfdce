"""Checks in rotated and inverted copies, and of the same lattice with all cell vectors reversed."""

from __future__ import annotations

import numpy as np

from goniometer.errors import GoniometerError
from goniometer.potentials.base import Prediction
from goniometer.symmetrization.diagnosis import cell_fault, force_fault, virial_fault
from goniometer.symmetrization.verification import cancelled, copies, misses_of_forces, misses_of_virials
from goniometer.testing.subject import CheckItem, Subject


def check_rotated(subject: Subject) -> list[CheckItem]:
    """Forces and virials of rotated and inverted copies are derivatives of the energies of these copies."""
    names = ("cell", "rotated forces", "rotated virial")
    if subject.potential.stochastic:
        return [CheckItem(name, True, "skipped: the potential is stochastic", skipped=True) for name in names]
    sample = copies(subject.potential, subject.structure, subject.matrices)
    conservative = subject.potential.conservative
    rng = np.random.default_rng(1)
    cell = cell_fault(sample)
    items = [CheckItem("cell", cell is None, cell or "the model sees the cell that it is handed")]
    for name, values, misses, fault in (
        ("forces", sample.response.forces, misses_of_forces, force_fault),
        ("virial", sample.virials, misses_of_virials, virial_fault),
    ):
        if values is None:
            items.append(CheckItem(f"rotated {name}", True, "skipped: there is no virial here", skipped=True))
            continue
        said = cancelled(name, values, sample.matrices)
        if conservative:
            missed = misses(sample, rng)
            said = (cell or fault(sample, missed)) if missed.any() else None
        what = "are derivatives of the energy" if conservative else "do not cancel, and claim to be no derivatives"
        right = f"in rotated and inverted copies the {name} {what if name == 'forces' else what.replace('are', 'is')}"
        items.append(CheckItem(f"rotated {name}", said is None, said or right))
    return items


def check_reversed_cell(subject: Subject) -> CheckItem:
    """The cell −a, −b, −c spans the same lattice."""
    name, structure = "reversed cell", subject.structure
    if structure.cell.rank < 3 or not structure.pbc.any():
        return CheckItem(name, True, "skipped: there are not three cell vectors to reverse", skipped=True)
    reversed_ = structure.copy()
    reversed_.cell = -structure.cell.array
    found = subject.potential.predict(reversed_)
    wrong = _differing(subject, found)
    if subject.potential.stochastic:
        return CheckItem(name, True, "skipped: the potential is stochastic", skipped=True)
    if wrong:
        return CheckItem(name, False, f"{wrong} change where all cell vectors are reversed, which is the same lattice")
    itself = _of_the_calculator(subject)
    said = "reversing all cell vectors, the same lattice, changes nothing"
    return CheckItem(name, True, f"{said}{itself}", warning=bool(itself))


def _differing(subject: Subject, found: Prediction) -> str:
    """Names of the quantities that are not those of the structure."""
    reference, noise = subject.reference, subject.noise
    parts = {
        "energy": (found.energies, reference.energies, noise.energy),
        "forces": (found.forces, reference.forces, noise.forces),
        "virial": (found.virials, reference.virials, noise.virial),
    }
    return ", ".join(
        name
        for name, (one, other, allowed) in parts.items()
        if one is not None and other is not None and np.abs(one - other).max() > 2.0 * allowed
    )


def _of_the_calculator(subject: Subject) -> str:
    """What an ASE calculator makes of a left-handed cell, which it is not handed here."""
    as_handed = getattr(subject.potential, "as_handed", None)
    if as_handed is None:
        return ""
    left = subject.structure.copy()
    left.cell = -np.sign(np.linalg.det(left.cell.array)) * left.cell.array
    hint = ": other programs must hand it right-handed cells, as is done here"
    try:
        found = as_handed(left)
    except GoniometerError as error:
        return f", but the calculator itself fails on left-handed cells ({error}){hint}"
    wrong = _differing(subject, found)
    if not wrong:
        return ""
    opposite = found.virials is not None and subject.reference.virials is not None and wrong == "virial"
    if opposite and np.abs(found.virials + subject.reference.virials).max() <= 2.0 * subject.noise.virial:
        return f", but the calculator itself gives the stress of a left-handed cell the opposite sign{hint}"
    return f", but the calculator itself changes {wrong} for left-handed cells{hint}"
