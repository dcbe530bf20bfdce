"""What operations that must not matter change in a prediction: rounding and repetition, translation, permutation, cell.

A few nodes of the rule are evaluated again, once for each operation,

    repeat         the same copies again, in another order
    rounding       positions and cell changed as a rotation changes them, whose matrix is rounded and whose result is:
                   by a strain of the order of float64's ε, and by the dtype's ε relative to their length
    translation    the structure shifted: by a fraction of the cell where it is periodic, by ångströms if nowhere
    permutation    the atoms in another order
    cell           the same crystal in another cell: other cell vectors of the same lattice, other periodic images

The rms difference per component over √2, since both sides carry the change, is the figure of each. Every node gets a
change of its own: one change for all of them would move all predictions alike and be a single draw. Repetition and
rounding are noise, and the larger of them is the floor; the others are symmetries, broken or not, and no floor.

Noise of rounding has a least value: the forces of a perfect crystal vanish by cancellation, differently in every
orientation, so that a few nodes may show less of it than others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Float64, Int64

from goniometer.errors import GoniometerError
from goniometer.probing.orientations import Respond, joined_responses
from goniometer.probing.result import Floor, LeftOut
from goniometer.progress import Advance
from goniometer.symmetrization import Response

#: Orientations at which each operation is applied.
NODES = 8
OPERATIONS = ("rounding", "translation", "permutation", "cell")
# Displacement, in Å, of the copy that tells a discontinuity from rounding, and the orientations it is evaluated in.
_RATTLE, _RATTLED = 0.05, 4
# Rounding beyond this many ε of a prediction's scale (at least 1 eV, 1 eV/Å) is looked at more closely.
_SUSPICIOUS = 1e4

Quantity = Callable[[Response], np.ndarray]


@dataclass(frozen=True)
class Setting:
    """What the operations are applied to: a structure, how it is evaluated, and what is left out."""

    respond: Respond
    structure: Atoms
    dtype: str
    without: frozenset[str] = frozenset()
    tilted: bool = True

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations that are applied: another cell only where there is a choice, and a tilted one is taken."""
        periodic = bool(self.structure.pbc.any()) and self.tilted
        return tuple(each for each in OPERATIONS if each not in self.without and (each != "cell" or periodic))


def changed(
    operation: str, structure: Atoms, dtype: str, rng: np.random.Generator, tilted: bool = True
) -> tuple[Atoms, Int64[np.ndarray, " N"]]:
    """The structure after one random operation, and the order of atoms that undoes a permutation."""
    order = np.arange(len(structure))
    if operation == "permutation":
        permutation = rng.permutation(len(structure))
        return structure[permutation], np.argsort(permutation)
    copy = structure.copy()
    if operation == "translation":
        fractions = np.where(structure.pbc, rng.uniform(0.0, 1.0, 3), 0.0)
        copy.positions += fractions @ structure.cell.array if structure.pbc.any() else rng.uniform(-2.0, 2.0, 3)
    elif operation == "rounding":
        eps = float(np.finfo(dtype).eps)
        strain = np.eye(3) + (np.finfo(np.float64).eps * rng.uniform(-1.0, 1.0, (3, 3)) if tilted else 0.0)
        copy.positions = _rounded(copy.positions @ strain, eps, rng)
        if tilted:
            copy.cell = _rounded(copy.cell.array @ strain, eps, rng)
    elif operation == "cell":
        _choose_cell(copy, rng)
    return copy, order


def _choose_cell(structure: Atoms, rng: np.random.Generator) -> None:
    """Other vectors of the same lattice, of the same handedness, and each atom replaced by one of its images."""
    periodic = np.flatnonzero(structure.pbc)
    cell = structure.cell.array.copy()
    shifts = np.zeros((len(structure), 3))
    shifts[:, periodic] = rng.integers(-1, 2, (len(structure), len(periodic)))
    structure.positions += shifts @ cell
    if len(periodic) > 1:
        first, second = rng.choice(periodic, 2, replace=False)
        cell[first] += rng.choice([-1.0, 1.0]) * cell[second]
    if len(periodic) == 3:
        cell = np.roll(cell, rng.integers(3), axis=0)
    structure.set_cell(cell, scale_atoms=False)


def _rounded(vectors: Float64[np.ndarray, "N 3"], eps: float, rng: np.random.Generator) -> Float64[np.ndarray, "N 3"]:
    return vectors + eps * np.linalg.norm(vectors, axis=1, keepdims=True) * rng.uniform(-1.0, 1.0, vectors.shape)


def measure(
    setting: Setting,
    first: Response,
    repeats: tuple[Response, Response],
    quantities: dict[str, Quantity],
    rng: np.random.Generator,
    progress: Advance | None = None,
) -> tuple[dict[str, Floor], list[LeftOut]]:
    """The floor of each quantity, a function from responses to arrays (M, …), at the nodes that ``first`` holds.

    ``repeats`` are responses to the same copies, the first time and again. An operation on which the potential fails
    is left out, and the reason returned.
    """
    failed: list[LeftOut] = []
    changes: dict[str, dict[str, float]] = {name: {} for name in quantities}
    for operation in setting.operations:
        try:
            again = operated(operation, setting, first.matrices, rng, progress)
        except GoniometerError as error:
            failed.append(LeftOut(operation, str(error)))
            continue
        for name, quantity in quantities.items():
            changes[name][operation] = _difference(quantity(again), quantity(first))
    rattled = _rattled(setting, first, quantities, changes, rng, progress)
    floors = {}
    for name, quantity in quantities.items():
        least = least_noise(name, setting.structure, quantity(first))
        repeat = _difference(quantity(repeats[1]), quantity(repeats[0]))
        floors[name] = _floor(changes[name], repeat, rattled.get(name), least)
    return floors, failed


def _floor(changes: dict[str, float], repeat: float, rattled: float | None, least: float) -> Floor:
    rounding = max(changes["rounding"], least) if "rounding" in changes else None
    rattled = None if rattled is None else max(rattled, least)
    made = Floor(
        value=0.0,
        repeat=repeat,
        translation=changes.get("translation"),
        permutation=changes.get("permutation"),
        rounding=rounding,
        cell=changes.get("cell"),
        rattled=rattled,
    )
    noise = rattled if made.discontinuous else rounding
    return Floor(**{**made.__dict__, "value": max(repeat, least, noise or 0.0)})


def _difference(again: np.ndarray, first: np.ndarray) -> float:
    return float(np.sqrt(np.mean((again - first) ** 2) / 2.0)) if len(first) else 0.0


def _rattled(
    setting: Setting,
    first: Response,
    quantities: dict[str, Quantity],
    changes: dict[str, dict[str, float]],
    rng: np.random.Generator,
    progress: Advance | None,
) -> dict[str, float]:
    """The change under rounding of a copy with displaced atoms, if that of the structure is beyond arithmetic."""
    suspicious = any(
        changes[name].get("rounding", 0.0) > beyond_arithmetic(quantity(first), setting.dtype)
        for name, quantity in quantities.items()
        if name in ("energy", "forces")
    )
    if not suspicious:
        return {}
    copy = setting.structure.copy()
    copy.positions += _RATTLE * rng.standard_normal(copy.positions.shape)
    moved = Setting(setting.respond, copy, setting.dtype, setting.without, setting.tilted)
    matrices = first.matrices[:_RATTLED]
    try:
        here = setting.respond(copy, matrices, progress)
        there = operated("rounding", moved, matrices, rng, progress)
    except GoniometerError:
        return {}
    return {name: _difference(quantity(there), quantity(here)) for name, quantity in quantities.items()}


def beyond_arithmetic(values: np.ndarray, dtype: str) -> float:
    """A change of such values, in eV and eV/Å, that their arithmetic does not explain."""
    return _SUSPICIOUS * float(np.finfo(dtype).eps) * max(1.0, float(np.abs(values).max()))


def least_noise(name: str, structure: Atoms, values: np.ndarray) -> float:
    """The least that rounding is put at: spacings of numbers of this size, and rounded positions times a stiffness.

    Rounding moves an atom at R by ε R, which changes the force of a bond of 1 eV/Å² by ε R eV/Å; a bond that is softer
    has less, by an amount that nobody needs to resolve.
    """
    eps = float(np.finfo(np.float64).eps)
    count, reach = len(structure), max(1.0, np.abs(structure.positions).max(), np.abs(structure.cell.array).max())
    forces = 16.0 * eps * reach
    volume = structure.get_volume() if structure.cell.rank == 3 else 1.0
    scales = {
        "energy": 2.0 * eps * count,
        "forces": forces,
        "stress": forces * reach * np.sqrt(count) / volume,
        "torque": forces * reach * np.sqrt(count),
    }
    return max(2.0 * _resolution(values), float(scales[name]))


def _resolution(values: np.ndarray) -> float:
    """The spacing of the numbers of this size that the values are among: float32 if each of them is one.

    A sum that was made in float32 stays on one step where positions change by little, so no repetition shows it.
    """
    single = values.size > 1 and bool(np.all(values == values.astype(np.float32))) and bool(np.any(values != 0))
    eps = np.finfo(np.float32 if single else np.float64).eps
    return float(eps * np.abs(values).max())


def operated(
    operation: str,
    setting: Setting,
    matrices: Float64[np.ndarray, "M 3 3"],
    rng: np.random.Generator,
    progress: Advance | None = None,
) -> Response:
    """The response at each element of a structure to which the operation was applied anew."""
    parts = []
    for matrix in matrices:
        copy, back = changed(operation, setting.structure, setting.dtype, rng, setting.tilted)
        made = setting.respond(copy, matrix[None], progress)
        parts.append(Response(made.matrices, made.energies, made.forces[:, back], made.virials))
    return joined_responses(parts)


__all__ = [
    "NODES",
    "OPERATIONS",
    "Quantity",
    "Setting",
    "beyond_arithmetic",
    "changed",
    "least_noise",
    "measure",
    "operated",
]
