"""Randomly turned potentials: an average that is right in the mean, from a turn that a key makes and makes again."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import replace
from hashlib import blake2b

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from goniometer.errors import InputError
from goniometer.potentials.base import Potential, Prediction, inherit, placed
from goniometer.rotations import Rule, random_rotations
from goniometer.structures import right_handed
from goniometer.symmetrization.average import averages, averages_each, described
from goniometer.symmetrization.verification import Verification, Verified, some_elements

KEYS = ("positions", "step")


class RandomlyTurned(Verified):
    """A potential averaged over a rule that is turned at random, anew for every structure or step.

        E(x) = Σ_k w_k E(h g_k h'·x)        h, h' uniform on SO(3) or O(3)

    In the mean over the turns that is the average over the whole group, for every rule, the identity included: of the
    variance P_ℓ of the response a share ρ_ℓ of the rule remains as noise. The turn is made from a key, never from a
    state, so that a run that is started again sees the same turns:

    - ``"positions"``: the seed and a hash of the float64 positions, cell and species. The same structure always gets
      the same turn, a structure that differs in the last bit another one.
    - ``"step"``: the seed and the attribute ``step``, which whoever drives the potential sets: nothing is evaluated
      before.

    For a surface that is smooth, as optimizers need it, draw once instead: :func:`frozen`.

    Parameters
    ----------
    potential
        What is averaged.
    over
        The rule.
    proper
        Whether turns are proper rotations only; otherwise inversion is drawn as well, with probability one half.
    seed, key
        See above.
    verify
        See :class:`goniometer.symmetrization.verification.Verified`.

    Attributes
    ----------
    latest : (K, 3, 3) or None
        h h' of the copies that were evaluated last: what the rule's identity did to them.
    """

    def __init__(
        self,
        potential: Potential,
        over: Rule,
        *,
        proper: bool = False,
        seed: int = 0,
        key: str = "positions",
        verify: bool = True,
    ) -> None:
        if key not in KEYS:
            raise InputError(f"the key of a random turn is {' or '.join(map(repr, KEYS))}, not {key!r}")
        random_turn(proper, seed)  # a seed that cannot be used is refused now
        self.potential, self.rule, self.proper, self.seed, self.key = potential, over, proper, seed, key
        self.step: int | None = None
        self.latest: np.ndarray | None = None
        self.name = f"{potential.name} averaged over {described(over)}, turned at random"
        inherit(self, potential)
        self.verification = Verification(potential, some_elements(proper and not over.inversion), verify)
        self.stochastic = True
        # From one structure to the next the turn is another: there is no surface that forces could be the gradient of.
        self.conservative = self.conservative and key == "step"

    @property
    def moment(self) -> Hashable:
        """The step, if it is what turns are made from."""
        return self.step if self.key == "step" else None

    def turned(self, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> Iterator[Prediction]:
        """See :meth:`Potential.turned`; every copy has a turn of its own where the key is the positions.

        Raises :class:`InputError` where the key is the step and nobody has set it.
        """
        self.verify(structure)
        elements = self._elements([self._turn(structure, matrix) for matrix in matrices])
        return averages(self.potential, structure, matrices, elements, self.rule)

    def turned_each(
        self, structure: Atoms, positions: Float64[np.ndarray, "K N 3"], matrices: Float64[np.ndarray, "K 3 3"]
    ) -> Iterator[Prediction]:
        """See :meth:`Potential.turned_each`."""
        placements = [placed(structure, each) for each in positions]
        for each in placements[:1]:
            self.verify(each)
        pairs = zip(placements, matrices, strict=True)
        elements = self._elements([self._turn(each, matrix) for each, matrix in pairs])
        yield averages_each(self.potential, structure, positions, matrices, elements, self.rule)

    def _elements(self, turns: list[tuple[np.ndarray, np.ndarray]]) -> Float64[np.ndarray, "K M 3 3"]:
        self.latest = np.stack([left @ right for left, right in turns])
        return np.stack([left @ self.rule.matrices @ right for left, right in turns])

    def _turn(self, structure: Atoms, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.key == "step":
            if self.step is None:
                raise InputError(
                    "a random turn with key='step' needs the step, which nobody has set: set the potential's attribute "
                    "step before each evaluation, or take key='positions'"
                )
            return random_turn(self.proper, self.seed, self.step)
        return random_turn(self.proper, self.seed, *fingerprint(structure, matrix))


def frozen(over: Rule, seed: int, proper: bool = False) -> Rule:
    """The rule, turned at random once: its average is one smooth surface, drawn by the seed.

    The turn may be improper, and so is not that of :meth:`goniometer.rotations.Rule.turned_at_random`.
    """
    turned = over.turned(*random_turn(proper, seed))
    return replace(turned, seed=seed, turn=f"frozen by {'proper ' if proper else ''}seed {seed}")


def random_turn(proper: bool, seed: int, *key: int) -> tuple[np.ndarray, np.ndarray]:
    """h and h', (3, 3) each, uniform on SO(3), or their product on O(3), drawn by :func:`generator`."""
    rng = generator(seed, *key)
    left, right = random_rotations(2, rng)
    sign = 1.0 if proper else rng.choice((1.0, -1.0))
    return sign * left, right


def generator(seed: int, *key: int) -> np.random.Generator:
    """The generator of a seed and a key: those of (5,), (5, 0) and (5 + 2³²,) are independent.

    Raises :class:`InputError` for a negative number, and for a seed beyond the 128 bits that a generator takes.
    """
    least = min(seed, *key, 0)
    if least < 0:
        raise InputError(f"seed and step of a random turn are 0 or more, not {least}")
    if seed >= 2**128:
        raise InputError(f"the seed of a random turn is below 2¹²⁸, not {seed}")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def fingerprint(structure: Atoms, matrix: Float64[np.ndarray, "3 3"] | None = None) -> tuple[int, ...]:
    """A hash of the structure, or of a turned copy, as four integers.

    Of positions and right-handed cell in float64, species and periodicity. Zero has one sign, and numbers one order of
    bytes, on every machine.
    """
    content = np.concatenate([structure.positions, structure.cell.array])
    content = content if matrix is None else content @ matrix.T
    content = np.concatenate([content[:-3], right_handed(content[-3:])]) + 0.0
    digest = blake2b(content.astype("<f8").tobytes(), digest_size=16)
    digest.update(structure.numbers.astype("<i8").tobytes() + structure.pbc.tobytes())
    return tuple(np.frombuffer(digest.digest(), dtype="<u4").tolist())
