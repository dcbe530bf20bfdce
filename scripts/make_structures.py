#!/usr/bin/env python
"""Makes the packaged structures: a molecule, a box of liquid water and a cell of ice, all from nothing but seeds.

    python scripts/make_structures.py [molecule] [box] [ice] [--model FILE] [--output FOLDER] [--seed N]

The molecule takes no time, ice some two minutes and the box about fifteen on one core. Needs ``metatomic-ase``, and
``genice2`` for ice. Molecular dynamics is chaotic: another machine or another build of torch gives another box from the
same seed, as good as the first. What was made and how is written in each file's comment line.
"""

from __future__ import annotations

import argparse
import io
import subprocess
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.geometry import find_mic
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.optimize import FIRE
from scipy.spatial.transform import Rotation

DATA = Path(__file__).resolve().parent.parent / "src" / "goniometer" / "data"

# The geometry of the gas-phase molecule (Å, degrees), and the spread that 300 K gives its stretches and its bend.
BOND, ANGLE = 0.9572, 104.52
BOND_SPREAD, ANGLE_SPREAD = 0.024, 4.4

TIMESTEP = 0.5  # fs
FRICTION = 0.01  # 1/fs
DENSITY = 1.0  # g/cm³


def water(bonds: tuple[float, float] = (BOND, BOND), angle: float = ANGLE) -> np.ndarray:
    """Positions (3, 3) of O, H, H with the oxygen at the origin; bonds in Å, the angle between them in degrees."""
    half = np.radians(angle) / 2.0
    arms = np.array([[np.sin(half), np.cos(half), 0.0], [-np.sin(half), np.cos(half), 0.0]])
    return np.vstack([np.zeros(3), np.array(bonds)[:, None] * arms])


def make_molecule(rng: np.random.Generator) -> Atoms:
    """One molecule with stretches and a bend drawn as at 300 K, turned at random, its centre of mass at the origin."""
    first, second = rng.normal(BOND, BOND_SPREAD, size=2)
    positions = water((first, second), rng.normal(ANGLE, ANGLE_SPREAD))
    molecule = Atoms("OHH", positions @ Rotation.random(rng=rng).as_matrix().T)
    molecule.positions -= molecule.get_center_of_mass()
    return molecule


def lattice_of_molecules(side: int, rng: np.random.Generator, closest: float = 1.65) -> Atoms:
    """``side``³ molecules on a cubic lattice at the density of the liquid, turned at random.

    A molecule is turned again as long as it brings two atoms of different molecules closer than ``closest`` (Å).
    """
    count = side**3
    edge = (count * Atoms("OHH").get_masses().sum() * units._amu * 1e3 / DENSITY) ** (1 / 3) * 1e8
    atoms = Atoms(cell=[edge] * 3, pbc=True)
    for site in np.ndindex(side, side, side):
        origin = (np.array(site) + 0.5) * edge / side
        while True:
            molecule = water() @ Rotation.random(rng=rng).as_matrix().T + origin
            gaps = (molecule[:, None] - atoms.positions).reshape(-1, 3)
            if len(gaps) == 0 or find_mic(gaps, atoms.cell)[1].min() > closest:
                break
        atoms += Atoms("OHH", molecule)
    return atoms


def dynamics(atoms: Atoms, temperatures: list[tuple[float, float, float]], rng: np.random.Generator) -> None:
    """Langevin dynamics through stages of (picoseconds, first temperature, last temperature), in K."""
    thermalize_momenta(atoms, temperatures[0][1], rng=rng)
    thermostat = Langevin(
        atoms,
        TIMESTEP * units.fs,
        temperature_K=temperatures[0][1],
        friction=FRICTION / units.fs,
        fixcm=False,
        rng=rng,
    )
    for picoseconds, first, last in temperatures:
        blocks = max(1, round(picoseconds / 0.05))
        for block in range(blocks):
            thermostat.set_temperature(temperature_K=first + (last - first) * block / max(1, blocks - 1))
            thermostat.run(round(picoseconds * 1000.0 / TIMESTEP / blocks))
            time, energy = thermostat.get_time() / units.fs / 1000.0, atoms.get_potential_energy()
            print(f"  {time:6.2f} ps  {atoms.get_temperature():6.1f} K  {energy:.3f} eV", flush=True)


def make_box(calculator: Calculator, rng: np.random.Generator) -> Atoms:
    """64 molecules of liquid at 1 g/cm³: a lattice of molecules turned at random, relaxed, then 600 K, then 300 K."""
    atoms = lattice_of_molecules(4, rng)
    atoms.calc = calculator
    FIRE(atoms, logfile=None).run(fmax=1.0, steps=150)
    dynamics(atoms, [(1.0, 600.0, 600.0), (0.75, 600.0, 300.0), (3.0, 300.0, 300.0)], rng)
    return atoms


def make_ice(calculator: Calculator, rng: np.random.Generator) -> Atoms:
    """64 molecules of proton-disordered ice Ih from GenIce2, without a net dipole, after 0.5 ps at 100 K."""
    command = "genice2 1h --rep 2 2 1 --water tip3p --format gromacs --depol strict --seed"
    while True:
        seed = str(rng.integers(2**31))
        answer = subprocess.run([*command.split(), seed], check=True, capture_output=True, text=True)
        atoms = ase.io.read(io.StringIO(answer.stdout), format="gromacs")
        atoms = Atoms("OHH" * (len(atoms) // 3), atoms.positions, cell=atoms.cell, pbc=True, calculator=calculator)
        # GenIce2 may give up looking for a network without a dipole. One molecule's sum of arms is 1.2 Å, and the
        # coordinates are rounded to 0.01 Å.
        arms = atoms.positions.reshape(-1, 3, 3) - atoms.positions[::3, None]
        if np.linalg.norm(arms.sum(axis=(0, 1))) < 0.5:
            break
    FIRE(atoms, logfile=None).run(fmax=1.0, steps=50)
    dynamics(atoms, [(0.5, 100.0, 100.0)], rng)
    return atoms


def whole(atoms: Atoms) -> Atoms:
    """The same atoms with the hydrogens of every molecule beside its oxygen and the oxygens inside the cell.

    Raises RuntimeError unless every oxygen still has its own two hydrogens, and no others, within 1.25 Å.
    """
    molecules = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    distances = molecules.get_all_distances(mic=True)[::3]
    bonded = distances < 1.25
    own = np.repeat(np.eye(len(atoms) // 3, dtype=bool), 3, axis=1)
    if not np.array_equal(bonded, own):
        raise RuntimeError("a molecule came apart: choose another seed or a gentler start")
    arms = atoms.positions.reshape(-1, 3, 3) - atoms.positions[::3, None]
    arms = find_mic(arms.reshape(-1, 3), atoms.cell, atoms.pbc)[0].reshape(-1, 3, 3)
    oxygens = molecules[::3]
    oxygens.wrap()
    molecules.positions = (oxygens.positions[:, None] + arms).reshape(-1, 3)
    return molecules


def first_peak(atoms: Atoms) -> float:
    """Distance in Å of the highest bin, 0.1 Å wide, of the oxygen-oxygen radial distribution of one frame."""
    oxygens = atoms[atoms.numbers == 8]
    distances = oxygens.get_all_distances(mic=True)[np.triu_indices(len(oxygens), 1)]
    counts, edges = np.histogram(distances, bins=np.arange(2.0, 6.0, 0.1))
    middles = (edges[1:] + edges[:-1]) / 2.0
    return float(middles[np.argmax(counts / middles**2)])


def main() -> None:
    """Make the structures that are asked for, and write them."""
    parser = argparse.ArgumentParser(description="Make the packaged structures.")
    parser.add_argument("which", nargs="*", help="of molecule, box, ice; all by default")
    parser.add_argument("--model", type=Path, default=DATA / "models" / "pet-water.pt", help="a metatomic model")
    parser.add_argument("--output", type=Path, default=DATA / "structures_files", help="folder")
    parser.add_argument("--seed", type=int, default=2406)
    arguments = parser.parse_args()
    which = arguments.which or ["molecule", "box", "ice"]
    if unknown := set(which) - {"molecule", "box", "ice"}:
        parser.error(f"there is no '{unknown.pop()}' to make: choose of molecule, box, ice")
    for name in which:
        print(name)
        rng = np.random.default_rng([arguments.seed, ["molecule", "box", "ice"].index(name)])
        if name == "molecule":
            atoms, origin = make_molecule(rng), "gas-phase H2O distorted as at 300 K"
        else:
            from metatomic_ase import MetatomicCalculator

            make = make_box if name == "box" else make_ice
            atoms = make(MetatomicCalculator(arguments.model), rng)
            print(f"  first peak of g_OO at {first_peak(atoms):.2f} Å")
            origin = (
                "64 H2O, liquid, 1 g/cm3, 300 K, Langevin dynamics with pet-water"
                if name == "box"
                else "64 H2O, proton-disordered ice Ih from GenIce2, 100 K, Langevin dynamics with pet-water"
            )
        atoms = whole(atoms)
        atoms.info = {"name": name, "origin": f"scripts/make_structures.py {name} --seed {arguments.seed}: {origin}"}
        ase.io.write(arguments.output / f"{name}.xyz", atoms, format="extxyz", columns=["symbols", "positions"])


if __name__ == "__main__":
    main()
