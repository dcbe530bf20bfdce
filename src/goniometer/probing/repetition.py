"""Whether a calculator gives the same answer again: evaluations are repeated in another order.

With 150 repetitions, spread over the structures, a fault in one evaluation of fifty is met with a probability of
1 − 0.98¹⁵⁰ = 95 % among the repetitions alone, and those that they are compared with double their number. The
orientations that deviate most are always among them: an outlier is found there, if it is larger than the symmetry
error. A calculator whose state is carried from one evaluation to the next gives another answer after another
predecessor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Bool

from goniometer.probing.noise_floor import Quantity, beyond_arithmetic
from goniometer.probing.orientations import Respond, part_of
from goniometer.probing.result import Floor, Repeats
from goniometer.progress import Advance
from goniometer.symmetrization import Response

#: Repetitions over all structures, and for each structure at least.
TOTAL, LEAST = 150, 8
# Of the orientations that deviate most of each quantity.
_EXTREME = 6
# Two evaluations that differ by this many times the noise of rounding differ by something else.
_DIFFERENT = 50.0
# How many of those that differ are examined for a dependence on their predecessor.
_EXAMINED = 6
# The share of repetitions that differ up to which these are outliers: twice that of evaluations that are outliers.
_MOST = 0.1


@dataclass(frozen=True)
class Again:
    """Evaluations that were repeated: their numbers in the order of the repetition, and the response."""

    order: np.ndarray
    response: Response
    random: np.ndarray

    def compared(self, whole: Response) -> tuple[Response, Response]:
        """The first and the second response at the orientations that were chosen at random."""
        return part_of(whole, self.order[self.random]), part_of(self.response, self.random)


def count_for(structures: int, nodes: int) -> int:
    """How many evaluations of each structure are repeated."""
    return min(nodes + 1, max(LEAST, -(-TOTAL // max(structures, 1))))


def repeat(
    respond: Respond,
    structure: Atoms,
    whole: Response,
    quantities: dict[str, Quantity],
    count: int,
    rng: np.random.Generator,
    progress: Advance | None,
) -> Again:
    """Evaluate the input orientation, those that deviate most and others at random again, in a random order."""
    chosen = {0}
    if count < len(whole):
        for name in ("energy", "forces"):
            values = quantities[name](whole).reshape(len(whole), -1)
            deviation = np.abs(values - np.median(values, axis=0)).max(axis=1)
            chosen |= set(np.argsort(deviation)[-min(_EXTREME, count // 4) :].tolist()) if count >= LEAST else set()
    rest = rng.permutation([number for number in range(len(whole)) if number not in chosen])
    rest = rest[: max(count - len(chosen), 0)]
    order = rng.permutation(np.concatenate([np.array(sorted(chosen), dtype=int), rest.astype(int)]))
    random = np.isin(order, rest) if len(rest) else np.ones(len(order), dtype=bool)
    return Again(order, respond(structure, whole.matrices[order], progress), random)


@dataclass(frozen=True)
class Judge:
    """Tells evaluations that differ by more than rounding.

    ``allowed`` holds, for energies (eV), forces (eV/Å) and stress (eV/Å³), the difference of a component that is taken
    for rounding.
    """

    quantities: dict[str, Quantity]
    allowed: dict[str, float]

    @classmethod
    def of(cls, whole: Response, quantities: dict[str, Quantity], floors: dict[str, Floor], dtype: str) -> Judge:
        """A multiple of the noise of rounding, where that is no more than arithmetic explains."""
        allowed = {}
        for name in quantities:
            most = beyond_arithmetic(quantities[name](whole), dtype)
            noise = floors[name].rounding
            allowed[name] = most if noise is None else min(_DIFFERENT * noise, most)
        return cls(quantities, allowed)

    def differing(self, one: Response, other: Response) -> Bool[np.ndarray, " M"]:
        """For each element, whether the two responses differ."""
        found = np.zeros(len(one), dtype=bool)
        for name, allowed in self.allowed.items():
            found |= self._changes(name, one, other) > allowed
        return found

    def largest(self, name: str, one: Response, other: Response) -> float:
        """The largest difference of a component."""
        return float(self._changes(name, one, other).max(initial=0.0))

    def _changes(self, name: str, one: Response, other: Response) -> np.ndarray:
        quantity = self.quantities[name]
        return np.asarray(np.abs(quantity(one) - quantity(other)).reshape(len(one), -1).max(axis=1))


def judged(again: Again, whole: Response, judge: Judge, respond: Respond, structure: Atoms) -> Repeats:
    """How many repetitions differ, by how much, and of what kind that is."""
    first = part_of(whole, again.order)
    differs = judge.differing(first, again.response)
    kind = None
    if differs.any():
        kind = "noise" if differs.mean() > _MOST else "outliers"
        if _follows_predecessor(again, whole, differs, judge, respond, structure):
            kind = "history"
    largest = {name: judge.largest(name, first, again.response) for name in judge.allowed}
    return Repeats(len(again.order), int(differs.sum()), kind, **largest)


def _follows_predecessor(
    again: Again, whole: Response, differs: np.ndarray, judge: Judge, respond: Respond, structure: Atoms
) -> bool:
    """Whether an evaluation gives its first answer after its first predecessor, and its second after its second."""
    places = [place for place in np.flatnonzero(differs) if place > 0 and again.order[place] > 0][:_EXAMINED]
    for place in places:
        number = again.order[place]
        then = respond(structure, whole.matrices[[number - 1, number]], None)
        now = respond(structure, whole.matrices[[again.order[place - 1], number]], None)
        known = part_of(whole, slice(number, number + 1)), part_of(again.response, slice(place, place + 1))
        for made, answer in zip((then, now), known, strict=True):
            if judge.differing(part_of(made, slice(1, 2)), answer).any():
                return False
    return bool(places)
