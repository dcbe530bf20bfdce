"""Correlation times of slow quantities, and quantities that keep one value in each run.

The dipole of a molecular crystal is of the latter kind as long as its protons keep their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64
from scipy.fft import dct
from scipy.stats import chi2
from scipy.stats import f as fisher

#: Correlation times of the fluctuation about its mean that the shortest run has to hold.
HELD = 100.0
#: The p-value of a constant mean below which a quantity drifts, and that of equal means below which they differ.
DRIFTS, DIFFER = 0.05, 1e-3
#: The p-value of a drift below which motion is slower than the correlation time that was measured.
HIDDEN = 0.02
# Cosines along a run: those that a drift is made of, up to k = 3, and those that the fluctuation alone has.
_DRIFT, _FLUCTUATION = slice(1, 4), slice(7, 25)
# The correlation time is that at which a correlation function has fallen to 1/e.
_FALLEN = np.exp(-1.0)
# The part of it from which on the slope of the logarithm is taken: what decays at once is over by then.
_EARLY = 0.25
# Parts of the largest value that are rounding.
_ROUNDING = 1e-10
# The crossing of an Ornstein-Uhlenbeck process over a time L scatters by 2.1 √(τ/L) τ (Bartlett's formula); 95 %.
_SCATTER, _QUANTILE = 2.1, 1.645


@dataclass(frozen=True)
class SlowSeries:
    """A quantity that may relax slowly, along a trajectory.

    Attributes
    ----------
    name
        What it is called in messages: ``M``, ``the potential energy``, ``the density of Ar``.
    values : (T, D)
        Of T frames.
    centred
        Whether its mean is zero by symmetry, so that no mean is subtracted.
    """

    name: str
    values: Float64[np.ndarray, "T D"]
    centred: bool = False


@dataclass(frozen=True)
class CorrelationTime:
    """A correlation time with its uncertainty.

    Attributes
    ----------
    name
        Of the observable.
    time
        The estimate in fs: the time at which the correlation function has fallen to 1/e, or, if that is longer, the
        slope of its logarithm from a quarter of that time on. Infinite if it does not fall.
    upper
        The upper limit of the estimate with 95 % confidence, in fs.
    resolved
        Whether it fell to 1/e within half of a run; otherwise the time is extrapolated.
    """

    name: str
    time: float
    upper: float
    resolved: bool


def correlation_time(runs: Sequence[SlowSeries], spacing: float) -> CorrelationTime:
    """The correlation time of one quantity from all runs together.

        ρ(t) = Σ x(s)·x(s + t) / Σ x(s)·x(s)        sums over all runs and all s with s + t within a run

    Both sums have the same origins s, so that ρ(t) of a process that relaxes exponentially is e^(−t/τ) wherever it
    began: runs that have not forgotten their start do not bias it. Unless the mean is zero by symmetry that of all runs
    is subtracted, which makes the time of short runs too small.

    Parameters
    ----------
    runs
        The same quantity of each run.
    spacing
        Of frames, in fs.
    """
    name, together = runs[0].name, np.concatenate([each.values for each in runs])
    mean = np.zeros(together.shape[1]) if runs[0].centred else together.mean(axis=0)
    moving = np.abs(together - mean).max(axis=0) > _ROUNDING * np.abs(together).max()
    if not moving.any():  # a quantity that never changes
        return CorrelationTime(name, 0.0, 0.0, True)
    correlation = _correlation([(each.values - mean)[:, moving] for each in runs])
    whole = spacing * sum(len(each.values) for each in runs)
    below = np.flatnonzero(correlation <= _FALLEN)
    if len(below):
        last = int(below[0])
        high, low = correlation[last - 1], correlation[last]
        crossing = last - 1 + (high - _FALLEN) / (high - low)
        early = int(_EARLY * crossing)
        slope = (last - early) / np.log(correlation[early] / low) if low > 0.0 else 0.0
        time = float(max(crossing, slope) if early >= 1 else crossing) * spacing
    else:
        last = len(correlation) - 1
        fallen = -np.log(min(1.0, correlation[last])) if last else 0.0
        time = float(last * spacing / fallen) if fallen > 0.0 else float("inf")
    return CorrelationTime(name, time, _upper(time, whole * int(moving.sum())), bool(len(below)))


def _upper(time: float, whole: float) -> float:
    """The upper limit of an estimate from series of that length in all: its logarithm is taken for normal.

    The scatter is that of a time one standard error longer: short estimates would understate it. Of simulated runs of
    6 to 60 correlation times 3.3 to 6.3 % exceed the limit (600 each, nominal 5).
    """
    if not np.isfinite(time):
        return time
    longer = time * (1.0 + _SCATTER * np.sqrt(time / whole))
    return time * float(np.exp(_QUANTILE * _SCATTER * np.sqrt(longer / whole)))


def _correlation(series: Sequence[np.ndarray]) -> np.ndarray:
    """ρ at lags up to half of the longest run."""
    lags = max(len(each) for each in series) // 2 + 1
    products, squares = np.zeros(lags), np.zeros(lags)
    for each in series:
        count = min(lags, len(each))
        transform = np.fft.rfft(each, n=2 * len(each), axis=0)
        products[:count] += np.fft.irfft(np.abs(transform) ** 2, axis=0).sum(axis=1)[:count]
        sums = np.cumsum((each**2).sum(axis=1))
        squares[:count] += sums[::-1][:count]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(products / squares, nan=1.0)


def frozen_time(runs: Sequence[SlowSeries], spacing: float) -> CorrelationTime | None:
    """The correlation time of the fluctuation about the mean of each run of a quantity that is frozen in these runs.

    The dipole of a molecular crystal is, in which protons keep their order: it has a value of its own in each run.
    Frozen is what fluctuates about the mean of its run with a correlation time, its upper limit, of which the shortest
    run holds :data:`HELD`, and which does not drift, while its means differ from run to
    run or from the zero that symmetry asks for (:func:`constant`). None of other
    quantities: those that relax slowly drift.
    """
    deviations = [replace(each, values=each.values - each.values.mean(axis=0), centred=True) for each in runs]
    found = correlation_time(deviations, spacing)
    shortest = spacing * (min(len(each.values) for each in runs) - 1)
    if not found.resolved or HELD * found.upper > shortest or shortest < _FLUCTUATION.stop * spacing:
        return None
    drifts, same = constant(*_series(runs), found.time / spacing)
    return found if drifts > DRIFTS and same < DIFFER else None


def relaxation_time(runs: Sequence[SlowSeries], spacing: float) -> CorrelationTime:
    """The time of :func:`correlation_time`, infinite where a slower motion is hidden behind a fast one.

    Runs from one box without a dipole, for instance, in which a slow dipole has only begun to grow: most of what is
    seen then fluctuates fast. Slower motion is what exceeds the spectrum of the time that was found
    (:func:`constant`, at a level of :data:`HIDDEN`).
    """
    found = correlation_time(runs, spacing)
    if min(len(each.values) for each in runs) < _FLUCTUATION.stop or not found.resolved:
        return found
    if constant(*_series(runs), found.upper / spacing)[0] >= HIDDEN:
        return found
    return CorrelationTime(found.name, float("inf"), float("inf"), False)


def constant(
    runs: Sequence[Float64[np.ndarray, "T D"]], centre: Float64[np.ndarray, " D"] | None, time: float = 0.0
) -> tuple[float, float]:
    """The p-values of a mean that is constant within each run, and of means that are the same in all runs.

    Of the series less the mean of all runs, or less ``centre`` where that is known, the coefficients of the cosines
    cos(π k (t + 1/2)/T) are independent and of one variance for all small k if it fluctuates about one mean, with
    correlation times of less than T / :data:`HELD`. With means of their own the coefficients k = 0 are larger than
    those of 7 ≤ k ≤ 24, and with a drift or steps within a run those of 1 ≤ k ≤ 3 are. Each ratio of mean squares
    follows Fisher's F distribution; the p-values of components are combined by Fisher's method. Before that, squares
    are divided by the spectrum of a process that relaxes exponentially in τ, 1/(1 + (π k τ/T)²).

    Parameters
    ----------
    runs
        The series of each run, of 25 values or more.
    centre
        Of the distribution, where it is known by symmetry.
    time
        τ of the fluctuation, in steps of the series.
    """
    whole = np.concatenate(runs)
    middle = whole.mean(axis=0) if centre is None else centre
    order = np.arange(_FLUCTUATION.stop)
    white = np.stack([1.0 + (np.pi * order * time / len(each)) ** 2 for each in runs])
    found = np.stack([dct(each - middle, axis=0, norm="ortho")[: _FLUCTUATION.stop] for each in runs])
    squares = found**2 * white[:, :, None]
    means, drift, fluctuation = squares[:, 0], squares[:, _DRIFT], squares[:, _FLUCTUATION]
    moving = fluctuation.sum(axis=(0, 1)) > 0.0
    noise, many = fluctuation.mean(axis=(0, 1))[moving], fluctuation.shape[0] * fluctuation.shape[1]
    known = len(runs) - (centre is None)
    p_drift = fisher.sf(drift.mean(axis=(0, 1))[moving] / noise, drift.shape[0] * drift.shape[1], many)
    if known == 0 or not moving.any():
        return _combined(p_drift), 1.0
    return _combined(p_drift), _combined(fisher.sf(means.sum(axis=0)[moving] / known / noise, known, many))


def _series(runs: Sequence[SlowSeries]) -> tuple[list[np.ndarray], np.ndarray | None]:
    """The arguments of :func:`constant`."""
    return [each.values for each in runs], np.zeros(runs[0].values.shape[1]) if runs[0].centred else None


def _combined(p_values: Float64[np.ndarray, " D"]) -> float:
    if not len(p_values):
        return 1.0
    return float(chi2.sf(-2.0 * np.log(np.maximum(p_values, 1e-300)).sum(), 2 * len(p_values)))
