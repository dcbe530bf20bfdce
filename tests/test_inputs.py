"""Inputs that must not be ignored in silence: constraints, vectors, occupancies, formats, velocities, stresses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase import constraints as ase_constraints
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.io import write
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner, Result

from goniometer.cli.app import app
from goniometer.data import check_structure, declare_vectors, read_structures, turned, vector_notes
from goniometer.data.trajectory import read_trajectory
from goniometer.dynamics.description import Run
from goniometer.dynamics.run import run, start_of, structure_of
from goniometer.errors import InputError
from goniometer.potentials.ase import AsePotential
from goniometer.rotations import rule
from goniometer.symmetrize.average import Averaged
from springs import Springs
from structures import molecule

EMT_MODEL = "ase.calculators.emt:EMT"
THERMOSTATS: dict[str, dict[str, Any]] = {
    "nve": {},
    "langevin": {"ensemble": "nvt", "thermostat": {"kind": "langevin", "time": 20.0}},
    "svr": {"ensemble": "nvt", "thermostat": {"kind": "svr", "time": 20.0}},
    "gle": {"ensemble": "nvt", "thermostat": {"kind": "gle", "wavenumbers": [4.0, 4000.0]}},
}


def copper() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    return atoms


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def refused(*arguments: object) -> str:
    """The sentence of a command that refuses its input."""
    result = command(*arguments)
    assert isinstance(result.exception, InputError), (result.output, result.exception)
    sentence = str(result.exception)
    assert "\n" not in sentence
    return sentence


def described(structure: Path, **settings: Any) -> Run:
    given = {"structure": str(structure), "timestep": 1.0, "frames_every": 4.0, "length": 0.012, **settings}
    return Run.model_validate({**given, "checks": {"temperature": None, "molecules": None}})


def saved(path: Path, atoms: Atoms) -> Path:
    write(path, atoms)
    return path


# ---- constraints in dynamics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [{"kind": "raw"}, {"kind": "mts", "rule": "klein", "ratio": 2}], ids=["raw", "mts"])
@pytest.mark.parametrize("thermostat", THERMOSTATS)
def test_fixed_atoms_of_a_run_do_not_move_at_all(thermostat: str, strategy: dict[str, Any], tmp_path: Path) -> None:
    atoms = copper()
    free = saved(tmp_path / "free.traj", atoms)
    atoms.set_constraint(ase_constraints.FixAtoms([0, 1]))
    held = saved(tmp_path / "held.traj", atoms)
    settings = {"strategy": strategy, **THERMOSTATS[thermostat]}
    frames = read_trajectory(run(described(held, **settings), tmp_path, potential=AsePotential(EMT())).folder).frames()
    moved = np.abs(frames.positions - frames.positions[0]).max(axis=(0, 1, 3))
    assert (moved[:2] == 0.0).all()
    assert (frames.velocities[:, :, :2] == 0.0).all()
    assert (moved[2:] > 0.001).all()
    energy = frames.observables["conserved_energy"]
    assert np.ptp(energy) < 2e-3 * len(atoms)
    # The control: without the constraint the same atoms move.
    control = read_trajectory(run(described(free, **settings), tmp_path, potential=AsePotential(EMT())).folder).frames()
    assert (np.abs(control.positions - control.positions[0]).max(axis=(0, 1, 3))[:2] > 0.001).all()


@pytest.mark.parametrize("thermostat", ["langevin", "svr", "gle"])
def test_the_temperature_beside_fixed_atoms_is_that_of_the_others(thermostat: str, tmp_path: Path) -> None:
    atoms = molecule()
    rest = atoms.copy()
    atoms.set_constraint(ase_constraints.FixAtoms([1, 3]))
    description = described(
        saved(tmp_path / "molecule.traj", atoms), replicas=200, length=0.1, **THERMOSTATS[thermostat]
    )
    frames = read_trajectory(run(description, tmp_path, potential=Springs(rest, stiffness=0.0)).folder).frames()
    # Kinetic energies of 9 free degrees of freedom of each of 200 molecules: 2/√(2·1800) of their mean, or 3 %.
    measured = frames.observables["temperature"][1:]
    assert abs(measured.mean() - 300.0) < 5.0 * 300.0 * np.sqrt(2.0 / 1800.0)
    kinetic = 0.5 * np.einsum("a,traj->tr", atoms.get_masses(), frames.velocities**2) / units.fs**2
    np.testing.assert_allclose(measured, 2.0 * kinetic[1:].sum(axis=1) / (1800 * units.kB), rtol=1e-9)
    assert (frames.velocities[:, :, [1, 3]] == 0.0).all()


def test_a_run_with_fixed_atoms_resumes_to_the_last_bit(tmp_path: Path) -> None:
    atoms = copper()
    atoms.set_constraint(ase_constraints.FixAtoms([0]))
    description = described(saved(tmp_path / "held.traj", atoms), **THERMOSTATS["langevin"])

    class Killed(BaseException):
        pass

    calls: Iterator[int] = iter(range(7))

    def progress(*_: object) -> None:
        if next(calls, None) is None:
            raise Killed

    whole = run(description, tmp_path / "whole", potential=AsePotential(EMT()))
    with pytest.raises(Killed):
        run(description, tmp_path / "killed", potential=AsePotential(EMT()), progress=progress, checkpoint=0.0)
    killed = run(description, tmp_path / "killed", potential=AsePotential(EMT()))
    one, other = (read_trajectory(each.folder).frames() for each in (whole, killed))
    np.testing.assert_array_equal(one.positions, other.positions)
    np.testing.assert_array_equal(one.velocities, other.velocities)
    np.testing.assert_array_equal(one.observables["conserved_energy"], other.observables["conserved_energy"])


CONSTRAINTS = {
    "FixCartesian": ase_constraints.FixCartesian([0], mask=(True, False, False)),
    "FixedPlane": ase_constraints.FixedPlane([0], (0, 0, 1)),
    "FixedLine": ase_constraints.FixedLine([0], (0, 0, 1)),
    "FixBondLengths": ase_constraints.FixBondLengths([(0, 1)]),
    "FixInternals": ase_constraints.FixInternals(bonds=[[2.5, [0, 1]]]),
    "Hookean": ase_constraints.Hookean(0, 1, k=5.0, rt=2.0),
    "FixScaled": ase_constraints.FixScaled([0], mask=(True, True, True)),
    "ExternalForce": ase_constraints.ExternalForce(0, 1, 0.5),
}


@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_other_constraints_are_refused_by_name_before_the_first_step(kind: str, tmp_path: Path) -> None:
    atoms = copper()
    atoms.set_constraint([ase_constraints.FixAtoms([2]), CONSTRAINTS[kind]])
    description = described(saved(tmp_path / "held.traj", atoms), potential={"model": EMT_MODEL})
    with pytest.raises(InputError, match=f"held.traj: dynamics do not honour the constraint {kind}"):
        run(description, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_run_with_another_constraint_is_another_run(tmp_path: Path) -> None:
    folders = set()
    for number, fixed in enumerate([[], [0], [1]]):
        atoms = copper()
        atoms.set_constraint(ase_constraints.FixAtoms(fixed) if fixed else None)
        path = saved(tmp_path / "held.traj", atoms)
        folders.add(run(described(path, length=0.004), tmp_path, potential=AsePotential(EMT())).folder)
        assert len(folders) == number + 1


def test_nothing_can_move_or_the_centre_of_mass_is_fixed(tmp_path: Path) -> None:
    atoms = copper()
    atoms.set_constraint(ase_constraints.FixAtoms(range(4)))
    with pytest.raises(InputError, match="nothing can move"):
        structure_of(described(saved(tmp_path / "all.traj", atoms)))
    atoms.set_constraint(ase_constraints.FixCom())
    structure_of(described(saved(tmp_path / "com.traj", atoms)))  # as every periodic run has it
    lone = molecule()
    lone.set_constraint(ase_constraints.FixCom())
    with pytest.raises(InputError, match="FixCom"):
        structure_of(described(saved(tmp_path / "lone.traj", lone)))


@pytest.mark.parametrize("name", ["check", "probe"])
def test_probe_and_check_say_that_forces_are_without_constraints(name: str, tmp_path: Path) -> None:
    atoms = copper()
    atoms.set_constraint(ase_constraints.FixAtoms([0, 1]))
    path = saved(tmp_path / "held.traj", atoms)
    # It is said before the model is loaded, which is not there.
    result = command(name, "no-model.pt", path)
    assert "the constraint FixAtoms of held.traj is left out" in result.stderr, result.output
    atoms.set_constraint()
    assert "constraint" not in command(name, "no-model.pt", saved(path, atoms)).stderr
