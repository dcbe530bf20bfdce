"""A figure as a file of its own: a picture on white, or a page that is light or dark as its reader's screen."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from goniometer.data.records import replace_text, replacing
from goniometer.errors import InputError
from goniometer.report.page import check_writable

if TYPE_CHECKING:
    import matplotlib.figure


def check_sheet(path: Path) -> None:
    """Raise InputError unless a figure can be written there; call it before the work whose outcome goes into it."""
    if path.suffix not in (".png", ".html"):
        raise InputError(f"cannot write {path}: a figure ends in .png, or in .html for one that is light or dark")
    check_writable(path)


def write_sheet(figure: matplotlib.figure.Figure, path: Path, title: str, caption: str) -> None:
    """Write a figure as ``.png`` or ``.html``; InputError if it cannot be written."""
    check_sheet(path)
    if path.suffix == ".png":
        with replacing(path) as partial:
            figure.savefig(partial, dpi=200, facecolor="white")
    else:
        replace_text(path, _page(figure, title, caption))


def _page(figure: matplotlib.figure.Figure, title: str, caption: str) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from goniometer.report.drawing import to_svg

    environment = Environment(loader=PackageLoader("goniometer", "report"), autoescape=True, undefined=StrictUndefined)
    style = resources.files("goniometer.report").joinpath("page.css").read_text(encoding="utf-8")
    return environment.get_template("figure.html.j2").render(
        title=title, caption=caption, style=Markup(style), svg=Markup(to_svg(figure, "sheet", f"{title}. {caption}"))
    )
