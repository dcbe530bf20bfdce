"""Measure the heat of multiple time stepping, and predict it: python scripts/measure_heat.py [--folder runs] [--draw]

One water molecule at 300 K by a Langevin thermostat of 100 fs, averaged over inversion. For each outer time step, the
rise of the conserved quantity in stretches of 0.1 ps, the relaxation time of the thermostat, gives the heat and, by the
scatter of the stretches, its error. An unsymmetrized run with frames 1 fs apart predicts it by linear response
(`goniometer.observables.heat`), for each of two packaged networks. The numbers are written to
docs/figures/heat-prediction.json and drawn beside it; ``--draw`` draws them again. Runs are kept in the folder, and
resume.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from goniometer.dynamics.description import Run, read_runs
from goniometer.dynamics.run import run, trajectory_of
from goniometer.observables.gas import conserved
from goniometer.observables.heat import mts_heat
from goniometer.trajectories.h5md import Trajectory

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"
RESULT = FIGURES / "heat-prediction.json"
#: What is averaged over, and the inner time step in fs.
RULE, INNER = "inversion", 0.5
SETTINGS = {"thermostat": {"kind": "langevin", "time": 100.0}, "timestep": INNER, "potential.dtype": "float32"}
#: By network the outer time steps in fs whose heat is measured: seeds, replicas of each seed, and length in ps.
NETWORKS: dict[str, dict[float, tuple[int, int, float]]] = {
    "pet-water-unaugmented": {5.0: (2, 24, 1.0), 10.0: (1, 48, 0.6)},
    "pet-water": {},
}
#: Replicas of the unsymmetrized runs, and their length in ps; frames are SPACING fs apart.
UNSYMMETRIZED = {"pet-water-unaugmented": 32, "pet-water": 64}
LENGTH, SPACING = 1.4, 1.0
#: Outer time steps in fs whose heat is predicted.
PREDICTED = tuple(float(each) for each in range(3, 21))
#: In ps, what is left out at the start of unsymmetrized and of measured runs.
SETTLED, START = 0.4, 0.3
COLOURS = {"pet-water-unaugmented": "#D55E00", "pet-water": "#0072B2"}


def trajectory(folder: Path, only: str, changes: dict[str, Any]) -> Trajectory:
    """Of a packaged run with these changes."""
    (description,) = read_runs("gas-nvt", size="smoke", only=[only], changes={**SETTINGS, **changes}).values()
    assert isinstance(description, Run)
    return trajectory_of(description, run(description, folder).folder)


def predicted(folder: Path, network: str) -> dict[str, Any]:
    """By linear response, meV/ps for each molecule; kept in the folder."""
    kept = folder / f"predicted-{network}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    changes = {"potential.model": network, "replicas": UNSYMMETRIZED[network]}
    changes |= {"frames_every": SPACING, "length": LENGTH}
    found = mts_heat(trajectory(folder, "raw", changes), PREDICTED, "i", discard=SETTLED / LENGTH)
    row = {
        "outer_fs": list(PREDICTED),
        "heat_meV_per_ps": (1e3 * found.values).tolist(),
        "error": (1e3 * found.errors).tolist(),
        **{key: found.about[key] for key in ("replicas", "window_fs", "last_term_share", "half_window_ratio")},
    }
    kept.write_text(json.dumps(row), encoding="utf-8")
    return row


def measured(folder: Path, network: str, outer: float, seeds: int, replicas: int, length: float) -> dict[str, Any]:
    """The rise of the conserved quantity in meV/ps for each molecule, and its error from stretches of some 0.1 ps."""
    every = outer * round(0.1e3 / outer)
    first, count = math.ceil(1e3 * START / every), math.ceil(1e3 * length / every)
    changes = {
        "potential.model": network,
        "replicas": replicas,
        "strategy": {"kind": "mts", "rule": "identity", "inversion": True, "ratio": round(outer / INNER)},
        "frames_every": every,
        "length": 1e-3 * every * (first + count),
        "checks.energy": None,
        "checks.temperature": None,
    }
    heats = []
    for seed in range(seeds):
        found = conserved(trajectory(folder, "2i", {**changes, "seed": seed}))
        times, energies = found.axes["time"].values, found.values
        place = int(np.argmin(np.abs(times - first * every)))
        heats += (1e6 * np.diff(energies[place:]) / np.diff(times[place:])).tolist()
    error = float(np.std(heats, ddof=1) / math.sqrt(len(heats)))
    row = {"outer_fs": outer, "heat_meV_per_ps": float(np.mean(heats)), "error": error, "stretches": len(heats)}
    row |= {"seeds": seeds, "replicas": replicas, "length_ps": 1e-3 * every * count}
    print(network, row, flush=True)
    return row


def measure(folder: Path) -> dict[str, Any]:
    """Everything, by network; written after each number."""
    found: dict[str, Any] = {"about": {"rule": RULE, "inner_fs": INNER, "temperature_K": 300.0}}
    for network, steps in NETWORKS.items():
        found[network] = {"predicted": predicted(folder, network), "measured": []}
        for outer, each in steps.items():
            found[network]["measured"].append(measured(folder, network, outer, *each))
            RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def draw(found: dict[str, Any]) -> None:
    """Prediction with its standard error as a band, measurement with its own as bars."""
    figure, axes = plt.subplots(figsize=(6.4, 4.2))
    for network, colour in COLOURS.items():
        if network not in found:
            continue
        line, points = found[network]["predicted"], found[network]["measured"]
        steps, heat, error = (np.array(line[key]) for key in ("outer_fs", "heat_meV_per_ps", "error"))
        axes.plot(steps, heat, ".-", color=colour, linewidth=1, markersize=3, label=f"{network}, predicted")
        axes.fill_between(steps, heat - error, heat + error, color=colour, alpha=0.25, linewidth=0)
        x, y, bars = ([each[key] for each in points] for key in ("outer_fs", "heat_meV_per_ps", "error"))
        if points:
            axes.errorbar(x, y, bars, fmt="s", color=colour, markersize=5, capsize=3, label=f"{network}, measured")
    axes.set(yscale="log", xlabel="outer time step [fs]", ylabel="heat of a molecule [meV/ps]")
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(FIGURES / "heat-prediction.png", dpi=150, facecolor="white")


def main() -> None:
    """Measure and draw, or draw alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    parser.add_argument("--draw", action="store_true")
    chosen = parser.parse_args()
    draw(json.loads(RESULT.read_text(encoding="utf-8")) if chosen.draw else measure(chosen.folder))


if __name__ == "__main__":
    main()
