"""A figure as a part of a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import matplotlib.figure


@dataclass(frozen=True)
class Panel:
    """One figure of a page; one with a ``narrow`` drawing for phones has a row of its own."""

    id: str
    title: str
    svg: str
    caption: str
    narrow: str = ""


def panel(name: str, title: str, figure: matplotlib.figure.Figure, caption: str) -> Panel:
    """A figure for a page; ``name`` is an id that no other has there."""
    from goniometer.plotting.style import to_svg

    return Panel(name, title, to_svg(figure, name, f"{title}. {caption}"), caption)
