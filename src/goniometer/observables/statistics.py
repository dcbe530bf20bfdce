"""Means of correlated series, with errors that know of the correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.fft import dct
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit
from scipy.stats import chi2, norm

# The window of the integrated autocorrelation time is so many times as long as the time itself.
_WINDOW = 6.0
# Combinations of components that are looked at for slow motions.
_COMPONENTS = 6
# Components of a cosine transform from which a slope is found: at most, and at least where there are as many.
_SLOWEST, _LEAST = 48, 8
# The probability with which noise alone would look like a vibration, and the Kolmogorov statistic of 5 %.
_PEAK, _BENT = 1e-3, 1.358
# Ratios of walk to noise, the exponent of their prior, and correlations of the noise from one time to the next.
_RATIOS, _TILT = 20, 0.5
# Widens the interval of a slope: without it pure walks of 30 to 72 points miss in 7 to 10 % of cases.
_WIDER = 1.15
_CORRELATIONS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99)
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


def few_samples(count: int) -> float:
    """How much wider than that of a normal distribution the 95 % interval of so few independent samples is.

    The quantile of Student's t with count − 1 degrees of freedom over 1.96. A standard error of few samples times this
    factor is quoted, so that a value ± 1.96 errors always contains the truth in 95 % of cases.
    """
    return float(stdtrit(count - 1, 0.975) / norm.isf(0.025))


def mean(values: Float64[np.ndarray, "T R ..."]) -> Estimate:
    """The mean over times and replicas.

    Replicas are independent. Of eight or more the error is that of the mean of their time averages, whatever the
    correlation within each, times :func:`few_samples`; of fewer it is √(2 τ σ² / (T R)), with one τ for all components
    and σ² their variance about the mean of all.
    """
    length, replicas = values.shape[:2]
    whole, time = values.mean(axis=(0, 1)), autocorrelation_time(values)
    variance = values.var(axis=(0, 1))
    if replicas >= REPLICAS:
        error = few_samples(replicas) * values.mean(axis=0).std(axis=0, ddof=1) / np.sqrt(replicas)
    else:
        error = np.sqrt(2.0 * time * variance / (length * replicas))
    return Estimate(np.asarray(whole), np.asarray(error), time, length * replicas / (2.0 * time))


def slope(times: Float64[np.ndarray, " T"], values: Float64[np.ndarray, " T"]) -> tuple[float, float]:
    """The slope of a series whose deviations from a line are noise, a random walk, or both, and its error.

    A conserved quantity wanders where forces are noisy: it stays close to a line that may have any slope. The model is

        x(t) = a + b t + walk(t) + noise(t)        noise correlated with φ from one time to the next

    In the cosine transform of the series (DCT-II, order k of T times) the walk and white noise are exactly diagonal,
    and correlated noise nearly so:

        var X_k = σ² [(1 − φ)² / ((1 − φ)² + φ λ_k) + h λ_1/λ_k]        λ_k = 4 sin²(π k / 2T)

    Of the 48 slowest components, fewer where a vibration sticks out of the spectrum, the slope follows by generalized
    least squares for every ratio h and correlation φ. Both are unknown and are averaged over with their restricted
    likelihood (D. A. Harville, J. Am. Stat. Assoc. 72, 320 (1977)), as is σ², so that the slope is distributed as a
    mixture of Student's t. A walk that is too weak to be seen in the faster components can still change the slope: h
    has a prior ∝ √h d log h from 1 on, and the error of a series without any walk is about four times too large.

    Parameters
    ----------
    times : (T,)
        Evenly spaced, in any unit.
    values : (T,)
        The series.

    Returns
    -------
    slope, error
        The mean of the mixture, and its central 95 % interval in units of 2 · 1.96, widened by 15 % to make up for the
        discrete mixture: slope ± 1.96 error contains the true slope in 94 % of cases or more, few degrees of freedom
        included. For a stationary series the error is several times what it would be if one knew that there is no walk.

    Raises
    ------
    ValueError
        For fewer than three times.
    """
    if len(times) < 3:
        raise ValueError("a slope with an error takes three times or more")
    if np.ptp(values) == 0.0:
        return 0.0, 0.0
    size = len(times)
    found, line = (dct(each - each.mean(), norm="ortho")[1:] for each in (values, times))
    rates = 4.0 * np.sin(np.pi * np.arange(1, size) / (2.0 * size)) ** 2
    count = min(_SLOWEST, size - 1)
    while True:
        fit = _slopes(found[:count], line[:count], rates[:count], size)
        if count <= _LEAST or fit.plausible():
            return fit.mean(), _WIDER * fit.half_width(0.95) / norm.isf(0.025)
        count = max(_LEAST, int(0.75 * count))


@dataclass(frozen=True)
class _Slopes:
    """A mixture of Student's t distributions, and the squares of the components over their variance in the best fit."""

    centres: np.ndarray
    scales: np.ndarray
    shares: np.ndarray
    freedom: int
    squares: np.ndarray

    def plausible(self) -> bool:
        """Whether the components look like the model: none sticks out, nor do many (Bartlett's cumulative test)."""
        count = len(self.squares)
        summed = np.cumsum(self.squares) / self.squares.sum() - np.arange(1, count + 1) / count
        return bool(
            self.squares.max() < chi2.isf(_PEAK / count, 1) and np.abs(summed).max() * np.sqrt(count / 2.0) < _BENT
        )

    def mean(self) -> float:
        return float(self.shares @ self.centres)

    def half_width(self, level: float) -> float:
        """Of the interval about the mean that holds with this probability."""
        if not self.scales.max() > 0.0:
            return 0.0
        away = self.mean() - self.centres

        def outside(width: float) -> float:
            tails = [stdtr(self.freedom, (side * away - width) / self.scales) for side in (-1.0, 1.0)]
            return float(self.shares @ np.sum(tails, axis=0)) - (1.0 - level)

        farthest = float(np.abs(away).max() + stdtrit(self.freedom, 0.5 + 0.5 * level) * self.scales.max())
        return float(brentq(outside, 0.0, 2.0 * farthest))


def _slopes(found: np.ndarray, line: np.ndarray, rates: np.ndarray, size: int) -> _Slopes:
    """The slope for every ratio of walk to noise and every correlation of the noise, weighted by their likelihood."""
    count = len(found)
    ratios = np.geomspace(1.0, 10.0 * count**2, _RATIOS)
    kept = np.array([each for each in _CORRELATIONS if 1.0 / (1.0 - each) <= max(1.0, size / 40.0)])[:, None]
    noise = (1.0 - kept) ** 2 / ((1.0 - kept) ** 2 + kept * rates)
    weights = 1.0 / (noise[:, None] + ratios[:, None] * rates[0] / rates).reshape(-1, count)
    information = weights @ line**2
    centres = weights @ (line * found) / information
    left = weights @ found**2 - centres**2 * information
    left = np.maximum(left, np.finfo(float).eps * (weights @ found**2) + np.finfo(float).tiny)
    likelihood = 0.5 * (np.log(weights).sum(axis=1) - np.log(information) - (count - 1) * np.log(left))
    likelihood += _TILT * np.tile(np.log(ratios), len(kept))
    shares = np.exp(likelihood - likelihood.max())
    best = int(likelihood.argmax())
    squares = weights[best] * (found - centres[best] * line) ** 2 * (count - 1) / left[best]
    scales = np.sqrt(left / ((count - 1) * information))
    return _Slopes(centres, scales, shares / shares.sum(), count - 1, squares)
