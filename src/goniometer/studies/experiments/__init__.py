"""Experiments of the study: runs, what they say, and the figure of it, resumable as a whole."""

from __future__ import annotations

from collections.abc import Iterable

from goniometer.errors import InputError

#: Options that are of the liquid alone.
LIQUID_OPTIONS = ("only", "walkers", "frames", "grids", "starts")


def check_options(experiment: str, given: Iterable[str]) -> None:
    """Raise :class:`InputError` for one of :data:`LIQUID_OPTIONS` that is given to another experiment."""
    for name in LIQUID_OPTIONS:
        if experiment != "liquid" and name in given:
            raise InputError(f"{name} goes with the experiment liquid, not with {experiment}")
