"""The lone molecule in pictures: figure 1 of arXiv 2406.17747, from trajectories of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib.figure
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, TwoSlopeNorm
from matplotlib.lines import Line2D

from goniometer.observables.result import Observable
from goniometer.plotting.style import BLUE, GREEN, INK, ORANGE, PURPLE, VERMILLION, log_axis, log_limits, plain, styled
from goniometer.studies.experiments.results import GasStudy

#: Points of a line that are drawn, or up to twice as many.
POINTS = 2000
# Part of the sphere whose colours are told apart, in the median over panels: a run that is too short has places that it
# hardly came to.
_SHOWN = 0.98
# cm⁻¹ up to which spectra are drawn: the stretches of water are below.
_WAVENUMBERS = 5000.0
# How the lines of several runs differ.
_DASHES: tuple[Literal["-", "--", ":"], ...] = ("-", "--", ":")


@styled
def gas_figure(study: GasStudy) -> matplotlib.figure.Figure:
    """Angular momentum, torque by grid, power spectra, and the free energy of directions, raw and averaged."""
    figure = matplotlib.figure.Figure(figsize=(9.6, 5.6))
    grid = figure.add_gridspec(2, 1)
    top, bottom = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    _momenta(list(top.subplots(1, 3, width_ratios=(1.1, 1.0, 1.0))), study)
    orientation_maps(bottom, study.free_energies)
    return figure


def _momenta(panels: Sequence[Axes], study: GasStudy) -> None:
    axes, torque, spectrum = panels
    colours = dict(zip(("x", "y", "z", "norm"), (BLUE, VERMILLION, GREEN, INK), strict=True))
    for name, dashes in zip(study.momenta, _DASHES, strict=False):
        found = study.momenta[name]
        times, step = found.axes["time"].values, max(1, len(found.values) // POINTS)
        for index, component in enumerate(found.axes["component"].values):
            line = found.values[::step, 0, index]
            axes.plot(1e-3 * times[::step], line, dashes, color=colours[str(component)], linewidth=1.0)
    handles = [Line2D([], [], color=colour, label=f"L {name}") for name, colour in colours.items()]
    styles = zip(study.momenta, _DASHES, strict=False)
    handles += [Line2D([], [], color=INK, linestyle=dashes, label=name) for name, dashes in styles]
    above: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2, "fontsize": 7.5}
    axes.legend(handles=handles, ncols=3, handlelength=1.4, columnspacing=0.8, **above)
    axes.set(xlabel="time [ps]", ylabel="angular momentum [eV fs]")
    _bars(torque, study.grids)
    for (name, found), colour in zip(study.spectra.items(), (BLUE, ORANGE), strict=False):
        grid = found.axes["wavenumber"].values
        spectrum.plot(grid[1:], found.values[1:], color=colour, linewidth=1.0, label=name)
    spectrum.set(xlabel="wavenumber [cm⁻¹]", ylabel="power spectrum [eV² cm]", xlim=(0, _WAVENUMBERS))
    shown = [each.values[1:][each.axes["wavenumber"].values[1:] < _WAVENUMBERS] for each in study.spectra.values()]
    log_axis(spectrum, "y", *log_limits(np.concatenate(shown).tolist()))
    spectrum.legend(ncols=2, **above)


def _bars(axes: Axes, found: Observable) -> None:
    grids = [str(each) for each in found.axes["grid"].values]
    values, errors = 1e3 * found.values[:, 0], 1e3 * found.errors[:, 0]
    errors = np.where(np.isfinite(errors), errors, 0.0)
    axes.errorbar(range(len(grids)), values, yerr=errors, fmt="o", color=PURPLE, markersize=4.0, linewidth=1.0)
    axes.set_xticks(range(len(grids)), grids)
    axes.set(xlabel="averaged over", ylabel="rms torque [meV]")
    log_axis(axes, "y", *log_limits(values.tolist()))


def orientation_maps(figure: matplotlib.figure.SubFigure, found: Mapping[str, Observable]) -> None:
    """Free energies of directions side by side, by title, and the one scale of their colours, in kT."""
    limit = float(np.median([np.nanquantile(np.abs(each.values), _SHOWN) for each in found.values()])) or 1.0
    panels = list(np.atleast_1d(figure.subplots(1, len(found), sharey=True)))
    for axes, (title, each) in zip(panels, found.items(), strict=True):
        _orientation_map(axes, each, title, limit)
        axes.xaxis.set_major_locator(ticker.MultipleLocator(0.5 if len(panels) < 4 else 1.0))
    bar = figure.colorbar(panels[0].collections[0], ax=panels, shrink=0.85, aspect=30, extend="both")
    bar.set_label("−ln P [kT]")
    bar.outline.set_visible(False)


def _orientation_map(axes: Axes, found: Observable, name: str, limit: float) -> None:
    cosines, angles = found.axes["cos_theta"].values, found.axes["phi"].values
    norm = TwoSlopeNorm(0.0, -limit, limit)
    axes.pcolormesh(angles / np.pi, cosines, found.values, cmap=_diverging(), norm=norm, rasterized=True)
    title = name
    for key, what in (("uniform_p_value", "uniform"), ("agrees_with_dynamics_p_value", "as raw")):
        if key in found.about:
            title += f", {what}: p = {float(found.about[key]):.2g}"
    axes.set_title(title, fontsize=9.0, loc="left")
    axes.set(xlabel="φ [π]", ylabel="cos θ")
    axes.label_outer()
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: plain(value)))


def _diverging() -> Colormap:
    from cmcrameri import cm

    return cm.vik
