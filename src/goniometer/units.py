"""Numbers for readers: units, errors, and significant digits."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from ase import units

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


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
