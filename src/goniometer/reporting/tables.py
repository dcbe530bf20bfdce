"""The figures of a probe as tables of finished words: printed on the terminal here, set in HTML by the page."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.columns import Columns
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from goniometer.probing.result import Figure, Pooled, ProbeResult, Residual, RuleResidual, StructureResult
from goniometer.reporting.wording import remarks, shares, verdict
from goniometer.rotations.named import GRID_NAMES
from goniometer.units import (
    ENERGY,
    ENERGY_PER_ATOM,
    FORCE,
    SCALES,
    STRESS,
    TORQUE,
    Quantity,
    Scale,
    number,
    percent,
    plural,
    shorten,
)

AT_FLOOR = "at the floor"
POOLED = "all structures"
NONE = "–"
# A reconstructed residual that is smaller than this share of the error is rounding.
_ROUNDING = 1e-9
# On the terminal longer names are shortened, and so many spaces lie between two columns.
_NAME, _GAP = 26, 2


@dataclass(frozen=True)
class Table:
    """A table for people: every cell is text that is ready to be read, the first column names the row.

    ``columns`` are pairs of a heading and its unit (or an empty string); ``emphasis`` numbers the row to stress.
    """

    title: str
    columns: list[tuple[str, str]]
    rows: list[list[str]]
    note: str = ""
    emphasis: int | None = None


def error_tables(result: ProbeResult) -> list[Table]:
    """Energy, forces, stress where there is one, and torque: a row for each structure and one for all."""
    if result.pooled is None or not result.structures:
        return []
    stress = [] if result.pooled.stress is None else [_stresses(result)]
    return [_energies(result), _forces(result), *stress, _torques(result)]


def spectrum_tables(result: ProbeResult) -> list[Table]:
    """The pooled spectra of what depends on direction: √P_ℓ by parity, floor and share of the variance for each ℓ."""
    if result.pooled is None or not result.structures:
        return []
    found = [(quantity, getattr(result.pooled, quantity), scale) for quantity, scale in SCALES.items()]
    return [
        _spectrum(quantity, figure, scale)
        for quantity, figure, scale in found
        if figure is not None and figure.directional
    ]


def rule_tables(result: ProbeResult, all_rules: bool = False) -> list[Table]:
    """What each rule leaves of the forces and of the energy; of a quantity at its floor there is nothing to remove."""
    if result.pooled is None or not result.pooled.rules:
        return []
    above: dict[Quantity, bool] = {
        "forces": result.pooled.forces.directional,
        "energy": result.pooled.energy.directional,
    }
    quantities = [quantity for quantity, holds in above.items() if holds]
    return [_rules(result.pooled, quantity, all_rules) for quantity in quantities]


def floor_table(result: ProbeResult) -> Table:
    """What operations that must not matter change in one evaluation, for each structure."""
    rows = []
    for structure in result.structures:
        for quantity, scale in SCALES.items():
            figure = getattr(structure, quantity)
            if figure is not None:
                noise = figure.floors
                parts = [noise.repeat, noise.rounding, noise.value, noise.translation, noise.permutation, noise.cell]
                rows.append([structure.name, quantity, *map(scale.number, parts), scale.unit])
    columns = ["structure", "quantity", "repeated", "rounding", "floor", "translated", "permuted", "other cell", "unit"]
    title = "Changes under operations that must not matter (rms per component)"
    note = "Floor: the noise of one evaluation, from repetition and rounding. The others are symmetries, broken or not."
    return Table(title, [(name, "") for name in columns], rows, note)


def telling_rules(rules: list[RuleResidual], quantity: Quantity) -> list[RuleResidual]:
    """The paper's grids, what was measured, and rules that leave far less than any cheaper one; by evaluations."""
    chosen, best = [], float("inf")
    for rule in sorted(rules, key=lambda rule: (rule.n, getattr(rule, quantity).most)):
        residual: Residual = getattr(rule, quantity)
        known = residual.measured is not None or (rule.name, rule.inversion) in GRID_NAMES
        if known or residual.most < 0.7 * best:
            chosen.append(rule)
        best = min(best, residual.most)
    return chosen


def _figures(result: ProbeResult, quantity: str) -> Iterator[tuple[StructureResult | None, str, Figure]]:
    """Each structure's figure of a quantity, where it has one, with its name; then the pooled one of several."""
    for structure in result.structures:
        figure = getattr(structure, quantity)
        if figure is not None:
            yield structure, structure.name, figure
    if len(result.structures) > 1:
        yield None, POOLED, getattr(result.pooled, quantity)


def _errors(figure: Figure, scale: Scale, *others: float | None) -> list[str]:
    """The rms and other errors, then the floor; of what is at the floor, the floor alone."""
    floor = number(figure.floor * scale.factor, 2)
    if figure.at_floor:
        return [AT_FLOOR, *[NONE] * len(others), floor]
    return [scale.number(figure.rms, figure.error), *map(scale.number, others), floor]


def _last(rows: list[list[str]], result: ProbeResult) -> int | None:
    return len(rows) - 1 if len(result.structures) > 1 else None


def _energies(result: ProbeResult) -> Table:
    rows = []
    for structure, name, figure in _figures(result, "energy"):
        per_atom = NONE if figure.at_floor else ENERGY_PER_ATOM.number(figure.rms_per_atom, figure.error_per_atom)
        atoms = str(structure.n_atoms) if structure else ""
        rows.append([name, atoms, per_atom, *_errors(figure, ENERGY, figure.mae_as_given, figure.max)])
    columns = [("structure", ""), ("atoms", ""), ("rms", "meV/atom"), *((h, "meV") for h in _HEADINGS)]
    title = "Energy: how much it changes when the structure is rotated"
    return Table(title, columns, rows, _AS_GIVEN, _last(rows, result))


_HEADINGS = ("rms", "MAE as given", "largest", "floor")
_AS_GIVEN = "MAE as given: mean absolute error, in the orientation of the file."


def _forces(result: ProbeResult) -> Table:
    rows = []
    for _, name, figure in _figures(result, "forces"):
        resolved = NONE if figure.spectrum.resolved is None or figure.at_floor else percent(figure.spectrum.resolved)
        rows.append([name, *_errors(figure, FORCE, figure.mae_as_given, figure.max), resolved])
    columns = [("structure", ""), *((heading, FORCE.unit) for heading in _HEADINGS)]
    columns.append(("resolved", f"ℓ ≤ {result.lmax}"))
    note = f"{_AS_GIVEN} Resolved: share of the variance that the spectrum holds."
    return Table("Forces, per component", columns, rows, note, _last(rows, result))


def _stresses(result: ProbeResult) -> Table:
    rows = [
        [name, *_errors(figure, STRESS, figure.mae_as_given, figure.max)]
        for _, name, figure in _figures(result, "stress")
    ]
    columns = [("structure", ""), *((heading, STRESS.unit) for heading in _HEADINGS)]
    return Table("Stress, per component", columns, rows, _AS_GIVEN, _last(rows, result))


def _torques(result: ProbeResult) -> Table:
    named = [(s.name, s.torque, FORCE.number(s.net_force)) for s in result.structures]
    if len(result.structures) > 1 and result.pooled is not None:
        named.append((POOLED, result.pooled.torque, ""))
    rows = []
    for name, torque, net in named:
        errors = [AT_FLOOR, NONE, NONE]
        if not torque.at_floor:
            errors = [TORQUE.number(value) for value in (torque.norm, torque.rms, torque.expected)]
        rows.append([name, *errors, number(torque.floor * TORQUE.factor, 2), net])
    headings = ("length", "rms", "from spectrum", "floor")
    columns = [("structure", ""), *((heading, TORQUE.unit) for heading in headings), ("net force", FORCE.unit)]
    note = "Length and net force: in the orientation of the file."
    if any(row[2] == NONE != row[3] for row in rows):
        note += f" {NONE} in 'rms': only finite rotations could give it."
    return Table("Rotational gradient (torque) and net force", columns, rows, note, _last(rows, result))


def _spectrum(quantity: str, figure: Figure, scale: Scale) -> Table:
    spectrum = figure.spectrum
    split = spectrum.minus is not None
    rows = []
    for ell, share in enumerate(shares(spectrum, figure.rms**2)):
        floor = spectrum.floor[ell]
        powers = [spectrum.plus[ell]] if spectrum.minus is None else [spectrum.plus[ell], spectrum.minus[ell]]
        cells = [_root(power, floor, scale) for power in powers]
        if ell == 0:
            cells[0] = "mean"
        loud = any(power > floor for power in powers[1 if ell == 0 else 0 :])
        rows.append(
            [str(ell), *cells, number(max(floor, 0.0) ** 0.5 * scale.factor, 2), percent(sum(share)) if loud else NONE]
        )
    left = NONE if spectrum.resolved is None else f"≤ {percent(max(0.0, 1.0 - spectrum.resolved))}"
    rows.append([f"> {len(spectrum.plus) - 1}", *[""] * (split), f"≤ {scale.number(figure.unresolved**0.5)}", "", left])
    parities = ["even √P", "odd √P"] if split else ["√P"]
    columns = [("ℓ", ""), *((name, scale.unit) for name in [*parities, "floor"]), ("share", "")]
    note = "Share: of the whole variance; variance beyond the last ℓ may pass for resolved, so that shares may be less."
    return Table(f"Spectrum: {quantity}", columns, rows, note if (spectrum.resolved or 1.0) < 0.99 else "")


def _root(power: float, floor: float, scale: Scale) -> str:
    """√P, or what it is at most where it cannot be told from its floor."""
    if power <= floor:
        return f"≤ {number(max(floor, 0.0) ** 0.5 * scale.factor, 2)}"
    return scale.number(power**0.5)


def _rules(pooled: Pooled, quantity: Quantity, all_rules: bool) -> Table:
    rules, scale, figure = pooled.rules, SCALES[quantity], getattr(pooled, quantity)
    chosen = sorted(rules, key=lambda rule: rule.n) if all_rules else telling_rules(rules, quantity)
    rows = []
    for rule in chosen:
        grid = GRID_NAMES.get((rule.name, rule.inversion), "")
        inversion = "yes" if rule.inversion else ""
        rows.append([rule.name, inversion, str(rule.n), *_residual(getattr(rule, quantity), scale, figure.rms), grid])
    columns = [("rule", ""), ("inversion", ""), ("n", "")]
    columns += [(part, scale.unit) for part in ("over turns", "as it stands", "measured", "at most")]
    noun = "force" if quantity == "forces" else quantity
    note = (
        "n: evaluations. ≤: with the most that the unresolved variance could add. At most: with all that was measured."
    )
    note += " Grid: its name in the paper."
    if len(chosen) < len(rules):
        note += f" {plural(len(rules) - len(chosen), 'further rule')} in the page and the JSON file."
    title = f"What is left of the {noun} error in the mean over a rule (rms)"
    return Table(title, [*columns, ("grid", "")], rows, note)


def _residual(residual: Residual, scale: Scale, rms: float) -> list[str]:
    over, stands = scale.number(residual.over_turns), residual.as_it_stands
    if residual.tail > 0.3 * residual.over_turns:
        over = f"≤ {scale.number(math.hypot(residual.over_turns, residual.tail))}"
    if stands is not None and stands < _ROUNDING * rms:
        stands = 0.0  # the rule is exact for all that is resolved
    return [over, scale.number(stands), scale.number(residual.measured), scale.number(residual.most)]


def print_probe(result: ProbeResult, console: Console) -> None:
    """Print the verdict, what must be said with it, and the tables."""
    console.print()
    console.print(Text(verdict(result), style="bold"))
    for remark in remarks(result):
        console.print(Text(remark, style="yellow"))
    for failure in result.failures:
        # Why is said once, on the error stream.
        console.print(Text.assemble(("failed  ", "bold red"), failure.name))
    console.print()
    for table in error_tables(result):
        print_table(table, console)
    spectra = [part for table in spectrum_tables(result) for part in _fitted(table, console.width)]
    console.print(Columns([terminal_table(part) for part in spectra], padding=(0, 3, 1, 0)))
    for table in rule_tables(result):
        print_table(table, console)


def print_table(table: Table, console: Console, wrapped: int | None = None) -> None:
    """Print a table so that no cell is cut: one that is too wide in several parts, one below the other.

    The column ``wrapped`` may take several lines.
    """
    parts = [table] if wrapped is not None else _fitted(table, console.width)
    for part in parts:
        console.print(terminal_table(part, wrapped))
        console.print()


def _fitted(table: Table, width: int) -> list[Table]:
    """The table in parts of whole columns that are at most so wide, each with the names of the rows."""
    widths = [
        max(map(cell_len, [*heading, *(_printed(row, index) for row in table.rows)]))
        for index, heading in enumerate(table.columns)
    ]
    parts: list[list[int]] = [[]]
    for index in range(1, len(widths)):
        together = [0, *parts[-1], index]
        if parts[-1] and sum(widths[each] + _GAP for each in together) - _GAP > width:
            parts.append([])
        parts[-1].append(index)
    return [
        Table(
            table.title if number == 0 else f"{table.title}, continued",
            [table.columns[index] for index in [0, *part]],
            [[row[index] for index in [0, *part]] for row in table.rows],
            table.note if number == len(parts) - 1 else "",
            table.emphasis,
        )
        for number, part in enumerate(parts)
    ]


def _printed(row: list[str], index: int) -> str:
    return shorten(row[0], _NAME) if index == 0 else row[index]


def terminal_table(table: Table, wrapped: int | None = None) -> RichTable:
    """The table as rich prints it; the column ``wrapped`` may take several lines."""
    made = RichTable(
        title=Text(table.title),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, _GAP - 1, 0, 0),  # beside the column that the box draws
    )
    made.caption = Text(table.note) if table.note else None
    made.caption_justify = "left"
    for index, (heading, unit) in enumerate(table.columns):
        made.add_column(
            Text(f"{heading}\n{unit}" if unit else heading),
            justify="left" if index in (0, wrapped) else "right",
            no_wrap=index != wrapped,
        )
    for place, row in enumerate(table.rows):
        made.add_row(
            Text(shorten(row[0], _NAME)), *map(Text, row[1:]), style="bold" if place == table.emphasis else None
        )
    return made
