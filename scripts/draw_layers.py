"""Draw the packages as layers, from pyproject.toml and the docstrings: python scripts/draw_layers.py

The order is that of the contract which import-linter tests: a package imports only what stands below it.
"""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from goniometer.plotting.style import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, STYLE, VERMILLION

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "goniometer"
PICTURE = ROOT / "docs" / "figures" / "layers.png"
#: What packages are there for, and the colour of each group.
GROUPS = {
    "command line and study": (VERMILLION, ("cli", "studies")),
    "pictures, pages and tests of models": (ORANGE, ("reporting", "plotting", "testing")),
    "ensembles": (GREEN, ("sampling", "comparison", "observables")),
    "simulation": (SKY, ("dynamics", "interfaces", "strategies", "training")),
    "the instrument": (BLUE, ("planning", "probing", "symmetrization", "potentials")),
    "foundations": (
        PURPLE,
        ("trajectories", "structures", "rotations", "files", "progress", "interruption", "units", "extras", "errors"),
    ),
}


def layers() -> list[str]:
    """The names of the layers, from the top to the bottom."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [each for each in project["tool"]["importlinter"]["contracts"] if each["type"] == "layers"]
    return [name.removeprefix("goniometer.") for name in contract["layers"]]


def described(name: str) -> tuple[str, int]:
    """The first line of a package's or module's docstring, and its number of modules."""
    folder = PACKAGE / name
    path = folder / "__init__.py" if folder.is_dir() else PACKAGE / f"{name}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0], len([*folder.rglob("*.py")]) if folder.is_dir() else 1


def main() -> None:
    """Draw one row for each layer."""
    names = layers()
    colours = {name: colour for colour, members in GROUPS.values() for name in members}
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(figsize=(9.6, 0.34 * len(names) + 0.5))
        for place, name in enumerate(reversed(names)):
            summary, modules = described(name)
            axes.barh(place, 1.85, height=0.86, color=colours.get(name, INK), alpha=0.3, linewidth=0)
            axes.text(0.06, place, name, va="center", weight="bold")
            axes.text(1.75, place, str(modules), va="center", ha="right")
            axes.text(1.97, place, summary, va="center", fontsize=8.0)
        for group, (colour, members) in GROUPS.items():
            places = [len(names) - 1 - names.index(name) for name in members if name in names]
            axes.plot([-0.08] * 2, [min(places) - 0.4, max(places) + 0.4], color=colour, linewidth=2.5)
            middle = 0.5 * (min(places) + max(places))
            axes.text(-0.16, middle, group.replace(" and ", "\nand "), va="center", ha="right", fontsize=8.0)
        axes.text(0.06, len(names) - 0.1, "package", va="center", fontsize=8.0)
        axes.text(1.75, len(names) - 0.1, "modules", va="center", ha="right", fontsize=8.0)
        axes.set(xlim=(-1.7, 8.1), ylim=(-0.6, len(names) + 0.3))
        axes.axis("off")
        figure.savefig(PICTURE, dpi=160, facecolor="white")


if __name__ == "__main__":
    main()
