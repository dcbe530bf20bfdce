"""Where a model may be trusted: what its training data span."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import units
from ase.data import chemical_symbols
from vesin import ase_neighbor_list

from goniometer.structures.labelled import Labelled, composition_baseline

#: Å. Atoms with no neighbor of an element within this say nothing of the nearest.
REACH = 6.0


def span(samples: Sequence[Labelled]) -> list[str]:
    """Items on labelled structures: densities, nearest distances by pair of elements, energies, forces, temperatures.

    Distances are from each atom of either element to the nearest of the other; energies per atom, less a least-squares
    fit of the composition; temperatures are told where every structure has one in ``info["temperature"]``, in K.
    """
    lines = [f"{len(samples)} structures of {_range([len(s.atoms) for s in samples], 'd')} atoms"]
    periodic = [sample.atoms for sample in samples if sample.atoms.pbc.all()]
    if periodic:
        grams = [atoms.get_masses().sum() / atoms.get_volume() * units._amu * 1e27 for atoms in periodic]
        lines.append(f"density {_range(grams, '.3f')} g/cm³ ({len(periodic)} periodic structures)")
    lines += [f"{pair} {_range(found, '.3f')} Å from one to the nearest" for pair, found in _nearest(samples).items()]
    baseline = composition_baseline(samples)
    energies = [(s.energy - sum(baseline[int(z)] for z in s.atoms.numbers)) / len(s.atoms) for s in samples]
    lines.append(f"energy {_range(1e3 * np.array(energies), '.1f')} meV/atom, less what the composition explains")
    lines.append(f"force on an atom up to {max(np.linalg.norm(s.forces, axis=1).max() for s in samples):.2f} eV/Å")
    temperatures = [sample.atoms.info.get("temperature") for sample in samples]
    if all(isinstance(each, int | float) for each in temperatures):
        lines.append(f"temperature {_range(temperatures, '.0f')} K")
    return lines


def _nearest(samples: Sequence[Labelled]) -> dict[str, list[float]]:
    """Shortest and longest distance to the nearest neighbor, by pair of elements."""
    found: dict[str, list[float]] = {}
    for sample in samples:
        numbers = sample.atoms.numbers
        i, j, distances = ase_neighbor_list("ijd", sample.atoms, REACH)
        elements = np.unique(numbers).tolist()
        for a, b in ((a, b) for a in elements for b in elements if a <= b):
            nearest = np.full(len(numbers), np.inf)
            chosen = ((numbers[i] == a) & (numbers[j] == b)) | ((numbers[i] == b) & (numbers[j] == a))
            np.minimum.at(nearest, i[chosen], distances[chosen])
            near = nearest[np.isfinite(nearest)]
            if len(near):
                pair = f"{chemical_symbols[a]}–{chemical_symbols[b]}"
                found[pair] = [min([*found.get(pair, []), near.min()]), max([*found.get(pair, []), near.max()])]
    return found


def _range(values: Sequence[int] | Sequence[float] | np.ndarray, form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"
