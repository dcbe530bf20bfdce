"""The families of rules on SO(3): how many rotations each member has, and its matrices and weights.

Sizes are cheap to ask for; nothing is computed before a size was found to be acceptable. Modules of scipy are imported
where they are used, for they take longer to import than the list of rules takes to print.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

Nodes = tuple[Float64[np.ndarray, "K 3 3"], Float64[np.ndarray, " K"]]


class Group(NamedTuple):
    """A rotation group in Schoenflies notation, its order, and the degree to which its elements are a rule."""

    symbol: str
    order: int
    degree: int


#: The lowest ℓ with a vector that the group leaves invariant is degree + 1.
GROUPS = {
    "identity": Group("C1", 1, 0),
    "klein": Group("D2", 4, 1),
    "tetrahedral": Group("T", 12, 2),
    "octahedral": Group("O", 24, 3),
    "icosahedral": Group("I", 60, 5),
}

#: Points by degree of the Lebedev rules on the sphere with positive weights (13, 25 and 27 have negative ones).
LEBEDEV_POINTS = (
    {3: 6, 5: 14, 7: 26, 9: 38, 11: 50, 15: 86, 17: 110, 19: 146, 21: 170, 23: 194, 29: 302, 31: 350, 35: 434}
    | {41: 590, 47: 770, 53: 974, 59: 1202, 65: 1454, 71: 1730, 77: 2030, 83: 2354, 89: 2702, 95: 3074}
    | {101: 3470, 107: 3890, 113: 4334, 119: 4802, 125: 5294, 131: 5810}
)  # fmt: skip


def group_nodes(name: str) -> Nodes:
    """The elements of a rotation group, axes along z and x as in scipy, with equal weights."""
    from scipy.spatial.transform import Rotation

    matrices = Rotation.create_group(GROUPS[name].symbol).as_matrix()
    return matrices, np.full(len(matrices), 1.0 / len(matrices))


def legendre_size(nodes: int) -> int:
    """L (2L−1)²; the rule of one node is the identity."""
    return nodes * (2 * nodes - 1) ** 2


def legendre_degree(nodes: int) -> int:
    """2L−2, for the 2L−1 equispaced angles: they take e^{i(2L−1)α} for 1. The nodes in cos β would reach 2L−1."""
    return 2 * nodes - 2


def legendre_nodes(nodes: int) -> Nodes:
    """R_z(γ) R_x(β) R_z(α): L Gauss-Legendre nodes in cos β, 2L−1 equispaced angles α and γ from zero.

    The grids of arXiv 2406.17747, as i-PI's ``get_rotation_quadrature_legendre`` makes them.
    """
    if nodes == 1:
        return np.eye(3)[None], np.ones(1)
    cosines, weights = np.polynomial.legendre.leggauss(nodes)
    count = 2 * nodes - 1
    angles = 2.0 * np.pi * np.arange(count) / count
    alpha, gamma, beta = np.meshgrid(angles, angles, np.arccos(cosines), indexing="ij")
    euler = np.stack([gamma, beta, alpha], axis=-1).reshape(-1, 3)
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("ZXZ", euler).as_matrix(), np.tile(weights / weights.sum(), count**2) / count**2


def lebedev_size(degree: int) -> int:
    """Points of the smallest Lebedev rule that is exact to ``degree``, times degree + 1 angles."""
    return LEBEDEV_POINTS[_sphere_degree(degree)] * (degree + 1)


def lebedev_nodes(degree: int) -> Nodes:
    """R_z(φ) R_y(θ) R_z(γ): (θ, φ) from a Lebedev rule of at least that degree, degree + 1 equispaced angles γ."""
    from scipy.integrate import lebedev_rule  # it takes long to import

    points, weights = lebedev_rule(_sphere_degree(degree))
    theta, phi = np.arctan2(np.hypot(points[0], points[1]), points[2]), np.arctan2(points[1], points[0])
    count = degree + 1
    gamma = 2.0 * np.pi * np.arange(count) / count
    euler = np.stack([np.repeat(phi, count), np.repeat(theta, count), np.tile(gamma, len(weights))], axis=-1)
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("ZYZ", euler).as_matrix(), np.repeat(weights / weights.sum(), count) / count


def _sphere_degree(degree: int) -> int:
    return next(d for d in LEBEDEV_POINTS if d >= degree)


class DoubleCosets(NamedTuple):
    """The rule H h_j G with weights w_j / (|H| |G|): representatives h_j as unit quaternions (J, 4), scalar last."""

    left: str
    right: str
    quaternions: Float64[np.ndarray, "J 4"]
    weights: Float64[np.ndarray, " J"]


@cache
def gauss_table() -> dict[int, DoubleCosets]:
    """The table that ``scripts/compute_gauss_rules.py`` has computed, by degree."""
    with resources.files(__package__).joinpath("gauss_rules.npz").open("rb") as file, np.load(file) as table:
        degrees = [int(degree) for degree in table["degrees"]]
        return {degree: _double_cosets(table, degree) for degree in degrees}


def _double_cosets(table: Mapping[str, np.ndarray], degree: int) -> DoubleCosets:
    left, right = table[f"groups_{degree}"]
    return DoubleCosets(str(left), str(right), table[f"quaternions_{degree}"], table[f"weights_{degree}"])


def gauss_size(degree: int) -> int:
    """The number of rotations of the rule in the table."""
    left, right, _, weights = gauss_table()[degree]
    from scipy.spatial.transform import Rotation

    return len(Rotation.create_group(left)) * len(weights) * len(Rotation.create_group(right))


def gauss_nodes(degree: int) -> Nodes:
    """The rule of the table; h_j varies slowest, G fastest."""
    left, right, quaternions, weights = gauss_table()[degree]
    from scipy.spatial.transform import Rotation

    before, after = (Rotation.create_group(symbol).as_matrix() for symbol in (left, right))
    representatives = Rotation.from_quat(quaternions).as_matrix()
    matrices = np.einsum("hab,jbc,gcd->jhgad", before, representatives, after, optimize=True).reshape(-1, 3, 3)
    copies = len(before) * len(after)
    return matrices, np.repeat(weights / (weights.sum() * copies), copies)
