"""Derivatives of an energy along a path from differences, with the uncertainty that smaller steps show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

#: Steps of the extrapolation, as multiples of the first.
FACTORS = (4.0, 2.0, 1.0, 0.5, 0.25)

Energies = Callable[[float], Float64[np.ndarray, " M"]]


def central(energies: Energies, step: float) -> Float64[np.ndarray, " M"]:
    """(E(h) − E(−h)) / 2h of M energies at once."""
    return np.asarray((energies(step) - energies(-step)) / (2.0 * step))


def extrapolated(
    energies: Energies, step: float, noise: float
) -> tuple[Float64[np.ndarray, "P M"], Float64[np.ndarray, "P M"]]:
    """dE/ds at s = 0 of M energies by Richardson extrapolation, for P pairs of steps (2h, h), and its uncertainty.

        D(h) = (E(h) − E(−h)) / 2h        R = (4 D(h) − D(2h)) / 3        σ = |R − D(h)| + noise / h

    Truncation grows with the step and rounding falls with it, so one of the pairs is best; where the energy is not
    smooth, the differences do not settle and all uncertainties are large.
    """
    steps = [step * factor for factor in FACTORS]
    slopes = [central(energies, each) for each in steps]
    values, errors = [], []
    for wide, narrow, h in zip(slopes, slopes[1:], steps[1:], strict=False):
        value = (4.0 * narrow - wide) / 3.0
        values.append(value)
        errors.append(np.abs(value - narrow) + noise / h)
    return np.array(values), np.array(errors)
