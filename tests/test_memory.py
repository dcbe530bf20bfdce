"""The memory of a probe is within what its documentation says."""

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from ase import Atoms

from goniometer.potentials import Potential, Prediction
from goniometer.probing.measure import probe
from goniometer.probing.repetition import count_for

MIB = 2**20


class Tilted(Potential):
    """E = x_z² of the first atom, one copy at a time: it takes no memory to speak of, and is not symmetric."""

    name = "tilted"
    conservative = False
    virial = "full"

    def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
        for matrix in matrices:
            positions = structure.positions @ matrix.T
            forces = 1e-3 * positions
            forces[:, :2] = 0.0
            yield Prediction(positions[:1, 2] ** 2, forces[None], np.diag(positions[0])[None])


@pytest.mark.parametrize(("atoms", "lmax"), [(20, 2), (20, 4), (2000, 4), (2000, 2), (20, 7)])
def test_the_memory_of_a_response_is_as_documented(atoms: int, lmax: int) -> None:
    """72 (K + R) N + 32 K² + 65536 K bytes for R repetitions, and not far less, or the formula would say nothing."""
    positions = np.random.default_rng(0).uniform(0.0, 50.0, (atoms, 3))
    structure = Atoms("H" * atoms, positions=positions, cell=50.0 * np.eye(3), pbc=True)
    probe(Tilted(), structure[:2], lmax=lmax, measured=())  # rules are made once in a process
    tracemalloc.start()
    try:
        nodes = probe(Tilted(), structure, lmax=lmax, measured=()).rule.n
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    documented = 72 * (nodes + count_for(1, nodes)) * atoms + 32 * nodes**2 + 65536 * nodes
    assert documented / 2 < peak < documented


PROBE = """
import json, sys
from goniometer.structures import (read_structures)
from goniometer.files.packaged import packaged_files
from goniometer.potentials.batching import peak_memory_bytes
from goniometer.potentials.metatomic import MetatomicPotential
from goniometer.probing.measure import probe
from goniometer.probing.repetition import count_for

limit, batch = json.loads(sys.argv[1])
path = packaged_files("models", ".pt")["pet-water"]
structure = read_structures("box")[0].atoms * (2, 1, 1)
# What is loaded and compiled at the first probe of a process is no part of a batch.
probe(MetatomicPotential.from_file(path), read_structures("molecule"), lmax=0, measured=())
before = peak_memory_bytes()
potential = MetatomicPotential.from_file(path, memory_limit=limit, batch=batch)
result = probe(potential, [structure], lmax=1, measured=())
print(json.dumps([peak_memory_bytes() - before, result.rule.n, len(structure)]))
"""


@pytest.mark.nightly
def test_batches_of_a_model_stay_within_the_memory_limit() -> None:
    """In a process of its own, whose high-water mark is not that of other tests. The control ignores the limit."""
    limit = 384 * MIB

    def taken(batch: int | None) -> tuple[int, int]:
        command = [sys.executable, "-c", PROBE, json.dumps([limit, batch])]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        taken, nodes, atoms = json.loads(run.stdout.splitlines()[-1])
        return taken, limit + 72 * nodes * atoms + 32 * nodes**2 + 65536 * nodes

    memory, documented = taken(None)
    assert memory < documented
    memory, documented = taken(8)
    assert memory > documented
