"""Proton-disordered ice: does a broken symmetry change energies, relaxations, and which protons are preferred?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from goniometer.dynamics.optimization import Relaxed
from goniometer.dynamics.relaxation import relax_all
from goniometer.errors import InputError
from goniometer.observables.result import Axis, Observable
from goniometer.potentials import Potential
from goniometer.potentials.loading import identity, load
from goniometer.rotations import check_grids, grid_rule
from goniometer.structures import NamedStructure
from goniometer.studies.experiments.results import CellEnergies, IceStudy
from goniometer.studies.ice_cells import ice as cells
from goniometer.symmetrization import Averaged

#: Cells by size: numbers of molecules, one cell each.
SIZES: dict[str, tuple[int, ...]] = {
    "smoke": (16, 16),
    "laptop": (96, 96, 96, 128, 128, 128, 192, 192, 192),
    "paper": (96, 96, 192, 192, 288, 384, 432, 576, 768),
}
#: For the starting structures.
BY_GRID = ("none", "i", "2", "2i", "T", "O")
# Steps that a relaxation of ice takes, typically: what is to come is counted with it.
_TYPICAL = 75
#: What else can be set: molecules of each cell, and steps of a relaxation.
SETTINGS = ("molecules", "steps")
#: What is laid side by side: the model as it is, and its average over the study's grid.
REFERENCE = "2i"
_QUANTITIES = (
    "starting energy",
    "relaxation energy",
    "relative energy",
    "spread of relative energies",
    "starting forces",
    "relaxed positions",
)
_UNITS = ("meV/atom", "meV/atom", "meV/molecule", "meV/molecule", "meV/Angstrom", "Angstrom")
#: Those of starting structures alone.
_STARTING = ("starting energy", "starting forces")


def ice(
    folder: Path,
    *,
    model: str = "pet-water",
    dtype: str | None = None,
    size: str = "smoke",
    reference: str = REFERENCE,
    grids: Sequence[str] = BY_GRID,
    structures: Sequence[NamedStructure] | None = None,
    molecules: Sequence[int] | int | None = None,
    seed: int = 0,
    steps: int = 1000,
    progress: Callable[[int, int, str], None] | None = None,
) -> IceStudy:
    """Relax cells of ice with a model and with its average; what is finished in the folder is not done again.

    ===============================  ===============================================================================
    ``starting energy``              rms over cells of E_raw − E_avg of the starting structures, meV/atom
    ``relaxation energy``            the same of E(end) − E(start), each by its own potential, meV/atom
    ``relative energy``              the same of relaxed energies less their mean over cells, meV/molecule
    ``spread of relative energies``  the standard deviation of the averaged ones among themselves, meV/molecule
    ``starting forces``              rms of F_raw − F_avg of the starting structures, a component, meV/Å
    ``relaxed positions``            rms of the relaxed positions of both, a component, less the mean shift, Å
    ===============================  ===============================================================================

    Energies are sums in float64 of those of atoms. A shift of all atoms costs nothing and is taken out of positions.
    Errors are those of the rms over cells, by leaving each out.

    Parameters
    ----------
    folder
        Of the relaxations.
    model, dtype
        As for :func:`goniometer.load`.
    size
        Which cells are made; or ``molecules``, the number of each cell's; or ``structures`` of one's own.
    reference
        The grid of the average.
    grids
        For the starting structures.
    steps
        At most; with none the starting structures are looked at, and nothing is relaxed.

    Raises :class:`InputError` for what cannot be run.
    """
    check_grids((reference, *grids))
    check_settings({"molecules": molecules, "steps": steps})
    if structures is None:
        structures = _made(_cells(size, molecules), seed)
    named = list(structures)
    potential = load(model, dtype=dtype)
    averaged = Averaged(potential, grid_rule(reference))
    known = identity(model)
    raw = relax_all(named, potential, folder / "raw", identity=known, steps=steps, progress=progress)
    mean = relax_all(named, averaged, folder / reference, identity=known, steps=steps, progress=progress)
    table = _compared(raw, mean, _QUANTITIES if steps else _STARTING)
    by_grid = _by_grid(named, potential, mean, tuple(grids), reference, progress)
    table.save(folder / "ice-table.nc")
    by_grid.save(folder / "ice-grids.nc")
    return IceStudy(model, table, by_grid, raw, mean)


def _cells(size: str, molecules: Sequence[int] | int | None) -> tuple[int, ...]:
    if size not in SIZES:
        raise InputError(f"ice has no size '{size}'; its sizes are {', '.join(SIZES)}")
    if molecules is None:
        return SIZES[size]
    return (molecules,) if isinstance(molecules, int) else tuple(molecules)


def effort(size: str, molecules: Sequence[int] | int | None = None, steps: int = 1000) -> float:
    """How many evaluations of the raw model :func:`ice` takes, times the molecules of each, by typical relaxations."""
    rotations = {grid: len(grid_rule(grid)) for grid in (REFERENCE, *BY_GRID)}
    each = (1 + min(steps, _TYPICAL)) * (1 + rotations[REFERENCE]) + sum(rotations[grid] for grid in BY_GRID)
    return float(each * sum(_cells(size, molecules)))


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise :class:`InputError` for a key that is none of :data:`SETTINGS`, and for a value that cannot be."""
    for key, value in settings.items():
        if key == "steps":
            if not _whole(value) or value < 0:
                raise InputError(f"'steps' is {value!r}: give a whole number, 0 for no relaxation")
        elif key == "molecules":
            numbers = value if isinstance(value, list | tuple) else [value]
            if value is not None and not (numbers and all(map(_whole, numbers))):
                raise InputError(f"'molecules' is {value!r}: give the whole number of each cell's, [96, 96, 128]")
        else:
            raise InputError(f"'{key}' is no setting of ice; there are {', '.join(SETTINGS)}")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _made(numbers: tuple[int, ...], seed: int) -> list[NamedStructure]:
    made = {each: iter(cells(each, numbers.count(each), seed)) for each in dict.fromkeys(numbers)}
    atoms = [next(made[each]) for each in numbers]
    return [NamedStructure(str(each.info["name"]), each) for each in atoms]


def _compared(raw: Mapping[str, Relaxed], averaged: Mapping[str, Relaxed], quantities: tuple[str, ...]) -> Observable:
    rows = []
    for name, one in raw.items():
        other = averaged[name]
        atoms = len(one.start)
        shift = one.end.positions - other.end.positions
        shift -= shift.mean(axis=0)
        rows.append(
            (
                1e3 * (_energy(one.start) - _energy(other.start)) / atoms,
                1e3 * (_energy(one.end) - _energy(one.start) - _energy(other.end) + _energy(other.start)) / atoms,
                _per_molecule(one),
                _per_molecule(other),
                1e3 * np.sqrt(np.mean((one.start.get_forces() - other.start.get_forces()) ** 2)),
                np.sqrt(np.mean(shift**2)),
            )
        )
    values, wanted = np.array(rows), [_QUANTITIES.index(each) for each in quantities]

    def figures(each: np.ndarray) -> np.ndarray:
        relative = each[:, 2:4] - each[:, 2:4].mean(axis=0)
        freedom = len(each) - 1 or np.nan  # a lone cell is relative to none
        return np.array(
            [
                _rms(each[:, 0]),
                _rms(each[:, 1]),
                np.sqrt(((relative[:, 0] - relative[:, 1]) ** 2).sum() / freedom),
                np.sqrt((relative[:, 1] ** 2).sum() / freedom),
                _rms(each[:, 4]),
                _rms(each[:, 5]),
            ]
        )[wanted]

    axes = {"quantity": Axis(np.array(quantities))}
    about = {"cells": len(values)}
    if quantities != _STARTING:
        about["converged"] = int(all(each.converged for each in (*raw.values(), *averaged.values())))
    unit = ", ".join(_UNITS[each] for each in wanted)
    return Observable("ice", unit, figures(values), _jackknife(values, figures), axes, about)


def relative_energies(study: IceStudy) -> CellEnergies | None:
    """Of the relaxed cells; None where nothing was relaxed, or a single cell."""
    if len(study.raw) < 2 or "relative energy" not in study.table.axes["quantity"].values:
        return None
    both = [[_per_molecule(each) for each in by.values()] for by in (study.raw, study.averaged)]
    raw, averaged = (np.array(each) - np.mean(each) for each in both)
    return CellEnergies(list(study.raw), raw.tolist(), averaged.tolist())


def _by_grid(
    named: Sequence[NamedStructure],
    potential: Potential,
    reference: Mapping[str, Relaxed],
    grids: tuple[str, ...],
    name: str,
    progress: Callable[[int, int, str], None] | None,
) -> Observable:
    """Symmetry errors of the starting structures by grid: energies in meV/atom and forces in meV/Å."""
    values, errors = [], []
    for number, grid in enumerate(grids):
        # The reference has been tested to be a potential.
        averaged, rows = Averaged(potential, grid_rule(grid), verify=False), []
        for label, atoms in named:
            if progress is not None:
                progress(number, len(grids), f"{grid} on {label}")
            said, exact = averaged.predict(atoms), reference[label].start
            energy = 1e3 * (float(said.energies[0]) - _energy(exact)) / len(atoms)
            rows.append((energy, 1e3 * np.sqrt(np.mean((said.forces[0] - exact.get_forces()) ** 2))))
        values.append(np.apply_along_axis(_rms, 0, np.array(rows)))
        errors.append(_jackknife(np.array(rows), lambda each: np.apply_along_axis(_rms, 0, each)))
    axes = {"grid": Axis(np.array(grids)), "quantity": Axis(np.array(["energy", "forces"]))}
    about = {"reference": name, "cells": len(named)}
    return Observable("ice_by_grid", "meV/atom, meV/Angstrom", np.array(values), np.array(errors), axes, about)


def _energy(atoms) -> float:  # type: ignore[no-untyped-def]
    return float(atoms.get_potential_energy())


def _per_molecule(cell: Relaxed) -> float:
    """The relaxed energy in meV, of three atoms."""
    return 3e3 * _energy(cell.end) / len(cell.end)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _jackknife(values: np.ndarray, of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The standard error of a figure over cells; NaN for fewer than three."""
    count = len(values)
    if count < 3:
        return np.full_like(of(values), np.nan)
    without = np.stack([of(np.delete(values, each, axis=0)) for each in range(count)])
    return np.asarray(np.sqrt((count - 1) / count * ((without - without.mean(axis=0)) ** 2).sum(axis=0)))


def summary(study: IceStudy) -> list[str]:
    """Figures of the study as lines of text."""
    lines = [f"{study.model}: {study.table.about['cells']} cells of ice, raw against averaged"]
    for name, value, error, unit in zip(
        study.table.axes["quantity"].values,
        study.table.values,
        study.table.errors,
        study.table.unit.split(", "),
        strict=True,
    ):
        lines.append(f"  {name}: {value:.3g} ± {error:.1g} {unit}")
    for grid, (energy, forces) in zip(study.grids.axes["grid"].values, study.grids.values, strict=True):
        lines.append(
            f"  {grid!s:>4}: energy {1e3 * energy:.3g} µeV/atom, forces {forces:.3g} meV/Å on starting structures"
        )
    if not study.table.about.get("converged", True):
        lines.append("  not all relaxations have converged: raise the number of steps")
    return lines
