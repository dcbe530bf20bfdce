"""Measure the symmetry errors that docs/results.md compares with arXiv 2406.17747.

    python scripts/measure_symmetry_errors.py MODEL --test-set liquid-dft.xyz --liquid liquid-512.xyz \\
        --molecule molecule-nvt.xyz --ice ice-start.xyz --polar -o MODEL.json

The files are structures of the archive of that article (Materials Cloud, doi:10.24435/materialscloud:kz-3b); each may
be left out, and sets that are already in the output are kept. ``--test-set`` takes labelled boxes: those that the card
of the model names as training or validation structures are used only for the relation of the energy error to the
dipole. ``--molecule`` takes successive frames of one isolated molecule. ``--polar`` makes cells of ice with a net
dipole by GenIce2: proton-ordered ice XI, and proton-disordered cells of ice Ih that were not made unpolarized.

Definitions, for a structure x, a grid Q and the reference R, which is 3i, or 2i for ice as in the article: ``dE`` is
E_Q(x) − E_R(x) in the input orientation (meV), ``dF`` the mean over components of |F_Q(x) − F_R(x)| (meV/Å), ``spread``
the root mean square over the rotations of R of E(g) − E_R (meV), and ``dipole`` the sum over molecules of the unit
vectors along their dipoles. A mean over N structures has the standard error of N independent ones, or of consecutive
blocks for frames of one trajectory; a single structure has none.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from ase.io import read

import goniometer
from goniometer.errors import InputError
from goniometer.files.packaged import packaged_files
from goniometer.potentials import Potential
from goniometer.rotations import PAPER_GRIDS, grid_rule
from goniometer.structures.labelled import read_labelled
from goniometer.studies.ice_cells import _drawn_from, _repeat
from goniometer.symmetrization import response
from goniometer.training.card import card_path, known_hashes

SCHEMA = "goniometer/symmetry-errors/1"
#: Consecutive frames of a trajectory in one block.
BLOCK = 25
MEV = 1e3


def by_grid(potential: Potential, atoms: Atoms, reference: str) -> tuple[dict[str, tuple[float, np.ndarray]], float]:
    """Energy and forces averaged over the grids of the study up to the reference, and the spread of the energy.

    Parameters
    ----------
    potential
        The model.
    atoms
        One structure of N atoms.
    reference
        ``2i`` or ``3i``.

    Returns
    -------
    Energy (eV) and forces (N, 3) in eV/Å by grid, and the root mean square deviation of the energy from its mean over
    the rotations of the reference (eV).
    """
    found: dict[str, tuple[float, np.ndarray]] = {}
    spread = 0.0
    for whole, half in (("i", "none"), ("2i", "2"), ("3i", "3"))[: 3 if reference == "3i" else 2]:
        over = grid_rule(whole)
        answer = response(potential, atoms, over.matrices)
        proper = np.where(np.linalg.det(over.matrices) > 0.0, over.weights, 0.0)
        for grid, weights in ((whole, over.weights), (half, proper / proper.sum())):
            found[grid] = float(weights @ answer.energies), np.tensordot(weights, answer.forces, axes=1)
        spread = float(np.sqrt(over.weights @ (answer.energies - found[whole][0]) ** 2))
    return found, spread


def dipole(atoms: Atoms) -> tuple[np.ndarray, int]:
    """Sum over molecules of water of the unit vectors from the oxygen to the midpoint of the hydrogen atoms, (3,).

    Each hydrogen atom belongs to the nearest oxygen. An oxygen that does not have two, as some in the boxes of the
    study, is no molecule; the second number is that of molecules.
    """
    oxygen, hydrogen = (np.flatnonzero(atoms.numbers == number) for number in (8, 1))
    arms = atoms.positions[hydrogen][None] - atoms.positions[oxygen][:, None]
    arms = find_mic(arms.reshape(-1, 3), atoms.cell, atoms.pbc)[0].reshape(arms.shape)
    nearest = np.linalg.norm(arms, axis=-1).argmin(axis=0)
    sums = np.zeros((len(oxygen), 3))
    np.add.at(sums, nearest, arms[nearest, np.arange(len(hydrogen))])
    vectors = sums[np.bincount(nearest, minlength=len(oxygen)) == 2]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors.sum(axis=0)), len(vectors)


def torque_of(atoms: Atoms, forces: np.ndarray) -> float:
    """The length of Σ r × F about the centre of mass, in eV: the rotational gradient of the energy."""
    arms = atoms.positions - atoms.get_center_of_mass()
    return float(np.linalg.norm(np.cross(arms, forces).sum(axis=0)))


def row(potential: Potential, name: str, atoms: Atoms, reference: str) -> dict[str, Any]:
    """What is measured of one structure, see the head of this file."""
    found, spread = by_grid(potential, atoms, reference)
    energy, forces = found[reference]
    grids = [grid for grid in PAPER_GRIDS if grid in found and grid != reference]
    torque = {} if atoms.pbc.any() else {"torque": {grid: MEV * torque_of(atoms, found[grid][1]) for grid in found}}
    return {
        "name": name,
        **torque,
        "molecules": len(atoms) // 3,
        "dipole": dipole(atoms)[0].round(4).tolist(),
        "spread": MEV * spread,
        "dE": {grid: MEV * (found[grid][0] - energy) for grid in grids},
        "dF": {grid: MEV * float(np.abs(found[grid][1] - forces).mean()) for grid in grids},
    }


def mean_with_error(values: Sequence[float], block: int = 1) -> list[float | None]:
    """Mean and standard error, the latter from blocks of consecutive values; None for fewer than two blocks."""
    series = np.asarray(values, dtype=float)
    blocks = series[: len(series) // block * block].reshape(-1, block).mean(axis=1)
    error = float(blocks.std(ddof=1) / np.sqrt(len(blocks))) if len(blocks) > 1 else None
    return [float(series.mean()), error]


def summary(rows: Sequence[dict[str, Any]], block: int = 1) -> dict[str, Any]:
    """By grid the mean of |dE| per structure and of dF, with errors; of the unsymmetrized model figures per atom."""
    torques: dict[str, Any] = {}
    if "torque" in rows[0]:
        squares = {grid: [each["torque"][grid] ** 2 for each in rows] for grid in rows[0]["torque"]}
        torques = {"rms_torque_meV": {g: root(mean_with_error(each, block)) for g, each in squares.items()}}
    per_atom = np.array([abs(each["dE"]["none"]) / (3 * each["molecules"]) for each in rows])
    return {
        "structures": len(rows),
        "block": block,
        "energy_meV": {g: mean_with_error([abs(r["dE"][g]) for r in rows], block) for g in rows[0]["dE"]},
        "forces_meV_per_A": {g: mean_with_error([r["dF"][g] for r in rows], block) for g in rows[0]["dF"]},
        **torques,
        "energy_meV_per_atom": {
            "least": float(per_atom.min()),
            "largest": float(per_atom.max()),
            "rms": float(np.sqrt(np.mean(per_atom**2))),
        },
    }


def measured(
    potential: Potential, named: Sequence[tuple[str, Atoms]], *, reference: str = "3i", block: int = 1
) -> dict[str, Any]:
    """Rows and summary of one set of structures; a long set keeps only the summary."""
    rows = []
    for number, (name, atoms) in enumerate(named):
        if number % 50 == 0 or block == 1:
            print(f"{number + 1}/{len(named)} {name}", file=sys.stderr, flush=True)
        rows.append(row(potential, name, atoms, reference))
    return {"reference": reference, **summary(rows, block), **({} if block > 1 else {"rows": rows})}


def labelled_set(potential: Potential, source: Path, known: dict[str, str], reference: str) -> dict[str, Any]:
    """Test errors and symmetry errors of the boxes that the model was not trained on."""
    samples = [each for each in read_labelled([str(source)]) if each.hash not in known]
    found = measured(potential, [(each.hash, each.atoms) for each in samples], reference=reference)
    predictions = [potential.predict(each.atoms) for each in samples]
    energies = np.array([float(p.energies[0]) - s.energy for p, s in zip(predictions, samples, strict=True)])
    energies = MEV * (energies - energies.mean())
    errors = [MEV * (p.forces[0] - s.forces) for p, s in zip(predictions, samples, strict=True)]
    found["test_errors"] = {
        "energy_MAE_meV": mean_with_error(np.abs(energies)),
        "energy_RMSE_meV": root(mean_with_error(energies**2)),
        "force_MAE_meV_per_A": mean_with_error([float(np.abs(each).mean()) for each in errors]),
        "force_RMSE_meV_per_A": root(mean_with_error([float(np.mean(each**2)) for each in errors])),
    }
    return found


def root(pair: list[float | None]) -> list[float | None]:
    """The root of a mean square, and its error."""
    value, error = pair
    assert value is not None
    return [value**0.5, None if error is None else error / (2 * value**0.5)]


def dipole_relation(potential: Potential, source: Path) -> dict[str, Any]:
    """Fit E − E_i = a·Σu over boxes, the training boxes among them.

    ``R2`` is the share of the mean square of E − E_i that the fit explains. The Kirkwood factor is ⟨|Σu|²/N⟩ with N the
    number of molecules. ``intact`` is the same of boxes in which every oxygen has two hydrogen atoms.
    """
    inversion, rows = grid_rule("i"), []
    given = np.linalg.det(inversion.matrices) > 0.0
    for _, atoms, *_ in read_labelled([str(source)]):
        energies = response(potential, atoms, inversion.matrices).energies
        total, count = dipole(atoms)
        rows.append((MEV * float(energies[given][0] - energies.mean()), count == len(atoms) // 3, count, *total))
    values = np.array(rows)
    intact = values[values[:, 1] > 0]
    return {**_relation(values), "intact": _relation(intact)}


def _relation(values: np.ndarray) -> dict[str, Any]:
    """The fit for some boxes: rows of the error in meV, whether all molecules are intact, their number, and Σu."""
    errors, counts, sums = values[:, 0], values[:, 2], values[:, 3:]
    slope, *_ = np.linalg.lstsq(sums, errors, rcond=None)
    rest = errors - sums @ slope
    return {
        "structures": len(values),
        "slope_meV": slope.tolist(),
        "R2": float(1.0 - rest @ rest / (errors @ errors)),
        "residual_rms_meV": float(np.sqrt(np.mean(rest**2))),
        "error_rms_meV": float(np.sqrt(np.mean(errors**2))),
        "mean_abs_error_meV": mean_with_error(np.abs(errors)),
        "kirkwood_factor": mean_with_error((sums**2).sum(axis=1) / counts),
    }


def polar_cells() -> list[tuple[str, Atoms]]:
    """Ice with a net dipole: ice XI, polar along z, and four proton-disordered cells of ice Ih (96 molecules)."""
    cells = [("ice XI", genice("11i", (2, 2, 3), 0))]
    cells += [(f"ice Ih, polarized, seed {seed}", genice("1h", _repeat(6), seed)) for seed in (0, 1, 2, 4)]
    return cells


def genice(lattice: str, repeat: tuple[int, int, int], seed: int) -> Atoms:
    """A cell of GenIce2 whose net dipole is left as it comes; molecules are whole, in the order O, H, H."""
    from genice2 import plugin
    from genice2.genice import GenIce

    with _drawn_from(seed):
        water = plugin.safe_import("molecule", "tip3p").Molecule()
        raw = plugin.safe_import("format", "raw").Format(stage=[1, 5])
        made = GenIce(plugin.safe_import("lattice", lattice).Lattice(), rep=repeat).generate_ice(
            raw, water=water, depol="none"
        )
    cell, sites = 10.0 * np.asarray(made["repcell"]), np.asarray(made["reppositions"])
    body = 10.0 * np.asarray(water.sites_)[:3]
    arms = np.einsum("aj,mjk->mak", body - body[0], np.asarray(made["rotmatrices"]))
    positions = (sites - np.floor(sites)) @ cell
    return Atoms("OHH" * len(sites), (positions[:, None] + arms).reshape(-1, 3), cell=cell, pbc=True)


def structures(source: Path) -> list[tuple[str, Atoms]]:
    """Those of a file, by number or by their name in the archive."""
    frames = read(source, index=":")
    return [(str(a.info.get("archive_name", f"{source.stem} {n}")), a) for n, a in enumerate(frames)]


def isolated(source: Path) -> list[tuple[str, Atoms]]:
    """The same without a cell: the archive keeps the molecule in a cell of 100 Å."""
    return [(name, Atoms(atoms.numbers, atoms.positions)) for name, atoms in structures(source)]


def main(arguments: list[str] | None = None) -> None:
    """Measure what was given and is not in the output yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    for name in ("test-set", "liquid", "molecule", "ice"):
        parser.add_argument(f"--{name}", type=Path, metavar="FILE")
    parser.add_argument("--polar", action="store_true")
    parser.add_argument("--reference", choices=("2i", "3i"), default="3i", help="of the test set")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        measure(given)
    except InputError as error:
        sys.exit(f"measure_symmetry_errors: {error}")


def measure(given: argparse.Namespace) -> None:
    """Write the document after every set."""
    potential = goniometer.load(given.model, dtype=given.dtype)
    known = known_hashes(card_path(Path(packaged_files("models", ".pt").get(given.model, given.model)))) or {}
    document = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    document |= {"schema": SCHEMA, "model": given.model, "dtype": given.dtype}
    document["versions"] = {name: version(name) for name in ("goniometer", "torch", "metatomic-torch", "ase")}
    sets = document.setdefault("sets", {})
    makers = {
        "molecule": given.molecule and (lambda: measured(potential, isolated(given.molecule), block=BLOCK)),
        "dipole": given.test_set and (lambda: dipole_relation(potential, given.test_set)),
        "test set": given.test_set and (lambda: labelled_set(potential, given.test_set, known, given.reference)),
        "liquid": given.liquid and (lambda: measured(potential, structures(given.liquid))),
        "polar ice": given.polar and (lambda: measured(potential, polar_cells(), reference="2i")),
        "ice": given.ice and (lambda: measured(potential, structures(given.ice), reference="2i")),
    }
    for name, make in makers.items():
        if make and name not in sets:
            sets[name] = make()
            given.out.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
