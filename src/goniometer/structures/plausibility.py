"""What looks wrong in labelled data: units off by bohr or hartree, net forces, structures that come twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from ase.units import Bohr, Hartree

from goniometer.structures.labelled import Labelled, composition_baseline

#: Structures that the tests of units look at: the fit is of a few dozen numbers.
SAMPLE = 24
#: Mean nearest distance over the sum of covalent radii: bonded matter has 0.9 to 1.4, in bohr 1.7 to 2.6.
BONDED = (0.72, 1.6)
#: A mean force on an atom beyond this, eV/Å, is more than the noise of a converged calculation.
NET_FORCE = 0.01
#: The elements whose nearest neighbors are not bonded.
NOBLE = frozenset({2, 10, 18, 36, 54, 86})


@dataclass(frozen=True)
class Concerns:
    """What looks wrong. ``units`` are reasons to refuse the data; the rest is for a person to judge."""

    structures: int
    atoms: int
    units: list[str] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    net_forces: list[tuple[str, float]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """One sentence for each finding."""
        found = list(self.units)
        found += [f"{second} is the same structure as {first}" for first, second in self.duplicates]
        if self.net_forces:
            name, largest = max(self.net_forces, key=lambda pair: pair[1])
            found.append(
                f"forces of {len(self.net_forces)} structures do not sum to zero: up to {largest:.3f} eV/Å an atom, "
                f"in {name}"
            )
        return found


def look_for_trouble(samples: Sequence[Labelled]) -> Concerns:
    """Look for units off by bohr and hartree factors, duplicates and net forces."""
    first: dict[str, str] = {}
    duplicates = []
    for sample in samples:
        earlier = first.setdefault(sample.hash, sample.name)
        if earlier != sample.name:
            duplicates.append((earlier, sample.name))
    mean = [(sample.name, float(np.linalg.norm(sample.forces.mean(axis=0)))) for sample in samples]
    chosen = [samples[index] for index in np.unique(np.linspace(0, len(samples) - 1, SAMPLE).astype(int))]
    return Concerns(
        len(samples),
        sum(len(sample.atoms) for sample in samples),
        [*_lengths(chosen), *_consistency(chosen)],
        duplicates,
        [(name, size) for name, size in mean if size > NET_FORCE],
    )


def _lengths(samples: Sequence[Labelled]) -> list[str]:
    """Compare the distance to the nearest neighbor with the sum of the covalent radii."""
    ratios = []
    for sample in samples:
        numbers = sample.atoms.numbers
        if NOBLE & set(numbers.tolist()):
            continue
        i, j, distances = neighbor_list("ijd", sample.atoms, 6.0)
        nearest = np.full(len(numbers), np.inf)
        np.minimum.at(nearest, i, distances / (covalent_radii[numbers[i]] + covalent_radii[numbers[j]]))
        ratios.extend(nearest[np.isfinite(nearest)].tolist())
    if not ratios:
        return []
    ratio = float(np.median(ratios))
    if ratio > BONDED[1]:
        return [f"neighbors are {ratio:.2f} times as far apart as bonded atoms: are the positions in bohr? Give Å"]
    if ratio < BONDED[0]:
        return [
            f"neighbors are {ratio:.2f} times as far apart as bonded atoms: were Å converted once too often? Give Å"
        ]
    return []


def _consistency(samples: Sequence[Labelled]) -> list[str]:
    """Fit a pair potential to the forces, and compare its energies with those given.

    Forces are minus the gradient of the energy only in matching units. A pair potential does not describe matter well,
    but the slope of the given energies over its energies tells 27 or 51 from 1.
    """
    slope = _slope(samples)
    if slope is None:
        return []
    suspects = {
        Hartree: "are the forces in hartree (per Å), but not the energies?",
        1.0 / Hartree: "are the energies in hartree, but not the forces?",
        Hartree / Bohr: "are the forces in hartree/bohr, but not the energies?",
        Bohr / Hartree: "are forces in hartree/bohr converted twice, or the energies divided?",
    }
    factor = min(suspects, key=lambda each: abs(np.log(slope / each)))
    if abs(np.log(slope)) < abs(np.log(slope / factor)):
        return []
    return [f"the energies vary {slope:.3g} times as much as the forces say: {suspects[factor]} Give eV and eV/Å"]


def _slope(samples: Sequence[Labelled]) -> float | None:
    """Slope of the energies over those of a pair potential fitted to the forces; None if they do not go together."""
    if len(samples) < 5:
        return None
    rows, forces, sums = [], [], []
    kinds: dict[tuple[int, int], int] = defaultdict(lambda: len(kinds))
    for sample in samples:
        kinds.update({pair: kinds[pair] for pair in _pairs(sample.atoms.numbers)})
    for sample in samples:
        energy, gradient = _features(sample, dict(kinds))
        rows.append(-gradient.reshape(-1, gradient.shape[-1]))
        forces.append(sample.forces.reshape(-1))
        sums.append(energy)
    matrix, target = np.concatenate(rows), np.concatenate(forces)
    ridge = 1e-3 * np.trace(matrix.T @ matrix) / matrix.shape[1]
    weights = np.linalg.solve(matrix.T @ matrix + ridge * np.eye(matrix.shape[1]), matrix.T @ target)
    baseline = composition_baseline(samples)
    given = np.array([s.energy - sum(baseline[int(z)] for z in s.atoms.numbers) for s in samples])
    sizes = np.array([len(sample.atoms) for sample in samples])
    fitted, given = np.array(sums) @ weights / sizes, given / sizes
    fitted, given = fitted - fitted.mean(), given - given.mean()
    if not fitted.any() or not given.any():
        return None
    correlation = float(fitted @ given / np.sqrt(fitted @ fitted * (given @ given)))
    return float(np.sqrt(given @ given / (fitted @ fitted))) if correlation > 0.7 else None


def _pairs(numbers: np.ndarray) -> list[tuple[int, int]]:
    elements = np.unique(numbers).tolist()
    return [(a, b) for a in elements for b in elements if a <= b]


def _features(sample: Labelled, kinds: dict[tuple[int, int], int]) -> tuple[np.ndarray, np.ndarray]:
    """Sums of Gaussians of the distances, for each pair of elements, and their gradients (N, 3, features)."""
    cutoff, width = 4.0, 0.3
    centres = np.arange(0.6, cutoff, width)
    numbers = sample.atoms.numbers
    i, j, distances, vectors = neighbor_list("ijdD", sample.atoms, cutoff)
    taper = np.cos(0.5 * np.pi * distances / cutoff) ** 2
    slope = -0.5 * np.pi / cutoff * np.sin(np.pi * distances / cutoff)
    gauss = np.exp(-0.5 * ((distances[:, None] - centres) / width) ** 2)
    values = gauss * taper[:, None]
    slopes = gauss * slope[:, None] - values * (distances[:, None] - centres) / width**2
    energy = np.zeros((len(kinds), len(centres)))
    gradient = np.zeros((len(numbers), 3, len(kinds), len(centres)))
    kind = np.array([kinds[min(a, b), max(a, b)] for a, b in zip(numbers[i], numbers[j], strict=True)], dtype=int)
    np.add.at(energy, kind, 0.5 * values)
    # Every pair comes twice, once from either end: each end takes what concerns it.
    along = -(vectors / distances[:, None])[:, :, None] * slopes[:, None, :]
    for index in range(len(kinds)):
        np.add.at(gradient[:, :, index], i[kind == index], along[kind == index])
    return energy.reshape(-1), gradient.reshape(len(numbers), 3, -1)
