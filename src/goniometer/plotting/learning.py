"""How the model error and the symmetry error fall while networks are trained."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib.figure
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from goniometer.errors import InputError
from goniometer.plotting.style import COLOURS, GRID, INK, WIDTH, legend_above, log_axis, log_limits, styled

Curve = dict[str, list[float]]
Against = Literal["step", "seconds", "structures"]
_AXES: dict[Against, str] = {
    "step": "steps",
    "seconds": "time in steps [min]",
    "structures": "structures to learn from",
}
_QUANTITIES = (("force", "force error [meV/Å]"), ("energy", "energy error [meV/atom]"))


def read_curve(source: Path) -> Curve:
    """The columns of a learning curve, from the file of a run's folder or that file itself; NaN where a row has none.

    A row is a step of one training, or one training on so many ``structures``. Raises :class:`InputError` if there is
    none, or if it has neither.
    """
    path = source / "curve.csv" if source.is_dir() else source
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        curve = {name: [float(row[name] or "nan") for row in rows] for name in (rows[0] if rows else {})}
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read as a learning curve: {error}") from error
    if not {"step", "structures"} & curve.keys():
        raise InputError(f"{path} is no learning curve: it has no rows with a step")
    return curve


@styled
def learning_figure(curves: dict[str, Curve], against: Against = "step") -> matplotlib.figure.Figure:
    """Model error and symmetry error of forces and of energies, a colour for each training or series of trainings.

    Against steps or time the points of one training are joined: solid lines for model errors, dashed ones for symmetry
    errors. Against the number of structures each point is a training of its own, and no line joins them: filled markers
    for model errors, open ones for symmetry errors.

    Raises :class:`InputError` if no curve has the column to draw against.
    """
    if len(curves) > len(COLOURS):
        raise InputError(f"{len(curves)} curves are too many to tell apart by colour; give at most {len(COLOURS)}")
    drawn = {name: curve for name, curve in curves.items() if against in curve}
    if not drawn:
        raise InputError(f"no curve says '{against}': draw against step")
    figure = matplotlib.figure.Figure(figsize=(2 * WIDTH, 3.4))
    for axes, (quantity, label) in zip(figure.subplots(1, 2), _QUANTITIES, strict=True):
        _panel(axes, drawn, quantity, against)
        axes.set_ylabel(label)
    handles = [Line2D([], [], color=colour, label=name) for colour, name in zip(COLOURS, drawn, strict=False)]
    handles.append(Line2D([], [], color=INK, label="mean absolute error", **_style("-", against, INK)))
    handles.append(Line2D([], [], color=INK, label="symmetry error", **_style("--", against, INK)))
    legend_above(figure, handles, 4)
    return figure


def _panel(axes: Axes, curves: dict[str, Curve], quantity: str, against: Against) -> None:
    across: list[float] = []
    up: list[float] = []
    for colour, curve in zip(COLOURS, curves.values(), strict=False):
        for column, style in ((f"{quantity}_mae", "-"), (f"symmetry_{quantity}", "--")):
            x, y = _both(curve, against, column)
            look = _style(style, against, colour)
            if len(x) == 1:
                look.setdefault("marker", "o")
            axes.plot(x, y, color=colour, linewidth=1.3, markersize=3.0 if against != "structures" else 5.0, **look)
            across, up = [*across, *x], [*up, *y]
    axes.set_xlabel(_AXES[against])
    log_axis(axes, "x", *_hugged(across))
    log_axis(axes, "y", *log_limits(up))
    axes.grid(color=GRID, linewidth=0.6)


def _style(style: str, against: Against, colour: str) -> dict[str, Any]:
    """Lines of one training; markers of several, filled for what would be a solid line and open for a dashed one."""
    if against != "structures":
        return {"linestyle": style}
    return {"linestyle": "none", "marker": "o", "markerfacecolor": colour if style == "-" else "none"}


def _both(curve: Curve, against: Against, column: str) -> tuple[list[float], list[float]]:
    """The points where both are known and positive; seconds as minutes."""
    unit = 60.0 if against == "seconds" else 1.0
    pairs = zip(curve[against], curve.get(column, []), strict=False)
    points = [(x / unit, y) for x, y in pairs if x > 0.0 and y > 0.0 and not math.isnan(x + y)]
    return [x for x, _ in points], [y for _, y in points]


def _hugged(values: Sequence[float]) -> tuple[float, float]:
    return (0.9 * min(values), 1.1 * max(values)) if values else (1.0, 10.0)
