"""A symmetrized potential, described by what a command line or an input file can hold: names and numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from goniometer.data.turning import turned
from goniometer.errors import InputError
from goniometer.potentials.base import Potential, Prediction
from goniometer.rotations import Rule, rule
from goniometer.symmetrize.response import response

STRATEGIES = ("average", "random", "frozen")


def symmetrized(
    potential: Potential,
    rule_name: str | None = None,
    inversion: bool = True,
    strategy: str = "average",
    seed: int = 0,
) -> Potential:
    """The potential, symmetrized over a rule of that name; as it is where no rule is named.

    Raises :class:`InputError` for a rule or a strategy that does not exist.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"there is no strategy '{strategy}'; it must be {', '.join(STRATEGIES)}")
    if rule_name is None and strategy == "average":
        return potential
    if strategy != "average":
        raise InputError(f"the strategy '{strategy}' is not available yet; use 'average'")
    return _Averaged(potential, rule(str(rule_name), inversion))


class _Averaged(Potential):
    """The mean Σ_k w_k of the back-rotated response over a rule."""

    def __init__(self, potential: Potential, over: Rule) -> None:
        self.potential, self.rule = potential, over
        self.name = f"{potential.name} averaged over {over.name}"
        self.dtype, self.virial = potential.dtype, potential.virial
        self.conservative, self.stochastic = potential.conservative, potential.stochastic

    def turned(self, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> Iterator[Prediction]:
        """Evaluate turned copies, see :meth:`goniometer.potentials.Potential.turned`."""
        for matrix in matrices:
            orbit = response(self.potential, turned(structure, matrix), self.rule.matrices)
            mean = np.tensordot(self.rule.weights, orbit.forces, 1)
            virial = None if orbit.virials is None else np.tensordot(self.rule.weights, orbit.virials, 1)[None]
            yield Prediction(np.array([self.rule.weights @ orbit.energies]), mean[None], virial)
