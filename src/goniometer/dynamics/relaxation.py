"""Many structures relaxed, each kept when it is finished."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import ase.io
import numpy as np

from goniometer.dynamics.optimization import Relaxed, Tolerances, relax
from goniometer.errors import InputError
from goniometer.files.records import locked, make_folder, remove_partial, replace_text, replacing
from goniometer.potentials.base import Potential
from goniometer.structures import NamedStructure, check_structure
from goniometer.structures.labelled import structure_hash


def relax_all(
    structures: Sequence[NamedStructure],
    potential: Potential,
    folder: Path,
    tolerances: Tolerances | None = None,
    *,
    identity: str = "",
    steps: int = 1000,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Relaxed]:
    """Relax structures that are not yet in a folder, and read those that are.

    The folder holds a file NAME-HASH.extxyz with the start and the end of each structure, with energies and forces; the
    hash is that of the structure, the potential (its name, and its ``identity``: see
    :func:`goniometer.potentials.loading.identity`) and the tolerances. A structure that a kill cut off is
    begun again, and ends the same.

    Raises :class:`InputError` for structures with one name, and if the folder cannot be written, and
    :class:`PotentialError` before anything is written if an average is no potential on one that is to be relaxed.
    """
    names = [each.name for each in structures]
    if len(set(names)) < len(names):
        raise InputError("two structures have one name: give each its own")
    wanted, paths = tolerances or Tolerances(), {}
    said = f"{potential.name} {potential.dtype} {identity}"
    for name, atoms in structures:
        check_structure(atoms, name)
        paths[name] = folder / f"{_plain(name)}-{_key(atoms, said, wanted, steps)}.extxyz"
        if not paths[name].exists():
            potential.verify(atoms)
    make_folder(folder)
    with locked(folder, f"the relaxations in '{folder}'"):
        remove_partial(folder)
        return _relaxed(structures, potential, paths, wanted, steps, progress, folder)


def _relaxed(
    structures: Sequence[NamedStructure],
    potential: Potential,
    paths: Mapping[str, Path],
    wanted: Tolerances,
    steps: int,
    progress: Callable[[int, int, str], None] | None,
    folder: Path,
) -> dict[str, Relaxed]:
    found = {}
    for number, (name, atoms) in enumerate(structures):
        kept = _read(paths[name])
        if kept is None:

            def told(done: int, whole: int, number: int = number, name: str = name) -> None:
                if progress is not None:
                    progress(number, len(structures), f"{name}, step {done} of at most {whole}")

            _write(paths[name], relax(atoms, potential, wanted, steps=steps, progress=told))
            kept = _read(paths[name])
        assert kept is not None  # it has just been written
        found[name] = kept
    summary = {name: _numbers(each) for name, each in found.items()}
    replace_text(folder / "relaxed.json", json.dumps({"potential": potential.name, "structures": summary}, indent=1))
    return found


def _plain(name: str) -> str:
    return "".join(each if each.isalnum() or each in "-_." else "-" for each in name)


def _key(atoms: ase.Atoms, potential: str, tolerances: Tolerances, steps: int) -> str:
    said = f"{structure_hash(atoms)} {potential} {tolerances} {steps}"
    if atoms.constraints:
        said += f" {[each.todict() for each in atoms.constraints]}"
    return sha256(said.encode()).hexdigest()[:12]


def _write(path: Path, found: Relaxed) -> None:
    for atoms in (found.start, found.end):
        # All digits, which the format does not give by itself.
        atoms.info |= {
            "steps": found.steps,
            "converged": found.converged,
            "exact_energy": repr(atoms.calc.results["energy"]),
        }
    with replacing(path) as partial:
        ase.io.write(partial, [found.start, found.end], format="extxyz")


def _read(path: Path) -> Relaxed | None:
    """What was found before; None if there is nothing, or a file that was cut or garbled."""
    if not path.is_file():
        return None
    try:
        start, end = ase.io.read(path, ":", format="extxyz")
        for atoms in (start, end):
            atoms.calc.results["energy"] = float(atoms.info["exact_energy"])
            atoms.get_forces()
        return Relaxed(start, end, int(end.info["steps"]), bool(end.info["converged"]))
    except Exception:  # ASE raises whatever its parser meets
        return None


def _numbers(found: Relaxed) -> Mapping[str, float | int | bool]:
    start, end = found.start.get_potential_energy(), found.end.get_potential_energy()
    return {
        "atoms": len(found.end),
        "start_energy": start,
        "end_energy": end,
        "start_force_rms": float(np.sqrt(np.mean(found.start.get_forces() ** 2))),
        "end_force_max": float(np.abs(found.end.get_forces()).max()),
        "steps": found.steps,
        "converged": found.converged,
    }


def table(found: Mapping[str, Relaxed]) -> list[str]:
    """A line for each structure."""
    lines = []
    for name, each in found.items():
        said = _numbers(each)
        gained = 1e3 * (said["end_energy"] - said["start_energy"]) / said["atoms"]
        lines.append(
            f"{name}: {gained:.3f} meV/atom in {said['steps']} steps, largest force "
            f"{1e3 * said['end_force_max']:.2g} meV/Å{'' if each.converged else ', not converged'}"
        )
    return lines
