"""The back-rotated response: what a potential says of turned copies, turned back into the frame of the structure.

    E(g) = E(g·x)        F(g) = F(g·x) R        W(g) = Rᵀ W(g·x) R

For a symmetric potential it does not depend on g; everything else about a broken symmetry is in this function on O(3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from goniometer.errors import PotentialError
from goniometer.potentials.base import Potential, Prediction, checked

#: Answers beyond this, in eV and Å, are no energies or forces; their squares would overflow.
LARGEST = 1e100


@dataclass(frozen=True)
class Response:
    """The response of one structure at K elements of O(3), in the structure's own frame.

    Attributes
    ----------
    matrices : (K, 3, 3)
    energies : (K,)
        eV.
    forces : (K, N, 3)
        eV/Å.
    virials : (K, 3, 3) or None
        eV; see :class:`goniometer.potentials.Prediction`.
    """

    matrices: Float64[np.ndarray, "K 3 3"]
    energies: Float64[np.ndarray, " K"]
    forces: Float64[np.ndarray, "K N 3"]
    virials: Float64[np.ndarray, "K 3 3"] | None

    def __len__(self) -> int:
        return len(self.energies)


def response(
    potential: Potential,
    structure: Atoms,
    matrices: Float64[np.ndarray, "K 3 3"],
    progress: Callable[[int], None] | None = None,
) -> Response:
    """Evaluate the back-rotated response at the given elements; ``progress`` is told how many copies are done.

    Raises :class:`PotentialError` if the model fails, or gives something that is not finite or beyond ``LARGEST``.
    Memory beyond the potential's own: 8 (1 + 3N + 9) bytes per element.
    """
    count, atoms = len(matrices), len(structure)
    energies, forces = np.empty(count), np.empty((count, atoms, 3))
    virials = np.empty((count, 3, 3)) if potential.virial != "none" else None
    for done, prediction in evaluated(potential, structure, matrices):
        part = slice(done, done + len(prediction))
        turn = matrices[part]
        energies[part] = prediction.energies
        forces[part] = prediction.forces @ turn
        if virials is not None and prediction.virials is not None:
            virials[part] = turn.transpose(0, 2, 1) @ prediction.virials @ turn
        elif virials is not None:
            virials = None
        if progress is not None:
            progress(len(prediction))
    for name, values in {"energies": energies, "forces": forces, "virials": virials}.items():
        if values is not None and not (np.abs(values) < LARGEST).all():
            raise PotentialError(f"{potential.name} gave {name} that are too large: beyond {LARGEST:.0e}")
    return Response(matrices, energies, forces, virials)


def evaluated(
    potential: Potential,
    structure: Atoms,
    matrices: Float64[np.ndarray, "K 3 3"],
    positions: Float64[np.ndarray, "K N 3"] | None = None,
) -> Iterator[tuple[int, Prediction]]:
    """Predictions of turned copies, with the same or with their own positions, each with the number of its first copy.

    Raises :class:`PotentialError` if they are not as many as matrices, not finite, or of shapes that do not fit.
    """
    done, count = 0, len(matrices)
    copies = (
        potential.turned(structure, matrices)
        if positions is None
        else (potential.turned_each(structure, positions, matrices))
    )
    for prediction in copies:
        if done + len(prediction) > count:
            raise PotentialError(f"{potential.name} gave more predictions than there are copies ({count})")
        yield done, checked(prediction, structure, potential.name)
        done += len(prediction)
    if done < count:
        raise PotentialError(f"{potential.name} gave {done} predictions for {count} copies")
