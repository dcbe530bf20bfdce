"""The symmetry error by grid in one picture: supplementary figure 1 of arXiv 2406.17747, beside its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from goniometer.observables.result import Observable
from goniometer.plotting.style import BLUE, GREEN, INK, VERMILLION, legend_above, log_axis, log_limits, styled
from goniometer.studies.experiments.results import Curve, GridComparison

# Grids in the order of the study; what is left is measured against 3i, which has no place.
_ORDER = ("none", "i", "2", "2i", "3")
_COLOURS = {"test": BLUE, "liquid": VERMILLION, "gas": GREEN}


@styled
def grid_figure(found: Sequence[GridComparison]) -> matplotlib.figure.Figure:
    """Energies and forces against the grid: filled markers with errors, and the study's, open and dashed."""
    figure = matplotlib.figure.Figure(figsize=(7.6, 3.1))
    energy, forces = figure.subplots(1, 2)
    colours = {each.label: _COLOURS[each.where] for each in found}
    _draw(energy, {each.label: (each.energies, each.given_energies) for each in found}, colours)
    _draw(forces, {each.label: (each.forces, each.given_forces) for each in found}, colours)
    energy.set_ylabel("energy [meV a structure]")
    forces.set_ylabel("forces [meV/Å a component]")
    handles = [Line2D([], [], color=colour, marker="o", markersize=4.0, label=name) for name, colour in colours.items()]
    open_ = Line2D([], [], color=INK, linestyle="--", marker="o", markerfacecolor="none", markersize=4.0)
    open_.set_label("the paper")
    handles.append(open_)
    legend_above(figure, handles, len(handles))
    return figure


def error_panel(
    axes: Axes, found: Observable, places: Sequence[int], columns: Sequence[tuple[str, float]], title: str
) -> None:
    """Errors by grid of one kind of frames, for some of the grids; what these are measured against has none.

    Parameters
    ----------
    found
        With axes grid and quantity.
    places
        Of the grids along the first axis.
    columns
        Label and factor of each quantity.
    title
        Of the axis.
    """
    names = [str(found.axes["grid"].values[place]) for place in places]
    scales = [scale for _, scale in columns]
    values, errors = found.values[list(places)] * scales, np.nan_to_num(found.errors[list(places)] * scales)
    values = np.where([[name == found.about.get("reference")] for name in names], np.nan, values)
    for column, ((label, _), colour) in enumerate(zip(columns, (BLUE, VERMILLION), strict=True)):
        known = np.flatnonzero(values[:, column] > 0.0)
        bars = errors[known, column]
        axes.errorbar(known, values[known, column], yerr=bars, fmt="o", color=colour, markersize=4.0, label=label)
    axes.set_xticks(range(len(names)), names)
    axes.set(xlabel="averaged over", ylabel=title)
    log_axis(axes, "y", *log_limits(values.ravel().tolist()))
    axes.legend(fontsize=7.5)


def _draw(axes: Axes, curves: Mapping[str, tuple[Curve, Mapping[str, float]]], colours: Mapping[str, str]) -> None:
    shown: list[float] = []
    for name, (ours, given) in curves.items():
        known = [(place, *ours[grid][:2]) for place, grid in enumerate(_ORDER) if grid in ours]
        points = [(place, value, error or 0.0) for place, value, error in known if value is not None and value > 0.0]
        across, values, bars = zip(*points, strict=True) if points else ((), (), ())
        axes.errorbar(across, values, yerr=bars, fmt="o-", color=colours[name], markersize=4.0, linewidth=1.1)
        theirs = [(place, given[grid]) for place, grid in enumerate(_ORDER) if grid in given]
        places, numbers = zip(*theirs, strict=True) if theirs else ((), ())
        joined = places == tuple(range(len(places)))  # no line over grids of which nothing is known
        axes.plot(
            places,
            numbers,
            "o--" if joined else "o",
            color=colours[name],
            markerfacecolor="none",
            markersize=4.0,
            linewidth=0.9,
        )
        shown += [*values, *numbers]
    axes.set_xticks(range(len(_ORDER)), _ORDER)
    axes.set_xlabel("averaged over")
    log_axis(axes, "y", *log_limits(shown))
