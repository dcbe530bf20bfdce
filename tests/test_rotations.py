"""Rules of rotations: their degrees against Wigner matrices made another way, and everything a name can do wrong."""

from __future__ import annotations

import importlib.util
import itertools
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import lebedev_rule
from scipy.spatial.transform import Rotation
from scipy.special import roots_legendre, sph_harm_y_all

from goniometer.errors import InputError
from goniometer.rotations import PAPER_GRIDS, Rule, catalogue, families, named, random_rotations, rule
from goniometer.rotations.characters import characters, quadratic_forms
from goniometer.rotations.quadrature import MAX_ELEMENTS
from goniometer.rotations.summary import LARGEST, LMAX, summaries, summarized

SCRIPT = Path(__file__).parents[1] / "scripts/compute_gauss_rules.py"
GAUSS_SIZES = (4, 11, 23, 43, 60, 116, 160, 240, 300, 420, 504, 696, 832, 960)
PUBLISHED_SIZES = {1: 4, 2: 11, 3: 23, 4: 43, 5: 60, 6: 116, 7: 168, 8: 240, 9: 300, 11: 504, 14: 960}  # Gräf 2013
NAMES = (
    *families.GROUPS,
    *(f"legendre:{nodes}" for nodes in range(1, 6)),
    *(f"lebedev:{degree}" for degree in (1, 2, 3, 4, 5, 8, 11, 13)),
    *(f"gauss:{degree}" for degree in range(1, 15)),
)
SMALL = (
    "klein",
    "tetrahedral",
    "octahedral",
    "icosahedral",
    "legendre:2",
    "lebedev:3",
    "gauss:2",
    "gauss:4",
    "random:7",
)


def harmonics(lmax: int, points: np.ndarray) -> list[np.ndarray]:
    """Y_ℓm, an array (..., 2ℓ+1) for each ℓ ≤ lmax, of unit vectors (..., 3)."""
    theta, phi = np.arccos(np.clip(points[..., 2], -1, 1)), np.arctan2(points[..., 1], points[..., 0])
    every = np.moveaxis(sph_harm_y_all(lmax, lmax, theta, phi), (0, 1), (0, -1))  # m = 0 … lmax, −lmax … −1
    return [every[ell][..., np.arange(-ell, ell + 1)] for ell in range(lmax + 1)]


def mean_wigner(lmax: int, matrices: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
    """Σ_k w_k D^ℓ(R_k) of proper rotations for ℓ ≤ lmax, up to the convention: Y(R x) = Y(x) D, solved over points."""
    points = np.random.default_rng(lmax).normal(size=(3 * lmax + 6, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    turned = np.zeros((lmax + 1, len(points), 2 * lmax + 1), dtype=complex)
    for part in np.array_split(np.arange(len(weights)), len(weights) // 100 + 1):  # bounds the memory
        every = harmonics(lmax, np.einsum("kab,pb->kpa", matrices[part], points))
        for ell, values in enumerate(every):
            turned[ell, :, : 2 * ell + 1] += np.tensordot(weights[part], values, axes=1)
    still = harmonics(lmax, points)
    return [np.linalg.pinv(still[ell]) @ turned[ell, :, : 2 * ell + 1] for ell in range(lmax + 1)]


class TestDegrees:
    @pytest.mark.parametrize("name", NAMES)
    def test_agrees_with_wigner_matrices(self, name: str) -> None:
        chosen = rule(name)
        plus, minus = chosen.residuals(chosen.degree + 1)
        np.testing.assert_allclose(plus, minus, atol=1e-15)
        means = mean_wigner(chosen.degree + 1, *_nodes(chosen))
        for ell, mean in enumerate(means[1:-1], start=1):
            assert np.abs(mean).max() < 1e-13, f"ℓ = {ell}"
        left = np.sum(np.abs(means[-1]) ** 2) / len(means[-1])
        assert left > 1e-4, "one degree more must not be integrated"
        assert plus[-1] == pytest.approx(left, abs=1e-13)

    @pytest.mark.parametrize("name", NAMES)
    def test_integrates_polynomials(self, name: str) -> None:
        """(a·Rb)^n, of degree n, has the Haar mean 1/(n+1) or 0: a·Rb of unit vectors is uniform on [−1, 1]."""
        chosen = rule(name)
        rng = np.random.default_rng(1)
        a, b = rng.normal(size=(2, 40, 3))
        cosines = np.einsum("pa,kab,pb->pk", a, chosen.matrices, b)
        cosines /= np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[:, None]
        errors = [np.abs(cosines**n @ chosen.weights - (n % 2 == 0) / (n + 1)).max() for n in range(chosen.degree + 2)]
        assert max(errors[:-1]) < 1e-13
        assert errors[-1] > 1e-6

    @pytest.mark.parametrize("name", NAMES)
    def test_cannot_claim_more(self, name: str) -> None:
        chosen = rule(name)
        with pytest.raises(InputError, match="is not exact to degree"):
            replace(chosen, degree=chosen.degree + 1)

    @pytest.mark.parametrize("inversion", [False, True])
    @pytest.mark.parametrize("name", NAMES)
    def test_positive_weights_that_sum_to_one(self, name: str, inversion: bool) -> None:
        chosen = rule(name, inversion)
        assert chosen.weights.min() > 0
        assert chosen.weights.sum() == pytest.approx(1, abs=1e-14)
        assert len(chosen) == len(rule(name)) * (1 + inversion)
        dets = np.linalg.det(chosen.matrices)
        np.testing.assert_allclose(
            np.sort(dets), np.repeat([-1.0, 1.0], [inversion * len(rule(name)), len(rule(name))])
        )

    def test_elements_differ(self) -> None:
        for name in NAMES:
            matrices = rule(name).matrices
            cosines = np.einsum("jab,kab->jk", matrices, matrices) - 3 * np.eye(len(matrices))
            assert len(matrices) == 1 or cosines.max() < 3 - 1e-4, name

    def test_inversion_annihilates_what_is_odd(self) -> None:
        plus, minus = rule("octahedral", inversion=True).residuals(6)
        np.testing.assert_allclose(plus, rule("octahedral").residuals(6)[0], atol=1e-15)
        np.testing.assert_array_equal(minus, 0)
        _, odd = rule("octahedral").residuals(6)
        assert odd[0] == pytest.approx(1)  # control: without it, P_0⁻ stays as it is


class TestGroups:
    @pytest.mark.parametrize(
        ("name", "removed"),
        [
            ("klein", {1}),
            ("tetrahedral", {1, 2, 5}),
            ("octahedral", {1, 2, 3, 5, 7, 11}),
            ("icosahedral", {1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 14}),
        ],
    )
    def test_extra_zeros(self, name: str, removed: set[int]) -> None:
        plus, _ = rule(name).residuals(15)
        invariants = np.round(plus * (2 * np.arange(16) + 1), 10)
        assert {ell for ell in range(1, 16) if invariants[ell] == 0} == removed
        np.testing.assert_array_equal(invariants, np.round(invariants))  # the mean of D is a projector

    @pytest.mark.parametrize(("large", "ell"), [("octahedral", 4), ("icosahedral", 6)])
    def test_nested_groups_share_an_invariant(self, large: str, ell: int) -> None:
        small, big = (mean_wigner(ell, *_nodes(rule(name)))[ell] for name in ("tetrahedral", large))
        np.testing.assert_allclose(small @ big, big, atol=1e-13)  # every invariant of the large group is one of T's
        blind = np.trace(small - big).real
        assert blind == pytest.approx({4: 0, 6: 1}[ell], abs=1e-12)  # at ℓ = 4 the two means are even the same
        turned = mean_wigner(ell, *_nodes(rule("tetrahedral").turned_at_random(3)))[ell]
        assert np.abs(turned @ big - big).max() > 0.1  # control: turned independently they share nothing

    @pytest.mark.parametrize(
        ("small", "large"), [("klein", "tetrahedral"), ("tetrahedral", "octahedral"), ("tetrahedral", "icosahedral")]
    )
    def test_nested_as_oriented(self, small: str, large: str) -> None:
        distance = np.abs(rule(small).matrices[:, None] - rule(large).matrices[None]).max(axis=(2, 3))
        assert distance.min(axis=1).max() < 1e-14


def _nodes(chosen: Rule) -> tuple[np.ndarray, np.ndarray]:
    return chosen.matrices, chosen.weights


def assert_same_set(chosen: Rule, matrices: np.ndarray, weights: np.ndarray) -> None:
    distance = np.abs(chosen.matrices[:, None] - matrices[None]).max(axis=(2, 3))
    partner = distance.argmin(axis=1)
    assert sorted(partner) == list(range(len(matrices)))
    assert distance.min(axis=1).max() < 1e-14
    np.testing.assert_allclose(chosen.weights, weights[partner], rtol=1e-13)


class TestLegendre:
    def test_paper_grids(self) -> None:
        sizes = {label: len(rule(*arguments)) for label, arguments in PAPER_GRIDS.items()}
        assert sizes == {"none": 1, "i": 2, "2": 18, "2i": 36, "3": 75, "3i": 150}

    @pytest.mark.parametrize("nodes", [2, 3, 4])
    def test_product_of_elementary_rotations(self, nodes: int) -> None:
        def about_z(angle: float) -> np.ndarray:
            return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])

        def about_x(cosine: float) -> np.ndarray:
            sine = np.sqrt(1 - cosine**2)
            return np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])

        angles = 2 * np.pi * np.arange(2 * nodes - 1) / (2 * nodes - 1)
        made = [
            (about_z(gamma) @ about_x(cosine) @ about_z(alpha), weight / 2 / len(angles) ** 2)
            for alpha, gamma in itertools.product(angles, angles)
            for cosine, weight in zip(*roots_legendre(nodes), strict=True)
        ]
        assert_same_set(rule(f"legendre:{nodes}"), np.array([m for m, _ in made]), np.array([w for _, w in made]))

    @pytest.mark.parametrize("nodes", [1, 2, 3, 4])
    def test_choice_of_ipi(self, nodes: int) -> None:
        ipi = pytest.importorskip("ipi.utils.mathtools")
        matrices, weights, _ = zip(*ipi.get_rotation_quadrature_legendre(nodes), strict=True)
        assert_same_set(rule(f"legendre:{nodes}"), np.array(matrices), np.array(weights) / np.sum(weights))

    def test_control_the_other_axis(self) -> None:
        """About y instead of x the rule is as exact, but it is another one."""
        turned = rule("legendre:2").turned(right=np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]))
        with pytest.raises(AssertionError):
            assert_same_set(turned, *_nodes(rule("legendre:2")))


def test_lebedev_points_are_scipys() -> None:
    for degree, count in families.LEBEDEV_POINTS.items():
        points, weights = lebedev_rule(degree)
        assert points.shape == (3, count)
        assert weights.min() > 0
    for degree in (13, 25, 27):
        assert lebedev_rule(degree)[1].min() < 0


class TestProof:
    def test_vanishing_character_is_not_enough(self) -> None:
        """One rotation by 120°: χ_1 = 0, yet a vector is only turned, not averaged away."""
        turn = np.array([[[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]])
        chi = [float(c[0]) for c in (c.copy() for c in characters(np.array([(np.trace(turn[0]) - 1) / 2]), 1))]
        assert chi[1] == pytest.approx(0, abs=1e-15)
        with pytest.raises(InputError, match="is not exact to degree 1"):
            Rule("one turn", turn, np.ones(1), degree=1)
        assert Rule("one turn", turn, np.ones(1), degree=0).residuals(1)[0][1] == pytest.approx(1)

    def test_one_weight_changed(self) -> None:
        chosen = rule("gauss:4")
        weights = chosen.weights.copy()
        weights[:2] += [1e-6, -1e-6]
        with pytest.raises(InputError, match="is not exact"):
            replace(chosen, weights=weights)

    def test_sums_over_pairs_do_not_depend_on_tiles(self) -> None:
        matrices = random_rotations(23, np.random.default_rng(5)) * np.where(np.arange(23) % 3, 1, -1)[:, None, None]
        weights = np.random.default_rng(6).random(23)
        whole = quadratic_forms(matrices, weights, 5)
        for tile in (1, 4, 22):
            np.testing.assert_allclose(quadratic_forms(matrices, weights, 5, tile), whole, rtol=1e-12, atol=1e-12)
        signs = np.linalg.det(matrices)
        for form, signed in zip(whole, (weights, weights * signs), strict=True):
            means = mean_wigner(5, matrices * signs[:, None, None], signed)
            np.testing.assert_allclose(form, [np.sum(np.abs(mean) ** 2) for mean in means], rtol=1e-11)

    @pytest.mark.parametrize("shuffle", [False, True])
    def test_sums_with_inversion(self, shuffle: bool) -> None:
        """The short cut for elements in pairs g, −g, and the general sum once they are out of order."""
        chosen = rule("legendre:2", inversion=True)
        order = np.random.default_rng(0).permutation(36) if shuffle else np.arange(36)
        even, odd = quadratic_forms(chosen.matrices[order], chosen.weights[order], 5)
        np.testing.assert_allclose(even, quadratic_forms(*_nodes(rule("legendre:2")), 5)[0], atol=1e-14)
        np.testing.assert_allclose(odd, 0, atol=1e-15)


seeds = st.integers(0, 2**32 - 1)


class TestTurning:
    @settings(max_examples=60, deadline=None)
    @given(
        name=st.sampled_from(SMALL),
        inversion=st.booleans(),
        seed=seeds,
        improper=st.tuples(st.booleans(), st.booleans()),
    )
    def test_two_sided_turns_keep_residuals(
        self, name: str, inversion: bool, seed: int, improper: tuple[bool, bool]
    ) -> None:
        chosen = rule(name, inversion)
        left, right = random_rotations(2, np.random.default_rng(seed)) * np.where(improper, -1, 1)[:, None, None]
        for turned in (chosen.turned(left), chosen.turned(right=right), chosen.turned(left, right)):
            assert turned.degree == chosen.degree
            np.testing.assert_allclose(turned.residuals(8), chosen.residuals(8), atol=1e-13)
        np.testing.assert_allclose(
            chosen.turned(left, right).turned(left.T, right.T).matrices, chosen.matrices, atol=1e-14
        )

    @settings(max_examples=20, deadline=None)
    @given(seed=seeds, sides=st.sampled_from(("left", "right", "both")))
    def test_random_turn_repeats_from_its_seed(self, seed: int, sides: str) -> None:
        one, two = (rule("octahedral").turned_at_random(seed, sides) for _ in range(2))
        assert one.seed == seed
        np.testing.assert_array_equal(one.matrices, two.matrices)
        assert np.abs(one.matrices - rule("octahedral").matrices).max() > 1e-6

    def test_a_matrix_that_is_no_rotation_is_refused(self) -> None:
        with pytest.raises(InputError, match="orthogonal"):
            rule("klein").turned(left=np.diag([1.0, 1.0, 1.1]))


class TestRandom:
    def test_residual_in_the_mean(self) -> None:
        """⟨ρ_ℓ⟩ = 1/N: only the pairs k = k' have a mean character. Controls: angles uniform instead of rotations."""
        count, seeds, lmax = 48, 300, 6
        found = np.array([rule(f"random:{count}:{seed}").residuals(lmax)[0] for seed in range(seeds)])
        error = found.std(axis=0)[1:] / np.sqrt(seeds)
        studentized = (found.mean(axis=0)[1:] - 1 / count) / error
        assert np.abs(studentized).max() < 4  # of six numbers; the seeds are fixed

        rng = np.random.default_rng(0)
        uniform_angles = [Rotation.from_euler("ZXZ", rng.uniform(0, 2 * np.pi, (count, 3))) for _ in range(seeds)]
        weights = np.full(count, 1 / count)
        wrong = np.array([Rule("wrong", r.as_matrix(), weights, 0).residuals(lmax)[0] for r in uniform_angles])
        assert np.abs((wrong.mean(axis=0)[1:] - 1 / count) / (wrong.std(axis=0)[1:] / np.sqrt(seeds))).max() > 6

    def test_names(self) -> None:
        assert rule("random:5").name == "random:5:0"
        np.testing.assert_array_equal(rule("random:5").matrices, rule("random:5:0").matrices)
        assert np.abs(rule("random:5:1").matrices - rule("random:5").matrices).max() > 0.1
        assert rule("random:5").degree == 0


class TestNames:
    @pytest.mark.parametrize("name", [*NAMES, "random:9:4", "degree:0", "degree:3", "degree:15"])
    @pytest.mark.parametrize("inversion", [False, True])
    def test_name_makes_the_rule_again(self, name: str, inversion: bool) -> None:
        chosen = rule(name, inversion)
        again = rule(chosen.name, inversion)
        assert again is chosen  # built and proven once
        assert chosen.inversion is inversion
        assert not name.startswith("degree") or chosen.degree >= int(name.split(":")[1])

    def test_shared_arrays_cannot_be_written(self) -> None:
        for array in (rule("klein").matrices, rule("klein").weights):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0

    def test_gauss_sizes(self) -> None:
        assert tuple(len(rule(f"gauss:{degree}")) for degree in range(1, 15)) == GAUSS_SIZES
        assert all(GAUSS_SIZES[degree - 1] <= size for degree, size in PUBLISHED_SIZES.items())

    @pytest.mark.parametrize(
        ("degree", "name"),
        [
            (0, "identity"),
            (1, "klein"),
            (2, "gauss:2"),
            (3, "gauss:3"),
            (5, "icosahedral"),
            (14, "gauss:14"),
            (15, "lebedev:15"),
        ],
    )
    def test_smallest_by_degree(self, degree: int, name: str) -> None:
        assert rule(f"degree:{degree}").name == name

    def test_smallest_is_smallest(self) -> None:
        every = catalogue(1000, inversion=False)
        for degree in range(15):
            assert len(rule(f"degree:{degree}")) == min(len(other) for other in every if other.degree >= degree)

    def test_sizes_are_known_beforehand(self) -> None:
        for name in (*NAMES, "random:11"):
            which = named._parse(name)
            assert which.size == len(rule(name))
            assert which.degree == rule(name).degree

    @pytest.mark.parametrize(
        ("name", "inversion", "message"),
        [
            ("", False, "unknown rule ''"),
            ("cubic", False, "the rules are identity, klein, tetrahedral"),
            ("Octahedral", False, "unknown rule"),
            (" klein", False, "unknown rule"),
            ("klein:1", False, "unknown rule"),
            ("gauss", False, "unknown rule"),
            ("gauss:3.5", False, "unknown rule"),
            ("gauss:-3", False, "unknown rule"),
            ("gauss:٣", False, "unknown rule"),
            ("gauss:3\n", False, "unknown rule"),
            ("random:1:2:3", False, "unknown rule"),
            ("legendre:" + "9" * 5000, False, "unknown rule"),
            ("random:0", False, "at least 1"),
            ("gauss:0", False, "starts at gauss:1"),
            ("gauss:15", False, "ends at gauss:14; beyond it there is lebedev:15"),
            ("legendre:0", False, "starts at legendre:1"),
            ("lebedev:132", False, "ends at lebedev:131"),
            ("lebedev:40", False, "has 24190 elements; at most 24000"),
            ("lebedev:32", True, "with inversion has 28644 elements"),
            ("legendre:19", False, "has 26011 elements"),
            ("legendre:999999999999999999", False, "at most 24000"),
            ("random:24001", False, "has 24001 elements"),
            ("random:12001", True, "has 24002 elements"),
            ("degree:40", False, "the highest degree is 39"),
            ("degree:32", True, "the highest degree is 31"),
            ("degree:999999999999999999", False, "the highest degree is 39"),
            ("octohedral", False, "; did you mean 'octahedral'?"),
            ("Octahedral", False, "; did you mean 'octahedral'?"),
            ("lebedv:5", True, "; did you mean 'lebedev:5'?"),
            ("legendr:3", False, "; did you mean 'legendre:3'?"),
        ],
    )
    def test_bad_names(self, name: str, inversion: bool, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def expensive(*_: object) -> None:
            raise AssertionError("nothing may be built for a name that is refused")

        monkeypatch.setattr(named, "_build", expensive)
        with pytest.raises(InputError) as caught:
            rule(name, inversion)
        assert message in str(caught.value)

    @pytest.mark.parametrize("name", ["", "cubic", "klein:1", "gauss", "gauss:3.5", "gaus", "lebedv:500"])
    def test_nothing_is_meant_that_is_no_rule(self, name: str) -> None:
        with pytest.raises(InputError) as caught:
            rule(name)
        assert "did you mean" not in str(caught.value)

    @settings(max_examples=150, deadline=None)
    @given(
        name=st.one_of(
            st.text(max_size=20), st.from_regex(r"(gauss|random|degree|lebedev|legendre):[0-9:]{0,5}", fullmatch=True)
        )
    )
    def test_any_text_is_a_member_or_an_input_error(self, name: str) -> None:
        try:
            which = named._parse(name)
        except InputError:
            return
        assert which.family in named._KNOWN


class TestCatalogue:
    def test_holds_what_fits(self) -> None:
        found = catalogue(150)
        sizes = [len(member) for member in found]
        assert sizes == sorted(sizes)
        assert max(sizes) <= 150
        assert {member.name.split(":")[0] for member in found} == {*families.GROUPS, "legendre", "lebedev", "gauss"}
        names = [(member.name, member.inversion) for member in found]
        assert len(set(names)) == len(names)
        assert {("legendre:3", False), ("legendre:3", True), ("octahedral", True), ("gauss:6", False)} <= set(names)
        assert ("gauss:6", True) not in names

    def test_by_inversion(self) -> None:
        both = {(member.name, member.inversion) for member in catalogue(100)}
        apart = [
            {(member.name, member.inversion) for member in catalogue(100, inversion)} for inversion in (False, True)
        ]
        assert apart[0] | apart[1] == both
        assert not apart[0] & apart[1]

    def test_limits(self) -> None:
        assert catalogue(0) == []
        assert [member.name for member in catalogue(1)] == ["identity"]
        with pytest.raises(InputError, match="at most"):
            catalogue(MAX_ELEMENTS + 1)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compute_gauss_rules", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestTable:
    def test_wigner_matrices_of_the_script(self, script: ModuleType) -> None:
        group = Rotation.create_group("C1")
        one, two = (Rotation.from_matrix(random_rotations(1, np.random.default_rng(seed))) for seed in (1, 2))
        for ell in (1, 4):
            representation = script.Representation(ell, group, group)
            product = representation.wigner(one) @ representation.wigner(two)
            np.testing.assert_allclose(representation.wigner(one * two), product, atol=1e-13)
            trace = np.trace(representation.wigner(one)[0])
            assert trace == pytest.approx(1 + 2 * np.cos(np.arange(1, ell + 1) * one.magnitude()).sum(), abs=1e-12)

    def test_derivatives_of_the_script(self, script: ModuleType) -> None:
        equations = script.Equations(5, "C2", "D3")
        start = Rotation.from_matrix(random_rotations(3, np.random.default_rng(0)))
        weights, step = np.array([0.2, 0.3, 0.5]), 1e-6
        _, jacobian = equations(start, weights)
        for column in range(12):
            values = []
            for sign in (1, -1):
                delta = np.zeros((3, 4))
                delta.flat[column] = sign * step
                turned = start * Rotation.from_rotvec(delta[:, :3])
                values.append(equations(turned, weights * np.exp(delta[:, 3]))[0])
            np.testing.assert_allclose((values[0] - values[1]) / (2 * step), jacobian[:, column], atol=1e-8)

    @pytest.mark.parametrize("degree", [2, 3, 7, 8, 9])
    def test_computed_again(self, script: ModuleType, degree: int) -> None:
        quaternions, weights = script.compute(degree, script.RECIPES[degree])
        stored = families.gauss_table()[degree]
        assert (stored.left, stored.right, len(stored.weights)) == script.RECIPES[degree][:3]
        # another machine's rounding may lead to another solution; it has to be one
        before, after = (Rotation.create_group(symbol).as_matrix() for symbol in (stored.left, stored.right))
        turns = Rotation.from_quat(quaternions).as_matrix()
        matrices = np.einsum("hab,jbc,gcd->jhgad", before, turns, after).reshape(-1, 3, 3)
        copies = len(before) * len(after)
        Rule("computed", matrices, np.repeat(weights / weights.sum() / copies, copies), degree)

    def test_control_too_few(self, script: ModuleType) -> None:
        with pytest.raises(SystemExit, match="led to a rule"):
            script.compute(3, script.RECIPES[3]._replace(count=21), starts=2)

    @pytest.mark.nightly
    def test_the_whole_table(self, script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.argv", ["compute_gauss_rules.py", "--output", str(tmp_path / "table.npz")])
        script.main()
        with np.load(tmp_path / "table.npz") as made:
            sizes = {
                int(degree): len(made[f"weights_{degree}"])
                * np.prod([len(Rotation.create_group(symbol)) for symbol in made[f"groups_{degree}"]])
                for degree in made["degrees"]
            }
        assert tuple(sizes.values()) == GAUSS_SIZES

    @pytest.mark.nightly
    @pytest.mark.parametrize("degree", sorted(PUBLISHED_SIZES))
    def test_against_published_tables(self, degree: int) -> None:
        openquad = pytest.importorskip("openquad")
        published = openquad.SO3([("SO3-Gauss-Graef", {"degree": degree})])
        assert len(published.weights) == PUBLISHED_SIZES[degree]
        turns = Rotation.from_quat(np.asarray(published.quaternions), scalar_first=True).as_matrix()
        weights = published.weights / published.weights.sum()
        assert Rule("published", turns, weights, degree).residuals(degree + 1)[0][-1] > 1e-4
        assert len(rule(f"gauss:{degree}")) <= len(weights)


class TestSummaries:
    def test_the_table_is_what_the_catalogue_gives(self) -> None:
        for inversion in (False, True):
            computed = [summarized(each, LMAX) for each in catalogue(LARGEST, inversion)]
            listed = summaries(LARGEST, inversion, LMAX)
            assert [(each.name, each.n, each.degree) for each in listed] == [
                (each.name, each.n, each.degree) for each in computed
            ]
            for one, other in zip(listed, computed, strict=True):
                np.testing.assert_allclose(one.residuals, other.residuals, rtol=1e-5, atol=1e-12)

    def test_what_the_table_does_not_hold_is_computed(self) -> None:
        assert len(summaries(20, False, LMAX + 2)[0].residuals) == LMAX + 3
        assert summaries(1500, False, 2)[-1].n > LARGEST
