"""A quadrature rule on O(3): rotation matrices and weights that prove their own degree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from goniometer.errors import InputError
from goniometer.rotations.characters import quadratic_forms

#: Largest number of elements of a rule; proving a degree takes time that grows with its square.
MAX_ELEMENTS = 24_000

# |Σ w D^ℓ|² of an exact rule is rounding: some eps per term of a sum whose terms are at most (2ℓ+1) w w'.
_PROOF_TOLERANCE = 1e-13


@dataclass(frozen=True, eq=False)
class Rule:
    """Elements g_k of O(3) and weights w_k; the mean of a function f on the group is taken as Σ_k w_k f(g_k).

    The rule is exact to ``degree`` when it annihilates every representation of angular momentum
    1 ≤ ℓ ≤ degree, that is when Σ_kk' w_k w_k' χ_ℓ^±(g_k⁻¹ g_k') = 0 for both parities. That is checked when the
    rule is built. With ``inversion``, every element is accompanied by its negative, and all that is odd under inversion
    is annihilated as well; a rule of proper rotations sees nothing of the difference between the parities.

    Attributes
    ----------
    name
        The name that :func:`goniometer.rule` makes it from.
    matrices : (K, 3, 3)
        Orthogonal matrices; a structure is turned as positions @ Rᵀ.
    weights : (K,)
        They sum to 1.
    degree
        The proven degree; 0 for the identity and for random rules.
    inversion
        Whether inversion is included.
    seed
        Of the random turn, if the rule was turned at random.
    turn
        What that turn was, in words: ``turned by seed 3``.
    """

    name: str
    matrices: Float64[np.ndarray, "K 3 3"]
    weights: Float64[np.ndarray, " K"]
    degree: int
    inversion: bool = False
    seed: int | None = None
    turn: str = ""

    def __post_init__(self) -> None:
        if self.matrices.shape != (len(self.weights), 3, 3) or len(self.weights) == 0:
            raise InputError(
                f"rule '{self.name}': matrices {self.matrices.shape} and weights {self.weights.shape} do not fit: "
                "they must be (K, 3, 3) and (K,) with K ≥ 1"
            )
        unit = self.matrices @ self.matrices.transpose(0, 2, 1)
        if not np.abs(unit - np.eye(3)).max() < 1e-12:
            raise InputError(f"rule '{self.name}': not every matrix is orthogonal (R Rᵀ = 1)")
        if not abs(self.weights.sum() - 1.0) < 1e-12:
            raise InputError(f"rule '{self.name}': weights sum to {self.weights.sum():.15g}, they must sum to 1")
        plus, minus = self.residuals(max(self.degree, 1))
        left = max(plus[1 : self.degree + 1].max(initial=0.0), minus[1 : self.degree + 1].max(initial=0.0))
        if left > _PROOF_TOLERANCE:
            raise InputError(f"rule '{self.name}' is not exact to degree {self.degree}: it leaves ρ = {left:.2e}")
        if self.inversion and np.abs(minus).max() > _PROOF_TOLERANCE:
            raise InputError(f"rule '{self.name}' does not hold the inverse of every element")

    def __len__(self) -> int:
        return len(self.weights)

    def residuals(self, lmax: int) -> tuple[Float64[np.ndarray, " L"], Float64[np.ndarray, " L"]]:
        """ρ_ℓ^±(Q) = Σ_kk' w_k w_k' χ_ℓ^±(g_k⁻¹ g_k') / (2ℓ+1) for ℓ = 0 … lmax, even and odd, each (lmax+1,).

        The share of the variance P_ℓ^± that stays in the mean over the rule, itself turned at random from both sides.
        """
        even, odd = quadratic_forms(self.matrices, self.weights, lmax)
        dimension = 2.0 * np.arange(lmax + 1) + 1.0
        return even / dimension, odd / dimension

    def turned(self, left: np.ndarray | None = None, right: np.ndarray | None = None) -> Rule:
        """The rule with elements h g_k h': as exact as before. ``left`` and ``right`` are (3, 3), orthogonal."""
        matrices = self.matrices
        if left is not None:
            matrices = left @ matrices
        if right is not None:
            matrices = matrices @ right
        return replace(self, matrices=np.ascontiguousarray(matrices))

    def turned_at_random(self, seed: int, sides: str = "both") -> Rule:
        """The rule turned by uniform random proper rotations, on the ``left``, the ``right`` or ``both`` sides."""
        if sides not in ("left", "right", "both"):
            raise InputError(f"a rule is turned on the 'left', the 'right' or 'both' sides, not '{sides}'")
        left, right = random_rotations(2, np.random.default_rng(seed))
        turned = self.turned(left if sides != "right" else None, right if sides != "left" else None)
        side = "" if sides == "both" else f" on the {sides}"
        return replace(turned, seed=seed, turn=f"turned by seed {seed}{side}")

    def with_inversion(self) -> Rule:
        """The rule of twice as many elements that holds −g_k beside every g_k."""
        if self.inversion:
            return self
        return replace(
            self,
            matrices=np.concatenate([self.matrices, -self.matrices]),
            weights=np.concatenate([self.weights, self.weights]) / 2.0,
            inversion=True,
        )


def random_rotations(count: int, rng: np.random.Generator) -> Float64[np.ndarray, "K 3 3"]:
    """``count`` proper rotations, uniform on SO(3), from an explicit generator."""
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.random(count, rng=rng).as_matrix(), dtype=np.float64).reshape(count, 3, 3)


def joined(rules: Sequence[Rule]) -> tuple[Float64[np.ndarray, "K 3 3"], Float64[np.ndarray, "R K"]]:
    """All elements that any of several rules holds, each once, and the weights of the rules on them.

    An average over rule r is Σ_k w_rk f(g_k): what rules share is evaluated once.
    """
    every = np.concatenate([each.matrices for each in rules])
    # Adding zero makes one of both zeros.
    _, first, place = np.unique(every.round(9) + 0.0, axis=0, return_index=True, return_inverse=True)
    weights = np.zeros((len(rules), len(first)))
    ends = np.cumsum([len(each) for each in rules])[:-1]
    for row, over, places in zip(weights, rules, np.split(place.ravel(), ends), strict=True):
        np.add.at(row, places, over.weights)
    return every[first], weights


def in_words(matrix: Float64[np.ndarray, "3 3"]) -> str:
    """An element of O(3) by its angle in degrees and axis: ``rotation by 120° about (0.57735, 0.57735, 0.57735)``.

    An improper one is the rotation −R, ``and inversion``.
    """
    improper = np.linalg.det(matrix) < 0.0
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_matrix(-matrix if improper else matrix).as_rotvec(degrees=True)
    angle = float(np.linalg.norm(turn))
    if angle < 1e-6:
        return "inversion" if improper else "the identity"
    axis = ", ".join(f"{component:g}" for component in np.round(turn / angle, 6) + 0.0)
    return f"rotation by {angle:.6g}° about ({axis}){' and inversion' if improper else ''}"
