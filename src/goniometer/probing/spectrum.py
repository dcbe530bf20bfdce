"""Spectra of the response in angular momentum and parity, and what a rule leaves of it, from one set of nodes.

With nodes g_k = s_k R_k (R_k proper, s_k = ±1), weights w_k and deviations r_k of the response from its mean,

    P_ℓ^+ = (2ℓ+1) Σ_kk' w_k w_k' ⟨r_k, r_k'⟩ χ_ℓ(R_kᵀ R_k')            even under inversion
    P_ℓ^− = (2ℓ+1) Σ_kk' w_k w_k' ⟨r_k, r_k'⟩ χ_ℓ(R_kᵀ R_k') s_k s_k'    odd

is the variance that angular momentum ℓ carries; the sum over ℓ and parity is the whole. ⟨,⟩ is the mean over
components, so all that is needed of the response is its Gram matrix (K, K). Nodes that form a rule of degree ≥ 2L
resolve a response of bandwidth L; what lies above leaks in, by an amount that :func:`leak_matrix` knows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from goniometer.rotations import Rule
from goniometer.rotations.characters import characters, holds_inversion, pair_cosines, proper

Gram = Float64[np.ndarray, "K K"]


def gram(deviations: np.ndarray) -> Gram:
    """⟨r_k, r_k'⟩, the mean over components, of deviations (K, …)."""
    flat = deviations.reshape(len(deviations), -1)
    return flat @ flat.T / flat.shape[1]


def variance_by_ell(
    rule: Rule, products: Gram, lmax: int
) -> tuple[Float64[np.ndarray, " L"], Float64[np.ndarray, " L"] | None]:
    """P_0 … P_lmax even and odd under inversion, in the unit of the Gram matrix.

    Without inversion in the rule the parities cannot be told apart: the first array is then their sum as the rotation
    group sees it, the second None.
    """
    rotations, even, odd = _by_parity(rule, products)
    plus, minus = np.zeros(lmax + 1), np.zeros(lmax + 1)
    for ell, chi in enumerate(characters(pair_cosines(rotations, rotations), lmax)):
        plus[ell] = (2 * ell + 1) * np.vdot(even, chi)
        minus[ell] = (2 * ell + 1) * np.vdot(odd, chi)
    return plus, minus if rule.inversion else None


def _by_parity(rule: Rule, products: Gram) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Proper rotations, and w_k w_k' ⟨r_k, r_k'⟩ of the even and of the odd part for pairs of these."""
    rotations, signs = proper(rule.matrices)
    weights = rule.weights
    same, across = products, np.zeros_like(products)
    if holds_inversion(rule.matrices, weights):  # both halves have the same rotations: add their products up
        half = len(weights) // 2
        rotations, signs, weights = rotations[:half], signs[:half], weights[:half]
        same = products[:half, :half] + products[half:, half:]
        across = products[:half, half:] + products[half:, :half]
    return (
        rotations,
        np.outer(weights, weights) * (same + across),
        np.outer(weights * signs, weights * signs) * (same - across),
    )


def noise_by_ell(rule: Rule, variance: float, lmax: int) -> Float64[np.ndarray, " L"]:
    """What white noise of a given variance puts into each P_ℓ^±, in the mean: (2ℓ+1)² σ² Σ_k w_k²."""
    return (2.0 * np.arange(lmax + 1) + 1.0) ** 2 * variance * float(np.sum(rule.weights**2))


def rounding_by_ell(variance: float, lmax: int) -> Float64[np.ndarray, " L"]:
    """What rounding of the sum over pairs may put into each P_ℓ^±: (2ℓ+1)² ε times the variance that is resolved."""
    return (2.0 * np.arange(lmax + 1) + 1.0) ** 2 * np.finfo(np.float64).eps * max(variance, 0.0)


def leak_matrix(rule: Rule, lmax: int, ltail: int) -> Float64[np.ndarray, "L M"]:
    """M_ℓℓ', the part of a variance at ℓ' = 0 … ltail that turns up in P_ℓ of the same parity, for ℓ = 0 … lmax.

        M_ℓℓ' = (2ℓ+1)/(2ℓ'+1) Σ_kk' w_k w_k' χ_ℓ(R_kᵀ R_k') χ_ℓ'(R_kᵀ R_k')

    in the mean over two-sided turns of the rule. It is δ_ℓℓ' where the rule is exact to ℓ + ℓ'.
    """
    rotations, weights, _ = _by_parity(rule, np.ones((len(rule), len(rule))))
    cosines = pair_cosines(rotations, rotations)
    low = [weights * chi for chi in characters(cosines, lmax)]
    matrix = np.empty((lmax + 1, ltail + 1))
    for high, chi in enumerate(characters(cosines, ltail)):
        matrix[:, high] = [np.vdot(each, chi) * (2 * ell + 1) / (2 * high + 1) for ell, each in enumerate(low)]
    return matrix


def tail_factor(rule: Rule, lmax: int, ltail: int) -> float:
    """How much larger a variance at lmax < ℓ' ≤ ltail may be than what is left of it outside the resolved spectrum.

    Of a variance at ℓ' the part Σ_ℓ≤lmax M_ℓℓ' turns up in the resolved P_ℓ, or in the mean (ℓ = 0); the factor is
    1 / (1 − Σ M) for the ℓ' where that part is largest, and infinite where nothing needs to be left.
    """
    left = 1.0 - leak_matrix(rule, lmax, ltail)[:, lmax + 1 :].sum(axis=0)
    return 1.0 / float(left.min()) if left.min() > 0 else float("inf")


def averaging_coefficients(averaged: Rule, nodes: Rule, lmax: int) -> Float64[np.ndarray, " K"] | None:
    """a_k such that Σ_k a_k r_k is what the rule ``averaged`` leaves of the response, as reconstructed from the nodes.

    The kernel Σ_ℓ (2ℓ+1) χ_ℓ^±(q⁻¹ g_k) w_k reconstructs the response at q from its values at the nodes; its mean over
    the elements q of the rule, without the part (ℓ = 0, even) that is the mean itself, is a_k. None where the nodes
    lack the inversion that the rule has.
    """
    if averaged.inversion and not nodes.inversion:
        return None
    q_rotations, q_signs = proper(averaged.matrices)
    rotations, signs = proper(nodes.matrices)
    kernel = np.zeros((len(averaged), len(nodes)))
    for ell, chi in enumerate(characters(pair_cosines(q_rotations, rotations), lmax)):
        kernel += (2 * ell + 1) * chi
    if nodes.inversion:
        kernel *= 1.0 + np.outer(q_signs, signs)
    return nodes.weights * (averaged.weights @ kernel - 1.0)


@dataclass(frozen=True)
class Sphere:
    """A scalar on the sphere: values (latitudes, longitudes) in the unit of the response, angles in degrees."""

    axis: str
    latitude: Float64[np.ndarray, " I"]
    longitude: Float64[np.ndarray, " J"]
    values: Float64[np.ndarray, "I J"]
    share: float


def sphere(nodes: Rule, deviations: Float64[np.ndarray, " K"], lmax: int, points: int = 37) -> Sphere:
    """The response against the direction n in the structure's frame that a laboratory axis e points to, Rᵀ e = n.

        f(n) = Σ_k w_k r_k Σ_ℓ (2ℓ+1) P_ℓ(n · R_kᵀ e)          (sum over proper rotations, weights made to sum to 1)

    is the mean of the reconstructed response over all rotations that share n. Of x, y and z the axis is taken that
    shows most of the variance; ``share`` says how much.
    """
    _, signs = proper(nodes.matrices)
    here = signs > 0
    weights = nodes.weights[here] / nodes.weights[here].sum()
    values, matrices = deviations[here], nodes.matrices[here]
    latitude = np.linspace(-90.0, 90.0, points)
    longitude = np.linspace(-180.0, 180.0, 2 * points - 1)
    theta, phi = np.meshgrid(np.radians(latitude), np.radians(longitude), indexing="ij")
    directions = np.stack([np.cos(theta) * np.cos(phi), np.cos(theta) * np.sin(phi), np.sin(theta)], axis=-1)
    kernel_of = np.polynomial.legendre.Legendre(2.0 * np.arange(lmax + 1) + 1.0)
    maps = {axis: kernel_of(directions @ matrices[:, row].T) @ (weights * values) for row, axis in enumerate("xyz")}
    area = np.cos(theta[:, :-1])  # the last longitude repeats the first
    power = {axis: float(np.average(each[:, :-1] ** 2, weights=area)) for axis, each in maps.items()}
    axis = max(power, key=lambda name: power[name])
    whole = float(weights @ values**2)
    return Sphere(axis, latitude, longitude, maps[axis], power[axis] / whole if whole > 0 else 0.0)
