"""What a probe does to every structure alike: nodes, rules, repetitions, and what is left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from ase import Atoms

from goniometer.potentials.base import Potential
from goniometer.probing import noise_floor, repetition
from goniometer.probing.orientations import anywhere
from goniometer.probing.residuals import TAIL, Candidate, candidates
from goniometer.probing.spectrum import leak_matrix, tail_factor
from goniometer.probing.torque import STENCIL, knows_torque
from goniometer.rotations import Rule
from goniometer.rotations import rule as named_rule


@dataclass(frozen=True, eq=False)
class Procedure:
    """What is done to every structure alike.

    ``repeats`` evaluations are repeated; operations in ``without`` are left out. ``axes_only`` restricts the
    orientations to those that map the axes onto each other.
    """

    nodes: Rule
    lmax: int
    candidates: list[Candidate]
    measured: list[Rule]
    seed: int
    repeats: int = repetition.LEAST
    without: frozenset[str] = frozenset()
    axes_only: bool = False

    @cached_property
    def hidden(self) -> float:
        """The largest ratio of the variance beyond lmax to what the spectrum shows to be missing."""
        return tail_factor(self.nodes, self.lmax, self.lmax + TAIL)

    @cached_property
    def leak(self) -> np.ndarray:
        """The largest part of a variance at any one ℓ above the resolved ones that turns up in P_ℓ, (lmax + 1,)."""
        leaked = leak_matrix(self.nodes, self.lmax, self.lmax + TAIL)[:, self.lmax + 1 :].max(axis=1)
        return np.maximum(leaked, 0.0)

    @cached_property
    def special(self) -> Rule:
        """The octahedral copies of the input orientation."""
        return named_rule("octahedral", self.nodes.inversion)

    @cached_property
    def proper(self) -> Procedure:
        """The same without inversion."""
        nodes = self.nodes
        if nodes.inversion:
            half = len(nodes) // 2
            nodes = replace(nodes, matrices=nodes.matrices[:half], weights=2.0 * nodes.weights[:half], inversion=False)
        measured = [rule for rule in self.measured if not rule.inversion]
        return replace(self, nodes=nodes, candidates=candidates(nodes, self.lmax), measured=measured)

    @cached_property
    def along_axes(self) -> Procedure:
        """The same in the orientations that map the axes onto each other, the only ones."""
        nodes = self.special
        kept = [Candidate(each.rule, nodes, self.lmax) for each in self.candidates]
        return replace(self, nodes=nodes, candidates=kept, measured=[], axes_only=True)

    @property
    def rows(self) -> list[Rule]:
        """The rules that are measured besides, apart from the octahedral one, which is always evaluated."""
        same = (self.special.name, self.special.inversion)
        return [rule for rule in self.measured if (rule.name, rule.inversion) != same]

    def evaluations(self, potential: Potential, structure: Atoms) -> int:
        """How many evaluations the structure takes, where nothing has to be looked at more closely."""
        setting = noise_floor.Setting(
            anywhere(potential), structure, potential.dtype, self.without, tilted=not self.axes_only
        )
        floors = len(setting.operations) * min(noise_floor.NODES, len(self.nodes))
        finite = 0 if self.axes_only or knows_torque(potential, structure) else 3 * len(STENCIL)
        special = 0 if self.axes_only else len(self.special)
        measured = sum(len(each) for each in self.rows)
        return 1 + len(self.nodes) + min(self.repeats, 1 + len(self.nodes)) + floors + finite + special + measured
