"""Observables: trajectories in, values with errors, units and the time in which they forget out."""

from __future__ import annotations

from collections.abc import Callable

from goniometer.data.trajectory import Trajectory
from goniometer.observables.gas import angular_momentum, correction_spectrum, drift, potential_spectrum
from goniometer.observables.orientation import directions, free_energy, uniformity
from goniometer.observables.result import Observable


def orientation(trajectory: Trajectory) -> Observable:
    """:func:`free_energy` of the dipole of water in the laboratory's frame, with the p-value of :func:`uniformity`."""
    return _orientation(trajectory, "laboratory")


def orientation_in_the_model(trajectory: Trajectory) -> Observable:
    """The same in the frame of the model, of runs with random turns or tumbling frames."""
    return _orientation(trajectory, "model")


def _orientation(trajectory: Trajectory, frame: str) -> Observable:
    from dataclasses import replace

    vectors = directions(trajectory, frame=frame)
    found = free_energy(vectors)
    about = {**found.about, "frame": frame}
    if trajectory.replicas >= 26:
        about["uniform_p_value"] = uniformity(vectors[len(vectors) // 10 :])
    return replace(found, about=about)


#: What ``goniometer observe`` knows, by name.
OBSERVABLES: dict[str, Callable[[Trajectory], Observable]] = {
    "angular-momentum": angular_momentum,
    "drift": drift,
    "potential-spectrum": potential_spectrum,
    "correction-spectrum": correction_spectrum,
    "orientation": orientation,
    "orientation-model": orientation_in_the_model,
}
