"""The back-rotated response of toys: variance, angular momentum and parity are the ones that were dialled in."""

from functools import cache

import numpy as np
import pytest
from ase import Atoms
from scipy.spatial.transform import Rotation

from goniometer.potentials import Potential
from goniometer.rotations import random_rotations
from goniometer.rotations.characters import quadratic_forms
from goniometer.symmetrization import response
from goniometer.testing import MolecularToy, Noisy, NonConservative, PairToy, PeriodicToy, SumOf
from structures import crystal, molecule

# Sums of some thousand terms of order one: 1e-9 relative is generous, and it is what users are promised.
RELATIVE = 1e-9


@cache
def product_rule(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre in cos β times equispaced α and γ, with inversion, turned: exact to ``degree``."""
    nodes, gauss = np.polynomial.legendre.leggauss(degree // 2 + 1)
    angles = 2.0 * np.pi * np.arange(degree + 1) / (degree + 1)
    euler = np.array([(alpha, beta, gamma) for beta in np.arccos(nodes) for alpha in angles for gamma in angles])
    matrices = Rotation.from_euler("ZYZ", euler).as_matrix() @ random_rotations(1, np.random.default_rng(0))[0]
    weights = np.repeat(gauss / gauss.sum(), len(angles) ** 2) / len(angles) ** 2
    return np.concatenate([matrices, -matrices]), np.concatenate([weights, weights]) / 2.0


def spectrum(values: np.ndarray, matrices: np.ndarray, weights: np.ndarray, lmax: int) -> np.ndarray:
    """P_ℓ of components (K, C), summed over components: (2, lmax+1), even and odd."""
    sums = [quadratic_forms(matrices, weights * component, lmax) for component in values.T]
    return np.sum(sums, axis=0) * (2 * np.arange(lmax + 1) + 1)


def cases() -> list:
    found = []
    for ell in range(1, 7):
        for parity in (1, -1):
            found += [(MolecularToy(ell, parity, 0.02), molecule()), (PeriodicToy(ell, parity, 0.02), crystal())]
    return found


dialled = pytest.mark.parametrize(("toy", "structure"), cases(), ids=lambda value: getattr(value, "name", ""))


@dialled
def test_variance_is_the_known_one(toy: PeriodicToy | MolecularToy, structure: Atoms) -> None:
    matrices, weights = product_rule(2 * toy.ell)
    energies = response(toy, structure, matrices).energies
    variance = weights @ (energies - weights @ energies) ** 2
    assert variance == pytest.approx(toy.variance(structure), rel=RELATIVE)
    assert weights @ energies == pytest.approx(PairToy().predict(structure).energies[0], rel=RELATIVE)
    if isinstance(toy, MolecularToy):
        assert np.sqrt(variance) == pytest.approx(0.02 / np.sqrt(2 * toy.ell + 1), rel=RELATIVE)


@dialled
def test_the_whole_variance_has_the_dialled_angular_momentum_and_parity(
    toy: PeriodicToy | MolecularToy, structure: Atoms
) -> None:
    matrices, weights = product_rule(2 * toy.ell)
    energies = response(toy, structure, matrices).energies
    found = spectrum((energies - weights @ energies)[:, None], matrices, weights, toy.ell)
    expected = np.zeros((2, toy.ell + 1))
    expected[0 if toy.parity == 1 else 1, toy.ell] = toy.variance(structure)
    np.testing.assert_allclose(found, expected, atol=RELATIVE * toy.variance(structure))


@dialled
def test_parity_is_the_sign_under_inversion(toy: Potential, structure: Atoms) -> None:
    matrices = random_rotations(20, np.random.default_rng(3))
    proper, improper = response(toy, structure, matrices), response(toy, structure, -matrices)
    base = PairToy().predict(structure)
    sign = toy.parity
    np.testing.assert_allclose(improper.energies - base.energies, sign * (proper.energies - base.energies), atol=1e-13)
    np.testing.assert_allclose(improper.forces - base.forces, sign * (proper.forces - base.forces), atol=1e-12)
    assert np.ptp(proper.energies) > 1e-4  # control: there is something to change its sign


@pytest.mark.parametrize(
    ("toy", "structure"),
    [
        (MolecularToy(3, -1, 0.02), molecule()),
        (MolecularToy(2, -1, 0.02), molecule()),
        (PeriodicToy(2, 1, 0.02), crystal()),
        (PeriodicToy(3, 1, 0.02), crystal()),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_forces_and_virials_vary_with_the_same_angular_momentum_and_parity(toy: PeriodicToy, structure: Atoms) -> None:
    matrices, weights = product_rule(2 * toy.ell)
    found = response(toy, structure, matrices)
    for values in (found.forces.reshape(len(matrices), -1), found.virials.reshape(len(matrices), -1)):
        deviations = values - weights @ values
        variance = float(weights @ (deviations**2).sum(axis=1))
        part = spectrum(deviations, matrices, weights, toy.ell)
        expected = np.zeros_like(part)
        expected[0 if toy.parity == 1 else 1, toy.ell] = variance
        np.testing.assert_allclose(part, expected, atol=RELATIVE * variance)


@dialled
def test_the_rotational_gradient_has_the_rms_that_the_variance_implies(toy: PeriodicToy, structure: Atoms) -> None:
    """|dE/dω|² = ℓ(ℓ+1) P_ℓ in the mean, from the virials' antisymmetric part."""
    matrices, weights = product_rule(2 * toy.ell)
    virials = response(toy, structure, matrices).virials
    skew = virials - virials.transpose(0, 2, 1)
    square = (skew**2).sum(axis=(1, 2)) / 2.0
    assert weights @ square == pytest.approx(toy.ell * (toy.ell + 1) * toy.variance(structure), rel=RELATIVE)


@pytest.mark.parametrize("make", [MolecularToy, PeriodicToy])
def test_a_pseudoscalar_is_odd_and_the_same_for_all_proper_rotations(make: type) -> None:
    toy, structure = make(0, -1, 0.02), molecule() if make is MolecularToy else crystal()
    matrices = random_rotations(5, np.random.default_rng(3))
    base = PairToy().predict(structure).energies
    proper = response(toy, structure, matrices).energies - base
    improper = response(toy, structure, -matrices).energies - base
    np.testing.assert_allclose(improper, -proper, atol=1e-13)
    np.testing.assert_allclose(proper**2, toy.variance(structure), rtol=RELATIVE)


@pytest.mark.parametrize("ell", [2, 3, 4])
def test_a_rule_of_too_low_a_degree_gets_the_variance_wrong(ell: int) -> None:
    """The control: a square of angular momentum ℓ needs degree 2ℓ."""
    toy, structure = MolecularToy(ell, (-1) ** ell, 0.02), molecule()
    matrices, weights = product_rule(ell - 1)
    energies = response(toy, structure, matrices).energies
    variance = weights @ (energies - weights @ energies) ** 2
    assert abs(variance / toy.variance(structure) - 1.0) > 1e-3


def test_variances_of_different_parts_add() -> None:
    parts = [MolecularToy(ell, parity, 0.02) for ell, parity in ((1, -1), (2, 1), (2, -1), (3, 1))]
    matrices, weights = product_rule(6)
    energies = response(SumOf(parts), molecule(), matrices).energies
    found = spectrum((energies - weights @ energies)[:, None], matrices, weights, 3)
    expected = np.zeros((2, 4))
    for part in parts:
        expected[0 if part.parity == 1 else 1, part.ell] = 0.02**2 / (2 * part.ell + 1)
    np.testing.assert_allclose(found, expected, atol=RELATIVE * expected.sum())


def test_an_invariant_potential_does_not_respond() -> None:
    matrices = random_rotations(20, np.random.default_rng(3))
    for potential in (PairToy(), NonConservative(PairToy())):
        for structure in (molecule(), crystal()):
            found = response(potential, structure, np.concatenate([matrices, -matrices]))
            for values in (found.energies, found.forces, found.virials):
                # Some hundred pairs of a few eV, each rounded.
                assert np.abs(values - values[0]).max() < 1e3 * np.finfo(float).eps


def test_progress_is_told_of_every_copy() -> None:
    told: list[int] = []
    matrices = random_rotations(130, np.random.default_rng(3))
    response(SumOf([PairToy(), Noisy(PairToy(), 0.1, 0)]), molecule(), matrices, progress=told.append)
    assert sum(told) == 130
