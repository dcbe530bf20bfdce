"""Quadrature rules on SO(3) and O(3), and the characters that prove them."""

from goniometer.rotations.named import GRIDS, PAPER_GRIDS, catalogue, check_grids, grid_rule, rule
from goniometer.rotations.quadrature import Rule, in_words, joined, random_rotations

__all__ = [
    "GRIDS",
    "PAPER_GRIDS",
    "Rule",
    "catalogue",
    "check_grids",
    "grid_rule",
    "in_words",
    "joined",
    "random_rotations",
    "rule",
]
