"""Errors of correlated means: they cover the truth as often as they claim, which naive ones do not."""

from __future__ import annotations

import numpy as np
import pytest

from goniometer.observables.statistics import autocorrelation_time, mean, slope

SEEDS = 300


def correlated(memory: float, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """x_t = φ x_{t−1} + √(1 − φ²) ξ_t, of variance 1 and τ = (1 + φ) / (2 (1 − φ)), from its stationary state."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    series = np.empty(shape)
    series[0] = noise[0]
    for step in range(1, len(series)):
        series[step] = memory * series[step - 1] + np.sqrt(1.0 - memory**2) * noise[step]
    return series


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_the_autocorrelation_time_is_the_known_one(memory: float) -> None:
    exact = (1.0 + memory) / (2.0 * (1.0 - memory))
    found = [autocorrelation_time(correlated(memory, (5000,), seed)) for seed in range(30)]
    assert np.mean(found) == pytest.approx(exact, rel=0.05, abs=0.02)


def test_a_constant_series_has_the_time_of_white_noise() -> None:
    assert autocorrelation_time(np.ones(100)) == 0.5


@pytest.mark.parametrize("shape", [(4000, 1), (1000, 3), (200, 16)])
def test_the_error_of_a_mean_covers_zero_as_often_as_it_claims(shape: tuple[int, int]) -> None:
    found = [mean(correlated(0.9, shape, seed)) for seed in range(SEEDS)]
    deviates = np.array([each.value / each.error for each in found])
    # Of a normal deviate 95.4 %; with 16 replicas it is one of Student's t, 93.6 %. Three binomial errors: 4 %.
    assert 0.90 < np.mean(np.abs(deviates) < 2.0) < 0.985
    assert np.mean(deviates**2) == pytest.approx(1.0, abs=0.35)


def test_an_error_that_ignores_the_correlation_does_not() -> None:
    """The control."""
    found = [correlated(0.9, (4000,), seed) for seed in range(SEEDS)]
    naive = np.array([each.mean() / (each.std() / np.sqrt(len(each))) for each in found])
    assert np.mean(np.abs(naive) < 2.0) < 0.6


def test_the_effective_number_of_samples_is_what_the_error_would_take() -> None:
    found = mean(correlated(0.5, (20000, 1), 0))
    assert found.error == pytest.approx(1.0 / np.sqrt(found.effective), rel=0.05)
    assert found.effective == pytest.approx(20000 / 3.0, rel=0.15)


def test_the_error_of_a_slope_covers_it_and_a_naive_one_does_not() -> None:
    times = np.arange(3000.0)
    deviates, naive = [], []
    for seed in range(SEEDS):
        values = 1e-3 * times + correlated(0.9, (3000,), seed)
        found, error = slope(times, values)
        deviates.append((found - 1e-3) / error)
        left = values - np.polyval(np.polyfit(times, values, 1), times)
        naive.append((found - 1e-3) / (left.std() / (times.std() * np.sqrt(len(times)))))
    assert 0.90 < np.mean(np.abs(deviates) < 2.0) < 0.985
    assert np.mean(np.abs(naive) < 2.0) < 0.6


def test_a_slope_takes_three_times() -> None:
    with pytest.raises(ValueError, match="three times or more"):
        slope(np.arange(2.0), np.arange(2.0))


def test_the_slope_of_a_walk_has_an_error_that_knows_of_it() -> None:
    """Walks without a drift, alone, with noise, and with a fast vibration on them: most slopes are within twice it."""
    rng, times = np.random.default_rng(5), np.arange(600) * 0.01
    for noise, vibration in ((0.0, 0.0), (2.0, 0.0), (0.0, 5.0)):
        found, errors, naive = [], [], []
        for _ in range(200):
            walk = rng.normal(scale=0.3, size=600).cumsum() + noise * rng.normal(size=600)
            walk += vibration * np.sin(2.0 * np.pi * (np.arange(600) / 9.3 + rng.uniform()))
            value, error = slope(times, walk)
            found.append(value)
            errors.append(error)
            left = walk - np.polyval(np.polyfit(times, walk, 1), times)
            naive.append(left.std() / np.sqrt(((times - times.mean()) ** 2).sum()))
        assert 0.75 < np.sqrt(np.mean(np.square(errors))) / np.std(found) < 1.3
        assert np.mean(np.abs(found) < 2.0 * np.array(errors)) > 0.8
        assert np.sqrt(np.mean(np.square(naive))) < 0.4 * np.std(found), "control: deviations from the line"
