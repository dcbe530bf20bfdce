"""The noise floor: how much the answer changes under operations that must not change it.

A few nodes of the rule are evaluated again, once for each source,

    repeat         the same copies again, in another batch
    translation    the structure shifted: by a fraction of the cell where it is periodic, by ångströms if nowhere
    permutation    the atoms in another order
    rounding       positions and cell changed as a turn changes them, whose matrix is rounded and whose result is: by
                   a strain of the order of float64's ε, and by the dtype's ε relative to their length

The rms difference per component over √2, since both sides carry the noise, is taken as the noise of one evaluation.
Every node gets a change of its own: one change for all of them would move all answers alike and be a single draw. Two
spacings of float64 numbers of the size of a figure are the least that rounding is put at: turning the answer back is
rounded as well, and alike on both sides of a difference.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms
from jaxtyping import Float64, Int64

from goniometer.potentials.base import Potential
from goniometer.probe.result import Floor
from goniometer.symmetrize import Response, response

#: Orientations at which the floor is measured.
NODES = 8
SOURCES = ("repeat", "translation", "permutation", "rounding")

Quantity = Callable[[Response], np.ndarray]
Progress = Callable[[int], None]


def changed(
    source: str, structure: Atoms, dtype: str, rng: np.random.Generator
) -> tuple[Atoms, Int64[np.ndarray, " N"]]:
    """The structure under one random change of this source, and the order of atoms that undoes a permutation."""
    order = np.arange(len(structure))
    if source == "permutation":
        permutation = rng.permutation(len(structure))
        return structure[permutation], np.argsort(permutation)
    copy = structure.copy()
    if source == "translation":
        fractions = np.where(structure.pbc, rng.uniform(0.2, 0.8, 3), 0.0)
        copy.positions += fractions @ structure.cell.array if structure.pbc.any() else rng.uniform(-2.0, 2.0, 3)
    elif source == "rounding":
        strain = np.eye(3) + np.finfo(np.float64).eps * rng.uniform(-1.0, 1.0, (3, 3))
        eps = float(np.finfo(dtype).eps)
        copy.positions = _rounded(copy.positions @ strain, eps, rng)
        copy.cell = _rounded(copy.cell.array @ strain, eps, rng)
    return copy, order


def _rounded(vectors: Float64[np.ndarray, "N 3"], eps: float, rng: np.random.Generator) -> Float64[np.ndarray, "N 3"]:
    return vectors + eps * np.linalg.norm(vectors, axis=1, keepdims=True) * rng.uniform(-1.0, 1.0, vectors.shape)


def measure(
    potential: Potential,
    structure: Atoms,
    first: Response,
    quantities: dict[str, Quantity],
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> dict[str, Floor]:
    """The floor of each quantity, a function from responses to arrays (M, …), at the nodes that ``first`` holds."""
    noise: dict[str, dict[str, float]] = {name: {} for name in quantities}
    for source in SOURCES:
        if source == "repeat":
            again = response(potential, structure, first.matrices, progress)
        else:
            again = _one_by_one(source, potential, structure, first.matrices, rng, progress)
        for name, quantity in quantities.items():
            noise[name][source] = float(np.sqrt(np.mean((quantity(again) - quantity(first)) ** 2) / 2.0))
    floors = {}
    for name, quantity in quantities.items():
        spacing = 2.0 * _resolution(quantity(first))
        noise[name]["rounding"] = max(noise[name]["rounding"], spacing)
        floors[name] = Floor(value=max(noise[name].values()), **noise[name])
    return floors


def _resolution(values: np.ndarray) -> float:
    """The spacing of the numbers of this size that the values are among: float32 if each of them is one.

    A sum that was made in float32 stays on one step where positions change by little, so no repetition shows it.
    """
    single = values.size > 1 and bool(np.all(values == values.astype(np.float32))) and bool(np.any(values != 0))
    eps = np.finfo(np.float32 if single else np.float64).eps
    return float(eps * np.abs(values).max())


def _one_by_one(
    source: str,
    potential: Potential,
    structure: Atoms,
    matrices: Float64[np.ndarray, "M 3 3"],
    rng: np.random.Generator,
    progress: Progress | None,
) -> Response:
    """The response at each element of a structure that was changed anew."""
    parts = []
    for matrix in matrices:
        copy, back = changed(source, structure, potential.dtype, rng)
        part = response(potential, copy, matrix[None], progress)
        parts.append(Response(part.matrices, part.energies, part.forces[:, back], part.virials))
    virials = [part.virials for part in parts if part.virials is not None]
    return Response(
        matrices,
        np.concatenate([part.energies for part in parts]),
        np.concatenate([part.forces for part in parts]),
        np.concatenate(virials) if len(virials) == len(parts) else None,
    )
