"""One observable in a picture: a curve with its errors, several of them, a map, or numbers."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle, product

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes

from goniometer.observables.result import Observable
from goniometer.observables.stress import in_readable_units
from goniometer.plotting.style import BLUE, COLOURS, GRID, styled
from goniometer.units import typeset

#: How the components of a curve differ, from the first on.
DASHES = ("-", "--", ":", "-.")
_NAMES = {"c_uu_of_r": "c_uu(r)", "c_uu_of_t": "c_uu(t)"}
# So many curves are told apart; more, along an axis of numbers, are a map.
_CURVES = 12


@styled
def observable_figure(found: Observable) -> matplotlib.figure.Figure:
    """Values along the longest axis, of twelve curves at most, with a band of one standard error, or a map."""
    found = _turned(in_readable_units(found))
    figure = matplotlib.figure.Figure(figsize=(5.4, 3.6))
    axes = figure.add_subplot()
    if not found.axes or list(found.axes.values())[-1].values.dtype.kind not in "if":
        _numbers(axes, found)
    elif found.values.ndim == 2 and found.values.shape[0] > _CURVES:
        _map(figure, axes, found)
    else:
        _lines(axes, found)
    return figure


def _turned(found: Observable) -> Observable:
    """With the longest axis of numbers as the last one."""
    lengths = [len(axis.values) if axis.values.dtype.kind in "if" else 0 for axis in found.axes.values()]
    if not any(lengths) or lengths[-1] == max(lengths):
        return found
    place, names = lengths.index(max(lengths)), list(found.axes)
    names.append(names.pop(place))
    values, errors = (np.moveaxis(each, place, -1) for each in (found.values, found.errors))
    return replace(found, values=values, errors=errors, axes={name: found.axes[name] for name in names})


def _numbers(axes: Axes, found: Observable) -> None:
    names = [" ".join(map(str, each)) for each in product(*(axis.values.tolist() for axis in found.axes.values()))]
    values, errors = found.values.ravel(), np.nan_to_num(found.errors.ravel())
    axes.errorbar(range(len(values)), values, yerr=errors, fmt="o", color=BLUE, markersize=4.0, capsize=2.5)
    if found.axes:  # a number by itself may be far from zero
        axes.axhline(0.0, color=GRID, linewidth=0.8, zorder=0)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_xticks(range(len(values)), names, rotation=0 if len(names) <= 4 else 90)
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.set_ylabel(label(found.name, found.unit))


def _lines(axes: Axes, found: Observable) -> None:
    name, axis = list(found.axes.items())[-1]
    others = list(found.axes.values())[:-1]
    names = [
        " ".join(f"{each:.4g}" if isinstance(each, float) else str(each) for each in place)
        for place in product(*(each.values.tolist() for each in others))
    ]
    values, errors = (each.reshape(-1, len(axis.values)) for each in (found.values, found.errors))
    for value, error, colour, dashes, said in zip(
        values[:_CURVES], errors, cycle(COLOURS), cycle(np.repeat(DASHES, len(COLOURS))), names, strict=False
    ):
        axes.plot(axis.values, value, dashes, color=colour, linewidth=1.2, label=said)
        axes.fill_between(axis.values, *band(value, error), color=colour, alpha=0.25, linewidth=0.0)
    if len(names) > 1:
        axes.legend(title=" ".join(list(found.axes)[:-1]))
    axes.set(xlabel=label(name, axis.unit), ylabel=label(found.name, found.unit))
    axes.set_xlim(axis.values[0], axis.values[-1])


def _map(figure: matplotlib.figure.Figure, axes: Axes, found: Observable) -> None:
    (upward, first), (across, second) = found.axes.items()
    drawn = axes.pcolormesh(second.values, first.values, found.values, cmap="cividis", shading="nearest")
    drawn.set_rasterized(True)
    figure.colorbar(drawn, ax=axes, label=label(found.name, found.unit))
    axes.set(xlabel=label(across, second.unit), ylabel=label(upward, first.unit))


def band(middle: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Its lower and its upper edge."""
    return middle - half, middle + half


def label(name: str, unit: str) -> str:
    """Of an axis."""
    said = _NAMES.get(name, name if name.startswith("g_") else name.replace("_", " "))
    return f"{said} [{typeset(unit)}]" if unit else said
