"""Terminal tables and self-contained HTML pages of results. Nothing is computed here."""

from goniometer.reporting.page import render_page, write_page
from goniometer.reporting.tables import print_probe
from goniometer.reporting.wording import verdict

__all__ = ["print_probe", "render_page", "verdict", "write_page"]
