"""What every rule of the catalogue would leave of a response, predicted from the nodes of one probe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from goniometer.probing.spectrum import Gram, averaging_coefficients
from goniometer.rotations import PAPER_GRIDS, Rule, catalogue, rule

#: The largest rule that is considered, in elements.
LARGEST = 640
#: Sizes of the random rules among the candidates.
RANDOM = (16, 64, 256)
#: Angular momenta above the resolved ones over which the worst case of the tail is taken.
TAIL = 24


@dataclass(frozen=True)
class Prediction:
    """Root mean square per component that a rule leaves; see :class:`goniometer.probing.result.Residual`."""

    over_turns: float
    tail: float
    as_it_stands: float | None


@lru_cache(maxsize=512)
def _kept(averaged: Rule, lmax: int) -> tuple[np.ndarray, np.ndarray]:
    """ρ_ℓ of a rule: the same for every probe of a process."""
    return averaged.residuals(lmax)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A rule, with all that its predictions need and that does not depend on the structure."""

    rule: Rule
    nodes: Rule
    lmax: int

    @cached_property
    def _coefficients(self) -> np.ndarray | None:
        return averaging_coefficients(self.rule, self.nodes, self.lmax)

    def predict(self, plus: np.ndarray, minus: np.ndarray | None, unresolved: float, products: Gram) -> Prediction:
        """The residual of a response with spectrum ``plus``, ``minus`` and Gram matrix ``products`` at the nodes.

        ``unresolved`` is the most that the variance beyond lmax may be.
        """
        even, odd = _kept(self.rule, self.lmax + TAIL)
        low = self.lmax + 1
        variance = float(np.maximum(plus[1:], 0.0) @ even[1:low])
        if minus is not None:
            variance += float(np.maximum(minus, 0.0) @ odd[:low])
        tail = max(unresolved, 0.0) * max(even[low:].max(), odd[low:].max() if minus is not None else 0.0, 0.0)
        left = self._coefficients
        stands = None if left is None else float(np.sqrt(max(left @ products @ left, 0.0)))
        return Prediction(float(np.sqrt(max(variance, 0.0))), float(np.sqrt(tail)), stands)


def candidates(nodes: Rule, lmax: int, largest: int = LARGEST) -> list[Candidate]:
    """The catalogue and the paper's grids as candidates, smallest first."""
    rules = {(each.name, each.inversion): each for each in catalogue(largest)}
    drawn = [(f"random:{count}", inversion) for count in RANDOM for inversion in (False, True)]
    for name, inversion in [*PAPER_GRIDS.values(), *drawn]:
        rules.setdefault((name, inversion), rule(name, inversion))
    ordered = sorted(rules.values(), key=lambda each: (len(each), -each.degree, each.name))
    return [Candidate(each, nodes, lmax) for each in ordered]
