"""Spectra, leaks and residuals against responses whose angular momenta and parity are known."""

from functools import cache

import numpy as np
import pytest
from ase import Atoms
from scipy.optimize import brentq
from scipy.special import eval_legendre

from goniometer.probing.residuals import Candidate, candidates
from goniometer.probing.spectrum import (
    averaging_coefficients,
    gram,
    leak_matrix,
    noise_by_ell,
    rounding_by_ell,
    sphere,
    tail_factor,
    variance_by_ell,
)
from goniometer.rotations import Rule, random_rotations, rule
from goniometer.symmetrization import response
from goniometer.testing import MolecularToy, PeriodicToy, SumOf
from structures import crystal, molecule

LMAX = 6
# Sums of some million terms of order one, of rules that are exact to 1e-13: this is what users are promised.
RELATIVE = 1e-9
# Two-sided: a correct mean exceeds it once in 60 000 times.
SIGMAS = 4.2


@cache
def nodes(name: str = f"gauss:{2 * LMAX}", inversion: bool = True) -> Rule:
    return rule(name, inversion).turned_at_random(5)


def deviations(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return values - np.tensordot(weights, values, axes=1)


def axial(matrices: np.ndarray, ell: int, axis: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """P_ℓ(axis · R direction): a response of that ℓ and of parity (−1)^ℓ, of variance 1/(2ℓ+1)."""
    return eval_legendre(ell, matrices @ direction @ axis)


def unit(*components: float) -> np.ndarray:
    return np.array(components) / np.linalg.norm(components)


# ---- spectra --------------------------------------------------------------------------------------------------------


def cases() -> list:
    found = []
    for ell in range(1, LMAX + 1):
        for parity in (1, -1):
            found += [(MolecularToy(ell, parity, 0.02), molecule()), (PeriodicToy(ell, parity, 0.02), crystal())]
    return [*found, (PeriodicToy(0, -1, 0.02), crystal())]


@pytest.mark.parametrize(("toy", "structure"), cases(), ids=lambda value: getattr(value, "name", ""))
def test_all_variance_is_at_the_dialled_angular_momentum_and_parity(
    toy: MolecularToy | PeriodicToy, structure: Atoms
) -> None:
    over = response(toy, structure, nodes().matrices)
    for values in (over.energies, over.forces, over.virials):
        products = gram(deviations(values, nodes().weights))
        variance = float(nodes().weights @ np.diag(products))
        plus, minus = variance_by_ell(nodes(), products, LMAX)
        expected = np.zeros((2, LMAX + 1))
        expected[0 if toy.parity == 1 else 1, toy.ell] = variance
        np.testing.assert_allclose([plus, minus], expected, atol=RELATIVE * variance)
        # Where nothing is, no more is found than rounding is said to put there.
        elsewhere = np.where(expected > 0.0, 0.0, np.abs([plus, minus]))
        assert (elsewhere <= 4.0 * rounding_by_ell(variance, LMAX)).all()
        if values is over.energies:
            assert variance == pytest.approx(toy.variance(structure), rel=RELATIVE)


def test_superposed_parts_are_told_apart() -> None:
    parts = [PeriodicToy(ell, parity, 0.01 * (ell + 1)) for ell in range(1, LMAX + 1) for parity in (1, -1)]
    energies = response(SumOf(parts), crystal(), nodes().matrices).energies
    plus, minus = variance_by_ell(nodes(), gram(deviations(energies, nodes().weights)), LMAX)
    for part in parts:
        found = (plus if part.parity == 1 else minus)[part.ell]
        assert found == pytest.approx(part.variance(crystal()), rel=RELATIVE)


def test_without_inversion_parities_are_not_told_apart() -> None:
    proper = nodes(inversion=False)
    toy = SumOf([MolecularToy(3, 1, 0.02), MolecularToy(3, -1, 0.01)])
    energies = response(toy, molecule(), proper.matrices).energies
    plus, minus = variance_by_ell(proper, gram(deviations(energies, proper.weights)), LMAX)
    assert minus is None
    # On proper rotations both are the same function of R but for the sign of the handedness: amplitudes add.
    assert plus[3] in (pytest.approx(0.03**2 / 7, rel=RELATIVE), pytest.approx(0.01**2 / 7, rel=RELATIVE))


def test_the_order_of_the_elements_does_not_matter() -> None:
    """Elements and their inverses in any order: a path of its own, since pairs in order are summed up once."""
    small = nodes("gauss:8")
    shuffle = np.random.default_rng(0).permutation(len(small))
    shuffled = Rule("shuffled", small.matrices[shuffle], small.weights[shuffle], small.degree, inversion=True)
    toy = SumOf([PeriodicToy(2, -1, 0.02), PeriodicToy(4, 1, 0.01)])
    spectra = []
    for each in (small, shuffled):
        energies = response(toy, crystal(), each.matrices).energies
        spectra.append(variance_by_ell(each, gram(deviations(energies, each.weights)), 4))
    np.testing.assert_allclose(spectra[0], spectra[1], atol=RELATIVE * np.max(spectra[0]))


def test_white_noise_is_spread_as_predicted() -> None:
    """In the mean over draws; the sum over ℓ and parity of what is put into the resolved part is Σ (2ℓ+1)² σ² Σ w²."""
    small, rng, draws = nodes("gauss:4"), np.random.default_rng(0), 600
    spectra = np.array([variance_by_ell(small, gram(rng.normal(0.0, 0.3, len(small))), 2) for _ in range(draws)])
    error = spectra.std(axis=0) / np.sqrt(draws)
    assert (np.abs(spectra.mean(axis=0) - noise_by_ell(small, 0.3**2, 2)) < SIGMAS * error).all()
    assert (spectra.mean(axis=0)[:, 1:] > 20.0 * error[:, 1:]).all()  # control: it is there to be predicted


# ---- leaks ----------------------------------------------------------------------------------------------------------


def test_nothing_leaks_within_the_degree() -> None:
    matrix = leak_matrix(nodes("gauss:9"), 4, 9)
    for ell in range(5):
        np.testing.assert_allclose(matrix[ell, : 10 - ell], np.eye(10)[ell, : 10 - ell], atol=1e-12)
    assert matrix[4, 6] > 0.01  # control: 4 + 6 exceeds the degree


def test_an_unresolved_variance_ends_up_somewhere() -> None:
    """The sum rule of the identity alone: χ_ℓ(1) = 2ℓ+1, so each ℓ' leaks (2ℓ+1)² of itself into every ℓ."""
    matrix = leak_matrix(rule("identity"), 3, 5)
    np.testing.assert_allclose(matrix, ((2 * np.arange(4) + 1.0) ** 2)[:, None] * np.ones(6), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "ell"),
    [
        *(("tetrahedral", ell) for ell in (3, 4, 6)),
        *(("octahedral", ell) for ell in (4, 6)),
        *(("icosahedral", ell) for ell in (6, 10)),
        *(("klein", 2), ("legendre:2", 3)),
    ],
)
def test_a_rule_of_too_low_a_degree_leaks_as_predicted(name: str, ell: int) -> None:
    """Over random two-sided turns P_ℓ' has the mean M_ℓ'ℓ P_ℓ; what leaks into ℓ' = 0 is the error of the mean."""
    turns, lmax = 250, 2
    predicted = leak_matrix(rule(name), lmax, ell)[:, ell] / (2 * ell + 1)
    axis, direction = unit(1, 2, -3), unit(-1, 1, 1)
    measured = np.empty((turns, lmax + 1))
    for seed in range(turns):
        turned = rule(name).turned_at_random(seed)
        products = gram(axial(turned.matrices, ell, axis, direction))  # the exact mean is zero: nothing is subtracted
        measured[seed], _ = variance_by_ell(turned, products, lmax)
    error = measured.std(axis=0, ddof=1) / np.sqrt(turns)
    assert (np.abs(measured.mean(axis=0) - predicted) < SIGMAS * error + 1e-15).all()
    # Control: a rule that were exact to ℓ + lmax would leak nothing, and that is refuted.
    assert (measured.mean(axis=0) > 10.0 * error).any()


@pytest.mark.parametrize("name", ["gauss:6", "icosahedral"])
def test_a_rule_of_sufficient_degree_leaks_nothing(name: str) -> None:
    """The control: ℓ + ℓ' = 5 is within the degree."""
    for seed in range(20):
        turned = rule(name).turned_at_random(seed)
        products = gram(axial(turned.matrices, 3, unit(1, 2, -3), unit(-1, 1, 1)))
        plus, _ = variance_by_ell(turned, products, 2)
        assert np.abs(plus).max() < 1e-13


def test_what_is_missing_from_the_spectrum_bounds_what_lies_above() -> None:
    """Over turns, of a variance at ℓ' the part 1 − Σ_ℓ M_ℓℓ' is missing: ever less than tail_factor allows for."""
    turns, lmax, tail = 60, 2, 8
    factor = tail_factor(rule("gauss:4"), lmax, tail)
    matrix = leak_matrix(rule("gauss:4"), lmax, tail)
    worst = int(np.argmax(matrix[:, lmax + 1 :].sum(axis=0))) + lmax + 1
    for ell in {5, worst}:
        missing = np.empty(turns)
        for seed in range(turns):
            turned = rule("gauss:4").turned_at_random(seed)
            values = axial(turned.matrices, ell, unit(1, 2, -3), unit(-1, 1, 1))
            plus, _ = variance_by_ell(turned, gram(values), lmax)
            missing[seed] = turned.weights @ values**2 - plus.sum()
        error = SIGMAS * missing.std(ddof=1) / np.sqrt(turns)
        assert abs(missing.mean() - (1.0 - matrix[:, ell].sum()) / (2 * ell + 1)) < error
        assert factor * missing.mean() > 1.0 / (2 * ell + 1) - factor * error
    assert tail_factor(rule("octahedral"), 0, 8) == pytest.approx(1.0 / (1.0 - 1.0 / 9.0))  # its invariant at ℓ = 4
    assert tail_factor(rule("identity"), 0, 8) == np.inf  # control: a single node sees nothing


def mean_over(name: str, ell: int, axis: np.ndarray, direction: np.ndarray, seed: int | None = None) -> float:
    chosen = rule(name) if seed is None else rule(name).turned_at_random(seed)
    return float(chosen.weights @ axial(chosen.matrices, ell, axis, direction))


def test_nested_groups_are_blind_at_4_and_an_independent_turn_is_not() -> None:
    """T and O share their invariant at ℓ = 4: both are wrong by the same, and their difference shows nothing."""
    axis, direction = unit(1, 0.2, 0.3), unit(-2, 0.4, 0.1)
    small, large = (mean_over(name, 4, axis, direction) for name in ("tetrahedral", "octahedral"))
    assert abs(small) > 0.02
    assert abs(small - large) < 1e-13
    turned = [mean_over("octahedral", 4, axis, direction, seed) for seed in range(300)]
    square = np.square(np.array(turned) - small)
    # Independent errors: the mean square difference is the square of the one plus the variance left by the other.
    expected = small**2 + rule("octahedral").residuals(4)[0][4] / 9
    assert abs(square.mean() - expected) < SIGMAS * square.std() / np.sqrt(len(square))


def test_nested_groups_can_be_blind_at_6_and_an_independent_turn_is_not() -> None:
    """T has two invariants at ℓ = 6, I one of them; where the other vanishes, T − I shows nothing of the error."""
    direction = unit(-2, 1, 0.5)

    def difference(angle: float) -> float:
        axis = unit(np.cos(angle), np.sin(angle), 0.7)
        return mean_over("tetrahedral", 6, axis, direction) - mean_over("icosahedral", 6, axis, direction)

    grid = np.linspace(0.0, np.pi, 30)
    signs = np.sign([difference(angle) for angle in grid])
    start = int(np.flatnonzero(signs[:-1] != signs[1:])[0])
    angle = brentq(difference, grid[start], grid[start + 1], xtol=1e-14)
    axis = unit(np.cos(angle), np.sin(angle), 0.7)
    small = mean_over("tetrahedral", 6, axis, direction)
    assert abs(small) > 0.02
    assert abs(difference(angle)) < 1e-12
    turned = [mean_over("icosahedral", 6, axis, direction, seed) for seed in range(300)]
    square = np.square(np.array(turned) - small)
    expected = small**2 + rule("icosahedral").residuals(6)[0][6] / 13
    assert abs(square.mean() - expected) < SIGMAS * square.std() / np.sqrt(len(square))


# ---- residuals ------------------------------------------------------------------------------------------------------

RULES = ("icosahedral", "octahedral", "tetrahedral", "legendre:2", "legendre:3", "lebedev:4")


def mixed() -> SumOf:
    """Every ℓ to 6 of both parities, and a part odd under inversion that no proper rotation removes.

    Both parities of one ℓ have different strengths: they would cancel for proper rotations of a left-handed crystal.
    """
    parts = [PeriodicToy(ell, parity, 0.017 + 0.004 * parity) for ell in range(1, LMAX + 1) for parity in (1, -1)]
    return SumOf([*parts, PeriodicToy(0, -1, 0.01)])


@cache
def at_nodes(inversion: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Energies and forces of the mixed toy at the nodes, as deviations (K, …)."""
    chosen = nodes(inversion=inversion)
    over = response(mixed(), crystal(), chosen.matrices)
    return deviations(over.energies, chosen.weights), deviations(over.forces, chosen.weights)


def left_by(averaged: Rule, inversion: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """What the rule leaves in the means of energy and forces, by evaluating it."""
    chosen = nodes(inversion=inversion)
    exact = response(mixed(), crystal(), chosen.matrices)
    over = response(mixed(), crystal(), averaged.matrices)
    return (
        np.asarray(averaged.weights @ over.energies - chosen.weights @ exact.energies),
        np.tensordot(averaged.weights, over.forces, axes=1) - np.tensordot(chosen.weights, exact.forces, axes=1),
    )


@pytest.mark.parametrize("inversion", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_the_residual_of_a_rule_as_it_stands_is_the_measured_one(name: str, inversion: bool) -> None:
    averaged = rule(name, inversion)
    candidate = Candidate(averaged, nodes(), LMAX)
    for values, left in zip(at_nodes(), left_by(averaged), strict=True):
        products = gram(values)
        plus, minus = variance_by_ell(nodes(), products, LMAX)
        predicted = candidate.predict(plus, minus, 0.0, products)
        measured = np.sqrt(np.mean(left**2))
        whole = np.sqrt(np.mean(values**2))
        assert predicted.as_it_stands == pytest.approx(measured, rel=RELATIVE, abs=1e-7 * whole * inversion)
        assert predicted.tail == 0.0
        # Control: the bandwidth matters; from a spectrum that is cut at ℓ = 2 the residual is another one.
        if name in ("tetrahedral", "octahedral", "legendre:2") and not inversion:
            cut = averaging_coefficients(averaged, nodes(), 2)
            assert abs(np.sqrt(cut @ products @ cut) - measured) > 1e-3 * measured


def test_proper_rotations_leave_a_pseudoscalar_as_it_is() -> None:
    energies = response(PeriodicToy(0, -1, 0.02), crystal(), nodes().matrices).energies
    products = gram(deviations(energies, nodes().weights))
    plus, minus = variance_by_ell(nodes(), products, LMAX)
    for name in RULES:
        stays = Candidate(rule(name), nodes(), LMAX).predict(plus, minus, 0.0, products)
        goes = Candidate(rule(name, True), nodes(), LMAX).predict(plus, minus, 0.0, products)
        assert stays.over_turns == pytest.approx(energies.std(), rel=RELATIVE)
        assert stays.as_it_stands == pytest.approx(energies.std(), rel=RELATIVE)
        assert max(goes.over_turns, goes.as_it_stands) < 1e-6 * energies.std()


def test_nodes_without_inversion_say_nothing_of_rules_with_it() -> None:
    proper = nodes(inversion=False)
    (energies, _), products = at_nodes(False), gram(at_nodes(False)[0])
    plus, minus = variance_by_ell(proper, products, LMAX)
    assert minus is None
    for name in RULES:
        assert Candidate(rule(name, True), proper, LMAX).predict(plus, None, 0.0, products).as_it_stands is None
        found = Candidate(rule(name), proper, LMAX).predict(plus, None, 0.0, products).as_it_stands
        assert found == pytest.approx(abs(float(left_by(rule(name), False)[0])), rel=1e-7, abs=1e-9 * energies.std())


def superposition(matrices: np.ndarray) -> np.ndarray:
    """Every ℓ to 6 of both parities, each seen along another axis, of a response whose mean is 1.5."""
    rng, signs = np.random.default_rng(3), np.sign(np.linalg.det(matrices))
    rotations, values = matrices * signs[:, None, None], np.full(len(matrices), 1.5)
    for ell in range(LMAX + 1):
        for parity in (1, -1):
            part = axial(rotations, ell, unit(*rng.standard_normal(3)), unit(*rng.standard_normal(3)))
            values += rng.uniform(0.5, 2.0) * part * (signs if parity == -1 else 1.0) * (ell > 0 or parity == -1)
    return values


@pytest.mark.parametrize("inversion", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_the_residual_over_turns_is_the_mean_square_of_the_measured_one(name: str, inversion: bool) -> None:
    averaged, turns, rng = rule(name, inversion), 400, np.random.default_rng(7)
    values = superposition(nodes().matrices)
    products = gram(deviations(values, nodes().weights))
    plus, minus = variance_by_ell(nodes(), products, LMAX)
    predicted = Candidate(averaged, nodes(), LMAX).predict(plus, minus, 0.0, products).over_turns
    left, right = random_rotations(2 * turns, rng).reshape(2, turns, 1, 3, 3)
    measured = superposition((left @ averaged.matrices @ right).reshape(-1, 3, 3)).reshape(turns, -1) @ averaged.weights
    square = (measured - 1.5) ** 2
    assert abs(square.mean() - predicted**2) < SIGMAS * square.std(ddof=1) / np.sqrt(turns) + 1e-20
    # Control: neither the whole variance nor, where anything is left, none of it.
    assert predicted**2 < 0.9 * (plus[1:].sum() + minus.sum())
    if name != "legendre:3" or not inversion:
        assert square.mean() > 5.0 * square.std(ddof=1) / np.sqrt(turns)


def test_a_turn_from_one_side_only_leaves_something_else() -> None:
    """The control: turned from the right, a group keeps its axes in the laboratory, here that of the response."""
    averaged, ell = rule("octahedral"), 4
    axis, direction = unit(0, 0, 1), unit(-1, 1, 0.3)  # z is a fourfold axis
    predicted = averaged.residuals(ell)[0][ell] / (2 * ell + 1)
    right = random_rotations(400, np.random.default_rng(0))[:, None]
    values = axial((averaged.matrices @ right).reshape(-1, 3, 3), ell, axis, direction).reshape(400, -1)
    square = (values @ averaged.weights) ** 2
    assert abs(square.mean() - predicted) > 10.0 * square.std() / np.sqrt(400)


def test_the_unresolved_part_is_bounded_by_the_tail() -> None:
    """Nothing above lmax is left by more than the tail says, and somewhere by as much."""
    candidate = Candidate(rule("octahedral"), nodes("gauss:8"), 4)
    predicted = candidate.predict(np.zeros(5), np.zeros(5), 0.3, np.zeros((len(nodes("gauss:8")),) * 2))
    even, odd = rule("octahedral").residuals(20)
    assert predicted.over_turns == 0.0
    assert predicted.tail**2 == pytest.approx(0.3 * max(even[5:].max(), odd[5:].max()), rel=RELATIVE)


def test_candidates_come_smallest_first_and_hold_the_grids_of_the_paper() -> None:
    found = candidates(nodes("gauss:8"), 4)
    sizes = [len(each.rule) for each in found]
    assert sizes == sorted(sizes)
    names = [(each.rule.name, each.rule.inversion) for each in found]
    assert len(names) == len(set(names))
    for grid in (("identity", False), ("identity", True), ("legendre:2", False), ("legendre:3", True)):
        assert grid in names


# ---- the map over the sphere ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ell", [1, 2, 3, 5])
def test_the_map_of_a_toy_along_z_is_its_legendre_polynomial(ell: int) -> None:
    """E(g) = ε P_ℓ(d · Rᵀz): in the structure's frame a zonal function about d, seen from the axis z alone."""
    toy, structure = MolecularToy(ell, (-1) ** ell, 0.02), molecule()
    energies = response(toy, structure, nodes().matrices).energies
    found = sphere(nodes(), deviations(energies, nodes().weights), LMAX)
    theta, phi = np.meshgrid(np.radians(found.latitude), np.radians(found.longitude), indexing="ij")
    directions = np.stack([np.cos(theta) * np.cos(phi), np.cos(theta) * np.sin(phi), np.sin(theta)], axis=-1)
    d = unit(*(structure.positions[1] - structure.positions[0]))
    assert found.axis == "z"
    np.testing.assert_allclose(found.values, 0.02 * eval_legendre(ell, directions @ d), atol=RELATIVE * 0.02)
    assert found.share == pytest.approx(1.0, abs=0.02)  # the sphere is integrated on a grid of 5°
    # Control: the frame of the structure is not that of the laboratory.
    assert np.abs(found.values - 0.02 * eval_legendre(ell, directions[..., 2])).max() > 0.01


def test_a_map_shows_the_share_that_its_axis_sees() -> None:
    """Of ε P_2(d·Rᵀa) the mean over turns about e is P_2(a·e) ε P_2(d·n): the share is P_2(a·e)²."""
    axis = unit(0.2, -1.0, 0.3)
    toy = MolecularToy(2, 1, 0.02, axis=tuple(axis))
    energies = response(toy, molecule(), nodes().matrices).energies
    found = sphere(nodes(), deviations(energies, nodes().weights), LMAX)
    assert found.axis == "y"
    assert found.share == pytest.approx(eval_legendre(2, axis[1]) ** 2, abs=0.02)
    assert found.share < 0.9  # control: not all of it


def test_the_map_of_nothing_is_flat() -> None:
    found = sphere(nodes("gauss:4"), np.zeros(len(nodes("gauss:4"))), 2)
    assert found.share == 0.0
    assert not found.values.any()
