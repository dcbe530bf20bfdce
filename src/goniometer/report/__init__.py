"""What a probe found, in words, tables and figures: on the terminal and as one page. Computes nothing."""

from goniometer.report.page import check_writable, render_page, write_page
from goniometer.report.tables import print_probe
from goniometer.report.wording import verdict

__all__ = ["check_writable", "print_probe", "render_page", "verdict", "write_page"]
