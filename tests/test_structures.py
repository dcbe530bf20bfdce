"""Reading, checking and turning structures."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import (
    FixAtoms,
    FixBondLength,
    FixCartesian,
    FixCartesianParametricRelations,
    FixedLine,
    FixedMode,
    FixedPlane,
    FixInternals,
    Hookean,
)
from ase.io import write

from goniometer.errors import InputError
from goniometer.rotations import random_rotations
from goniometer.structures import NamedStructure, check_structure, packaged_structures, read_structures, turned
from goniometer.structures import reading as module

ROTATION = random_rotations(1, np.random.default_rng(3))[0]
IMPROPER = -ROTATION
TRICLINIC = np.array([[5.0, 0.3, -0.2], [1.1, 4.5, 0.4], [-0.7, 0.9, 6.0]])
# Rounding of a few products of numbers of order 10.
TOLERANCE = 100 * np.finfo(float).eps


@pytest.fixture
def crystal() -> Atoms:
    rng = np.random.default_rng(0)
    return Atoms("Cu4", positions=rng.random((4, 3)) @ TRICLINIC, cell=TRICLINIC, pbc=True)


# Turning


@pytest.mark.parametrize("matrix", [ROTATION, IMPROPER], ids=["proper", "improper"])
@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, False)])
def test_turned_keeps_every_distance_and_turns_every_direction(crystal, matrix, pbc):
    crystal.pbc = pbc
    crystal.positions += 20.0  # outside the cell: nothing may be wrapped
    copy = turned(crystal, matrix)
    assert np.allclose(copy.positions, crystal.positions @ matrix.T, rtol=0, atol=100 * TOLERANCE)
    # An improper rotation keeps the cell right-handed: the inverted lattice is the same lattice.
    handed = np.sign(np.linalg.det(matrix)) * TRICLINIC @ matrix.T
    assert np.allclose(copy.cell.array, handed, rtol=0, atol=TOLERANCE)
    assert (copy.pbc == pbc).all()
    distances = copy.get_all_distances(mic=True)
    assert np.allclose(distances, crystal.get_all_distances(mic=True), rtol=0, atol=1000 * TOLERANCE)
    assert np.abs(copy.positions - crystal.positions).max() > 1.0


def test_turned_vectors_pseudovectors_and_tensors(crystal):
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(4, 3))
    tensors = rng.normal(size=(4, 3, 3))
    crystal.set_momenta(vectors)
    crystal.set_initial_magnetic_moments(vectors)
    crystal.set_initial_charges([1.0, 2.0, 3.0, 4.0])
    crystal.set_array("forces", vectors)
    crystal.set_array("colour", vectors)
    crystal.set_array("quadrupole", tensors)
    crystal.info["virial"] = tensors[0]
    crystal.info["charge"] = 2
    before = crystal.copy()
    copy = turned(crystal, IMPROPER)
    rotated = vectors @ ROTATION.T
    assert np.allclose(copy.get_momenta(), -rotated, rtol=0, atol=TOLERANCE)
    assert np.allclose(copy.arrays["forces"], -rotated, rtol=0, atol=TOLERANCE)
    assert np.allclose(copy.get_initial_magnetic_moments(), rotated, rtol=0, atol=TOLERANCE)
    assert np.allclose(copy.arrays["quadrupole"][2], ROTATION @ tensors[2] @ ROTATION.T, rtol=0, atol=TOLERANCE)
    assert np.allclose(copy.info["virial"], ROTATION @ tensors[0] @ ROTATION.T, rtol=0, atol=TOLERANCE)
    assert (copy.arrays["colour"] == vectors).all()
    assert copy.info["charge"] == 2
    assert (copy.get_initial_charges() == [1.0, 2.0, 3.0, 4.0]).all()
    assert crystal == before, "the structure was changed"
    assert (crystal.info["virial"] == tensors[0]).all(), "the structure was changed"


def test_turned_leaves_collinear_moments_and_drops_the_calculator(crystal):
    crystal.set_initial_magnetic_moments([1.0, -1.0, 1.0, -1.0])
    crystal.calc = SinglePointCalculator(crystal, energy=1.0)
    copy = turned(crystal, ROTATION)
    assert (copy.get_initial_magnetic_moments() == [1.0, -1.0, 1.0, -1.0]).all()
    assert copy.calc is None


CONSTRAINTS = {
    "atoms": FixAtoms([0]),
    "plane": FixedPlane([1, 2], [1.0, 2.0, 0.5]),
    "line": FixedLine([1], [1.0, 2.0, 0.5]),
    "mode": FixedMode(np.arange(12.0).reshape(4, 3)),
    "cartesian one": FixCartesian([1], mask=(True, False, False)),
    "cartesian two": FixCartesian([0, 3], mask=(True, False, True)),
    "cartesian all": FixCartesian([0, 3], mask=(True, True, True)),
    "bond": FixBondLength(0, 1),
    "spring to a point": Hookean(0, [1.0, 2.0, 3.0], k=2.0, rt=0.1),
    "spring to a plane": Hookean(0, (0.6, 0.0, 0.8, -1.0), k=2.0),
    "spring of a pair": Hookean(0, 1, k=2.0, rt=0.1),
}


@pytest.mark.parametrize("matrix", [ROTATION, IMPROPER], ids=["proper", "improper"])
@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints_act_on_forces_before_and_after_the_turn_alike(crystal, name, matrix):
    crystal.set_constraint(CONSTRAINTS[name])
    crystal.calc = EMT()
    raw = crystal.get_forces(apply_constraint=False)
    constrained = crystal.get_forces()
    copy = turned(crystal, matrix)
    copy.calc = EMT()
    assert np.abs(constrained - raw).max() > 1e-3, "a constraint that does nothing would prove nothing"
    scale = np.abs(raw).max()
    assert np.allclose(copy.get_forces(), constrained @ matrix.T, rtol=0, atol=1e4 * TOLERANCE * scale)


def test_a_quarter_turn_keeps_fixed_axes_axes(crystal):
    crystal.set_constraint(FixCartesian([1], mask=(True, False, False)))
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    (constraint,) = turned(crystal, quarter).constraints
    assert isinstance(constraint, FixCartesian)
    assert constraint.mask.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("constraint", "matrix", "message"),
    [
        (
            FixCartesianParametricRelations([0], np.eye(3), np.zeros(3)),
            ROTATION,
            "FixCartesianParametricRelations cannot",
        ),
        (FixInternals(dihedrals_deg=[[60.0, [0, 1, 2, 3]]]), IMPROPER, "cannot be turned by an improper rotation"),
    ],
)
def test_constraints_that_cannot_be_turned_say_so(crystal, constraint, matrix, message):
    crystal.set_constraint(constraint)
    with pytest.raises(InputError, match=message):
        turned(crystal, matrix)


def test_dihedrals_can_be_turned_properly(crystal):
    crystal.set_constraint(FixInternals(dihedrals_deg=[[60.0, [0, 1, 2, 3]]]))
    assert len(turned(crystal, ROTATION).constraints) == 1


def test_only_orthogonal_matrices_turn(crystal):
    with pytest.raises(InputError, match="orthogonal"):
        turned(crystal, 1.01 * np.eye(3))


# Reading


@pytest.fixture
def trajectory(tmp_path):
    frames = [Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.7 + 0.01 * i]]) for i in range(12)]
    path = tmp_path / "water.xyz"
    write(path, frames)
    return path


@pytest.mark.parametrize(
    ("selection", "numbers"),
    [
        ("", range(12)),
        ("@:", range(12)),
        ("@::5", [0, 5, 10]),
        ("@3", [3]),
        ("@-1", [-1]),
        ("@-2:", [10, 11]),
        ("@8:2:-2", [8, 6, 4]),
        ("@2:4", [2, 3]),
    ],
)
def test_frames_are_selected_and_named_by_their_number(trajectory, selection, numbers):
    structures = read_structures(f"{trajectory}{selection}")
    assert [structure.name for structure in structures] == [f"water.xyz#{number}" for number in numbers]
    for (_, atoms), number in zip(structures, numbers, strict=True):
        assert atoms.positions[1, 2] == pytest.approx(0.7 + 0.01 * (number % 12))


def test_a_single_structure_is_named_after_its_file(tmp_path):
    write(tmp_path / "one.cif", bulk("Cu", cubic=True))
    ((name, atoms),) = read_structures(tmp_path / "one.cif")
    assert name == "one.cif"
    assert atoms.pbc.all()
    assert [item.name for item in read_structures(f"{tmp_path}/one.cif@0")] == ["one.cif#0"]


def test_a_file_with_an_at_sign_in_its_name_is_read(tmp_path):
    write(tmp_path / "a@1.xyz", molecule("H2O"))
    assert [item.name for item in read_structures(tmp_path / "a@1.xyz")] == ["a@1.xyz"]


def test_structures_in_memory_and_mixtures(trajectory, tmp_path):
    water = molecule("H2O")
    assert read_structures(water) == [("H2O", water)]
    assert read_structures(NamedStructure("mine", water)) == [("mine", water)]
    names = [item.name for item in read_structures([water, f"{trajectory}@:2", NamedStructure("mine", water)])]
    assert names == ["H2O#0", "water.xyz#0", "water.xyz#1", "mine"]


def test_files_of_the_same_name_are_told_apart(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "x.xyz", molecule("H2O"))
    names = [item.name for item in read_structures([tmp_path / "a" / "x.xyz", tmp_path / "b" / "x.xyz"])]
    assert names == [f"{tmp_path}/a/x.xyz", f"{tmp_path}/b/x.xyz"]


def test_packaged_structures_are_found_by_name(monkeypatch, tmp_path):
    write(tmp_path / "molecule.xyz", molecule("H2O"))
    monkeypatch.setattr(module, "packaged_files", lambda folder, suffix: {"molecule": tmp_path / "molecule.xyz"})
    assert packaged_structures() == ["molecule"]
    assert [item.name for item in read_structures("molecule")] == ["molecule"]
    with pytest.raises(InputError, match="the packaged structures are molecule"):
        read_structures("molecul")


def test_every_packaged_structure_is_sound():
    for name in packaged_structures():
        for structure in read_structures(name):
            check_structure(structure.atoms, structure.name)


def _file(name: str, content: bytes):
    def make(folder):
        (folder / name).write_bytes(content)
        return str(folder / name)

    return make


TWO_FRAMES = b"1\n\nH 0 0 0\n1\n\nH 0 0 1\n"
UNREADABLE = {
    "no such file": (
        lambda folder: str(folder / "absent.xyz"),
        "there is no file '.*absent.xyz'; the packaged structures are [a-z, -]*$",
    ),
    "nearly a packaged name": (lambda _: "molecul", r"there is no file 'molecul'; .*; did you mean 'molecule'\?$"),
    "no such file, with an index": (lambda folder: str(folder / "absent.xyz@3"), "there is no file '.*absent.xyz'"),
    "folder": (lambda folder: str(folder), "is a folder"),
    "empty": (_file("empty.xyz", b""), "empty.xyz' is empty"),
    "blank": (_file("blank.xyz", b"\n\n\n"), "blank.xyz' holds no structure"),
    "random bytes": (_file("noise.xyz", bytes(range(256)) * 9), "noise.xyz' is not a structure file that ASE can read"),
    "random bytes, no format": (_file("noise.bin", bytes(range(256)) * 9), "its format is not recognised"),
    "prose": (_file("notes.txt", b"Dear diary, today I simulated water.\n"), "its format is not recognised"),
    "prose called xyz": (_file("notes.xyz", b"Dear diary\n"), "is not a structure file"),
    "python": (_file("script.py", b"print('hello')\n"), "is not a structure file"),
    "json": (_file("data.json", b'{"a": 1}'), "is not a structure file"),
    "only frame bad": (_file("bad.xyz", b"1\n\nH zero 0 0\n"), "bad.xyz' cannot be read: could not convert"),
    "no such element": (_file("bad.xyz", b"1\n\nZz 0 0 0\n"), "bad.xyz' cannot be read: 'Zz' is not known"),
    "headers that do not fit": (
        _file("bad.xyz", b"1\n\nH 0 0 0\n" + b"H 0 0 1\n" + TWO_FRAMES),
        "is not a structure file",
    ),
    "no such frame": (lambda folder: _file("x.xyz", TWO_FRAMES)(folder) + "@2", "x.xyz' holds no structure at index 2"),
    "not an index": (
        lambda folder: _file("x.xyz", TWO_FRAMES)(folder) + "@last",
        "'last' in '.*' does not select frames",
    ),
    "no such frame, one-frame format": (lambda folder: _file("x.json", b"")(folder) + "@2", "is empty"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_said_in_one_sentence(case, tmp_path):
    make, message = UNREADABLE[case]
    with pytest.raises(InputError, match=message) as caught:
        read_structures(make(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_frame_beyond_a_single_structure_is_refused(tmp_path):
    write(tmp_path / "POSCAR", bulk("Cu", cubic=True))
    with pytest.raises(InputError, match="holds no structure at index 2"):
        read_structures(f"{tmp_path}/POSCAR@2")


@pytest.mark.parametrize("source", [[], [3], [None, "x"]])
def test_what_is_not_a_source_is_refused(source):
    with pytest.raises(InputError, match=r"structures (are|were)|no structures were given"):
        read_structures(source)


def test_one_bad_frame_does_not_take_the_others_with_it(tmp_path):
    path = tmp_path / "mixed.xyz"
    path.write_text("1\n\nH 0 0 0\n1\n\nH oops 0 1\n1\n\nH nan 0 1\n0\n\n1\n\nH 0 0 2\n3\n\nH 0 0 1\n")
    structures = read_structures(path)
    assert [item.name for item in structures] == [f"mixed.xyz#{number}" for number in range(6)]
    verdicts = {}
    for name, atoms in structures:
        try:
            check_structure(atoms, name)
            verdicts[name[-1]] = "sound"
        except InputError as error:
            verdicts[name[-1]] = str(error)
    assert verdicts["0"] == verdicts["4"] == "sound"
    assert verdicts["1"].startswith("mixed.xyz#1: the frame cannot be parsed: could not convert string")
    assert "NaN" in verdicts["2"]
    assert "no atoms" in verdicts["3"]
    assert "Frame has 1 atoms, expected 3" in verdicts["5"]
    assert [item.name for item in read_structures(f"{path}@::2")] == ["mixed.xyz#0", "mixed.xyz#2", "mixed.xyz#4"]


# Checking

SOUND = {
    "molecule": molecule("H2O"),
    "crystal": bulk("Cu"),
    "slab without a third vector": Atoms("Cu", cell=[3, 3, 0], pbc=[True, True, False]),
    "atoms outside their cell": Atoms("H2", positions=[[0, 0, 0], [40.5, 0, 0]], cell=[4, 4, 4], pbc=True),
    "two vectors without periodicity": Atoms("H", cell=[[1, 0, 0], [1, 2, 0], [0, 0, 0]]),
    "coincident but for the cell": Atoms(
        "H2", positions=[[0, 0, 0], [4, 0, 0]], cell=[4, 4, 4], pbc=[False, True, True]
    ),
    "very skewed": Atoms("H2", positions=[[0, 0, 0], [1, 1, 1]], cell=[[3, 0, 0], [300, 3, 0], [0, 90, 3]], pbc=True),
}
UNSOUND = {
    "empty": (Atoms(), "there are no atoms"),
    "nan": (
        Atoms("OH", positions=[[0, 0, 0], [0, np.nan, 0]]),
        r"position of atom 1 \(H, counted from 0\) is NaN or inf",
    ),
    "infinite": (Atoms("H", positions=[[np.inf, 0, 0]]), "is NaN or infinite"),
    "absurd": (Atoms("H", positions=[[1e30, 0, 0]]), "is beyond 10⁶ Å"),
    "nan cell": (Atoms("H", cell=[np.nan, 1, 1], pbc=True), "the cell has a component that is NaN"),
    "no cell": (Atoms("H", pbc=True), "periodic along a, but cell vector a is zero"),
    "no c": (Atoms("H", cell=[3, 3, 0], pbc=True), "periodic along c, but cell vector c is zero"),
    "short b": (Atoms("H", cell=[3, 0.01, 3], pbc=True), "cell vector b is only 0.01 Å long"),
    "flat": (Atoms("H", cell=[[3, 0, 0], [0, 3, 0], [3, 3, 0]], pbc=True), "cell vectors a, b, c are not independent"),
    "parallel, not periodic": (
        Atoms("H", cell=[[3, 0, 0], [6, 0, 0], [0] * 3]),
        "cell vectors a, b are not independent",
    ),
    "parallel": (
        Atoms("H", cell=[[3, 0, 0], [6, 0, 0], [0] * 3], pbc=(1, 1, 0)),
        "cell vectors a, b are not independent",
    ),
    "coincident": (
        Atoms("H3", positions=[[0, 0, 0], [1, 0, 0], [1, 0, 0]]),
        "atoms 1 and 2 .* coincide: they are 0 Å apart",
    ),
    "all at one place": (Atoms("H9"), "coincide"),
    "coincident with an image": (
        Atoms("H2", positions=[[0, 0, 0], [8, 4.01, 0]], cell=[4, 4, 4], pbc=[True, True, False]),
        "atoms 0 and 1 .* coincide: they are 0.01 Å apart",
    ),
    "coincident across a corner": (
        Atoms("H2", positions=[[0.01, 0.01, 0.01], [3.99, 3.99, 3.99]], cell=[4, 4, 4], pbc=True),
        "coincide",
    ),
    "its own image": (
        Atoms("H", cell=[[3, 0, 0], [3.001, 0.03, 0], [0, 0, 3]], pbc=True),
        "every atom is 0.03 Å from its own periodic image",
    ),
}


@pytest.mark.parametrize("case", SOUND)
def test_sound_structures_pass(case):
    check_structure(SOUND[case], case)


@pytest.mark.parametrize("case", UNSOUND)
def test_unsound_structures_are_refused(case):
    atoms, message = UNSOUND[case]
    with pytest.raises(InputError, match=f"^{case}: .*{message}") as caught:
        check_structure(atoms, case)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, False)])
def test_closest_pair_agrees_with_a_search_over_all_images(pbc):
    """Random atoms in a skewed cell, refused exactly if brute force finds a distance below 0.05 Å."""
    rng = np.random.default_rng(5)
    cell = np.array([[2.0, 0.1, 0.0], [1.7, 1.5, 0.2], [-0.4, 3.0, 1.8]])
    refused = 0
    for size in np.linspace(0.5, 2.0, 25):
        atoms = Atoms("H40", positions=rng.random((40, 3)) @ cell * size, cell=cell, pbc=pbc)
        images = np.array(np.meshgrid(*[range(-3, 4) if periodic else [0] for periodic in pbc])).reshape(3, -1).T @ cell
        gaps = atoms.positions[:, None, None] - atoms.positions[None, :, None] + images
        distances = np.linalg.norm(gaps, axis=-1)
        close = distances[distances > 0].min() < module.COINCIDENT
        try:
            check_structure(atoms, "random")
            assert not close
        except InputError:
            assert close
            refused += 1
    assert 0 < refused < 25, "both verdicts must occur"
