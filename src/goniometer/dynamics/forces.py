"""The forces of a run: the potentials that its strategy makes of its model, for all replicas at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from goniometer.dynamics.description import Run, Strategy
from goniometer.errors import InputError
from goniometer.potentials.base import Potential
from goniometer.potentials.batching import ATOMS_AT_ONCE
from goniometer.potentials.caching import Remembering, unturned
from goniometer.potentials.loading import is_factory, load
from goniometer.rotations import Rule
from goniometer.rotations import rule as named_rule
from goniometer.symmetrization.average import Averaged
from goniometer.symmetrization.random import RandomlyTurned
from goniometer.symmetrization.replicas import Replicas
from goniometer.symmetrization.tumbling import Tumbling


class Forces:
    """The potentials of a run.

    Parameters
    ----------
    run
        The description.
    structure
        One replica.
    potential
        In the place of the model of the description.
    verify
        Whether averages are tested to be potentials before they are used; by default what the description says.

    Attributes
    ----------
    potentials
        Of all replicas: one, or with multiple time steps the inner and the outer one.
    """

    def __init__(
        self, run: Run, structure: Atoms, potential: Potential | None = None, *, verify: bool | None = None
    ) -> None:
        self.structure, self.count = structure, run.replicas
        self._verify = run.verify if verify is None else verify
        model = potential or _loaded(run, structure)
        self._frames: list[Tumbling] = []
        self._random: RandomlyTurned | None = None
        self.potentials = [self._replicated(each) for each in self._made(run, model)]

    def _made(self, run: Run, model: Potential) -> list[Potential]:
        strategy = run.strategy
        if strategy.kind == "raw":
            return [model]
        over = rule_of(strategy)
        if strategy.kind == "average":
            return [Averaged(model, over, verify=self._verify)]
        if strategy.kind == "tumble":
            times = {"timestep": run.step, "period": strategy.period, "memory": strategy.memory}
            seeds = [_seed(run.seed, replica) for replica in range(run.replicas)]
            # The frames share the model and the rule: one is tested.
            self._frames = [
                Tumbling(model, over, **times, proper=strategy.proper, seed=seed, verify=self._verify and not place)
                for place, seed in enumerate(seeds)
            ]
            return [self._frames[0]]
        if strategy.kind == "mts" and strategy.samples:
            shared = Remembering(model) if _shares_a_copy(strategy) and model.moment is None else model
            return [shared, Averaged(shared, over, verify=self._verify)]
        self._random = RandomlyTurned(model, over, proper=strategy.proper, seed=run.seed, verify=self._verify)
        return [model, self._random] if strategy.kind == "mts" else [self._random]

    def _replicated(self, potential: Potential) -> Potential:
        if self.structure.pbc.any():
            if self.count > 1:
                raise InputError(
                    "replicas are those of an isolated molecule, and this structure is periodic: start several runs"
                )
            return potential
        return Replicas(self._frames or potential, self.structure, self.count)

    def verify(self, start: Atoms) -> None:
        """Test on a structure of all replicas that averages are potentials; see :meth:`Potential.verify`."""
        for each in self.potentials:
            each.verify(start)

    @property
    def work(self) -> float | None:
        """Of all tumbling frames, in eV; None where there is none, or none that is known."""
        works = [frame.work for frame in self._frames if frame.work is not None]
        return sum(works) if works and len(works) == len(self._frames) else None

    def energies(self) -> list[Float64[np.ndarray, " R"]] | None:
        """Of the replicas in eV, at the last evaluation, for each of the potentials; None for a periodic structure."""
        found = [each.last.energies for each in self.potentials if isinstance(each, Replicas) and each.last is not None]
        return found or None

    @property
    def turns(self) -> Float64[np.ndarray, "R 3 3"] | None:
        """How the model saw the replicas turned at the last evaluation, the rule within apart; None if it did not."""
        if self._frames:
            return np.stack([frame.matrix for frame in self._frames])
        return None if self._random is None or len(self.potentials) > 1 else self._random.latest

    @property
    def state(self) -> list[dict[str, Any]]:
        """Of the tumbling frames; nothing else has one."""
        return [frame.state for frame in self._frames]

    def restore(self, state: list[dict[str, Any]]) -> None:
        """Go on from a state."""
        for frame, each in zip(self._frames, state, strict=True):
            frame.restore(each)


def _loaded(run: Run, structure: Atoms) -> Potential:
    settings = run.potential
    batch = settings.batch
    if batch is None and not is_factory(settings.model):
        batch = max(1, ATOMS_AT_ONCE // len(structure))
    return load(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        forces=settings.forces,
        batch=batch,
        options=settings.options,
    )


def rule_of(strategy: Strategy) -> Rule:
    """The rule of a strategy; where a single copy is meant, turned or not, without its inverse."""
    alone = strategy.rule is None and strategy.kind in ("raw", "random", "tumble")
    name = strategy.rule or ("identity" if alone else "octahedral")
    return named_rule(name, inversion=not alone if strategy.inversion is None else strategy.inversion)


def evaluations(strategy: Strategy) -> float:
    """Of the model, for each (inner) time step and replica."""
    over = len(rule_of(strategy))
    return 1.0 + (over - _shares_a_copy(strategy)) / strategy.ratio if strategy.kind == "mts" else float(over)


def _shares_a_copy(strategy: Strategy) -> bool:
    """Whether the inner steps have evaluated a copy of the average with multiple time steps already."""
    return strategy.kind == "mts" and strategy.samples and bool(unturned(rule_of(strategy).matrices).any())


def _seed(seed: int, replica: int) -> int:
    """A seed for every replica."""
    words = np.random.SeedSequence(seed, spawn_key=(replica,)).generate_state(4)
    return sum(int(word) << (32 * place) for place, word in enumerate(words))
