"""Observables of trajectories by name: values with errors, units and autocorrelation times.

The functions of :mod:`goniometer.observables.registry` are imported when they are first used: a name can be checked at
once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from goniometer.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from goniometer.observables.registry import OBSERVABLES, STATICS, check_observable, known_options, observe

__all__ = ["NAMES", "OBSERVABLES", "STATICS", "check_name", "check_observable", "known_options", "observe"]

#: The names of all observables.
NAMES = (
    *("angular-momentum", "drift", "potential-spectrum", "correction-spectrum", "mts-heat"),
    *("pair-distribution", "pair-moments", "dipole-correlation", "dipole-fluctuation", "direction-moments"),
    *("orientation", "potential-energy", "temperature", "orientation-model", "displacement", "diffusion"),
    *("reorientation", "velocity-autocorrelation", "vibrations", "pressure", "stress"),
)


def check_name(name: str) -> None:
    """Raise :class:`InputError` unless there is an observable of that name."""
    if name not in NAMES:
        hint = did_you_mean(name, NAMES)
        raise InputError(f"there is no observable '{name}'; there are {', '.join(NAMES)}{hint}")


def __getattr__(name: str) -> Any:
    if name in __all__:
        from goniometer.observables import registry

        return getattr(registry, name)
    raise AttributeError(f"module 'goniometer.observables' has no attribute '{name}'")
