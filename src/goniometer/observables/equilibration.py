"""How long a liquid stays correlated with its start, what is left out of a run for that, and which runs are too short.

The slowest observable of a box of molecules is as a rule its total orientation M = Σ u / √N, the sum of one unit vector
u of each of N molecules. Runs that begin in one box share the size of M, however the box is rotated, until several
correlation times have passed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from goniometer.errors import InputError
from goniometer.observables.blocks import INDEPENDENT, RUNS
from goniometer.observables.molecules import bond_vectors, find_molecules
from goniometer.observables.relaxation import CorrelationTime, SlowSeries, frozen_time, relaxation_time
from goniometer.trajectories.h5md import DISCARD, Frames, Trajectory

#: Correlation times that are left out at the start of a run, and that what is left of it has to hold.
SEVERAL = 3.0
#: The part of a run that is left out at most; where that is less than :data:`SEVERAL` times, the run is too short.
MOST = 0.5


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
        A sentence if the runs are too short for a bound, else empty; see :meth:`reason`.
    runs
        How many there are.
    left
        What remains of all runs together, in fs.
    measured
        The estimate behind it; None where times are not known.
    frozen
        A sentence if quantities kept one value in each run, for which alone a result then holds, else empty; see
        :func:`goniometer.observables.relaxation.frozen_time`.
    """

    name: str
    time: float
    discard: float
    length: float
    too_short: str = ""
    runs: int = 1
    left: float = float("inf")
    measured: CorrelationTime | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    frozen: str = ""

    def reason(self, fewest: int) -> str:
        """Why these runs are too short for a verdict or a bound, empty if they are not.

        Fewer than ``fewest`` runs, which cannot each be one independent sample, have to hold
        :data:`goniometer.observables.blocks.INDEPENDENT` times 2 τ of the slowest observable, all together.
        """
        wanted = 2.0 * INDEPENDENT * self.time
        if self.too_short or self.runs >= fewest or self.left >= wanted:
            return self.too_short
        return (
            f"too short: the correlation time of {self.name} is {1e-3 * self.time:.2g} ps, and fewer than {fewest} "
            f"runs take {1e-3 * wanted:.3g} ps for a bound, all together; there are {1e-3 * self.left:.3g}"
        )

    def part(self, trajectory: Trajectory) -> float:
        """The share of the frames of a run that is left out."""
        length = duration(trajectory)
        return min(MOST, self.discard / length) if length > 0.0 else 0.0

    def described(self) -> dict[str, Any]:
        """What an observable says about it: times in ps, and the sentence if there is one."""
        said = {"discarded_ps": 1e-3 * self.discard, "slowest_observable": self.name}
        said["slowest_correlation_time_ps"] = 1e-3 * self.time
        sentences = {"too_short": self.too_short, "frozen": self.frozen}
        return said | {key: sentence for key, sentence in sentences.items() if sentence}


def slow_series(trajectory: Trajectory) -> list[SlowSeries]:
    """The quantities of a periodic box that may relax slowly: see :func:`equilibration`. Empty for isolated structures.

    M of molecules, by their dipole direction if they are water and else by one bond of each; the potential energy if it
    was recorded; and for each element with atoms outside of molecules its density modes with the three smallest wave
    vectors, Σ exp(2πi s_j)/√N of the scaled coordinates s_j.
    """
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


def slowest(runs: Sequence[Trajectory]) -> CorrelationTime | None:
    """The longest correlation time of any quantity of :func:`slow_series`, from all runs; None if there is none."""
    series, spacing = _in_common(runs)
    found = [relaxation_time(each, spacing) for each in series]
    return max(found, key=lambda each: each.upper, default=None)


def _slowest_or_frozen(runs: Sequence[Trajectory]) -> tuple[CorrelationTime | None, list[CorrelationTime]]:
    """The same, with the time of the fluctuation of quantities that are frozen in these runs; and these."""
    series, spacing = _in_common(runs)
    found, frozen = [], []
    for each in series:
        one, inner = relaxation_time(each, spacing), frozen_time(each, spacing)
        if inner is not None and inner.upper < one.upper:
            frozen.append(inner)
            one = inner
        found.append(one)
    return max(found, key=lambda each: each.upper, default=None), frozen


def _in_common(runs: Sequence[Trajectory]) -> tuple[list[list[SlowSeries]], float]:
    """The slow quantities that all runs have, and the time between frames; none where that is not known."""
    series = [{each.name: each for each in slow_series(run)} for run in runs]
    # A gas may have pairs that look like molecules in some runs and none in others.
    names = [name for name in series[0] if all(name in each for each in series)]
    times = runs[0].times
    spacing = float(times[1] - times[0]) if len(times) > 1 else float("nan")
    if not np.isfinite(spacing) or spacing <= 0.0:
        return [], spacing
    return [[each[name] for each in series] for name in names], spacing


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
    ensemble that they sample (:func:`stationary`) need nothing left out. Of a quantity that is frozen in these runs the
    time is that of its fluctuation (:func:`goniometer.observables.relaxation.frozen_time`), and ``frozen`` says for
    what the result then holds.

    None for isolated structures, and where times are not known.
    """
    measured, frozen = _slowest_or_frozen(runs)
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
    discard = min(discard, MOST * length)
    left = sum(duration(each) - discard for each in runs)
    about = {"in_equilibrium": in_equilibrium, "declared_fs": declared}
    return Equilibration(measured.name, time, discard, length, said, len(runs), left, measured, about, _frozen(frozen))


def together(found: Sequence[Equilibration | None]) -> Equilibration | None:
    """What holds for ensembles that are compared with each other, None if nothing is known of any.

    As much is left out of all as has to be of any, and what remains has to hold :data:`SEVERAL` times the longest of
    their correlation times.
    """
    known = [each for each in found if each is not None]
    if not known:
        return None
    longest = max(known, key=lambda each: each.time)
    length = min(each.length for each in known)
    discard = min(MOST * length, max(each.discard for each in known))
    said = next((each.too_short for each in known if each.too_short), "")
    if not said and not length >= discard + SEVERAL * longest.time:
        said = (
            f"too short: the correlation time of {longest.name} is {1e-3 * longest.time:.2g} ps, and the shortest run "
            f"{1e-3 * length:.3g} ps, of which the first {1e-3 * discard:.2g} are left out"
        )
    fewest = min(known, key=lambda each: each.left)
    frozen = "; ".join(dict.fromkeys(each.frozen for each in known if each.frozen))
    return replace(
        longest, discard=discard, length=length, too_short=said, runs=fewest.runs, left=fewest.left, frozen=frozen
    )


def discarded(
    runs: Sequence[Trajectory], chosen: float | None = None, measured: Equilibration | None = None
) -> tuple[list[float], str]:
    """The share that is left out at the start of each run, and why there can be no bound, empty if there can.

    Parameters
    ----------
    runs
        Of one ensemble, whose bounds are made from all of them.
    chosen
        A share by a user, who vouches for it: nothing is measured then.
    measured
        What :func:`equilibration` gave for these runs, where that is known already.

    Fewer than :data:`goniometer.observables.blocks.RUNS` runs have a bound only if they are long enough for it all
    together, see :meth:`Equilibration.reason`.
    """
    if chosen is not None:
        return [float(chosen)] * len(runs), ""
    found = measured or equilibration(runs)
    if found is None:
        return [DISCARD] * len(runs), ""
    return [found.part(each) for each in runs], found.reason(RUNS)


def _frozen(found: Sequence[CorrelationTime]) -> str:
    if not found:
        return ""
    names = " and ".join(each.name for each in found)
    kept, times = ("is", "time") if len(found) == 1 else ("are", "times")
    known = " and ".join(f"{1e-3 * each.time:.2g}" for each in found)
    return (
        f"{names} {kept} frozen in these runs (fluctuation about the mean of each run without a drift, correlation "
        f"{times} {known} ps): the result holds for these values, in a molecular crystal for this order of its "
        "protons, and does not include their change"
    )


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
