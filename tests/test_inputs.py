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
from ase.build import molecule as g2
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.io import write
from ase.stress import full_3x3_to_voigt_6_stress
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner, Result

import goniometer
from goniometer.cli.app import app
from goniometer.dynamics.description import Run
from goniometer.dynamics.run import run, start_of, structure_of
from goniometer.errors import InputError
from goniometer.observables.orientation import default_direction
from goniometer.potentials.ase import AsePotential
from goniometer.rotations import rule
from goniometer.structures import check_structure, declare_vectors, read_structures, turned, vector_notes
from goniometer.studies.experiments.gas import gas
from goniometer.symmetrization.average import Averaged
from goniometer.testing import PeriodicToy
from goniometer.trajectories.h5md import read_trajectory
from springs import Springs
from structures import crystal, molecule

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


@pytest.mark.parametrize(
    "strategy", [{"kind": "raw"}, {"kind": "mts", "rule": "klein", "ratio": 2}], ids=["raw", "mts"]
)
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


# ---- velocities ----------------------------------------------------------------------------------------------------


def trajectory(path: Path, atoms: Atoms, velocities: bool) -> Path:
    """Twenty frames of one structure, 1 fs apart."""
    frames = []
    rng = np.random.default_rng(2)
    for number in range(20):
        frame = atoms.copy()
        frame.info["time"] = float(number)
        if velocities:
            frame.set_momenta(rng.standard_normal((len(atoms), 3)))
        frames.append(frame)
    write(path, frames, format="extxyz")
    return path


@pytest.mark.parametrize(
    ("observable", "options", "periodic"),
    [
        ("angular-momentum", (), False),
        ("temperature", (), True),
        ("velocity-autocorrelation", (), True),
        ("vibrations", ("--set", "window=16.0"), True),
        ("pressure", ("--set", f"model={EMT_MODEL}"), True),
        ("stress", ("--set", f"model={EMT_MODEL}"), True),
    ],
)
def test_what_needs_velocities_is_refused_for_files_without(
    observable: str, options: tuple[str, ...], periodic: bool, tmp_path: Path
) -> None:
    atoms = copper() if periodic else molecule()
    without = trajectory(tmp_path / "without.xyz", atoms, velocities=False)
    sentence = refused("observe", without, "--observable", observable, *options)
    assert "without.xyz' holds no velocities" in sentence
    # The control has them.
    having = trajectory(tmp_path / "having.xyz", atoms, velocities=True)
    result = command("observe", having, "--observable", observable, *options)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "nan" not in result.output.splitlines()[0]


def test_the_temperature_of_a_file_is_that_of_its_velocities(tmp_path: Path) -> None:
    atoms = bulk("Cu", cubic=True) * (3, 3, 3)
    rng, frames = np.random.default_rng(3), []
    for _ in range(40):
        frame = atoms.copy()
        momenta = rng.standard_normal((len(atoms), 3)) * np.sqrt(units.kB * 300.0 * atoms.get_masses())[:, None]
        frame.set_momenta(momenta - momenta.mean(axis=0))
        frames.append(frame)
    write(tmp_path / "rest.xyz", frames)
    result = command("observe", tmp_path / "rest.xyz", "--observable", "temperature", "--spacing", 1)
    assert f"degrees_of_freedom: {3 * len(atoms) - 3}" in result.output
    value = float(result.output.split("=")[1].split("±")[0])
    # 36 frames of 321 degrees of freedom.
    assert abs(value - 300.0) < 5.0 * 300.0 * np.sqrt(2.0 / (36 * 321))
    for frame in frames:
        frame.set_constraint(ase_constraints.FixAtoms(range(8)))
    write(tmp_path / "held.xyz", frames, columns=["symbols", "positions", "momenta", "move_mask"])
    result = command("observe", tmp_path / "held.xyz", "--observable", "temperature", "--spacing", 1)
    assert f"degrees_of_freedom: {3 * (len(atoms) - 8)}" in result.output


def test_a_run_says_which_velocities_it_uses(tmp_path: Path) -> None:
    atoms = copper()
    momenta = np.random.default_rng(4).standard_normal((4, 3))
    atoms.set_momenta(momenta)
    path = saved(tmp_path / "moving.traj", atoms)
    given = atoms.get_velocities() * units.fs
    own, drawn = described(path, velocities="structure"), described(path)
    _, velocities = start_of(own, structure_of(own))
    np.testing.assert_allclose(velocities, given - given.mean(axis=0), atol=1e-12)
    assert not np.allclose(start_of(drawn, structure_of(drawn))[1], velocities)
    description = tmp_path / "md.yaml"
    text = "{potential: {model: '%s'}, structure: %s, timestep: 1, frames_every: 1, length: 0.001%s}"
    description.write_text(text % (EMT_MODEL, path, ""))
    result = command("run", description, "-o", tmp_path / "runs")
    assert "the velocities of moving.traj" in result.stderr
    assert "are not used" in result.stderr
    description.write_text(text % (EMT_MODEL, path, ", velocities: structure"))
    assert "starts with the velocities of moving.traj" in command("run", description, "-o", tmp_path / "runs").stderr
    atoms.set_momenta(None)
    saved(path, atoms)
    assert "holds no velocities" in refused("run", description, "-o", tmp_path / "runs")


def test_velocities_of_the_structure_are_rotated_with_it(tmp_path: Path) -> None:
    atoms = molecule()
    atoms.set_momenta(np.random.default_rng(4).standard_normal((5, 3)))
    description = described(saved(tmp_path / "m.traj", atoms), velocities="structure", orientations="random")
    replica = structure_of(description)
    start, velocities = start_of(description, replica)
    centred = [each - np.mean(each, axis=0) for each in (replica.positions, start.positions)]
    (rotation, _), given = Rotation.align_vectors(centred[1], centred[0]), replica.get_velocities() * units.fs
    masses = replica.get_masses()
    np.testing.assert_allclose(velocities, rotation.apply(given - masses @ given / masses.sum()), atol=1e-9)


# ---- arrays and info -----------------------------------------------------------------------------------------------


class InField(Calculator):
    """Σ_i q_i x_i · E + Σ_i m_i · B_i(x), with E of ``info["efield"]``, q and m the initial charges and moments.

    A scalar of all the vectors that a structure has: it is invariant if and only if all of them rotate as they should.
    """

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        x = self.atoms.positions - self.atoms.positions.mean(axis=0)
        charges = self.atoms.get_initial_charges() - self.atoms.get_initial_charges().mean()
        field = np.asarray(self.atoms.info["efield"])
        energy, forces = float(charges @ x @ field), -charges[:, None] * field
        if "initial_magmoms" in self.atoms.arrays:
            # A pseudoscalar product of two polar vectors makes an axial one.
            moments = self.atoms.get_initial_magnetic_moments()
            energy += float((moments * np.cross(x, field)).sum())
            pull = np.cross(field, moments)
            forces -= pull - pull.mean(axis=0)
        self.results = {"energy": energy, "forces": forces}


def in_field() -> Atoms:
    atoms, rng = molecule(), np.random.default_rng(5)
    atoms.set_initial_charges(rng.standard_normal(5))
    atoms.set_initial_magnetic_moments(rng.standard_normal((5, 3)))
    atoms.info["efield"] = np.array([0.3, -0.2, 0.5])
    return atoms


def spread(atoms: Atoms) -> float:
    """The scatter of energies over rotations and their inverses, in eV."""
    potential = AsePotential(InField())
    return float(Averaged(potential, rule("octahedral", inversion=True)).predict(atoms).spread.energies[0])


def test_declared_vectors_rotate_with_the_structure_and_others_are_named() -> None:
    atoms = in_field()
    (note,) = vector_notes([("x.xyz", atoms)])
    assert "'efield' of x.xyz looks like a vector" in note
    assert "--vector efield=rotate" in note
    assert spread(atoms) > 0.1  # the field stays
    declare_vectors([atoms], {"efield": "rotate"})
    assert not vector_notes([("x.xyz", atoms)])
    assert spread(atoms) < 1e-12
    declare_vectors([atoms], {"efield": "axial"})
    assert spread(atoms) > 0.1
    declare_vectors([atoms], {"efield": "rotate", "initial_magmoms": "rotate"})
    assert spread(atoms) > 0.1
    declare_vectors([atoms], {"initial_magmoms": "leave"})
    assert spread(atoms) > 0.1


@pytest.mark.parametrize("role", ["rotate", "axial", "leave"])
@pytest.mark.parametrize("shape", [(3,), (3, 3), "atoms", "tensors"])
def test_vectors_and_tensors_change_as_declared(role: str, shape: Any) -> None:
    atoms, rng = molecule(), np.random.default_rng(6)
    inversion = -Rotation.random(rng=rng).as_matrix()
    size = {"atoms": (5, 3), "tensors": (5, 3, 3)}.get(shape, shape)
    values = rng.standard_normal(size)
    holder = atoms.arrays if isinstance(shape, str) else atoms.info
    holder["thing"] = values
    declare_vectors([atoms], {"thing": role})
    copy = turned(atoms, inversion)
    found = (copy.arrays if isinstance(shape, str) else copy.info)["thing"]
    rank = 2 if size[-2:] == (3, 3) else 1
    expected = inversion @ values @ inversion.T if rank == 2 else values @ inversion.T
    expected = {"rotate": expected, "axial": -expected, "leave": values}[role]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    again = turned(copy, inversion.T)  # what was declared is kept
    np.testing.assert_allclose((again.arrays if isinstance(shape, str) else again.info)["thing"], values, atol=1e-12)


def test_three_atoms_are_no_tensor() -> None:
    atoms = Atoms("H2O", np.eye(3))
    atoms.arrays["spin"] = np.arange(9.0).reshape(3, 3)
    assert vector_notes([("w", atoms)])
    declare_vectors([atoms], {"spin": "rotate"})
    matrix = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    np.testing.assert_allclose(turned(atoms, matrix).arrays["spin"], atoms.arrays["spin"] @ matrix.T)


def test_declarations_that_cannot_be_right_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "field.xyz", in_field())
    assert "no structure holds 'field'" in refused("probe", "no-model.pt", path, "--vector", "field=rotate")
    assert "not 'turn'" in refused("probe", "no-model.pt", path, "--vector", "efield=turn")
    assert "NAME=rotate" in refused("probe", "no-model.pt", path, "--vector", "efield")
    with pytest.raises(InputError, match="has the shape"):
        read_structures(path, vectors={"initial_charges": "rotate"})
    (named,) = read_structures(path, vectors={"efield": "rotate"})
    assert spread(named.atoms) < 1e-7  # digits of the file
    plain = saved(tmp_path / "plain.xyz", copper())
    assert "vector" not in command("probe", "no-model.pt", plain).stderr


def test_a_run_keeps_charges_moments_and_fields_and_rotates_what_is_declared(tmp_path: Path) -> None:
    atoms = in_field()
    atoms.set_cell(6.0 * np.eye(3))
    atoms.pbc = True
    path = saved(tmp_path / "field.xyz", atoms)
    energies = []
    for seed in (0, 1, 5):
        description = described(path, orientations="random", seed=seed, vectors={"efield": "rotate"}, length=0.004)
        start, _ = start_of(description, structure_of(description))
        energies.append(AsePotential(InField()).predict(start).energies[0])
    np.testing.assert_allclose(energies, energies[0], atol=1e-9)
    assert abs(energies[0]) > 1e-3
    run(described(path, length=0.004, vectors={"efield": "rotate"}), tmp_path, potential=AsePotential(InField()))
    atoms.pbc = False
    saved(path, atoms)
    with pytest.raises(InputError, match="set orientations to same"):
        structure_of(described(path, orientations="random", replicas=2))


# ---- occupancies, formats ------------------------------------------------------------------------------------------

CIF = """data_x
_cell_length_a 3.6
_cell_length_b 3.6
_cell_length_c 3.6
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F m -3 m'
_symmetry_Int_Tables_number 225
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
"""


@pytest.mark.parametrize(
    ("sites", "said"),
    [("Cu1 Cu 0 0 0 0.5\nAu1 Au 0 0 0 0.5\n", "Cu 0.5, Au 0.5"), ("Cu1 Cu 0 0 0 0.9\n", "Cu 0.9")],
    ids=["mixed", "vacancies"],
)
def test_partial_occupancies_are_refused(sites: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "partial.cif"
    path.write_text(CIF + sites)
    sentence = refused("check", EMT_MODEL, path)
    assert "partial.cif: a site is occupied in part" in sentence
    assert said in sentence
    path.write_text(CIF + "Cu1 Cu 0 0 0 1.0\n")
    ((name, atoms),) = read_structures(path)
    check_structure(atoms, name)
    write(path.with_suffix(".pdb"), atoms)
    atoms.set_array("occupancies", np.array([1.0, 0.5, 1.0, 1.0]))
    with pytest.raises(InputError, match=r"atom 1 .* has the occupancy 0.5"):
        check_structure(atoms, name)
    atoms.arrays["occupancies"][:] = 0.0  # none, as many programs write
    check_structure(atoms, name)


def test_lammps_data_need_elements_and_are_read_with_options(tmp_path: Path) -> None:
    atoms = copper()
    atoms.set_array("id", None)
    path = tmp_path / "cu.data"
    write(path, atoms, format="lammps-data")
    assert "Z_of_type=1:Cu" in refused("check", EMT_MODEL, path)
    assert "Z_of_type=1:Cu" in refused("check", EMT_MODEL, path, "--format", "lammps-data")
    ((_, found),) = read_structures(path, format="lammps-data", options={"Z_of_type": {1: 29}, "atom_style": "atomic"})
    assert found.get_chemical_formula() == "Cu4"
    np.testing.assert_allclose(found.get_all_distances(mic=True), atoms.get_all_distances(mic=True), atol=1e-6)
    result = command("check", "no-model.pt", path, "--format", "lammps-data", "--read", "Z_of_type=1:Cu")
    assert "no-model" in str(result.exception)  # it went on to the model
    assert "unexpected keyword" in refused("check", EMT_MODEL, path, "--read", "Z_of_type=1:29", "--read", "colour=red")
    assert "did you mean 'lammps-data'" in refused("check", EMT_MODEL, path, "--format", "lamps-data")
    assert "is no element" in refused("check", EMT_MODEL, path, "--read", "Z_of_type=1:Qq")


def test_a_lammps_dump_needs_elements(tmp_path: Path) -> None:
    path = tmp_path / "cu.lammpstrj"
    head = "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n1\nITEM: BOX BOUNDS pp pp pp\n0 3\n0 3\n0 3\n"
    path.write_text(head + "ITEM: ATOMS id type x y z\n1 1 0 0 0\n")
    assert "specorder=Cu" in refused("observe", path, "--observable", "temperature", "--format", "lammps-dump-text")
    ((_, atoms),) = read_structures(path, format="lammps-dump-text", options={"specorder": ["Cu"]})
    assert atoms.get_chemical_formula() == "Cu"


def test_a_format_is_taken_at_its_word(tmp_path: Path) -> None:
    path = tmp_path / "structure"
    write(path, copper(), format="vasp")
    ((_, atoms),) = read_structures(path, format="vasp")
    assert len(atoms) == 4
    with pytest.raises(InputError, match="not a structure file"):
        read_structures(path, format="extxyz")
    assert len(read_trajectory(path, format="vasp")) == 1


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\x54\x00\x00\x00CORD" + bytes(80), "CHARMM header"),
        (b"\x54\x00\x00\x00CORD" + bytes(80) + b"CP2K", "DCD file of CP2K"),
        (b"\x00\x00\x07\xcb" + bytes(80), "XTC"),
    ],
)
def test_trajectories_without_elements_are_refused_by_name(start: bytes, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "u.dcd"
    path.write_bytes(start)
    sentence = refused("observe", path, "--observable", "temperature")
    assert kind in sentence
    assert "extended XYZ" in sentence
    assert kind in refused("probe", EMT_MODEL, path)


# ---- a stress with nine components ---------------------------------------------------------------------------------


class Oriented(Calculator):
    """Springs to the lattice that prefer a direction, so that the strain derivative of the energy is not symmetric."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        cell = self.atoms.cell.array
        preference = np.array([[0.3, 0.2, -0.1], [0.2, -0.4, 0.3], [-0.1, 0.3, 0.1]])
        # E = Σ_v v·A·v of the cell vectors: ∂E/∂ε_ab = 2 Σ_v v_a (A v)_b under v → v (1 + ε).
        energy = float(np.einsum("va,ab,vb->", cell, preference, cell))
        stress = 2.0 * cell.T @ cell @ preference / self.atoms.get_volume()
        self.results = {"energy": energy, "forces": np.zeros((len(self.atoms), 3)), "stress": stress}


def test_the_antisymmetric_part_of_a_stress_is_the_rotational_gradient() -> None:
    atoms, step = copper(), 1e-5
    atoms.set_cell(atoms.cell.array + np.array([[0.0, 0.3, 0.1], [0.2, 0.0, -0.2], [0.1, 0.0, 0.3]]), scale_atoms=True)
    potential = AsePotential(Oriented())
    virial = potential.predict(atoms).virials[0]
    assert potential.virial == "full"
    gradient = np.einsum("cab,ab->c", np.array([np.cross(np.eye(3), each) for each in np.eye(3)]), virial)
    for axis, each in zip(np.eye(3), gradient, strict=True):
        energies = [
            potential.predict(turned(atoms, Rotation.from_rotvec(sign * step * axis).as_matrix())).energies[0]
            for sign in (1.0, -1.0)
        ]
        slope = (energies[0] - energies[1]) / (2.0 * step)
        assert abs(abs(each) - abs(slope)) < 1e-4
    assert np.abs(gradient).max() > 0.1
    levi = np.zeros((3, 3, 3))
    levi[[0, 1, 2], [1, 2, 0], [2, 0, 1]], levi[[0, 2, 1], [2, 1, 0], [1, 0, 2]] = 1.0, -1.0
    signed = np.einsum("cab,ab->c", levi, virial)
    energies = [
        potential.predict(turned(atoms, Rotation.from_rotvec(s * step * np.array([1.0, 0, 0])).as_matrix())).energies[0]
        for s in (1.0, -1.0)
    ]
    assert abs(signed[0] - (energies[0] - energies[1]) / (2.0 * step)) < 1e-4
    assert AsePotential(EMT()).virial == "symmetric"  # in Voigt order it has none


# ---- any molecule in vacuum ----------------------------------------------------------------------------------------


def test_any_molecule_has_a_direction_that_rotates_with_it() -> None:
    for atoms in (molecule(), g2("C6H6"), g2("CH4"), g2("H2O"), g2("N2")):
        weights, words = default_direction(atoms)
        assert abs(weights.sum()) < 1e-12
        direction = weights @ atoms.positions
        assert np.linalg.norm(direction) > 0.1
        matrix = Rotation.random(rng=np.random.default_rng(7)).as_matrix()
        np.testing.assert_allclose(weights @ turned(atoms, matrix).positions, matrix @ direction, atol=1e-12)
        assert ("water" in words) == (len(atoms) == 3)
    with pytest.raises(InputError, match="has no orientation"):
        default_direction(Atoms("Ar"))


def test_orientations_of_any_molecule_are_observed(tmp_path: Path) -> None:
    atoms = g2("C2H6")
    result = run(
        described(saved(tmp_path / "ethane.traj", atoms), replicas=4, orientations="random"),
        tmp_path,
        potential=Springs(atoms),
    )
    for name in ("orientation", "angular-momentum", "drift", "potential-spectrum"):
        length = "direction: from the centre to atom 2 (H" if name == "orientation" else ""
        found = command("observe", result.folder, "--observable", name)
        if name == "potential-spectrum":  # four frames are too few
            assert isinstance(found.exception, InputError)
            continue
        assert found.exit_code == 0, found.exception
        assert length in found.output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"structure": "box"}, "is periodic, and the experiment gas"),
        ({"structure": "argon.xyz"}, "has no orientation"),
        ({"length": 0.01, "frames_every": 5}, "its analysis takes 16 or more"),
    ],
)
def test_what_the_gas_experiment_cannot_analyse_is_refused_before_the_first_step(
    changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write("argon.xyz", Atoms("Ar"))
    with pytest.raises(InputError, match=message):
        gas(tmp_path / "out", changes=changes)
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.nightly
def test_the_gas_experiment_runs_for_benzene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("benzene.xyz", g2("C6H6"))
    (tmp_path / "model.py").write_text(BENZENE)
    (tmp_path / "out").mkdir()
    changes = {
        "structure": "benzene.xyz",
        "potential": {"model": "model.py:springs"},
        "length": 0.08,
        "frames_every": 5,
        "replicas": 1,
    }
    study = gas(tmp_path / "out", changes=changes)
    # Averaging makes the preference for z vanish: the angular momentum is conserved, and without it is not.
    assert study.momenta["2i"].about["largest_change"] < 1e-9
    assert study.momenta["raw"].about["largest_change"] > 1e-3
    assert "atom 6 (H" in study.free_energies["raw"].about["direction"]


BENZENE = """
import numpy as np
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes


class Bonds(Calculator):
    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        rest = molecule("C6H6").get_all_distances()
        i, j = np.triu_indices(12, 1)
        x = self.atoms.positions
        d = x[i] - x[j]
        r = np.linalg.norm(d, axis=1)
        u = d / r[:, None]
        energy = 5.0 * np.sum((r - rest[i, j]) ** 2) + 0.01 * np.sum(u[:, 2] ** 2)
        across = -u * u[:, 2:]
        across[:, 2] += 1.0
        slope = 10.0 * (r - rest[i, j])[:, None] * u + 0.02 * u[:, 2:] * across / r[:, None]
        forces = np.zeros_like(x)
        np.add.at(forces, i, -slope)
        np.add.at(forces, j, slope)
        self.results = {"energy": float(energy), "forces": forces}


def springs():
    return Bonds()
"""


def test_a_stress_that_was_made_symmetric_says_nothing_of_the_torque() -> None:
    """Nine components that are symmetric: the torque comes from finite rotations, as it does in Voigt order."""

    class Symmetric(Calculator):
        implemented_properties = ("energy", "forces", "stress")

        def __init__(self, voigt: bool) -> None:
            super().__init__()
            self.voigt, self.toy = voigt, PeriodicToy(2, 1, 0.3)

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
            super().calculate(atoms, properties, system_changes)
            found = self.toy.predict(self.atoms)
            stress = (found.virials[0] + found.virials[0].T) / 2.0 / self.atoms.get_volume()
            given = full_3x3_to_voigt_6_stress(stress) if self.voigt else stress
            self.results = {"energy": found.energies[0], "forces": found.forces[0], "stress": given}

    nine, six = (
        goniometer.probe(AsePotential(Symmetric(voigt)), crystal(), lmax=2, measured=()).structures[0].torque
        for voigt in (False, True)
    )
    assert six.norm > 1e-3
    assert nine.norm == pytest.approx(six.norm, rel=1e-6)
    assert not nine.at_floor
