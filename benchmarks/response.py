"""Time a response over turned copies, in single evaluations of the model, beside metatomic-ase.

    python benchmarks/response.py [--repeat N] [--json FILE]

For each structure: the time of one evaluation with forces; the time for each rotation of the native response over the
octahedral group with inversion; and of metatomic-ase's SymmetrizedCalculator at degree 3 with inversion, whose own rule
is larger. Ratios are taken within one run; nothing else should run on the machine. The peak memory is that of the
process so far.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import goniometer
from goniometer.data import read_structures
from goniometer.potentials.batching import peak_memory_bytes
from goniometer.potentials.loading import packaged_models
from goniometer.symmetrize import response

warnings.filterwarnings("ignore")
MODEL = Path(goniometer.__file__).parent / "data" / "models" / f"{packaged_models()[0]}.pt"


def best(run: Callable[[], Any], repeat: int) -> float:
    """The shortest of several times, after one that is not counted: noise only adds."""
    run()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(name: str, repeat: int) -> dict[str, Any]:
    """One row of the table."""
    from metatomic_ase import MetatomicCalculator, SymmetrizedCalculator

    atoms = read_structures(name)[0].atoms
    potential = goniometer.load(str(MODEL))
    chosen = goniometer.rule("octahedral", inversion=True)
    single = best(lambda: potential.predict(atoms), repeat)
    orbit = best(lambda: response(potential, atoms, chosen.matrices), repeat)
    peer = SymmetrizedCalculator(MetatomicCalculator(str(MODEL), device="cpu"), l_max=3, batch_size=4)
    rotations = len(peer.quadrature_rotations)
    theirs = best(lambda: peer.calculate(atoms, ["energy", "forces"], ["positions"]), 1)
    return {
        "structure": name,
        "atoms": len(atoms),
        "single_ms": 1e3 * single,
        "rotations": len(chosen),
        "per_rotation": orbit / len(chosen) / single,
        "whole": orbit / single,
        "peer_rotations": rotations,
        "peer_per_rotation": theirs / rotations / single,
        "peer_whole": theirs / single,
        "ratio": theirs / orbit,
        "peak_memory_gib": peak_memory_bytes() / 2**30,
    }


def main() -> None:
    """Measure, print the table, write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--structures", nargs="+", default=["molecule", "box", "ice"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = [measure(name, arguments.repeat) for name in arguments.structures]
    table = Table(
        "structure", "atoms", "single, ms", "n", "per rotation", "whole", "peer n", "per rotation", "whole", "ratio"
    )
    table.title = "In single evaluations: octahedral + inversion, and SymmetrizedCalculator(l_max=3)"
    for row in rows:
        keys = (
            "single_ms",
            "rotations",
            "per_rotation",
            "whole",
            "peer_rotations",
            "peer_per_rotation",
            "peer_whole",
            "ratio",
        )
        table.add_row(row["structure"], str(row["atoms"]), *(f"{row[key]:.3g}" for key in keys))
    Console().print(table)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
