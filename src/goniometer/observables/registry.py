"""The functions behind the names of observables, and the way from a trajectory to one of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any

from goniometer.errors import InputError
from goniometer.observables import check_name, statics
from goniometer.observables.correlations import (
    diffusion,
    mean_squared_displacement,
    reorientation,
    velocity_autocorrelation,
    vibrations,
)
from goniometer.observables.equilibration import equilibration as equilibrated
from goniometer.observables.gas import angular_momentum, correction_spectrum, drift, potential_spectrum
from goniometer.observables.heat import mts_heat
from goniometer.observables.molecules import Molecules, find_molecules
from goniometer.observables.orientation import default_direction, directions, free_energy, uniformity
from goniometer.observables.result import Observable
from goniometer.observables.statics import Static, average
from goniometer.observables.stress import pressure, stress
from goniometer.trajectories.h5md import DISCARD, Trajectory


def orientation(
    trajectory: Trajectory,
    frame: str = "laboratory",
    molecules: Molecules | None = None,
    discard: float = DISCARD,
) -> Observable:
    """The orientational free energy of isolated molecules or of those in a liquid.

    See :func:`goniometer.observables.orientation.free_energy`, with the p-value of :func:`uniformity` where there are
    enough replicas, and :func:`goniometer.observables.statics.orientation`.
    """
    if trajectory.replica.pbc.any():
        return average(trajectory, statics.orientation(trajectory, frame, molecules), discard)
    if molecules is not None:
        raise InputError("molecules goes with a liquid: a molecule in vacuum has a direction of its own")
    vectors = directions(trajectory, frame=frame)
    found = free_energy(vectors, discard=discard)
    about = {**found.about, "frame": frame, "direction": default_direction(trajectory.replica)[1]}
    if vectors.shape[1] >= 26:
        about["uniform_p_value"] = uniformity(vectors[int(discard * len(vectors)) :])
    return replace(found, about=about)


def orientation_in_the_model(trajectory: Trajectory) -> Observable:
    """The same in the frame of the model, of runs with random turns or tumbling frames."""
    return orientation(trajectory, "model")


def _averaged(static: Callable[..., Static]) -> Callable[..., Observable]:
    @wraps(static)
    def found(trajectory: Trajectory, discard: float = DISCARD, **options: Any) -> Observable:
        return average(trajectory, static(trajectory, **options), discard)

    return found


#: Static observables of a liquid by name: of a trajectory, and of reweighted ones.
STATICS: dict[str, Callable[..., Static]] = {
    "pair-distribution": statics.pair_distribution,
    "pair-moments": statics.pair_moments,
    "dipole-correlation": statics.dipole_correlation,
    "dipole-fluctuation": statics.dipole_fluctuation,
    "direction-moments": statics.direction_moments,
    "orientation": statics.orientation,
    "potential-energy": statics.potential_energy,
    "temperature": statics.temperature,
}
#: What ``goniometer observe`` knows, by name.
OBSERVABLES: dict[str, Callable[..., Observable]] = {
    "angular-momentum": angular_momentum,
    "drift": drift,
    "potential-spectrum": potential_spectrum,
    "correction-spectrum": correction_spectrum,
    "mts-heat": mts_heat,
    **{name: _averaged(static) for name, static in STATICS.items()},
    "orientation": orientation,
    "orientation-model": orientation_in_the_model,
    "displacement": mean_squared_displacement,
    "diffusion": diffusion,
    "reorientation": reorientation,
    "velocity-autocorrelation": velocity_autocorrelation,
    "vibrations": vibrations,
    "pressure": pressure,
    "stress": stress,
}
# Parameters that are no options.
_NO_OPTIONS = ("progress",)


def check_observable(name: str, options: Mapping[str, Any] | None = None) -> None:
    """Raise :class:`InputError` unless there is an observable of that name, with these options."""
    check_name(name)
    known = known_options(name)
    for option in options or {}:
        if option not in known:
            said = f"its options are {', '.join(known)}" if known else "it has none"
            raise InputError(f"the observable '{name}' has no option '{option}'; {said}")


def known_options(name: str) -> list[str]:
    """Of an observable."""
    _, *parameters = inspect.signature(OBSERVABLES[name]).parameters
    known = [each for each in parameters if each not in _NO_OPTIONS]
    return known if name not in STATICS or "discard" in known else [*known, "discard"]


def observe(
    trajectory: Trajectory,
    name: str,
    options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Observable:
    """An observable by its name in :data:`OBSERVABLES`.

    Of a periodic box what is left out at the start, unless the option ``discard`` says it, is what
    :func:`goniometer.observables.equilibration.equilibration` measures: several correlation times of its slowest
    observable, and half of the run at most. ``about`` then holds both times in ps, and under ``too_short`` a sentence
    if the run is not long enough for that.

    The option ``molecules`` is what :func:`goniometer.observables.molecules.find_molecules` gives, or a mapping of its
    ``size`` and ``weights``. ``progress`` is told how far those are that take a model.

    Raises :class:`InputError` for a name or an option that is not known, and where the trajectory is not of that kind.
    """
    check_observable(name, options)
    of = OBSERVABLES[name]
    told = {"progress": progress} if "progress" in inspect.signature(of).parameters else {}
    chosen = with_molecules(trajectory, options or {})
    measured = None
    if "discard" in known_options(name) and "discard" not in chosen:
        measured = equilibrated([trajectory])
    if measured is None:
        return of(trajectory, **chosen, **told)
    found = of(trajectory, **chosen, discard=measured.part(trajectory), **told)
    return replace(found, about={**found.about, **measured.described()})


def with_molecules(trajectory: Trajectory, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the molecules that their rule finds."""
    chosen = dict(options)
    if "molecules" in chosen and not isinstance(chosen["molecules"], Molecules):
        chosen["molecules"] = _molecules(trajectory, chosen["molecules"])
    return chosen


def _molecules(trajectory: Trajectory, rule: object) -> Molecules:
    known = rule if isinstance(rule, Mapping) and set(rule) <= {"size", "weights"} else {"size": "unknown"}
    size, weights = known.get("size"), known.get("weights")
    numbers = weights is None or (isinstance(weights, list) and all(isinstance(each, int | float) for each in weights))
    if not numbers or not (size is None or isinstance(size, int)):
        raise InputError(f"molecules is {rule}: write {{size: 5, weights: [1, 0, 0, 0, -1]}}, or one of both")
    return find_molecules(trajectory.replica, size, None if weights is None else [float(each) for each in weights])
