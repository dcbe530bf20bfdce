"""Averages that still depend on the orientation are measured, and not taken for ones that do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.cell import Cell

from goniometer.dynamics.description import Run
from goniometer.rotations import rule
from goniometer.sampling.change import change
from goniometer.sampling.invariance import Residual, residuals
from goniometer.symmetrization import Averaged
from goniometer.testing.toys import PeriodicToy
from goniometer.trajectories.h5md import Trajectory
from test_liquid import trajectory

HEXAGONAL = [9.0, 9.0, 9.0, 90.0, 90.0, 120.0]
TOY = (
    "from goniometer.testing.toys import PeriodicToy\ndef model():\n    return PeriodicToy(ell={ell}, strength=0.02)\n"
)


def recorded(folder: Path, ell: int, cell: list[float], frames: int = 40) -> Trajectory:
    """Eight atoms anywhere in a cell, and the description of a run with a toy of that ℓ."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    edges = Cell.new(cell).array
    structure = Atoms("Ar8", rng.random((8, 3)) @ edges, cell=edges, pbc=True)
    found = trajectory(folder, structure, structure.positions + rng.normal(scale=0.1, size=(frames, 8, 3)))
    (folder / "toy.py").write_text(TOY.format(ell=ell), encoding="utf-8")
    run = Run.model_validate(
        {
            "potential": {"model": f"{folder / 'toy.py'}:model"},
            "structure": "box",
            "ensemble": "nvt",
            "thermostat": {"kind": "langevin"},
            "length": 1.0,
        }
    )
    found.attributes["description"] = run.model_dump()
    return found


def test_a_rule_that_leaves_the_anisotropy_is_noticed(tmp_path: Path) -> None:
    """Of a hexagonal cell the octahedral rule, of degree 3, leaves copies alike at ℓ = 2, and not at ℓ = 4."""
    options = {"pair": "Ar-Ar", "farthest": 4.0}
    planted = change(recorded(tmp_path / "4", 4, HEXAGONAL), "pair-distribution", "octahedral", options, frames=20)
    assert planted.about["orientations"] == 1
    assert "energies of rotated copies differ by" in planted.about["as_they_are"]
    # Of P_4 about a cubic axis the octahedral group leaves √(7/12), the share of its invariant; from eight numbers.
    assert 0.4 < planted.about["residual_meV"] / planted.about["symmetry_error_meV"] < 1.2
    assert planted.about["residual_over_lattice_meV"] > 0.0
    # Control: a rule that resolves ℓ = 4, and an error that the octahedral rule resolves.
    for ell, by in ((4, "gauss:5"), (2, "octahedral")):
        run = recorded(tmp_path / f"{ell}-{by[:5]}", ell, HEXAGONAL)
        found = change(run, "pair-distribution", by, options, frames=8)
        assert found.about["orientations"] == 24
        assert "as_they_are" not in found.about
        assert found.about["residual_meV"] < 1e-6 * found.about["symmetry_error_meV"]
        assert found.about["residual_over_lattice_meV"] < 1e-6


def test_what_the_copies_of_a_cube_cannot_see_is_stated(tmp_path: Path) -> None:
    """In a cube the octahedral average is exact for all copies, and still depends on the orientation beyond them."""
    run = recorded(tmp_path / "cube", 4, [9.0, 9.0, 9.0, 90.0, 90.0, 90.0])
    found = change(run, "potential-energy", "octahedral", frames=8)
    assert found.about["orientations"] == 48
    assert "residual_over_lattice_meV" not in found.about
    assert 0.4 < found.about["residual_meV"] / found.about["symmetry_error_meV"] < 1.2


def test_residuals_are_those_of_the_toy(tmp_path: Path) -> None:
    """The standard deviation over random rotations against the known one, of many frames."""
    run, toy = recorded(tmp_path / "toy", 4, HEXAGONAL, 30), PeriodicToy(ell=4, strength=0.02)
    over = rule("octahedral", inversion=True)
    found, of_lattice = residuals(run, Averaged(toy, over), np.arange(30), frames=30)
    variances = []
    for positions in run.frames().positions[:, 0]:
        atoms = run.replica.copy()
        atoms.positions = positions
        variances.append(toy.variance(atoms))
    assert found.degrees == 60
    assert found.unsymmetrized == pytest.approx(np.sqrt(np.mean(variances)), rel=0.3)
    assert found.averaged == pytest.approx(np.sqrt(7.0 / 12.0 * np.mean(variances)), rel=0.3)
    assert of_lattice is not None
    assert of_lattice.averaged > 0.1 * found.averaged
    none, _ = residuals(run, Averaged(toy, rule("gauss:5", inversion=True)), np.arange(30), frames=2)
    assert none.averaged < 1e-9 * none.unsymmetrized


def test_what_is_negligible_follows_from_the_error_of_the_result() -> None:
    alternating = 22e-3 * (-1.0) ** np.arange(400)
    assert Residual(0.9e-3, 20e-3, 8).negligible(alternating[:100], 300.0)
    assert not Residual(0.9e-3, 20e-3, 8).negligible(alternating, 300.0)
    assert not Residual(2e-3, 20e-3, 8).negligible(alternating[:100], 300.0)
    # Where the free energies of orbits scatter less, so does the error of what has no direction.
    assert not Residual(0.9e-3, 20e-3, 8).negligible(0.1 * alternating[:100], 300.0)
    assert Residual(1e-6, 1e-6, 8).negligible(1e-4 * alternating, 300.0), "rounding of a model without an error"
    assert Residual(0.0, 0.0, 0).negligible(alternating, 300.0), "a cell whose copies are the frame and its inverse"
    pooled = Residual.pooled([Residual(3e-3, 1e-3, 2), Residual(0.0, 1e-3, 2)])
    assert pooled.averaged == pytest.approx(3e-3 / np.sqrt(2.0))
    assert (pooled.unsymmetrized, pooled.degrees) == (pytest.approx(1e-3), 4)
