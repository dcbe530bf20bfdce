"""Runs against runs: which of them are one ensemble, what their independent curves are, and the verdict over all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from goniometer.data.trajectory import DISCARD, Excerpt, Trajectory
from goniometer.errors import InputError
from goniometer.observables import observe
from goniometer.observables.result import Observable
from goniometer.verdict.curves import Verdict, compare_curves, decide

#: What is compared by default: statics, then what takes time.
LIQUID = (
    "potential-energy",
    "temperature",
    "pair-distribution",
    "dipole-correlation",
    "direction-moments",
    "pair-moments",
    "displacement",
    "reorientation",
)
# Units wanted of each side; runs are cut into stretches if there are not as many of them.
_UNITS = 8
# Runs of each side from which on each is a unit.
_RUNS = 4
# Autocorrelation times that a stretch has to hold, and the part of it that the longest time of a correlation may be.
_TIMES, _PART = 8.0, 4.0
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
        What each holds, in ps.
    verdicts
        Of the observables.
    compared
        Their curves, by name.
    skipped
        Observables that could not be compared, and why.
    """

    names: tuple[str, str]
    lengths: tuple[float, float]
    verdicts: list[Verdict]
    compared: Mapping[str, Compared]
    skipped: Mapping[str, str]


def ensembles(trajectories: Sequence[Trajectory]) -> dict[str, list[Trajectory]]:
    """Trajectories by ensemble: runs whose descriptions differ in nothing but seed and length are of one.

    A trajectory without a description is an ensemble of its own. The names are those of the strategies, or of the
    first trajectories where these do not tell them apart.
    """
    found: dict[str, list[Trajectory]] = {}
    for each in trajectories:
        description = dict(each.attributes.get("description", {}))
        for key in ("seed", "length"):
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
    names: tuple[str, str] = ("A", "B"),
    level: float = 0.05,
    look: tuple[int, int] = (1, 1),
) -> Report:
    """Compare two ensembles in several observables; see :func:`goniometer.verdict.curves.decide`.

    With four runs or more on each side every run is a unit. With fewer, runs are cut into stretches, as many as leave
    each longer than eight autocorrelation times of the observable, and eight units of each side at most; an observable
    of which there are fewer than two is skipped.

    Raises :class:`InputError` for an observable that is not known, and if nothing could be compared.
    """
    found: dict[str, Compared] = {}
    skipped: dict[str, str] = {}
    for name in observables:
        try:
            sides = [_side(each, name, min(len(first), len(second)) >= _RUNS) for each in (first, second)]
            example = observe(first[0], name, _options(name, first[0], 1))
        except _TooShort as short:
            skipped[name] = str(short)
            continue
        shapes = {side.curves.shape[1:] for side in sides}
        if len(shapes) > 1:
            skipped[name] = "the two sides have other points: their cells or frames differ"
            continue
        found[name] = Compared(sides[0], sides[1], _cut(example, sides[0].curves.shape[1:]))
    comparisons = {
        name: compare_curves(*(side.curves.reshape(len(side.curves), -1) for side in (each.first, each.second)))
        for name, each in found.items()
    }
    if not comparisons:
        reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
        raise InputError(f"nothing can be compared ({reasons})")
    verdicts = decide(comparisons, within, level=level, look=look)
    return Report(names, (_length(first), _length(second)), verdicts, found, skipped)


class _TooShort(Exception):  # noqa: N818 - it is an answer
    pass


def _side(runs: Sequence[Trajectory], name: str, whole: bool) -> Side:
    if whole:
        # Correlations of all runs go to the time that the shortest one has.
        shortest = min(runs, key=len)
        options = _options(name, shortest, 1)
        curves = [np.asarray(observe(each, name, options).values) for each in runs]
        return Side(np.stack(curves), f"{len(runs)} runs")
    wanted = -(-_UNITS // len(runs))
    for pieces in range(wanted, 0, -1):
        if pieces * len(runs) < 2:
            break
        options = _options(name, runs[0], pieces)
        time = _time(observe(runs[0], name, options))
        first = int(DISCARD * len(runs[0]))
        length = (len(runs[0]) - first) // pieces
        stretch = length * _spacing(runs[0])
        if not _TIMES * time <= stretch * (1.0 + 1e-9):
            continue
        curves = [
            np.asarray(observe(part, name, {**options, "discard": 0.0} if name in _LAGS else options).values)
            for run in runs
            for part in _parts(run, length)
        ]
        return Side(np.stack(curves), f"{len(curves)} stretches of {1e-3 * stretch:.3g} ps")
    raise _TooShort(f"'{runs[0].name}' is too short for two stretches that have forgotten each other")


def _parts(run: Trajectory, length: int) -> list[Trajectory]:
    starts = range(int(DISCARD * len(run)), len(run) - length + 1, length)
    return [Excerpt(run, start, start + length) for start in starts]


def _options(name: str, run: Trajectory, pieces: int) -> dict[str, Any]:
    """The longest time of a correlation: a quarter of a stretch, and no more than the study has."""
    if name not in _LAGS:
        return {}
    stretch = (1.0 - DISCARD) * len(run) * _spacing(run) / pieces
    spacing = _spacing(run)
    return {"longest": max(spacing, min(_LAGS[name], spacing * int(stretch / _PART / spacing)))}


def _spacing(run: Trajectory) -> float:
    for chunk in run.chunks(2):
        if len(chunk) > 1:
            return float(chunk.times[1] - chunk.times[0])
    return float("nan")


def _time(found: Observable) -> float:
    """In fs; where it is not known no stretch is long enough."""
    time = float(found.about.get("autocorrelation_time_fs", np.nan))
    return time if np.isfinite(time) else np.inf


def _length(runs: Sequence[Trajectory]) -> float:
    return 1e-3 * sum(len(each) * _spacing(each) for each in runs)


def _cut(example: Observable, shape: tuple[int, ...]) -> Observable:
    """The example with axes as long as the curves are."""
    part = tuple(slice(0, size) for size in shape)
    axes = {
        name: replace(axis, values=axis.values[:size])
        for (name, axis), size in zip(example.axes.items(), shape, strict=True)
    }
    values, errors = np.asarray(example.values[part]), np.asarray(example.errors[part])
    return replace(example, values=values, errors=errors, axes=axes)
