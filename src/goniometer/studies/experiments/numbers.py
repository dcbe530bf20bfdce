"""What an experiment found as plain numbers with units in their names: the document that reports are made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from goniometer.comparison.curves import Verdict
from goniometer.comparison.runs import Report
from goniometer.observables.result import Observable
from goniometer.observables.stress import readable
from goniometer.plotting.comparison import in_words
from goniometer.studies.experiments.results import GasStudy, IceStudy, LiquidStudy

#: A value with its standard error; None where there is none.
Pair = list[float | None]


def gas_numbers(study: GasStudy) -> dict[str, Any]:
    """By grid what it leaves, by run its drift and the change of its angular momentum, and what directions say."""
    columns = ("torque_meV", "energy_meV", "forces_meV_per_A")
    return {
        "grids": _by_grid(study.grids, columns, 1e3),
        "momentum_change_eV_fs": {name: float(each.about["largest_change"]) for name, each in study.momenta.items()},
        "drift_meV_per_ps": {name: _pair(each, 1e3) for name, each in study.drifts.items()},
        "orientation_kT": {
            name: {
                key: float(each.about[key])
                for key in ("range", "uniform_p_value", "agrees_with_dynamics_p_value", "evaluations")
                if key in each.about
            }
            for name, each in study.free_energies.items()
        },
    }


def liquid_numbers(study: LiquidStudy) -> dict[str, Any]:
    """By grid what it leaves and changes; by run its length, drift, first peak of g_OO and verdicts.

    What strategies cost is in :func:`goniometer.studies.experiments.costs.document`.
    """
    found: dict[str, Any] = {
        "molecules": study.molecules,
        "lengths_ps": dict(study.lengths),
        "too_short": dict(study.too_short),
        "drift_meV_per_ps": {name: _pair(each, 1e3) for name, each in study.drifts.items()},
        "first_peak_of_g_OO": {name: _peak(each) for name, each in study.drawn["g_OO"].items()},
        "verdicts": {
            name: report if isinstance(report, str) else {each.name: _verdict(each, report) for each in report.verdicts}
            for name, report in study.verdicts.items()
        },
    }
    found["not_compared"] = {
        name: dict(report.skipped) for name, report in study.verdicts.items() if not isinstance(report, str)
    }
    found["frozen"] = {
        name: report.frozen for name, report in study.verdicts.items() if not isinstance(report, str) and report.frozen
    }
    if study.grids is not None:
        found["grids"] = _by_grid(study.grids, ("energy_meV", "forces_meV_per_A"), 1e3)
        found["measured_against"] = str(study.grids.about["reference"])
    found["reweighting"] = {
        grid: {key: each.about[key] for key in ("frames", "effective_share", "spread_meV")}
        for grid, each in next(iter(study.differences.values()), {}).items()
    }
    found["changes"] = {
        kind: {grid: _largest(each) for grid, each in by_grid.items()} for kind, by_grid in study.differences.items()
    }
    return found


def ice_numbers(study: IceStudy) -> dict[str, Any]:
    """The table, and by grid what it leaves."""
    names, units = study.table.axes["quantity"].values, study.table.unit.split(", ")
    rows = zip(names, units, study.table.values, study.table.errors, strict=True)
    return {
        "cells": len(study.raw),
        "converged": bool(study.table.about["converged"]) if "converged" in study.table.about else None,
        "table": {str(name): {"unit": unit, "value": with_error(value, error)} for name, unit, value, error in rows},
        "grids": _by_grid(study.grids, ("energy_meV_per_atom", "forces_meV_per_A"), 1.0),
    }


def _by_grid(found: Observable, columns: tuple[str, ...], scale: float) -> dict[str, dict[str, Pair]]:
    grids = [str(each) for each in found.axes["grid"].values]
    rows = zip(grids, scale * found.values, scale * found.errors, strict=True)
    return {
        grid: {name: with_error(*pair) for name, *pair in zip(columns, values, errors, strict=True)}
        for grid, values, errors in rows
    }


def _verdict(found: Verdict, report: Report) -> dict[str, Any]:
    numbers = {"p_differ": found.p_differ, "longer": found.longer, "within": found.within}
    known = {name: None if value is None else finite(value) for name, value in numbers.items()}
    return {"answer": found.answer, "words": in_words(found, report), **known}


def _pair(found: Observable, scale: float) -> Pair:
    return with_error(scale * float(found.values), scale * float(found.errors))


def _peak(found: Observable) -> dict[str, Any]:
    at = int(np.argmax(found.values))
    return {"height": with_error(found.values[at], found.errors[at]), "r_A": float(found.axes["r"].values[at])}


def _largest(found: Observable) -> dict[str, Any]:
    """The largest change, the largest error, and the largest ratio of both at one point."""
    change, error, ratio = found.largest
    scale, unit = readable(found.unit)
    return {"change": finite(scale * change), "error": finite(scale * error), "t": finite(ratio), "unit": unit}


def with_error(value: float, error: float) -> Pair:
    """Both, None for what is not known."""
    return [finite(value), finite(error)]


def finite(value: float) -> float | None:
    """The value, None if it is not finite."""
    return float(value) if np.isfinite(value) else None
