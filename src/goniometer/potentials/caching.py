"""A potential that is not asked twice in a row for the same: an average shares a copy with what it is compared with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float64

from goniometer.potentials.base import Potential, Prediction, inherit


class Remembering(Potential):
    """A potential that remembers what it said last of structures as they stand, until it is asked for others.

    With multiple time steps the outer force is the average less the model, both at positions where the inner steps
    have just ended: of a rule that holds the identity one copy is known already, which of inversion is half of all.

    Copies that are not turned are evaluated by themselves, so that an answer has the same bits whoever asks first.

    Parameters
    ----------
    potential
        What is asked: one whose answers depend on the structure alone, so that its :attr:`Potential.moment` is None.
    """

    def __init__(self, potential: Potential) -> None:
        self.potential, self.name = potential, potential.name
        inherit(self, potential)
        self._key: tuple[bytes, ...] = ()
        self._last: Prediction | None = None

    def turned(self, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> Iterator[Prediction]:
        """See :meth:`Potential.turned`: the copy that is not turned is remembered, of several the first."""
        places = np.flatnonzero(unturned(matrices))
        if not len(places):
            yield from self.potential.turned(structure, matrices)
            return
        before, _, after = np.split(matrices, [places[0], places[0] + 1])
        if len(before):
            yield from self.potential.turned(structure, before)
        yield self._known(structure, structure.positions[None])
        if len(after):
            yield from self.potential.turned(structure, after)

    def turned_each(
        self, structure: Atoms, positions: Float64[np.ndarray, "K N 3"], matrices: Float64[np.ndarray, "K 3 3"]
    ) -> Iterator[Prediction]:
        """See :meth:`Potential.turned_each`: all copies that are not turned are remembered together."""
        alone = unturned(matrices)
        parts = [self._known(structure, positions[alone])] if alone.any() else []
        if not alone.all():
            parts += self.potential.turned_each(structure, positions[~alone], matrices[~alone])
        order = np.argsort(np.concatenate([np.flatnonzero(alone), np.flatnonzero(~alone)]))
        yield Prediction.joined(parts, order)

    def _known(self, structure: Atoms, positions: np.ndarray) -> Prediction:
        """Of structures as they stand."""
        key = tuple(each.tobytes() for each in (positions, structure.cell.array, structure.numbers, structure.pbc))
        if self._last is None or key != self._key:
            identities = np.broadcast_to(np.eye(3), (len(positions), 3, 3))
            self._last = Prediction.joined(self.potential.turned_each(structure, positions, identities))
            self._key = key
        return self._last


def unturned(matrices: Float64[np.ndarray, "K 3 3"]) -> Bool[np.ndarray, " K"]:
    """Which of the matrices are the identity, to the last bit."""
    return np.asarray((matrices == np.eye(3)).all(axis=(1, 2)))
