"""What a model predicts against what is given: energies and forces."""

from __future__ import annotations

import matplotlib.figure
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap

from goniometer.plotting.style import BLUE, FLOOR, WIDTH, plain, styled
from goniometer.training.evaluate import Errors, Evaluation
from goniometer.units import ENERGY_PER_ATOM, FORCE, Scale

#: More points than this are drawn as their density.
MANY = 2000


@styled
def parity_figure(evaluation: Evaluation) -> matplotlib.figure.Figure:
    """Energies (per atom, less their mean error) and force components, predicted against given, with their errors."""
    figure = matplotlib.figure.Figure(figsize=(2 * WIDTH, WIDTH + 0.2))
    energy, force = figure.subplots(1, 2)
    pairs = evaluation.pairs
    _panel(energy, pairs.energies, evaluation.energy_shifted, "energy", ENERGY_PER_ATOM, 1e3)
    _panel(force, pairs.forces, evaluation.force, "force component", FORCE, 1.0)
    return figure


def _panel(axes: Axes, pairs: np.ndarray, errors: Errors, what: str, scale: Scale, factor: float) -> None:
    """Pairs (2, M) of given and predicted values, drawn times ``factor``; the errors are written in their own scale."""
    given, predicted = pairs * factor
    low, high = float(np.min(pairs * factor)), float(np.max(pairs * factor))
    margin = 0.05 * (high - low) or 1.0
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color=FLOOR, linewidth=0.8, zorder=0)
    if len(given) > MANY:
        extent = (*limits, *limits)
        mesh = axes.hexbin(given, predicted, gridsize=90, bins="log", mincnt=1, extent=extent, cmap=_density())
        bar = axes.figure.colorbar(mesh, ax=axes, orientation="horizontal", shrink=0.72, aspect=40, pad=0.02)
        bar.set_label("pairs in a hexagon")
        bar.outline.set_visible(False)
        bar.formatter = ticker.FuncFormatter(lambda value, _: plain(value))
        bar.update_ticks()
    else:
        axes.plot(given, predicted, "o", color=BLUE, markersize=3.5, markeredgewidth=0.0, alpha=0.6)
    unit = scale.unit if factor == scale.factor else scale.unit.removeprefix("m")
    axes.set(xlim=limits, ylim=limits, xlabel=f"{what}, given [{unit}]", ylabel=f"{what}, predicted [{unit}]")
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(ticker.MaxNLocator(5))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: plain(value)))
    words = f"MAE {scale(errors.mae)}\nRMSE {scale(errors.rmse)}"
    axes.text(0.04, 0.96, words, transform=axes.transAxes, ha="left", va="top")


def _density() -> Colormap:
    """The middle of a perceptually uniform map: its ends would vanish on a dark or a light ground."""
    from cmcrameri import cm

    return LinearSegmentedColormap.from_list("density", cm.batlow(np.linspace(0.28, 0.92, 64)))
