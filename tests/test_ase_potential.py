"""ASE calculators as potentials, and potentials as ASE calculators."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixCartesian
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from goniometer.errors import InputError, PotentialError
from goniometer.potentials import AsePotential, PotentialCalculator
from goniometer.rotations import Rule, random_rotations
from goniometer.rotations.characters import characters, pair_cosines
from goniometer.structures import check_structure
from goniometer.symmetrization import response

EPS = np.finfo(float).eps
MATRICES = random_rotations(4, np.random.default_rng(0)) * np.array([1, 1, -1, -1])[:, None, None]


def smooth_lj() -> LennardJones:
    """Forces without a step at the cutoff, so that rounding cannot push a pair over an edge."""
    return LennardJones(sigma=1.0, epsilon=0.1, rc=3.0, ro=2.0, smooth=True)


def rattled(atoms: Atoms, seed: int = 0) -> Atoms:
    atoms.rattle(0.1, seed=seed)
    return atoms


def triclinic() -> Atoms:
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.set_cell(atoms.cell.array @ [[1.02, 0.05, -0.03], [0.0, 0.99, 0.08], [0.04, 0.0, 1.03]], scale_atoms=True)
    return rattled(atoms)


def slab() -> Atoms:
    atoms = triclinic()
    atoms.pbc = [True, True, False]
    return atoms


STRUCTURES = {
    "triclinic": triclinic,
    "slab": slab,
    "cluster": lambda: rattled(Atoms(bulk("Cu", cubic=True).symbols, bulk("Cu", cubic=True).positions)),
}
LAWS = {"EMT": EMT, "LJ": lambda: LennardJones(sigma=2.3, epsilon=0.4, rc=6.0, ro=5.0, smooth=True)}


class Field(Calculator):
    """Charges in a uniform field along z: E = −f Σ q z, F = f q ẑ. All of its response has ℓ = 1."""

    implemented_properties = ("energy", "forces")
    field = 0.7

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        charges = atoms.get_initial_charges()
        self.results["energy"] = -self.field * charges @ atoms.positions[:, 2]
        self.results["forces"] = self.field * charges[:, None] * np.array([0.0, 0.0, 1.0])


class Answering(Calculator):
    """Answers with whatever it is told to."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, energy=0.0, forces=None, stress=None, **kwargs):
        super().__init__(**kwargs)
        self.answer = {"energy": energy, "forces": forces, "stress": stress}

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        default = {"forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)}
        self.results = {key: default.get(key) if value is None else value for key, value in self.answer.items()}
        self.results = {key: value for key, value in self.results.items() if not isinstance(value, str) or value != "-"}


class Raising(Calculator):
    implemented_properties = ("energy", "forces")

    def __init__(self, error: BaseException):
        super().__init__()
        self.error = error

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        raise self.error


# Correct rotation


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", STRUCTURES)
def test_invariant_calculators_have_a_constant_response(law, name):
    structure = STRUCTURES[name]()
    before = structure.copy()
    potential = AsePotential(LAWS[law]())
    found = response(potential, structure, MATRICES)
    # A distance of some Å is off by its own rounding, and curvatures are below 10³ eV/Å².
    tolerance = 1e3 * 100 * EPS * len(structure)
    assert np.ptp(found.energies) < tolerance
    assert np.ptp(found.forces, axis=0).max() < tolerance
    assert np.abs(found.forces).max() > 0.1, "zero forces would prove nothing"
    if name == "triclinic":
        assert np.ptp(found.virials, axis=0).max() < 100 * tolerance
        assert np.abs(found.virials).max() > 0.1
    else:
        assert found.virials is None
    assert structure == before
    assert structure.calc is None


def test_the_response_is_what_the_calculator_says_of_the_structure():
    structure = triclinic()
    prediction = AsePotential(EMT()).predict(structure)
    structure.calc = EMT()
    assert prediction.energies[0] == structure.get_potential_energy()
    assert (prediction.forces[0] == structure.get_forces()).all()
    expected = structure.get_stress(voigt=False) * structure.get_volume()
    assert np.allclose(prediction.virials[0], expected, rtol=1e-14, atol=0)


def test_virial_is_the_derivative_with_respect_to_strain():
    structure = triclinic()
    potential = AsePotential(LAWS["LJ"]())
    virial = potential.predict(structure).virials[0]
    step = 1e-5
    for a, b in [(0, 0), (0, 1), (2, 1)]:
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * step
            strained = structure.copy()
            strained.set_cell(structure.cell.array @ strain, scale_atoms=False)
            strained.positions = structure.positions @ strain
            energies.append(potential.predict(strained).energies[0])
        assert (energies[0] - energies[1]) / (2 * step) == pytest.approx(virial[a, b], rel=1e-5, abs=1e-5)


def test_a_field_has_the_variance_and_the_spectrum_of_a_dipole():
    """The control that must not vanish: Var E = f² μ²/3, all of it in P_1; F(g) = f q ẑᵀR."""
    structure = molecule("H2O")
    structure.set_initial_charges([-0.8, 0.3, 0.5])
    structure.positions += [1.0, 2.0, 3.0]
    dipole = structure.get_initial_charges() @ structure.positions
    octahedral = Rotation.create_group("O").as_matrix() @ MATRICES[0]
    rule = Rule("octahedral", octahedral, np.full(24, 1 / 24), degree=3)
    found = response(AsePotential(Field()), structure, rule.matrices)
    expected = Field.field**2 * dipole @ dipole / 3
    assert np.var(found.energies) == pytest.approx(expected, rel=1e-12)
    assert found.energies == pytest.approx(-Field.field * rule.matrices[:, 2] @ dipole, rel=1e-12)
    pairs = np.outer(found.energies, found.energies) / 24**2
    cosines = pair_cosines(rule.matrices, rule.matrices)
    spectrum = [(2 * ell + 1) * (pairs * chi).sum() for ell, chi in enumerate(characters(cosines, 1))]
    assert spectrum == pytest.approx([0.0, expected], abs=1e-12)
    forces = Field.field * structure.get_initial_charges()[:, None] * rule.matrices[:, None, 2]
    assert found.forces == pytest.approx(forces, abs=1e-12)


def test_charges_and_moments_travel_with_the_structure():
    """Non-collinear moments turn as pseudovectors: position · (moment × moment) is odd under inversion."""

    class Chiral(Field):
        def calculate(self, atoms=None, properties=None, system_changes=all_changes):
            Calculator.calculate(self, atoms, properties, system_changes)
            moments = atoms.get_initial_magnetic_moments()
            self.results["energy"] = np.linalg.det([atoms.positions[1] - atoms.positions[0], *moments[:2]])
            self.results["forces"] = np.zeros((len(atoms), 3))

    structure = Atoms("Fe2", positions=[[0, 0, 0], [1.0, 2.0, 0.5]])
    structure.set_initial_magnetic_moments([[1.0, 0.0, 0.3], [0.2, 1.0, -0.4]])
    energies = response(AsePotential(Chiral()), structure, MATRICES).energies
    assert energies == pytest.approx(energies[0] * np.array([1, 1, -1, -1]), rel=1e-12)
    assert abs(energies[0]) > 0.1


def test_forces_are_the_raw_ones_whatever_the_constraints():
    structure = STRUCTURES["cluster"]()
    free = AsePotential(EMT()).predict(structure).forces
    structure.set_constraint(FixCartesian([0, 1], mask=(True, False, False)))
    found = response(AsePotential(EMT()), structure, MATRICES)
    assert np.allclose(found.forces, free, rtol=0, atol=1e-10)
    assert len(structure.constraints) == 1


def test_results_do_not_depend_on_what_was_evaluated_before():
    potential = AsePotential(smooth_lj())
    first = potential.predict(triclinic())
    moved = triclinic()
    moved.positions += 0.01
    for other in (moved, molecule("H2O"), slab()):
        potential.predict(other)
    again = potential.predict(triclinic())
    assert (first.energies == again.energies).all()
    assert (first.forces == again.forces).all()
    assert (first.virials == again.virials).all()


def test_a_calculator_that_damages_its_input_damages_a_copy():
    class Vandal(LennardJones):
        def calculate(self, atoms=None, properties=None, system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            atoms.positions[:] = 0.0
            atoms.numbers[:] = 1
            atoms.cell[:] = 0.0

    structure = triclinic()
    before = structure.copy()
    expected = AsePotential(LennardJones()).predict(structure)
    found = AsePotential(Vandal()).predict(structure)
    assert structure == before
    assert found.virials == pytest.approx(expected.virials)


def test_a_calculator_without_the_base_class():
    class Bare:
        def get_potential_energy(self, atoms=None, force_consistent=False):
            return float((atoms.positions**2).sum())

        def get_forces(self, atoms=None):
            return -2.0 * atoms.positions

    potential = AsePotential(Bare())
    structure = molecule("H2O")
    found = response(potential, structure, MATRICES)
    assert potential.virial == "none"
    assert found.energies == pytest.approx((structure.positions**2).sum(), rel=1e-12)
    assert found.forces == pytest.approx(np.broadcast_to(-2 * structure.positions, (4, 3, 3)), abs=1e-12)


def test_factories_classes_names_and_declarations():
    assert AsePotential(LennardJones).name == "LennardJones"
    potential = AsePotential(lambda: EMT(), name="copper", dtype="float32", conservative=False)
    assert (potential.name, potential.dtype, potential.conservative) == ("copper", "float32", False)
    assert potential.virial == "symmetric"
    assert AsePotential(Field()).virial == "none"


def test_a_full_stress_keeps_its_antisymmetric_part():
    stress = np.arange(9.0).reshape(3, 3)
    structure, potential = triclinic(), AsePotential(Answering(stress=stress))
    virial = potential.predict(structure).virials[0]
    assert virial == pytest.approx(stress * structure.get_volume())
    assert potential.virial == "full"


# What goes wrong

WATER = molecule("H2O")
BAD_ANSWERS = {
    "energy nan": (Answering(energy=np.nan), "Answering gave an energy that is not finite"),
    "forces nan": (Answering(forces=np.full((3, 3), np.nan)), "gave forces that are not finite"),
    "forces inf": (Answering(forces=np.full((3, 3), np.inf)), "not finite"),
    "forces shape": (Answering(forces=np.zeros((2, 3))), r"gave forces of shape \(2, 3\); it must be \(3, 3\)"),
    "forces flat": (Answering(forces=np.zeros(9)), r"gave forces of shape \(9,\); it must be \(3, 3\)"),
    "forces ragged": (Answering(forces=[[0.0], [0.0, 1.0], [0.0]]), "gave forces that are not numbers"),
    "forces words": (Answering(forces=[["a"] * 3] * 3), "gave forces that are not numbers"),
    "no forces": (Answering(forces="-"), "gave no forces"),
    "no energy": (Answering(energy="-"), "gave no energy"),
    "energy per atom": (Answering(energy=np.zeros(3)), r"gave energy of shape \(3,\)"),
    "complex": (Answering(energy=1 + 2j), "gave energy that"),
    "raises": (Raising(ValueError("cutoff too\n   small")), r"Raising failed on H2O: cutoff too small \(ValueError\)$"),
    "raises silently": (Raising(ZeroDivisionError()), "Raising failed on H2O: ZeroDivisionError$"),
    "exits": (Raising(SystemExit(3)), r"Raising failed on H2O: 3 \(SystemExit\)$"),
    "forces not implemented": (
        Raising(PropertyNotImplementedError("forces")),
        "does not compute what is needed: forces",
    ),
    "very long": (Raising(ValueError("x" * 10_000)), "x…"),
    "unsupported element": (EMT(), r"EMT failed on H2He: No EMT-potential for He \(NotImplementedError\)"),
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_bad_answers_are_errors_of_the_potential(case):
    calculator, message = BAD_ANSWERS[case]
    structure = Atoms("H2He", [[0, 0, 0], [0, 0, 1], [0, 1, 0]]) if case == "unsupported element" else WATER
    with pytest.raises(PotentialError, match=message) as caught:
        AsePotential(calculator).predict(structure)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("stress", [np.zeros(5), np.zeros((3, 2)), np.full(6, np.nan)])
def test_bad_stresses_are_errors_of_the_potential(stress):
    with pytest.raises(PotentialError, match=r"stress of shape|virial that is not finite"):
        AsePotential(Answering(stress=stress)).predict(triclinic())


def test_an_interrupt_is_not_an_error_of_the_potential():
    with pytest.raises(KeyboardInterrupt):
        AsePotential(Raising(KeyboardInterrupt())).predict(WATER)


def test_a_calculator_that_declares_no_forces_is_refused_at_once():
    class EnergyOnly(Field):
        implemented_properties = ("energy",)

    with pytest.raises(PotentialError, match="EnergyOnly does not compute forces, only energy"):
        AsePotential(EnergyOnly())


@pytest.mark.parametrize("thing", [3, None, "emt", lambda: 3])
def test_what_is_not_a_calculator_is_refused(thing):
    with pytest.raises(InputError, match="an ASE calculator is needed, not"):
        AsePotential(thing)


def test_a_calculator_without_a_stress_in_the_end_has_no_virial():
    assert AsePotential(Answering(stress="-")).predict(triclinic()).virials is None


# Any structure


@st.composite
def any_structure(draw: st.DrawFn) -> Atoms:
    """1 to 200 atoms, any cell (degenerate ones included), any periodicity, here and there a broken one."""
    count = draw(st.integers(1, 200))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # In units of a box that holds the atoms at a sensible density: often such a box, bent; sometimes anything.
    size = 2.0 * np.cbrt(count)
    bent = np.eye(3) + 0.4 * rng.normal(size=(3, 3))
    entries = st.sampled_from([0.0, 1.0, -0.5, 1e-3]) | st.floats(-2.0, 2.0)
    anything = st.lists(entries, min_size=9, max_size=9).map(lambda values: np.array(values).reshape(3, 3))
    cell = size * draw(st.just(bent) | st.just(bent) | anything)
    pbc = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    spread = draw(st.floats(0.1, 1.0) | st.floats(0.0, 4.0)) * size
    atoms = Atoms(rng.integers(1, 90, count), positions=rng.normal(size=(count, 3)) * spread, cell=cell, pbc=pbc)
    if draw(st.integers(0, 9)) == 0:
        atoms.positions[rng.integers(count), rng.integers(3)] = draw(st.sampled_from([np.nan, np.inf, -np.inf, 1e300]))
    return atoms


def images_in_reach(atoms: Atoms, cutoff: float) -> float:
    """About how many pairs a cutoff holds: some random cells are so dense that they would take minutes."""
    if not atoms.pbc.any():
        return float(len(atoms) ** 2)
    heights = 1.0 / np.linalg.norm(np.linalg.inv(atoms.cell.complete().array), axis=0)
    return float(len(atoms) ** 2 * np.prod(1 + 2 * cutoff / heights[atoms.pbc]))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(any_structure(), st.integers(0, 2**32 - 1))
def test_any_structure_is_refused_or_has_an_invariant_lennard_jones_energy(structure, seed):
    before = structure.copy()
    try:
        with np.errstate(all="raise", under="ignore"):
            check_structure(structure, "any")
    except InputError as error:
        event("refused: " + " ".join(str(error).split()[1:3]))
        return
    if images_in_reach(structure, 3.0) > 2e5:
        event("too dense to evaluate")
        return
    matrices = random_rotations(2, np.random.default_rng(seed)) * np.array([1.0, -1.0])[:, None, None]
    try:
        found = response(AsePotential(smooth_lj()), structure, matrices)
    except PotentialError:
        event("the calculator failed")
        return
    event("evaluated")
    # Close atoms feel forces of any size: rounding of a distance r is relative to the extent of structure and cell.
    cell = structure.cell.complete().array
    size = np.abs(structure.positions).max() + np.abs(cell).max() * np.linalg.cond(cell) + 1.0
    steepest = 0.05
    tolerance = 1e3 * EPS * size / steepest * (np.abs(found.forces).max() + np.abs(found.energies).max() + 1.0)
    assert np.ptp(found.energies) <= tolerance * len(structure)
    assert np.ptp(found.forces, axis=0).max() <= tolerance * len(structure)
    assert structure == before


# The way back


@pytest.mark.parametrize("make", STRUCTURES.values(), ids=STRUCTURES)
def test_calculator_of_a_potential_equals_the_calculator_in_it(make):
    ours, theirs = make(), make()
    ours.calc, theirs.calc = AsePotential(EMT()).calculator(), EMT()
    assert ours.get_potential_energy() == theirs.get_potential_energy()
    assert ours.get_potential_energy(force_consistent=True) == theirs.get_potential_energy()
    assert (ours.get_forces() == theirs.get_forces()).all()
    if ours.pbc.all():
        assert ours.get_stress() == pytest.approx(theirs.get_stress(), rel=1e-13)
    else:
        with pytest.raises(PropertyNotImplementedError):
            ours.get_stress()


def test_a_potential_without_virial_has_no_stress():
    calculator = PotentialCalculator(AsePotential(Field()))
    assert "stress" not in calculator.implemented_properties
    structure = triclinic()
    structure.calc = calculator
    with pytest.raises(PropertyNotImplementedError):
        structure.get_stress()


def test_an_unchanged_structure_is_evaluated_once():
    class Counting(AsePotential):
        count = 0

        def turned(self, structure, matrices):
            self.count += len(matrices)
            return super().turned(structure, matrices)

    potential = Counting(EMT())
    structure = triclinic()
    structure.calc = potential.calculator()
    structure.get_forces()
    structure.get_stress()
    structure.get_potential_energy()
    assert potential.count == 1
    structure.positions[0, 0] += 0.01
    structure.get_potential_energy()
    assert potential.count == 2


def test_errors_pass_through_the_calculator():
    structure = WATER.copy()
    structure.calc = AsePotential(Raising(ValueError("no"))).calculator()
    with pytest.raises(PotentialError, match="no"):
        structure.get_forces()
    # And through a potential made of that calculator, unchanged.
    with pytest.raises(PotentialError, match=r"^Raising failed on H2O"):
        AsePotential(structure.calc).predict(WATER)


def test_relaxation_and_dynamics_are_those_of_the_wrapped_calculator():
    relaxed = []
    for calculator in (EMT(), AsePotential(EMT()).calculator()):
        structure = STRUCTURES["cluster"]()
        structure.calc = calculator
        assert BFGS(structure, logfile=None).run(fmax=1e-3, steps=200)
        relaxed.append(structure.positions)
    assert np.allclose(*relaxed, rtol=0, atol=1e-8)
    structure = triclinic()
    structure.calc = AsePotential(EMT()).calculator()
    assert BFGS(FrechetCellFilter(structure), logfile=None).run(fmax=0.02, steps=200)
    assert np.abs(structure.get_stress()).max() < 1e-2
    spread = np.sqrt(structure.get_masses()[:, None] * units.kB * 300.0)
    structure.set_momenta(spread * np.random.default_rng(0).normal(size=(len(structure), 3)))
    start = structure.get_total_energy()
    kinetic = structure.get_kinetic_energy()
    VelocityVerlet(structure, timestep=2 * units.fs).run(50)
    assert abs(structure.get_kinetic_energy() - kinetic) > 1e-2, "nothing moved"
    assert abs(structure.get_total_energy() - start) < 1e-2 * kinetic
