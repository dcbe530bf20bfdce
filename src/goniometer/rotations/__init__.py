"""Quadrature rules on SO(3) and O(3), and the characters that prove them."""

from goniometer.rotations.named import PAPER_GRIDS, catalogue, rule
from goniometer.rotations.rule import Rule, in_words, random_rotations

__all__ = ["PAPER_GRIDS", "Rule", "catalogue", "in_words", "random_rotations", "rule"]
