"""What all figures share: colours, style, axes, legends, and how a figure becomes part of a page.

Figures are drawn in colours that the page replaces by its own (see :data:`THEMED`): one drawing serves light and dark.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from io import BytesIO
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib.figure
import matplotlib.style
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from goniometer.units import number

#: Okabe and Ito's palette, as far as it is used.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
#: What tells curves apart, in this order.
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
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

STYLE = {
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

WIDTH = 4.2  # inches: about 400 px, so that a panel fills a phone and two stand side by side on a laptop
NARROW = 3.6  # three side by side


def styled(draw: Callable[..., matplotlib.figure.Figure]) -> Callable[..., matplotlib.figure.Figure]:
    """Draw, and lay out, in the style of this module whatever the user's matplotlibrc says."""

    @wraps(draw)
    def styled(*args: Any, **kwargs: Any) -> matplotlib.figure.Figure:
        with matplotlib.style.context(["default", STYLE]):
            figure = draw(*args, **kwargs)
            figure.draw_without_rendering()
            return figure

    return styled


# --- legends and axes --------------------------------------------------------------------------------------------


def floor_patch() -> Patch:
    return Patch(facecolor="none", edgecolor=FLOOR, hatch="/////", linewidth=0.6, label="floor")


def legend_above(figure: matplotlib.figure.FigureBase, handles: Sequence[Line2D | Patch], columns: int) -> None:
    """Above the axes, from the left."""
    figure.legend(
        handles=list(handles),
        loc="outside upper left",
        ncols=columns,
        columnspacing=1.4,
        handletextpad=0.5,
        borderaxespad=0.2,
    )


def plain(value: float) -> str:
    """A tick label: as few digits as say it, a power of ten outside 0.001 to 10 000."""
    if value == 0.0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.6g}".replace("-", "−")
    return number(value, 1).removeprefix("1×")


def log_limits(values: Sequence[float]) -> tuple[float, float]:
    """Limits of a logarithmic axis that hold every positive value, over at most nine decades and no less than 1.5."""
    positive = [value for value in values if value > 0.0 and math.isfinite(value)]
    if not positive:
        return 1e-3, 1.0
    high = 2.0 * max(positive)
    low = max(0.5 * min(positive), 1e-9 * high)
    return min(low, high / 30.0), high


def log_axis(axes: Axes, which: Literal["x", "y"], low: float, high: float) -> None:
    """A logarithmic axis with plain numbers: 1, 2, 5 over few decades, powers of ten over more."""
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis = axes.xaxis if which == "x" else axes.yaxis
    decades = math.log10(high / low)
    steps = (1.0, 2.0, 5.0) if decades < 1.6 else (1.0, 3.0) if decades < 2.6 else (1.0,)
    axis.set_major_locator(ticker.LogLocator(10, steps, numticks=8 if decades > 2.6 else 20))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: plain(value)))
    axis.set_minor_locator(ticker.NullLocator())


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of points than which no other is as low or lower in both coordinates, from the left."""
    return sorted(
        (
            name
            for name, (x, y) in points.items()
            if not any(one <= x and other <= y and (one, other) != (x, y) for one, other in points.values())
        ),
        key=lambda name: points[name],
    )


# --- svg ------------------------------------------------------------------------------------------------------------

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


def to_svg(figure: matplotlib.figure.Figure, prefix: str, label: str) -> str:
    """The figure as an ``<svg>`` element to stand in a page among others: the page's colours and fonts, ids of its own.

    ``prefix`` starts every id, ``label`` is read to those who do not see it. The same figure gives the same text.
    """
    buffer = BytesIO()
    with matplotlib.style.context(["default", STYLE]):
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
