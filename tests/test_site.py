"""The site: it builds without a warning, holds every page, figure and name, and its formulas and links are whole."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer

import goniometer
from goniometer.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [path.relative_to(DOCS).with_suffix("").as_posix() for path in sorted(DOCS.rglob("*.md"))]
PUBLIC = ("rotations", "potentials", "symmetrization", "structures", "testing", "comparison", "studies.workflow")


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(out / "doctrees")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(source), str(out / "html")], capture_output=True, text=True, check=False, env=environment
    )


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


class Targets(HTMLParser):
    """What a page links to, shows, and can be linked to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text(page))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.anchors.add(str(given["id"]))
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))
        if tag == "img" and given.get("src"):
            self.images.append(str(given["src"]))


def every_page_is_built_and_in_the_navigation(site: Path) -> None:
    links = Targets(site / "index.html").links
    for page in PAGES:
        assert (site / f"{page}.html").exists(), page
        assert page == "README" or f"{page}.html" in links, page
    assert text(site / "index.html") == text(site / "README.html")


def links_anchors_and_pictures_are_there(site: Path) -> None:
    found = {path: Targets(path) for path in site.rglob("*.html")}
    pictures = set()
    for page, targets in found.items():
        for image in targets.images:
            assert (page.parent / image).exists(), f"{page.name}: {image}"
            pictures.add(Path(image).name)
        for link in targets.links:
            if "://" in link or link.startswith("mailto:"):
                continue
            path, _, anchor = link.partition("#")
            other = (page.parent / path).resolve() if path else page
            assert other.exists(), f"{page.name}: {link}"
            assert not anchor or other not in found or anchor in found[other].anchors, f"{page.name}: {link}"
    assert {path.name for path in (DOCS / "figures").glob("*.png")} <= pictures


def home(value: object, name: str, package: str) -> str:
    return f"{getattr(value, '__module__', package)}.{getattr(value, '__qualname__', name)}"


def the_reference_holds_every_public_name(site: Path) -> None:
    anchors = set().union(*(Targets(page).anchors for page in (site / "reference").glob("*.html")))
    names = {
        home(getattr(goniometer, name), name, "goniometer") for name in goniometer.__all__ if name != "__version__"
    }
    for package in PUBLIC:
        module = importlib.import_module(f"goniometer.{package}")
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value):
                names.add(home(value, name, module.__name__))
    names = {name for name in names if name.startswith("goniometer.")}  # aliases of types are not
    assert len(names) > 40
    assert names <= anchors, sorted(names - anchors)


def the_reference_holds_every_command_and_option(site: Path) -> None:
    page = re.sub(r"<[^>]+>", "", text(site / "reference" / "command-line.html"))
    for name, command in typer.main.get_command(app).commands.items():
        assert f"goniometer {name}" in page
        for each in [command, *getattr(command, "commands", {}).values()]:
            for parameter in each.params:
                for option in (*parameter.opts, *parameter.secondary_opts):
                    assert parameter.param_type_name == "argument" or option in page, f"{name}: {option}"


def formulas_need_no_script(site: Path) -> None:
    shown = text(site / "theory.html")
    assert shown.count("<math") == len(re.findall(r"^```math$", text(DOCS / "theory.md"), flags=re.MULTILINE)) > 10
    for page in site.rglob("*.html"):
        assert "mathjax" not in text(page).lower(), page.name


def test_the_site_is_built_without_a_warning_and_is_whole(tmp_path: Path) -> None:
    # One test, as the build takes most of the time and workers share nothing.
    pytest.importorskip("sphinx")
    done = build(DOCS, tmp_path)
    assert done.returncode == 0, done.stderr
    for holds in (
        every_page_is_built_and_in_the_navigation,
        links_anchors_and_pictures_are_there,
        the_reference_holds_every_public_name,
        the_reference_holds_every_command_and_option,
        formulas_need_no_script,
    ):
        holds(tmp_path / "html")


#: What is wrong with a page, and what is said of it.
MISTAKES = {
    "See [the probe](prove.md).": "prove",
    "See [the floor](probe.md#the-flaw).": "the-flaw",
    "```math\n\\frac{1}{\\nosuchsymbol}\n```": "a formula cannot be typeset",
    "```{eval-rst}\n:func:`goniometer.prove`\n```": "goniometer.prove",
}


def test_a_site_with_mistakes_is_not_built_and_says_each(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    source = tmp_path / "docs"
    source.mkdir()
    for name in ("conf.py", "site_parts.py", "_static"):
        copy = shutil.copytree if (DOCS / name).is_dir() else shutil.copy
        copy(DOCS / name, source / name)
    (source / "README.md").write_text("# Contents\n\n## How-to\n\n| [The probe](probe.md) | |\n", encoding="utf-8")
    page = "\n\n".join(["# The probe", "## The floor", *MISTAKES])
    (source / "probe.md").write_text(f"{page}\n", encoding="utf-8")
    done = build(source, tmp_path / "out")
    assert done.returncode != 0
    for said in MISTAKES.values():
        assert said in done.stderr
