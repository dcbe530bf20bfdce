"""One self-contained HTML page of a probe: nothing is loaded from anywhere, light and dark, for screen and paper."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from goniometer.files.records import check_writable, replace_text
from goniometer.probing.result import Figure, Pooled, ProbeResult, StructureResult
from goniometer.reporting.panel import Panel, panel
from goniometer.reporting.tables import error_tables, floor_table, rule_tables, spectrum_tables
from goniometer.reporting.templates import rendered
from goniometer.reporting.wording import dominant, remarks, rule_label, sentences
from goniometer.units import (
    ENERGY,
    ENERGY_PER_ATOM,
    FORCE,
    QUANTITIES,
    STRESS,
    TORQUE,
    Quantity,
    Scale,
    formula,
    number,
    percent,
    plural,
)

#: Pictures, maps and spectra are drawn for at most so many structures, those of the largest force errors.
MAX_DRAWN = 12


@dataclass(frozen=True)
class Key:
    """One of the numbers at the top: what it is, the number, its unit, what is to be known with it."""

    name: str
    value: str
    unit: str
    note: str


@dataclass(frozen=True)
class StructureSection:
    """A structure with its own panels."""

    name: str
    summary: str
    panels: list[Panel] = field(default_factory=list)


def write_page(result: ProbeResult, path: Path) -> None:
    """Write :func:`render_page` to a file; InputError if it cannot be written."""
    check_writable(path)
    page = render_page(result)
    replace_text(path, page)


def render_page(result: ProbeResult) -> str:
    """The page as text. The same result gives the same page."""
    pooled = result.pooled if result.structures else None
    first, *others = sentences(result)
    return rendered(
        "page.html.j2",
        result=result,
        title=f"{result.model.name}: rotational symmetry",
        verdict=first,
        details=others,
        remarks=remarks(result),
        provenance=_provenance(result),
        found=None if pooled is None else _findings(result, pooled),
    )


def _findings(result: ProbeResult, pooled: Pooled) -> dict[str, Any]:
    """What the page shows of structures that were probed."""
    return {
        "cards": _keys(result, pooled),
        "errors": _error_panels(result, pooled),
        "words": _spectrum_words(pooled),
        "spectra": _spectrum_panels(result, pooled),
        "residuals": _residual_panels(result, pooled),
        "chapters": _chapters(result),
        "tables": error_tables(result),
        "spectrum_tables": spectrum_tables(result),
        "rule_tables": rule_tables(result, all_rules=True),
        "floors": floor_table(result),
    }


# --- the numbers at the top -----------------------------------------------------------------------------------------


def _keys(result: ProbeResult, pooled: Pooled) -> list[Key]:
    keys = [_key("Forces", pooled.forces, FORCE, "rms per component"), _energy_key(pooled.energy)]
    if pooled.stress is not None:
        keys.append(_key("Stress", pooled.stress, STRESS, "rms per component"))
    torque, name = pooled.torque, "Rotational gradient"
    if torque.at_floor:
        keys.append(Key(name, "at the floor", "", f"of {TORQUE.noise(torque.floor)}"))
    else:
        keys.append(
            Key(name, TORQUE.number(torque.norm), TORQUE.unit, f"length as given; floor {TORQUE.noise(torque.floor)}")
        )
    if pooled.forces.spectrum.resolved is not None and not pooled.forces.at_floor:
        share = percent(pooled.forces.spectrum.resolved)
        keys.append(Key("Resolved", share, "", f"of the force variance, at ℓ ≤ {result.lmax}"))
    effort = sum(structure.evaluations for structure in result.structures)
    note = f"{plural(effort, 'evaluation')} of {plural(len(result.structures), 'structure')}"
    return [*keys, Key("Took", number(result.seconds), "s", note)]


def _energy_key(energy: Figure) -> Key:
    if energy.at_floor or energy.rms_per_atom is None or energy.floor_per_atom is None:
        return _key("Energy", energy, ENERGY, "rms per structure")
    scale = ENERGY_PER_ATOM
    value = scale.number(energy.rms_per_atom, energy.error_per_atom)
    return Key("Energy", value, scale.unit, f"rms; floor {scale.noise(energy.floor_per_atom)}")


def _key(name: str, figure: Figure, scale: Scale, note: str) -> Key:
    if figure.at_floor:
        return Key(name, "at the floor", "", f"of {scale.noise(figure.floor)}, {note}")
    return Key(name, scale.number(figure.rms, figure.error), scale.unit, f"{note}; floor {scale.noise(figure.floor)}")


# --- panels ---------------------------------------------------------------------------------------------------------


def _quantities(pooled: Pooled) -> list[Quantity]:
    return [quantity for quantity in QUANTITIES if getattr(pooled, quantity) is not None]


def _error_panels(result: ProbeResult, pooled: Pooled) -> list[Panel]:
    from goniometer.plotting.probe import errors_figure, torque_figure

    titles = {"energy": "Energy, per atom", "forces": "Forces, per component", "stress": "Stress, per component"}
    floor = "Stroke: largest deviation seen. Hatched: what noise alone would give; a dot inside it says nothing."
    caption = f"Dot: rms over all orientations. Diamond: mean absolute error (MAE) of the structure as given. {floor}"
    panels = [
        panel(f"errors-{quantity}", titles[quantity], errors_figure(result, quantity), caption)
        for quantity in _quantities(pooled)
    ]
    torque = (
        "dE/dω, zero if symmetric. Diamond: length, as given. Dot: rms over orientations, where the model gives it. "
        "Square: what the energy spectrum implies, √Σ ℓ(ℓ+1) P; it meets the dot where the spectrum holds everything."
    )
    return [*panels, panel("torque", "Rotational gradient", torque_figure(result), torque)]


def _spectrum_caption(result: ProbeResult) -> str:
    split = "plain even, striped odd under inversion" if result.rule.inversion else "both parities together"
    return f"Bars: √P at each ℓ, {split}. Hatched: their floor. Dashed: at most what lies beyond ℓ = {result.lmax}."


def _spectrum_panels(result: ProbeResult, pooled: Pooled) -> list[Panel]:
    from goniometer.plotting.probe import spectrum_figure

    titles = {"energy": "Energy, per structure", "forces": "Forces, per component", "stress": "Stress, per component"}
    return [
        panel(
            f"spectrum-{quantity}",
            titles[quantity],
            spectrum_figure(result, quantity),
            _spectrum_caption(result),
        )
        for quantity in _quantities(pooled)
    ]


def _spectrum_words(pooled: Pooled) -> list[str]:
    nouns = {"energy": "energy", "forces": "force", "stress": "stress"}
    figures = [(nouns[quantity], getattr(pooled, quantity)) for quantity in _quantities(pooled)]
    return [dominant(noun, figure) for noun, figure in figures if figure.directional]


def _residual_panels(result: ProbeResult, pooled: Pooled) -> list[Panel]:
    """One for each quantity that depends on direction; an odd one is the first, and wide."""
    from goniometer.plotting.probe import residual_figure, to_svg

    caption = (
        "Marks show the most that is predicted, or was measured, to remain after averaging over a rule. The broad line "
        "joins the rules than which none is cheaper and leaves as little; where an arrow hangs from it, the variance "
        "beyond the spectrum makes most of the mark, and the rule may leave far less. Filled marks: with inversion. "
        "Rings: the grids none, i, 2, 2i, 3 and 3i of the paper. Crosses: measured, the rule as it stands. "
        "Hatched: the floor of the probe."
    )
    drawn = [
        quantity
        for quantity in ("forces", "energy", "stress")
        if quantity in _quantities(pooled)
        and getattr(pooled, quantity).directional
        and any(getattr(rule, quantity) is not None for rule in pooled.rules)
    ]
    panels = []
    for place, quantity in enumerate(drawn):
        words = caption if place == 0 else f"Read as the {drawn[0]}."
        name, title = f"residual-{quantity}", quantity.capitalize()
        made = panel(name, title, residual_figure(result, quantity), words)
        if place == 0 and len(drawn) % 2 == 1:
            wide = to_svg(residual_figure(result, quantity, wide=True), f"{name}-wide", f"{title}. {words}")
            made = replace(made, svg=wide, narrow=made.svg)
        panels.append(made)
    return panels


def _chapters(result: ProbeResult) -> list[StructureSection]:
    loudest = sorted(result.structures, key=lambda structure: -structure.forces.rms)[:MAX_DRAWN]
    return [_chapter(result, s, f"s{i}") for i, s in enumerate(result.structures) if s in loudest]


def _chapter(result: ProbeResult, structure: StructureResult, prefix: str) -> StructureSection:
    from goniometer.plotting.probe import spectrum_figure, sphere_figure, structure_figure

    picture = (
        "Each atom is coloured by the rms error of its force, per component, over all orientations. The arrows are the "
        "axes of the map."
    )
    sphere = structure.sphere
    globe = (
        f"How the energy changes with the direction that the laboratory's {sphere.axis} axis has in the structure's "
        f"frame, averaged over turns about it. This shows {percent(sphere.share)} of the resolved variance."
    )
    panels = [
        panel(f"{prefix}-atoms", "Where the force error sits", structure_figure(structure), picture),
        panel(f"{prefix}-sphere", "Energy against direction", sphere_figure(structure), globe),
    ]
    for quantity, title in (("forces", "Spectrum of the forces"), ("energy", "Spectrum of the energy")):
        drawn = spectrum_figure(structure, quantity, legend=False)
        panels.append(
            panel(f"{prefix}-spectrum-{quantity}", title, drawn, "Read as the spectra of all structures above.")
        )
    summary = (
        f"{formula(structure.formula)}, {plural(structure.n_atoms, 'atom')}, {_periodicity(structure)}. "
        f"Forces {_size(structure.forces, FORCE)}, energy {_size(structure.energy, ENERGY)}; "
        f"{plural(structure.evaluations, 'evaluation')} in {number(structure.seconds)} s."
    )
    return StructureSection(structure.name, summary, panels)


def _size(figure: Figure, scale: Scale) -> str:
    return f"at the floor of {scale.noise(figure.floor)}" if figure.at_floor else f"{scale(figure.rms)} rms"


def _periodicity(structure: StructureResult) -> str:
    periodic = [axis for axis, holds in zip("abc", structure.pbc, strict=True) if holds]
    return {0: "not periodic", 3: "periodic"}.get(len(periodic), f"periodic along {' and '.join(periodic)}")


def _provenance(result: ProbeResult) -> list[tuple[str, str]]:
    rule, model = result.rule, result.model
    inversion = "with inversion" if rule.inversion else "without inversion"
    turn = "not turned" if rule.seed is None else f"turned at random with seed {rule.seed}"
    memory = result.peak_memory_bytes
    rows = [
        ("model", f"{model.name}, {model.dtype}, virial: {model.virial}"),
        (
            "rule",
            f"{rule_label(rule.name, False)}, {plural(rule.n, 'element')}, degree {rule.degree}, {inversion}, {turn}",
        ),
        ("resolved to", f"ℓ = {result.lmax}"),
        ("time", f"{number(result.seconds)} s"),
        ("peak memory", "not known" if memory is None else f"{number(memory / 2**30)} GiB"),
        ("versions", ", ".join(f"{name} {version}" for name, version in result.versions.items()) or "not recorded"),
        ("made", result.created or "not recorded"),
        ("document", result.schema),
    ]
    return rows
