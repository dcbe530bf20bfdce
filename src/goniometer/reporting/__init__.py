"""What a probe found, in words, tables and figures: on the terminal and as one page. Computes nothing."""

from goniometer.reporting.page import render_page, write_page
from goniometer.reporting.tables import print_probe
from goniometer.reporting.wording import verdict

__all__ = ["print_probe", "render_page", "verdict", "write_page"]
