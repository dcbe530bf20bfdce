"""Tests for potentials, and toy potentials of known anisotropy."""

from goniometer.testing.check import CheckReport, check_potential
from goniometer.testing.subject import CheckItem
from goniometer.testing.toys import MolecularToy, Noisy, NonConservative, PairToy, PeriodicToy, SumOf

__all__ = [
    "CheckItem",
    "CheckReport",
    "MolecularToy",
    "Noisy",
    "NonConservative",
    "PairToy",
    "PeriodicToy",
    "SumOf",
    "check_potential",
]
