"""Averages over rules: exact to their degree, gradients of one energy, the predicted leak beyond it."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from ase import Atoms
from scipy.spatial.transform import Rotation

from goniometer.errors import PotentialError
from goniometer.potentials import Potential, Prediction, Spread
from goniometer.rotations import Rule, in_words, random_rotations, rule
from goniometer.structures.rotation import turned
from goniometer.symmetrization import Averaged, response
from goniometer.symmetrization.average import averages
from goniometer.testing import MolecularToy, NonConservative, PairToy, PeriodicToy, SumOf, check_potential
from structures import crystal, molecule

EPS = float(np.finfo(np.float64).eps)
# What is promised, eV. The rounding of some hundred pairs of some eV is two orders below it.
EXACT = 1e-10
STRENGTH = 0.02
TURNS = random_rotations(6, np.random.default_rng(1)) * np.resize([1.0, -1.0], 6)[:, None, None]


MAKERS = {"molecule": (MolecularToy, molecule), "crystal": (PeriodicToy, crystal)}
kinds = pytest.mark.parametrize("kind", MAKERS)


class PerAtom(Potential):
    """Another potential's energy, shared out among the atoms with fixed weights; so many copies at a time."""

    virial, atomic = "full", True

    def __init__(self, potential: Potential, sizes: tuple[int, ...] = (5,)) -> None:
        self.potential, self.sizes, self.name = potential, sizes, "per atom"
        self.held: list[int] = []

    def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
        shares = np.arange(1.0, len(structure) + 1.0)
        done = count = 0
        while done < len(matrices):
            part = matrices[done : done + self.sizes[count % len(self.sizes)]]
            whole = Prediction.joined(self.potential.turned(structure, part))
            atomic = np.outer(whole.energies, shares / shares.sum())
            yield Prediction(whole.energies, whole.forces, whole.virials, atomic)
            done, count = done + len(part), count + 1


class Changed(Potential):
    """Hands on predictions that a function of the number of the first copy has changed."""

    virial = "full"

    def __init__(self, change, batch: int = 4) -> None:
        self.potential, self.change, self.batch, self.name = PairToy(), change, batch, "changed"

    def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
        for start in range(0, len(matrices), self.batch):
            part = matrices[start : start + self.batch]
            yield from self.change(part, Prediction.joined(self.potential.turned(structure, part)))


def torque(structure: Atoms, prediction: Prediction) -> np.ndarray:
    if not structure.pbc.any():
        return np.cross(structure.positions, prediction.forces[0]).sum(axis=0)
    return prediction.virials[0] - prediction.virials[0].T


def energies(potential: Potential, structure: Atoms, matrices: np.ndarray = TURNS) -> np.ndarray:
    """Of whole structures, turned through ASE."""
    return np.array([potential.predict(turned(structure, matrix)).energies[0] for matrix in matrices])


# Exact to the degree


@kinds
@pytest.mark.parametrize("name", ["klein", "tetrahedral", "octahedral", "icosahedral", "gauss:4"])
def test_up_to_the_degree_nothing_is_left(kind: str, name: str) -> None:
    make, build = MAKERS[kind]
    structure, over = build(), rule(name, inversion=True)
    exact = PairToy().predict(structure)
    for ell in range(over.degree + 1):
        for parity in (1, -1):
            if (ell, parity) == (0, 1):
                continue
            toy = make(ell, parity, STRENGTH)
            averaged = Averaged(toy, over)
            assert np.abs(energies(averaged, structure) - exact.energies[0]).max() < EXACT
            found = averaged.predict(structure)
            assert np.abs(found.forces - exact.forces).max() < EXACT
            assert np.abs(found.virials - exact.virials).max() < EXACT
            assert np.abs(torque(structure, found)).max() < EXACT
            # Control: there is something to remove.
            assert np.abs(energies(toy, structure) - exact.energies[0]).max() > 1e-4


@kinds
def test_a_rule_of_too_low_a_degree_leaves_it(kind: str) -> None:
    make, build = MAKERS[kind]
    averaged = Averaged(make(4, 1, STRENGTH), rule("octahedral", inversion=True))
    structure = build()
    assert np.ptp(energies(averaged, structure)) > 1e-4
    assert np.abs(torque(structure, averaged.predict(structure))).max() > 1e-4


@kinds
def test_without_inversion_a_pseudoscalar_stays(kind: str) -> None:
    make, build = MAKERS[kind]
    toy, structure = make(0, -1, STRENGTH), build()
    proper = energies(Averaged(toy, rule("octahedral")), structure)
    assert np.ptp(proper) == pytest.approx(2.0 * np.sqrt(toy.variance(structure)), rel=1e-9)
    assert np.ptp(energies(Averaged(toy, rule("octahedral", inversion=True)), structure)) < EXACT


# What an average is


def mixed(kind: str) -> Potential:
    make, _ = MAKERS[kind]
    return SumOf([make(ell, parity, STRENGTH) for ell, parity in ((1, -1), (2, -1), (3, 1), (4, 1))])


@kinds
def test_an_average_is_the_weighted_sum_of_its_terms(kind: str) -> None:
    """The slow version, term by term, with weights that differ."""
    structure, over = MAKERS[kind][1](), rule("gauss:2", inversion=True)
    assert np.ptp(over.weights) > 1e-3
    terms = [mixed(kind).predict(turned(structure, matrix)) for matrix in over.matrices]
    found = Averaged(mixed(kind), over).predict(structure)
    forces = [term.forces[0] @ matrix for term, matrix in zip(terms, over.matrices, strict=True)]
    virials = [matrix.T @ term.virials[0] @ matrix for term, matrix in zip(terms, over.matrices, strict=True)]
    values = {
        "energies": (found.energies[0], np.array([term.energies[0] for term in terms])),
        "forces": (found.forces[0], np.array(forces)),
        "virials": (found.virials[0], np.array(virials)),
    }
    for mean, each in values.values():
        np.testing.assert_allclose(mean, np.tensordot(over.weights, each, 1), atol=1e3 * EPS)


@kinds
def test_averages_keep_the_contract_of_potentials(kind: str) -> None:
    """Forces are the gradient, and the virial the derivative, of the averaged energy."""
    make, build = MAKERS[kind]
    report = check_potential(Averaged(PerAtom(make(4, 1, 0.1)), rule("klein", inversion=True)), build())
    assert report.passed, str(report)
    assert "resolved to" in report["forces"].sentence
    for item in ("forces", "virial", "rotational gradient"):
        assert "as far as can be told" not in report[item].sentence


def test_forces_that_are_no_gradient_are_averaged_as_such() -> None:
    averaged = Averaged(NonConservative(PairToy()), rule("klein"))
    assert not averaged.conservative
    report = check_potential(averaged, molecule())
    assert report.failed == check_potential(averaged.potential, molecule()).failed
    assert "conservative" in report["forces"].sentence


def test_the_stress_of_an_average_is_symmetric() -> None:
    def skew(over: Rule) -> float:
        virial = Averaged(PeriodicToy(3, -1, STRENGTH), over).predict(crystal()).virials[0]
        return float(np.abs(virial - virial.T).max())

    assert skew(rule("octahedral", inversion=True)) < EXACT
    assert skew(rule("identity")) > 1e-3


@kinds
def test_energies_of_atoms_are_averaged_and_sum_to_the_energy(kind: str) -> None:
    make, build = MAKERS[kind]
    averaged = Averaged(PerAtom(make(2, 1, STRENGTH)), rule("octahedral"))
    found = averaged.predict(build())
    assert averaged.atomic
    assert found.atomic.shape == (1, len(build()))
    assert found.atomic.sum() == pytest.approx(found.energies[0], abs=EXACT)
    per_atom = np.array([averaged.predict(turned(build(), matrix)).atomic[0] for matrix in TURNS])
    assert np.ptp(per_atom, axis=0).max() < EXACT
    raw = np.array([averaged.potential.predict(turned(build(), matrix)).atomic[0] for matrix in TURNS])
    assert np.ptp(raw, axis=0).max() > 1e-4


def test_a_potential_without_energies_of_atoms_has_none_averaged() -> None:
    assert Averaged(PairToy(), rule("klein")).predict(molecule()).atomic is None


# The spread


@kinds
def test_the_spread_is_the_standard_deviation_over_the_orbit(kind: str) -> None:
    structure, over = MAKERS[kind][1](), rule("gauss:6", inversion=True)
    seen = response(mixed(kind), structure, over.matrices)
    spread = Averaged(mixed(kind), over).predict(structure).spread

    def variance(values: np.ndarray) -> np.ndarray:
        mean = np.tensordot(over.weights, values, 1)
        return np.tensordot(over.weights, (values - mean) ** 2, 1)

    np.testing.assert_allclose(spread.energies, np.sqrt(variance(seen.energies))[None], rtol=1e-9)
    np.testing.assert_allclose(spread.forces[0], np.sqrt(variance(seen.forces).mean(axis=1)), rtol=1e-9, atol=1e3 * EPS)
    np.testing.assert_allclose(spread.virials[0], np.sqrt(variance(seen.virials).mean()), rtol=1e-9)


def test_the_spread_is_the_known_symmetry_error() -> None:
    """Var E = ε²/(2ℓ+1) for every molecule, and the degree suffices for the square."""
    spread = Averaged(MolecularToy(2, 1, STRENGTH), rule("gauss:4")).predict(molecule()).spread
    assert spread.energies[0] == pytest.approx(STRENGTH / np.sqrt(5.0), rel=1e-9)


def test_a_symmetric_potential_has_no_spread() -> None:
    """Energies are of some eV: the squares that are summed are those of differences."""
    spread = Averaged(PairToy(), rule("octahedral")).predict(molecule()).spread
    assert isinstance(spread, Spread)
    assert max(spread.energies.max(), spread.forces.max(), spread.virials.max()) < 1e3 * EPS


def test_a_large_constant_costs_no_digits_of_the_spread() -> None:
    """As of 1000 atoms with their baseline: 5e5 eV, of which one rounding is 6e-11 eV."""

    def lifted(part: np.ndarray, prediction: Prediction) -> Iterator[Prediction]:
        toy = Prediction.joined(MolecularToy(2, 1, STRENGTH).turned(molecule(), part))
        yield Prediction(toy.energies + 5e5, prediction.forces, prediction.virials)

    over, known = rule("gauss:4"), STRENGTH**2 / 5.0
    found = Averaged(Changed(lifted), over, verify=False).predict(molecule()).spread.energies[0]
    # One rounding of the constant, against the spread.
    assert found**2 == pytest.approx(known, rel=10 * EPS * 5e5 / STRENGTH)
    lofty = response(Changed(lifted), molecule(), over.matrices).energies
    naive = over.weights @ lofty**2 - (over.weights @ lofty) ** 2
    assert abs(naive / known - 1.0) > 0.01  # the control


# The leak


@kinds
@pytest.mark.parametrize("name", ["klein", "octahedral"])
def test_above_the_degree_the_leak_is_the_predicted_one(kind: str, name: str) -> None:
    """Σ P_ℓ ρ_ℓ in the mean over two-sided turns."""
    make, build = MAKERS[kind]
    structure, over = build(), rule(name)
    toys = [make(2, 1, STRENGTH), make(4, 1, STRENGTH)]
    even, _ = over.residuals(4)
    predicted = sum(even[toy.ell] * toy.variance(structure) for toy in toys)
    exact = PairToy().predict(structure).energies[0]
    potential = SumOf(toys)  # both hold the base
    count, rng = 700, np.random.default_rng(5)
    elements = random_rotations(count, rng)[:, None] @ over.matrices @ random_rotations(count, rng)[:, None]
    unturned = np.broadcast_to(np.eye(3), (count, 3, 3))
    left = Prediction.joined(averages(potential, structure, unturned, elements, over)).energies - 2.0 * exact
    error = np.std(left**2, ddof=1) / np.sqrt(count)
    assert np.mean(left**2) == pytest.approx(predicted, abs=4.0 * error)
    # Control: the variance itself, or half the share, would be told from it.
    assert sum(toy.variance(structure) for toy in toys) > predicted + 8.0 * error
    assert 5.0 * error < predicted / 2.0


def test_the_leak_of_the_octahedral_group_is_its_cubic_harmonic() -> None:
    """O leaves of P_4(n·z) the invariant 7/24 (5 (x⁴ + y⁴ + z⁴) − 3) of the direction n, P_4 z-averaged."""
    structure = molecule()
    bond = structure.positions[1] - structure.positions[0]
    x, y, z = bond / np.linalg.norm(bond)
    averaged = Averaged(MolecularToy(4, 1, STRENGTH), rule("octahedral", inversion=True))
    exact = PairToy().predict(structure).energies[0]
    left = averaged.predict(structure).energies[0] - exact
    expected = STRENGTH * (5.0 * (x**4 + y**4 + z**4) - 3.0) * 7.0 / 24.0
    assert left == pytest.approx(expected, abs=EXACT)
    assert abs(expected) > 1e-3


# Copies, batches, memory


@pytest.mark.parametrize("sizes", [(1,), (7,), (3, 1, 11), (48,), (1000,)])
@kinds
def test_batches_of_any_size_give_the_same(kind: str, sizes: tuple[int, ...]) -> None:
    """Batches straddle copies: the last elements of one and the first of the next."""
    make, build = MAKERS[kind]
    over = rule("gauss:2", inversion=True)
    toy = make(3, 1, STRENGTH)
    one = Prediction.joined(Averaged(PerAtom(toy, sizes), over).turned(build(), TURNS))
    single = [Averaged(PerAtom(toy), over).predict(turned(build(), matrix)) for matrix in TURNS]
    assert len(one) == len(TURNS)
    for k, other in enumerate(single):
        assert one.energies[k] == pytest.approx(other.energies[0], abs=EXACT)
        np.testing.assert_allclose(one.forces[k], other.forces[0], atol=EXACT)
        np.testing.assert_allclose(one.virials[k], other.virials[0], atol=EXACT)
    assert np.ptp(one.energies) > 1e-6, "copies that are alike would prove nothing of their order"


def test_an_average_of_an_average_is_one() -> None:
    """Q₁ within Q₂: the elements are all products."""
    structure, toy = molecule(), MolecularToy(4, 1, STRENGTH)
    inner, outer = rule("tetrahedral"), rule("gauss:2")
    products = (inner.matrices[:, None] @ outer.matrices[None]).reshape(-1, 3, 3)
    weights = np.outer(inner.weights, outer.weights).ravel()
    nested = Averaged(Averaged(toy, inner), outer).predict(structure)
    at_once = Averaged(toy, Rule("products", products, weights, 0)).predict(structure)
    assert nested.energies[0] == pytest.approx(at_once.energies[0], abs=EXACT)
    np.testing.assert_allclose(nested.forces, at_once.forces, atol=EXACT)


def peak(potential: Potential, structure: Atoms) -> int:
    potential.predict(structure)  # what is made once
    tracemalloc.start()
    potential.predict(structure)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def test_memory_does_not_grow_with_the_number_of_rotations() -> None:
    structure = crystal() * (5, 5, 5)
    few, many = (PerAtom(PairToyOfZeros(), (4,)) for _ in range(2))
    over = {count: rule(f"random:{count}") for count in (16, 160)}
    small, large = peak(Averaged(few, over[16]), structure), peak(Averaged(many, over[160]), structure)
    # The rotations themselves, at some places at once, are 72 bytes each; the forces of one copy are 12 kB.
    assert large < small + 144 * 72 * 8

    class Hoarding(Potential):
        """Control: all copies at once."""

        virial, name = "full", "hoarding"

        def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
            yield Prediction.joined(PairToyOfZeros().turned(structure, matrices))

    assert peak(Averaged(Hoarding(), over[160]), structure) > 3 * small


class PairToyOfZeros(Potential):
    """Costs nothing but the memory of its answers."""

    virial, name = "full", "zeros"

    def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
        for matrix in matrices:
            yield Prediction(np.full(1, matrix[0, 0]), np.zeros((1, len(structure), 3)), np.zeros((1, 3, 3)))


# Errors name structure and rotation


def failing_at(element: int, over: Rule, fault: str):
    """Fails at one given matrix."""
    culprit = over.matrices[element]

    def change(part: np.ndarray, prediction: Prediction) -> Iterator[Prediction]:
        hit = np.abs(part - culprit).max(axis=(1, 2)) < 1e-12
        if hit.any() and fault == "raise":
            raise PotentialError("the model failed: out of luck")
        if hit.any() and fault == "bug":
            raise ZeroDivisionError("division by zero")
        for values in {"nan energy": [prediction.energies], "nan forces": [prediction.forces]}.get(fault, []):
            values[hit] = np.nan
        yield prediction

    return change


# Elements of octahedral with inversion.
WORDS = {
    3: "the identity",
    14: "rotation by 90° about (0, 0, 1)",
    17: "rotation by 90° about (-1, 0, 0)",
    27: "inversion",
    41: "rotation by 90° about (-1, 0, 0) and inversion",
}


@pytest.mark.parametrize("fault", ["raise", "nan energy", "nan forces"])
@pytest.mark.parametrize("number", WORDS)
def test_an_error_names_the_structure_and_the_rotation(fault: str, number: int) -> None:
    over = rule("octahedral", inversion=True)
    averaged = Averaged(Changed(failing_at(number, over, fault), batch=5), over)
    where = f": on CHBrClF (5 atoms), at element {number} (counted from 0) of octahedral with inversion (48), "
    with pytest.raises(PotentialError) as caught:
        averaged.predict(molecule())
    said = "the model failed: out of luck" if fault == "raise" else " not finite (NaN or infinity)"
    assert str(caught.value).endswith(said + where + WORDS[number])
    named = molecule()
    named.info["name"] = "frame 7"
    with pytest.raises(PotentialError, match=f": on frame 7, at element {number} "):
        averaged.predict(named)


def test_an_error_names_the_rotation_at_which_the_model_saw_the_structure() -> None:
    """Of a rule that was turned, or of a copy that was: angle and axis are those of the product."""
    over = rule("klein").turned(Rotation.from_rotvec([0.0, 0.0, 50.0], degrees=True).as_matrix())
    turn = Rotation.from_rotvec([0.0, 0.0, 20.0], degrees=True).as_matrix()

    def change(part: np.ndarray, prediction: Prediction) -> Iterator[Prediction]:
        raise PotentialError("out of luck")
        yield

    averaged = Averaged(Changed(change), over)
    with pytest.raises(PotentialError, match=r"element 0 .* of klein \(4\), rotation by 70° about \(0, 0, 1\)$"):
        next(averaged.turned(molecule(), turn[None]))
    with pytest.raises(PotentialError, match=r"element 0 .* of klein \(4\), rotation by 50° about \(0, 0, 1\)$"):
        averaged.predict(molecule())


def test_words_for_elements_of_the_group_say_which() -> None:
    for matrix in TURNS:
        words = re.fullmatch(r"rotation by (\S+)° about \((.*)\)( and inversion)?", in_words(matrix))
        axis = np.array([float(component) for component in words[2].split(",")])
        again = Rotation.from_rotvec(float(words[1]) * axis, degrees=True).as_matrix()
        # Six digits are printed.
        np.testing.assert_allclose(-again if words[3] else again, matrix, atol=1e-5)
    assert in_words(-np.eye(3)) == "inversion"


@pytest.mark.parametrize("number", [0, 100, 200, 299])
def test_the_element_at_fault_is_found_in_large_batches(number: int) -> None:
    """In about twice the evaluations that it took to come there."""
    over, count = rule("gauss:9"), 0
    change = failing_at(number, over, "raise")

    def counting(part: np.ndarray, prediction: Prediction) -> Iterator[Prediction]:
        nonlocal count
        count += len(part)
        yield from change(part, prediction)

    with pytest.raises(PotentialError, match=f"at element {number} "):
        Averaged(Changed(counting, batch=300), over, verify=False).predict(molecule())
    assert count <= 300 + 4 * number + 3


def test_a_fault_of_batches_alone_is_of_no_element() -> None:
    over = rule("octahedral")

    def change(part: np.ndarray, prediction: Prediction) -> Iterator[Prediction]:
        if len(part) > 1 and np.abs(part - over.matrices[13]).max(axis=(1, 2)).min() < 1e-12:
            raise PotentialError("too many at once")
        yield prediction

    said = r"too many at once: on CHBrClF \(5 atoms\), from element 12 \(counted from 0\) of octahedral \(24\) on$"
    with pytest.raises(PotentialError, match=said):
        Averaged(Changed(change), over).predict(molecule())


def test_a_fault_of_the_adapter_keeps_its_kind_and_says_where() -> None:
    over = rule("octahedral")
    with pytest.raises(ZeroDivisionError) as caught:
        Averaged(Changed(failing_at(9, over, "bug")), over).predict(molecule())
    where = "element 9 (counted from 0) of octahedral (24), rotation by 120° about (-0.57735, 0.57735, -0.57735)"
    assert caught.value.__notes__ == [f"changed failed: on CHBrClF (5 atoms), at {where}"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda part, whole: iter([whole] if len(part) == 4 else []), "gave 20 predictions for 22 copies"),
        (lambda part, whole: iter([whole, whole] if len(part) == 2 else [whole]), "more predictions than .* \\(22\\)"),
        (
            lambda part, whole: iter([Prediction(whole.energies, whole.forces[:, :3])]),
            r"forces of shape \(3, 3\) for a structure of 5 atoms",
        ),
        (
            lambda part, whole: iter([Prediction(whole.energies, whole.forces, None, whole.forces[..., 0] * np.inf)]),
            "energies of atoms that are not finite",
        ),
    ],
    ids=["too few", "too many", "forces", "atoms"],
)
def test_answers_that_do_not_fit_are_refused_in_a_sentence(change, said: str) -> None:
    averaged = Averaged(Changed(change), rule("gauss:2", inversion=True))
    with pytest.raises(PotentialError, match=f"{said}.* on CHBrClF"):
        averaged.predict(molecule())


def test_the_contract_catches_energies_of_atoms_that_do_not_sum() -> None:
    class Wrong(PerAtom):
        def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
            for part in super().turned(structure, matrices):
                yield Prediction(part.energies, part.forces, part.virials, 1.001 * part.atomic)

    class Without(PerAtom):
        def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
            yield from self.potential.turned(structure, matrices)

    assert "do not sum" in check_potential(Wrong(PairToy()), molecule())["predictions"].sentence
    assert "claims to have them" in check_potential(Without(PairToy()), molecule())["predictions"].sentence
