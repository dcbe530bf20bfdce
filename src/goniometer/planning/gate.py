"""A limit on the symmetry error, for continuous integration."""

from __future__ import annotations

from collections.abc import Sequence

from goniometer.errors import InputError
from goniometer.planning.tolerance import Tolerance
from goniometer.probing.result import ProbeResult


def breaches(result: ProbeResult, limits: Sequence[Tolerance]) -> list[str]:
    """One line for each limit and structure whose error exceeds it.

    Held against a limit are the rms over all orientations, and the largest deviation (rms over components) in the input
    orientation and its octahedral copies. Raises :class:`InputError` if a limit is on a quantity that no structure has.
    """
    lines = []
    for limit in limits:
        figures = [(each, limit.figure(each)) for each in result.structures]
        if figures and all(figure is None for _, figure in figures):
            raise InputError(f"no structure has a {limit.quantity} that could be held against {limit.text}")
        for structure, figure in figures:
            if figure is None:
                continue
            special = max(abs(figure.as_given), figure.special or 0.0)
            for what, value in (("rms", figure.rms), ("deviation in an axis-aligned orientation", special)):
                if value > limit.limit(structure.n_atoms):
                    shown, unit = value, figure.unit
                    if limit.per_atom:
                        shown, unit = value / structure.n_atoms, "eV/atom"
                    lines.append(f"{structure.name}: {limit.quantity} {what} {shown:.4g} {unit} exceeds {limit.text}")
                    break
    return lines
