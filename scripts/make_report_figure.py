"""Photograph the top of the laptop study's report: python scripts/make_report_figure.py (needs a Chromium on the PATH)

docs/figures/report.png   from docs/_static/water-laptop.html
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

DOCS = Path(__file__).resolve().parent.parent / "docs"
SIZE = {"width": 1180, "height": 1380}


def main() -> None:
    """Write the picture."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("make_report_figure: there is no Chromium on the PATH")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = running.new_page(viewport=SIZE)
        page.goto((DOCS / "_static" / "water-laptop.html").as_uri())
        page.screenshot(path=DOCS / "figures" / "report.png")
        running.close()


if __name__ == "__main__":
    main()
