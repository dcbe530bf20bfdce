"""What another potential would change in an observable, from the frames of a run as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from goniometer.data.trajectory import DISCARD, Trajectory
from goniometer.dynamics.description import Run
from goniometer.dynamics.forces import Forces
from goniometer.errors import InputError
from goniometer.observables import STATICS, check_observable, with_molecules
from goniometer.observables.result import Observable
from goniometer.observables.reweighting import FRAMES, SAID, Part, reevaluate, reweighted
from goniometer.potentials.base import Potential
from goniometer.potentials.loading import load
from goniometer.rotations import GRIDS, grid_rule, rule
from goniometer.symmetrize.average import Averaged

# What stands for the other potential in the table.
_OTHER = "other"


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

    Parameters
    ----------
    trajectory
        Of a run of this program that samples V: raw, averaged, or with multiple time steps.
    name, options
        One of :data:`goniometer.observables.STATICS`, or ``pressure`` or ``stress``, with its options.
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
    discard = float(chosen.pop("discard", DISCARD))
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
    others = {_OTHER: _potential(by, raw) if isinstance(by, str) else by}
    table = reevaluate(trajectory, sampled, others, frames=frames, discard=discard, progress=progress)
    taken = trajectory.taken(table.frames)
    if name in SAID:
        plain, changed = (table.static(trajectory, name, each).on(taken) for each in ("none", _OTHER))
    else:
        plain, changed = STATICS[name](trajectory, **chosen).on(taken), None
    return reweighted([Part(plain, table.correction(_OTHER), changed)], run.temperature)


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
