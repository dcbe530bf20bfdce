"""Proton-disordered ice Ih without a net dipole."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from ase import Atoms

from goniometer.errors import InputError

#: Molecules of the orthorhombic cell, which is 7.85 × 7.38 × 9.07 Å at 0.92 g/cm³.
UNIT, EDGES = 16, (7.848, 7.377, 9.066)
# |Σ u| of the dipoles of the molecules, each a unit vector. A network with a dipole has more than 1; GenIce2's lattice
# is rounded to 0.001 Å or so, which leaves 0.05 in 96 molecules.
_NO_DIPOLE = 0.5
# Molecules of a cell, and cells: GenIce2 takes hours for as many.
_MOST = 10**5
# How often another network is drawn for one without a dipole, or one that was not there yet.
_TRIALS = 50


def ice(molecules: int = 96, count: int = 1, seed: int = 0) -> list[Atoms]:
    """Cells of ice Ih, each with other protons, by GenIce2 (M. Matsumoto et al., J. Comput. Chem. 39, 61 (2018)).

    Every oxygen has two near and two far protons (the ice rules), the dipoles of the molecules sum to zero but for the
    rounding of GenIce2's lattice, and no two of the cells have the same network. Cells are orthorhombic, at 0.92 g/cm³,
    as near to cubes as so many molecules can be; molecules are whole, in the order O, H, H, with the geometry of TIP3P.

    Parameters
    ----------
    molecules
        A multiple of 16.
    count
        How many cells.
    seed
        Of the protons; the same cells for the same seed.

    Raises :class:`InputError` for a number that is no multiple of 16, without GenIce2, and if it finds no network.
    """
    if molecules < UNIT or molecules % UNIT:
        raise InputError(f"ice has a multiple of {UNIT} molecules, not {molecules}")
    if molecules > _MOST or count > _MOST:
        raise InputError(f"at most {_MOST} molecules and {_MOST} cells are made, not {max(molecules, count)}")
    if seed < 0:
        raise InputError(f"a seed is 0 or more, not {seed}")
    if count < 1:
        raise InputError(f"one cell or more can be made, not {count}")
    repeat, found, seen = _repeat(molecules // UNIT), list[Atoms](), set[bytes]()
    words = np.random.SeedSequence(seed).generate_state(count * _TRIALS).tolist()
    for number in range(count):
        for word in words[number * _TRIALS : (number + 1) * _TRIALS]:
            atoms, directions = _network(repeat, int(word))
            network = np.round(directions, 3).tobytes()
            if network not in seen and np.linalg.norm(directions.sum(axis=0)) < _NO_DIPOLE:
                break
        else:
            raise InputError(
                f"no network of {molecules} molecules without a dipole, and unlike the {number} before, was found in "
                f"{_TRIALS} trials: take more molecules or fewer cells"
            )
        seen.add(network)
        atoms.info = {"name": f"ice-{molecules}-{seed}-{number}"}
        found.append(atoms)
    return found


def _repeat(cells: int) -> tuple[int, int, int]:
    """How often along each edge, so that the shortest edge is as long as can be."""
    shapes = [
        (a, b, cells // (a * b))
        for a in range(1, cells + 1)
        for b in range(1, cells // a + 1)
        if cells % a == 0 and (cells // a) % b == 0
    ]
    return max(shapes, key=lambda shape: min(n * edge for n, edge in zip(shape, EDGES, strict=True)))


def _network(repeat: tuple[int, int, int], seed: int) -> tuple[Atoms, np.ndarray]:
    """A cell, and the directions of its molecules."""
    try:
        from genice2 import plugin
        from genice2.genice import GenIce
    except ImportError:
        raise InputError("ice is made by GenIce2, which is not installed: pip install 'goniometer[ice]'") from None
    with _drawn_from(seed):
        lattice = plugin.safe_import("lattice", "1h").Lattice()
        raw = plugin.safe_import("format", "raw").Format(stage=[1, 5])
        water = plugin.safe_import("molecule", "tip3p").Molecule()
        said = GenIce(lattice, rep=repeat).generate_ice(raw, water=water, depol="strict")
    # GenIce2 has nm and rows.
    cell = 10.0 * np.asarray(said["repcell"])
    sites, turns = np.asarray(said["reppositions"]), np.asarray(said["rotmatrices"])
    body = 10.0 * np.asarray(water.sites_)[:3]
    body = body - body[0]
    arms = np.einsum("aj,mjk->mak", body, turns)
    positions = (sites - np.floor(sites)) @ cell
    atoms = Atoms("OHH" * len(sites), (positions[:, None] + arms).reshape(-1, 3), cell=cell, pbc=True)
    directions = arms[:, 1:].mean(axis=1)
    return atoms, directions / np.linalg.norm(directions, axis=1, keepdims=True)


@contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    """GenIce2 draws from the generators that all programs share: they are put back, and it speaks only of errors."""
    shared, other, level = np.random.get_state(), random.getstate(), logging.root.manager.disable  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        np.random.set_state(shared)  # noqa: NPY002
        random.setstate(other)
        logging.disable(level)
