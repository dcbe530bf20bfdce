"""Space groups: one element a coset gives the whole average; relaxations keep the group, phonons their degeneracies."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import spglib
from ase import Atoms, units
from ase.build import bulk
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from scipy.optimize import minimize

import goniometer
from goniometer import symmetrize
from goniometer.errors import InputError
from goniometer.potentials import Potential, Prediction
from goniometer.rotations import Rule, random_rotations, rule
from goniometer.structures.rotation import turned
from goniometer.symmetrization import Averaged, CrystalAveraged, operations
from goniometer.testing import PeriodicToy, SumOf

EPS = float(np.finfo(np.float64).eps)
# Sums of some thousand terms of up to some 10 eV.
EXACT = 1e-11
OCTAHEDRAL = rule("octahedral", inversion=True)


def rocksalt() -> Atoms:
    return bulk("NaCl", "rocksalt", 5.6, cubic=True)


def primitive() -> Atoms:
    return bulk("NaCl", "rocksalt", 5.6)


def wurtzite() -> Atoms:
    """Shifted, so that no operation is without a translation."""
    structure = bulk("ZnO", "wurtzite", 3.25, 5.2)
    structure.positions += [0.3, 0.2, 0.1]
    structure.wrap()
    return structure


def triclinic() -> Atoms:
    """Nothing but inversion, at a place of its own."""
    cell = [[4.0, 0.1, 0.2], [0.5, 4.3, -0.3], [-0.4, 0.6, 4.7]]
    scaled = np.array([[0.1, 0.2, 0.3], [0.35, 0.1, 0.2]])
    centre = np.array([0.05, 0.1, 0.15])
    structure = Atoms("NaClNaCl", cell=cell, pbc=True)
    structure.set_scaled_positions(np.concatenate([centre + scaled, centre - scaled]))
    return structure


CRYSTALS: dict[str, tuple[Callable[[], Atoms], str, int, int]] = {
    # structure, rule, elements with inversion, representatives
    "rocksalt": (rocksalt, "octahedral", 48, 1),
    "primitive": (primitive, "octahedral", 48, 1),
    "supercell": (lambda: rocksalt() * (2, 1, 1), "octahedral", 48, 3),
    "icosahedral rule": (rocksalt, "icosahedral", 120, 5),
    "half turns": (rocksalt, "lebedev:5", 168, 21),
    "diamond": (lambda: bulk("Si", cubic=True), "octahedral", 48, 1),
    "zincblende": (lambda: bulk("ZnS", "zincblende", 5.4, cubic=True), "octahedral", 48, 2),
    "wurtzite": (wurtzite, "octahedral", 48, 12),
    "wurtzite, six-fold": (wurtzite, "lebedev:5", 168, 14),
    "triclinic": (triclinic, "octahedral", 48, 24),
}
crystals = pytest.mark.parametrize("name", CRYSTALS)


class Counting(Potential):
    """Counts copies; with energies of atoms that add up."""

    virial, atomic = "full", True

    def __init__(self, potential: Potential) -> None:
        self.potential, self.name, self.count = potential, "counting", 0

    def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
        for part in self.potential.turned(structure, matrices):
            self.count += len(part)
            # Not the same for atoms of one kind: what a coset average has to permute.
            shares = np.abs(part.forces).sum(axis=2) + 0.1
            atomic = part.energies[:, None] * shares / shares.sum(axis=1, keepdims=True)
            yield Prediction(part.energies, part.forces, part.virials, atomic)


def toy() -> Potential:
    """Anisotropic to beyond the degree of every rule here, along an axis of no symmetry."""
    return SumOf([PeriodicToy(ell, 1, 0.02, axis=(0.9, 0.3, 0.2)) for ell in (2, 4, 6)])


# The same average


@crystals
def test_coset_averages_are_the_whole_average(name: str) -> None:
    build, rule_name, size, few = CRYSTALS[name]
    structure, over = build(), rule(rule_name, inversion=True)
    counted = Counting(toy())
    crystal = CrystalAveraged(counted, over, structure)
    crystal.verify(structure)
    tested = counted.count
    found = crystal.predict(structure)
    assert (len(over), len(crystal.representatives), counted.count - tested) == (size, few, few)
    assert size == few * len(crystal.operations)
    whole = Averaged(Counting(toy()), over).predict(structure)
    np.testing.assert_allclose(found.energies, whole.energies, atol=EXACT)
    np.testing.assert_allclose(found.forces, whole.forces, atol=EXACT)
    np.testing.assert_allclose(found.virials, whole.virials, atol=EXACT)
    np.testing.assert_allclose(found.atomic, whole.atomic, atol=EXACT)
    # Differences of squares: half of the digits, of virials of some eV.
    np.testing.assert_allclose(found.spread.energies, whole.spread.energies, atol=1e-6)
    np.testing.assert_allclose(found.spread.forces, whole.spread.forces, atol=1e-6)
    np.testing.assert_allclose(found.spread.virials, whole.spread.virials, atol=1e-6)
    # Control: there is something to average.
    raw = toy().predict(structure)
    assert np.abs(raw.virials - whole.virials).max() > 1e-3


def test_forces_and_virials_need_the_permutations() -> None:
    """The control: the mean over representatives alone is another one, and breaks the symmetry."""
    structure = wurtzite()
    crystal = CrystalAveraged(toy(), OCTAHEDRAL, structure)
    alone = Averaged(toy(), crystal.representatives).predict(structure)
    whole = Averaged(toy(), OCTAHEDRAL).predict(structure)
    assert alone.energies[0] == pytest.approx(whole.energies[0], abs=EXACT)
    assert np.abs(alone.forces - whole.forces).max() > 1e-4
    assert np.abs(alone.virials - whole.virials).max() > 1e-3


def test_structures_that_keep_the_group_are_taken() -> None:
    """Wider, relaxed along what is free, shifted as a whole, wrapped otherwise."""
    crystal = CrystalAveraged(toy(), rule("lebedev:5", inversion=True), wurtzite())
    whole = Averaged(toy(), crystal.rule)
    wider = wurtzite()
    wider.set_cell(wider.cell.array @ np.diag([1.03, 1.03, 0.98]), scale_atoms=True)
    wider.positions[wider.numbers == 8, 2] += 0.07
    shifted = wider.copy()
    shifted.positions += [0.5, -0.7, 11.0]
    wrapped = shifted.copy()
    wrapped.wrap()
    for structure in (wider, shifted, wrapped):
        found, expected = crystal.predict(structure), whole.predict(structure)
        np.testing.assert_allclose(found.forces, expected.forces, atol=1e-8)
        np.testing.assert_allclose(found.virials, expected.virials, atol=1e-8)
        assert len(crystal.representatives) < len(crystal.rule)


def test_a_turned_crystal_takes_a_turned_rule() -> None:
    """And turned copies are evaluated with the whole rule, so that a probe sees the potential that it is."""
    turn = random_rotations(1, np.random.default_rng(3))[0]
    with pytest.raises(InputError, match="closed under no symmetry"):
        CrystalAveraged(toy(), rule("octahedral"), turned(rocksalt(), turn))
    crystal = CrystalAveraged(toy(), OCTAHEDRAL.turned(turn, turn.T), turned(rocksalt(), turn))
    assert len(crystal.representatives) == 1
    counted = Counting(toy())
    straight = CrystalAveraged(counted, OCTAHEDRAL, rocksalt())
    straight.verify(rocksalt())
    tested = counted.count
    copies = list(straight.turned(rocksalt(), np.stack([turn, np.eye(3)])))
    assert counted.count == tested + 49
    whole = list(Averaged(toy(), OCTAHEDRAL).turned(rocksalt(), np.stack([turn, np.eye(3)])))
    for one, other in zip(copies, whole, strict=True):
        np.testing.assert_allclose(one.energies, other.energies, atol=EXACT)
        np.testing.assert_allclose(one.forces, other.forces, atol=EXACT)


@crystals
def test_operations_map_the_crystal_onto_itself(name: str) -> None:
    structure = CRYSTALS[name][0]()
    found = operations(structure)
    dataset = spglib.get_symmetry((structure.cell.array, structure.get_scaled_positions(), structure.numbers))
    assert len(found) == len({rotation.tobytes() for rotation in dataset["rotations"]})
    assert np.abs(found[0].matrix - np.eye(3)).max() < 1e-12
    for each in found:
        np.testing.assert_allclose(each.matrix @ each.matrix.T, np.eye(3), atol=1e-12)
        moved = structure.copy()
        moved.positions = structure.positions @ each.matrix.T
        shift = structure.get_scaled_positions(wrap=False)[each.sites] - moved.get_scaled_positions(wrap=False)
        shift -= shift[0]
        assert np.abs(shift - np.round(shift)).max() < 1e-6
        assert sorted(each.sites) == list(range(len(structure)))


# Refusals


def displaced(size: float) -> Atoms:
    structure = rocksalt()
    structure.positions[0, 0] += size
    return structure


def test_a_structure_that_left_the_symmetry_is_refused() -> None:
    crystal = CrystalAveraged(toy(), OCTAHEDRAL, rocksalt())
    crystal.predict(displaced(2e-5))
    with pytest.raises(InputError, match=r"Cl4Na4 is 0\.0\d+ Å off the symmetry of its reference, more than 0\.0001 Å"):
        crystal.predict(displaced(0.01))
    sheared = rocksalt()
    sheared.set_cell(sheared.cell.array @ (np.eye(3) + 0.01 * np.eye(3, k=1)), scale_atoms=True)
    with pytest.raises(InputError, match="off the symmetry"):
        crystal.predict(sheared)
    with pytest.raises(InputError, match="atoms, in their order"):
        crystal.predict(rocksalt()[::-1])
    CrystalAveraged(toy(), OCTAHEDRAL, rocksalt(), tolerance=0.1).predict(displaced(0.01))


def test_what_has_no_group_or_no_use_for_it_is_refused() -> None:
    slab = rocksalt()
    slab.pbc = [True, True, False]
    with pytest.raises(InputError, match="not periodic in three directions"):
        CrystalAveraged(toy(), OCTAHEDRAL, slab)
    shaken = rocksalt()
    shaken.rattle(0.1)
    with pytest.raises(InputError, match="closed under no symmetry of Cl4Na4: turn the rule or the crystal"):
        CrystalAveraged(toy(), OCTAHEDRAL, shaken)
    for name in ("gauss:2", "random:24"):
        with pytest.raises(InputError, match="closed under no symmetry"):
            CrystalAveraged(toy(), rule(name), rocksalt())
    # Proper rotations alone: inversion is no use, so a triclinic crystal saves nothing.
    with pytest.raises(InputError, match="closed under no symmetry"):
        CrystalAveraged(toy(), rule("octahedral"), triclinic())
    close = rocksalt()
    close.positions[1] = close.positions[0]
    with pytest.raises(InputError):
        CrystalAveraged(toy(), OCTAHEDRAL, close)


def test_a_rule_is_closed_with_its_weights_or_not_at_all() -> None:
    weights = np.full(48, 1 / 48)
    weights[:2] += [0.001, -0.001]
    uneven = Rule("uneven", OCTAHEDRAL.matrices, weights, 0)
    with pytest.raises(InputError, match="closed under no symmetry"):
        CrystalAveraged(toy(), uneven, rocksalt())
    twice = Rule("twice", OCTAHEDRAL.matrices[[0, 0, *range(48)]], np.full(50, 1 / 50), 0)
    with pytest.raises(InputError, match="closed under no symmetry"):
        CrystalAveraged(toy(), twice, rocksalt())
    half = Rule("half", np.concatenate([OCTAHEDRAL.matrices] * 2), np.full(96, 1 / 96), 3)
    with pytest.raises(InputError, match="closed under no symmetry"):
        CrystalAveraged(toy(), half, rocksalt())


# Relaxation


def group(structure: Atoms, tolerance: float = 1e-6) -> int:
    cell = (structure.cell.array, structure.get_scaled_positions(), structure.numbers)
    return int(spglib.get_symmetry_dataset(cell, symprec=tolerance).number)


def relaxed(potential: Potential, structure: Atoms, fixed: bool = False, steps: int = 100) -> Atoms:
    structure = structure.copy()
    structure.calc = potential.calculator()
    if fixed:
        structure.set_constraint(FixSymmetry(structure))
    converged = BFGS(FrechetCellFilter(structure), logfile=None).run(fmax=0.01, steps=steps)
    assert converged or steps < 100
    return structure


def test_a_relaxation_keeps_the_space_group() -> None:
    potential = PeriodicToy(2, 1, 0.05, axis=(0.9, 0.3, 0.2))
    over = rule("lebedev:3", inversion=True)
    whole = relaxed(Averaged(potential, over), wurtzite())
    few = relaxed(symmetrize(potential, over, space_group=wurtzite()), wurtzite())
    fixed = relaxed(Averaged(potential, over), wurtzite(), fixed=True)
    for structure in (few, fixed, whole):
        assert group(structure) == 186
        # All three end at one minimum, as far as the forces that are left leave open.
        assert structure.get_potential_energy() == pytest.approx(whole.get_potential_energy(), abs=1e-5)
    assert np.abs(whole.cell.array - wurtzite().cell.array).max() > 0.01
    assert group(relaxed(potential, wurtzite(), steps=5), 1e-3) != 186  # the control


# Phonons


def hessian(potential: Potential, structure: Atoms, step: float = 1e-3, atoms: int | None = None) -> np.ndarray:
    """∂²E/∂x∂x' in eV/Å² of the first so many atoms with all, (3n, 3N), not symmetrized, from forces."""
    rows = []
    for place in np.ndindex(atoms or len(structure), 3):
        ends = []
        for sign in (1, -1):
            moved = structure.copy()
            moved.positions[place] += sign * step
            ends.append(potential.predict(moved).forces[0].ravel())
        rows.append((ends[1] - ends[0]) / (2.0 * step))
    return np.array(rows)


def frequencies(potential: Potential, structure: Atoms, step: float) -> np.ndarray:
    """Harmonic frequencies in cm⁻¹, ascending, imaginary ones negative."""
    masses = np.repeat(structure.get_masses(), 3)
    matrix = hessian(potential, structure, step) / np.sqrt(np.outer(masses, masses))
    squares = np.linalg.eigvalsh((matrix + matrix.T) / 2.0)
    to_wavenumbers = units._hbar * 1e10 / np.sqrt(units._e * units._amu) / units.invcm
    return np.sign(squares) * np.sqrt(np.abs(squares)) * to_wavenumbers


def phonons(potential: Potential, point: list[float]) -> np.ndarray:
    """ω² in THz², signed, by phonopy, without the help of its symmetries."""
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    cell = primitive()
    atoms = PhonopyAtoms(cell.get_chemical_symbols(), cell=cell.cell.array, positions=cell.positions)
    made = Phonopy(atoms, supercell_matrix=2 * np.eye(3, dtype=int), is_symmetry=False, log_level=0)
    # It displaces along the vectors of the cell, whose error of second order has not the symmetry of the crystal.
    made.generate_displacements(distance=1e-4, is_plusminus=True)
    forces = []
    for one in made.supercells_with_displacements:
        structure = Atoms(one.symbols, cell=one.cell, scaled_positions=one.scaled_positions, pbc=True)
        forces.append(potential.predict(structure).forces[0])
    made.forces = np.array(forces)
    made.produce_force_constants()
    (found,) = made.run_qpoints([point]).frequencies
    return np.sign(found) * found**2


def test_splittings_of_degenerate_phonons_vanish_within_the_degree() -> None:
    """Three-fold optical modes at Γ, two-fold transverse ones at X."""
    raw = PeriodicToy(2, 1, 0.05, axis=(0.9, 0.3, 0.2))
    averaged = Averaged(raw, OCTAHEDRAL)
    for potential, splits in ((raw, True), (averaged, False)):
        gamma, x = phonons(potential, [0.0, 0.0, 0.0]), phonons(potential, [0.5, 0.0, 0.5])
        scale = np.abs(gamma).max()
        optical = np.ptp(gamma[3:]) / scale
        # Of the six modes at X, four are two pairs.
        pairs = np.sort(np.diff(np.sort(x)))[:2].max() / scale
        if splits:
            assert optical > 0.1
            assert pairs > 0.01
        else:
            assert max(optical, pairs) < 1e-6
        # The acoustic sum rule is intact in both.
        assert np.abs(gamma[:3]).max() < 1e-6 * scale


@pytest.mark.parametrize("make", [lambda toy: toy, lambda toy: Averaged(toy, OCTAHEDRAL)], ids=["raw", "averaged"])
def test_the_acoustic_sum_rule_is_intact_in_both(make: Callable) -> None:
    matrix = hessian(make(PeriodicToy(4, 1, 0.05)), primitive()).reshape(2, 3, 2, 3)
    assert np.abs(matrix.sum(axis=0)).max() < 1e-10
    assert np.abs(matrix.sum(axis=2)).max() < 1e-10
    assert np.abs(matrix).max() > 0.1


def anisotropy(potential: Potential) -> np.ndarray:
    """What splits the optical modes: the force constants of one ion on itself, less their isotropic part."""
    block = hessian(potential, primitive(), atoms=1)[:, :3]
    return block - np.trace(block) / 3.0 * np.eye(3)


def test_splittings_above_the_degree_are_the_predicted_ones() -> None:
    """Force constants are as linear in the response as energies: in the mean over turns ρ_ℓ of their square is left."""
    toy = PeriodicToy(4, 1, 0.05)
    even, _ = OCTAHEDRAL.residuals(4)
    assert even[4] == pytest.approx(1 / 9)
    raw, left = [], []
    for seed in range(50):
        raw.append(np.sum(anisotropy(Averaged(toy, rule("identity").turned_at_random(seed))) ** 2))
        left.append(np.sum(anisotropy(Averaged(toy, rule("octahedral").turned_at_random(seed))) ** 2))
    shares = np.mean(left) / np.mean(raw)
    error = shares * np.hypot(*(np.std(each, ddof=1) / np.mean(each) / np.sqrt(50) for each in (raw, left)))
    assert shares == pytest.approx(even[4], abs=4.0 * error)
    assert error < 0.3 * even[4]
    # Along the axes of the crystal, what is left has the symmetry of the crystal, and splits nothing.
    assert np.abs(anisotropy(Averaged(toy, rule("octahedral")))).max() < 1e-9


def to_rest(atoms: Atoms) -> None:
    """To where forces vanish, over hundreds of steps if need be: a raw surface is nearly flat in its rotations."""

    def surface(positions: np.ndarray) -> tuple[float, np.ndarray]:
        atoms.positions = positions.reshape(-1, 3)
        return atoms.get_potential_energy(), -atoms.get_forces().ravel()

    found = minimize(surface, atoms.positions.ravel(), jac=True, method="BFGS", options={"gtol": 1e-6, "maxiter": 3000})
    assert np.abs(found.jac).max() < 1e-5
    atoms.positions = found.x.reshape(-1, 3)


@pytest.mark.nightly
def test_the_rotations_of_a_lone_molecule_lose_their_frequencies() -> None:
    """The squares ω² of rigid rotations are curvatures ℓ(ℓ+1) of the symmetry error: the rule leaves √ρ_ℓ of them."""
    potential = goniometer.load("pet-water-unaugmented", dtype="float64", batch=48)
    seen = goniometer.probe(potential, "molecule", lmax=4).structures[0].energy.spectrum
    casimir = np.array([ell * (ell + 1.0) for ell in range(5)])
    even, odd = OCTAHEDRAL.residuals(4)
    plus, minus = np.maximum(seen.plus, 0.0), np.maximum(seen.minus, 0.0)
    before = casimir**2 @ (plus + minus)
    after = casimir**2 @ (plus * even + minus * odd)
    predicted = (after / before) ** 0.25
    found = {}
    for name, used in (("raw", potential), ("averaged", Averaged(potential, OCTAHEDRAL))):
        (molecule,) = (structure.atoms for structure in goniometer.read_structures("molecule"))
        molecule.calc = used.calculator()
        to_rest(molecule)
        found[name] = frequencies(used, molecule, 3e-4)
    raw, averaged = found["raw"], found["averaged"]
    # Three vibrations; of the rest the three largest are rotations, and translations are roots of the rounding.
    np.testing.assert_allclose(averaged[6:], raw[6:], rtol=0.03)
    assert raw[6] > 1500.0
    low = {name: np.sort(np.abs(modes[:6])) for name, modes in found.items()}
    assert max(low["raw"][2], low["averaged"][2]) < 0.1
    np.testing.assert_allclose(low["raw"][3:], [23.1, 34.4, 36.7], rtol=0.05)
    assert low["averaged"][5] < 6.0
    shrunk = (np.mean(low["averaged"][3:] ** 4) / np.mean(low["raw"][3:] ** 4)) ** 0.25
    # One orientation is not the mean over all, and the minimum of the raw surface is where it curves most.
    assert predicted / 3.0 < shrunk < 3.0 * predicted


def test_what_the_space_group_does_not_see_is_refused() -> None:
    """Spins, and another periodicity than the reference's."""
    toy, crystal = PeriodicToy(4, 1, 0.05), bulk("NaCl", "rocksalt", 5.6, cubic=True)
    potential = goniometer.symmetrize(toy, "octahedral", space_group=crystal)
    slab = crystal.copy()
    slab.pbc = (True, True, False)
    with pytest.raises(InputError, match="not periodic in three directions"):
        potential.predict(slab)
    magnet = crystal.copy()
    magnet.set_initial_magnetic_moments([1.0, -1.0] * (len(magnet) // 2))
    with pytest.raises(InputError, match="initial_magmoms, which the space group"):
        goniometer.symmetrize(toy, "octahedral", space_group=magnet)
    with pytest.raises(InputError, match="initial_magmoms, which the space group"):
        potential.predict(magnet)
