"""A figure as a file of its own: a picture on white, or a page that is light or dark as its reader's screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from goniometer.errors import InputError
from goniometer.extras import require
from goniometer.files.records import check_writable, replace_text, replacing
from goniometer.reporting.templates import rendered
from goniometer.units import plural

if TYPE_CHECKING:
    import matplotlib.figure

    from goniometer.training.evaluate import Evaluation


def check_figure_path(path: Path) -> None:
    """Raise InputError unless a figure can be written there; call it before the work whose outcome goes into it."""
    if path.suffix not in (".png", ".html"):
        raise InputError(f"cannot write {path}: a figure ends in .png, or in .html for one that is light or dark")
    require("report")
    check_writable(path)


def write_figure(figure: matplotlib.figure.Figure, path: Path, title: str, caption: str) -> None:
    """Write a figure as ``.png`` or ``.html``; InputError if it cannot be written."""
    check_figure_path(path)
    if path.suffix == ".png":
        with replacing(path) as partial:
            figure.savefig(partial, dpi=200, facecolor="white")
    else:
        replace_text(path, _page(figure, title, caption))


def _page(figure: matplotlib.figure.Figure, title: str, caption: str) -> str:
    from goniometer.plotting.style import to_svg

    drawing = to_svg(figure, "sheet", f"{title}. {caption}")
    return rendered("figure.html.j2", title=title, caption=caption, drawing=drawing)


def write_parity(evaluation: Evaluation, path: Path) -> None:
    """Write the parity plot of an evaluation as ``.png`` or ``.html``; InputError if it cannot be written."""
    from goniometer.plotting.parity import parity_figure

    caption = (
        f"{plural(len(evaluation.structures), 'structure')}; along the line the prediction is what is given. Energies "
        "are per atom, less what the composition explains of those given and less the mean error; forces by component."
    )
    write_figure(parity_figure(evaluation), path, f"{evaluation.model}: parity", caption)
