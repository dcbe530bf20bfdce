"""What another potential would change in an observable, from the frames of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from goniometer.dynamics.description import Run
from goniometer.dynamics.forces import Forces
from goniometer.errors import InputError
from goniometer.observables.equilibration import discarded, equilibration
from goniometer.observables.registry import STATICS, check_observable, with_molecules
from goniometer.observables.result import Observable
from goniometer.potentials.base import Potential
from goniometer.potentials.loading import load
from goniometer.rotations import GRIDS, grid_rule, rule
from goniometer.sampling.invariance import Residual, residuals
from goniometer.sampling.orbits import products_among
from goniometer.sampling.reweighting import FRAMES, SAID, reevaluate, reweighted, spread
from goniometer.symmetrization.average import Averaged
from goniometer.symmetrization.crystal import lattice_elements
from goniometer.trajectories.h5md import Trajectory

# What stands for the other potential in the table.
_OTHER = "other"
# Averages with inversion and of this degree or more are measured for whether they depend on the orientation.
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
    """⟨A′⟩_{V′} − ⟨A⟩_V of a static observable, see :func:`goniometer.sampling.reweighting.reweighted`.

    If V is a model and V′ an average, frames are taken in all the orientations that their lattice allows, see
    :class:`goniometer.sampling.orbits.Orbits`: how the box lay plays no part. An average over elements that map the
    lattice onto itself is worked out for every copy. One with inversion and of degree 2 or more has the same energy for
    all copies, if the rule resolves the model: that is measured on rotated copies of a few frames, see
    :func:`goniometer.sampling.invariance.residuals`. Where their energies differ by more than the error of the
    result allows, and for all other potentials, frames are taken as they are. ``about`` holds the number of
    orientations, the potential, and the residual error of the average over random rotations (``residual_meV``) and over
    copies that map the lattice onto itself (``residual_over_lattice_meV``), where these were measured.

    Parameters
    ----------
    trajectory
        Of a run of this program that samples V: raw, averaged, or with multiple time steps.
    name, options
        One of :data:`goniometer.observables.registry.STATICS`, or ``pressure`` or ``stress``, with its options. Without
        the option ``discard`` what is left out at the start is measured, see
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
    share = chosen.pop("discard", None)
    measured = equilibration([trajectory]) if share is None else None
    discard, too_short = discarded([trajectory], share, measured)
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
    about, of_lattice = _measured(trajectory, average, spread(trajectory, frames, discard[0]), exact)
    copies = exact or of_lattice is not None
    table = reevaluate(
        trajectory, sampled, {_OTHER: other}, frames=frames, discard=discard[0], copies=copies, progress=progress
    )
    of = name if name in SAID else STATICS[name](trajectory, **chosen)
    orbits = {} if table.orbits is None else {"none": table.orbits}
    if average is not None and table.orbits is not None:
        known = table.orbits.average(average.rule) if exact else None
        orbits[_OTHER] = known or table.orbits.invariant(*table.said(_OTHER))
        free = [orbits[each].free_energies(run.temperature) for each in (_OTHER, "none")]
        if of_lattice is not None and not of_lattice.negligible(free[0] - free[1], run.temperature):
            about["as_they_are"] = f"frames are taken in their own orientation alone, for {of_lattice.said()}"
            orbits = {}
    if orbits:
        sides = table.sides_by_orbit(trajectory, of, orbits, run.temperature)
    else:
        sides = {each: table.side(trajectory, of, each) for each in ("none", _OTHER)}
    found = reweighted([sides[_OTHER].less(sides["none"])], run.temperature, too_short)
    orientations = len(orbits["none"].matrices) if orbits else 1
    kept = {key: value for key, value in found.about.items() if key != "grid"}
    if measured is not None and measured.frozen:
        about["frozen"] = measured.frozen
    return replace(found, about={**kept, "by": other.name, "orientations": orientations, **about})


def _measured(
    trajectory: Trajectory, average: Averaged | None, frames: np.ndarray, exact: bool
) -> tuple[dict[str, Any], Residual | None]:
    """The residual error of an average, as reported; and that over copies, where these may be taken for alike."""
    if average is None:
        return {}, None
    candidate = not exact and average.rule.inversion and average.rule.degree >= _SAME
    of_rotations, of_lattice = residuals(trajectory, average, frames, lattice=candidate)
    about: dict[str, Any] = {
        "residual_meV": 1e3 * of_rotations.averaged,
        "residual_error_meV": 1e3 * of_rotations.error,
        "symmetry_error_meV": 1e3 * of_rotations.unsymmetrized,
    }
    if of_lattice is not None:
        about["residual_over_lattice_meV"] = 1e3 * of_lattice.averaged
    return about, of_lattice


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
