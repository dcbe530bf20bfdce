"""Plans and rules on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from goniometer.reporting.tables import Table, print_table
from goniometer.reporting.wording import rule_label
from goniometer.units import SCALES, plural

if TYPE_CHECKING:
    from goniometer.planning.planner import RulePlan
    from goniometer.rotations.summary import RuleSummary

# A residual that is smaller is rounding: the rule removes this angular momentum.
_REMOVED = 1e-12


def print_plan(plan: RulePlan, console: Console) -> None:
    """Print the planned rule, what it costs, and whether and how it was certified."""
    state = {True: "certified", False: "NOT certified", None: "predicted"}[plan.certified]
    label = rule_label(plan.rule, plan.inversion)
    wanted = " and ".join(plan.tolerances)
    console.print()
    console.print(Text(f"{label} ({plural(plan.n, 'evaluation')}) for {wanted}: {state}, {plan.reason}.", style="bold"))
    for line in plan.failed:
        console.print(Text(f"before it, {line}", style="yellow"))
    rows = []
    for each in plan.measurements:
        scale = SCALES[each.quantity]
        numbers = (each.predicted, each.measured, each.uncertainty, each.limit)
        rows.append([each.structure, each.quantity, scale.unit, *map(scale.number, numbers)])
    if not rows:
        for structure, expected in plan.predicted.items():
            for quantity, value in expected.items():
                scale, limit = SCALES[quantity], plan.limits[structure][quantity]
                rows.append([structure, quantity, scale.unit, scale.number(value), "–", "–", scale.number(limit)])
    headings = ("structure", "", "unit", "predicted", "measured", "uncertainty", "tolerance")
    note = "rms per component. Predicted: the most that the rule is expected to leave. Uncertainty: of the reference."
    print_table(Table("What the rule leaves", [(each, "") for each in headings], rows, note), console)
    if plan.certified is False:
        return
    inversion, flag = ("True", "--inversion") if plan.inversion else ("False", "--no-inversion")
    console.print(Text(f'to use it: goniometer.symmetrize(model, "{plan.rule}", inversion={inversion})'))
    console.print(Text(f"           goniometer export MODEL --rule {plan.rule} {flag} -o averaged.pt"))


def print_rules(rules: Sequence[RuleSummary], console: Console) -> None:
    """Print rules: elements, degree, and the residuals ρ_ℓ that they leave."""
    rows = []
    for each in rules:
        lmax = len(each.residuals) - 1
        left = [f"{ell}: {value:.2g}" for ell, value in enumerate(each.residuals) if ell > 0 and value > _REMOVED]
        few = left if len(rules) == 1 else left[:4]
        shown = ", ".join(few) + (", …" if len(left) > len(few) else "") or f"nothing to ℓ = {lmax}"
        rows.append([rule_label(each.name, each.inversion), str(each.n), str(each.degree), shown])
    columns = [(each, "") for each in ("rule", "n", "degree", "what it leaves, ℓ: ρ_ℓ")]
    note = "ρ_ℓ is the share of the variance at ℓ that stays in the mean over the rule, turned at random."
    print_table(Table("Rules of rotations", columns, rows, note), console, wrapped=3)
