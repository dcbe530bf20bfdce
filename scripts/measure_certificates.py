"""Measure how often a certificate is false: python scripts/measure_certificates.py [--seeds 1000] [--lmax 2]

For each seed, a toy of known mean: an energy ε_1 P_ℓ(n·a_1) that the probe resolves and ε_2 P_ℓ'(n·a_2) above lmax, on
a molecule turned at random. In turn, ℓ' is where the reference of a certificate leaves most, where the probe takes most
of it for resolved, or random. The adversary knows the truth: for every rule that leaves more than is predicted, a
tolerance is drawn just below what it leaves, so that a certificate for this rule is false.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import molecule
from scipy.special import eval_legendre
from scipy.stats import beta

from goniometer.errors import InputError
from goniometer.planning.planner import plan
from goniometer.probing.measure import probe
from goniometer.probing.spectrum import leak_matrix
from goniometer.rotations import rule
from goniometer.rotations.quadrature import random_rotations
from goniometer.testing import MolecularToy, SumOf

#: How far above lmax the content lies that the probe does not resolve.
ABOVE = 8
#: Tolerances are at least this part of the residual that they deny.
CLOSE = 0.95
# What is above the tolerance by this much, in eV, is no rounding.
_ROUNDING = 1e-10


@dataclass(frozen=True)
class Count:
    """Plans that were asked for, certificates among them, and those whose rule leaves more than the tolerance."""

    plans: int = 0
    certified: int = 0
    false: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.plans + other.plans, self.certified + other.certified, self.false + other.false)

    def __str__(self) -> str:
        of_plans, of_certificates = (_share(self.false, whole) for whole in (self.plans, self.certified))
        return (
            f"{self.plans} plans, {self.certified} certified, {self.false} of them falsely: "
            f"{of_plans} of the plans, {of_certificates} of the certificates"
        )


def _share(part: int, whole: int) -> str:
    """A share, with its upper limit at a confidence of 95 % (Clopper and Pearson)."""
    limit = beta.ppf(0.95, part + 1, whole - part) if part < whole else 1.0
    return f"{100 * part / max(whole, 1):.2f} % (at most {100 * limit:.2f} %)"


@dataclass(frozen=True)
class Toy:
    """A molecule along a unit vector n, and an energy Σ_i ε_i P_ℓ_i(n·a_i) of which every ℓ_i is at least 1."""

    structure: Atoms
    parts: list[tuple[int, float, np.ndarray]]

    def potential(self) -> SumOf:
        """The toys of the package that have this energy, and forces with it."""
        return SumOf([MolecularToy(ell, (-1) ** ell, strength, axis.tolist()) for ell, strength, axis in self.parts])

    def left(self, name: str, inversion: bool) -> float:
        """What the rule leaves of the energy, in eV: its mean over O(3) is zero, by the formula."""
        averaged = rule(name, inversion)
        direction = self.structure.positions[1] - self.structure.positions[0]
        turned = averaged.matrices @ (direction / np.linalg.norm(direction))
        energies = sum(strength * eval_legendre(ell, turned @ axis) for ell, strength, axis in self.parts)
        return abs(float(averaged.weights @ energies))


def drawn(seed: int, lmax: int) -> Toy:
    """The adversary's choice."""
    rng = np.random.default_rng([seed, lmax])
    structure = molecule("CO")
    structure.positions = structure.positions @ random_rotations(1, rng)[0].T
    nodes = rule(f"degree:{2 * lmax}", inversion=True)
    bad = [
        nodes.residuals(lmax + ABOVE)[0],  # the reference leaves it
        leak_matrix(nodes, lmax, lmax + ABOVE).sum(axis=0),  # the probe takes it for resolved
        rng.uniform(size=lmax + ABOVE + 1),
    ][seed % 3]
    beyond = lmax + 1 + int(np.argmax(bad[lmax + 1 :]))
    parts = [(int(rng.integers(1, lmax + 1)), 0.01), (beyond, 0.01 * 10.0 ** rng.uniform(-2.0, 0.5))]
    axes = random_rotations(2, rng)[:, 0]
    return Toy(structure, [(ell, strength, axis) for (ell, strength), axis in zip(parts, axes, strict=True)])


def trial(seed: int, lmax: int) -> Count:
    """All plans for one toy."""
    rng = np.random.default_rng([seed, lmax, 1])
    toy = drawn(seed, lmax)
    potential = toy.potential()
    result = probe(potential, toy.structure, lmax=lmax, seed=seed, measured=())
    total = Count()
    for row in result.structures[0].rules:
        low, high = row.energy.most, toy.left(row.name, row.inversion)
        if not low + _ROUNDING < high:
            continue
        tolerance = float(rng.uniform(max(low, CLOSE * high), high))
        try:
            made = plan(result, energy=tolerance, potential=potential, seed=seed)
        except InputError:  # below the floor
            continue
        wrong = made.certified is True and toy.left(made.rule, made.inversion) > tolerance + _ROUNDING
        total += Count(1, int(made.certified is True), int(wrong))
    return total


def main() -> None:
    """Count over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--lmax", type=int, default=2)
    chosen = parser.parse_args()
    print(sum((trial(seed, chosen.lmax) for seed in range(chosen.seeds)), Count()))


if __name__ == "__main__":
    main()
