"""Numbers with their units and errors, the names of rules, and the verdict in a sentence."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from ase import units

from goniometer.probe.result import Figure, Pooled, ProbeResult, Residual, RuleResidual, Spectrum, StructureResult
from goniometer.rotations import PAPER_GRIDS

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")

#: The paper's names for its grids, by (rule, inversion).
GRID_NAMES = {grid: name for name, grid in PAPER_GRIDS.items()}

# Angular momenta are named until they hold this share of the variance.
_DOMINANT_SHARE = 0.8
_WORTH_NAMING = 0.02
# One parity is named alone when it holds this share of what they hold.
_ONE_PARITY = 0.85


@dataclass(frozen=True)
class Scale:
    """A unit for display, and what a value in eV and Å is multiplied by to have it."""

    unit: str
    factor: float

    def __call__(self, value: float, error: float | None = None) -> str:
        """The value in this unit, with its error if it has one, and the unit."""
        return f"{self.number(value, error)} {self.unit}"

    def noise(self, value: float) -> str:
        """A floor in this unit, with the unit: noise has no third digit."""
        return f"{number(value * self.factor, 2)} {self.unit}"

    def number(self, value: float | None, error: float | None = None) -> str:
        """The value in this unit without the unit; a dash for None."""
        if value is None:
            return "–"
        if error is None or error <= 0.0:
            return number(value * self.factor)
        return with_error(value * self.factor, error * self.factor)


ENERGY = Scale("meV", 1e3)
ENERGY_PER_ATOM = Scale("meV/atom", 1e3)
FORCE = Scale("meV/Å", 1e3)
STRESS = Scale("MPa", 1e3 / units.GPa)
TORQUE = Scale("meV/rad", 1e3)

Quantity = Literal["energy", "forces", "stress"]
#: What a probe measures, and its scale for display.
QUANTITIES: tuple[Quantity, ...] = ("energy", "forces", "stress")
SCALES: dict[Quantity, Scale] = {"energy": ENERGY, "forces": FORCE, "stress": STRESS}


def typeset(unit: str) -> str:
    """A unit as it is read: Å² for ``Angstrom^2``."""
    unit = unit.replace("Angstrom", "Å")
    return re.sub(r"\^(-?\d+)", lambda found: found[1].translate(_SUPERSCRIPTS), unit)


def number(value: float, digits: int = 3) -> str:
    """A number to some significant digits; a power of ten where decimals would not do."""
    if value == 0.0:
        return "0"
    exponent = math.floor(math.log10(float(f"{abs(value):.{digits - 1}e}")))
    if -3 <= exponent < 5:
        return f"{value:.{max(0, digits - 1 - exponent)}f}".replace("-", "−")
    mantissa = f"{value / 10.0**exponent:.{digits - 1}f}".replace("-", "−")
    return f"{mantissa}×10{str(exponent).translate(_SUPERSCRIPTS)}"


def with_error(value: float, error: float) -> str:
    """A value and its error, both to the last digit that the error leaves meaningful: ``15.2 ± 0.8``.

    An error below a millionth of the value is rounding, and left out.
    """
    if error < 1e-6 * abs(value):
        return number(value)
    leading = math.floor(math.log10(error))
    decimals = -leading + (1 if error / 10.0**leading < 3.0 else 0)
    if -3 <= leading < 5:
        places = max(0, decimals)
        return f"{value:.{places}f} ± {error:.{places}f}".replace("-", "−")
    exponent = max(leading, math.floor(math.log10(abs(value)))) if value else leading
    places = max(0, decimals + exponent)
    scaled = f"({value / 10.0**exponent:.{places}f} ± {error / 10.0**exponent:.{places}f})".replace("-", "−")
    return f"{scaled}×10{str(exponent).translate(_SUPERSCRIPTS)}"


def percent(share: float) -> str:
    """A share in per cent, without the digits that nobody believes."""
    value = 100.0 * share
    if 0.0 < value < 1.0:
        return "< 1 %"
    if 99.0 < value < 100.0:
        return "> 99 %"
    return f"{value:.0f} %".replace("-", "−")


def shorten(name: str, length: int = 46) -> str:
    """A long name with its middle left out."""
    return name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-length // 2 :]}"


def listing(words: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def plural(count: int, noun: str) -> str:
    """``1 structure``, ``2 structures``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def formula(text: str) -> str:
    """A chemical formula with its numbers set low."""
    return text.translate(_SUBSCRIPTS)


def rule_label(name: str, inversion: bool) -> str:
    """The name of a rule with what is said of its inversion."""
    return f"{name} + inversion" if inversion else name


def at_most(residual: Residual) -> float:
    """The most that is predicted or was measured to remain after averaging over a rule."""
    return residual.most


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
    """Where the variance sits: ``91 % of the force variance sits at ℓ = 1 and 2, mostly odd under inversion.``"""
    parts = shares(figure.spectrum, figure.rms**2)
    chosen: list[int] = []
    held = 0.0
    for ell in sorted(range(len(parts)), key=lambda ell: -sum(parts[ell])):
        if held >= _DOMINANT_SHARE or sum(parts[ell]) < _WORTH_NAMING:
            break
        chosen.append(ell)
        held += sum(parts[ell])
    if held < 0.5:
        return f"Most of the {noun} variance lies beyond ℓ = {len(parts) - 1}, where this probe does not resolve it."
    most = "Nearly all" if held > 0.99 else percent(held)
    where = f"{most} of the {noun} variance sits at ℓ = {listing([str(ell) for ell in sorted(chosen)])}"
    if figure.spectrum.minus is None:
        return f"{where}."
    odd = sum(parts[ell][1] for ell in chosen) / held
    if odd >= _ONE_PARITY:
        return f"{where}, mostly odd under inversion."
    if odd <= 1.0 - _ONE_PARITY:
        return f"{where}, mostly even under inversion."
    return f"{where}, both even and odd under inversion."


def cheapest(rules: list[RuleResidual], quantity: Quantity, target: float) -> RuleResidual | None:
    """The rule of fewest evaluations that is predicted to leave at most ``target``, the unresolved tail included."""
    fit = [rule for rule in rules if at_most(getattr(rule, quantity)) <= target]
    return min(fit, key=lambda rule: rule.n, default=None)


def verdict(result: ProbeResult) -> str:
    """What the probe found in a few plain sentences, the first thing in every report."""
    return " ".join(sentences(result))


def sentences(result: ProbeResult) -> list[str]:
    """The verdict sentence by sentence: whether and by how much, where it sits, what would mend it."""
    pooled, model = result.pooled, result.model.name
    if pooled is None or not result.structures:
        return [_nothing(result)]
    if pooled.energy.at_floor and pooled.forces.at_floor:
        loud = [each for each in result.structures if _far_above(each.energy) or _far_above(each.forces)]
        return [_on_some(result, loud)] if loud else _at_floor(result, pooled)
    quantity: Quantity = "energy" if pooled.forces.at_floor else "forces"
    noun = "energy" if pooled.forces.at_floor else "force"
    figure: Figure = getattr(pooled, quantity)
    parts = [
        f"{model} prefers directions: when a structure is turned, {_size(pooled)}.",
        dominant(noun, figure),
        _remedy(pooled.rules, quantity, figure),
    ]
    return [part for part in parts if part]


def _far_above(figure: Figure) -> bool:
    return figure.rms > 5.0 * figure.floor


def _on_some(result: ProbeResult, loud: list[StructureResult]) -> str:
    """What is said where some structures stand far out above their floors and the noise of others hides it, pooled."""
    worst = max(loud, key=lambda each: each.forces.rms)
    return (
        f"{result.model.name} prefers directions on {listing([s.name for s in loud[:3]])}: turned, forces of "
        f"{worst.name} change by {FORCE(worst.forces.rms)} and its energy by {ENERGY(worst.energy.rms)} rms. "
        "Pooled over all structures that is hidden by the noise on others."
    )


def _intact(pooled: Pooled) -> list[str]:
    """What is said of translations and permutations that change the answer by more than rounding does."""
    floors = pooled.forces.floors
    noise = max(floors.repeat, floors.rounding)
    found = []
    for operation in ("translation", "permutation"):
        change = getattr(floors, operation)
        if change > 100.0 * noise:
            found.append(
                f"A {operation} alone changes the forces by {FORCE(change)} rms, far beyond rounding: that symmetry is "
                "broken as well, and the floor holds it."
            )
    return found


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
    return [note for note, holds in notes.items() if holds] + (_intact(result.pooled) if result.pooled else [])


def _nothing(result: ProbeResult) -> str:
    if not result.failures:
        return f"Nothing was measured for {result.model.name}: no structure was finished."
    count = len(result.failures)
    who = "the only structure" if count == 1 else f"all {count} structures"
    return f"Nothing could be measured for {result.model.name}: {who} failed."


def _at_floor(result: ProbeResult, pooled: Pooled) -> list[str]:
    found = [
        f"{result.model.name} is at the floor: no dependence on direction could be resolved above its own noise, "
        f"{_energy_floor(pooled.energy)} in energy and {FORCE.noise(pooled.forces.floor)} in forces."
    ]
    if pooled.stress is not None and not pooled.stress.at_floor:
        found.append(f"The stress is not: it changes by {STRESS(pooled.stress.rms, pooled.stress.error)} rms.")
    loud = [s.name for s in result.structures if not (s.energy.at_floor and s.forces.at_floor)]
    if loud:
        found.append(f"Taken alone, {listing(loud[:3])} {'stands' if len(loud) == 1 else 'stand'} out above the floor.")
    return found


def _energy_floor(energy: Figure) -> str:
    if energy.floor_per_atom is None:
        return f"{ENERGY.noise(energy.floor)} per structure"
    return ENERGY_PER_ATOM.noise(energy.floor_per_atom)


def _size(pooled: Pooled) -> str:
    """By how much: forces and energies, each with its error or said to be at the floor."""
    forces = f"forces change by {FORCE(pooled.forces.rms, pooled.forces.error)}"
    if pooled.forces.at_floor:
        forces = f"forces stay as they are (down to their floor of {FORCE.noise(pooled.forces.floor)})"
    if pooled.energy.at_floor:
        return f"{forces} rms while energies stay as they are (down to their floor of {_energy_floor(pooled.energy)})"
    if pooled.energy.rms_per_atom is None:
        energy = f"{ENERGY(pooled.energy.rms, pooled.energy.error)} per structure"
    else:
        energy = ENERGY_PER_ATOM(pooled.energy.rms_per_atom, pooled.energy.error_per_atom)
    return (
        f"{forces} and energies by {energy} rms"
        if not pooled.forces.at_floor
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
    best = rule or min(rules, key=lambda rule: at_most(getattr(rule, quantity)))
    label = f"{rule_label(best.name, best.inversion)} ({plural(best.n, 'evaluation')})"
    left = SCALES[quantity](at_most(getattr(best, quantity)))
    if rule is None:
        return f"No rule listed is sure to leave no more than {share}; the best, {label}, leaves at most {left}."
    return f"The cheapest rule listed that leaves no more than {share} is {label}: at most {left} by prediction."
