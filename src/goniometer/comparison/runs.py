"""Runs against runs: which of them are one ensemble, what their independent curves are, and the verdict over all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from goniometer.comparison.curves import Verdict, compare_curves, decide, spent_at
from goniometer.errors import InputError
from goniometer.observables import check_observable, known_options, observe
from goniometer.observables.equilibration import Equilibration, equilibration, together
from goniometer.observables.result import Observable
from goniometer.trajectories.h5md import DISCARD, Excerpt, Trajectory

#: What is compared by default: statics, then what takes time.
LIQUID = (
    "potential-energy",
    "temperature",
    "pair-distribution",
    "dipole-correlation",
    "direction-moments",
    "pair-moments",
    "dipole-fluctuation",
    "displacement",
    "reorientation",
)
# Units wanted of each side; runs are cut into stretches if there are not as many of them.
_UNITS = 8
# Runs of each side from which on each is a unit.
_RUNS = 4
# Autocorrelation times that a stretch has to hold, and the part of it that the longest time of a correlation may be.
_TIMES, _PART = 8.0, 4.0
# Longest time (fs) of a correlation from which it is known how long it remembers.
_MEMORY = 1000.0
_LAGS = {"displacement": 5000.0, "reorientation": 10000.0}


@dataclass(frozen=True)
class Side:
    """An observable of one ensemble.

    Attributes
    ----------
    curves : (U, ...)
        Of its independent units.
    units
        What these are: ``4 runs``, or ``8 stretches of 2.2 ps``.
    """

    curves: np.ndarray
    units: str


@dataclass(frozen=True)
class Compared:
    """Both sides of a verdict, and where their values belong."""

    first: Side
    second: Side
    observable: Observable


@dataclass(frozen=True)
class Report:
    """What :func:`compare_runs` found.

    Attributes
    ----------
    names
        Of the two ensembles.
    lengths
        What was compared of each, in ps: of all runs as much as there is of the shortest.
    verdicts
        Of the observables.
    compared
        Their curves, by name.
    skipped
        Observables that could not be compared, and why.
    too_short
        Why nothing is decided and there is no bound, empty if the runs are long enough; see
        :meth:`goniometer.observables.equilibration.Equilibration.reason`.
    frozen
        For what values of frozen quantities the verdicts hold, empty if there are none; see
        :func:`goniometer.observables.relaxation.frozen_time`.
    """

    names: tuple[str, str]
    lengths: tuple[float, float]
    verdicts: list[Verdict]
    compared: Mapping[str, Compared]
    skipped: Mapping[str, str]
    too_short: str = ""
    frozen: str = ""


def ensembles(trajectories: Sequence[Trajectory]) -> dict[str, list[Trajectory]]:
    """Trajectories by ensemble: runs whose descriptions differ in nothing but seed, length and start are of one.

    A trajectory without a description is an ensemble of its own. The names are those of the strategies, or of the
    first trajectories where these do not tell them apart.
    """
    found: dict[str, list[Trajectory]] = {}
    for each in trajectories:
        description = dict(each.attributes.get("description", {}))
        for key in ("seed", "length", "starts"):
            description.pop(key, None)
        key = json.dumps(description, sort_keys=True) if description else each.name
        found.setdefault(key, []).append(each)
    names = [_named(each[0]) for each in found.values()]
    if len(set(names)) < len(names):
        names = [each[0].name for each in found.values()]
    return dict(zip(names, found.values(), strict=True))


def _named(trajectory: Trajectory) -> str:
    strategy = trajectory.attributes.get("description", {}).get("strategy", {})
    if not strategy:
        return trajectory.name
    words = [strategy["kind"], strategy.get("rule") or "", "inversion" if strategy.get("inversion") else ""]
    words.append("turned at random" if strategy.get("outer") == "random" else "")
    return " ".join(each for each in words if each)


def compare_runs(
    first: Sequence[Trajectory],
    second: Sequence[Trajectory],
    observables: Sequence[str] = LIQUID,
    within: Mapping[str, float] | None = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    names: tuple[str, str] = ("A", "B"),
    level: float = 0.05,
    look: tuple[int, int] = (1, 1),
    discard: float | None = None,
    measured: Sequence[Equilibration | None] | None = None,
) -> Report:
    """Compare two ensembles in several observables; see :func:`goniometer.comparison.curves.decide`.

    All runs are taken from the same time on and are as long as the shortest. What is left out at the start is several
    correlation times of the slowest observable, measured in both sides
    (:func:`goniometer.observables.equilibration.equilibration`), or the share ``discard`` of the shortest run, by a
    user who vouches for it. With four runs or more on each side every run is a unit. With fewer, runs are cut into
    stretches, as many as leave each longer than eight correlation times of the slowest observable and of the observable
    itself, and eight of the side with fewer at most; an observable of which there are fewer than two is skipped.
    ``options`` are those of observables, by their names; ``measured`` is what
    :func:`goniometer.observables.equilibration.equilibration` gave of both sides, where that is known already.

    Runs that are too short for that are no independent samples of their ensembles: half of the shortest is left out,
    the report says why, and every verdict is *undecided*, whether a difference is seen or none; see
    ``Comparison.too_short``.

    Raises :class:`InputError` for an observable that is not known, and if nothing could be compared.
    """
    for name in within or {}:
        if name not in observables:
            raise InputError(f"there is no '{name}' to be equivalent in; compared are {', '.join(observables)}")
    for name, given in (options or {}).items():
        if name not in observables:
            raise InputError(f"there is no '{name}' to have options; compared are {', '.join(observables)}")
        check_observable(name, given)
        if "discard" in given:
            raise InputError(f"'{name}.discard' has no place here: all runs are taken from one time on (discard)")
    found: dict[str, Compared] = {}
    skipped: dict[str, str] = {}
    for each in (*first, *second):
        if not np.isfinite(_spacing(each)):
            raise InputError(f"'{each.name}' does not say the time between its frames: give it (spacing)")
    _check_distinct(first, second)
    _check_starts((*first, *second))
    start = _start(first, second, discard, measured)
    for name in observables:
        try:
            one, other, example = _sides(first, second, name, (options or {}).get(name, {}), start)
        except (_TooShort, InputError) as error:
            skipped[name] = str(error)
            continue
        found[name] = Compared(one, other, _cut(example, one.curves.shape[1:]))
    spent_at(level, look)  # a look that is none is refused before anything else
    comparisons = {
        name: compare_curves(
            *(side.curves.reshape(len(side.curves), -1) for side in (each.first, each.second)),
            too_short=start.too_short,
        )
        for name, each in found.items()
    }
    if not comparisons:
        reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
        raise InputError(f"nothing can be compared ({reasons})")
    asked = {name: size for name, size in (within or {}).items() if name in comparisons}
    verdicts = decide(comparisons, asked, level=level, look=look)
    return Report(names, _lengths(first, second), verdicts, found, skipped, start.too_short, start.frozen)


def _start(
    first: Sequence[Trajectory],
    second: Sequence[Trajectory],
    discard: float | None,
    measured: Sequence[Equilibration | None] | None,
) -> Equilibration:
    """What is left out of all runs, and what is known of them together."""
    least = min(map(_duration, (*first, *second)))
    if discard is not None:
        if not 0.0 <= discard < 1.0:
            raise InputError(f"the share that is left out at the start is from 0 to below 1, not {discard:g}")
        return Equilibration("", 0.0, discard * least, least)
    each_side = [equilibration(side) for side in (first, second)] if measured is None else measured
    found = together(each_side)
    if found is None:
        return Equilibration("", 0.0, DISCARD * least, least)
    few = (each.reason(_RUNS) for each in each_side if each is not None)
    return replace(found, too_short=found.too_short or next((each for each in few if each), ""))


def _check_distinct(first: Sequence[Trajectory], second: Sequence[Trajectory]) -> None:
    """That no run counts twice: not by its name, and on one side not by its description, the seed included."""
    paths = [(str(each.paths[0]), each.name) for each in (*first, *second)]
    for path in paths:
        if paths.count(path) > 1:
            raise InputError(f"'{path[1]}' is given twice: it is one run")
    for side in (first, second):
        known: dict[str, Trajectory] = {}
        for each in side:
            description = {**each.attributes.get("description", {}), "length": None}
            one = known.setdefault(json.dumps(description, sort_keys=True), each)
            if "seed" in description and one.paths[0] != each.paths[0]:
                raise InputError(f"'{one.name}' and '{each.name}' have one description and one seed: they are one run")


def _check_starts(runs: Sequence[Trajectory]) -> None:
    """That the first frames of all are of one time, so that windows of all are the same."""
    first, spacing = runs[0], max(map(_spacing, runs))
    for each in runs:
        if abs(float(each.times[0]) - float(first.times[0])) > (1.0 + 1e-6) * spacing:
            raise InputError(
                f"'{first.name}' begins at {1e-3 * float(first.times[0]):.3g} ps and '{each.name}' at "
                f"{1e-3 * float(each.times[0]):.3g} ps, and runs are compared over the same stretch of time: cut their "
                "frames alike (or, of files, count times from the first frame by --spacing)"
            )


def common_window(runs: Sequence[Trajectory], start: float | None = None) -> tuple[float, float]:
    """From when to when all runs are taken, in fs after the first frame, up to the end of the shortest run.

    Parameters
    ----------
    runs
        Of all ensembles.
    start
        In fs; by default a tenth of the shortest run, and never more than half of it.

    Raises :class:`InputError` for a run of fewer than two frames, and for runs that do not begin at one time.
    """
    for each in runs:
        if len(each) < 2:
            raise InputError(f"'{each.name}' holds {len(each)} frames: there is no stretch of time in it")
    _check_starts(runs)
    least = min(runs, key=_duration)
    spacing = _spacing(least)
    skipped = int(DISCARD * len(least)) if start is None else min(int(start / spacing + 1e-6), len(least) // 2)
    return skipped * spacing, len(least) * spacing


def left_out_time(runs: Sequence[Trajectory], shares: Sequence[float]) -> float:
    """The time in fs that shares of runs amount to, the longest of them."""
    return max(int(share * len(each)) * _spacing(each) for each, share in zip(runs, shares, strict=True))


def within(run: Trajectory, window: tuple[float, float]) -> Trajectory:
    """The frames of a run in a window of :func:`common_window`."""
    return Excerpt(run, *(_count(run, each) for each in window))


class _TooShort(Exception):  # noqa: N818 - it is an answer
    pass


def _sides(
    first: Sequence[Trajectory], second: Sequence[Trajectory], name: str, options: Mapping[str, Any], of: Equilibration
) -> tuple[Side, Side, Observable]:
    """The units of both sides, cut alike, and an example of the observable.

    Correlations of both go to the same time: a quarter of the shortest stretch, and no farther than the study's. Runs
    that are too short are cut into as few stretches as there have to be, which are no independent units.
    """
    start, end = common_window((*first, *second), of.discard)
    spacing, fewer = _spacing(min((*first, *second), key=_duration)), min(len(first), len(second))
    shortest = round((end - start) / spacing)
    if fewer >= _RUNS:
        one, other, example = _cut_up(first, second, name, options, start, shortest * spacing, 1)
        return Side(one, f"{len(one)} runs"), Side(other, f"{len(other)} runs"), example
    counts = [each for each in range(-(-_UNITS // fewer), 0, -1) if each * fewer >= 2 and shortest // each >= 2]
    if of.too_short:
        counts, time = counts[-1:], 0.0
    else:
        time = max(of.time, _memory(first, second, name, options, start)) if counts else np.inf
    for pieces in counts:
        stretch = shortest // pieces * spacing
        if not stretch >= _TIMES * time:
            continue
        one, other, example = _cut_up(first, second, name, options, start, stretch, pieces)
        units = [f"{len(side)} stretches of {1e-3 * stretch:.3g} ps" for side in (one, other)]
        return Side(one, units[0]), Side(other, units[1]), example
    said = "the runs are too short for two independent stretches"
    if np.isfinite(time):
        needed = 2.0 * _TIMES * time + start
        said += (
            f": the correlation time is {1e-3 * time:.2g} ps, and {1e-3 * needed:.2g} ps would do, or {_RUNS} runs on "
            "each side"
        )
    raise _TooShort(said)


def _memory(
    first: Sequence[Trajectory], second: Sequence[Trajectory], name: str, options: Mapping[str, Any], start: float
) -> float:
    """The longer one of the autocorrelation times of the first run of each side after some time, both in fs."""
    more: dict[str, Any] = {"longest": _MEMORY} if name in _LAGS else {}
    if "discard" in known_options(name):
        more["discard"] = 0.0
    settled = [Excerpt(side[0], _count(side[0], start), len(side[0])) for side in (first, second)]
    return max(_time(observe(each, name, {**options, **more})) for each in settled)


def _cut_up(
    first: Sequence[Trajectory],
    second: Sequence[Trajectory],
    name: str,
    given: Mapping[str, Any],
    start: float,
    stretch: float,
    pieces: int,
) -> tuple[np.ndarray, np.ndarray, Observable]:
    """The curves of so many stretches of each run, from one time (fs) on and all of one length, and one of them."""
    options = dict(given)
    if "discard" in known_options(name):
        options["discard"] = 0.0
    if name in _LAGS:
        spacing = _spacing(first[0])
        longest = float(options.get("longest", _LAGS[name]))
        options["longest"] = max(spacing, min(longest, spacing * int(_count(first[0], stretch) / _PART)))
    found = [
        [observe(part, name, options) for run in side for part in _parts(run, start, stretch)[:pieces]]
        for side in (first, second)
    ]
    example = found[0][0]
    for each in (each for side in found for each in side):
        axis = each.disagreeing_axis(example)
        if axis is not None or each.values.shape != example.values.shape:
            raise InputError(
                f"curves are compared at the same points, and those along {axis or 'an axis'} differ from run to run: "
                "their cells or the times between frames are not the same"
            )
    one, other = (np.stack([np.asarray(each.values) for each in side]) for side in found)
    return one, other, example


def _parts(run: Trajectory, start: float, stretch: float) -> list[Trajectory]:
    length = _count(run, stretch)
    return [Excerpt(run, each, each + length) for each in range(_count(run, start), len(run) - length + 1, length)]


def _count(run: Trajectory, time: float) -> int:
    """How many frames there are in so many fs."""
    return int(time / _spacing(run) + 1e-6)


def _spacing(run: Trajectory) -> float:
    return float(run.times[1] - run.times[0]) if len(run) > 1 else float("nan")


def _duration(run: Trajectory) -> float:
    return len(run) * _spacing(run)


def _time(found: Observable) -> float:
    """In fs; where it is not known no stretch is long enough."""
    time = float(found.about.get("autocorrelation_time_fs", np.nan))
    return time if np.isfinite(time) else np.inf


def _lengths(first: Sequence[Trajectory], second: Sequence[Trajectory]) -> tuple[float, float]:
    """In ps, up to the end of the shortest run."""
    least = min(map(_duration, (*first, *second)))
    return 1e-3 * len(first) * least, 1e-3 * len(second) * least


def _cut(example: Observable, shape: tuple[int, ...]) -> Observable:
    """The example with axes as long as the curves are."""
    part = tuple(slice(0, size) for size in shape)
    axes = {
        name: replace(axis, values=axis.values[:size])
        for (name, axis), size in zip(example.axes.items(), shape, strict=True)
    }
    values, errors = np.asarray(example.values[part]), np.asarray(example.errors[part])
    return replace(example, values=values, errors=errors, axes=axes)
