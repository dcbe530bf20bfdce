"""Means of correlated series, with errors that know of the correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

# The window of the integrated autocorrelation time is so many times as long as the time itself.
_WINDOW = 6.0
# Combinations of components that are looked at for slow motions.
_COMPONENTS = 6
# Of a series, to see whether it walks.
_STRETCHES = 36
#: From so many replicas on, errors come from their scatter alone.
REPLICAS = 8


@dataclass(frozen=True)
class Estimate:
    """A mean.

    Attributes
    ----------
    value, error
        The mean over times and replicas, and its standard error.
    time
        The integrated autocorrelation time in samples, ½ for white noise: the mean over replicas and components.
    effective
        The number of independent samples that the same error would take, of that variance.
    """

    value: np.ndarray
    error: np.ndarray
    time: float
    effective: float


def autocorrelation_time(series: Float64[np.ndarray, "T ..."]) -> float:
    """The integrated autocorrelation time, in samples, of a series or of several that are alike (along further axes).

        τ = ½ + Σ_{t=1}^{M} ρ(t)        M the smallest number with M ≥ 6 τ(M)

    after A. D. Sokal, *Monte Carlo methods in statistical mechanics* (1989). ½ for white noise, (1 + φ)/(2 (1 − φ)) for
    an autoregressive process; biased low for series shorter than some 50 τ. A constant series has ½.
    """
    covariance = _covariances(np.reshape(series, (len(series), -1))).sum(axis=1, keepdims=True)
    return float(_integrated(covariance)[0])


def autocorrelation_times(
    series: Float64[np.ndarray, "T P"], lengths: Sequence[int] | None = None
) -> Float64[np.ndarray, " P"]:
    """:func:`autocorrelation_time` of each of several series.

    With ``lengths``, each is made of stretches of so many samples that know nothing of each other, but have one mean:
    only pairs within a stretch count.
    """
    return _integrated(_covariances(series, lengths))


def slowest(series: Float64[np.ndarray, "T P"], lengths: Sequence[int] | None = None) -> float:
    """The longest autocorrelation time that series have, alone or in the combinations that vary most.

    What all components do together may be slow where each of them looks like noise: of the series over their standard
    deviations the six leading principal components are looked at as well. The largest of so many estimates errs on the
    long side. ``lengths`` as for :func:`autocorrelation_times`.
    """
    spread = series.std(axis=0)
    moving = spread > 0.0
    if not moving.any():
        return 0.5
    scaled = (series[:, moving] - series[:, moving].mean(axis=0)) / spread[moving]
    # The components of T × T, which is small, and not of P × P.
    _, vectors = np.linalg.eigh(scaled @ scaled.T)
    together = vectors[:, -min(_COMPONENTS, scaled.shape[1]) :]
    return float(max(autocorrelation_times(each, lengths).max() for each in (scaled, together)))


def _covariances(flat: np.ndarray, lengths: Sequence[int] | None = None) -> np.ndarray:
    """Of each column at all lags, about the mean of all."""
    lengths = (len(flat),) if lengths is None else lengths
    longest = max(lengths)
    parts = np.split(flat - flat.mean(axis=0), np.cumsum(lengths)[:-1])
    products, pairs = np.zeros((longest, flat.shape[1])), np.zeros(longest)
    for part in parts:
        transform = np.fft.rfft(part, n=2 * longest, axis=0)
        products += np.fft.irfft(np.abs(transform) ** 2, axis=0)[:longest]
        pairs += np.maximum(0, len(part) - np.arange(longest))
    return np.asarray(products / pairs[:, None])


def _integrated(covariance: np.ndarray) -> np.ndarray:
    moving = covariance[0] > 0.0
    scale = np.where(moving, covariance[0], 1.0)
    times = np.cumsum(covariance / scale, axis=0) - 0.5
    enough = np.arange(len(covariance))[:, None] >= _WINDOW * times
    last = np.where(enough.any(axis=0), np.argmax(enough, axis=0), len(covariance) - 1)
    found = np.take_along_axis(times, last[None], axis=0)[0]
    return np.where(moving, np.maximum(0.5, found), 0.5)


def mean(values: Float64[np.ndarray, "T R ..."]) -> Estimate:
    """The mean over times and replicas.

    Replicas are independent. Of eight or more the error is that of the mean of their time averages, whatever the
    correlation within each; of fewer it is √(2 τ σ² / (T R)), with one τ for all components and σ² their variance about
    the mean of all.
    """
    length, replicas = values.shape[:2]
    whole, time = values.mean(axis=(0, 1)), autocorrelation_time(values)
    variance = values.var(axis=(0, 1))
    if replicas >= REPLICAS:
        error = values.mean(axis=0).std(axis=0, ddof=1) / np.sqrt(replicas)
    else:
        error = np.sqrt(2.0 * time * variance / (length * replicas))
    return Estimate(np.asarray(whole), np.asarray(error), time, length * replicas / (2.0 * time))


def slope(times: Float64[np.ndarray, " T"], values: Float64[np.ndarray, " T"]) -> tuple[float, float]:
    """The slope of a straight line through a series, by least squares, and its standard error.

    The error is the larger of two: that of independent deviations, times √(2 τ), with τ the autocorrelation time of
    what the line leaves, and that of a walk,

        σ² = 6 D / (5 T)        ⟨(x(t + s) − x(t) − slope · s)²⟩ = const + D s

    with x in means over T/36, from which fast motions are gone, and s up to T/6. A conserved quantity wanders where
    forces are noisy: it deviates little from a line, which may have any slope. Raises ValueError for fewer than three
    times.
    """
    if len(times) < 3:
        raise ValueError("a slope with an error takes three times or more")
    centred = times - times.mean()
    found = float(centred @ values / (centred @ centred))
    left = values - values.mean() - found * centred
    spread = float(left @ left) / (len(times) - 2)
    noise = 2.0 * autocorrelation_time(left) * spread / (centred @ centred)
    return found, float(np.sqrt(max(noise, _wandering(times, left))))


def _wandering(times: np.ndarray, left: np.ndarray) -> float:
    """The variance of the slope of a walk, from what a line leaves of it; zero for fewer than so many times."""
    if len(times) < _STRETCHES:
        return 0.0
    size, length = len(times) // _STRETCHES, float(times[-1] - times[0])
    means = left[: size * _STRETCHES].reshape(_STRETCHES, size).mean(axis=1)
    lags = np.arange(1, _STRETCHES // 6 + 1)
    grown = [np.mean((means[lag:] - means[:-lag]) ** 2) for lag in lags]
    rate = np.polyfit(lags * length * size / len(times), grown, 1)[0]
    return max(0.0, 1.2 * float(rate) / length)
