"""Pictures of one structure: the energy error over the sphere of directions, and the atoms by their force error."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.figure
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes

from goniometer.plotting.style import INK, WIDTH, plain, styled
from goniometer.probing.result import SphereMap, StructureResult
from goniometer.units import ENERGY, FORCE

# --- over the sphere ------------------------------------------------------------------------------------------------


@styled
def sphere_figure(structure: StructureResult) -> matplotlib.figure.Figure:
    """δE of a structure against the direction of a laboratory axis in its frame: a Mollweide map."""
    from cmcrameri import cm

    sphere = structure.sphere
    longitude, latitude, values = _on_the_whole_sphere(sphere)
    values = values * ENERGY.factor
    most = float(np.abs(values).max()) or 1.0
    figure = matplotlib.figure.Figure(figsize=(WIDTH, 2.75))
    axes = figure.add_subplot(projection="mollweide")
    mesh = axes.pcolormesh(
        longitude, latitude, values, cmap=cm.vik, vmin=-most, vmax=most, shading="gouraud", rasterized=True
    )
    axes.grid(color="#30363d", alpha=0.35, linewidth=0.5)
    axes.set_xticks(np.radians([-120, -60, 0, 60, 120]), [""] * 5)
    axes.set_yticks(np.radians([-60, -30, 0, 30, 60]), ["", "−30°", "0°", "30°", ""])
    axes.tick_params(labelsize=8)
    label = {"facecolor": "#ffffff", "alpha": 0.55, "edgecolor": "none", "pad": 1.0}
    for degrees in (-120, -60, 0, 60, 120):
        text = f"{degrees}°".replace("-", "−")
        axes.text(
            math.radians(degrees),
            math.radians(-4),
            text,
            ha="center",
            va="top",
            fontsize=7.5,
            color="#20252b",
            bbox=label,
        )
    bar = figure.colorbar(mesh, ax=axes, orientation="horizontal", shrink=0.72, aspect=30, pad=0.04)
    bar.set_label(f"δE [{ENERGY.unit}] against the direction of the {sphere.axis} axis")
    bar.outline.set_visible(False)
    bar.locator = ticker.MaxNLocator(5, symmetric=True)
    bar.formatter = ticker.FuncFormatter(lambda value, _: plain(value))
    bar.update_ticks()
    return figure


def _on_the_whole_sphere(sphere: SphereMap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The map on a regular grid that closes at ±180° and reaches the poles: longitude, latitude in radians, eV."""
    longitude, latitude = np.linspace(-180.0, 180.0, 145), np.linspace(-90.0, 90.0, 73)
    given = np.asarray(sphere.values, dtype=np.float64)
    around = np.array([np.interp(longitude, sphere.longitude, row, period=360.0) for row in given])
    order = np.argsort(sphere.latitude)
    north = np.asarray(sphere.latitude, dtype=np.float64)[order]
    whole = np.array([np.interp(latitude, north, column) for column in around[order].T]).T
    return np.radians(longitude), np.radians(latitude), whole


# --- atoms ----------------------------------------------------------------------------------------------------------


@styled
def structure_figure(structure: StructureResult) -> matplotlib.figure.Figure:
    """The atoms of a structure, seen from the front and slightly above, coloured by the rms error of their force."""
    from ase.data import covalent_radii
    from cmcrameri import cm
    from matplotlib.collections import EllipseCollection

    view = _view()
    flat = np.asarray(structure.positions) @ view
    order = np.argsort(flat[:, 2])
    size = 2.1 * covalent_radii[np.asarray(structure.numbers)][order]
    errors = np.asarray(structure.force_rms_per_atom)[order] * FORCE.factor
    figure = matplotlib.figure.Figure(figsize=(WIDTH, 3.7))
    axes = figure.add_subplot()
    _draw_cell(axes, structure, view)
    atoms = EllipseCollection(
        size, size, np.zeros(len(size)), units="xy", offsets=flat[order, :2], offset_transform=axes.transData,
        array=errors, cmap=cm.batlow, edgecolor=INK, linewidth=0.4, zorder=2, rasterized=len(size) > 1500,
    )  # fmt: skip
    atoms.set_clim(0.0, float(errors.max()) or 1.0)
    axes.add_collection(atoms)
    reach = size.max() / 2.0
    frame = np.vstack([flat[:, :2] - reach, flat[:, :2] + reach, _corners(structure) @ view[:, :2]])
    middle = (frame.min(axis=0) + frame.max(axis=0)) / 2.0
    half = np.maximum((frame.max(axis=0) - frame.min(axis=0)) / 2.0, _LEAST_FRAME)
    axes.set(xlim=middle[0] + half[0] * np.array([-1, 1]), ylim=middle[1] + half[1] * np.array([-1, 1]))
    axes.set_aspect("equal")
    axes.set_axis_off()
    _draw_triad(axes, view)
    bar = figure.colorbar(atoms, ax=axes, orientation="horizontal", shrink=0.72, aspect=30, pad=0.02)
    bar.set_label(f"rms force error [{FORCE.unit}]")
    bar.outline.set_visible(False)
    bar.locator = ticker.MaxNLocator(5)
    bar.formatter = ticker.FuncFormatter(lambda value, _: plain(value))
    bar.update_ticks()
    return figure


_LEAST_FRAME = 1.6  # Å from the middle to the rim, lest a lone molecule look like a planet


def _view() -> np.ndarray:
    """Columns: the directions in the structure's frame that point right, up, and to the reader."""
    azimuth, elevation = math.radians(-68.0), math.radians(14.0)
    right = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
    ahead = np.array(
        [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth), math.sin(elevation)]
    )
    return np.stack([right, np.cross(ahead, right), ahead], axis=1)


def _corners(structure: StructureResult) -> np.ndarray:
    """The corners of the cell, (8, 3), or none for a structure that is not periodic."""
    if not any(structure.pbc):
        return np.empty((0, 3))
    steps = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64)
    return steps @ np.asarray(structure.cell)


def _draw_cell(axes: Axes, structure: StructureResult, view: np.ndarray) -> None:
    """The twelve edges of the cell: those that meet the farthest corner behind the atoms, the others before them."""
    corners = _corners(structure) @ view
    if len(corners) == 0:
        return
    farthest = int(np.argmin(corners[:, 2]))
    for one in range(8):
        for bit in (1, 2, 4):
            two = one ^ bit
            if one < two:
                behind = farthest in (one, two)
                x, y = corners[[one, two], 0], corners[[one, two], 1]
                axes.plot(x, y, color=INK, linewidth=0.7, alpha=0.45 if behind else 0.8, zorder=1 if behind else 3)


def _draw_triad(axes: Axes, view: np.ndarray) -> None:
    """Three short arrows in the corner that show where x, y and z point."""
    x, y = 16.0, 16.0
    arrow = {"arrowstyle": "-|>", "color": INK, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 7}
    free: dict[str, Any] = {"textcoords": "figure points", "annotation_clip": False}
    for name, (right, up) in zip("xyz", view[:, :2].tolist(), strict=True):
        if math.hypot(right, up) < 0.15:
            continue
        tip, beyond = (x + 20.0 * right, y + 20.0 * up), (x + 27.0 * right, y + 27.0 * up)
        for mark in (
            axes.annotate("", tip, (x, y), "figure points", arrowprops=arrow, **free),
            axes.annotate(name, tip, beyond, "figure points", ha="center", va="center", style="italic", **free),
        ):
            mark.set_in_layout(False)
