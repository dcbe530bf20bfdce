"""Symmetrized potentials: averages over rules, random rotations, tumbling frames, export."""

from goniometer.symmetrization.average import Averaged
from goniometer.symmetrization.crystal import CrystalAveraged, operations
from goniometer.symmetrization.random import RandomlyTurned, frozen
from goniometer.symmetrization.replicas import Replicas
from goniometer.symmetrization.responses import Response, response
from goniometer.symmetrization.tumbling import Frame, Tumbling

__all__ = [
    "Averaged",
    "CrystalAveraged",
    "Frame",
    "RandomlyTurned",
    "Replicas",
    "Response",
    "Tumbling",
    "frozen",
    "operations",
    "response",
]
