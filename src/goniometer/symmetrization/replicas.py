"""Replicas of an isolated molecule that do not feel each other, their forces from one packed batch."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from goniometer.errors import InputError
from goniometer.potentials.base import Potential, Prediction, inherit, placed
from goniometer.symmetrization.tumbling import Tumbling, follow_each


class Replicas(Potential):
    """A potential of R replicas of an isolated structure, one after the other in one structure of R N atoms.

        E(x_1, …, x_R) = Σ_r E(x_r)

    What looks at the positions, a random turn for instance, does so for each replica. Tumbling frames are one for each
    replica: give as many potentials.

    Parameters
    ----------
    potential
        Of a single replica, or R tumbling ones that share a potential and a rule.
    replica
        One of them: its species are those of all.
    count
        R.

    Attributes
    ----------
    last : Prediction or None
        Of the R replicas, from the last evaluation.

    Raises :class:`InputError` for a periodic structure, and for tumbling frames that are not R in number.
    """

    def __init__(self, potential: Potential | Sequence[Tumbling], replica: Atoms, count: int) -> None:
        if replica.pbc.any():
            raise InputError("replicas are those of an isolated molecule, and this structure is periodic")
        self.frames = [] if isinstance(potential, Potential) else list(potential)
        if isinstance(potential, Tumbling):
            self.frames = [potential]
        if self.frames and len(self.frames) != count:
            raise InputError(f"{count} replicas need as many tumbling frames, not {len(self.frames)}")
        self.potential = potential if isinstance(potential, Potential) else self.frames[0]
        self.replica, self.count = replica.copy(), count
        self.replica.set_constraint()
        self.last: Prediction | None = None
        self.name = f"{count} replicas of {self.potential.name}"
        inherit(self, self.potential)

    def verify(self, structure: Atoms) -> None:
        """See :meth:`Potential.verify`: of the first replica."""
        self.potential.verify(placed(self.replica, self._split(structure)[0]))

    @property
    def moment(self) -> Hashable:
        """That of the potential, or of all frames."""
        return tuple(frame.moment for frame in self.frames) if self.frames else self.potential.moment

    def turned(self, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> Iterator[Prediction]:
        """See :meth:`Potential.turned`: the structure holds all replicas, which turn together."""
        positions = self._split(structure)
        for matrix in matrices:
            if self.frames:
                pairs = zip(self.frames, positions, strict=True)
                parts = [p for frame, x in pairs for p in frame.turned_each(self.replica, x[None], matrix[None])]
            else:
                turns = np.broadcast_to(matrix, (self.count, 3, 3))
                parts = list(self.potential.turned_each(self.replica, positions, turns))
            yield self._summed(Prediction.joined(parts))

    def follow(self, structure: Atoms) -> Prediction:
        """See :meth:`Potential.follow`."""
        if not self.frames:
            return self.predict(structure)
        return self._summed(follow_each(self.frames, self.replica, self._split(structure)))

    def _split(self, structure: Atoms) -> np.ndarray:
        if not np.array_equal(structure.numbers, np.tile(self.replica.numbers, self.count)):
            raise InputError(f"the structure is not that of {self.count} replicas of {self.replica.symbols}")
        return structure.positions.reshape(self.count, len(self.replica), 3)

    def _summed(self, each: Prediction) -> Prediction:
        self.last = each
        return Prediction(
            each.energies.sum(keepdims=True),
            each.forces.reshape(1, -1, 3),
            None if each.virials is None else each.virials.sum(axis=0, keepdims=True),
            None if each.atomic is None else each.atomic.reshape(1, -1),
        )
