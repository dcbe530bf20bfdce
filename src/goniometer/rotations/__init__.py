"""Quadrature rules on SO(3) and O(3), and the characters that prove them."""

from goniometer.rotations.rule import Rule, random_rotations

__all__ = ["Rule", "random_rotations"]
