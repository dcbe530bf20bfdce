"""The adapter contract: what every potential must do, put to the test on structures of your own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms

from goniometer.errors import GoniometerError, InputError, PotentialError
from goniometer.potentials.base import Potential, Prediction
from goniometer.testing.differences import (
    check_forces,
    check_rotational_gradient,
    check_units,
    check_virial,
    force_slopes,
)
from goniometer.testing.rotated import check_reversed_cell, check_rotated
from goniometer.testing.subject import CheckItem, Subject

# Items that take copies in other orientations.
_OF_COPIES = ("order", "batched = single", "turned copies", "orientations seen")


@dataclass(frozen=True)
class CheckReport:
    """What :func:`check_potential` found: one item a rule, for the structure on which it holds worst."""

    potential: str
    items: list[CheckItem]

    @property
    def passed(self) -> bool:
        """Whether every rule holds."""
        return all(item.passed for item in self.items)

    @property
    def failed(self) -> list[str]:
        """The names of the rules that do not hold."""
        return [item.name for item in self.items if not item.passed]

    def raise_if_failed(self) -> None:
        """Raise a :class:`goniometer.errors.PotentialError` that names every rule that does not hold."""
        if not self.passed:
            broken = "; ".join(item.sentence for item in self.items if not item.passed)
            raise PotentialError(f"{self.potential} breaks the contract of a potential: {broken}")

    def __getitem__(self, name: str) -> CheckItem:
        return next(item for item in self.items if item.name == name)

    def __str__(self) -> str:
        width = max(len(item.name) for item in self.items)
        lines = [f"{self.potential}: {'passed' if self.passed else 'FAILED'}"]
        for item in self.items:
            number = "" if item.value is None else f" [{item.value:.2g}"
            if item.value is not None:
                number += f"{'' if item.tolerance is None else f', allowed {item.tolerance:.2g}'} {item.unit}]"
            lines.append(f"  {item.status:<4}  {item.name:<{width}}  {item.sentence}{number}")
        return "\n".join(lines)


def check_potential(potential: Potential, structures: Sequence[Atoms] | Atoms, *, seed: int = 0) -> CheckReport:
    """Check that a potential keeps the contract of :class:`goniometer.potentials.Potential` on the given structures.

    The structures are displaced at random by 0.02 Å, so that forces are not zero. The items are

    ====================  =======================================================================================
    copies                rotated and inverted copies can be evaluated; listed only where they cannot
    input                 structure and matrices are not changed by an evaluation
    predictions           as many as matrices; shapes, float64, finite; virials and energies of atoms as claimed
    order                 the k-th prediction is that of the k-th matrix
    batched = single      many matrices at once give what each gives alone (packed = single for isolated molecules)
    turned copies         ``turned`` agrees with whole structures turned, positions and cell, and predicted as they are
    orientations seen     energies vary over orientations if those of whole structures turned do, be it by rounding:
                          an adapter that turns the pair vectors alone varies by nothing at all
    determinism           two evaluations agree, or the potential says that it is stochastic
    forces                minus the gradient of the energy, or reported with how far from it if not conservative
    units                 energies (eV) and forces (eV/Å) fit each other; a factor common to both cannot be seen
    virial                ∂E/∂ε under symmetric strain of positions and cell
    rotational gradient   the virial's antisymmetric part, against finite rotations of atoms and cell
    cell                  the model sees the cell that it is handed: not its transpose, nor its lengths alone
    rotated forces        minus the gradient of the energy in rotated and in inverted copies
    rotated virial        ∂E/∂ε in rotated and in inverted copies
    reversed cell         the same prediction for −a, −b, −c, the same lattice, and whether the calculator bears it
    translation           reported only: the change under a rigid translation
    permutation           reported only: the change under a permutation of the atoms
    ====================  =======================================================================================

    Derivatives are taken numerically, to sixth order along random directions. Tolerances come from the noise that
    translations by some hundred roundings show, and from the dtype; a sentence says how finely a rule was resolved.
    A miss below 10⁻⁶ of the gradient, or below 2 % where smaller steps do not miss, is a warning that speaks of the
    cutoff. An item that cannot be tested is skipped, and says why. Constraints are not
    applied. It takes about 230 evaluations of a structure of up to 32 atoms and 150 of a larger one, and some hundred
    more to find the cause of a failure.

    Raises
    ------
    InputError
        If there is no structure, or the potential does not take one of them.
    PotentialError
        If the model fails.
    """
    structures = [structures] if isinstance(structures, Atoms) else list(structures)
    if not structures:
        raise InputError("a potential is checked on structures, and none was given; one or more would be right")
    rng = np.random.default_rng(seed)
    found: dict[str, list[CheckItem]] = {}
    for number, structure in enumerate(structures):
        label = f"structure {number} ({structure.get_chemical_formula()})"
        subject = Subject(potential, structure, rng, label)
        for item in _items(subject):
            found.setdefault(item.name, []).append(replace(item, sentence=f"{label}: {item.sentence}"))
    return CheckReport(potential.name, [max(items, key=lambda item: item.excess) for items in found.values()])


def _items(subject: Subject) -> Iterator[CheckItem]:
    failing = _failing_copies(subject)
    if failing is not None:
        yield CheckItem("copies", False, failing)
        subject.keep_orientation()
    yield _check_input(subject)
    predictions = _check_predictions(subject)
    yield predictions
    if not predictions.passed:
        return  # the other rules speak of numbers that are not there
    if failing is None:
        yield from _check_copies(subject)
    else:
        yield from (CheckItem(name, True, f"skipped: {failing}", skipped=True) for name in _OF_COPIES)
    yield _check_determinism(subject)
    yield from _or_skipped(("forces", "units"), lambda: _check_gradient(subject))
    yield from _or_skipped(("virial",), lambda: [check_virial(subject)])
    yield from _or_skipped(("rotational gradient",), lambda: [check_rotational_gradient(subject)])
    yield from _or_skipped(("cell", "rotated forces", "rotated virial"), lambda: check_rotated(subject))
    yield from _or_skipped(("reversed cell",), lambda: [check_reversed_cell(subject)])
    yield from _or_skipped(("translation",), lambda: [_report_translation(subject)])
    yield from _or_skipped(("permutation",), lambda: [_report_permutation(subject)])


def _failing_copies(subject: Subject) -> str | None:
    """Which transformed copies the potential fails on, and how; None if none.

    Raises the error of a potential that fails on the structure itself.
    """
    assert len(subject.reference) == 1
    proper = subject.matrices[np.linalg.det(subject.matrices) > 0.0][:1]
    for name, matrix in (("rotated", proper), ("inverted", -np.eye(3)[None])):
        try:
            list(subject.potential.turned(subject.structure, matrix))
        except PotentialError as error:
            option = {"rotated": "--without rotation", "inverted": "--no-inversion"}[name]
            return (
                f"the structure can be evaluated, {name} copies of it cannot ({error}); `goniometer probe {option}` "
                "measures what can be measured without them"
            )
    return None


def _check_gradient(subject: Subject) -> list[CheckItem]:
    slopes = force_slopes(subject)
    return [check_forces(subject, slopes), check_units(subject, slopes)]


def _or_skipped(names: Sequence[str], check: Callable[[], Sequence[CheckItem]]) -> Sequence[CheckItem]:
    """The items of a check, or the same items skipped if the potential fails on the structures that it needs."""
    try:
        return check()
    except GoniometerError as error:
        return [CheckItem(name, True, f"skipped: {error}", skipped=True) for name in names]


# ---- what goes in and what comes out --------------------------------------------------------------------------------


def _check_input(subject: Subject) -> CheckItem:
    given, matrices = subject.given.copy(), subject.matrices.copy()
    before = _contents(given)
    for _ in subject.potential.turned(given, matrices):
        pass
    after = _contents(given)
    changed = sorted(name for name in before.keys() | after.keys() if not _same(before.get(name), after.get(name)))
    if not np.array_equal(matrices, subject.matrices):
        changed.append("matrices")
    if changed:
        return CheckItem("input", False, f"an evaluation changes its input: {', '.join(changed)}")
    return CheckItem("input", True, "the input is not changed by an evaluation")


def _contents(structure: Atoms) -> dict[str, Any]:
    contents = {f"arrays['{name}']": values.copy() for name, values in structure.arrays.items()}
    contents |= {f"info['{name}']": deepcopy(value) for name, value in structure.info.items()}
    constraints = str([constraint.todict() for constraint in structure.constraints])
    rest = {"pbc": structure.pbc.copy(), "calculator": structure.calc, "constraints": constraints}
    return contents | {"cell": structure.cell.array.copy()} | rest


def _same(one: Any, other: Any) -> bool:
    try:
        np.testing.assert_equal(one, other)  # goes into arrays within dictionaries and lists
    except AssertionError:
        return False
    return True


def _check_predictions(subject: Subject) -> CheckItem:
    predictions = list(subject.potential.turned(subject.structure, subject.matrices))
    wrong = next((said for part in predictions if (said := _malformed(part, subject))), None)
    count = sum(len(part) for part in predictions)
    if wrong is None and count != len(subject.matrices):
        wrong = f"{count} predictions came for {len(subject.matrices)} matrices"
    sentence = wrong or "as many predictions as matrices, finite, float64 and of the right shapes"
    return CheckItem("predictions", wrong is None, sentence)


def _malformed(prediction: Prediction, subject: Subject) -> str | None:
    """What is wrong with the arrays of a prediction, in a sentence; None if nothing is."""
    copies, atoms = len(prediction.energies), len(subject.structure)
    kind, virials = subject.potential.virial, prediction.virials
    expected: dict[str, tuple[Any, tuple[int, ...]]] = {
        "energies": (prediction.energies, (copies,)),
        "forces": (prediction.forces, (copies, atoms, 3)),
    }
    if virials is not None:
        expected["virials"] = (virials, (copies, 3, 3))
    if prediction.atomic is not None:
        expected["energies of atoms"] = (prediction.atomic, (copies, atoms))
    for name, (values, shape) in expected.items():
        if not isinstance(values, np.ndarray) or values.dtype != np.float64:
            return f"{name} are {getattr(values, 'dtype', type(values).__name__)}, they must be a float64 array"
        if values.shape != shape:
            return f"{name} have the shape {values.shape}, they must have {shape}"
        if not np.isfinite(values).all():
            return f"{name} are not finite"
    if prediction.atomic is None and subject.potential.atomic:
        return "no energies of atoms are given, but the potential claims to have them"
    if prediction.atomic is not None and not np.allclose(
        prediction.atomic.sum(axis=1), prediction.energies, rtol=subject.eps * atoms, atol=subject.eps * atoms
    ):
        return "the energies of atoms do not sum to the energy"
    if kind == "none" and virials is not None:
        return "virials are given, but the potential claims to have none"
    if kind != "none" and virials is None and subject.structure.pbc.all():
        return f"no virials are given, but the potential claims to have them ({kind})"
    if kind == "symmetric" and virials is not None:
        skew = np.abs(virials - virials.transpose(0, 2, 1)).max()
        if skew > 64.0 * subject.eps * np.abs(virials).max():
            return f"virials are claimed to be symmetric and are not, by {skew:.2g} eV"
    return None


# ---- turned copies --------------------------------------------------------------------------------------------------


def _check_copies(subject: Subject) -> Iterator[CheckItem]:
    potential, structure, matrices = subject.potential, subject.structure, subject.matrices
    batched = Prediction.joined(potential.turned(structure, matrices))
    single = Prediction.joined([Prediction.joined(potential.turned(structure, matrix[None])) for matrix in matrices])
    whole = Prediction.joined([potential.predict(subject.turned(matrix)) for matrix in matrices])
    order, places = _check_order(subject, batched, single)
    yield order
    yield _agreement(
        "batched = single",
        "many copies at once give what each gives alone" + ("" if structure.pbc.any() else " (packed = single)"),
        "a copy among many is not given what it is given alone",
        _misses(subject, _taken(batched, places), single),
    )
    yield _agreement(
        "turned copies",
        "turned copies agree with whole structures turned",
        "turned copies are not what whole structures turned, positions and cell, are given",
        _misses(subject, single, whole),
    )
    yield _check_orientations(subject, single, whole)


def _taken(prediction: Prediction, places: np.ndarray) -> Prediction:
    virials = None if prediction.virials is None else prediction.virials[places]
    return Prediction(prediction.energies[places], prediction.forces[places], virials)


def _check_order(subject: Subject, batched: Prediction, single: Prediction) -> tuple[CheckItem, np.ndarray]:
    """Whether predictions come in order, and for every matrix the place of the prediction that is its own."""
    distance = np.abs(single.forces[:, None] - batched.forces[None]).max(axis=(2, 3))
    own, nearest = distance.diagonal(), distance.argmin(axis=1)
    # Out of order is only what would fit elsewhere and does not fit where it is.
    astray = (own > subject.noise.forces) & (distance.min(axis=1) <= subject.noise.forces)
    places = np.where(astray, nearest, np.arange(len(own)))
    if astray.any():
        sentence = f"{astray.sum()} of {len(own)} predictions are not in the order of the matrices"
        return CheckItem("order", False, sentence), places
    return CheckItem("order", True, "the predictions are in the order of the matrices"), places


def _misses(subject: Subject, one: Prediction, other: Prediction) -> dict[str, tuple[float, float, str]]:
    """For energies, forces and virials: largest difference, tolerance, unit."""
    noise = subject.noise
    misses = {
        "energies": (float(np.abs(one.energies - other.energies).max()), noise.energy, "eV"),
        "forces": (float(np.abs(one.forces - other.forces).max()), noise.forces, "eV/Å"),
    }
    if one.virials is not None and other.virials is not None:
        misses["virials"] = (float(np.abs(one.virials - other.virials).max()), noise.virial, "eV")
    return misses


def _agreement(name: str, holds: str, fails: str, misses: dict[str, tuple[float, float, str]]) -> CheckItem:
    quantity = max(misses, key=lambda key: misses[key][0] / misses[key][1])
    value, tolerance, unit = misses[quantity]
    sentence = holds if value <= tolerance else f"{fails}: {quantity} differ"
    return CheckItem(name, value <= tolerance, sentence, value, tolerance, unit)


def _check_orientations(subject: Subject, single: Prediction, whole: Prediction) -> CheckItem:
    """Energies that do not vary at all while whole structures vary: only a part of the structure was turned.

    In float32 even an invariant model varies, by rounding. float64 sums may well agree to the last digit or two.
    """
    spread, reference = float(np.ptp(single.energies)), float(np.ptp(whole.energies))
    last_digits = 4.0 * np.finfo(np.float64).eps * float(np.abs(whole.energies).max())
    blind = bool(spread == 0.0 and reference > last_digits)
    if blind:
        sentence = (
            f"energies do not vary at all over turned copies, but by {reference:.2g} eV over whole structures turned"
        )
    else:
        sentence = f"energies vary over orientations by {spread:.2g} eV, whole structures turned by {reference:.2g} eV"
    return CheckItem("orientations seen", not blind, sentence)


# ---- noise ----------------------------------------------------------------------------------------------------------


def _check_determinism(subject: Subject) -> CheckItem:
    repeats = [subject.potential.predict(subject.structure) for _ in range(3)]
    reference, eps = subject.reference, subject.eps
    energy = max(abs(float(repeat.energies[0] - reference.energies[0])) for repeat in repeats)
    force = max(float(np.abs(repeat.forces - reference.forces).max()) for repeat in repeats)
    # Sums in another order, as on a GPU. The measured noise is no yardstick: it holds what is looked for.
    tolerance = 64.0 * eps * max(1.0, float(np.abs(reference.forces).max()))
    allowed = 64.0 * eps * len(subject.structure) ** 0.5 + np.finfo(np.float64).eps * abs(float(reference.energies[0]))
    repeats_agree = bool(force <= tolerance and energy <= allowed)
    said = f"energies repeat to {energy:.2g} eV and forces to {force:.2g} eV/Å"
    if subject.potential.stochastic:
        return CheckItem("determinism", True, f"the potential says that it is stochastic: {said}")
    value, limit, unit = max((energy, allowed, "eV"), (force, tolerance, "eV/Å"), key=lambda each: each[0] / each[1])
    sentence = said if repeats_agree else f"{said}, and the potential does not say that it is stochastic"
    return CheckItem("determinism", repeats_agree, sentence, value, limit, unit)


def _report_translation(subject: Subject) -> CheckItem:
    shift = 3.0 * subject.rng.uniform(-1.0, 1.0, 3)
    moved = subject.potential.predict(subject.moved(subject.structure.positions + shift))
    return _reported("translation", "a rigid translation", subject, moved.energies, moved.forces)


def _report_permutation(subject: Subject) -> CheckItem:
    order = subject.rng.permutation(len(subject.structure))
    permuted = subject.structure.copy()
    permuted.set_constraint()
    prediction = subject.potential.predict(permuted[order])
    forces = prediction.forces[:, np.argsort(order)]
    return _reported("permutation", "a permutation of the atoms", subject, prediction.energies, forces)


def _reported(name: str, change: str, subject: Subject, energies: np.ndarray, forces: np.ndarray) -> CheckItem:
    energy = abs(float(energies[0] - subject.reference.energies[0]))
    force = float(np.abs(forces - subject.reference.forces).max())
    sentence = f"{change} changes the energy by {energy:.2g} eV and forces by up to {force:.2g} eV/Å"
    return CheckItem(name, True, sentence, force, None, "eV/Å")
