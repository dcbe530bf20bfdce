"""For those who write or test potentials: toys with a known broken symmetry."""

from goniometer.testing.toys import MolecularToy, NonConservative, Noisy, PairToy, PeriodicToy, SumOf

__all__ = ["MolecularToy", "NonConservative", "Noisy", "PairToy", "PeriodicToy", "SumOf"]
