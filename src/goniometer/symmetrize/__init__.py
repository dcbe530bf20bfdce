"""The response over a rule, and the potentials made of it; called, it is :func:`goniometer.symmetrized.symmetrize`."""

from goniometer._callable import answer_with
from goniometer.symmetrize.average import Averaged
from goniometer.symmetrize.crystal import CrystalAveraged, operations
from goniometer.symmetrize.random import RandomlyTurned, frozen
from goniometer.symmetrize.replicas import Replicas
from goniometer.symmetrize.response import Response, response
from goniometer.symmetrize.tumble import Frame, Tumbling

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

answer_with(__name__, "goniometer.symmetrized")
