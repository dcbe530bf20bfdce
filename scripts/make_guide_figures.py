"""Make the figures of the tutorial and the other guides: python scripts/make_guide_figures.py [--only NAME]

turn             docs/figures/turn.png             energy of a molecule against a turn, raw and averaged
tutorial-report  docs/figures/tutorial-report.png  the three figures of the tutorial's report that matter most
tutorial-run     docs/figures/tutorial-run.png     angular momentum of the tutorial's runs
materials        docs/figures/materials.png        a molecule, a slab and a crystal, and their energy against a turn
rules            docs/figures/rules.png            what rules leave of each angular momentum
remedies         docs/figures/remedies.png         what averages leave of two models against what they cost (minutes)
reconstruction   docs/figures/reconstruction.png   a response as reconstructed from the nodes of a probe
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.visualize.plot import plot_atoms
from matplotlib import ticker
from scipy.spatial.transform import Rotation

import goniometer
from goniometer.dynamics.description import read_runs
from goniometer.dynamics.run import run
from goniometer.observables.gas import angular_momentum
from goniometer.plotting.style import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, STYLE, VERMILLION, plain
from goniometer.potentials import Potential
from goniometer.probing.result import Residual, RuleResidual
from goniometer.probing.spectrum import averaging_coefficients
from goniometer.rotations import Rule
from goniometer.symmetrization import response
from goniometer.trajectories.h5md import read_trajectory
from make_figures import FIGURES, MODEL, draw_probe

ANGLES = np.linspace(0.0, 360.0, 121)


def turns(axis: Iterable[float] = (0.0, 0.0, 1.0)) -> np.ndarray:
    """Rotations about a laboratory axis by :data:`ANGLES`."""
    return Rotation.from_rotvec(np.radians(ANGLES)[:, None] * np.asarray(list(axis))).as_matrix()


def energies(potential: Potential, atoms: Atoms, matrices: np.ndarray) -> np.ndarray:
    """In meV, of turned copies."""
    return 1e3 * response(potential, atoms, matrices).energies


def save(figure: plt.Figure, name: str) -> None:
    """At the size of the other figures."""
    figure.savefig(FIGURES / f"{name}.png", dpi=150, facecolor="white")
    plt.close(figure)


def degrees(axes: plt.Axes, label: str = "turned about the z axis by") -> None:
    """An axis of angles."""
    axes.set(xlim=(0.0, 360.0), xlabel=f"{label} [degrees]")
    axes.xaxis.set_major_locator(ticker.MultipleLocator(90))
    axes.grid()


def turn_figure() -> None:
    """What a broken symmetry is: the energy of one molecule as it is turned."""
    (water,) = goniometer.read_structures("molecule")
    raw = goniometer.load(MODEL)
    averaged = goniometer.symmetrize(raw, "gauss:2", inversion=False)
    over = turns()
    mean = energies(goniometer.symmetrize(raw, "gauss:8"), water.atoms, over[:1])[0]
    figure, axes = plt.subplots(figsize=(6.2, 3.1))
    axes.axhline(0.0, color=INK, linewidth=0.8)
    axes.plot(ANGLES, energies(raw, water.atoms, over) - mean, color=VERMILLION, label="the model as it is")
    axes.plot(ANGLES, energies(averaged, water.atoms, over) - mean, color=BLUE, label="averaged over 11 rotations")
    degrees(axes)
    axes.set_ylabel("E − ⟨E⟩ [meV]")
    figure.legend(loc="outside upper left", ncols=2)
    save(figure, "turn")


def tutorial_report_figure() -> None:
    """Map, spectrum and residuals of the tutorial's probe."""
    draw_probe(goniometer.probe(MODEL, "molecule"), "tutorial-report")


def tutorial_run_figure() -> None:
    """How far the angular momentum of each replica comes from where it began."""
    descriptions = read_runs(
        "gas-nve", size="smoke", only=["raw", "2i"], changes={"length": 1.0, "potential.model": MODEL}
    )
    figure, axes = plt.subplots(figsize=(6.2, 3.1))
    with tempfile.TemporaryDirectory() as folder:
        for (name, description), colour in zip(descriptions.items(), (VERMILLION, BLUE), strict=True):
            found = angular_momentum(read_trajectory(run(description, folder, name=name).folder))
            vectors = found.values[..., :3]
            moved = np.linalg.norm(vectors - vectors[0], axis=-1)
            for replica, curve in enumerate(moved.T):
                label = {"raw": "the model as it is", "2i": "averaged over the grid 2i"}[name.rpartition("-")[2]]
                times = 1e-3 * found.axes["time"].values[1:]
                axes.plot(times, curve[1:], color=colour, linewidth=1.0, label=None if replica else label)
    axes.set(yscale="log", xlabel="time [ps]", ylabel="|L(t) − L(0)| [eV fs]", xlim=(0.0, 1.0))
    powers = range(-6, 1)
    axes.set_yticks([10.0**power for power in powers], [plain(10.0**power) for power in powers])
    axes.grid()
    figure.legend(loc="outside upper left", ncols=2)
    save(figure, "tutorial-run")


def ice_slab() -> Atoms:
    """The packaged ice, cut open along z."""
    (ice,) = goniometer.read_structures("ice")
    slab = ice.atoms.copy()
    slab.center(vacuum=8.0, axis=2)
    slab.pbc = (True, True, False)
    return slab


def materials_figure() -> None:
    """Three kinds of structure, and the energy of each as positions and cell are turned together."""
    model = goniometer.load(MODEL)
    molecule, ice = (goniometer.read_structures(name)[0].atoms for name in ("molecule", "ice"))
    kinds = {"molecule": molecule, "slab": ice_slab(), "crystal": ice}
    figure, panels = plt.subplots(2, 3, figsize=(8.4, 5.0), height_ratios=(1.25, 1.0))
    for (name, atoms), (above, below) in zip(kinds.items(), panels.T, strict=True):
        plot_atoms(atoms, above, rotation="-90x", show_unit_cell=2 if atoms.pbc.any() else 0)
        if not atoms.pbc.any():
            above.set(xlim=np.add(above.get_xlim(), (-1.5, 1.5)), ylim=np.add(above.get_ylim(), (-1.5, 1.5)))
        above.set_axis_off()
        above.set_title({"molecule": "molecule: pbc F F F", "slab": "slab: pbc T T F"}.get(name, "crystal: pbc T T T"))
        energy = energies(model, atoms, turns())
        below.plot(ANGLES, (energy - energy.mean()) / len(atoms), color=VERMILLION)
        degrees(below, "turn about z")
    panels[1, 0].set_ylabel("E − mean [meV/atom]")
    save(figure, "materials")


def rules_figure() -> None:
    """ρ_ℓ of some rules: the share of the variance at ℓ that they leave."""
    shown = {
        "identity": (INK, "o"),
        "tetrahedral": (ORANGE, "^"),
        "octahedral": (VERMILLION, "s"),
        "icosahedral": (GREEN, "D"),
        "legendre:2": (BLUE, "v"),
        "gauss:9": (PURPLE, "P"),
    }
    figure, axes = plt.subplots(figsize=(7.0, 3.4))
    for place, (name, (colour, marker)) in enumerate(shown.items()):
        chosen = goniometer.rule(name)
        even, _ = chosen.residuals(14)
        ell = np.arange(1, 15) + 0.13 * (place - 2.5)
        label = f"{name} ({len(chosen)})"
        axes.plot(ell, np.where(even[1:] > 1e-12, even[1:], np.nan), marker, color=colour, markersize=5, label=label)
        gone = ell[even[1:] <= 1e-12]
        axes.plot(gone, np.full(len(gone), 1.5e-4), marker, color=colour, markersize=5, markerfacecolor="white")
    axes.axhline(3e-4, color=INK, linewidth=0.6)
    axes.set(yscale="log", ylim=(8e-5, 2.0), xlabel="angular momentum ℓ", ylabel="share of the variance left, ρ_ℓ")
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: plain(value)))
    axes.set_yticks([1.5e-4, 1e-3, 1e-2, 1e-1, 1.0], ["0", "0.001", "0.01", "0.1", "1"])
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xticks(range(1, 15))
    axes.grid()
    figure.legend(loc="outside upper left", ncols=3)
    save(figure, "rules")


def left_by(residual: Residual) -> float:
    """The most that a rule is predicted to leave, in meV/Å."""
    stands = residual.as_it_stands or 0.0
    return 1e3 * float(np.hypot(max(residual.over_turns, stands), residual.tail))


def frontier(rules: Iterable[RuleResidual]) -> tuple[list[int], list[float]]:
    """Rules that leave less than every cheaper one."""
    number, left = [], []
    for each in sorted(rules, key=lambda rule: rule.n):
        value = left_by(each.forces)
        if not left or value < left[-1]:
            number.append(each.n)
            left.append(value)
    return number, left


def remedies_figure() -> None:
    """The least force error that any rule of so many evaluations is predicted to leave, for two models."""
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 3.4), sharey=True)
    names = {"pet-water-unaugmented": ("never shown a turn", VERMILLION), "pet-water": ("shown random turns", BLUE)}
    for axes, structure in zip(panels, ("molecule", "box"), strict=True):
        for model, (label, colour) in names.items():
            result = goniometer.probe(model, structure)
            assert result.pooled is not None
            number, left = frontier(result.pooled.rules)
            axes.step(number, left, where="post", color=colour, label=label if axes is panels[0] else None)
            axes.plot(number, left, "o", color=colour, markersize=3.5)
            floor = 1e3 * result.pooled.forces.floor
            axes.axhline(floor, color=colour, linestyle=":", linewidth=1.0)
        axes.set(xscale="log", yscale="log", xlabel="evaluations of an average", title=structure, xlim=(0.9, 700))
        axes.set_ylim(1e-4, 60.0)
        axes.grid()
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: plain(value)))
    panels[0].set_ylabel("force error left, rms [meV/Å]")
    panels[0].plot([], [], ":", color=INK, linewidth=1.0, label="noise floor of one evaluation")
    figure.legend(loc="outside upper left", ncols=3)
    save(figure, "remedies")


def reconstruction_figure() -> None:
    """Energies between the nodes of a probe, from the energies at the nodes."""
    (water,) = goniometer.read_structures("molecule")
    model = goniometer.load(MODEL)
    nodes = goniometer.rule("degree:8", inversion=True).turned_at_random(0)
    seen = energies(model, water.atoms, nodes.matrices)
    mean = nodes.weights @ seen
    over = turns((0.6, 0.0, 0.8))
    figure, axes = plt.subplots(figsize=(6.2, 3.1))
    axes.plot(
        ANGLES, energies(model, water.atoms, over) - mean, color=INK, linewidth=3.0, alpha=0.35, label="evaluated"
    )
    for lmax, colour in ((1, SKY), (2, ORANGE), (4, VERMILLION)):
        single = [Rule("identity", each[None], np.ones(1), 0) for each in over]
        kernels = [averaging_coefficients(each, nodes, lmax) for each in single]
        found = [float(each @ (seen - mean)) for each in kernels if each is not None]
        axes.plot(ANGLES, found, color=colour, linewidth=1.2, label=f"from the nodes, ℓ ≤ {lmax}")
    degrees(axes, "turned about (0.6, 0, 0.8) by")
    axes.set_ylabel("E − ⟨E⟩ [meV]")
    figure.legend(loc="outside upper left", ncols=2)
    save(figure, "reconstruction")


def main() -> None:
    """Make what is asked for, or everything."""
    makers = {
        "turn": turn_figure,
        "tutorial-report": tutorial_report_figure,
        "tutorial-run": tutorial_run_figure,
        "materials": materials_figure,
        "rules": rules_figure,
        "remedies": remedies_figure,
        "reconstruction": reconstruction_figure,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=makers)
    only = parser.parse_args().only
    for name, make in makers.items():
        if only in (None, name):
            with matplotlib.style.context(["default", STYLE]):
                make()


if __name__ == "__main__":
    main()
