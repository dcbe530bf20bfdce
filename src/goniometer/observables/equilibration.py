"""How long a liquid stays correlated with its start, what is left out of a run for that, and which runs are too short.

The slowest observable of a box of molecules is as a rule its total orientation M = Σ u / √N, the sum of one unit vector
u of each of N molecules. Runs that begin in one box share the size of M, however the box is rotated, until several
correlation times have passed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float64

from goniometer.errors import InputError
from goniometer.observables.blocks import INDEPENDENT, RUNS
from goniometer.observables.molecules import bond_vectors, find_molecules
from goniometer.trajectories.h5md import DISCARD, Frames, Trajectory

#: Correlation times that are left out at the start of a run, and that what is left of it has to hold.
SEVERAL = 3.0
#: The part of a run that is left out at most; where that is less than :data:`SEVERAL` times, the run is too short.
MOST = 0.5
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


@dataclass(frozen=True)
class Equilibration:
    """What is left out at the start of each of several runs, and whether what remains is long enough.

    Attributes
    ----------
    name
        Of the slowest observable.
    time
        Its correlation time in fs, as it is used: the upper limit of the measured one, or a declared one if longer.
    discard
        What is left out at the start of each run, in fs.
    length
        Of the shortest run, in fs.
    too_short
        A sentence if the runs are too short for a bound, else empty.
    measured
        The estimate behind it; None where times are not known.
    """

    name: str
    time: float
    discard: float
    length: float
    too_short: str = ""
    measured: CorrelationTime | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def part(self, trajectory: Trajectory) -> float:
        """The share of the frames of a run that is left out."""
        length = duration(trajectory)
        return min(MOST, self.discard / length) if length > 0.0 else 0.0

    def described(self) -> dict[str, Any]:
        """What an observable says about it: times in ps, and the sentence if there is one."""
        said = {"discarded_ps": 1e-3 * self.discard, "slowest_observable": self.name}
        said["slowest_correlation_time_ps"] = 1e-3 * self.time
        return said | ({"too_short": self.too_short} if self.too_short else {})


_KNOWN: WeakKeyDictionary[Trajectory, list[SlowSeries]] = WeakKeyDictionary()


def slow_series(trajectory: Trajectory) -> list[SlowSeries]:
    """The quantities of a periodic box that may relax slowly: see :func:`equilibration`. Empty for isolated structures.

    M of molecules, by their dipole direction if they are water and else by one bond of each; the potential energy if it
    was recorded; and for each element with atoms outside of molecules its density modes with the three smallest wave
    vectors, Σ exp(2πi s_j)/√N of the scaled coordinates s_j.
    """
    if trajectory not in _KNOWN:
        _KNOWN[trajectory] = _slow_series(trajectory)
    return _KNOWN[trajectory]


def _slow_series(trajectory: Trajectory) -> list[SlowSeries]:
    if not trajectory.replica.pbc.all() or trajectory.replicas > 1:
        return []
    axes, alone = _orientations(trajectory)
    elements = {str(symbol): np.array([], int) for symbol in dict.fromkeys(trajectory.replica.symbols[alone])}
    for symbol in elements:
        elements[symbol] = alone[np.asarray(trajectory.replica.symbols[alone]) == symbol]
    found: dict[str, list[np.ndarray]] = {}
    for frames in trajectory.chunks():
        if axes is not None:
            vectors = axes(frames)
            found.setdefault("M", []).append(vectors.sum(axis=1) / np.sqrt(vectors.shape[1]))
        if "potential_energy" in frames.observables:
            energies = np.asarray(frames.observables["potential_energy"], dtype=float).reshape(len(frames), -1)
            found.setdefault("the potential energy", []).append(energies)
        for symbol, sites in elements.items():
            found.setdefault(f"the density of {symbol}", []).append(_modes(trajectory, frames, sites))
    return [SlowSeries(name, np.concatenate(parts), name == "M") for name, parts in found.items()]


def _orientations(trajectory: Trajectory) -> tuple[Callable[[Frames], np.ndarray] | None, np.ndarray]:
    """A unit vector of each molecule, (T, M, 3), if there are molecules; and the atoms outside of them."""
    try:
        return find_molecules(trajectory.replica).directions, np.array([], int)
    except InputError:
        return bond_vectors(trajectory.replica)


def _modes(trajectory: Trajectory, frames: Frames, sites: np.ndarray) -> np.ndarray:
    cells = trajectory.replica.cell.array[None] if frames.cells is None else frames.cells
    phases = np.exp(2j * np.pi * (frames.positions[:, 0][:, sites] @ np.linalg.inv(cells))).sum(axis=1)
    return np.concatenate([phases.real, phases.imag], axis=1) / np.sqrt(len(sites))


def duration(trajectory: Trajectory) -> float:
    """From the first frame to the last one, in fs; NaN where times are not known."""
    times = trajectory.times
    return float(times[-1] - times[0]) if len(times) > 1 else 0.0


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
    components = int(moving.sum())
    error = _SCATTER * np.sqrt(time / (whole * components)) if np.isfinite(time) else 0.0
    return CorrelationTime(name, time, time * float(1.0 + _QUANTILE * error), bool(len(below)))


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


def slowest(runs: Sequence[Trajectory]) -> CorrelationTime | None:
    """The longest correlation time of any quantity of :func:`slow_series`, from all runs; None if there is none."""
    series = [{each.name: each for each in slow_series(run)} for run in runs]
    # A gas may have pairs that look like molecules in some runs and none in others.
    names = [name for name in series[0] if all(name in each for each in series)]
    times = runs[0].times
    if not names or len(times) < 2:
        return None
    spacing = float(times[1] - times[0])
    if not np.isfinite(spacing) or spacing <= 0.0:
        return None
    found = [correlation_time([each[name] for each in series], spacing) for name in names]
    return max(found, key=lambda each: each.upper)


def start_of_run(trajectory: Trajectory) -> dict[str, Any]:
    """What a run recorded about the configuration it started from; empty for files of frames and older runs."""
    return dict(trajectory.attributes.get("start") or {})


def stationary(runs: Sequence[Trajectory]) -> bool:
    """Whether all runs started from different, independent configurations of the ensemble that they sample.

    That is: configurations of one equilibrated ensemble (:mod:`goniometer.sampling.starting_configurations`) that was
    made with the same model, strategy and temperature.
    """
    starts = [start_of_run(each) for each in runs]
    if not all(each.get("independent") and each.get("same_ensemble") for each in starts):
        return False
    known = {(each.get("sha256"), each.get("configuration")) for each in starts}
    return len(known) == len(starts)


def declared_time(runs: Sequence[Trajectory]) -> float:
    """The longest correlation time that the starting ensembles of runs have recorded, in fs; 0 if there is none."""
    return max((1e3 * float(start_of_run(each).get("correlation_time_ps") or 0.0) for each in runs), default=0.0)


def equilibration(runs: Sequence[Trajectory]) -> Equilibration | None:
    """What has to be left out at the start of runs of one ensemble, and whether they are long enough.

    The correlation time τ is the longest of the quantities of :func:`slow_series`, with its upper limit of 95 %, from
    all runs together; or the time that the starting ensemble recorded, if that is longer. :data:`SEVERAL` τ are left
    out at the start, and the remainder has to be as long. Only runs that began in independent configurations of the
    ensemble that they sample (:func:`stationary`) need nothing left out.

    None for isolated structures, and where times are not known.
    """
    measured = slowest(runs)
    if measured is None:
        return None
    declared, length = declared_time(runs), min(map(duration, runs))
    time = max(measured.upper, declared)
    in_equilibrium = stationary(runs)
    discard = 0.0 if in_equilibrium else SEVERAL * time
    needed = discard + SEVERAL * time
    said = ""
    if not length >= needed:
        said = _too_short(measured, declared, length, needed, in_equilibrium)
    about = {"in_equilibrium": in_equilibrium, "declared_fs": declared}
    return Equilibration(measured.name, time, min(discard, MOST * length), length, said, measured, about)


def discarded(runs: Sequence[Trajectory], chosen: float | None = None) -> tuple[list[float], str]:
    """The share that is left out at the start of each run, and why there can be no bound, empty if there can.

    Parameters
    ----------
    runs
        Of one ensemble, whose bounds are made from all of them.
    chosen
        A share by a user, who vouches for it: nothing is measured then.

    Fewer than :data:`goniometer.observables.blocks.RUNS` runs have a bound only if what is left of them together holds
    :data:`goniometer.observables.blocks.INDEPENDENT` times 2 τ of the slowest observable.
    """
    if chosen is not None:
        return [float(chosen)] * len(runs), ""
    found = equilibration(runs)
    if found is None:
        return [DISCARD] * len(runs), ""
    said = found.too_short
    left, wanted = sum(duration(each) - found.discard for each in runs), 2.0 * INDEPENDENT * found.time
    if not said and len(runs) < RUNS and not left >= wanted:
        said = (
            f"too short: the correlation time of {found.name} is {1e-3 * found.time:.2g} ps, and fewer than {RUNS} "
            f"runs take {1e-3 * wanted:.3g} ps for a bound, all together; there are {1e-3 * left:.3g}"
        )
    return [found.part(each) for each in runs], said


def _too_short(found: CorrelationTime, declared: float, length: float, needed: float, in_equilibrium: bool) -> str:
    known = f"{1e-3 * found.time:.2g} ps (at most {1e-3 * found.upper:.2g})"
    if not found.resolved:
        known = f"longer than half of the runs, about {1e-3 * found.time:.2g} ps"
        if not np.isfinite(found.time):
            known = "longer than can be measured in these runs"
    if declared > found.upper:
        known = f"{1e-3 * declared:.2g} ps by the ensemble that the runs started from"
    said = f"too short: the correlation time of {found.name} is {known}, and the shortest run {1e-3 * length:.3g} ps"
    if np.isfinite(needed):
        start = "" if in_equilibrium else f", of which the first {SEVERAL:g} correlation times are left out"
        said += f"; run at least {1e-3 * needed:.2g} ps{start}"
    else:
        said += "; run several times as long"
    return said
