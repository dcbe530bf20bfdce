"""The names of rules, and the verdict in sentences."""

from __future__ import annotations

from goniometer.probing.result import Figure, Pooled, ProbeResult, RuleResidual, Spectrum, StructureResult
from goniometer.reporting import contributions
from goniometer.units import (
    ENERGY,
    ENERGY_PER_ATOM,
    FORCE,
    SCALES,
    STRESS,
    Quantity,
    listing,
    percent,
    plural,
)

# Angular momenta are named until they hold this share of the variance.
_DOMINANT_SHARE = 0.8
_WORTH_NAMING = 0.02
# One parity is named alone when it holds this share of what they hold.
_ONE_PARITY = 0.85


def rule_label(name: str, inversion: bool) -> str:
    """The name of a rule with what is said of its inversion."""
    return f"{name} + inversion" if inversion else name


def shares(spectrum: Spectrum, variance: float) -> list[tuple[float, float]]:
    """For each ℓ, the shares of the variance that are even and odd under inversion; P_0^plus is not variance.

    Without inversion in the rule the first holds both.
    """
    minus = spectrum.minus or [0.0] * len(spectrum.plus)
    plus = [0.0, *spectrum.plus[1:]]
    if variance <= 0.0:
        return [(0.0, 0.0)] * len(plus)
    return [(max(p, 0.0) / variance, max(m, 0.0) / variance) for p, m in zip(plus, minus, strict=True)]


def dominant(noun: str, figure: Figure) -> str:
    """Where the variance sits: ``91 % of the force variance sits at ℓ = 1 and 2, mostly odd under inversion.``

    Shares are of the whole variance. Where variance beyond the resolved ℓ may pass for resolved, the share is a range,
    and what may be unresolved is named.
    """
    parts = shares(figure.spectrum, figure.rms**2)
    chosen: list[int] = []
    held = 0.0
    for ell in sorted(range(len(parts)), key=lambda ell: -sum(parts[ell])):
        if held >= _DOMINANT_SHARE or sum(parts[ell]) < _WORTH_NAMING:
            break
        chosen.append(ell)
        held += sum(parts[ell])
    whole, last = sum(map(sum, parts)), len(parts) - 1
    resolved = whole if figure.spectrum.resolved is None else min(figure.spectrum.resolved, whole)
    least = max(held - (whole - resolved), 0.0)
    if least < 0.5:
        beyond = f"at most {percent(min(resolved, 1.0))} of it is sure to sit at ℓ ≤ {last}"
        if held < 0.5:
            return f"Most of the {noun} variance lies beyond ℓ = {last}, where this probe does not resolve it."
        return f"The {noun} variance is not resolved by this probe: {beyond}; probe with a higher lmax."
    most = "Nearly all" if least > 0.99 else percent(min(held, 1.0))
    if held - least > 0.01:
        most = f"At least {percent(least)}" if held > 0.99 else f"Between {percent(least)} and {percent(held)}"
    where = f"{most} of the {noun} variance sits at ℓ = {listing([str(ell) for ell in sorted(chosen)])}"
    if figure.spectrum.minus is not None:
        where += f", {_parity(sum(parts[ell][1] for ell in chosen) / held)}"
    if 1.0 - resolved > 0.01:
        where += (
            f"; up to {percent(1.0 - resolved)} may lie beyond ℓ = {last} in the mean over orientations of the rule"
        )
    return f"{where}."


def _parity(odd: float) -> str:
    if odd >= _ONE_PARITY:
        return "mostly odd under inversion"
    return "mostly even under inversion" if odd <= 1.0 - _ONE_PARITY else "both even and odd under inversion"


def cheapest(rules: list[RuleResidual], quantity: Quantity, target: float) -> RuleResidual | None:
    """The rule of fewest evaluations that is predicted to leave at most ``target``, the unresolved tail included."""
    fit = [rule for rule in rules if getattr(rule, quantity).most <= target]
    return min(fit, key=lambda rule: rule.n, default=None)


def verdict(result: ProbeResult) -> str:
    """What the probe found in a few plain sentences, the first thing in every report."""
    return " ".join(sentences(result))


def sentences(result: ProbeResult) -> list[str]:
    """The verdict sentence by sentence: whether and by how much, where it sits, what would mend it."""
    pooled, model = result.pooled, result.model.name
    if pooled is None or not result.structures:
        return [_nothing(result)]
    obstacles = contributions.obstacles(result)
    if not (pooled.forces.directional or pooled.energy.directional):
        loud = [each for each in result.structures if _far_above(each.energy) or _far_above(each.forces)]
        if loud:
            return [_on_some(result, loud), *obstacles]
        return obstacles or _at_floor(result, pooled)
    quantity: Quantity = "forces" if pooled.forces.directional else "energy"
    noun = "force" if pooled.forces.directional else "energy"
    figure: Figure = getattr(pooled, quantity)
    parts = [f"{model} prefers directions: when a structure is rotated, {_size(pooled)}."]
    if contributions.along_axes_only(result):
        parts.append("What carries that, and which rule removes it, orientations along the axes alone cannot tell.")
    else:
        parts += [dominant(noun, figure), _remedy(pooled.rules, quantity, figure)]
    parts += obstacles
    return [part for part in parts if part]


def _far_above(figure: Figure) -> bool:
    return figure.directional and figure.rms > 5.0 * figure.floor


def _on_some(result: ProbeResult, loud: list[StructureResult]) -> str:
    """What is reported where some structures are far above their floors and others hide that in the pool."""
    worst = max(loud, key=lambda each: each.forces.rms)
    return (
        f"{result.model.name} prefers directions on {listing([s.name for s in loud[:3]])}: rotated, forces of "
        f"{worst.name} change by {FORCE(worst.forces.rms)} and its energy by {ENERGY(worst.energy.rms)} rms. "
        "Pooled over all structures that is hidden by the noise on others."
    )


_NO_INVERSION = (
    "The rule holds no inversion, so parts even and odd under it are not told apart, and a part that inversion changes "
    "but no rotation does (odd, ℓ = 0) is not seen at all: no figure here holds it, and no mean over rotations alone "
    "removes it."
)


def remarks(result: ProbeResult) -> list[str]:
    """What else must be said before the figures are believed."""
    done = plural(len(result.structures), "structure")
    notes = {
        f"The probe was stopped early: {done} finished, the rest is missing.": not result.complete,
        "One structure only, so there is no error bar over structures.": len(result.structures) == 1,
        _NO_INVERSION: not result.rule.inversion,
        "The forces are not the gradient of the energy (non-conservative outputs).": not result.model.conservative,
        "The potential is stochastic: its own scatter is part of the floor.": result.model.stochastic,
    }
    said = [note for note, holds in notes.items() if holds] + contributions.broken(result)
    return [*said, *(f"Fault: {each.sentence}." for each in result.faults[:1])]


def _nothing(result: ProbeResult) -> str:
    if not result.failures:
        return f"Nothing was measured for {result.model.name}: no structure was finished."
    count = len(result.failures)
    who = "the only structure" if count == 1 else f"all {count} structures"
    return f"Nothing could be measured for {result.model.name}: {who} failed."


def _at_floor(result: ProbeResult, pooled: Pooled) -> list[str]:
    where = "between orientations along the axes " if contributions.along_axes_only(result) else ""
    found = [
        f"{result.model.name} is at the floor: no dependence on direction could be resolved {where}above its own "
        f"noise, {_energy_floor(pooled.energy)} in energy and {FORCE.noise(pooled.forces.floor)} in forces."
    ]
    if pooled.stress is not None and not pooled.stress.at_floor:
        found.append(f"The stress is not: it changes by {STRESS(pooled.stress.rms, pooled.stress.error)} rms.")
    loud = [s.name for s in result.structures if not (s.energy.at_floor and s.forces.at_floor)]
    if loud and pooled.energy.cause is None and pooled.forces.cause is None:
        found.append(f"Taken alone, {listing(loud[:3])} {'stands' if len(loud) == 1 else 'stand'} out above the floor.")
    return found


def _energy_floor(energy: Figure) -> str:
    if energy.floor_per_atom is None:
        return f"{ENERGY.noise(energy.floor)} per structure"
    return ENERGY_PER_ATOM.noise(energy.floor_per_atom)


def _size(pooled: Pooled) -> str:
    """By how much: forces and energies, each with its error or said to be at the floor."""
    if not pooled.forces.directional:
        forces = f"forces stay as they are (down to their floor of {FORCE.noise(pooled.forces.floor)})"
        if pooled.forces.cause is not None:
            forces = "of forces it cannot be told"
    elif pooled.forces.rotation is not None:
        forces = f"forces change by {FORCE(pooled.forces.rotation)}, apart from what else changes them,"
    else:
        forces = f"forces change by {FORCE(pooled.forces.rms, pooled.forces.error)}"
    if not pooled.energy.directional:
        if pooled.energy.cause is not None:
            return f"{forces} rms; of energies it cannot be told"
        return f"{forces} rms while energies stay as they are (down to their floor of {_energy_floor(pooled.energy)})"
    if pooled.energy.rotation is not None:
        energy = f"{ENERGY(pooled.energy.rotation)} per structure, apart from what else changes them,"
    elif pooled.energy.rms_per_atom is None:
        energy = f"{ENERGY(pooled.energy.rms, pooled.energy.error)} per structure"
    else:
        energy = ENERGY_PER_ATOM(pooled.energy.rms_per_atom, pooled.energy.error_per_atom)
    return (
        f"{forces} and energies by {energy} rms"
        if pooled.forces.directional
        else f"{forces}, energies change by {energy} rms"
    )


def _remedy(rules: list[RuleResidual], quantity: Quantity, figure: Figure) -> str:
    """The cheapest listed rule that takes nine tenths of the error away, or what is above its floor, if one does."""
    if not rules:
        return ""
    tenth, least = figure.rms / 10.0, 2.0 * figure.floor
    noun = "force" if quantity == "forces" else quantity
    share = f"{'a tenth' if tenth >= least else 'twice the floor'} of the {noun} error"
    rule = cheapest(rules, quantity, max(tenth, least))
    best = rule or min(rules, key=lambda rule: getattr(rule, quantity).most)
    label = f"{rule_label(best.name, best.inversion)} ({plural(best.n, 'evaluation')})"
    left = SCALES[quantity](getattr(best, quantity).most)
    if rule is None:
        return f"No rule listed is sure to leave no more than {share}; the best, {label}, leaves at most {left}."
    return f"The cheapest rule listed that leaves no more than {share} is {label}: at most {left} by prediction."
