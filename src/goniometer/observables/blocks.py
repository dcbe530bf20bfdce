"""Sums over a trajectory in stretches of time: bounded however long it is, and errors of what is made of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from goniometer.observables.statistics import autocorrelation_times, few_samples, slowest

#: Stretches that are kept at most; twice as many are put together in pairs.
MOST = 128
#: Stretches that have forgotten each other as far as they say, from which on a band is given.
INDEPENDENT = 50
#: Runs from which on they are what errors are made of, whatever they remember.
RUNS = 6
# Stretches that an error takes.
_FEWEST = 4
# Draws of which a quantile is taken.
_DRAWS = 4000

Finish = Callable[[np.ndarray], np.ndarray]


class Blocks:
    """Means of samples that come one after the other, over stretches of equally many.

    When there are 2 · ``MOST`` stretches, they are put together in pairs, so that memory does not grow with the number
    of samples. Samples of several runs, see :meth:`begin`, share no stretch.
    """

    def __init__(self) -> None:
        self.size, self._sums, self._counts, self._runs = 1, list[np.ndarray](), list[int](), list[int]()
        self._run = 0
        self._whole_runs = False

    def begin(self) -> None:
        """What comes next is of another run, which knows nothing of those before."""
        self._run += 1

    def add(self, samples: np.ndarray) -> None:
        """Samples along the first axis."""
        for sample in samples:
            if self._counts and self._runs[-1] == self._run and self._counts[-1] < self.size:
                self._sums[-1] = self._sums[-1] + sample
                self._counts[-1] += 1
                continue
            # Runs of a stretch or two cannot be put together any further.
            if len(self._counts) >= 2 * MOST and len(self._counts) > 2 * len(set(self._runs)):
                self._halve()
            self._sums.append(np.array(sample, dtype=float))
            self._counts.append(1)
            self._runs.append(self._run)

    def _halve(self) -> None:
        sums, counts, runs, self.size = self._sums, self._counts, self._runs, 2 * self.size
        self._sums, self._counts, self._runs = [], [], []
        for total, count, run in zip(sums, counts, runs, strict=True):
            if self._runs and self._runs[-1] == run and self._counts[-1] + count <= self.size:
                self._sums[-1] = self._sums[-1] + total
                self._counts[-1] += count
            else:
                self._sums.append(total)
                self._counts.append(count)
                self._runs.append(run)

    def __len__(self) -> int:
        """The number of samples."""
        return sum(self._counts)

    def mean(self) -> np.ndarray:
        """Over all samples."""
        return np.asarray(np.sum(self._sums, axis=0) / len(self))

    def means(self) -> np.ndarray:
        """Of the full stretches, (B, ...)."""
        full = [total for total, count in zip(self._sums, self._counts, strict=True) if count == self.size]
        return np.stack(full) / self.size

    @property
    def _lengths(self) -> list[int]:
        """How many stretches of each run are full, of those that have any."""
        runs = [run for run, count in zip(self._runs, self._counts, strict=True) if count == self.size]
        return [runs.count(run) for run in dict.fromkeys(runs)]

    @property
    def full(self) -> int:
        """How many stretches are full."""
        return sum(count == self.size for count in self._counts)

    def independent(self) -> Blocks:
        """Each run as one stretch, all of one weight, where there are :data:`RUNS` or more; else as it is."""
        if len(set(self._runs)) < RUNS:
            return self
        found = Blocks()
        found._whole_runs = True
        sums, counts, runs = np.stack(self._sums), np.array(self._counts), np.array(self._runs)
        for run in dict.fromkeys(self._runs):
            found.begin()
            found.add(sums[runs == run].sum(axis=0)[None] / counts[runs == run].sum())
        return found

    def _pseudo(self, finish: Finish) -> np.ndarray:
        """θ_b = B f(mean) − (B − 1) f(mean without stretch b), (B, ...)."""
        means = self.means()
        count = len(means)
        without = np.stack([finish((means.sum(axis=0) - each) / (count - 1)) for each in means])
        return np.asarray(count * finish(means.mean(axis=0)) - (count - 1) * without)

    def simultaneous(self, finish: Finish, level: float = 0.9, seed: int = 0) -> float:
        """The quantile of max |t| over all components: value ± this many errors holds for all of them at once.

            t_r = Σ_b ξ_b (θ_br − θ̄_r) / √(Σ_b (θ_br − θ̄_r)² χ²_ν/ν)        ξ_b normal, ν = B/(2 τ) − 1

        The pseudo-values θ_b of :meth:`estimate`, with signs and sizes drawn anew, have the correlation of the
        components with each other; the correlation in time is in the errors, and in ν with its slowest motion. NaN for
        fewer than four stretches, and infinite for fewer than :data:`INDEPENDENT` that have forgotten each other: from
        so few no band holds as often as it says. Of :meth:`independent` runs six do, for they have nothing to forget:
        there ξ_b are signs, and each t_r has the error of the values with these signs, which few runs do not know.
        """
        if self.full < _FEWEST:
            return float("nan")
        pseudo = self._pseudo(finish).reshape(self.full, -1)
        pseudo = pseudo[:, np.isfinite(pseudo).all(axis=0)]
        deviations = pseudo - pseudo.mean(axis=0)
        norms = np.linalg.norm(deviations, axis=0)
        if not (norms > 0.0).any():
            return 0.0
        scaled = deviations[:, norms > 0.0] / norms[norms > 0.0]
        rng = np.random.default_rng(seed)
        if self._whole_runs:
            signs = rng.choice((-1.0, 1.0), size=(_DRAWS, len(scaled)))
            largest = np.concatenate([np.abs(each @ scaled).max(axis=1) for each in np.array_split(signs, 40)])
            # Σ_b ξ_b d_b of values whose squares sum to one: their mean m and their scatter, 1 − B m².
            left = np.maximum(1.0 - largest**2 / len(scaled), np.finfo(float).tiny)
            studentized = largest * np.sqrt((1.0 - 1.0 / len(scaled)) / left)
            return float(np.quantile(studentized, level)) / few_samples(len(scaled))
        draws = np.array_split(rng.standard_normal((_DRAWS, len(scaled))), _DRAWS // 100)
        largest = np.concatenate([np.abs(each @ scaled).max(axis=1) for each in draws])
        free = len(scaled) / (2.0 * slowest(pseudo, self._lengths)) - 1.0
        if free + 1.0 < INDEPENDENT:
            return float("inf")
        return float(np.quantile(largest / np.sqrt(rng.chisquare(free, _DRAWS) / free), level))

    def estimate(self, finish: Finish) -> tuple[np.ndarray, np.ndarray, float]:
        """A quantity made of the mean, its standard error, and the autocorrelation time in samples.

        With θ = f(mean of all) and pseudo-values θ_b = B θ − (B − 1) f(mean without stretch b) (the jackknife), which
        are correlated with the integrated time τ in units of stretches, each component with its own,

            σ² = 2 τ Σ_b (θ_b − θ̄)² / (B (B − 1))

        Of :meth:`independent` runs the error is multiplied by :func:`goniometer.observables.statistics.few_samples`: a
        value ± 1.96 errors contains the truth in 95 % of cases. NaN for fewer than four stretches. The time is that of
        the :func:`slowest` motion of all components, in samples: where a stretch is longer than it, only an upper limit
        is known, half a stretch, which is given.
        """
        value = finish(self.mean())
        count = self.full
        if count < _FEWEST:
            return value, np.full_like(value, np.nan), float("nan")
        pseudo = self._pseudo(finish)
        # Where no pair was ever seen there is no ratio: these components say nothing of time.
        known = np.isfinite(pseudo).all(axis=0)
        error = np.full_like(value, np.nan)
        series = pseudo[:, known]
        error[known] = np.sqrt(2.0 * autocorrelation_times(series, self._lengths) * series.var(axis=0, ddof=1) / count)
        if self._whole_runs:
            error *= few_samples(count)
        return value, error, (slowest(series, self._lengths) if known.any() else 0.5) * self.size
