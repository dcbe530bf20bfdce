"""The figures of a report, each a matplotlib Figure of one panel: errors, spectra, residuals, and the pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from goniometer.plotting.structures import sphere_figure, structure_figure
from goniometer.plotting.style import (
    BLUE,
    FLOOR,
    GREEN,
    GROUND,
    INK,
    NARROW,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    WIDTH,
    floor_patch,
    front,
    legend_above,
    log_axis,
    log_limits,
    styled,
    to_svg,
)
from goniometer.probing.result import Figure, ProbeResult, Residual, RuleResidual, Spectrum, StructureResult
from goniometer.rotations.named import GRID_NAMES
from goniometer.units import ENERGY_PER_ATOM, SCALES, TORQUE, Quantity, Scale, number, shorten

__all__ = [
    "errors_figure",
    "family_of",
    "residual_figure",
    "spectrum_figure",
    "sphere_figure",
    "structure_figure",
    "to_svg",
    "torque_figure",
]

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

# --- errors against floors ------------------------------------------------------------------------------------------


@styled
def errors_figure(result: ProbeResult, quantity: Quantity, limit: int = 16) -> matplotlib.figure.Figure:
    """Errors of each structure, and of all, over their floors; energies per atom. ``limit`` keeps the largest ones."""
    scale = ENERGY_PER_ATOM if quantity == "energy" else SCALES[quantity]
    rows = []
    for structure in result.structures:
        figure: Figure | None = getattr(structure, quantity)
        if figure is not None:
            atoms = structure.n_atoms if quantity == "energy" else 1
            values = {"rms": figure.rms, "largest": figure.max, "floor": figure.floor}
            if figure.mae_as_given is not None:
                values["MAE as given"] = figure.mae_as_given
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


@styled
def torque_figure(result: ProbeResult, limit: int = 16) -> matplotlib.figure.Figure:
    """The rotational gradient of each structure, measured and as the spectrum of its energy implies."""
    rows = []
    for structure in result.structures:
        torque = structure.torque
        values = {"length": torque.norm, "from spectrum": torque.expected, "floor": torque.floor}
        if torque.rms is not None:
            values["rms"] = torque.rms
        rows.append((structure.name, {key: value * TORQUE.factor for key, value in values.items()}))
    rows = _loudest(rows, "length", limit)
    return _lollipops(rows, f"rotational gradient dE/dω [{TORQUE.unit}]")


_Row = tuple[str, dict[str, float]]


def _loudest(rows: list[_Row], key: str, limit: int) -> list[_Row]:
    """The rows of the largest values, in the order given."""
    kept = sorted(range(len(rows)), key=lambda place: -rows[place][1][key])[:limit]
    return [rows[place] for place in sorted(kept)]


_DIAMOND: dict[str, Any] = {
    "marker": "D",
    "color": VERMILLION,
    "markersize": 6,
    "markerfacecolor": "none",
    "markeredgewidth": 1.3,
    "zorder": 5,
}
_MARKS: dict[str, dict[str, Any]] = {
    "largest": {"marker": "|", "color": INK, "markersize": 8, "markeredgewidth": 1.2},
    "MAE as given": _DIAMOND,
    "length": _DIAMOND,
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
    figure = matplotlib.figure.Figure(figsize=(WIDTH, 0.95 + 0.48 * len(rows)))
    axes = figure.add_subplot()
    low, high = log_limits([value for _, values in rows for key, value in values.items() if key != "error"])
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
        start, end = max(values["floor"], low), values.get("rms", values.get("length", 0.0))
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
    log_axis(axes, "x", low, high)
    axes.set(ylim=(-0.5, len(rows) - 0.35), xlabel=label)
    used = {key for _, values in rows for key in values}
    marks = [
        Line2D([], [], linestyle="none", label=key, **mark) for key, mark in reversed(_MARKS.items()) if key in used
    ]
    legend_above(figure, [*marks, floor_patch()], 4)
    axes.yaxis.set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    return figure


# --- spectra --------------------------------------------------------------------------------------------------------


@styled
def spectrum_figure(
    found: ProbeResult | StructureResult, quantity: Quantity, legend: bool = True
) -> matplotlib.figure.Figure:
    """√P_ℓ by parity over its floor, and the root of the variance that is not resolved; pooled, or of one structure."""
    whole = found.pooled if isinstance(found, ProbeResult) else found
    error: Figure = getattr(whole, quantity)
    scale, spectrum = SCALES[quantity], error.spectrum
    figure = matplotlib.figure.Figure(figsize=(NARROW, 2.75))
    axes = figure.add_subplot()
    count = len(spectrum.plus)
    series = _spectrum_series(spectrum, scale)
    floors = np.sqrt(np.maximum(spectrum.floor, 0.0)) * scale.factor
    unresolved = math.sqrt(error.unresolved) * scale.factor
    shown = [value for *_, values in series for value, floor in zip(values, floors, strict=True) if value > floor]
    low, high = log_limits([*shown, *floors, unresolved])
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
    dashed: dict[str, Any] = {"facecolor": "none", "edgecolor": INK, "linestyle": (0, (2, 1.5)), "linewidth": 0.9}
    axes.bar(count, max(unresolved - low, 0.0), 0.5, bottom=low, **dashed)
    if legend:
        names = ["even", "odd"] if len(series) > 1 else ["both parities"]
        bars = [
            Patch(facecolor=c, edgecolor=GROUND, hatch=h, linewidth=0, label=n)
            for n, (_, c, h, _) in zip(names, series, strict=True)
        ]
        legend_above(figure, [*bars, floor_patch(), Patch(label="unresolved", **dashed)], 4 if len(series) > 1 else 3)
    log_axis(axes, "y", low, high)
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


@styled
def residual_figure(result: ProbeResult, quantity: Quantity, wide: bool = False) -> matplotlib.figure.Figure:
    """What each rule is predicted to leave against its number of evaluations, with what was measured; pooled."""
    scale, pooled = SCALES[quantity], result.pooled
    rules = [] if pooled is None else [rule for rule in pooled.rules if getattr(rule, quantity) is not None]
    points = [_Point(rule, getattr(rule, quantity), scale.factor) for rule in rules]
    error: Figure = getattr(pooled, quantity)
    floor = error.floor * scale.factor
    low, high = log_limits([value for point in points for value in (point.most, point.measured) if value is not None])
    if floor > 0.02 * low:
        low = min(low, 0.6 * floor)
    figure = matplotlib.figure.Figure(figsize=(2.0 * WIDTH, 4.3) if wide else (WIDTH, 3.7))
    axes = figure.add_subplot()
    for family, (colour, marker) in FAMILIES.items():
        for inversion in (False, True):
            members = [p for p in points if family_of(p.rule.name) == family and p.rule.inversion == inversion]
            _residual_series(axes, sorted(members, key=lambda point: point.rule.n), colour, marker)
    _cheapest(axes, points)
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
    log_axis(axes, "y", low, 1.7 * high)
    log_axis(axes, "x", 0.7, 1.5 * max((rule.n for rule in rules), default=1))
    legend_above(figure, [*_family_lines(rules), *_way_marks(bool(measured), floor > low)], 5 if wide else 3)
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
        return self.residual.most * self.factor

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
    """A family with (filled, solid) or without (open, dotted) inversion."""
    if not points:
        return
    solid = points[0].rule.inversion
    axes.plot(
        [point.rule.n for point in points],
        [point.most for point in points],
        color=colour,
        marker=marker,
        markersize=4.0,
        markerfacecolor=colour if solid else GROUND,
        markeredgewidth=0.9,
        linewidth=0.8,
        linestyle="-" if solid else (0, (1, 1.6)),
    )


def _cheapest(axes: Axes, points: list[_Point]) -> None:
    """A line through the rules than which none is cheaper and leaves as little; an arrow hangs from an upper bound."""
    named = {str(place): point for place, point in enumerate(points)}
    chosen = front({name: (float(point.rule.n), point.most) for name, point in named.items()})
    across, up = [named[name].rule.n for name in chosen], [named[name].most for name in chosen]
    axes.step(across, up, where="post", color=INK, alpha=0.35, linewidth=3.0, zorder=1, solid_capstyle="round")
    arrow = {"arrowstyle": "<-", "color": INK, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 6}
    for name in chosen:
        if named[name].is_bound and named[name].most > 0.0:
            place = (named[name].rule.n, named[name].most)
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
    marks: list[Line2D | Patch] = [
        Line2D([], [], markerfacecolor=GROUND, label="no inversion", **dotted),
        Line2D([], [], color=INK, alpha=0.35, linewidth=3.0, label="cheapest"),
    ]
    if measured:
        marks.append(Line2D([], [], linestyle="none", label="measured", **_MEASURED))
    return [*marks, floor_patch()] if floor else marks


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
