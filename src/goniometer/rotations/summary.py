"""What each rule of the catalogue removes, from a table that comes with the package: listed without computing rules."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources

from goniometer.rotations.named import catalogue
from goniometer.rotations.quadrature import Rule

#: The table holds rules of at most so many elements, with their residuals to this angular momentum.
LARGEST, LMAX = 1000, 14


@dataclass(frozen=True)
class RuleSummary:
    """A rule without its elements; ``residuals`` holds the even ρ_ℓ for ℓ = 0 … lmax."""

    name: str
    inversion: bool
    n: int
    degree: int
    residuals: tuple[float, ...]


def summarized(rule: Rule, lmax: int) -> RuleSummary:
    """The summary of a rule."""
    even, _ = rule.residuals(lmax)
    return RuleSummary(rule.name, rule.inversion, len(rule), rule.degree, tuple(even.tolist()))


def summaries(max_elements: int, inversion: bool, lmax: int) -> list[RuleSummary]:
    """Summaries of :func:`goniometer.rotations.named.catalogue`, from the table where it holds them.

    Inversion doubles the number of elements, and changes neither the degree nor the even residuals.
    """
    if max_elements > LARGEST or lmax > LMAX:
        return [summarized(each, lmax) for each in catalogue(max_elements, inversion)]
    text = resources.files("goniometer.rotations").joinpath("catalogue.json").read_text(encoding="utf-8")
    elements = 1 + inversion
    return [
        RuleSummary(row["name"], inversion, elements * row["n"], row["degree"], tuple(row["residuals"][: lmax + 1]))
        for row in json.loads(text)
        if elements * row["n"] <= max_elements
    ]


def table() -> str:
    """The text of the table; ``python scripts/make_rule_table.py`` writes it."""
    rows = [summarized(each, LMAX) for each in catalogue(LARGEST, inversion=False)]
    lines = [
        json.dumps(
            {
                "name": each.name,
                "n": each.n,
                "degree": each.degree,
                "residuals": [float(f"{value:.6g}") if value > 1e-12 else 0.0 for value in each.residuals],
            }
        )
        for each in rows
    ]
    return "[\n" + ",\n".join(lines) + "\n]\n"
