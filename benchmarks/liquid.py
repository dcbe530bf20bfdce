"""Time observables of liquids on frames of 512 H2O beside a loop over atoms with a neighbor list, which gives the same.

    python benchmarks/liquid.py [--frames N] [--json FILE]

The loop is what one writes first: ASE's neighbor list, for every atom its neighbors, for every neighbor its distance,
its bin, and what is added there. Both fill the same bins, so that the curves agree to rounding.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list

from goniometer.observables.molecules import find_molecules
from goniometer.observables.statics import Pairs, Static, dipole_correlation, pair_distribution
from goniometer.structures import read_structures
from goniometer.trajectories.h5md import Frames, Trajectory, read_trajectory, write_segment


def liquid(folder: Path, frames: int) -> Trajectory:
    """512 molecules, each frame displaced a little."""
    structure = read_structures("box")[0].atoms * (2, 2, 2)
    rng = np.random.default_rng(0)
    positions = structure.positions + rng.normal(scale=0.02, size=(frames, len(structure), 3))
    steps = np.arange(frames)
    held = Frames(steps, 10.0 * steps, positions[:, None], np.zeros_like(positions)[:, None], {})
    write_segment(folder / "frames-000000.h5", structure, held, {})
    return read_trajectory(folder)


def loop(structure: Atoms, positions: np.ndarray, pairs: Pairs, directions: np.ndarray | None = None) -> np.ndarray:
    """Bins of distances of the oxygens, and with directions those of both parts of their correlation."""
    atoms = structure[pairs.first]
    atoms.positions = positions[pairs.first]
    first, second, shifts = neighbor_list("ijS", atoms, pairs.bins * pairs.width)
    starts = np.searchsorted(first, np.arange(len(atoms) + 1))
    bins = np.zeros((1 if directions is None else 3, pairs.bins))
    cell = atoms.cell.array
    for atom in range(len(atoms)):
        for place in range(starts[atom], starts[atom + 1]):
            vector = atoms.positions[second[place]] + shifts[place] @ cell - atoms.positions[atom]
            distance = np.sqrt(vector @ vector)
            found = int(distance / pairs.width)
            if found < pairs.bins:
                bins[0, found] += 1.0
                if directions is not None:
                    one, other, unit = directions[atom], directions[second[place]], vector / distance
                    along = (one @ unit) * (other @ unit)
                    bins[1, found] += along
                    bins[2, found] += one @ other - along
    return bins


def seconds(run: Callable[[], object]) -> float:
    """The shorter of two times."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Measure, print, write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/liquid.json"))
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        trajectory = liquid(Path(folder), given.frames)
        frames, structure = trajectory.frames(), trajectory.replica
        one, positions = frames[:1], frames.positions[0, 0]
        sites = np.flatnonzero(structure.numbers == 8)
        pairs = Pairs(trajectory, sites, sites)
        molecules = find_molecules(structure)
        directions = molecules.directions(one)[0]
        observables: dict[str, tuple[Static, Callable[[], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
            "pair distribution": (
                pair_distribution(trajectory),
                lambda: loop(structure, positions, pairs),
                lambda bins: 0.5 * pairs.per_pair(structure.cell.array) * (bins @ pairs.smooth.T)[0] / pairs.ideal,
            ),
            "dipole correlation": (
                dipole_correlation(trajectory, molecules),
                lambda: loop(structure, positions, pairs, directions),
                lambda bins: 0.5 * bins @ pairs.smooth.T,
            ),
        }
        for name, (of, naive, finished) in observables.items():
            ours = seconds(lambda of=of: of.samples(frames)) / given.frames
            theirs = seconds(naive)
            difference = float(np.abs(finished(naive()) - of.samples(one)[0]).max())
            row = {
                "observable": name,
                "seconds": ours,
                "loop": theirs,
                "ratio": theirs / ours,
                "difference": difference,
            }
            rows.append(row)
            print(
                f"{name}: {1e3 * ours:.1f} ms a frame, the loop {theirs:.2f} s: {theirs / ours:.0f} times as long; "
                f"largest difference {difference:.1g}"
            )
    given.json.write_text(json.dumps(rows, indent=1))
    if any(row["difference"] > 1e-10 for row in rows):
        raise SystemExit("the loop and the library disagree by more than 1e-10")


if __name__ == "__main__":
    main()
