"""Compute the table of Gauss rules on SO(3) that ``gauss:DEGREE`` reads: the smallest rules known to us.

A rule is a union of double cosets H h_j G of two finite rotation groups, every element of the j-th having the weight
w_j / (|H| |G|). It is exact to degree N when, for each 1 ≤ ℓ ≤ N,

    Σ_j w_j Uᵀ D^ℓ(h_j) V = 0,

where D^ℓ is the real Wigner matrix and the columns of U and V are the vectors that H and G leave invariant. With
trivial groups these are the (2ℓ+1)² equations of a rule without symmetry. The unknowns are h_j (three body angles each)
and w_j = exp(u_j), which keeps weights positive; Levenberg-Marquardt solves the equations from random starts:

    h_j ← h_j exp(Σ_a δ_ja L_a),   ∂D(h_j)/∂δ_ja = D(h_j) L_a,   ∂/∂u_j = w_j D(h_j).

Which groups to try is a matter of counting: four unknowns a double coset, less the turns that leave H and G as they
are, against the equations and Σ w = 1. No rule is larger than those of M. Gräf (PhD thesis, TU Chemnitz, 2013; with
D. Potts, Numer. Funct. Anal. Optim. 30, 665 (2009)), whose numerical tables are not used; 7, 10, 12 and 13 are smaller.

Usage: ``python scripts/compute_gauss_rules.py`` writes the table, in a few seconds;
``python scripts/compute_gauss_rules.py --degree N`` computes one rule again and reports on it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, expm
from scipy.spatial.transform import Rotation

TABLE = Path(__file__).parents[1] / "src/goniometer/rotations/gauss_rules.npz"
EXACT = 1e-14  # |Σ w D^ℓ| of a solved rule, in its largest element
Array = NDArray[np.float64]


class Recipe(NamedTuple):
    """Double cosets of the groups ``left`` and ``right``, how many, and the seed from which they were found."""

    left: str
    right: str
    count: int
    seed: int


# Elements: 4, 11, 23, 43, 60, 116, 160, 240, 300, 420, 504, 696, 832, 960.
RECIPES = {
    1: Recipe("C1", "D2", 1, 0),
    2: Recipe("C1", "C1", 11, 0),
    3: Recipe("C1", "C1", 23, 0),
    4: Recipe("C1", "C1", 43, 0),
    5: Recipe("C1", "I", 1, 0),
    6: Recipe("C1", "C1", 116, 0),
    7: Recipe("C1", "D4", 20, 0),
    8: Recipe("C1", "T", 20, 0),
    9: Recipe("C1", "I", 5, 0),
    10: Recipe("C1", "C10", 42, 2),
    11: Recipe("C1", "O", 21, 0),
    12: Recipe("C2", "C12", 29, 0),
    13: Recipe("C2", "C13", 32, 1),
    14: Recipe("C1", "I", 16, 0),
}


def generators(ell: int) -> Array:
    """Real antisymmetric matrices L_x, L_y, L_z (3, 2ℓ+1, 2ℓ+1) with D^ℓ(rotation by θ about n) = exp(θ n·L)."""
    m = np.arange(-ell, ell + 1)
    raising = np.diag(np.sqrt((ell - m[:-1]) * (ell + m[:-1] + 1.0)), -1)
    complex_j = np.stack([(raising + raising.T) / 2, (raising - raising.T) / 2j, np.diag(m)])
    to_real = np.zeros((2 * ell + 1, 2 * ell + 1), dtype=complex)  # rows: real harmonics; columns: m = −ℓ … ℓ
    to_real[ell, ell] = 1.0
    for k in range(1, ell + 1):
        to_real[ell + k, [ell + k, ell - k]] = (-1.0) ** k / np.sqrt(2), 1 / np.sqrt(2)
        to_real[ell - k, [ell + k, ell - k]] = -1j * (-1.0) ** k / np.sqrt(2), 1j / np.sqrt(2)
    return (to_real @ (-1j * complex_j) @ to_real.conj().T).real


class Representation:
    """D^ℓ between the invariants of two groups."""

    def __init__(self, ell: int, left: Rotation, right: Rotation) -> None:
        self.ell = ell
        self.generators = generators(ell)
        self.to_y = expm(-np.pi / 2 * self.generators[0])  # turns z into y
        self.left, self.right = self.invariants(left), self.invariants(right)

    def about_z(self, angles: Array) -> Array:
        matrices = np.zeros((len(angles), 2 * self.ell + 1, 2 * self.ell + 1))
        for m in range(-self.ell, self.ell + 1):
            matrices[:, self.ell + m, self.ell + m] = np.cos(m * angles)
            if m:
                matrices[:, self.ell + m, self.ell - m] = np.sign(self.generators[2, self.ell + m, self.ell - m]) * (
                    np.sin(abs(m) * angles)
                )
        return matrices

    def wigner(self, rotations: Rotation) -> Array:
        """D^ℓ (K, 2ℓ+1, 2ℓ+1) from Euler angles: R = R_z(α) R_y(β) R_z(γ)."""
        x, y, z, w = rotations.as_quat().T
        plus, minus = np.arctan2(z, w), np.arctan2(-x, y)  # (α ± γ)/2, defined at the poles as well
        beta = 2 * np.arctan2(np.hypot(x, y), np.hypot(z, w))
        tilt = self.to_y @ self.about_z(beta) @ self.to_y.T
        return self.about_z(plus + minus) @ tilt @ self.about_z(plus - minus)

    def invariants(self, group: Rotation) -> Array:
        """Orthonormal columns (2ℓ+1, n): what the mean of D^ℓ over the group leaves."""
        values, vectors = np.linalg.eigh(self.wigner(group).mean(axis=0))
        return vectors[:, values > 0.5]


class Equations:
    """Σ_j w_j √(2ℓ+1) Uᵀ D^ℓ(h_j) V = 0 for 1 ≤ ℓ ≤ degree, and Σ_j w_j = 1."""

    def __init__(self, degree: int, left: str, right: str) -> None:
        self.groups = Rotation.create_group(left), Rotation.create_group(right)
        every = [Representation(ell, *self.groups) for ell in range(1, degree + 1)]
        self.representations = [r for r in every if r.left.size and r.right.size]

    def __call__(self, rotations: Rotation, weights: Array) -> tuple[Array, Array]:
        """Residuals (E,) and their derivatives (E, 4K) by δ_jx, δ_jy, δ_jz, u_j."""
        count = len(weights)
        residuals, jacobian = (
            [np.array([weights.sum() - 1.0])],
            [np.repeat(weights, 4) * np.tile([0.0, 0, 0, 1], count)],
        )
        for rep in self.representations:
            half = np.sqrt(2 * rep.ell + 1.0) * weights[:, None, None] * (rep.left.T @ rep.wigner(rotations))
            values = half @ rep.right
            turns = half[:, None] @ (rep.generators @ rep.right)
            residuals.append(values.sum(axis=0).ravel())
            columns = np.concatenate([turns, values[:, None]], axis=1)
            jacobian.append(columns.reshape(4 * count, -1).T)
        return np.concatenate(residuals), np.vstack(jacobian)


def solve(equations: Equations, rotations: Rotation, steps: int = 400) -> tuple[Rotation, Array, float]:
    """Levenberg-Marquardt from equal weights: rotations, weights and the largest residual that is left.

    The step of least norm is −Jᵀ (J Jᵀ + λ)⁻¹ F: there are as many unknowns as equations, or more. λ follows the ratio
    of the gain to what the linear model promised (Nielsen 1999).
    """
    weights = np.full(len(rotations), 1.0 / len(rotations))
    damping, growth = 1e-2 / len(rotations), 2.0
    value, jacobian = equations(rotations, weights)
    for _ in range(steps):
        normal = jacobian @ jacobian.T
        shift = max(damping, 1e-13 * normal.max())  # rounding alone can make J Jᵀ indefinite
        factor = cho_factor(normal + shift * np.eye(len(normal)), check_finite=False)
        step = -jacobian.T @ cho_solve(factor, value, check_finite=False)
        step /= max(1.0, 4.0 * np.abs(step).max())
        delta = step.reshape(-1, 4)
        turned = rotations * Rotation.from_rotvec(delta[:, :3])
        weighted = weights * np.exp(delta[:, 3])
        new_value, new_jacobian = equations(turned, weighted)
        now, new, promised = value @ value, new_value @ new_value, np.sum((value + jacobian @ step) ** 2)
        if new < now:
            gain = (now - new) / (now - promised)
            rotations, weights, value, jacobian = turned, weighted, new_value, new_jacobian
            damping, growth = damping * max(1 / 5, 1 - (2 * gain - 1) ** 3), 2.0
            if new > 0.9999 * now and now > 1e-12:  # caught in a minimum that is no solution
                break
        else:
            damping, growth = damping * growth, 2.0 * growth
            if np.abs(value).max() < EXACT or growth > 1e6:  # as good as rounding allows, or stuck
                break
    return rotations, weights, float(np.abs(value).max())


def compute(degree: int, recipe: Recipe, starts: int = 20) -> tuple[Array, Array]:
    """Quaternions (J, 4) and weights (J,) of the representatives, from the recipe's seed or one that follows it."""
    equations = Equations(degree, recipe.left, recipe.right)
    for seed in range(recipe.seed, recipe.seed + starts):
        began = time.perf_counter()
        rng = np.random.default_rng([degree, seed])
        start = Rotation.from_quat(rng.normal(size=(recipe.count, 4)))
        if recipe.count == 1:
            start = Rotation.from_quat([[0.0, 0.0, 0.0, 1.0]])
        rotations, weights, left = solve(equations, start)
        size = recipe.count * len(equations.groups[0]) * len(equations.groups[1])
        print(
            f"degree {degree:2d}  {size:4d} elements  {recipe.left}·{recipe.count}·{recipe.right}  seed {seed}  "
            f"|Σ w D| ≤ {left:.0e}  J w from {weights.min() * recipe.count:.2f} to {weights.max() * recipe.count:.2f}  "
            f"{time.perf_counter() - began:.1f} s"
        )
        if left < EXACT:
            return rotations.as_quat(canonical=True), weights
    raise SystemExit(
        f"degree {degree}: none of {starts} starts from seed {recipe.seed} led to a rule; try another --seed"
    )


def main() -> None:
    """Compute the table, or one rule."""
    parser = argparse.ArgumentParser(description="Compute the table of Gauss rules on SO(3).")
    parser.add_argument(
        "--degree", type=int, choices=sorted(RECIPES), help="only this rule; the table is left as it is"
    )
    parser.add_argument("--seed", type=int, help="start from this seed instead of the recorded one")
    parser.add_argument("--output", type=Path, default=TABLE, help="the file to write (default: the package's table)")
    arguments = parser.parse_args()
    chosen = RECIPES if arguments.degree is None else {arguments.degree: RECIPES[arguments.degree]}
    table: dict[str, NDArray] = {"degrees": np.array(list(chosen))}
    for degree, recipe in chosen.items():
        recipe = recipe if arguments.seed is None else recipe._replace(seed=arguments.seed)
        table[f"groups_{degree}"] = np.array([recipe.left, recipe.right])
        table[f"quaternions_{degree}"], table[f"weights_{degree}"] = compute(degree, recipe)
    if arguments.degree is None or arguments.output != TABLE:
        np.savez(arguments.output, **table)


if __name__ == "__main__":
    main()
