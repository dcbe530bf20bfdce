"""Random turns: uniform, made from keys, right in the mean; and frozen ones, on whose surface optimizers converge."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms
from ase.mep import NEB
from ase.optimize import BFGS, FIRE, LBFGS
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from goniometer import symmetrize
from goniometer.errors import InputError
from goniometer.potentials import Potential, Prediction
from goniometer.rotations import rule
from goniometer.rotations.characters import quadratic_forms
from goniometer.symmetrization import Averaged, RandomlyTurned, frozen
from goniometer.symmetrization.random import random_turn
from goniometer.testing import MolecularToy, PairToy, PeriodicToy, check_potential
from structures import molecule

EPS = float(np.finfo(np.float64).eps)
IDENTITY = rule("identity")


class Counting(Potential):
    """Counts evaluations, and remembers the matrices."""

    virial = "full"

    def __init__(self, potential: Potential) -> None:
        self.potential, self.name = potential, "counting"
        self.matrices: list[np.ndarray] = []

    def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
        self.matrices.extend(matrices)
        return self.potential.turned(structure, matrices)


def turn_of(structure: Atoms, **options) -> np.ndarray:
    """The element at which a randomly turned identity is evaluated."""
    seen = Counting(PairToy())
    potential = RandomlyTurned(seen, IDENTITY, verify=False, **options)
    potential.predict(structure)
    (matrix,) = seen.matrices
    return matrix


# Uniform


def chances(matrices: np.ndarray, lmax: int) -> np.ndarray:
    """p-values (2, lmax+1) of ⟨D^ℓ±⟩ = 0: N (2ℓ+1) Σ_mn |mean D_mn|² is χ² of (2ℓ+1)² degrees of freedom."""
    count = len(matrices)
    forms = np.array(quadratic_forms(matrices, np.full(count, 1.0 / count), lmax))
    dimension = 2 * np.arange(lmax + 1) + 1
    found = chi2.sf(count * dimension * forms, dimension**2)
    found[0, 0] = 1.0  # a constant
    return found


def test_turns_are_uniform_on_all_rotations_proper_or_not() -> None:
    for proper in (False, True):
        turns = np.array([np.matmul(*random_turn(proper, 0, step)) for step in range(1500)])
        determinants = np.linalg.det(turns)
        np.testing.assert_allclose(np.abs(determinants), 1.0, atol=1e-12)
        if proper:
            assert (determinants > 0).all()
            assert chances(turns, 4)[0].min() > 1e-3
        else:
            # Half of them are improper: ℓ = 0 of odd parity is the mean sign.
            assert chances(turns, 4).min() > 1e-3
            assert abs(np.mean(determinants > 0) - 0.5) < 4 * 0.5 / np.sqrt(len(turns))


def test_angles_that_are_uniform_are_not_uniform_rotations() -> None:
    """The control: Euler angles drawn evenly, and turns that are always proper."""
    angles = np.random.default_rng(0).uniform(0.0, 2.0 * np.pi, (1500, 3))
    angles[:, 1] /= 2.0
    uneven = Rotation.from_euler("ZYZ", angles).as_matrix()
    assert chances(uneven, 2)[0, 2] < 1e-6
    proper = np.array([np.matmul(*random_turn(True, 0, step)) for step in range(100)])
    assert chances(proper, 0)[1, 0] < 1e-6


def test_both_sides_are_turned_independently() -> None:
    """Each of h and h' is uniform, and so is h h'⁻¹."""
    pairs = [random_turn(True, 1, step) for step in range(1500)]
    for turns in (
        np.array([left for left, _ in pairs]),
        np.array([right for _, right in pairs]),
        np.array([left @ right.T for left, right in pairs]),
    ):
        assert chances(turns, 3)[0].min() > 1e-3


def test_turns_by_positions_are_uniform_over_a_trajectory() -> None:
    """Structures that differ by next to nothing."""
    structure, turns = molecule(), []
    for _ in range(400):
        structure.positions[0, 0] = np.nextafter(structure.positions[0, 0], 1.0)
        turns.append(turn_of(structure))
    assert chances(np.array(turns), 3).min() > 1e-3


# Right in the mean


@pytest.mark.parametrize(("name", "inversion"), [("identity", False), ("octahedral", False), ("octahedral", True)])
def test_what_a_rule_misses_is_right_in_the_mean(name: str, inversion: bool) -> None:
    structure, over = molecule(), rule(name, inversion)
    toy, exact = MolecularToy(4, 1, 0.02), PairToy().predict(molecule())
    potential = RandomlyTurned(toy, over, key="step")
    energies, forces = [], []
    for step in range(300):
        potential.step = step
        found = potential.predict(structure)
        energies.append(found.energies[0])
        forces.append(found.forces[0])
    for values, target in ((energies, exact.energies[0]), (forces, exact.forces[0])):
        error = np.std(values, axis=0, ddof=1) / np.sqrt(len(values)) + 1e3 * EPS
        # 16 numbers: the largest of them stays within 4 errors 999 times of 1000.
        assert (np.abs(np.mean(values, axis=0) - target) < 4.0 * error).all()
    # Control: the rule as it stands is off by more.
    fixed = Averaged(toy, over).predict(structure).energies[0]
    assert abs(fixed - exact.energies[0]) > 6.0 * np.std(energies, ddof=1) / np.sqrt(len(energies))
    assert np.std(energies) > 1e-3, "no noise would mean no turns"


def test_a_proper_turn_leaves_what_is_odd() -> None:
    """⟨E⟩ over SO(3) of a pseudoscalar is the pseudoscalar; over O(3) it is zero."""
    toy, exact = MolecularToy(0, -1, 0.02), PairToy().predict(molecule()).energies[0]
    for proper in (True, False):
        potential = RandomlyTurned(toy, IDENTITY, proper=proper, key="step")
        found = []
        for potential.step in range(100):
            found.append(potential.predict(molecule()).energies[0] - exact)
        assert np.std(found) == pytest.approx(0.0 if proper else 0.02, abs=1e-12 if proper else 2e-3)


# Keys


def test_the_same_structure_gets_the_same_turn() -> None:
    one, other = turn_of(molecule()), turn_of(molecule())
    assert (one == other).all()
    assert np.abs(turn_of(molecule(), seed=1) - one).max() > 1e-3


def test_another_last_bit_gets_another_turn() -> None:
    reference = turn_of(molecule())
    for place in np.ndindex(5, 3):
        structure = molecule()
        structure.positions[place] = np.nextafter(structure.positions[place], 9.0)
        assert np.abs(turn_of(structure) - reference).max() > 1e-3, place


def test_cell_species_and_periodicity_are_part_of_the_key() -> None:
    reference = turn_of(molecule())
    changed = [molecule() for _ in range(4)]
    changed[0].cell = np.eye(3)
    changed[1].numbers[0] = 7
    changed[2].cell, changed[2].pbc = np.eye(3) * 20.0, True
    changed[3].cell = np.eye(3) * 20.0
    turns = [reference, *(turn_of(structure) for structure in changed)]
    for k, one in enumerate(turns):
        for other in turns[:k]:
            assert np.abs(one - other).max() > 1e-3
    momenta = molecule()
    momenta.set_momenta(np.ones((5, 3)))
    assert (turn_of(momenta) == reference).all()


def test_zero_has_no_sign() -> None:
    positive, negative = molecule(), molecule()
    negative.positions[negative.positions == 0.0] = -0.0
    assert np.signbit(negative.positions).sum() > np.signbit(positive.positions).sum()
    assert (turn_of(positive) == turn_of(negative)).all()


def test_the_turn_of_a_key_is_the_same_for_ever() -> None:
    """Computed once by this code: runs that are stored go on with the same turns, whatever draws them."""
    known = {
        (0,): [0.2679926623281721, -0.9462719805717572, -0.1809675985447743],
        (7, 3): [0.5390075580649594, 0.21708813373323618, -0.8138449450239712],
    }
    for key, row in known.items():
        np.testing.assert_allclose(np.matmul(*random_turn(False, *key))[0], row, atol=1e-12)
    by_positions = [0.9407259078700871, 0.11407621621745381, -0.3194078633276105]
    np.testing.assert_allclose(turn_of(molecule(), seed=5)[0], by_positions, atol=1e-12)


def test_another_process_draws_the_same() -> None:
    code = (
        "from ase import Atoms; from goniometer import symmetrize; from goniometer.testing import MolecularToy\n"
        f"structure = Atoms('CHFClBr', {molecule().positions.tolist()})\n"
        "potential = symmetrize(MolecularToy(3, -1, 0.1), 'klein', strategy='random', seed=4)\n"
        "print(*(value.hex() for value in potential.predict(structure).forces.ravel()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    here = symmetrize(MolecularToy(3, -1, 0.1), "klein", strategy="random", seed=4).predict(molecule())
    assert [float.fromhex(word) for word in done.stdout.split()] == here.forces.ravel().tolist()


def test_steps_are_keys() -> None:
    seen = Counting(PairToy())
    potential = RandomlyTurned(seen, IDENTITY, key="step", seed=2, verify=False)
    for step in (0, 1, 0):
        potential.step = step
        potential.predict(molecule())
    shifted = molecule()
    shifted.positions += 0.1
    potential.predict(shifted)
    assert (seen.matrices[0] == seen.matrices[2]).all()
    assert np.abs(seen.matrices[0] - seen.matrices[1]).max() > 1e-3
    assert (seen.matrices[0] == seen.matrices[3]).all(), "the structure is no part of this key"


def test_every_copy_of_a_probe_has_its_own_turn_unless_the_step_is_the_key() -> None:
    matrices = np.stack([np.eye(3), Rotation.from_euler("z", 1.0).as_matrix()])
    for key, alike in (("positions", False), ("step", True)):
        seen = Counting(PairToy())
        potential = RandomlyTurned(seen, IDENTITY, key=key, verify=False)
        potential.step = 3
        list(potential.turned(molecule(), matrices))
        turns = np.array(seen.matrices) @ matrices.transpose(0, 2, 1)
        assert (np.abs(turns[0] - turns[1]).max() < 1e-12) == alike


def test_seeds_and_keys_that_differ_draw_turns_that_differ() -> None:
    """Zeros at the end count, and so do all bits of a seed."""
    keys = [(5,), (5, 0), (5, 0, 0), (0, 5), (0,), (2**32,), (5 + 2**32,), (5, 1), (5 + 2**64,), (2**128 - 1,)]
    turns = [np.matmul(*random_turn(True, *key)) for key in keys]
    for k, one in enumerate(turns):
        for other in turns[:k]:
            assert np.abs(one - other).max() > 1e-3
    assert (np.matmul(*random_turn(True, 5)) == turns[0]).all()
    # Control: what numpy makes of the integers in a row.
    draws = [np.random.SeedSequence(key).generate_state(4).tolist() for key in ((5,), (5, 0), (5 + 2**32,), (5, 1))]
    assert draws[0] == draws[1]
    assert draws[2] == draws[3]
    with pytest.raises(InputError, match="below 2¹²⁸"):
        random_turn(True, 2**128)


@pytest.mark.parametrize("make", [lambda: random_turn(False, -1), lambda: frozen(IDENTITY, -1)])
def test_a_negative_seed_is_refused(make: Callable) -> None:
    with pytest.raises(InputError, match="0 or more, not -1"):
        make()


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(InputError, match="'positions' or 'step', not 'time'"):
        symmetrize(PairToy(), strategy="random", key="time")


# Calculators


def test_a_calculator_evaluates_again_when_the_step_has_changed() -> None:
    seen = Counting(MolecularToy(2, 1, 0.1))
    potential = RandomlyTurned(seen, IDENTITY, key="step", verify=False)
    potential.step = 0
    structure = molecule()
    structure.calc = potential.calculator()
    first = structure.get_potential_energy()
    structure.get_forces()
    assert len(seen.matrices) == 1
    potential.step = 1
    second = structure.get_potential_energy()
    structure.get_forces()
    assert len(seen.matrices) == 2
    assert abs(second - first) > 1e-4


def test_a_step_that_nobody_counts_is_refused() -> None:
    potential = symmetrize(MolecularToy(2, 1, 0.1), "klein", strategy="random", key="step")
    structure = molecule()
    structure.calc = potential.calculator()
    for _ in range(2):
        with pytest.raises(InputError, match="needs the step, which nobody has set"):
            structure.get_forces()
    potential.step = 0
    first = structure.get_forces()
    potential.step = 1
    assert np.abs(structure.get_forces() - first).max() > 1e-4


def test_a_calculator_keyed_by_positions_evaluates_once_a_structure() -> None:
    seen = Counting(MolecularToy(2, 1, 0.1))
    structure = molecule()
    structure.calc = RandomlyTurned(seen, IDENTITY, verify=False).calculator()
    structure.get_potential_energy()
    structure.get_forces()
    structure.get_potential_energy()
    assert len(seen.matrices) == 1


def test_a_random_potential_says_that_it_is_stochastic() -> None:
    potential = RandomlyTurned(MolecularToy(2, 1, 0.1), IDENTITY)
    assert potential.stochastic
    assert not Averaged(MolecularToy(2, 1, 0.1), frozen(IDENTITY, 3)).stochastic


# Frozen: one smooth surface


def test_a_frozen_turn_is_drawn_once_and_smooth() -> None:
    over = rule("klein", inversion=True)
    one, other = frozen(over, 3), frozen(over, 3)
    assert (one.matrices == other.matrices).all()
    assert (one.seed, one.degree, one.inversion, len(one)) == (3, over.degree, True, len(over))
    assert np.abs(frozen(over, 4).matrices - one.matrices).max() > 1e-3
    report = check_potential(Averaged(MolecularToy(3, 1, 0.1), frozen(IDENTITY, 3)), molecule())
    assert report.passed, str(report)
    assert "resolved to" in report["forces"].sentence
    assert "as far as can be told" not in report["forces"].sentence


def test_turns_of_different_kinds_have_different_names() -> None:
    over = rule("klein")
    turned = [over, over.turned_at_random(3), over.turned_at_random(3, "left"), over.turned_at_random(3, "right")]
    turned += [over.turned_at_random(4), frozen(over, 3), frozen(over, 4), frozen(over, 3, proper=True)]
    names = [Averaged(PairToy(), each).name for each in turned]
    assert len(set(names)) == len(names)
    assert names[5] == "PairToy averaged over klein (4), frozen by seed 3"


def test_frozen_turns_are_improper_half_of_the_time_unless_proper() -> None:
    signs = [np.linalg.det(frozen(IDENTITY, seed).matrices[0]) for seed in range(60)]
    assert 15 < np.sum(np.array(signs) > 0) < 45
    assert all(np.linalg.det(frozen(IDENTITY, seed, proper=True).matrices[0]) > 0 for seed in range(20))


STRENGTH, FMAX = 0.2, 0.01
SURFACES = ("frozen", "random")


def surface(strategy: str) -> Potential:
    # Of all pairs: that of a single direction vanishes by chance every now and then, and a run ends.
    return symmetrize(PeriodicToy(2, 1, STRENGTH), "identity", inversion=False, strategy=strategy, seed=1)


@pytest.mark.parametrize("optimizer", [BFGS, FIRE, LBFGS])
def test_optimizers_converge_on_the_frozen_surface_and_not_on_fresh_turns(optimizer: type) -> None:
    converged = {}
    for strategy in SURFACES:
        structure = molecule()
        structure.calc = surface(strategy).calculator()
        converged[strategy] = bool(optimizer(structure, logfile=None).run(fmax=FMAX, steps=300))
    assert converged == {"frozen": True, "random": False}


def test_bands_converge_on_the_frozen_surface_and_not_on_fresh_turns() -> None:
    """A hydrogen hops between two oxygens that are held."""
    converged, barrier = {}, 0.0
    for strategy in SURFACES:
        potential = surface(strategy)
        images = []
        for x in np.linspace(0.97, 2.03, 5):
            image = Atoms("OHO", [[0, 0, 0], [x, 0.02, 0.01], [3.0, 0, 0]], constraint=FixAtoms([0, 2]))
            image.calc = potential.calculator()
            images.append(image)
        for end in (images[0], images[-1]):
            if strategy == "frozen":
                assert BFGS(end, logfile=None).run(fmax=FMAX, steps=100)
        band = NEB(images, k=1.0, method="improvedtangent")
        converged[strategy] = bool(BFGS(band, logfile=None).run(fmax=FMAX, steps=100))
        if strategy == "frozen":
            energies = [image.get_potential_energy() for image in images]
            barrier = max(energies) - energies[0]
    assert converged == {"frozen": True, "random": False}
    assert barrier > 0.05
