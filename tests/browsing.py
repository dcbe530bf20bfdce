"""A page as a browser sees it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
MEASURE = """() => [...document.querySelectorAll("figure")].map(figure => {
  const sizes = [...figure.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect());
  return [figure.id, Math.max(...sizes.map(s => s.width)), Math.max(...sizes.map(s => s.height))];
})"""


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page."""

    complaints: list[str]
    requests: list[str]
    figures: dict[str, tuple[float, float]]
    background: str
    overflow: float


@contextmanager
def running() -> Iterator[object]:
    """A browser; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def look(browser: object, path: Path, scheme: str = "light", width: int = 1280, press: bool = False) -> Seen:
    complaints: list[str] = []
    requests: list[str] = []
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[attr-defined]
    tab.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(path.as_uri())
    if press:
        tab.click("#theme")
    tab.wait_for_timeout(100)
    figures = {name: (wide, high) for name, wide, high in tab.evaluate(MEASURE)}
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    overflow = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    tab.close()
    elsewhere = [url for url in requests if url != path.as_uri() and not url.startswith("data:")]
    return Seen(complaints, elsewhere, figures, background, overflow)
