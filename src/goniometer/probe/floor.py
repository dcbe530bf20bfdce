"""The noise floor: how much the answer changes under operations that must not change it.

A few nodes of the rule are evaluated again, once for each source,

    repeat         the same copies again, in another batch
    translation    the structure shifted: by a fraction of the cell where it is periodic, by ångströms if nowhere
    permutation    the atoms in another order
    rounding       every coordinate changed by a relative amount of the order of the dtype's ε

and the rms difference per component, divided by √2 where both sides carry the noise, is taken as the noise of one
evaluation. No figure can be smaller than the spacing of float64 numbers of its size, so that is the least that rounding
is put at.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms

from goniometer.potentials.base import Potential
from goniometer.probe.result import Floor
from goniometer.symmetrize import Response, response

#: Orientations at which the floor is measured.
NODES = 8
SOURCES = ("repeat", "translation", "permutation", "rounding")

Quantity = Callable[[Response], np.ndarray]


def variants(structure: Atoms, dtype: str, rng: np.random.Generator) -> dict[str, tuple[Atoms, np.ndarray]]:
    """For each source the structure to evaluate and the order that undoes its permutation."""
    order = np.arange(len(structure))
    shifted, rounded = structure.copy(), structure.copy()
    fractions = rng.uniform(0.2, 0.8, 3)
    shift = np.where(structure.pbc, fractions, 0.0) @ structure.cell.array
    free = ~structure.pbc
    shifted.positions += shift + (rng.uniform(-2.0, 2.0, 3) if free.all() else 0.0)
    eps = np.finfo(dtype).eps
    rounded.positions *= 1.0 + eps * rng.uniform(-1.0, 1.0, structure.positions.shape)
    permutation = rng.permutation(len(structure))
    return {
        "repeat": (structure, order),
        "translation": (shifted, order),
        "permutation": (structure[permutation], np.argsort(permutation)),
        "rounding": (rounded, order),
    }


def measure(
    potential: Potential,
    structure: Atoms,
    first: Response,
    quantities: dict[str, Quantity],
    rng: np.random.Generator,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Floor]:
    """The floor of each quantity, a function from responses to arrays (M, …), at the nodes that ``first`` holds."""
    noise: dict[str, dict[str, float]] = {name: {} for name in quantities}
    for source, (changed, back) in variants(structure, potential.dtype, rng).items():
        again = response(potential, changed, first.matrices, progress)
        again = Response(again.matrices, again.energies, again.forces[:, back], again.virials)
        both = 1.0 if source == "rounding" else np.sqrt(0.5)
        for name, quantity in quantities.items():
            difference = quantity(again) - quantity(first)
            noise[name][source] = float(both * np.sqrt(np.mean(difference**2)))
    floors = {}
    for name, quantity in quantities.items():
        spacing = float(np.finfo(np.float64).eps * np.abs(quantity(first)).max())
        noise[name]["rounding"] = max(noise[name]["rounding"], spacing)
        floors[name] = Floor(value=max(noise[name].values()), **noise[name])
    return floors
