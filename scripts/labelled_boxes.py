"""Convert labelled boxes from NumPy archives to extended XYZ, leaving out those with large forces.

    python scripts/labelled_boxes.py boxes-*.npz -o training.xyz --largest-force 8

An archive holds ``n`` (atoms of each box), ``z``, ``pos`` (Å) and ``F`` (eV/Å) of all boxes one after another, ``cell``
(Å) and ``E`` (eV), and optionally ``T`` (K) and ``base`` (the index of the structure that a box was derived from).
Labels outside the range that a reference potential was fitted to would dominate the error, hence the bound on forces.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write


def boxes(path: Path) -> Iterator[tuple[Atoms, int | None]]:
    """Yield each box with its energy (eV) and forces (eV/Å), and the index of its base where the archive has one."""
    with np.load(path) as archive:
        ends = np.cumsum(archive["n"])
        bases = archive["base"] if "base" in archive else [None] * len(ends)
        temperatures = archive.get("T")
        numbers, positions, forces = archive["z"], archive["pos"], archive["F"]
        cells, energies = archive["cell"], archive["E"]
    for index, (first, last) in enumerate(zip(ends - np.diff(ends, prepend=0), ends, strict=True)):
        atoms = Atoms(numbers[first:last], positions[first:last], cell=cells[index], pbc=True)
        if temperatures is not None:
            atoms.info["temperature"] = float(temperatures[index])
        labels = {"energy": float(energies[index]), "forces": np.asarray(forces[first:last], dtype=float)}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        yield atoms, None if bases[index] is None else int(bases[index])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument(
        "--largest-force", type=float, default=np.inf, help="eV/Å; boxes with a larger one are left out"
    )
    parser.add_argument("--bases-below", type=int, help="only boxes whose base has a smaller index than this")
    parser.add_argument("--bases-from", type=int, help="only boxes whose base has at least this index")
    given = parser.parse_args()
    kept, total = [], 0
    for archive in given.archives:
        for atoms, base in boxes(archive):
            total += 1
            largest = np.linalg.norm(atoms.get_forces(), axis=1).max()
            below = given.bases_below is None or base is None or base < given.bases_below
            above = given.bases_from is None or base is None or base >= given.bases_from
            if largest <= given.largest_force and below and above:
                kept.append(atoms)
    write(given.output, kept, format="extxyz")
    print(f"{len(kept)} of {total} boxes in {given.output}")


if __name__ == "__main__":
    main()
