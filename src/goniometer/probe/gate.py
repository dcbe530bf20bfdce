"""A limit on the symmetry error, for continuous integration."""

from __future__ import annotations

from collections.abc import Sequence

from goniometer.errors import InputError
from goniometer.probe.result import ProbeResult
from goniometer.probe.tolerance import Tolerance


def breaches(result: ProbeResult, limits: Sequence[Tolerance]) -> list[str]:
    """One line for each limit and structure whose rms error over the orbit exceeds it.

    Raises :class:`InputError` if a limit speaks of a quantity that no structure has.
    """
    lines = []
    for limit in limits:
        figures = [(each, limit.figure(each)) for each in result.structures]
        if figures and all(figure is None for _, figure in figures):
            raise InputError(f"no structure has a {limit.quantity} that could be held against {limit.text}")
        for structure, figure in figures:
            if figure is None or figure.rms <= limit.limit(structure.n_atoms):
                continue
            rms, unit = figure.rms, figure.unit
            if limit.per_atom:
                rms, unit = figure.rms / structure.n_atoms, "eV/atom"
            lines.append(f"{structure.name}: {limit.quantity} rms {rms:.4g} {unit} exceeds {limit.text}")
    return lines
