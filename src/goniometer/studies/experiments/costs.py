"""What each strategy of a liquid costs, and how far it can be from the averaged ensemble."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm, t

from goniometer.comparison.runs import LIQUID, Report, compare_runs
from goniometer.dynamics.checkpoint import read_sessions
from goniometer.dynamics.description import Run, Strategy
from goniometer.dynamics.forces import evaluations, rule_of
from goniometer.errors import InputError
from goniometer.files.records import replace_text
from goniometer.observables.blocks import INDEPENDENT, RUNS
from goniometer.observables.equilibration import Equilibration
from goniometer.observables.result import Observable
from goniometer.observables.stress import readable
from goniometer.rotations import grid_rule
from goniometer.sampling.reweighting import bound as reweighted_bound
from goniometer.sampling.reweighting import margin
from goniometer.studies.experiments.numbers import finite, with_error
from goniometer.studies.experiments.results import Bound, LiquidStudy, StrategyCost
from goniometer.trajectories.h5md import Trajectory
from goniometer.units import typeset

SCHEMA = "goniometer/costs/1"
#: The strategy and the grid that bounds are taken from.
REFERENCE, FINEST = "2i", "3i"
#: Observables by what reweighted differences are called.
NAMES = {
    "g_OO": "pair-distribution",
    "c_uu(r)": "dipole-correlation",
    "direction moments": "direction-moments",
    "pair moments": "pair-moments",
    "dipole fluctuation": "dipole-fluctuation",
    "potential energy": "potential-energy",
    "pressure": "pressure",
    "stress": "stress",
}
_LEVEL = 0.95
# Frames of the shortest run that the stress is taken from: it takes evaluations.
_FRAMES = 16
# What a bound is made from, besides runs that are long enough.
_WANTED = f"{RUNS} raw runs, or {INDEPENDENT} frames that have forgotten each other, and four runs of a strategy"


def cost(runs: Sequence[tuple[Run, Trajectory]], temperature: Observable, heat: Observable) -> StrategyCost:
    """Evaluations a step of the inner length, the time that runs took here, their temperature, and their heat.

    The time of a run is that of its fastest session of a tenth of it or more, or of all together if none is: what else
    is at work on the machine only ever adds to it.
    """
    description, least = runs[0][0], []
    for run, trajectory in runs:
        sessions = read_sessions(trajectory.paths[0].parent, run.steps)
        counts = np.array([each["to_step"] - each["from_step"] for each in sessions], dtype=float)
        times = np.array([each["seconds"] for each in sessions], dtype=float)
        long = 10.0 * counts >= run.steps
        rates = times[long] / counts[long] if long.any() else times.sum(keepdims=True) / max(1.0, counts.sum())
        least += [rates.min() / (1e-3 * description.step)] if counts.any() else []  # all may have been killed
    error = float(np.std(least, ddof=1) / np.sqrt(len(least))) if len(least) > 1 else float("nan")
    seconds = float(np.mean(least)) if least else float("nan")
    return StrategyCost(evaluations(description.strategy), seconds, temperature, error, description.temperature, heat)


def bounds(
    runs: Mapping[str, Sequence[Trajectory]],
    costs: Mapping[str, StrategyCost],
    differences: Mapping[str, Mapping[str, Observable]],
    verdicts: Mapping[str, Report | str],
    measured: Mapping[str, Equilibration | None] | None = None,
) -> tuple[str, dict[str, dict[str, Bound]]]:
    """What bounds are taken from, and by strategy and observable how large the bias can be.

    The averaged ensemble is known in two ways: from raw by reweighting its frames, which says of static observables
    how far raw is from it, if there are frames enough; and by the runs of :data:`REFERENCE`.

    ===========  ==============================================  ==================================
    ..           where reweighting bounds the bias of raw        else
    ===========  ==============================================  ==================================
    raw          by reweighting alone                            against the runs of the reference
    reference    against raw, less what reweighting says of raw  the same, not bounded
    others       against raw, less what reweighting says of raw  against the runs of the reference
    temperature  against the thermostat                          the same
    ===========  ==============================================  ==================================

    Without runs of the reference the others stand against raw, less what reweighting says of it where that is static.

    Each is one-sided, of 95 %, for an observable alone. The widths of a comparison and of reweighting are added in
    quadrature. What all runs have in common, the time step of the integrator for instance, is not seen by reweighting.

    Parameters
    ----------
    runs
        By strategy, ``raw`` among them.
    costs
        Their temperatures.
    differences
        By kind and grid what averaging changes, by reweighting.
    verdicts
        Each against raw.
    measured
        By strategy what :func:`goniometer.observables.equilibration.equilibration` gave, where that is known already.
    """
    changes = _changes(differences)
    alone = {observable: _by_reweighting(each) for observable, each in changes.items()}
    bounded = {observable for observable, each in alone.items() if np.isfinite(each.upper)}
    against_reference = beside(runs, REFERENCE, measured) if REFERENCE in runs else {}
    found: dict[str, dict[str, Bound]] = {}
    for name in runs:
        by_reference = _by_runs(against_reference.get(name, ""), f"by runs, against those of {REFERENCE}", {})
        by_raw = alone if name == "raw" else _by_runs(verdicts.get(name, ""), "by runs, against raw", changes)
        if name == REFERENCE:
            by_raw = {observable: each for observable, each in by_raw.items() if observable in changes}
        known = {each: by_raw[each] for each in bounded if each in by_raw and np.isfinite(by_raw[each].upper)}
        found[name] = {"temperature": _temperature(costs[name])} | by_raw | by_reference | known
    sources = [f"the runs of {REFERENCE}"] if REFERENCE in runs else []
    if bounded or not sources:
        sources.insert(0, "raw, and what reweighting says of it" if changes else "raw")
    return "; ".join(sources), found


def potential_bounds(
    strategies: Mapping[str, Strategy], remaining: Mapping[str, Mapping[str, Observable]], finest: str
) -> dict[str, dict[str, Bound]]:
    """By strategy that samples a potential, raw or an average over a grid, how large the bias of that can be.

    From the frames of raw alone, against the finest grid: nothing that the integrator does is in it, be it with
    multiple time steps, and nothing that the finest grid leaves. Random turns and tumbling frames sample no potential.

    Parameters
    ----------
    strategies
        By name.
    remaining
        By kind and grid the ensemble of the finest grid less that of the average over this one.
    finest
        The grid that all are measured by.
    """
    found: dict[str, dict[str, Bound]] = {name: {} for name in strategies}
    for name, strategy in strategies.items():
        for kind in (each for each in NAMES if each in remaining):
            for grid, each in remaining[kind].items():
                if _averages_over(strategy, grid):
                    found[name][NAMES[kind]] = replace(_by_reweighting(each), way=f"by reweighting, against {finest}")
    return found


def _averages_over(strategy: Strategy, grid: str) -> bool:
    if not strategy.samples:
        return False
    one, other = rule_of(strategy), grid_rule(grid)
    return one.name == other.name and one.inversion == other.inversion


def _changes(differences: Mapping[str, Mapping[str, Observable]]) -> dict[str, Observable]:
    """By observable what averaging over the reference changes in raw, or over the grid that all are measured by."""
    found = {}
    for kind, by_grid in differences.items():
        grid = next((each for each in (REFERENCE, FINEST) if each in by_grid), None)
        if kind in NAMES and grid is not None:
            found[NAMES[kind]] = by_grid[grid]
    return found


def unbounded(found: Mapping[str, Bound]) -> dict[str, Bound]:
    """The same of runs that are too short: what was seen, and no bound."""
    return {kind: replace(each, upper=float("inf")) for kind, each in found.items()}


def beside(
    runs: Mapping[str, Sequence[Trajectory]], base: str, measured: Mapping[str, Equilibration | None] | None = None
) -> dict[str, Report | str]:
    """The verdict on each strategy less this one, which is the first side; or why they cannot be compared.

    Stresses are those of some frames of each run: they take evaluations, which are kept with the runs. A third of the
    trace of ``whole`` is the pressure.
    """
    every = max(1, min(len(run) for side in runs.values() for run in side) // _FRAMES)
    options = {"stress": {"every": every}}
    found: dict[str, Report | str] = {}
    for name in (each for each in runs if each != base):
        known = None if measured is None else (measured[base], measured[name])
        sides = runs[base], runs[name]
        try:
            found[name] = compare_runs(*sides, (*LIQUID, *options), options=options, names=(base, name), measured=known)
        except InputError as error:
            found[name] = str(error)
    return found


def _temperature(found: StrategyCost) -> Bound:
    off, error = abs(float(found.temperature.values) - found.target), float(found.temperature.errors)
    count = int(found.temperature.about.get("runs", 1))
    times = t.ppf(_LEVEL, count - 1) if count >= 4 else norm.ppf(_LEVEL)
    return Bound(off, off + float(times) * error, "K", "against the thermostat")


def _by_reweighting(change: Observable) -> Bound:
    known = np.isfinite(change.values) & (np.isfinite(change.errors) | ("too_short" in change.about))
    seen = float(np.abs(change.values[known]).max()) if known.any() else float("nan")
    return _scaled(Bound(seen, reweighted_bound(change), change.unit, "by reweighting"))


def _by_runs(report: Report | str, way: str, changes: Mapping[str, Observable]) -> dict[str, Bound]:
    """Of every observable that could be compared, less what is known of raw."""
    if isinstance(report, str):
        return {}
    found = {}
    for verdict in report.verdicts:
        name, comparison = verdict.name, verdict.comparison
        if name == "temperature":
            continue
        observable = report.compared[name].observable
        points = len(comparison.difference)
        shift, width, said = np.zeros(points), np.zeros(points), way
        same = name in changes and changes[name].disagreeing_axis(observable) is None
        if same and changes[name].values.size == points:
            # The verdict has raw less this one, and reweighting the average less raw.
            shift, said = -changes[name].values.ravel(), f"{way} less reweighting"
            width = margin(changes[name]).ravel()
        seen = np.abs(comparison.difference - shift)
        if np.isfinite(seen).any():
            upper = comparison.bound(_LEVEL, shift, width)
            found[name] = _scaled(Bound(float(np.nanmax(seen)), upper, observable.unit, said))
    return found


def _scaled(found: Bound) -> Bound:
    """Stresses in MPa."""
    scale, unit = readable(found.unit)
    return Bound(scale * found.seen, scale * found.upper, unit, found.way)


# ---- as data and as text ---------------------------------------------------------------------------------------------


def document(study: LiquidStudy) -> dict[str, Any]:
    """The table as plain values: ``goniometer/costs/1``. Pairs are a value and its standard error."""
    raw = study.costs["raw"]
    strategies = {}
    for name, each in study.costs.items():
        temperature, error = float(each.temperature.values), float(each.temperature.errors)
        strategies[name] = {
            "length_ps": study.lengths[name],
            "evaluations_a_step": each.evaluations,
            "seconds_a_ps": with_error(each.seconds, each.seconds_error),
            "time_against_raw": with_error(*each.times(raw)),
            "heat_meV_per_ps": None
            if each.heat is None
            else with_error(1e3 * float(each.heat.values), 1e3 * float(each.heat.errors)),
            "temperature_bias_K": with_error(temperature - each.target, error),
            "bias": _document(each.bounds),
            "bias_of_potential": _document(each.potential),
        }
    return {
        "schema": SCHEMA,
        "model": study.model,
        "reference": study.reference,
        "confidence": _LEVEL,
        "too_short": dict(study.too_short),
        "strategies": strategies,
    }


def _document(bounds: Mapping[str, Bound]) -> dict[str, dict[str, Any]]:
    return {
        kind: {"seen": finite(one.seen), "below": finite(one.upper), "unit": one.unit, "known": one.way}
        for kind, one in bounds.items()
    }


def save(study: LiquidStudy, path: Path) -> None:
    """Write :func:`document` as JSON."""
    replace_text(path, json.dumps(document(study), indent=1, ensure_ascii=False) + "\n")


def lines(study: LiquidStudy) -> list[str]:
    """The table as text."""
    raw, found = study.costs["raw"], []
    for name, each in study.costs.items():
        ratio, error = each.times(raw)
        temperature, spread = float(each.temperature.values), float(each.temperature.errors)
        said = f"{ratio:.2f}" if not error > 0.0 else f"{ratio:.3f} ± {error:.1g}"
        found.append(
            f"  {name}: {study.lengths[name]:g} ps, {each.evaluations:g} evaluations a step, {said} times the time of "
            f"raw, {temperature:.1f} ± {spread:.1g} K ({temperature - each.target:+.1f} K)"
        )
    for name, each in study.costs.items():
        for of, bounds in ((name, each.bounds), (f"the potential of {name}", each.potential)):
            unknown = [kind for kind, one in bounds.items() if not np.isfinite(one.upper)]
            for kind, one in bounds.items():
                if kind not in unknown:
                    seen = f"{one.seen:.2g} seen, below {one.upper:.2g} {typeset(one.unit)}".rstrip()
                    found.append(f"  bias of {of}, {kind}: {seen} {one.way}")
            if unknown:
                found.append(f"  bias of {of}: not bounded for {', '.join(unknown)}; that takes {_WANTED}")
    return found
