"""Water in bulk in pictures: figures 2 and 3 of arXiv 2406.17747, and how observables converge with the grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from goniometer.observables.result import Observable
from goniometer.report.drawing import (
    BLUE,
    COLOURS,
    GRID,
    INK,
    VERMILLION,
    legend_above,
    log_axis,
    log_limits,
    styled,
)
from goniometer.report.gas import orientation_map
from goniometer.verdict.runs import Report

# kT at which the colours of a free energy end.
_LARGEST = 0.5
# How the components of one curve differ.
_DASHES: tuple[Literal["-", "--"], ...] = ("-", "--")


@dataclass(frozen=True)
class Cost:
    """What a strategy takes.

    Attributes
    ----------
    evaluations
        Of the model, for each (inner) time step.
    seconds
        A ps, on the machine where it ran.
    temperature
        Of its velocities, in K.
    """

    evaluations: float
    seconds: float
    temperature: Observable


@dataclass(frozen=True)
class LiquidStudy:
    """What figures 2 and 3 show; names of runs are those of their descriptions.

    Attributes
    ----------
    model, lengths
        What the runs are of, and how many ps of each there are.
    drawn
        Kind of observable to run to values: ``orientation``, ``g_OO``, ``c_uu(r)``, ``displacement``, ``c_uu(t)``.
    drifts
        Slopes of the conserved quantity of the box, by run.
    grids
        The symmetry error by grid on frames of the raw run; None if it was left out.
    differences
        Kind of observable to grid to what averaging over it changes, by reweighting the raw run.
    costs
        Of each run.
    verdicts
        Each run against the raw one, or why they cannot be compared.
    """

    model: str
    lengths: Mapping[str, float]
    drawn: Mapping[str, Mapping[str, Observable]]
    drifts: Mapping[str, Observable]
    grids: Observable | None
    differences: Mapping[str, Mapping[str, Observable]]
    costs: Mapping[str, Cost]
    verdicts: Mapping[str, Report | str]


@styled
def liquid_figure(study: LiquidStudy) -> matplotlib.figure.Figure:
    """Orientational free energies; g_OO(r), c_uu(r)/g(r), mean squared displacement and c_uu(t), with their errors."""
    figure = matplotlib.figure.Figure(figsize=(11.0, 6.0))
    grid = figure.add_gridspec(2, 1, height_ratios=(1.0, 1.15))
    top, bottom = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    maps = study.drawn["orientation"]
    panels = list(np.atleast_1d(top.subplots(1, len(maps), sharey=True)))
    for axes, (name, found) in zip(panels, maps.items(), strict=True):
        orientation_map(axes, found, f"{name}, {study.lengths[name]:g} ps", _LARGEST)
    bar = top.colorbar(panels[0].collections[0], ax=panels, shrink=0.85, aspect=30, extend="both")
    bar.set_label("−ln P [kT]")
    bar.outline.set_visible(False)
    distances, pairs, moved, turned = bottom.subplots(1, 4)
    _lines(distances, study.drawn["g_OO"], "r", "r [Å]", "g_OO(r)")
    _lines(pairs, study.drawn["c_uu(r)"], "r", "r [Å]", "c_uu(r) / g(r)")
    pairs.set_xlim(2.2, None)
    _within(pairs, study.drawn["c_uu(r)"], "r", 2.4)
    _lines(moved, _first(study.drawn["displacement"], "component"), "time", "t [ps]", "⟨Δr²⟩ [Å²]", 1e-3)
    _lines(turned, _first(study.drawn["c_uu(t)"], "degree"), "time", "t [ps]", "c_uu(t)", 1e-3)
    handles = [Line2D([], [], color=colour, label=name) for name, colour in zip(study.lengths, COLOURS, strict=False)]
    handles += [
        Line2D([], [], color=INK, linestyle=dashes, label=part)
        for part, dashes in zip(("longitudinal", "transverse"), _DASHES, strict=True)
    ]
    legend_above(bottom, handles, len(handles))
    return figure


@styled
def convergence_figure(study: LiquidStudy) -> matplotlib.figure.Figure:
    """The symmetry error by grid, and what averaging over each grid changes in static observables."""
    assert study.grids is not None
    figure = matplotlib.figure.Figure(figsize=(3.6 * (1 + len(study.differences)), 3.2))
    axes, *others = figure.subplots(1, 1 + len(study.differences))
    names = [str(each) for each in study.grids.axes["grid"].values]
    shown = [index for index, each in enumerate(study.grids.values[:, 0]) if each > 0.0]
    for column, (label, colour) in enumerate((("energy [meV]", BLUE), ("forces [meV/Å]", VERMILLION))):
        values, errors = 1e3 * study.grids.values[shown, column], 1e3 * study.grids.errors[shown, column]
        axes.errorbar(range(len(shown)), values, yerr=errors, fmt="o", color=colour, markersize=4.0, label=label)
    axes.set_xticks(range(len(shown)), [names[index] for index in shown])
    axes.set(xlabel="averaged over", ylabel="symmetry error")
    log_axis(axes, "y", *log_limits((1e3 * study.grids.values[shown]).ravel().tolist()))
    axes.legend(fontsize=7.5)
    for panel, (kind, by_grid) in zip(others, study.differences.items(), strict=True):
        grids = list(by_grid)
        largest = [float(np.nanmax(np.abs(each.values))) for each in by_grid.values()]
        error = [float(np.nanmax(np.where(np.isfinite(each.values), each.errors, np.nan))) for each in by_grid.values()]
        panel.plot(range(len(grids)), largest, "o", color=BLUE, markersize=4.0, label="largest change")
        panel.plot(range(len(grids)), error, "_", color=INK, markersize=9.0, label="largest error")
        panel.set_xticks(range(len(grids)), grids)
        panel.set(xlabel="averaged over", ylabel=f"change of {kind}", ylim=(0.0, 1.2 * max(*largest, *error)))
        panel.legend(fontsize=7.5)
    return figure


def _lines(
    axes: Axes, found: Mapping[str, Observable], along: str, xlabel: str, ylabel: str, scale: float = 1.0
) -> None:
    for colour, each in zip(COLOURS, found.values(), strict=False):
        across = scale * each.axes[along].values
        for values, errors, dashes in zip(
            np.atleast_2d(each.values), np.atleast_2d(each.errors), _DASHES, strict=False
        ):
            axes.plot(across, values, dashes, color=colour, linewidth=1.1)
            axes.fill_between(across, values - errors, values + errors, color=colour, alpha=0.25, linewidth=0.0)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.axhline(0.0, color=GRID, linewidth=0.7, zorder=0)


def _within(axes: Axes, found: Mapping[str, Observable], along: str, start: float) -> None:
    """Limits from what is drawn beyond a start, where there are enough pairs."""
    shown = np.concatenate([each.values[..., each.axes[along].values > start].ravel() for each in found.values()])
    if np.isfinite(shown).any():
        low, high = float(np.nanmin(shown)), float(np.nanmax(shown))
        axes.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))


def _first(found: Mapping[str, Observable], axis: str) -> dict[str, Observable]:
    """The first component of each."""
    return {
        name: replace(
            each,
            values=each.values[0],
            errors=each.errors[0],
            axes={key: value for key, value in each.axes.items() if key != axis},
        )
        for name, each in found.items()
    }
