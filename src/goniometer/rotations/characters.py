"""Characters of O(3), and the sums over pairs of rotations that are built from them.

With α the angle of a proper rotation R,

    χ_ℓ(R) = sin((2ℓ+1)α/2) / sin(α/2) = 1 + 2 Σ_{m=1..ℓ} cos(mα),   cos α = (tr R − 1)/2.

An element g of O(3) is a proper rotation times ±1, the sign being det g. Its two irreducible
representations of angular momentum ℓ, even and odd under inversion, have the characters χ_ℓ(det(g) g) and
det(g) χ_ℓ(det(g) g). Both depend on traces and determinants alone, so neither Wigner matrices nor Euler angles appear.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64

Matrices = Float64[np.ndarray, "K 3 3"]


def proper(matrices: Matrices) -> tuple[Matrices, Float64[np.ndarray, " K"]]:
    """Split elements of O(3) into proper rotations (K, 3, 3) and signs ±1 (K,)."""
    signs = np.sign(np.linalg.det(matrices))
    return matrices * signs[:, None, None], signs


def characters(cos_angle: np.ndarray, lmax: int) -> Iterator[np.ndarray]:
    """Yield χ_0 … χ_lmax of rotations given by the cosine of their angle, an array of any shape.

    The recursion cos((m+1)α) = 2 cos α cos(mα) − cos((m−1)α) is stable on [−1, 1]; no division occurs.
    The yielded array is a buffer that the next step changes: use it before going on.
    """
    twice = 2.0 * cos_angle
    before, now, later = np.full_like(twice, 2.0), twice.copy(), np.empty_like(twice)  # 2 cos(mα) for m = 0, 1
    chi = np.ones_like(twice)
    yield chi
    for _ in range(lmax):
        chi += now
        yield chi
        np.multiply(twice, now, out=later)
        later -= before
        before, now, later = now, later, before


def pair_cosines(left: Float64[np.ndarray, "J 3 3"], right: Matrices) -> Float64[np.ndarray, "J K"]:
    """Cosines (J, K) of the angles of R_jᵀ R_k, from tr(R_jᵀ R_k) = Σ_ab (R_j)_ab (R_k)_ab."""
    trace = left.reshape(len(left), 9) @ right.reshape(len(right), 9).T
    return np.clip((trace - 1.0) / 2.0, -1.0, 1.0)


def holds_inversion(matrices: Matrices, weights: Float64[np.ndarray, " K"]) -> bool:
    """Whether the second half of the elements are the negatives of the first, in order and with the same weights."""
    half = len(weights) // 2
    return (
        len(weights) == 2 * half
        and np.array_equal(matrices[half:], -matrices[:half])
        and np.array_equal(weights[half:], weights[:half])
    )


def quadratic_forms(
    matrices: Matrices, weights: Float64[np.ndarray, " K"], lmax: int, tile: int = 256
) -> tuple[Float64[np.ndarray, " L"], Float64[np.ndarray, " L"]]:
    """Σ_kk' w_k w_k' χ_ℓ^±(g_k⁻¹ g_k') for ℓ = 0 … lmax: the even and the odd sums, each (lmax+1,).

    Time grows with K² lmax. Pairs are taken in tiles that stay in the cache, and each once.
    """
    if holds_inversion(matrices, weights):  # the first half says everything
        half = len(weights) // 2
        even, _ = quadratic_forms(matrices[:half], 2.0 * weights[:half], lmax, tile)
        return even, np.zeros(lmax + 1)
    rotations, signs = proper(matrices)
    both = np.stack([weights, weights * signs], axis=1)
    forms = np.zeros((lmax + 1, 2))
    starts = range(0, len(weights), tile)
    for row in starts:
        rows = slice(row, row + tile)
        for column in starts[row // tile :]:
            columns = slice(column, column + tile)
            mirrored = 1.0 if row == column else 2.0
            cosines = pair_cosines(rotations[rows], rotations[columns])
            for ell, chi in enumerate(characters(cosines, lmax)):
                forms[ell] += mirrored * np.sum(both[rows] * (chi @ both[columns]), axis=0)
    return forms[:, 0], forms[:, 1]
