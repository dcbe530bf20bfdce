"""The figures of a report, each a matplotlib Figure of one panel; :func:`to_svg` makes one fit for inlining in a page.

They are drawn in colours that the page replaces by its own (see :data:`THEMED`): one drawing serves light and dark.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from io import BytesIO
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib.figure
import matplotlib.style
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from goniometer.probe.result import Figure, ProbeResult, Residual, RuleResidual, Spectrum, SphereMap, StructureResult
from goniometer.report.wording import (
    ENERGY,
    ENERGY_PER_ATOM,
    FORCE,
    GRID_NAMES,
    SCALES,
    TORQUE,
    Quantity,
    Scale,
    at_most,
    number,
    shorten,
)

#: Okabe and Ito's palette, as far as it is used.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
#: Text and axes; grid lines; hatches of a floor; the ground behind a figure.
INK, GRID, FLOOR, GROUND = "#1b2026", "#dcdfe3", "#8b929b", "#fefefd"
#: What :func:`to_svg` writes for each colour: a property of the page's style sheet.
THEMED = {
    INK: "currentColor",
    GRID: "var(--grid)",
    FLOOR: "var(--floor)",
    GROUND: "var(--card)",
    BLUE: "var(--blue)",
    VERMILLION: "var(--vermillion)",
    GREEN: "var(--green)",
    PURPLE: "var(--purple)",
    ORANGE: "var(--orange)",
    SKY: "var(--sky)",
}

#: How each family of rules is drawn: colour and marker.
FAMILIES = {
    "identity": (INK, "o"),
    "polyhedral groups": (VERMILLION, "D"),
    "legendre": (BLUE, "s"),
    "lebedev": (GREEN, "^"),
    "gauss": (PURPLE, "v"),
    "random": (ORANGE, "P"),
}
_GROUPS = {"klein", "tetrahedral", "octahedral", "icosahedral"}

_NOUNS: dict[Quantity, str] = {"energy": "energy", "forces": "force", "stress": "stress"}

_STYLE = {
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.labelsize": 9.0,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "goniometer",
    "text.color": INK,
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}

_WIDTH = 4.2  # inches: about 400 px, so that a panel fills a phone and two stand side by side on a laptop
_NARROW = 3.6  # three side by side


def _styled(draw: Callable[..., matplotlib.figure.Figure]) -> Callable[..., matplotlib.figure.Figure]:
    """Draw, and lay out, in the style of this module whatever the user's matplotlibrc says."""

    @wraps(draw)
    def styled(*args: Any, **kwargs: Any) -> matplotlib.figure.Figure:
        with matplotlib.style.context(["default", _STYLE]):
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()
            return figure

    return styled


# --- errors against floors ------------------------------------------------------------------------------------------


@_styled
def errors_figure(result: ProbeResult, quantity: Quantity, limit: int = 16) -> matplotlib.figure.Figure:
    """Errors of each structure, and of all, over their floors; energies per atom. ``limit`` keeps the largest ones."""
    scale = ENERGY_PER_ATOM if quantity == "energy" else SCALES[quantity]
    rows = []
    for structure in result.structures:
        figure: Figure | None = getattr(structure, quantity)
        if figure is not None:
            atoms = structure.n_atoms if quantity == "energy" else 1
            mean = figure.as_given if figure.mae_as_given is None else figure.mae_as_given
            values = {"rms": figure.rms, "as given": abs(mean), "largest": figure.max, "floor": figure.floor}
            rows.append((structure.name, {key: value * scale.factor / atoms for key, value in values.items()}))
    rows = _loudest(rows, "rms", limit)
    pooled: Figure | None = getattr(result.pooled, quantity)
    if pooled is not None and len(rows) > 1:
        rms, floor, error = pooled.rms, pooled.floor, pooled.error
        if quantity == "energy":
            rms, floor, error = pooled.rms_per_atom or 0.0, pooled.floor_per_atom or 0.0, pooled.error_per_atom
        values = {"rms": rms * scale.factor, "floor": floor * scale.factor, "error": (error or 0.0) * scale.factor}
        rows.append(("all structures", values))
    return _lollipops(rows, f"{_NOUNS[quantity]} error [{scale.unit}]")


@_styled
def torque_figure(result: ProbeResult, limit: int = 16) -> matplotlib.figure.Figure:
    """The rotational gradient of each structure, measured and as the spectrum of its energy implies."""
    rows = []
    for structure in result.structures:
        torque = structure.torque
        values = {"as given": torque.norm, "from spectrum": torque.expected, "floor": torque.floor}
        if torque.rms is not None:
            values["rms"] = torque.rms
        rows.append((structure.name, {key: value * TORQUE.factor for key, value in values.items()}))
    rows = _loudest(rows, "as given", limit)
    return _lollipops(rows, f"rotational gradient dE/dω [{TORQUE.unit}]")


_Row = tuple[str, dict[str, float]]


def _loudest(rows: list[_Row], key: str, limit: int) -> list[_Row]:
    """The rows of the largest values, in the order given."""
    kept = sorted(range(len(rows)), key=lambda place: -rows[place][1][key])[:limit]
    return [rows[place] for place in sorted(kept)]


_MARKS: dict[str, dict[str, Any]] = {
    "largest": {"marker": "|", "color": INK, "markersize": 8, "markeredgewidth": 1.2},
    "as given": {
        "marker": "D",
        "color": VERMILLION,
        "markersize": 6,
        "markerfacecolor": "none",
        "markeredgewidth": 1.3,
        "zorder": 5,
    },
    "from spectrum": {
        "marker": "s",
        "color": GREEN,
        "markersize": 7,
        "markerfacecolor": "none",
        "markeredgewidth": 1.3,
    },
    "rms": {"marker": "o", "color": BLUE, "markersize": 6.5},
}


def _lollipops(rows: list[_Row], label: str) -> matplotlib.figure.Figure:
    """One line a row on a logarithmic axis: a hatched floor, the rms and its like, the name of the row above them."""
    figure = matplotlib.figure.Figure(figsize=(_WIDTH, 0.95 + 0.48 * len(rows)))
    axes = figure.add_subplot()
    low, high = _log_limits([value for _, values in rows for key, value in values.items() if key != "error"])
    for y, (name, values) in enumerate(reversed(rows)):
        if values["floor"] > low:
            axes.barh(
                y,
                values["floor"] - low,
                0.34,
                left=low,
                facecolor="none",
                edgecolor=FLOOR,
                hatch="/////",
                linewidth=0.6,
            )
        start, end = max(values["floor"], low), values.get("rms", values.get("as given", 0.0))
        if end > start:
            colour = BLUE if "rms" in values else VERMILLION
            axes.plot([start, end], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt", zorder=2)
        for key, mark in _MARKS.items():
            if values.get(key, 0.0) > 0.0:
                axes.plot(values[key], y, linestyle="none", **{"zorder": 4, **mark})
        if values.get("error", 0.0) > 0.0:
            spread = [[min(values["error"], 0.95 * values["rms"])], [values["error"]]]
            axes.errorbar(values["rms"], y, xerr=spread, color=BLUE, capsize=3.5, linewidth=1.2, zorder=4)
        axes.annotate(
            shorten(name), (0, y), (2, 11), axes.get_yaxis_transform(), "offset points", fontsize=8.5, va="center"
        )
    _log_axis(axes, "x", low, high)
    axes.set(ylim=(-0.5, len(rows) - 0.35), xlabel=label)
    used = {key for _, values in rows for key in values}
    marks = [
        Line2D([], [], linestyle="none", label=key, **mark) for key, mark in reversed(_MARKS.items()) if key in used
    ]
    _legend(figure, [*marks, _floor_patch()], 4)
    axes.yaxis.set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    return figure


# --- spectra --------------------------------------------------------------------------------------------------------


@_styled
def spectrum_figure(
    found: ProbeResult | StructureResult, quantity: Quantity, legend: bool = True
) -> matplotlib.figure.Figure:
    """√P_ℓ by parity over its floor, and the root of the variance that is not resolved; pooled, or of one structure."""
    whole = found.pooled if isinstance(found, ProbeResult) else found
    error: Figure = getattr(whole, quantity)
    scale, spectrum = SCALES[quantity], error.spectrum
    figure = matplotlib.figure.Figure(figsize=(_NARROW, 2.75))
    axes = figure.add_subplot()
    count = len(spectrum.plus)
    series = _spectrum_series(spectrum, scale)
    floors = np.sqrt(np.maximum(spectrum.floor, 0.0)) * scale.factor
    unresolved = math.sqrt(max(spectrum.unresolved, 0.0)) * scale.factor
    shown = [value for *_, values in series for value, floor in zip(values, floors, strict=True) if value > floor]
    low, high = _log_limits([*shown, *floors, unresolved])
    for ell, floor in enumerate(floors):
        if floor > low:
            axes.bar(
                ell, floor - low, 0.86, bottom=low, facecolor="none", edgecolor=FLOOR, hatch="/////", linewidth=0.6
            )
    for shift, colour, hatch, values in series:
        heights = np.maximum(np.asarray(values) - low, 0.0)
        width = 0.36 if len(series) > 1 else 0.6
        axes.bar(
            np.arange(count) + shift,
            heights,
            width,
            bottom=low,
            facecolor=colour,
            edgecolor=GROUND,
            hatch=hatch,
            linewidth=0,
        )
    beyond: dict[str, Any] = {"facecolor": "none", "edgecolor": INK, "linestyle": (0, (2, 1.5)), "linewidth": 0.9}
    axes.bar(count, max(unresolved - low, 0.0), 0.5, bottom=low, **beyond)
    if legend:
        names = ["even", "odd"] if len(series) > 1 else ["both parities"]
        bars = [
            Patch(facecolor=c, edgecolor=GROUND, hatch=h, linewidth=0, label=n)
            for n, (_, c, h, _) in zip(names, series, strict=True)
        ]
        _legend(figure, [*bars, _floor_patch(), Patch(label="unresolved", **beyond)], 4 if len(series) > 1 else 3)
    _log_axis(axes, "y", low, high)
    axes.set(xlim=(-0.6, count + 0.5), ylabel=f"√P  [{scale.unit}]", xlabel="angular momentum ℓ")
    axes.set_xticks(range(count + 1), [*map(str, range(count)), f"> {count - 1}"])
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    return figure


def _spectrum_series(spectrum: Spectrum, scale: Scale) -> list[tuple[float, str, str, list[float]]]:
    """Offset, colour, hatch and heights of each parity; ℓ = 0 of the even one is the mean, and not shown."""
    even = [0.0, *(math.sqrt(max(power, 0.0)) * scale.factor for power in spectrum.plus[1:])]
    if spectrum.minus is None:
        return [(0.0, SKY, "", even)]
    odd = [math.sqrt(max(power, 0.0)) * scale.factor for power in spectrum.minus]
    return [(-0.19, BLUE, "", even), (0.19, ORANGE, "\\\\\\\\", odd)]


# --- what a rule leaves ---------------------------------------------------------------------------------------------


@_styled
def residual_figure(result: ProbeResult, quantity: Quantity, wide: bool = False) -> matplotlib.figure.Figure:
    """What each rule is predicted to leave against its number of evaluations, with what was measured; pooled."""
    scale, pooled = SCALES[quantity], result.pooled
    rules = [] if pooled is None else [rule for rule in pooled.rules if getattr(rule, quantity) is not None]
    points = [_Point(rule, getattr(rule, quantity), scale.factor) for rule in rules]
    error: Figure = getattr(pooled, quantity)
    floor = error.floor * scale.factor
    low, high = _log_limits([value for point in points for value in (point.most, point.measured) if value is not None])
    if floor > 0.02 * low:
        low = min(low, 0.6 * floor)
    figure = matplotlib.figure.Figure(figsize=(2.0 * _WIDTH, 4.3) if wide else (_WIDTH, 3.7))
    axes = figure.add_subplot()
    for family, (colour, marker) in FAMILIES.items():
        for inversion in (False, True):
            members = [p for p in points if family_of(p.rule.name) == family and p.rule.inversion == inversion]
            _residual_series(axes, sorted(members, key=lambda point: point.rule.n), colour, marker)
    _mark_grids(axes, points)
    measured = [(point.rule.n, point.measured) for point in points if point.measured is not None]
    if measured:
        axes.plot(*zip(*measured, strict=True), linestyle="none", **_MEASURED)
    if floor > low:
        axes.axhspan(low, floor, facecolor="none", edgecolor=FLOOR, hatch="/////", linewidth=0.0, zorder=0)
        axes.axhline(floor, color=FLOOR, linewidth=0.8, zorder=0)
    else:
        note = f"floor: {number(floor, 2)} {scale.unit}, below"
        axes.annotate(note, (0, 0), (5, 5), "axes fraction", "offset points", fontsize=8, color=FLOOR)
    _log_axis(axes, "y", low, 1.7 * high)
    _log_axis(axes, "x", 0.7, 1.5 * max((rule.n for rule in rules), default=1))
    _legend(figure, [*_family_lines(rules), *_way_marks(bool(measured), floor > low)], 9 if wide else 3)
    axes.set(xlabel="evaluations", ylabel=f"{_NOUNS[quantity]} error left, rms [{scale.unit}]")
    axes.grid()
    axes.set_axisbelow(True)
    return figure


@dataclass(frozen=True)
class _Point:
    """A rule in the picture of residuals, in the unit of the picture."""

    rule: RuleResidual
    residual: Residual
    factor: float

    @property
    def most(self) -> float:
        return at_most(self.residual) * self.factor

    @property
    def measured(self) -> float | None:
        return None if self.residual.measured is None else self.residual.measured * self.factor

    @property
    def is_bound(self) -> bool:
        """Whether the unresolved tail makes most of it, so that the rule may leave far less."""
        return self.residual.tail > self.residual.over_turns


_MEASURED: dict[str, Any] = {"marker": "x", "markersize": 7, "markeredgewidth": 1.8, "color": INK, "zorder": 6}


def family_of(name: str) -> str:
    """The family that a rule's name belongs to, a key of :data:`FAMILIES`."""
    stem = name.split(":")[0].split("+")[0].strip()
    return "polyhedral groups" if stem in _GROUPS else stem if stem in FAMILIES else "identity"


def _residual_series(axes: Axes, points: list[_Point], colour: str, marker: str) -> None:
    """A family with (filled, solid) or without (open, dotted) inversion; an arrow hangs from what is an upper bound."""
    if not points:
        return
    solid = points[0].rule.inversion
    axes.plot(
        [point.rule.n for point in points],
        [point.most for point in points],
        color=colour,
        marker=marker,
        markersize=5.0,
        markerfacecolor=colour if solid else GROUND,
        markeredgewidth=1.1,
        linewidth=1.3 if solid else 1.0,
        linestyle="-" if solid else (0, (1, 1.6)),
    )
    arrow = {"arrowstyle": "<-", "color": colour, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 6}
    for point in points:
        if point.is_bound and point.most > 0.0:
            place = (point.rule.n, point.most)
            axes.annotate("", place, (0, -15), textcoords="offset points", arrowprops=arrow, zorder=1)


def _family_lines(rules: list[RuleResidual]) -> list[Line2D]:
    present = {family_of(rule.name) for rule in rules}
    return [
        Line2D([], [], color=colour, marker=marker, markersize=5.5, linewidth=1.4, label=family)
        for family, (colour, marker) in FAMILIES.items()
        if family in present
    ]


def _way_marks(measured: bool, floor: bool) -> list[Line2D | Patch]:
    """The keys of what is not a family."""
    dotted: dict[str, Any] = {
        "linestyle": (0, (1, 1.6)),
        "linewidth": 1.0,
        "color": INK,
        "marker": "o",
        "markersize": 5.5,
    }
    marks: list[Line2D | Patch] = [Line2D([], [], markerfacecolor=GROUND, label="no inversion", **dotted)]
    if measured:
        marks.append(Line2D([], [], linestyle="none", label="measured", **_MEASURED))
    return [*marks, _floor_patch()] if floor else marks


def _mark_grids(axes: Axes, points: list[_Point]) -> None:
    """Ring the paper's grids and give their names, where the falling curves leave room."""
    for point in points:
        name = GRID_NAMES.get((point.rule.name, point.rule.inversion))
        if name is not None:
            place = (point.rule.n, point.most)
            axes.plot(
                *place, marker="o", markersize=11, markerfacecolor="none", color=INK, markeredgewidth=0.9, zorder=4
            )
            shift, right, up = ((-6, -5), "right", "top") if point.rule.inversion else ((6, 5), "left", "bottom")
            text: dict[str, Any] = {"ha": right, "va": up, "fontsize": 8.5, "weight": "bold", "zorder": 7}
            axes.annotate(name, place, shift, textcoords="offset points", **text)


# --- over the sphere ------------------------------------------------------------------------------------------------


@_styled
def sphere_figure(structure: StructureResult) -> matplotlib.figure.Figure:
    """δE of a structure against the direction of a laboratory axis in its frame: a Mollweide map."""
    from cmcrameri import cm

    sphere = structure.sphere
    longitude, latitude, values = _on_the_whole_sphere(sphere)
    values = values * ENERGY.factor
    most = float(np.abs(values).max()) or 1.0
    figure = matplotlib.figure.Figure(figsize=(_WIDTH, 2.75))
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
    bar.formatter = ticker.FuncFormatter(lambda value, _: _plain(value))
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


@_styled
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
    figure = matplotlib.figure.Figure(figsize=(_WIDTH, 3.7))
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
    bar.formatter = ticker.FuncFormatter(lambda value, _: _plain(value))
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


# --- legends, axes and words ----------------------------------------------------------------------------------------


def _floor_patch() -> Patch:
    return Patch(facecolor="none", edgecolor=FLOOR, hatch="/////", linewidth=0.6, label="floor")


def _legend(figure: matplotlib.figure.Figure, handles: Sequence[Line2D | Patch], columns: int) -> None:
    """Above the axes, from the left."""
    figure.legend(
        handles=list(handles),
        loc="outside upper left",
        ncols=columns,
        columnspacing=1.4,
        handletextpad=0.5,
        borderaxespad=0.2,
    )


def _plain(value: float) -> str:
    """A tick label: as few digits as say it, a power of ten outside 0.001 to 10 000."""
    if value == 0.0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.6g}".replace("-", "−")
    return number(value, 1).removeprefix("1×")


def _log_limits(values: Sequence[float]) -> tuple[float, float]:
    """Limits of a logarithmic axis that hold every positive value, over at most nine decades and no less than 1.5."""
    positive = [value for value in values if value > 0.0 and math.isfinite(value)]
    if not positive:
        return 1e-3, 1.0
    high = 2.0 * max(positive)
    low = max(0.5 * min(positive), 1e-9 * high)
    return min(low, high / 30.0), high


def _log_axis(axes: Axes, which: Literal["x", "y"], low: float, high: float) -> None:
    """A logarithmic axis with plain numbers: 1, 2, 5 over few decades, powers of ten over more."""
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis = axes.xaxis if which == "x" else axes.yaxis
    decades = math.log10(high / low)
    steps = (1.0, 2.0, 5.0) if decades < 1.6 else (1.0, 3.0) if decades < 2.6 else (1.0,)
    axis.set_major_locator(ticker.LogLocator(10, steps, numticks=8 if decades > 2.6 else 20))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _plain(value)))
    axis.set_minor_locator(ticker.NullLocator())


# --- svg ------------------------------------------------------------------------------------------------------------

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


def to_svg(figure: matplotlib.figure.Figure, prefix: str, label: str) -> str:
    """The figure as an ``<svg>`` element to stand in a page among others: the page's colours and fonts, ids of its own.

    ``prefix`` starts every id, ``label`` is read to those who do not see it. The same figure gives the same text.
    """
    buffer = BytesIO()
    with matplotlib.style.context(["default", _STYLE]):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, dpi=120)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(buffer.getvalue())
    for child in list(root):
        if child.tag.endswith("metadata"):
            root.remove(child)
    for parent in root.iter():
        for child in list(parent):
            if child.tag.endswith("style"):
                parent.remove(child)
    for element in root.iter():
        _fit(element, prefix)
    root.attrib.pop("width", None)
    root.attrib.pop("height", None)
    root.set("style", f"max-width: {7.4 * figure.get_figwidth():.1f}rem")
    root.set("role", "img")
    root.set("aria-label", label)
    return ElementTree.tostring(root, encoding="unicode")


def _fit(element: ElementTree.Element, prefix: str) -> None:
    """Give an element's ids their prefix, and its colours and fonts to the page."""
    for key, value in element.attrib.items():
        if key == "id":
            value = f"{prefix}-{value}"
        elif key.endswith("href") and value.startswith("#"):
            value = f"#{prefix}-{value[1:]}"
        elif key in ("style", "clip-path", "fill", "stroke"):
            value = re.sub(r"url\(#", f"url(#{prefix}-", value)
            value = re.sub(r"#[0-9a-f]{6}", lambda found: THEMED.get(found.group(), found.group()), value)
            # "font: italic 700 9px 'DejaVu Sans'" keeps its size, weight and slant and takes the family of the page.
            value = re.sub(r"font: ([^;']*?)([\d.]+px)[^;]*", _font, value)
        element.set(key, value)


def _font(found: re.Match[str]) -> str:
    words = found.group(1).split()
    parts = [f"font-size: {found.group(2)}"]
    parts += [f"font-weight: {word}" for word in words if word.isdigit() or word == "bold"]
    parts += [f"font-style: {word}" for word in words if word in ("italic", "oblique")]
    return "; ".join(parts)
