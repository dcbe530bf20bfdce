"""Errors of correlated means: they cover the truth as often as they claim, which naive ones do not."""

from __future__ import annotations

from collections.abc import Callable

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


def by_deviations_from_the_line(times: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """The control: least squares, with the larger one of the errors of correlated noise and of a walk.

    The walk's rate is read from the growth of squared differences within the deviations from the line, which the line
    has already made too small, and only where there are 36 times or more.
    """
    centred = times - times.mean()
    found = float(centred @ values / (centred @ centred))
    left = values - values.mean() - found * centred
    noise = 2.0 * autocorrelation_time(left) * (left @ left) / (len(times) - 2) / (centred @ centred)
    if len(times) < 36:
        return found, float(np.sqrt(noise))
    size, length = len(times) // 36, float(times[-1] - times[0])
    means = left[: size * 36].reshape(36, size).mean(axis=1)
    lags = np.arange(1, 7)
    grown = [np.mean((means[lag:] - means[:-lag]) ** 2) for lag in lags]
    rate = np.polyfit(lags * length * size / len(times), grown, 1)[0]
    return found, float(np.sqrt(max(noise, 1.2 * rate / length)))


def misses(times: np.ndarray, series: np.ndarray, of: Callable = slope) -> float:
    """In how many series of no slope zero lies outside ± 1.96 errors."""
    found = np.array([of(times, each) for each in series])
    return float(np.mean(np.abs(found[:, 0]) > 1.96 * found[:, 1]))


@pytest.mark.parametrize("length", [30, 72, 1000])
def test_the_slope_of_a_walk_has_an_error_that_covers_it(length: int) -> None:
    rng, times, repeats = np.random.default_rng(length), np.arange(length) * 0.01, 400
    walks = rng.normal(size=(repeats, length)).cumsum(axis=1)
    noisy = walks + 3.0 * rng.normal(size=(repeats, length))
    # 5 %, a third more, and three binomial errors.
    most = 0.0667 + 3.0 * np.sqrt(0.0667 * 0.9333 / repeats)
    assert 0.02 < misses(times, walks) < most
    assert misses(times, noisy) < most
    assert misses(times, walks, by_deviations_from_the_line) > (0.5 if length < 36 else 0.08), "control"


def test_a_vibration_on_a_walk_is_left_out() -> None:
    rng, times, repeats = np.random.default_rng(5), np.arange(600.0), 300
    walks = rng.normal(size=(repeats, 600)).cumsum(axis=1)
    walks += 15.0 * np.sin(2.0 * np.pi * (np.arange(600) / 9.3 + rng.uniform(size=(repeats, 1))))
    assert misses(times, walks) < 0.0667 + 3.0 * np.sqrt(0.0667 * 0.9333 / repeats)
    found = np.array([slope(times, each) for each in walks])
    assert 0.8 < np.sqrt(np.mean(found[:, 1] ** 2)) / found[:, 0].std() < 1.3


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_the_slope_of_noise_is_found_and_its_error_allows_for_a_walk_too_weak_to_be_seen(memory: float) -> None:
    times, repeats = np.arange(2000.0), 100
    series = correlated(memory, (2000, repeats), 3).T + 1e-3 * times
    found = np.array([slope(times, each) for each in series])
    least = np.array([np.polyfit(times, each, 1)[0] for each in series])
    assert np.mean(found[:, 0]) == pytest.approx(1e-3, abs=4.0 * least.std() / np.sqrt(repeats))
    assert found[:, 0].std() < 1.3 * least.std()
    assert 1.0 < found[:, 1].mean() / found[:, 0].std() < 6.0


def test_a_slope_does_not_depend_on_units_or_on_a_line() -> None:
    rng, times = np.random.default_rng(8), np.arange(200) * 0.5
    series = rng.normal(size=200).cumsum()
    value, error = slope(times, series)
    assert slope(10.0 * times, series) == pytest.approx((value / 10.0, error / 10.0), rel=1e-9)
    assert slope(times, 1e3 * series + 5.0 + 2e3 * times) == pytest.approx((1e3 * value + 2e3, 1e3 * error), rel=1e-6)
    assert slope(times, 3.0 * times) == pytest.approx((3.0, 0.0), abs=1e-6)
    assert slope(times, np.ones(200)) == pytest.approx((0.0, 0.0), abs=1e-12)


def test_a_slope_takes_three_times() -> None:
    with pytest.raises(ValueError, match="three times or more"):
        slope(np.arange(2.0), np.arange(2.0))
