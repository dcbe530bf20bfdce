"""Ice in pictures: what averaging changes in the energies of proton orders, and what each grid leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.figure
import numpy as np

from goniometer.observables.result import Observable
from goniometer.report.drawing import BLUE, GRID, VERMILLION, log_axis, log_limits, styled


@dataclass(frozen=True)
class CellEnergies:
    """Of relaxed cells, each by its own potential, less their mean over cells, in meV for each molecule.

    Attributes
    ----------
    names
        Of the cells.
    raw, averaged
        In their order.
    """

    names: Sequence[str]
    raw: Sequence[float]
    averaged: Sequence[float]


@styled
def ice_figure(cells: CellEnergies | None, grids: Observable) -> matplotlib.figure.Figure:
    """Relative energies of cells, averaged across and what raw adds to them up; and the error by grid."""
    figure = matplotlib.figure.Figure(figsize=(7.6 if cells else 4.2, 3.1))
    count = 2 if cells else 1
    panels = [figure.add_subplot(1, count, 1 + place) for place in range(count)]
    if cells:
        axes = panels[0]
        averaged = 1e3 * np.array(cells.averaged)
        axes.axhline(0.0, color=GRID, linewidth=0.8, zorder=0)
        change = 1e3 * np.array(cells.raw) - averaged
        axes.plot(averaged, change, "o", color=BLUE, markersize=5.0)
        across, up = (1.15 * float(np.abs(each).max()) for each in (averaged, change))
        axes.set(xlim=(-across, across), ylim=(-max(up, 0.25 * across), max(up, 0.25 * across)))
        axes.set(xlabel="relative energy, averaged [µeV a molecule]", ylabel="raw less averaged [µeV a molecule]")
    axes = panels[-1]
    reference = grids.about.get("reference")
    names = [str(each) for each in grids.axes["grid"].values]
    for column, (label, colour) in enumerate((("energy [µeV/atom]", BLUE), ("forces [meV/Å]", VERMILLION))):
        scale = 1e3 if column == 0 else 1.0
        values, errors = scale * grids.values[:, column], np.nan_to_num(scale * grids.errors[:, column])
        shown = [place for place, value in enumerate(values) if value > 0.0 and names[place] != reference]
        axes.errorbar(shown, values[shown], yerr=errors[shown], fmt="o", color=colour, markersize=4.0, label=label)
    axes.set_xticks(range(len(names)), names)
    axes.set(xlabel="averaged over", ylabel="error of starting structures, rms")
    drawn = [place for place, name in enumerate(names) if name != reference]
    log_axis(axes, "y", *log_limits((grids.values[drawn] * (1e3, 1.0)).ravel().tolist()))
    axes.legend(fontsize=7.5)
    return figure
