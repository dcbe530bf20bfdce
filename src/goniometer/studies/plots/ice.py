"""Ice in pictures: what averaging changes in the energies of proton orders, and what each grid leaves."""

from __future__ import annotations

import matplotlib.figure
import numpy as np

from goniometer.observables.result import Observable
from goniometer.plotting.style import BLUE, GRID, styled
from goniometer.studies.experiments.results import CellEnergies
from goniometer.studies.plots.grids import error_panel


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
    columns = (("energy [µeV/atom]", 1e3), ("forces [meV/Å]", 1.0))
    every = range(len(grids.axes["grid"].values))
    error_panel(panels[-1], grids, every, columns, "error of starting structures, rms")
    return figure
