"""Potentials: metatomic models, any ASE calculator, and the packaged models by name."""

from goniometer.potentials.ase import AsePotential
from goniometer.potentials.base import Potential, Prediction, Spread, VirialKind
from goniometer.potentials.calculator import PotentialCalculator
from goniometer.potentials.loading import load, packaged_models, parse_options

__all__ = [
    "AsePotential",
    "Potential",
    "PotentialCalculator",
    "Prediction",
    "Spread",
    "VirialKind",
    "load",
    "packaged_models",
    "parse_options",
]
