"""Water in bulk in pictures: figures 2 and 3 of arXiv 2406.17747, and how observables converge with the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Literal

import matplotlib.figure
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from goniometer.observables.result import Observable
from goniometer.plotting.style import COLOURS, FLOOR, GRID, INK, front, legend_above, log_axis, log_limits, styled
from goniometer.studies.experiments.results import Bound, LiquidStudy, StrategyCost
from goniometer.studies.plots.gas import POINTS, orientation_maps
from goniometer.studies.plots.grids import error_panel
from goniometer.units import typeset

# Of a run, for what is slow.
_STRETCHES = 100
_MARKERS = ("o", "s", "^", "D", "v", "P")
# Shares of a change below this are rounding.
_ROUNDING = 1e-9
# How the components of one curve differ.
_DASHES: tuple[Literal["-", "--"], ...] = ("-", "--")


@styled
def liquid_figure(study: LiquidStudy) -> matplotlib.figure.Figure:
    """Orientational free energies; g_OO(r), c_uu(r)/g(r), mean squared displacement and c_uu(t), with their errors."""
    figure = matplotlib.figure.Figure(figsize=(11.0, 6.0))
    grid = figure.add_gridspec(2, 1, height_ratios=(1.0, 1.15))
    top, bottom = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    maps = study.drawn["orientation"]
    orientation_maps(top, {f"{name}, {_length(study, name, each)}": each for name, each in maps.items()})
    distances, pairs, moved, turned = bottom.subplots(1, 4)
    _lines(distances, study.drawn["g_OO"], "r", "r [Å]", "g_OO(r)")
    _lines(pairs, study.drawn["c_uu(r)"], "r", "r [Å]", "c_uu(r) / g(r)")
    pairs.set_xlim(2.2, None)
    _within(pairs, study.drawn["c_uu(r)"], "r", 2.4)
    _lines(moved, _first(study.drawn["displacement"], "component"), "time", "t [ps]", "⟨Δr²⟩ [Å²]", 1e-3)
    _lines(turned, _first(study.drawn["c_uu(t)"], "degree"), "time", "t [ps]", "c_uu(t)", 1e-3)
    handles = [
        Line2D([], [], color=colour, label=name) for name, colour in zip(study.lengths, cycle(COLOURS), strict=False)
    ]
    handles += [
        Line2D([], [], color=INK, linestyle=dashes, label=part)
        for part, dashes in zip(("longitudinal", "transverse"), _DASHES, strict=True)
    ]
    legend_above(bottom, handles, len(handles))
    return figure


def _length(study: LiquidStudy, name: str, found: Observable) -> str:
    """How much of a strategy is drawn, in ps: the common window of each of its runs."""
    start, end = study.window
    if not np.isfinite(end):
        return f"{study.lengths[name]:g} ps"
    return f"{found.about.get('runs', 1)} × {end - start:.3g} ps"


@styled
def drift_figure(study: LiquidStudy) -> matplotlib.figure.Figure:
    """The conserved quantity of each strategy against time, for each molecule: supplementary figure 2."""
    figure = matplotlib.figure.Figure(figsize=(6.6, 3.2))
    axes = figure.add_subplot()
    stretches = {name: _stretches(each) for name, each in study.conserved.items()}
    _lines(axes, stretches, "time", "t [ps]", "change [meV a molecule]", 1e-3, 1e3 / study.molecules)
    handles = [
        Line2D([], [], color=colour, label=name) for name, colour in zip(study.conserved, cycle(COLOURS), strict=False)
    ]
    legend_above(figure, handles, len(handles))
    return figure


def _stretches(found: Observable) -> Observable:
    """Means over stretches of a series, less that of the first one: what it does slowly, without its noise."""
    size = max(1, len(found.values) // _STRETCHES)
    count = len(found.values) // size
    values, errors, times = (
        each[: count * size].reshape(count, size).mean(axis=1)
        for each in (found.values, found.errors, found.axes["time"].values)
    )
    axes = {"time": replace(found.axes["time"], values=times)}
    return replace(found, values=values - values[0], errors=errors, axes=axes)


@styled
def convergence_figure(study: LiquidStudy) -> matplotlib.figure.Figure:
    """The symmetry error by grid; what each grid leaves of the change of observables; and whether that is resolved.

    With Δ of :attr:`LiquidStudy.differences` by the reference the second panel has max |remaining| / max |Δ|
    of :attr:`LiquidStudy.remaining`, one without an average. The third has the largest Δ / error, and where
    the band of 90 % ends that holds for the whole of an observable. Markers are open where the change does not reach
    beyond that: what falls then is the noise of the change. Where a grid leaves nothing it has no marker.
    """
    assert study.grids is not None
    figure = matplotlib.figure.Figure(figsize=(11.0, 3.4))
    axes, left, resolved = figure.subplots(1, 3)
    shown = [place for place, each in enumerate(study.grids.values[:, 0]) if each > 0.0]
    reference = str(study.grids.about["reference"])
    moving = {kind: each for kind, each in study.differences.items() if each[reference].largest[0] > 0.0}
    if not shown or not moving:
        axes.text(0.5, 0.5, "averaging changes nothing", ha="center", va="center", transform=axes.transAxes)
        for panel in (axes, left, resolved):
            panel.set_axis_off()
        return figure
    error_panel(axes, study.grids, shown, (("energy [meV]", 1e3), ("forces [meV/Å]", 1e3)), "symmetry error")
    seen: list[float] = []
    for place, (kind, by_grid) in enumerate(moving.items()):
        largest, band = by_grid[reference].largest[2], by_grid[reference].about["simultaneous_90"]
        colour, marker = COLOURS[place % len(COLOURS)], _MARKERS[place // len(COLOURS)]
        face = colour if largest > band else "none"
        size = by_grid[reference].largest[0]
        remains = {grid: each.largest[0] / size for grid, each in study.remaining[kind].items()}
        remains = {grid: each if each > _ROUNDING else float("nan") for grid, each in remains.items()}
        points = zip(*remains.items(), strict=True)
        left.plot(*points, f"{marker}-", color=colour, markerfacecolor=face, markersize=4.0, linewidth=1.0, label=kind)
        resolved.plot(largest, place, marker, color=colour, markerfacecolor=face, markersize=5.0)
        if np.isfinite(band):
            resolved.plot(band, place, "|", color=INK, markersize=11.0)
        seen += remains.values()
    left.set(xlabel="averaged over", ylabel=f"left of the change by {reference}")
    log_axis(left, "y", *log_limits(seen))
    resolved.set_yticks(range(len(moving)), list(moving))
    resolved.set(ylim=(len(moving) - 0.5, -0.5), xlabel=f"largest change by {reference} / its error")
    resolved.set_xlim(0.0, None)
    return figure


@styled
def cost_figure(study: LiquidStudy) -> matplotlib.figure.Figure:
    """Heat, temperature, and for every observable what its bias is below, against the time of each strategy.

    A marker is the bound; the line down from it ends at the largest difference that was seen. The grey line joins the
    strategies than which none is both faster and better known. Open markers are bounds of the potential alone, and the
    dotted line is their front, raw among them.
    """
    kinds = list(dict.fromkeys(kind for each in study.costs.values() for kind in (*each.bounds, *each.potential)))
    kinds = [kind for kind in kinds if kind != "temperature" and _sizes(study, kind)]
    figure, (heat, temperature, *panels) = _panels(2 + len(kinds))
    for name, each, style in _styles(study):
        if each.heat is not None:
            error = 1e3 * float(each.heat.errors)
            _point(heat, study, each, 1e3 * float(each.heat.values), error, error, style)
        error = float(each.temperature.errors)
        _point(temperature, study, each, float(each.temperature.values) - each.target, error, error, style)
        for panel, kind in zip(panels, kinds, strict=True):
            for by, face in ((_bounded(study, kind), style[0]), (_alone(study, kind), "none")):
                if name in by:
                    size = by[name].upper
                    _point(panel, study, each, size, size - by[name].seen, 0.0, style, face)
    heat.set_ylabel("heat [meV/ps]")
    temperature.set_ylabel("T less the thermostat's [K]")
    for panel in (heat, temperature):
        panel.axhline(0.0, color=GRID, linewidth=0.8, zorder=0)
    for panel, kind in zip(panels, kinds, strict=True):
        _front(panel, study, kind)
    _times(study, [heat, temperature, *panels])
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="none", label=name)
        for name, _, (colour, marker) in _styles(study)
    ]
    if any(_bounded(study, kind) for kind in kinds):
        handles.append(Line2D([], [], color=FLOOR, label="front"))
    if any(_alone(study, kind) for kind in kinds):
        handles.append(
            Line2D([], [], color=INK, marker="o", markerfacecolor="none", linestyle="none", label="potential alone")
        )
    legend_above(figure, handles, len(handles))
    return figure


def _times(study: LiquidStudy, panels: Sequence[Axes]) -> None:
    """The axes of times: most strategies take little more than raw, a few take many times as much."""
    reach = max(1.3, max(each.times(study.costs["raw"])[0] for each in study.costs.values()))
    marks = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5) if reach < 1.6 else (1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0)
    for panel in panels:
        panel.set(xscale="log", xlim=(reach**-0.1, reach**1.1), xlabel="time against raw")
        panel.xaxis.set_major_locator(ticker.FixedLocator(marks))
        panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_locator(ticker.NullLocator())


def _point(
    axes: Axes,
    study: LiquidStudy,
    of: StrategyCost,
    value: float,
    down: float,
    up: float,
    style: tuple[str, str],
    face: str | None = None,
) -> None:
    """A strategy at its time, with the errors of both."""
    across, error = of.times(study.costs["raw"])
    ends = [[down], [up]] if np.isfinite(down) else None
    colour, marker = style
    axes.errorbar(
        across,
        value,
        yerr=ends,
        xerr=error if np.isfinite(error) else None,
        fmt=marker,
        color=colour,
        markerfacecolor=colour if face is None else face,
        markersize=6.0,
        elinewidth=1.1,
    )


def _styles(study: LiquidStudy) -> list[tuple[str, StrategyCost, tuple[str, str]]]:
    """A colour and a marker for each strategy."""
    styles = zip(cycle(COLOURS), cycle(_MARKERS), strict=False)
    return [(name, each, style) for (name, each), style in zip(study.costs.items(), styles, strict=False)]


def _bounded(study: LiquidStudy, kind: str) -> dict[str, Bound]:
    """Of the strategies for which there is a bound; one of zero, of what never moves, has no place on the axis."""
    known = {name: each.bounds[kind] for name, each in study.costs.items() if kind in each.bounds}
    return {name: each for name, each in known.items() if 0.0 < each.upper < np.inf}


def _of_potentials(study: LiquidStudy, kind: str) -> dict[str, Bound]:
    """The same of the potential alone."""
    known = {name: each.potential[kind] for name, each in study.costs.items() if kind in each.potential}
    return {name: each for name, each in known.items() if 0.0 < each.upper < np.inf}


def _alone(study: LiquidStudy, kind: str) -> dict[str, Bound]:
    """Where that is not all that is known of a strategy."""
    return {name: each for name, each in _of_potentials(study, kind).items() if name != "raw"}


def _sizes(study: LiquidStudy, kind: str) -> list[Bound]:
    """All that has a place on the axis."""
    return [*_bounded(study, kind).values(), *_alone(study, kind).values()]


def _front(axes: Axes, study: LiquidStudy, kind: str) -> None:
    """The fronts of one observable, of all bounds and of those of potentials, and the axis of its bounds."""
    raw, known, all_sizes = study.costs["raw"], _bounded(study, kind), _sizes(study, kind)
    for of, dashes in ((known, "-"), (_of_potentials(study, kind), ":")):
        points = {name: (study.costs[name].times(raw)[0], each.upper) for name, each in of.items()}
        if points:
            across, up = zip(*(points[name] for name in front(points)), strict=True)
            axes.step([*across, 1e3], [*up, up[-1]], dashes, where="post", color=FLOOR, linewidth=1.2, zorder=0)
    unit = typeset(all_sizes[0].unit)
    axes.set_ylabel(f"bias of {kind.replace('-', ' ')}{unit and f' [{unit}]'}")
    log_axis(axes, "y", *log_limits([size for each in all_sizes for size in (each.upper, each.seen)]))


def _panels(count: int) -> tuple[matplotlib.figure.Figure, list[Axes]]:
    """Rows of at most four."""
    rows = -(-count // 4)
    columns = -(-count // rows)
    figure = matplotlib.figure.Figure(figsize=(3.3 * columns, 2.9 * rows))
    return figure, [figure.add_subplot(rows, columns, 1 + place) for place in range(count)]


def _lines(
    axes: Axes,
    found: Mapping[str, Observable],
    along: str,
    xlabel: str,
    ylabel: str,
    scale: float = 1.0,
    up: float = 1.0,
) -> None:
    for colour, each in zip(cycle(COLOURS), found.values(), strict=False):
        step = max(1, len(each.axes[along].values) // POINTS)
        across = scale * each.axes[along].values[::step]
        for values, errors, dashes in zip(
            up * np.atleast_2d(each.values)[:, ::step],
            up * np.atleast_2d(each.errors)[:, ::step],
            _DASHES,
            strict=False,
        ):
            axes.plot(across, values, dashes, color=colour, linewidth=1.1)
            if np.isfinite(errors).any():
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
