"""Means of correlated series, with errors that know of the correlation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

# The window of the integrated autocorrelation time is so many times as long as the time itself.
_WINDOW = 6.0
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
    length = len(series)
    flat = np.reshape(series, (length, -1))
    flat = flat - flat.mean(axis=0)
    transform = np.fft.rfft(flat, n=2 * length, axis=0)
    covariance = np.fft.irfft(np.abs(transform) ** 2, axis=0)[:length].sum(axis=1)
    if not covariance[0] > 0.0:
        return 0.5
    covariance /= np.arange(length, 0, -1)
    times = np.cumsum(covariance / covariance[0]) - 0.5
    enough = np.arange(length) >= _WINDOW * times
    return max(0.5, float(times[np.argmax(enough)] if enough.any() else times[-1]))


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


def slope(times: Float64[np.ndarray, "T"], values: Float64[np.ndarray, "T"]) -> tuple[float, float]:
    """The slope of a straight line through a series, by least squares, and its standard error.

    The error is that of independent deviations, times √(2 τ), with τ the autocorrelation time of what the line leaves.
    Raises ValueError for fewer than three times.
    """
    if len(times) < 3:
        raise ValueError("a slope with an error takes three times or more")
    centred = times - times.mean()
    found = float(centred @ values / (centred @ centred))
    left = values - values.mean() - found * centred
    spread = float(left @ left) / (len(times) - 2)
    return found, float(np.sqrt(2.0 * autocorrelation_time(left) * spread / (centred @ centred)))
