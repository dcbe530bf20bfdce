"""Make the figures of the README and the docs: python scripts/make_figures.py [--only NAME]

    probe        docs/figures/probe.png       a molecule seen by the packaged model: map, spectrum, residuals
    prediction   docs/figures/prediction.png  predicted against measured residuals, molecule and box (minutes)
    grids        docs/figures/grids.png       symmetry errors by grid and the study's, from docs/results/pet-water.json

The numbers behind ``prediction`` are written beside it as JSON.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import goniometer
from goniometer.probing.residuals import Candidate
from goniometer.probing.result import ProbeResult
from goniometer.probing.spectrum import gram
from goniometer.rotations import Rule, rule
from goniometer.structures import read_structures
from goniometer.symmetrization import response

#: The packaged model with the largest symmetry error.
MODEL = "pet-water-unaugmented"
#: Of the figure of predicted and measured residuals. In float64: float32 would hide most of them in rounding.
PREDICTED = "pet-water"
FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"
RULES = (
    ("identity", True),
    ("gauss:1", False),
    ("tetrahedral", True),
    ("legendre:2", True),
    ("octahedral", True),
    ("lebedev:4", True),
    ("icosahedral", True),
    ("legendre:3", True),
)
COLOURS = {"energy": "#0072B2", "forces": "#D55E00"}


def probe_figure() -> None:
    """The README's picture: how the energy of a box depends on its orientation, which ℓ carry it, what mends it."""
    draw_probe(goniometer.probe(MODEL, ["box"]))


def draw_probe(result: ProbeResult, name: str = "probe") -> None:
    """The picture from a result: three figures of the report side by side."""
    from goniometer.plotting.probe import residual_figure, spectrum_figure, sphere_figure

    figures = (
        sphere_figure(result.structures[0]),
        spectrum_figure(result, "forces"),
        residual_figure(result, "forces"),
    )
    images = []
    for figure in figures:
        picture = io.BytesIO()
        figure.savefig(picture, dpi=200, facecolor="white", bbox_inches="tight", pad_inches=0.08)
        picture.seek(0)
        images.append(plt.imread(picture))
    widths = [image.shape[1] / image.shape[0] for image in images]
    sheet, panels = plt.subplots(1, len(images), figsize=(15, 15 / sum(widths)), width_ratios=widths)
    for axes, image in zip(panels, images, strict=True):
        axes.imshow(image)
        axes.axis("off")
    sheet.tight_layout(pad=0.3)
    sheet.savefig(FIGURES / f"{name}.png", dpi=110, facecolor="white")


def measured_residuals(potential: Any, atoms: Any, reference: dict[str, np.ndarray], over: Rule) -> dict[str, float]:
    """Residual of one rule, as it stands, against the mean over the probe's nodes."""
    seen = response(potential, atoms, over.matrices)
    means = {"energy": over.weights @ seen.energies, "forces": np.tensordot(over.weights, seen.forces, axes=1)}
    return {name: float(np.sqrt(np.mean((means[name] - reference[name]) ** 2))) for name in means}


def prediction_data(name: str, lmax: int, budget: int, largest: int) -> list[dict[str, Any]]:
    """Predicted and measured residuals of rules of up to ``largest`` elements.

    They are measured for the rule in its own orientation and over random two-sided rotations of it. Each rule is
    rotated as often as ``budget`` evaluations allow, and four times at least.
    """
    potential = goniometer.load(PREDICTED, dtype="float64")
    noise = goniometer.probe(potential, [name], lmax=1).structures[0]
    atoms = read_structures(name)[0].atoms
    nodes = rule(f"degree:{2 * lmax}", inversion=True).turned_at_random(7)
    seen = response(potential, atoms, nodes.matrices)
    values = {"energy": seen.energies, "forces": seen.forces}
    reference = {each: np.tensordot(nodes.weights, value, axes=1) for each, value in values.items()}
    products = {each: gram(value - reference[each]) for each, value in values.items()}
    from goniometer.probing.spectrum import variance_by_ell

    rows: list[dict[str, Any]] = []
    for which in RULES:
        chosen = rule(*which)
        if len(chosen) > largest:
            continue
        candidate = Candidate(chosen, nodes, lmax)
        stands = measured_residuals(potential, atoms, reference, chosen)
        turns = max(4, budget // len(chosen))
        turned = [
            measured_residuals(potential, atoms, reference, chosen.turned_at_random(seed)) for seed in range(turns)
        ]
        for each in values:
            plus, minus = variance_by_ell(nodes, products[each], lmax)
            variance = float(nodes.weights @ np.diag(products[each]))
            assert minus is not None
            unresolved = variance - plus[1:].sum() - minus.sum()
            predicted = candidate.predict(plus, minus, unresolved, products[each])
            squares = np.array([one[each] ** 2 for one in turned])
            rows.append(
                {
                    "model": PREDICTED,
                    "structure": name,
                    "rule": chosen.name,
                    "n": len(chosen),
                    "quantity": each,
                    "turns": turns,
                    "floor": getattr(noise, each).floor,
                    "predicted_over_turns": predicted.over_turns,
                    "tail": predicted.tail,
                    "predicted_as_it_stands": predicted.as_it_stands,
                    "measured_as_it_stands": stands[each],
                    "measured_over_turns": float(np.sqrt(squares.mean())),
                    "error": float(squares.std(ddof=1) / np.sqrt(turns) / (2 * np.sqrt(squares.mean()))),
                }
            )
            print({key: f"{value:.3g}" if isinstance(value, float) else value for key, value in rows[-1].items()})
    return rows


def prediction_figure() -> None:
    """Predicted against measured residuals on logarithmic axes."""
    rows = prediction_data("molecule", lmax=7, budget=3000, largest=150)
    rows += prediction_data("box", lmax=4, budget=150, largest=48)
    (FIGURES / "prediction.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    draw_prediction(rows)


def draw_prediction(rows: list[dict[str, Any]]) -> None:
    """The figure from its numbers."""
    figure, panels = plt.subplots(1, 2, figsize=(10.5, 4.8))
    for axes, name in zip(panels, ("molecule", "box"), strict=True):
        here = [row for row in rows if row["structure"] == name]
        keys = ("predicted_over_turns", "measured_over_turns", "floor")
        values = [row[key] for row in here for key in keys if row[key] > 0.0]
        limits = [0.4 * min(values) * 1e3, 3.0 * max(values) * 1e3]
        axes.plot(limits, limits, color="0.6", linewidth=1, zorder=0)
        for quantity, unit in (("energy", "meV"), ("forces", "meV/Å")):
            some = [row for row in here if row["quantity"] == quantity]
            colour = COLOURS[quantity]
            axes.axhline(1e3 * some[0]["floor"], color=colour, linestyle=":", linewidth=1)
            x = [1e3 * row["predicted_over_turns"] for row in some]
            y = [1e3 * row["measured_over_turns"] for row in some]
            bar = [1e3 * row["error"] for row in some]
            axes.errorbar(
                x, y, yerr=bar, fmt="o", color=colour, capsize=2, label=f"{quantity} ({unit}), mean over rotations"
            )
            x = [1e3 * row["predicted_as_it_stands"] for row in some]
            y = [1e3 * row["measured_as_it_stands"] for row in some]
            axes.plot(x, y, "x", color=colour, markersize=7, label=f"{quantity} ({unit}), own orientation")
        axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits, title=name)
        axes.set(xlabel="predicted from one probe, rms", ylabel="measured, rms")
        axes.grid(which="major", alpha=0.25, linewidth=0.5)
    panels[0].plot([], [], ":", color="0.4", linewidth=1, label="noise floor of one evaluation")
    panels[0].legend(frameon=False, fontsize=9)
    figure.tight_layout()
    figure.savefig(FIGURES / "prediction.png", dpi=150, facecolor="white")


def grids_figure() -> None:
    """Symmetry errors by grid of structures of the study, and its own numbers."""
    from goniometer.studies.experiments.results import GridComparison
    from goniometer.studies.plots.grids import grid_figure
    from goniometer.studies.report.paper import ENERGY_BY_GRID, FORCES_BY_GRID

    document = json.loads((FIGURES.parent / "results" / "pet-water.json").read_text(encoding="utf-8"))
    labels = {
        "test": ("test set", "9 boxes of the test set"),
        "liquid": ("liquid", "one frame of 512 H₂O"),
        "gas": ("molecule", "250 frames of the molecule"),
    }
    found = [
        GridComparison(
            where,
            label,
            document["sets"][name]["energy_meV"],
            document["sets"][name]["forces_meV_per_A"],
            ENERGY_BY_GRID[where],
            FORCES_BY_GRID[where],
        )
        for where, (name, label) in labels.items()
    ]
    grid_figure(found).savefig(FIGURES / "grids.png", dpi=200, facecolor="white")


def main() -> None:
    """Make what is asked for, or everything."""
    makers = {"probe": probe_figure, "prediction": prediction_figure, "grids": grids_figure}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=makers)
    only = parser.parse_args().only
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, make in makers.items():
        if only in (None, name):
            make()


if __name__ == "__main__":
    main()
