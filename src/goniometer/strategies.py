"""Symmetrized potentials by name: an average over a rule, a random rotation, a tumbling frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from goniometer.errors import InputError, PotentialError
from goniometer.planning.planner import RulePlan, parse_tolerances, plan
from goniometer.potentials.base import Potential, Prediction, inherit, placed
from goniometer.potentials.loading import load, model_file
from goniometer.rotations import Rule
from goniometer.rotations import rule as named_rule
from goniometer.structures import read_structures
from goniometer.symmetrization.average import Averaged
from goniometer.symmetrization.crystal import CrystalAveraged
from goniometer.symmetrization.random import RandomlyTurned, frozen
from goniometer.symmetrization.tumbling import MEMORY, PERIOD, Tumbling

STRATEGIES = ("average", "random", "frozen", "tumble")
#: The word for a rule that a plan chooses.
PLAN = "plan"


def symmetrize(
    potential: Any,
    rule: str | Rule = "octahedral",
    *,
    inversion: bool | None = None,
    strategy: str = "average",
    seed: int | None = None,
    proper: bool = False,
    key: str = "positions",
    timestep: float | None = None,
    period: float = PERIOD,
    memory: float = MEMORY,
    space_group: Atoms | None = None,
    force_tolerance: str | float | None = None,
    energy_tolerance: str | float | None = None,
    stress_tolerance: str | float | None = None,
    structures: Any = None,
    verify: bool = True,
) -> Potential:
    """Make a potential that prefers no direction, or less so; it is a potential like any other.

    Parameters
    ----------
    potential
        A potential, or what :func:`goniometer.load` makes one from.
    rule
        The name of a rule, a :class:`goniometer.rotations.Rule`, or ``"plan"``: the cheapest one that is certified for
        the tolerances on the structures, or on the first structure that is evaluated if none are given. It is then
        kept for the life of the potential.
    inversion
        Whether a rule that is given by name includes inversion; by default it does. A Rule object says so itself.
    strategy
        ============  ====================================================================================  ===========
        ``average``   the average over the rule: :class:`goniometer.symmetrization.Averaged`                    K a step
        ``random``    the rule turned at random for every evaluation: exact in the mean, the rest is noise  K a step
        ``frozen``    the rule turned at random once: one smooth surface                                    K a step
        ``tumble``    a frame that turns with the time of a simulation, the rule within it                  K a step
        ============  ====================================================================================  ===========

        The last three make sense with small rules, ``rule="identity", inversion=False`` being the smallest.
    seed
        Of every random turn; 0 by default.
    proper
        Turn by proper rotations only (``random``, ``frozen``, ``tumble``).
    key
        What the turns of ``random`` are made from: ``"positions"`` or ``"step"``.
    timestep, period, memory
        Of ``tumble``, in fs: see :class:`goniometer.symmetrization.Tumbling`. The time step has to be given.
    space_group
        With ``average``: a reference crystal (Atoms) whose symmetry all structures keep, so that fewer elements are
        evaluated; see :class:`goniometer.symmetrization.CrystalAveraged`.
    force_tolerance, energy_tolerance, stress_tolerance, structures
        With ``rule="plan"``: as for :func:`goniometer.plan`.
    verify
        Test on the first structure of every kind (species, periodic directions) that is evaluated that the average is a
        potential: that in some of its copies forces are minus the gradient of the energy and the stress its derivative
        with respect to strain. It takes 30 evaluations of the potential, once; an evaluation that fails the test raises
        :class:`PotentialError` with the likely cause. See :mod:`goniometer.symmetrization.verification`.

    Raises :class:`InputError` for an unknown rule or strategy, and for an argument that does not go with the strategy.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"the strategy is {', '.join(map(repr, STRATEGIES[:-1]))} or 'tumble', not {strategy!r}")
    tolerances = {"force": force_tolerance, "energy": energy_tolerance, "stress": stress_tolerance}
    tolerances = {name: tolerance for name, tolerance in tolerances.items() if tolerance is not None}
    _check(
        strategy,
        rule,
        tolerances,
        inversion=inversion,
        seed=seed,
        proper=proper or None,
        key=None if key == "positions" else key,
        timestep=timestep,
        period=None if period == PERIOD else period,
        memory=None if memory == MEMORY else memory,
        space_group=space_group,
        structures=structures,
    )
    if space_group is not None and not isinstance(space_group, Atoms):
        raise InputError(f"the space group is that of a crystal, given as Atoms, not as {type(space_group).__name__}")
    seed = 0 if seed is None else seed
    for name, number, kind in (("seed", seed, int), ("timestep", timestep or 1.0, int | float)):
        if isinstance(number, bool) or not isinstance(number, kind):
            raise InputError(f"{name} is a number{'' if kind is int else ' of fs'}, not {number!r}")
    inner = load(potential)
    if rule == PLAN:
        parse_tolerances(**tolerances)
        return Planned(inner, tolerances, structures)
    over = _rule(rule, inversion)
    if strategy == "random":
        return RandomlyTurned(inner, over, proper=proper, seed=seed, key=key, verify=verify)
    if strategy == "tumble":
        assert timestep is not None  # checked above
        times = {"timestep": timestep, "period": period, "memory": memory}
        return Tumbling(inner, over, **times, proper=proper, seed=seed, verify=verify)
    if space_group is not None:
        return CrystalAveraged(inner, over, space_group, verify=verify)
    return Averaged(inner, frozen(over, seed, proper) if strategy == "frozen" else over, verify=verify)


def chosen_rule(
    model: str,
    rule: str,
    *,
    inversion: bool | None = None,
    dtype: str | None = None,
    structures: Any = None,
    **tolerances: Any,
) -> Rule:
    """The rule of a name, or, for ``"plan"``, the one that :func:`symmetrize` finds for a model file on structures."""
    given = {name: tolerance for name, tolerance in tolerances.items() if tolerance is not None}
    if rule != PLAN:
        _check("average", rule, given, structures=structures)
        return _rule(rule, inversion)
    if structures is None:
        raise InputError("a planned rule needs structures to plan on: --structure FILE")
    model_file(model)  # before the work
    planned = symmetrize(load(model, dtype=dtype), PLAN, inversion=inversion, structures=structures, **tolerances)
    assert isinstance(planned, Planned)
    assert planned.rule is not None  # structures were given
    return planned.rule


def _check(strategy: str, rule: str | Rule, tolerances: dict[str, Any], **given: Any) -> None:
    """Refuse arguments that would be ignored."""
    if strategy == "tumble" and given["timestep"] is None:
        raise InputError("a tumbling potential needs the time step of the simulation: timestep=0.5, in fs")
    tumbles = strategy == "tumble"
    belongs = {
        "inversion": rule != PLAN,
        "seed": strategy != "average",
        "proper": strategy != "average",
        "key": strategy == "random",
        "timestep": tumbles,
        "period": tumbles,
        "memory": tumbles,
        "space_group": strategy == "average" and rule != PLAN,
        "structures": rule == PLAN,
    }
    for name, fits in belongs.items():
        if given.get(name) is not None and not fits:
            raise InputError(f"{name} does not go with strategy {strategy!r} and rule {_called(rule)!r}")
    if (rule == PLAN) != bool(tolerances):
        raise InputError(
            "a planned rule needs a tolerance, force_tolerance='0.1meV/Å' for instance"
            if rule == PLAN
            else f"a tolerance goes with rule='plan', not with {_called(rule)!r}"
        )
    if rule == PLAN and strategy != "average":
        raise InputError(f"a planned rule goes with strategy 'average', not {strategy!r}")


def _called(rule: str | Rule) -> str:
    return rule.name if isinstance(rule, Rule) else rule


def _rule(rule: str | Rule, inversion: bool | None) -> Rule:
    if isinstance(rule, Rule):
        if inversion is not None and inversion != rule.inversion:
            raise InputError(f"the rule {rule.name} comes {'with' if rule.inversion else 'without'} inversion as it is")
        return rule
    if not isinstance(rule, str):
        raise InputError(f"a rule is given by its name or as a Rule, not as {type(rule).__name__}")
    return named_rule(rule, inversion=True if inversion is None else inversion)


class Planned(Potential):
    """A potential averaged over the cheapest rule that is certified to meet tolerances.

    Parameters
    ----------
    potential
        What is averaged.
    tolerances
        ``force``, ``energy`` and ``stress``, as for :func:`goniometer.plan`.
    structures
        What to probe and certify on; None for the first structure that is evaluated.

    Attributes
    ----------
    plan
        The :class:`goniometer.planning.planner.RulePlan`; None until it was made.
    rule
        The rule that it found, likewise.
    """

    def __init__(self, potential: Potential, tolerances: dict[str, Any], structures: Any = None) -> None:
        self.potential, self.tolerances = potential, tolerances
        self.plan: RulePlan | None = None
        self.rule: Rule | None = None
        self._averaged: Averaged | None = None
        self._refused: PotentialError | None = None
        self.name = f"{potential.name} averaged to {', '.join(f'{k} {v}' for k, v in tolerances.items())}"
        inherit(self, potential)
        if structures is not None:
            self._settle(structures)

    def turned(self, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> Iterator[Prediction]:
        """See :meth:`Potential.turned`. Raises :class:`PotentialError` if the rule was not certified."""
        averaged = self._averaged or self._settle(read_structures(structure))
        return averaged.turned(structure, matrices)

    def turned_each(
        self, structure: Atoms, positions: Float64[np.ndarray, "K N 3"], matrices: Float64[np.ndarray, "K 3 3"]
    ) -> Iterator[Prediction]:
        """See :meth:`Potential.turned_each`; raises what :meth:`turned` raises."""
        averaged = self._averaged or self._settle(read_structures(placed(structure, positions[0])))
        return averaged.turned_each(structure, positions, matrices)

    def _settle(self, structures: Any) -> Averaged:
        if self._refused is not None:
            raise self._refused
        made = plan(self.potential, structures, **self.tolerances)
        if not made.certified:
            self._refused = PotentialError(
                f"{self.potential.name} is not certified to {', '.join(made.tolerances)} with {made.rule} ({made.n} "
                f"evaluations): {made.reason}"
            )
            raise self._refused
        self.plan, self.rule = made, named_rule(made.rule, made.inversion)
        self._averaged = Averaged(self.potential, self.rule)
        # The plan has tested the average on its structures; those of other species are tested when they come.
        self._averaged.verification.accept([atoms for _, atoms in read_structures(structures)])
        return self._averaged
