"""Neural network potentials in RuNNer's files: against a slow evaluation of the formulas, and as derivatives."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list

import goniometer
from goniometer.errors import InputError
from goniometer.potentials.nnp import BOHR, HARTREE
from goniometer.testing import check_potential

pytest.importorskip("numba")

_CUTOFF = 6.0
_HIDDEN = (4, 3)
# Center, type, neighbors, and the parameters in the order of input.nn, in n2p2's order of the functions of an element.
_FUNCTIONS = {
    "H": [("2", "H", 0.05, 0.0), ("2", "O", 0.3, 1.5), ("3", "H O", 0.02, -1.0, 1.0), ("3", "H O", 0.02, 1.0, 2.5)],
    "O": [
        ("2", "H", 0.1, 0.0),
        ("3", "H H", 0.01, 1.0, 4.0),
        ("3", "O O", 0.03, -1.0, 1.0),
        ("3", "H O", 0.1, 1.0, 1.0),
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    lines = [
        "number_of_elements 2",
        "elements O H # in any order",
        "cutoff_type 2",
        "scale_symmetry_functions",
        "center_symmetry_functions",
        f"global_nodes_short {' '.join(map(str, _HIDDEN))}",
        "global_activation_short t t l",
    ]
    for element, functions in _FUNCTIONS.items():
        # Written in reverse: the order in the file plays no part.
        for kind, neighbors, *parameters in reversed(functions):
            lines.append(f"symfunction_short {element} {kind} {neighbors} {' '.join(map(str, parameters))} {_CUTOFF}")
    (tmp_path / "input.nn").write_text("\n".join(lines))
    rows = []
    for place, element in enumerate(_FUNCTIONS):
        for column in range(len(_FUNCTIONS[element])):
            least, width = rng.uniform(0.0, 0.1), rng.uniform(0.2, 0.6)
            rows.append(f"{place + 1} {column + 1} {least} {least + width} {least + width / 3}")
    (tmp_path / "scaling.data").write_text("\n".join([*rows, "-1.0 1.0"]))
    for number, functions in ((1, _FUNCTIONS["H"]), (8, _FUNCTIONS["O"])):
        sizes = [len(functions), *_HIDDEN, 1]
        count = sum((n + 1) * m for n, m in itertools.pairwise(sizes))
        np.savetxt(tmp_path / f"weights.{number:03d}.data", 0.5 * rng.normal(size=count))
    return tmp_path


def _structure(periodic: bool = True) -> Atoms:
    rng = np.random.default_rng(5)
    cell = np.diag([4.1, 4.4, 4.8]) + rng.normal(scale=0.2, size=(3, 3))
    atoms = Atoms("OHHOHH", rng.uniform(0.0, 1.0, (6, 3)) @ cell, cell=cell, pbc=periodic)
    return atoms


def _slow_energy(folder: Path, atoms: Atoms) -> float:
    """The formulas as they are written, with a loop over all pairs of neighbors; eV."""
    i, j, vectors = neighbor_list("ijD", atoms, _CUTOFF * BOHR)
    vectors = vectors / BOHR
    scaling = np.loadtxt(folder / "scaling.data", max_rows=sum(len(each) for each in _FUNCTIONS.values()))
    total = 0.0
    for center, symbol in enumerate(atoms.symbols):
        around = [(atoms.symbols[n], d) for n, d in zip(j[i == center], vectors[i == center], strict=True)]
        rows = scaling[scaling[:, 0] == 1 + list(_FUNCTIONS).index(symbol)]
        values = np.array([_slow_function(function, around) for function in _ordered(symbol)])
        x = (values - rows[:, 4]) / (rows[:, 3] - rows[:, 2])
        flat, start = np.loadtxt(folder / f"weights.{1 if symbol == 'H' else 8:03d}.data"), 0
        sizes = [len(x), *_HIDDEN, 1]
        for layer, (n, m) in enumerate(itertools.pairwise(sizes)):
            x = x @ flat[start : start + n * m].reshape(n, m) + flat[start + n * m : start + (n + 1) * m]
            x = np.tanh(x) if layer < len(_HIDDEN) else x
            start += (n + 1) * m
        total += float(x[0])
    return total * HARTREE


def _ordered(symbol: str) -> list[tuple]:
    """By type, η, then r_s, or ζ and λ."""
    return sorted(_FUNCTIONS[symbol], key=lambda f: (f[0], f[2], *((f[3],) if f[0] == "2" else (f[4], f[3]))))


def _slow_function(function: tuple, around: list) -> float:
    def smooth(r: float) -> float:
        return float(np.tanh(1.0 - r / _CUTOFF) ** 3) if r < _CUTOFF else 0.0

    if function[0] == "2":
        _, symbol, eta, shift = function
        lengths = [np.linalg.norm(d) for other, d in around if other == symbol]
        return sum(np.exp(-eta * (r - shift) ** 2) * smooth(r) for r in lengths)
    _, symbols, eta, sign, zeta = function
    total = 0.0
    for (one, a), (two, b) in itertools.combinations(around, 2):
        if sorted((one, two)) != sorted(symbols.split()):
            continue
        ra, rb, rab = np.linalg.norm(a), np.linalg.norm(b), np.linalg.norm(a - b)
        angular = 2.0 ** (1.0 - zeta) * (1.0 + sign * (a @ b) / (ra * rb)) ** zeta
        total += angular * np.exp(-eta * (ra**2 + rb**2 + rab**2)) * smooth(ra) * smooth(rb) * smooth(rab)
    return total


@pytest.mark.parametrize("periodic", [True, False])
def test_energy_is_that_of_the_formulas(folder: Path, periodic: bool) -> None:
    atoms = _structure(periodic)
    found = goniometer.load(f"nnp:{folder}").predict(atoms)
    # Some hundred terms of order 1 eV, summed in another order.
    assert found.energies[0] == pytest.approx(_slow_energy(folder, atoms), abs=1e-11)
    assert found.atomic.sum() == pytest.approx(found.energies[0], abs=1e-12)
    assert (found.virials is None) is not periodic


def test_it_is_a_potential_and_invariant(folder: Path) -> None:
    potential = goniometer.load(f"nnp:{folder}")
    report = check_potential(potential, [_structure(), _structure(periodic=False)])
    assert report.passed, report.failed
    result = goniometer.probe(potential, [_structure()])
    assert result.pooled.energy.at_floor
    assert result.pooled.forces.at_floor


def test_an_order_of_functions_that_is_wrong_is_seen(folder: Path) -> None:
    """The control: the comparison with the formulas notices a network that is given its inputs in another order."""
    atoms = _structure()
    right = _slow_energy(folder, atoms)
    _FUNCTIONS["O"][0], saved = ("2", "H", 0.11, 0.0), _FUNCTIONS["O"][0]
    try:
        assert abs(_slow_energy(folder, atoms) - right) > 1e-6
    finally:
        _FUNCTIONS["O"][0] = saved


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("input.nn", "cutoff_type 2", "cutoff_type 1", "cutoff_type 2"),
        ("input.nn", "cutoff_type 2", "cutoff_type 2\nmean_energy 0.3", "uses mean_energy"),
        ("input.nn", "symfunction_short H 2 H", "symfunction_short H 9 H", "type 9"),
        ("input.nn", "symfunction_short H 2 H 0.05", "symfunction_short H 2 X 0.05", "not understood"),
        ("input.nn", "t t l", "t p l", "activations t p l"),
        ("input.nn", "4 3", "4 4", "weights; layers of"),
        ("input.nn", "elements O H", "elements O Hx", "'Hx'"),
        ("input.nn", "0.3 1.5 6.0", "0.3 1.5 7.0", "different cutoff radii"),
        ("scaling.data", "1 4", "2 4", "rows for element 1"),
    ],
)
def test_what_is_not_implemented_is_refused(folder: Path, file: str, old: str, new: str, message: str) -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message):
        goniometer.load(f"nnp:{folder}")


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"input\.nn"):
        goniometer.load(f"nnp:{tmp_path / 'nowhere'}")
    with pytest.raises(InputError, match="no network for He"):
        goniometer.load(f"nnp:{folder}").predict(Atoms("He", [[0.0, 0.0, 0.0]]))
    (folder / "weights.008.data").unlink()
    with pytest.raises(InputError, match=r"weights\.008\.data"):
        goniometer.load(f"nnp:{folder}")


def test_its_identity_is_that_of_its_files(folder: Path) -> None:
    from goniometer.potentials.loading import identity

    before = identity(f"nnp:{folder}")
    assert before == identity(f"nnp:{folder}")
    with (folder / "weights.001.data").open("a") as file:
        file.write("\n")
    assert identity(f"nnp:{folder}") != before
