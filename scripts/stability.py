"""Does a model hold water together? python scripts/stability.py MODEL -o DIR [--only molecule|liquid|hot]

    molecule  20 ps of one molecule in vacuum, started at 300 K, constant energy
    liquid    20 ps of 64 H2O at 300 K, stochastic velocity rescaling
    hot        5 ps of 64 H2O at 500 K, likewise

at 0.5 fs a step. Every 5 fs each H must be nearest to the O that it started with, and within 1.4 Å of it; a run ends
when one is not. A table is printed, and DIR gets stability.json and the state of each run, which is whole at any
moment: the same command goes on from it, to the same end. MODEL is whatever `goniometer probe` takes. One run of each:
the numbers have no uncertainties.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.bussi import Bussi
from ase.md.verlet import VelocityVerlet

from goniometer.cli.app import write_json
from goniometer.cli.progress import progress_bar
from goniometer.data import read_structures
from goniometer.errors import GoniometerError, InputError
from goniometer.potentials import Potential, load

#: fs, Å.
TIMESTEP, COUPLING, BROKEN = 0.5, 100.0, 1.4
#: Steps between two looks, and between two states: a run that was killed repeats at most so many.
LOOK, BLOCK = 10, 200
#: Å. The first peak of g_OO is looked for below the second shell.
BINS = np.arange(0.0, 6.2, 0.05)
FIRST_SHELL = 3.4
#: The part of a run that is left out of averages.
SETTLING = 0.25
SCHEMA = "goniometer/stability/1"


@dataclass(frozen=True)
class Plan:
    """One run: a packaged structure of molecules O, H, H; K; steps; whether a thermostat acts; model and seed."""

    structure: str
    temperature: float
    steps: int
    thermostat: bool
    model: str = ""
    seed: int = 0

    @property
    def identity(self) -> str:
        """What a run must have in common with the one it continues."""
        return f"{self.model}, {self.structure}, {self.temperature:g} K, seed {self.seed}"


PLANS = {
    "molecule": Plan("molecule", 300.0, 40000, False),
    "liquid": Plan("box", 300.0, 40000, True),
    "hot": Plan("box", 500.0, 10000, True),
}


@dataclass
class State:
    """Where a run is, and a row for each look: ps, eV, eV, K, Å, Å, and the histogram of O–O distances."""

    identity: str
    step: int
    broken: float
    transferred: float
    positions: np.ndarray
    momenta: np.ndarray
    rows: np.ndarray
    histograms: np.ndarray

    def write(self, path: Path) -> None:
        """Replace the file in one step."""
        partial = path.with_name(path.name + ".part")
        with partial.open("wb") as file:
            np.savez(file, **vars(self))
        partial.replace(path)


def read_state(path: Path, identity: str) -> State | None:
    """The state in a file, or None; InputError if it is of another run."""
    if not path.exists():
        return None
    with np.load(path) as found:
        values = {name: found[name] if found[name].ndim else found[name].item() for name in found.files}
    if values["identity"] != identity:
        raise InputError(f"{path} is of another run ({values['identity']}, not {identity}): give another folder")
    return State(**values)


def run(name: str, plan: Plan, potential: Potential, path: Path, progress: Callable[[int, int, str], None]) -> State:
    """Run, or go on, until the end or until a molecule breaks."""
    atoms = read_structures(plan.structure)[0].atoms
    number = list(PLANS).index(name)
    state = read_state(path, plan.identity)
    if state is None:
        draw = np.random.default_rng([plan.seed, number]).normal(size=(len(atoms), 3))
        momenta = draw * np.sqrt(atoms.get_masses() * units.kB * plan.temperature)[:, None]
        empty = np.empty((0, len(BINS) - 1), dtype=np.int64)
        state = State(plan.identity, 0, np.nan, 0.0, atoms.positions, momenta, np.empty((0, 6)), empty)
    atoms.calc = potential.calculator()
    while state.step < plan.steps and np.isnan(state.broken):
        state = block(atoms, plan, state, np.random.default_rng([plan.seed, number, state.step]))
        state.write(path)
        progress(state.step, plan.steps, name)
    return state


def block(atoms: Atoms, plan: Plan, state: State, generator: np.random.Generator) -> State:
    """Go on by at most ``BLOCK`` steps, with random numbers of the block's own."""
    atoms.positions[:] = state.positions
    atoms.set_momenta(state.momenta)
    step = TIMESTEP * units.fs
    dynamics = (
        Bussi(atoms, step, plan.temperature, COUPLING * units.fs, rng=generator)
        if plan.thermostat
        else VelocityVerlet(atoms, step)
    )
    rows, histograms = list(state.rows), list(state.histograms)
    done, broken = state.step, state.broken
    until = min(state.step + BLOCK, plan.steps)
    while done < until and np.isnan(broken):
        dynamics.run(min(LOOK, until - done))
        done += min(LOOK, until - done)
        transferred = state.transferred + getattr(dynamics, "transferred_energy", 0.0)
        shortest, longest, whole = bonds(atoms)
        time, kinetic = 1e-3 * TIMESTEP * done, atoms.get_kinetic_energy()
        total = atoms.get_potential_energy() + kinetic
        rows.append(np.array([time, total, total - transferred, kinetic, shortest, longest]))
        histograms.append(oxygens(atoms))
        broken = broken if whole else time
    return replace(
        state,
        step=done,
        broken=broken,
        transferred=transferred,
        positions=atoms.positions.copy(),
        momenta=atoms.get_momenta(),
        rows=np.array(rows),
        histograms=np.array(histograms),
    )


def bonds(atoms: Atoms) -> tuple[float, float, bool]:
    """Shortest and longest O–H bond, Å, and whether each H is within 1.4 Å of its O and no other O is nearer."""
    hydrogens = np.flatnonzero(atoms.numbers == 1)
    distances = _distances(atoms, hydrogens, np.arange(0, len(atoms), 3))
    own = distances[np.arange(len(hydrogens)), hydrogens // 3]
    whole = bool((own < BROKEN).all() and (own <= distances.min(axis=1)).all())
    return float(own.min()), float(own.max()), whole


def oxygens(atoms: Atoms) -> np.ndarray:
    """Histogram of the O–O distances."""
    some = np.arange(0, len(atoms), 3)
    pairs = _distances(atoms, some, some)[np.triu_indices(len(some), 1)]
    return np.histogram(pairs, BINS)[0]


def _distances(atoms: Atoms, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Distances, (one, other), to the nearest image in an orthorhombic cell or without one."""
    vectors = atoms.positions[one][:, None] - atoms.positions[other][None]
    if atoms.pbc.any():
        lengths = atoms.cell.lengths()
        vectors -= lengths * np.rint(vectors / lengths)
    return np.linalg.norm(vectors, axis=2)


def figures(plan: Plan, state: State) -> dict[str, Any]:
    """What a run says: whether it held, bonds, temperature, drift, first peak of g_OO."""
    atoms = read_structures(plan.structure)[0].atoms
    molecules = len(atoms) // 3
    times, _, conserved, kinetic, shortest, longest = state.rows.T
    settled = times > SETTLING * times[-1]
    drift, offset = np.polyfit(times, conserved - conserved[0], 1) if len(times) > 1 else (0.0, 0.0)
    scatter = conserved - conserved[0] - drift * times - offset
    return {
        "identity": state.identity,
        "planned_ps": 1e-3 * TIMESTEP * plan.steps,
        "ran_ps": 1e-3 * TIMESTEP * state.step,
        "broken_at_ps": None if np.isnan(state.broken) else float(state.broken),
        "shortest_bond": float(shortest.min()),
        "longest_bond": float(longest.max()),
        "temperature": float(kinetic[settled].mean() / (1.5 * len(atoms) * units.kB)),
        "drift_mev_per_molecule_ps": float(1e3 * drift / molecules),
        "scatter_mev_per_molecule": float(1e3 * np.sqrt(np.mean(scatter**2)) / molecules),
        "first_peak": peak(state.histograms[settled].mean(axis=0), atoms) if molecules > 1 else None,
    }


def peak(counts: np.ndarray, atoms: Atoms) -> dict[str, float] | None:
    """Middle of the bin (Å) and height of the first peak of g_OO; None where no O is within the first shell."""
    number = len(atoms) // 3
    ideal = 4.0 / 3.0 * np.pi * np.diff(BINS**3) * number * (number - 1) / 2.0 / atoms.get_volume()
    middles = 0.5 * (BINS[1:] + BINS[:-1])
    g = np.where(middles < FIRST_SHELL, counts / ideal, 0.0)
    top = int(np.argmax(g))
    return {"distance": float(middles[top]), "bin": 0.05, "height": float(g[top])} if g[top] > 0.0 else None


def table(found: dict[str, dict[str, Any]]) -> str:
    """The figures as text."""
    heads = f"{'O–H, Å':>14}{'T, K':>8}{'drift':>10}{'scatter':>10}{'g_OO':>18}"
    lines = [f"{'run':<10}{'ran, ps':>9}  {'held':<16}{heads}"]
    for name, each in found.items():
        held = "yes" if each["broken_at_ps"] is None else f"until {each['broken_at_ps']:.3f} ps"
        span = f"{each['shortest_bond']:.3f}–{each['longest_bond']:.3f}"
        top = each["first_peak"]
        shell = "–" if top is None else f"{top['height']:.2f} at {top['distance']:.3f} Å"
        lines.append(
            f"{name:<10}{each['ran_ps']:>9.3f}  {held:<16}{span:>14}{each['temperature']:>8.1f}"
            f"{each['drift_mev_per_molecule_ps']:>10.4f}{each['scatter_mev_per_molecule']:>10.4f}{shell:>18}"
        )
    lines.append(
        "held: every H within 1.4 Å of its O and nearest to it. drift, scatter: of the conserved energy, meV per H2O "
        "and ps, meV per H2O. g_OO: first peak, bins of 0.05 Å."
    )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for, print the table and write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--only", choices=PLANS)
    parser.add_argument("--steps", type=int, help="of 0.5 fs, instead of those above")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    found: dict[str, dict[str, Any]] = {}
    try:
        given.out.mkdir(parents=True, exist_ok=True)
        potential = load(given.model)
        model, file = potential.name, Path(given.model)
        if file.is_file():
            model += f" {hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"
        with progress_bar() as progress:
            for name, plan in PLANS.items():
                plan = replace(plan, steps=given.steps or plan.steps, model=model, seed=given.seed)
                wanted = given.only in (None, name)
                path = given.out / f"{name}.npz"
                state = run(name, plan, potential, path, progress) if wanted else read_state(path, plan.identity)
                if state is not None:
                    found[name] = figures(plan, state)
                    text = json.dumps({"schema": SCHEMA, "runs": found}, allow_nan=False, indent=1)
                    write_json(given.out / "stability.json", text)
    except KeyboardInterrupt:
        sys.exit(f"stability: stopped; the same command goes on from {given.out}")
    except GoniometerError as error:
        sys.exit(f"stability: {error}")
    print(table(found))


if __name__ == "__main__":
    main()
