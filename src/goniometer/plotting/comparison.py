"""Two ensembles in pictures: curves with their bands, and the difference on an axis of its own."""

from __future__ import annotations

import textwrap
from itertools import cycle
from typing import TYPE_CHECKING

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from goniometer.observables.stress import readable
from goniometer.plotting.observables import DASHES, band, label
from goniometer.plotting.style import BLUE, FLOOR, GRID, INK, VERMILLION, legend_above, styled
from goniometer.units import typeset

if TYPE_CHECKING:
    from goniometer.comparison.curves import Verdict
    from goniometer.comparison.runs import Compared, Report

# Characters of a line above a panel.
_LINE = 50


def in_words(found: Verdict, report: Report | None = None) -> str:
    """The verdict as a sentence: how large a difference is, or how much longer runs would have to be.

    Of a report also where the difference is, and the length in ps.
    """
    each = found.comparison
    if each.too_short:
        return f"undecided; {each.too_short}"
    if found.answer == "differ":
        scale, unit = readable("" if report is None else report.compared[found.name].observable.unit)
        unit = f" {unit}" if scale != 1.0 else ""  # others are those of the axes
        size, largest = scale * abs(each.difference[each.where]), scale * float(np.nanmax(np.abs(each.difference)))
        clearest = f"{size:.3g} ± {scale * each.errors[each.where]:.2g}{unit}"
        if report is not None:
            clearest += _place(report.compared[found.name], each.where)
        return f"differ: most clearly by {clearest}, at most by {largest:.3g}{unit} (p = {found.p_differ:.2g})"
    if found.answer == "equivalent":
        return f"equivalent within {found.within:g} (p = {found.p_outside:.2g} of more)"
    said = "undecided"
    if found.within is not None:
        said += f" within {found.within:g}"
    if np.isfinite(found.longer):
        lengths = () if report is None else tuple(dict.fromkeys(_time(found.longer * each) for each in report.lengths))
        longer = f", {' and '.join(lengths)}{' of each side' if len(lengths) == 1 else ''}," if lengths else ""
        said += f"; {found.longer:.3g} times the length{longer} would decide"
    elif found.within is None:
        said += "; nothing speaks for a difference, and what would matter (within) was not named"
    return f"{said} (p = {found.p_differ:.2g} of no difference)"


def _time(ps: float) -> str:
    return f"{ps:.3g} ps" if ps < 1000.0 else f"{1e-3 * ps:.3g} ns"


def _place(compared: Compared, where: int) -> str:
    """Of a point, by the coordinates of its axes."""
    axes = compared.observable.axes
    if not axes:
        return ""
    shape = [len(axis.values) for axis in axes.values()]
    places = zip(axes.items(), np.unravel_index(where, shape), strict=True)
    said = []
    for (name, axis), place in places:
        value = axis.values[place]
        number = f"{value:.4g}" if axis.values.dtype.kind in "if" else str(value)
        said.append(f"{name} {number} {typeset(axis.unit)}".rstrip())
    return f" at {', '.join(said)}"


@styled
def compare_figure(report: Report) -> matplotlib.figure.Figure:
    """For each observable the curves of both sides, and below their difference with the band of all points at once."""
    names = [each.name for each in report.verdicts]
    columns = min(3, max(1, len(names)))
    rows = -(-len(names) // columns) if names else 1
    figure = matplotlib.figure.Figure(figsize=(3.6 * columns, 3.9 * rows))
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=(1.6, 1.0) * rows)
    verdicts = {each.name: each for each in report.verdicts}
    for number, name in enumerate(names):
        row, column = divmod(number, columns)
        upper = figure.add_subplot(grid[2 * row, column])
        if report.compared[name].observable.axes:
            lower = figure.add_subplot(grid[2 * row + 1, column], sharex=upper)
            _curves(upper, report.compared[name], bands=not report.too_short)
            _difference(lower, report.compared[name], verdicts[name])
        else:
            lower = figure.add_subplot(grid[2 * row + 1, column])
            _numbers(upper, report.compared[name], bars=not report.too_short)
            _single_difference(lower, verdicts[name], report.compared[name].observable.unit)
        words = "undecided, too short" if report.too_short else in_words(verdicts[name], report)
        said = textwrap.fill(f"{name}: {words}", _LINE)
        upper.set_title(said, fontsize=7.5, loc="left")
    colours = zip((BLUE, VERMILLION), report.names, report.lengths, strict=True)
    handles = [Line2D([], [], color=colour, label=f"{name}, {length:.3g} ps") for colour, name, length in colours]
    legend_above(figure, handles, 2)
    return figure


def _curves(axes: Axes, each: Compared, *, bands: bool) -> None:
    across, components = _across(each)
    for side, colour in ((each.first, BLUE), (each.second, VERMILLION)):
        curves = side.curves.reshape(len(side.curves), -1, len(across))
        mean, error = curves.mean(axis=0), curves.std(axis=0, ddof=1) / np.sqrt(len(curves))
        for index, dashes in zip(range(components), cycle(_marks(each)), strict=False):
            axes.plot(across, mean[index], dashes, color=colour, linewidth=1.1, markersize=3.0)
            if bands:
                _spread(axes, each, mean[index], error[index], colour, 0.25)
    axes.tick_params(labelbottom=False)
    axes.set_ylabel(label(each.observable.name, each.observable.unit))


def _numbers(axes: Axes, each: Compared, *, bars: bool) -> None:
    """Every unit of both sides as a dot, and the mean."""
    for place, (side, colour) in enumerate(((each.first, BLUE), (each.second, VERMILLION))):
        values = side.curves.ravel()
        error = values.std(ddof=1) / np.sqrt(len(values))
        beside = place + np.linspace(-0.15, 0.15, len(values))
        axes.plot(beside, values, "o", color=colour, markersize=3.0, alpha=0.6)
        axes.errorbar(
            [place + 0.3], [values.mean()], yerr=[error] if bars else None, fmt="_", color=colour, markersize=9.0
        )
    axes.set(xlim=(-0.5, 1.6), xticks=[])
    axes.ticklabel_format(useOffset=False)
    axes.set_ylabel(label(each.observable.name, each.observable.unit))


def _single_difference(axes: Axes, verdict: Verdict, unit: str) -> None:
    """The difference with its band, from left to right."""
    found = verdict.comparison
    middle, half = float(found.difference[0]), float(found.band()[0])
    axes.errorbar(
        [middle], [0.0], xerr=[half] if np.isfinite(half) else None, fmt="o", color=INK, markersize=4.0, capsize=3.0
    )
    axes.axvline(0.0, color=GRID, linewidth=0.8, zorder=0)
    if verdict.within is not None:
        for edge in (-verdict.within, verdict.within):
            axes.axvline(edge, color=INK, linewidth=0.8, linestyle=(0, (1, 2)))
    axes.set(xlabel=label("difference", unit), yticks=[], ylim=(-1.0, 1.0))


def _difference(axes: Axes, each: Compared, verdict: Verdict) -> None:
    across, components = _across(each)
    found = verdict.comparison
    wide = np.where(np.isfinite(found.band()), found.band(), np.nan)
    middle, half = (values.reshape(-1, len(across)) for values in (found.difference, wide))
    for index, dashes in zip(range(components), cycle(_marks(each)), strict=False):
        axes.plot(across, middle[index], dashes, color=INK, linewidth=1.0, markersize=3.0)
        _spread(axes, each, middle[index], half[index], FLOOR, 0.35)
    axes.axhline(0.0, color=GRID, linewidth=0.8, zorder=0)
    if verdict.within is not None:
        for edge in (-verdict.within, verdict.within):
            axes.axhline(edge, color=INK, linewidth=0.8, linestyle=(0, (1, 2)))
    name, axis = list(each.observable.axes.items())[-1]
    if not _numbered(each):
        axes.set_xticks(across, [str(each) for each in axis.values.tolist()], rotation=90 if len(across) > 6 else 0)
    axes.set(xlabel=label(name, axis.unit), ylabel="difference")


def _numbered(each: Compared) -> bool:
    """Whether the last axis has numbers, and no labels."""
    return list(each.observable.axes.values())[-1].values.dtype.kind in "if"


def _marks(each: Compared) -> tuple[str, ...]:
    """Lines along numbers, points over labels."""
    return DASHES if _numbered(each) else ("o", "s", "^", "D")


def _spread(axes: Axes, each: Compared, middle: np.ndarray, half: np.ndarray, colour: str, alpha: float) -> None:
    """A band along numbers, bars over labels; nothing where there is none."""
    across, _ = _across(each)
    if not np.isfinite(half).any():
        return
    if _numbered(each):
        axes.fill_between(across, *band(middle, half), color=colour, alpha=alpha, linewidth=0.0)
    else:
        axes.errorbar(across, middle, yerr=half, fmt="none", ecolor=colour, elinewidth=1.0)


def _across(each: Compared) -> tuple[np.ndarray, int]:
    """The last axis, and how many curves there are along it."""
    values = list(each.observable.axes.values())[-1].values
    across = values if values.dtype.kind in "if" else np.arange(len(values))
    return across, int(np.prod(each.observable.values.shape[:-1], dtype=int))
