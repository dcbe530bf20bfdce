"""The toys are what they say, and the contract of a potential is kept by good adapters and broken by every bad one."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.neighborlist import neighbor_list

import structures
from goniometer.errors import InputError, PotentialError
from goniometer.potentials import Potential, Prediction
from goniometer.structures.rotation import turned
from goniometer.testing import (
    MolecularToy,
    Noisy,
    NonConservative,
    PairToy,
    PeriodicToy,
    SumOf,
    check_potential,
)
from goniometer.testing.toys import envelope, pairs
from structures import molecule

UNSAID = np.random.default_rng(0)

STEP = 1e-4
# A central difference: truncation h²/6 E''' with third derivatives up to some 1e2 eV/Å³, rounding eps E / h.
TOLERANCE = 1e2 * STEP**2


def crystal(pbc: tuple[bool, bool, bool] = (True, True, True)) -> Atoms:
    structure = structures.crystal()
    structure.pbc = pbc
    return structure


def left_handed() -> Atoms:
    return turned(crystal(), -np.eye(3))


TOYS = [
    (PairToy(), molecule()),
    (PairToy(), crystal()),
    (MolecularToy(1, -1, 0.1), molecule()),
    (MolecularToy(3, 1, 0.1, axis=(1.0, 2.0, -1.0)), molecule()),
    (MolecularToy(6, 1, 0.1, direction=((0,), (1, 2))), molecule()),
    (MolecularToy(0, -1, 0.1), molecule()),
    (PeriodicToy(1, -1, 0.1), crystal()),
    (PeriodicToy(2, -1, 0.1), left_handed()),
    (PeriodicToy(4, 1, 0.1), crystal((True, False, True))),
    (PeriodicToy(5, 1, 0.1), crystal()),
    (SumOf([MolecularToy(2, 1, 0.1), MolecularToy(3, -1, 0.1)]), molecule()),
]
toys = pytest.mark.parametrize(("toy", "structure"), TOYS, ids=lambda value: getattr(value, "name", ""))


def energy(potential: Potential, structure: Atoms) -> float:
    return float(potential.predict(structure).energies[0])


def strained(structure: Atoms, matrix: np.ndarray) -> Atoms:
    copy = structure.copy()
    copy.set_cell(copy.cell.array @ matrix)
    copy.positions = structure.positions @ matrix
    return copy


def force_by_difference(potential: Potential, structure: Atoms, atom: int, axis: int) -> float:
    energies = []
    for sign in (1, -1):
        moved = structure.copy()
        moved.positions[atom, axis] += sign * STEP
        energies.append(energy(potential, moved))
    return -(energies[0] - energies[1]) / (2 * STEP)


# ---- toys -----------------------------------------------------------------------------------------------------------


@toys
def test_forces_are_minus_the_gradient(toy: Potential, structure: Atoms) -> None:
    differences = np.array(
        [[force_by_difference(toy, structure, i, a) for a in range(3)] for i in range(len(structure))]
    )
    forces = toy.predict(structure).forces[0]
    np.testing.assert_allclose(forces, differences, atol=TOLERANCE)
    assert np.abs(forces + differences).max() > 1e3 * TOLERANCE  # control: a sign flip is seen


@toys
def test_virial_is_the_derivative_under_any_strain(toy: Potential, structure: Atoms) -> None:
    virial = toy.predict(structure).virials[0]
    for a in range(3):
        for b in range(3):
            strain = np.zeros((3, 3))
            strain[a, b] = STEP
            rise = energy(toy, strained(structure, np.eye(3) + strain)) - energy(
                toy, strained(structure, np.eye(3) - strain)
            )
            assert rise / (2 * STEP) == pytest.approx(virial[a, b], abs=10 * TOLERANCE)


@toys
def test_turned_copies_are_whole_structures_turned(toy: Potential, structure: Atoms) -> None:
    matrices = np.linalg.qr(np.random.default_rng(2).standard_normal((4, 3, 3)))[0]
    copies = Prediction.joined(toy.turned(structure, matrices))
    whole = Prediction.joined([toy.predict(turned(structure, matrix)) for matrix in matrices])
    np.testing.assert_allclose(copies.energies, whole.energies, atol=1e-12)
    np.testing.assert_allclose(copies.forces, whole.forces, atol=1e-12)
    np.testing.assert_allclose(copies.virials, whole.virials, atol=1e-11)


def test_forces_do_not_see_the_size_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    toy, structure = PeriodicToy(3, 1), crystal()
    matrices = np.linalg.qr(np.random.default_rng(2).standard_normal((7, 3, 3)))[0]
    whole = Prediction.joined(toy.turned(structure, matrices))
    monkeypatch.setattr("goniometer.testing.toys._BATCH", 2 * len(pairs(structure, 4.0, like=False).values))
    parts = list(toy.turned(structure, matrices))
    assert [len(part) for part in parts] == [2, 2, 2, 1]
    np.testing.assert_allclose(Prediction.joined(parts).forces, whole.forces, atol=1e-13)


@pytest.mark.parametrize("structure", [molecule(), crystal(), crystal((True, False, False)), left_handed()])
def test_every_pair_is_counted_once_and_points_to_the_heavier_atom(structure: Atoms) -> None:
    found = pairs(structure, 4.0)
    first, second, distances = neighbor_list("ijd", structure, 4.0)
    np.testing.assert_allclose(
        np.sort(np.repeat(np.linalg.norm(found.values, axis=1), 2)), np.sort(distances), atol=1e-12
    )
    ends = found.combination.toarray()
    rows = [row for row in ends if row.any()]  # an atom and its own image cancel
    assert all(structure.numbers[row.argmax()] >= structure.numbers[row.argmin()] for row in rows)
    unlike = structure.numbers[first] < structure.numbers[second]
    assert len(pairs(structure, 4.0, like=False).values) == unlike.sum()


def test_envelope_ends_smoothly() -> None:
    r = np.array([0.0, 2.0, 3.999, 4.0, 5.0])
    value, slope = envelope(r, 4.0)
    assert value[0] == 1.0
    assert (value[3:] == 0.0).all()
    assert (slope[3:] == 0.0).all()
    above, below = envelope(r + STEP, 4.0)[0], envelope(r - STEP, 4.0)[0]
    np.testing.assert_allclose((above - below) / (2 * STEP), slope, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "structure", "said"),
    [
        (lambda: MolecularToy(-1), molecule(), "angular momentum"),
        (lambda: MolecularToy(2, 0), molecule(), "parity"),
        (lambda: MolecularToy(2, 1, axis=(0.0, 0.0, 0.0)), molecule(), "axis"),
        (lambda: MolecularToy(2, 1), crystal(), "isolated molecules"),
        (lambda: MolecularToy(2, 1), Atoms("He"), "2 atoms or more"),
        (lambda: MolecularToy(2, -1), Atoms("OH2", [[0, 0, 0], [1, 0, 0], [0, 1, 0]]), "plane"),
        (lambda: PeriodicToy(3, -1), bulk("Cu"), "unlike atoms"),
        (lambda: PeriodicToy(2, -1), bulk("Cu"), "tell right from left"),
        (lambda: SumOf([]), molecule(), "one potential or more"),
    ],
)
def test_a_toy_refuses_what_it_cannot_do(make: Callable[[], Potential], structure: Atoms, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make().predict(structure)


def test_coincident_atoms_are_refused() -> None:
    with pytest.raises(PotentialError, match="not finite"):
        MolecularToy(2, 1).predict(Atoms("H2", np.zeros((2, 3))))


def test_noise_is_white_and_repeats_with_its_seed() -> None:
    structure = molecule()
    matrices = np.repeat(np.eye(3)[None], 4000, axis=0)
    clean = PairToy().predict(structure)
    noisy = Prediction.joined(Noisy(PairToy(), 0.1, seed=5).turned(structure, matrices))
    deviations = noisy.forces - clean.forces
    # The relative standard error of a standard deviation from n normal numbers is 1/√(2n).
    assert deviations.std() == pytest.approx(0.1, rel=5 / np.sqrt(2 * deviations.size))
    assert (noisy.energies - clean.energies).std() == pytest.approx(0.1, rel=5 / np.sqrt(2 * 4000))
    again = Prediction.joined(Noisy(PairToy(), 0.1, seed=5).turned(structure, matrices))
    assert np.array_equal(noisy.forces, again.forces)


def test_a_curl_force_turns_with_the_structure_and_has_a_curl() -> None:
    structure, matrices = crystal(), np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3, 3)))[0]
    potential = NonConservative(PairToy(), 0.2)
    back = Prediction.joined(potential.turned(structure, matrices)).forces @ matrices
    np.testing.assert_allclose(back, np.repeat(potential.predict(structure).forces, 3, axis=0), atol=1e-12)
    jacobian = np.empty((len(structure), 3, len(structure), 3))
    for i in range(len(structure)):
        for a in range(3):
            moved = structure.copy()
            moved.positions[i, a] += STEP
            jacobian[:, :, i, a] = (potential.predict(moved).forces[0] - potential.predict(structure).forces[0]) / STEP
    square = jacobian.reshape(3 * len(structure), -1)
    assert np.abs(square - square.T).max() > 0.01


def test_a_sum_claims_no_more_than_its_parts() -> None:
    modest = NonConservative(PairToy())
    modest.virial, modest.dtype = "symmetric", "float32"
    total = SumOf([PairToy(), modest, Noisy(PairToy(), 0.1, 0)])
    assert (total.virial, total.dtype, total.conservative, total.stochastic) == ("symmetric", "float32", False, True)


# ---- the contract, kept ---------------------------------------------------------------------------------------------


class Single(Potential):
    """A float32 model in miniature: sees positions and cell rounded to float32, and rounds what it answers."""

    dtype = "float32"

    def __init__(self, potential: Potential) -> None:
        self.potential, self.name, self.virial = potential, "single", potential.virial

    def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
        for matrix in matrices:
            copy = turned(structure, matrix)
            copy.positions = copy.positions.astype(np.float32)
            copy.cell = copy.cell.array.astype(np.float32)
            answer = self.potential.predict(copy)
            rounded = [values.astype(np.float32).astype(np.float64) for values in (answer.forces, answer.virials)]
            yield Prediction(answer.energies.astype(np.float32).astype(np.float64), *rounded)


@toys
def test_toys_keep_the_contract(toy: Potential, structure: Atoms) -> None:
    report = check_potential(toy, structure)
    assert report.passed, str(report)
    report.raise_if_failed()


@pytest.mark.parametrize("seed", range(3))
def test_a_float32_model_keeps_the_contract(seed: int) -> None:
    potential = Single(SumOf([PeriodicToy(2, 1, 0.1), PeriodicToy(3, 1, 0.1)]))
    report = check_potential(potential, [crystal(), crystal((True, True, False))], seed=seed)
    assert report.passed, str(report)
    assert report["forces"].tolerance < 0.01  # it was worth asking


def test_a_non_conservative_potential_is_reported_with_how_much() -> None:
    potential = NonConservative(PairToy(), 0.5)
    extra = potential.predict(molecule()).forces - PairToy().predict(molecule()).forces
    report = check_potential(potential, molecule())
    assert report.passed, str(report)
    assert "not conservative" in report["forces"].sentence
    # Four random projections, each χ² of one degree of freedom: within a factor of three nearly always.
    expected = np.sqrt(np.mean(extra**2))
    assert expected / 3 < report["forces"].value < 3 * expected


def test_a_stochastic_potential_passes_if_it_says_so() -> None:
    report = check_potential(Noisy(PeriodicToy(2, 1, 0.1), 1e-3, seed=0), crystal())
    assert report.passed, str(report)
    assert "stochastic" in report["determinism"].sentence


def test_constraints_info_and_arrays_are_part_of_the_input() -> None:
    structure = molecule()
    structure.set_constraint(FixAtoms([0]))
    structure.info |= {"origin": {"vector": np.array([1.0, np.nan])}, "history": []}
    structure.set_array("charges", np.arange(5.0))
    assert check_potential(PairToy(), structure).passed
    assert "info['history']" in check_potential(Tampered(appends_to_info), structure)["input"].sentence


def test_a_lone_atom_can_be_checked() -> None:
    report = check_potential(PairToy(), Atoms("He"))
    assert report.passed, str(report)
    assert "could not be told" in report["units"].sentence


def test_the_report_reads_as_text_and_is_reproducible() -> None:
    one, other = (check_potential(MolecularToy(2), [molecule()], seed=7) for _ in range(2))
    assert str(one) == str(other)
    assert "rotational gradient" in str(one)
    with pytest.raises(InputError, match="none was given"):
        check_potential(PairToy(), [])


# ---- the contract, broken: every adapter here must be rejected, by the item that is meant for it --------------------


class Tampered(Potential):
    """A good potential behind a bad adapter."""

    def __init__(self, tamper: Callable[..., Iterator[Prediction]], potential: Potential | None = None) -> None:
        self.potential = potential or SumOf([PeriodicToy(2, 1, 0.1), PeriodicToy(3, -1, 0.1)])
        self.tamper, self.name = tamper, tamper.__name__
        self.virial, self.dtype = self.potential.virial, self.potential.dtype

    def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
        return self.tamper(self.potential, structure, matrices)


def changed(part: Prediction, energies: float = 1.0, forces: float = 1.0, virials: float = 1.0) -> Prediction:
    return Prediction(energies * part.energies, forces * part.forces, virials * part.virials)


def moves_the_structure(potential, structure, matrices):
    structure.positions += 1e-3
    yield from potential.turned(structure, matrices)


def appends_to_info(potential, structure, matrices):
    structure.info["history"].append("evaluated")
    yield from potential.turned(structure, matrices)


def leaves_a_calculator(potential, structure, matrices):
    structure.calc = object()
    yield from potential.turned(structure, matrices)


def turns_the_matrices(potential, structure, matrices):
    matrices *= -1.0
    yield from potential.turned(structure, matrices)


def in_reverse_order(potential, structure, matrices):
    part = Prediction.joined(potential.turned(structure, matrices))
    yield Prediction(part.energies[::-1].copy(), part.forces[::-1].copy(), part.virials[::-1].copy())


def forgets_the_last(potential, structure, matrices):
    yield Prediction.joined(potential.turned(structure, matrices[: max(1, len(matrices) - 1)]))


def plus_the_gradient(potential, structure, matrices):
    yield from (changed(part, forces=-1.0) for part in potential.turned(structure, matrices))


def slightly_wrong_forces(potential, structure, matrices):
    yield from (changed(part, forces=1.0 + 1e-5) for part in potential.turned(structure, matrices))


def forces_in_the_frame_of_the_structure(potential, structure, matrices):
    part = Prediction.joined(potential.turned(structure, matrices))
    yield Prediction(part.energies, part.forces @ matrices, part.virials)


def turns_the_other_way(potential, structure, matrices):
    yield from potential.turned(structure, np.ascontiguousarray(matrices.transpose(0, 2, 1)))


def turns_positions_and_not_the_cell(potential, structure, matrices):
    for matrix in matrices:
        copy = structure.copy()
        copy.positions = structure.positions @ matrix.T
        yield potential.predict(copy)


def turns_edges_alone(potential, structure, matrices):
    part = potential.predict(structure)
    virials = matrices @ part.virials[0] @ matrices.transpose(0, 2, 1)
    yield Prediction(np.repeat(part.energies, len(matrices)), part.forces[0] @ matrices.transpose(0, 2, 1), virials)


def energies_in_kcal(potential, structure, matrices):
    yield from (changed(part, energies=23.060548) for part in potential.turned(structure, matrices))


def forces_per_bohr(potential, structure, matrices):
    yield from (changed(part, forces=0.529177) for part in potential.turned(structure, matrices))


def symmetrized_virial(potential, structure, matrices):
    for part in potential.turned(structure, matrices):
        yield Prediction(part.energies, part.forces, (part.virials + part.virials.transpose(0, 2, 1)) / 2.0)


def transposed_virial(potential, structure, matrices):
    for part in potential.turned(structure, matrices):
        yield Prediction(part.energies, part.forces, part.virials.transpose(0, 2, 1).copy())


def virial_of_the_other_sign(potential, structure, matrices):
    yield from (changed(part, virials=-1.0) for part in potential.turned(structure, matrices))


def stress_for_virial(potential, structure, matrices):
    volume = structure.get_volume()
    yield from (changed(part, virials=1.0 / volume) for part in potential.turned(structure, matrices))


def noise_unsaid(potential, structure, matrices):
    for part in potential.turned(structure, matrices):
        yield Prediction(part.energies, part.forces + 1e-6 * UNSAID.standard_normal(part.forces.shape), part.virials)


def copies_feel_each_other(potential, structure, matrices):
    part = Prediction.joined(potential.turned(structure, matrices))
    yield Prediction(part.energies + 1e-6 * (len(matrices) - 1), part.forces, part.virials)


def in_float32(potential, structure, matrices):
    for part in potential.turned(structure, matrices):
        # Past the run-time check of array types, which is for tests only.
        object.__setattr__(part, "energies", part.energies.astype(np.float32))
        yield part


def not_a_number(potential, structure, matrices):
    yield from (changed(part, forces=np.nan) for part in potential.turned(structure, matrices))


def one_force_too_few(potential, structure, matrices):
    for part in potential.turned(structure, matrices):
        yield Prediction(part.energies, part.forces[:, 1:], part.virials)


def no_virial(potential, structure, matrices):
    for part in potential.turned(structure, matrices):
        yield Prediction(part.energies, part.forces)


BROKEN = [
    (moves_the_structure, {"input"}),
    (leaves_a_calculator, {"input"}),
    (turns_the_matrices, {"input"}),
    (in_reverse_order, {"order"}),
    (forgets_the_last, {"predictions"}),
    (plus_the_gradient, {"forces"}),
    (slightly_wrong_forces, {"forces"}),
    (forces_in_the_frame_of_the_structure, {"turned copies"}),
    (turns_the_other_way, {"turned copies"}),
    (turns_positions_and_not_the_cell, {"turned copies"}),
    (turns_edges_alone, {"turned copies", "orientations seen"}),
    (energies_in_kcal, {"forces", "units", "virial", "rotational gradient"}),
    (forces_per_bohr, {"forces", "units"}),
    (symmetrized_virial, {"rotational gradient"}),
    (transposed_virial, {"rotational gradient"}),
    (virial_of_the_other_sign, {"virial", "rotational gradient"}),
    (stress_for_virial, {"virial", "rotational gradient"}),
    (noise_unsaid, {"determinism"}),
    (copies_feel_each_other, {"batched = single"}),
    (in_float32, {"predictions"}),
    (not_a_number, {"predictions"}),
    (one_force_too_few, {"predictions"}),
    (no_virial, {"predictions"}),
]


@pytest.mark.parametrize(("tamper", "items"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_adapter_is_rejected(tamper: Callable[..., Iterator[Prediction]], items: set[str]) -> None:
    report = check_potential(Tampered(tamper), crystal())
    assert items <= set(report.failed), str(report)
    if tamper not in (moves_the_structure, leaves_a_calculator, turns_the_matrices):  # these spoil the other items too
        # What is wrong in the structure as it stands is wrong in rotated copies of it as well.
        assert set(report.failed) - items <= {"rotated forces", "rotated virial"}, str(report)
    with pytest.raises(PotentialError, match="breaks the contract"):
        report.raise_if_failed()


@pytest.mark.parametrize(
    ("tamper", "item", "said"),
    [
        (plus_the_gradient, "forces", "plus the gradient"),
        (energies_in_kcal, "units", "kcal/mol"),
        (forces_per_bohr, "units", "bohr"),
        (stress_for_virial, "virial", "stress times the volume"),
        (virial_of_the_other_sign, "virial", "its sign"),
    ],
)
def test_the_sentence_names_the_likely_mistake(tamper: Callable, item: str, said: str) -> None:
    assert said in check_potential(Tampered(tamper), crystal())[item].sentence


def test_edges_alone_are_seen_by_the_rounding_of_float32_alone() -> None:
    """The model is invariant, so every number agrees within rounding; that there is no rounding gives it away."""
    assert check_potential(Single(PairToy()), crystal()).passed
    report = check_potential(Tampered(turns_edges_alone, Single(PairToy())), crystal())
    assert report.failed == ["orientations seen"], str(report)


def test_one_bad_structure_among_good_ones_is_named() -> None:
    def bad_for_molecules(potential, structure, matrices):
        bad = not structure.pbc.any()
        yield from (changed(part, forces=-1.0 if bad else 1.0) for part in potential.turned(structure, matrices))

    report = check_potential(Tampered(bad_for_molecules, PeriodicToy(2)), [crystal(), molecule(), crystal()])
    assert report.failed == ["forces", "rotated forces"]
    assert "structure 1 (CHBrClF)" in report["forces"].sentence


def test_a_factor_common_to_energies_and_forces_cannot_be_seen() -> None:
    def all_in_kcal(potential, structure, matrices):
        yield from (changed(part, 23.06, 23.06, 23.06) for part in potential.turned(structure, matrices))

    assert check_potential(Tampered(all_in_kcal), crystal()).passed


@pytest.mark.parametrize(("fault", "copies"), [("tilted", "rotated"), ("improper", "inverted")])
def test_a_potential_that_fails_on_copies_is_checked_without_them(fault: str, copies: str) -> None:
    """The transformation that fails is named, and all other items are gone through."""

    class Refusing(PairToy):
        def turned(self, structure, matrices):
            for matrix in matrices:
                tilted = not np.isclose(np.abs(matrix), np.round(np.abs(matrix))).all()
                if (fault == "tilted" and tilted) or (fault == "improper" and np.linalg.det(matrix) < 0.0):
                    raise PotentialError("no such copies")
            yield from super().turned(structure, matrices)

    report = check_potential(Refusing(), crystal())
    assert report.failed[0] == "copies"
    assert f"{copies} copies of it cannot (no such copies)" in report["copies"].sentence
    assert report["order"].skipped
    assert report["forces"].passed
    assert not report["forces"].skipped
    assert "copies" not in [item.name for item in check_potential(PairToy(), crystal()).items]
