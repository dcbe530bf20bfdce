"""Pages from templates, with the style that all pages share."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any


def rendered(template: str, folder: str = "reporting", **content: Any) -> str:
    """A page from a template in ``folder`` of the package, which may use the templates of this one."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=ChoiceLoader([PackageLoader("goniometer", each) for each in (folder, "reporting")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = resources.files("goniometer.reporting").joinpath("page.css").read_text(encoding="utf-8")
    environment.filters["unbroken"] = _unbroken
    return environment.get_template(template).render(style=Markup(style), svg=Markup, **content)


def _unbroken(text: str) -> str:
    """The text with numbers that no line break separates from their signs and units."""
    return re.sub(r" (?=[±=≤]|%|meV|MPa)|(?<=[±=≤]) ", "\u00a0", text)
