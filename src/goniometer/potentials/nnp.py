"""High-dimensional neural network potentials in the file format of RuNNer and n2p2: exactly invariant, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from jaxtyping import Float64, Int64

from goniometer.errors import InputError
from goniometer.potentials.base import Potential, Prediction

#: Å and eV, as n2p2's interface to LAMMPS converts them (CODATA 2014). With the constants of CODATA 2018 the energy of
#: 64 water molecules would differ by 0.3 meV.
BOHR, HARTREE = 0.52917721067, 27.21138602
# Keywords that change the energy and that are not implemented.
_UNSUPPORTED = ("mean_energy", "conv_energy", "conv_length", "use_electrostatics", "fixed_charge", "normalize_nodes")
_RADIAL, _ANGULAR = "2", "3"


class NeuralNetworkPotential(Potential):
    """A Behler-Parrinello potential, read from a folder with ``input.nn``, ``scaling.data`` and ``weights.*.data``.

    Radial functions of type 2, narrow angular functions of type 3, the cutoff function tanh³(1 − r/r_c) (type 2) with
    one radius, and hyperbolic tangents in hidden layers are implemented; the files are in bohr and hartree. Every
    rotated copy is evaluated, so that a probe measures the invariance instead of assuming it.

    Parameters
    ----------
    folder
        Where the files are.
    name
        Used in reports; by default ``nnp:`` and the folder.

    Raises
    ------
    InputError
        If a file is missing or cannot be read, if it asks for what is not implemented, or if numba is not installed.

    Notes
    -----
    J. Behler and M. Parrinello, Phys. Rev. Lett. 98, 146401 (2007); J. Behler, J. Chem. Phys. 134, 074106 (2011);
    A. Singraber, J. Behler and C. Dellago, J. Chem. Theory Comput. 15, 1827 (2019). Formulas stand in
    ``goniometer/potentials/symmetry_functions.py``.
    """

    dtype = "float64"
    virial = "full"
    atomic = True

    def __init__(self, folder: str | Path, name: str | None = None) -> None:
        self.folder = Path(folder)
        self.name = name or f"nnp:{folder}"
        self.tables = Tables.read(self.folder)
        try:
            from goniometer.potentials.symmetry_functions import evaluate
        except ImportError as error:
            raise InputError(f"a neural network potential needs numba: pip install numba ({error})") from error
        self._evaluate = evaluate

    @cached_property
    def _neighbor_list(self):  # type: ignore[no-untyped-def]
        from vesin import NeighborList

        return NeighborList(cutoff=self.tables.cutoff * BOHR, full_list=True)

    def turned(self, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> Iterator[Prediction]:
        """Evaluate rotated copies one at a time; see :meth:`goniometer.potentials.Potential.turned`.

        Neighbors are found once, for the structure in the input orientation; distances, angles, energies and forces are
        computed for every copy.
        """
        species = self._species(structure)
        first, neighbors, shifts = self._neighbors(structure, species)
        segments = _segments(first, species[neighbors], len(structure), len(self.tables.elements))
        periodic = shifts @ structure.cell.array
        for matrix in matrices:
            positions, cells = structure.positions @ matrix.T, periodic @ matrix.T
            edges = (positions[neighbors] - positions[first] + cells) / BOHR
            energies, forces, virial = (np.zeros(shape) for shape in (len(structure), (len(structure), 3), (3, 3)))
            self._evaluate(species, neighbors, segments, edges, *self.tables.arguments, energies, forces, virial)
            atomic = energies * HARTREE
            yield Prediction(
                np.array([atomic.sum()]),
                forces[None] * (HARTREE / BOHR),
                virial[None] * HARTREE if structure.pbc.all() else None,
                atomic[None],
            )

    def _species(self, structure: Atoms) -> Int64[np.ndarray, " N"]:
        places = {number: place for place, number in enumerate(self.tables.elements)}
        unknown = sorted({int(number) for number in structure.numbers} - set(places))
        if unknown:
            found, known = (", ".join(chemical_symbols[z] for z in each) for each in (unknown, self.tables.elements))
            raise InputError(f"{self.name} has no network for {found}; it has networks for {known}")
        return np.array([places[int(number)] for number in structure.numbers], dtype=np.int64)

    def _neighbors(
        self, structure: Atoms, species: Int64[np.ndarray, " N"]
    ) -> tuple[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"], Float64[np.ndarray, "P 3"]]:
        """Pairs within the cutoff, ordered by first atom and element of the second atom, and their cell shifts."""
        first, second, shifts = self._neighbor_list.compute(
            points=structure.positions, box=structure.cell.array, periodic=structure.pbc, quantities="ijS"
        )
        first, second = first.astype(np.int64), second.astype(np.int64)
        order = np.lexsort((species[second], first))
        return first[order], second[order], shifts[order].astype(float)


def content(folder: Path) -> bytes:
    """The bytes of all files of a potential, which identify it."""
    found = [folder / "input.nn", folder / "scaling.data", *sorted(folder.glob("weights.*.data"))]
    try:
        return b"".join(path.read_bytes() for path in found)
    except OSError as error:
        raise InputError(f"'{folder}' is not the folder of a neural network potential: {error.strerror}") from error


def _segments(
    first: Int64[np.ndarray, " P"], species: Int64[np.ndarray, " P"], atoms: int, elements: int
) -> Int64[np.ndarray, "N E"]:
    """Where among ordered pairs those of each first atom and each element of the second begin; the last is the end."""
    counts = np.bincount(first * elements + species, minlength=atoms * elements)
    bounds = np.concatenate([[0], np.cumsum(counts)])
    return np.array([bounds[atom * elements : (atom + 1) * elements + 1] for atom in range(atoms)], dtype=np.int64)


@dataclass(frozen=True)
class _Function:
    """One symmetry function of an element: its type, the elements of the neighbors, and its parameters, in bohr."""

    kind: str
    neighbors: tuple[int, ...]
    eta: float
    shift: float = 0.0
    zeta: float = 0.0
    sign: float = 0.0

    @property
    def order(self) -> tuple[object, ...]:
        """n2p2's order of the functions of one element, which that of the weights follows."""
        return self.kind, self.eta, self.shift, self.zeta, self.sign, self.neighbors


@dataclass(frozen=True, eq=False)
class Tables:
    """The files as arrays, in bohr and hartree.

    Attributes
    ----------
    elements
        Atomic numbers, ascending; elements are counted in this order below.
    cutoff
        In bohr.
    arguments
        What :func:`goniometer.potentials.symmetry_functions.evaluate` takes between the edges and its results: the
        cutoff; of radial functions the first of each pair of elements, then η, r_s and the column among the inputs of
        the network; of angular functions the first η of each triple of elements, the η, the first function of each η,
        then λ, ζ, ζ as an integer (−1 if it is none) and the column; the number of columns, their means and factors
        (E, C); the sizes of the layers (E, L + 1) and the weights of the networks (E, W), padded with zeros.
    """

    elements: list[int]
    cutoff: float
    arguments: tuple[object, ...]

    @classmethod
    def read(cls, folder: Path) -> Tables:
        """Read the files of a folder; raises :class:`InputError` where they are missing or not understood."""
        path = folder / "input.nn"
        keywords = _keywords(path)
        elements = sorted(_number(symbol, path) for line in keywords.get("elements", []) for symbol in line)
        if not elements:
            raise InputError(f"'{path}' names no elements")
        _check_supported(keywords, path)
        functions, cutoff = _functions(keywords, elements, path)
        hidden = [int(size) for size in keywords["global_nodes_short"][0]]
        sizes = [[len(each), *hidden, 1] for each in functions]
        mean, factor = _scaling(folder / "scaling.data", keywords, [len(each) for each in functions])
        weights = [
            _weights(folder / f"weights.{number:03d}.data", size) for number, size in zip(elements, sizes, strict=True)
        ]
        columns = np.array([len(each) for each in functions])
        layers = np.array(sizes), _padded(weights)
        return cls(
            elements, cutoff, (cutoff, *_radial(functions), *_angular(functions), columns, mean, factor, *layers)
        )


def _keywords(path: Path) -> dict[str, list[list[str]]]:
    """The lines of ``input.nn`` by their first word, without comments."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' cannot be read: {getattr(error, 'strerror', None) or error}") from error
    found: dict[str, list[list[str]]] = {}
    for line in lines:
        words = line.split("#")[0].split("!")[0].split()
        if words:
            found.setdefault(words[0], []).append(words[1:])
    return found


def _number(symbol: str, path: Path) -> int:
    if symbol not in atomic_numbers:
        raise InputError(f"'{path}' names an element '{symbol}', which does not exist")
    return int(atomic_numbers[symbol])


def _check_supported(keywords: dict[str, list[list[str]]], path: Path) -> None:
    """Refuse what would change the energy and is not implemented."""
    for keyword in _UNSUPPORTED:
        if keyword in keywords:
            raise InputError(f"'{path}' uses {keyword}, which is not implemented here")
    wanted = {
        "cutoff_type": (["2"], "the cutoff function tanh³ (cutoff_type 2)"),
        "scale_symmetry_functions": ([], "scaled symmetry functions (scale_symmetry_functions)"),
        "center_symmetry_functions": ([], "centered symmetry functions (center_symmetry_functions)"),
    }
    for keyword, (value, what) in wanted.items():
        if keywords.get(keyword, [None])[0] != value:
            raise InputError(f"'{path}' does not use {what}; nothing else is implemented here")
    if "global_nodes_short" not in keywords:
        raise InputError(f"'{path}' lacks global_nodes_short, the sizes of the hidden layers")
    activations = keywords.get("global_activation_short", [[]])[0]
    if activations != ["t"] * len(keywords["global_nodes_short"][0]) + ["l"]:
        raise InputError(
            f"'{path}' has activations {' '.join(activations) or '(none)'}; hidden layers are t, the last l"
        )


def _functions(
    keywords: dict[str, list[list[str]]], elements: list[int], path: Path
) -> tuple[list[list[_Function]], float]:
    """Symmetry functions of each element in the order of the inputs of its network, and their common cutoff."""
    places = {chemical_symbols[number]: place for place, number in enumerate(elements)}
    found: list[list[_Function]] = [[] for _ in elements]
    cutoffs = set()
    for words in keywords.get("symfunction_short", []):
        if words[1:2] not in ([_RADIAL], [_ANGULAR]):
            kind = " ".join(words[1:2]) or "(none)"
            raise InputError(f"'{path}' has a symmetry function of type {kind}; types 2 and 3 are implemented")
        try:
            center, function, cutoff = _parsed(words, places)
        except (KeyError, ValueError, IndexError) as error:
            line = " ".join(["symfunction_short", *words])
            raise InputError(f"'{path}' has a line that is not understood: {line}") from error
        found[center].append(function)
        cutoffs.add(cutoff)
    if len(cutoffs) != 1:
        raise InputError(f"'{path}' has {len(cutoffs)} different cutoff radii; one is implemented here")
    return [sorted(each, key=lambda function: function.order) for each in found], cutoffs.pop()


def _parsed(words: list[str], places: dict[str, int]) -> tuple[int, _Function, float]:
    """The element that a function belongs to, the function, and its cutoff."""
    center, kind = places[words[0]], words[1]
    if kind == _RADIAL:
        eta, shift, cutoff = (float(word) for word in words[3:6])
        return center, _Function(kind, (places[words[2]],), eta, shift=shift), cutoff
    pair = tuple(sorted((places[words[2]], places[words[3]])))
    eta, sign, zeta, cutoff = (float(word) for word in words[4:8])
    return center, _Function(kind, pair, eta, zeta=zeta, sign=sign), cutoff


def _scaling(
    path: Path, keywords: dict[str, list[list[str]]], columns: list[int]
) -> tuple[Float64[np.ndarray, "E C"], Float64[np.ndarray, "E C"]]:
    """Mean, and one over the range, of the functions of each element."""
    table = _numbers(path, usecols=range(5), max_rows=sum(columns))
    # Elements are counted from 1, functions likewise.
    if table.shape != (sum(columns), 5):
        raise InputError(f"'{path}' has {len(table)} rows; there are {sum(columns)} symmetry functions in input.nn")
    mean, factor = np.zeros((len(columns), max(columns))), np.zeros((len(columns), max(columns)))
    for place, count in enumerate(columns):
        rows = table[table[:, 0] == place + 1]
        if len(rows) != count:
            raise InputError(f"'{path}' has {len(rows)} rows for element {place + 1}; input.nn has {count} functions")
        mean[place, :count], factor[place, :count] = rows[:, 4], 1.0 / (rows[:, 3] - rows[:, 2])
    return mean, factor


def _weights(path: Path, sizes: list[int]) -> Float64[np.ndarray, " W"]:
    """Layer by layer the matrix, by its source nodes, and the biases."""
    flat = np.atleast_1d(_numbers(path, usecols=0))
    expected = sum((n + 1) * m for n, m in pairwise(sizes))
    if len(flat) != expected:
        raise InputError(f"'{path}' holds {len(flat)} weights; layers of {' '.join(map(str, sizes))} have {expected}")
    return flat


def _numbers(path: Path, **options: object) -> np.ndarray:
    try:
        return np.loadtxt(path, ndmin=1, **options)  # type: ignore[call-overload]
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"'{path}' cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _padded(rows: list[Float64[np.ndarray, " W"]]) -> Float64[np.ndarray, "E W"]:
    found = np.zeros((len(rows), max(len(row) for row in rows)))
    for place, row in enumerate(rows):
        found[place, : len(row)] = row
    return found


def _radial(functions: list[list[_Function]]) -> tuple[np.ndarray, ...]:
    starts, chosen = [0], []
    for ofs in functions:
        for neighbor in range(len(functions)):
            chosen += [(column, f) for column, f in enumerate(ofs) if f.kind == _RADIAL and f.neighbors == (neighbor,)]
            starts.append(len(chosen))
    etas, shifts = (np.array([getattr(f, name) for _, f in chosen], dtype=float) for name in ("eta", "shift"))
    return np.array(starts), etas, shifts, np.array([column for column, _ in chosen], dtype=np.int64)


def _angular(functions: list[list[_Function]]) -> tuple[np.ndarray, ...]:
    """Functions of a triple of elements that share η share an exponential."""
    count = len(functions)
    pair_starts, etas, eta_starts, chosen = [0], list[float](), [0], list[tuple[int, _Function]]()
    for ofs in functions:
        for pair in ((a, b) for a in range(count) for b in range(count)):
            here = [(column, f) for column, f in enumerate(ofs) if f.kind == _ANGULAR and f.neighbors == pair]
            for eta in sorted({f.eta for _, f in here}):
                chosen += [(column, f) for column, f in here if f.eta == eta]
                etas.append(eta)
                eta_starts.append(len(chosen))
            pair_starts.append(len(etas))
    signs, zetas = (np.array([getattr(f, name) for _, f in chosen], dtype=float) for name in ("sign", "zeta"))
    whole = np.where(zetas == np.round(zetas), zetas, -1.0).astype(np.int64)
    columns = np.array([column for column, _ in chosen], dtype=np.int64)
    return np.array(pair_starts), np.array(etas, dtype=float), np.array(eta_starts), signs, zetas, whole, columns
