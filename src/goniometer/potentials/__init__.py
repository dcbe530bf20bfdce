"""Potentials: metatomic models natively, any ASE calculator, and the packaged models by name."""

from goniometer.potentials.base import Potential, Prediction, VirialKind

__all__ = ["Potential", "Prediction", "VirialKind"]
