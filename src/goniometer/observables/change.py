"""What another potential would change in an observable, from the frames of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from goniometer.data.trajectory import Trajectory
from goniometer.dynamics.description import Run
from goniometer.dynamics.forces import Forces
from goniometer.errors import InputError
from goniometer.observables import STATICS, check_observable, with_molecules
from goniometer.observables.equilibration import discarded
from goniometer.observables.orbits import products_among
from goniometer.observables.result import Observable
from goniometer.observables.reweighting import FRAMES, SAID, reevaluate, reweighted
from goniometer.potentials.base import Potential
from goniometer.potentials.loading import load
from goniometer.rotations import GRIDS, grid_rule, rule
from goniometer.symmetrize.average import Averaged
from goniometer.symmetrize.crystal import lattice_elements

# What stands for the other potential in the table.
_OTHER = "other"
# Averages with inversion and of this degree or more are taken to say the same of all orientations.
_SAME = 2


def change(
    trajectory: Trajectory,
    name: str,
    by: str | Potential,
    options: Mapping[str, Any] | None = None,
    *,
    frames: int = FRAMES,
    progress: Callable[[int, int], None] | None = None,
) -> Observable:
    """⟨A′⟩_{V′} − ⟨A⟩_V of a static observable, see :func:`goniometer.observables.reweighting.reweighted`.

    If V is a model and V′ an average, frames are taken in all the orientations that their lattice allows, see
    :class:`goniometer.observables.orbits.Orbits`: how the box lay plays no part. An average over elements that map the
    lattice onto itself is worked out for every copy; one with inversion and of degree 2 or more is taken to say the
    same of all. Otherwise frames are taken as they are. ``about`` says of how many orientations, and by what.

    Parameters
    ----------
    trajectory
        Of a run of this program that samples V: raw, averaged, or with multiple time steps.
    name, options
        One of :data:`goniometer.observables.STATICS`, or ``pressure`` or ``stress``, with its options. Without the
        option ``discard`` what is left out at the start is measured, see
        :func:`goniometer.observables.equilibration.discarded`; a run that is too short has no band and no bound.
    by
        V′: a potential; a grid or a rule of rotations, over which the model of the run is averaged (a rule with
        inversion); or what ``goniometer.load`` takes.
    frames
        How many are evaluated, evenly spaced.
    progress
        Is told how many have been.

    Raises :class:`InputError` for an observable that is not static, a run that samples no potential (random turns, a
    tumbling frame), and a potential that is not known.
    """
    chosen = with_molecules(trajectory, options or {})
    discard, too_short = discarded([trajectory], chosen.pop("discard", None))
    check_observable(name, chosen)
    if name not in STATICS and name not in SAID:
        raise InputError(f"'{name}' is not static; reweighted are {', '.join(dict.fromkeys((*STATICS, *SAID)))}")
    if name in SAID and chosen:
        raise InputError(
            f"'{name}' is evaluated on the frames that are reweighted: {', '.join(chosen)} does not go with it"
        )
    description = trajectory.attributes.get("description")
    if not description:
        raise InputError(f"'{trajectory.name}' does not say which model made it, and at what temperature")
    run = Run.model_validate(description)
    if not run.strategy.samples:
        raise InputError(f"'{trajectory.name}' samples no potential of its own: it was turned; reweight a raw run")
    if run.ensemble != "nvt":
        raise InputError(f"'{trajectory.name}' is of no constant temperature")
    sampled = Forces(run, trajectory.replica).potentials[-1]
    raw = sampled.potential if isinstance(sampled, Averaged) else sampled
    other = _potential(by, raw) if isinstance(by, str) else by
    average = other if isinstance(other, Averaged) and sampled is raw else None
    exact = average is not None and average.potential is raw and _of_lattice(average, trajectory)
    same = average is not None and average.rule.inversion and average.rule.degree >= _SAME
    table = reevaluate(
        trajectory, sampled, {_OTHER: other}, frames=frames, discard=discard[0], copies=exact or same, progress=progress
    )
    of = name if name in SAID else STATICS[name](trajectory, **chosen)
    orbits = {} if table.orbits is None else {"none": table.orbits}
    if average is not None and table.orbits is not None:
        known = table.orbits.average(average.rule) if exact else None
        orbits[_OTHER] = known or table.orbits.invariant(*table.said(_OTHER))
        sides = table.sides_by_orbit(trajectory, of, orbits, run.temperature)
    else:
        sides = {each: table.side(trajectory, of, each) for each in ("none", _OTHER)}
    found = reweighted([sides[_OTHER].less(sides["none"])], run.temperature, too_short)
    orientations = len(orbits["none"].matrices) if orbits else 1
    about = {key: value for key, value in found.about.items() if key != "grid"}
    return replace(found, about={**about, "by": other.name, "orientations": orientations})


def _of_lattice(average: Averaged, trajectory: Trajectory) -> bool:
    """Whether it is over elements that map the lattice onto itself, and known of copies from what V says of them."""
    return products_among(average.rule.matrices, lattice_elements(trajectory.replica)) is not None


def _potential(name: str, raw: Potential) -> Potential:
    """An average of the raw model, or another model."""
    if name in GRIDS:
        return Averaged(raw, grid_rule(name))
    try:
        return Averaged(raw, rule(name, inversion=True))
    except InputError as no_rule:
        try:
            return load(name, dtype=raw.dtype)
        except InputError as no_model:
            raise InputError(f"'{name}' is no grid, no rule and no model: {no_rule}; {no_model}") from None
