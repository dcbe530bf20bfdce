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
    for name in within or {}:
        if name not in observables:
            raise InputError(f"there is no '{name}' to be equivalent in; compared are {', '.join(observables)}")
    found: dict[str, Compared] = {}
    skipped: dict[str, str] = {}
    for name in observables:
        try:
            one, other, example = _sides(first, second, name)
        except _TooShort as short:
            skipped[name] = str(short)
            continue
        if one.curves.shape[1:] != other.curves.shape[1:]:
            skipped[name] = "the two sides have other points: their cells differ"
            continue
        found[name] = Compared(one, other, _cut(example, one.curves.shape[1:]))
    comparisons = {
        name: compare_curves(*(side.curves.reshape(len(side.curves), -1) for side in (each.first, each.second)))
        for name, each in found.items()
    }
    if not comparisons:
        reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
        raise InputError(f"nothing can be compared ({reasons})")
    asked = {name: size for name, size in (within or {}).items() if name in comparisons}
    verdicts = decide(comparisons, asked, level=level, look=look)
    return Report(names, (_length(first), _length(second)), verdicts, found, skipped)


class _TooShort(Exception):  # noqa: N818 - it is an answer
    pass


def _sides(first: Sequence[Trajectory], second: Sequence[Trajectory], name: str) -> tuple[Side, Side, Observable]:
    """The units of both sides, cut alike, and an example of the observable.

    Correlations of both go to the same time: a quarter of the shortest stretch, and no farther than the study's.
    """
    both = (*first, *second)
    if min(len(first), len(second)) >= _RUNS:
        options = _options(name, both, 1)
        found = [np.stack([np.asarray(observe(run, name, options).values) for run in side]) for side in (first, second)]
        units = [f"{len(side)} runs" for side in (first, second)]
        return Side(found[0], units[0]), Side(found[1], units[1]), observe(first[0], name, options)
    time = np.inf
    for pieces in range(-(-_UNITS // min(len(first), len(second))), 0, -1):
        if pieces * min(len(first), len(second)) < 2:
            break
        options = _options(name, both, pieces)
        examples = [observe(side[0], name, options) for side in (first, second)]
        stretches = [(1.0 - DISCARD) * len(run) * _spacing(run) / pieces for run in both]
        time = max(_time(each) for each in examples)
        if min(stretches) < _TIMES * time * (1.0 - 1e-6):
            continue
        one, other = (_cut_up(side, name, options, pieces) for side in (first, second))
        return one, other, examples[0]
    said = "the runs are too short for two stretches that have forgotten each other"
    if np.isfinite(time):
        needed = 2.0 * _TIMES * time / (1.0 - DISCARD)
        said += (
            f": they remember {1e-3 * time:.2g} ps, and {1e-3 * needed:.2g} ps would do, or {_RUNS} runs on each side"
        )
    raise _TooShort(said)


def _cut_up(runs: Sequence[Trajectory], name: str, options: dict[str, Any], pieces: int) -> Side:
    given = {**options, "discard": 0.0} if name in _LAGS else options
    curves = [
        np.asarray(observe(part, name, given).values)
        for run in runs
        for part in _parts(run, (len(run) - int(DISCARD * len(run))) // pieces)
    ]
    length = 1e-3 * (1.0 - DISCARD) * len(runs[0]) * _spacing(runs[0]) / pieces
    return Side(np.stack(curves), f"{len(curves)} stretches of {length:.3g} ps")


def _parts(run: Trajectory, length: int) -> list[Trajectory]:
    starts = range(int(DISCARD * len(run)), len(run) - length + 1, length)
    return [Excerpt(run, start, start + length) for start in starts]


def _options(name: str, runs: Sequence[Trajectory], pieces: int) -> dict[str, Any]:
    """The longest time of a correlation."""
    if name not in _LAGS:
        return {}
    stretch = min((1.0 - DISCARD) * len(run) * _spacing(run) for run in runs) / pieces
    spacing = _spacing(runs[0])
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
