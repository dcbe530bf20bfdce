"""Tolerances as a user writes them: ``0.1meV/Å``, ``energy=0.1meV/atom``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from goniometer.errors import InputError
from goniometer.probing.result import Figure, Residual

Quantity = Literal["energy", "forces", "stress"]

#: Factors to eV, eV/atom, eV/Å and eV/Å³.
_UNITS: dict[Quantity, dict[str, float]] = {
    "energy": {"eV": 1.0, "meV": 1e-3, "µeV": 1e-6, "eV/atom": 1.0, "meV/atom": 1e-3, "µeV/atom": 1e-6},
    "forces": {"eV/Å": 1.0, "meV/Å": 1e-3, "µeV/Å": 1e-6},
    "stress": {"eV/Å³": 1.0, "meV/Å³": 1e-3, "GPa": 1.0 / 160.21766208, "MPa": 1e-3 / 160.21766208},
}
_NAMES: dict[str, Quantity] = {"energy": "energy", "force": "forces", "forces": "forces", "stress": "stress"}
_NUMBER = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(\S*)\s*")


@dataclass(frozen=True)
class Tolerance:
    """The largest rms that is accepted of one quantity, per component: eV or eV per atom, eV/Å, eV/Å³."""

    quantity: Quantity
    value: float
    per_atom: bool
    text: str

    def limit(self, atoms: int) -> float:
        """The limit for a structure of that many atoms, in eV, eV/Å or eV/Å³."""
        return self.value * atoms if self.per_atom else self.value

    def figure(self, holder: object) -> Figure | None:
        """The figure that it speaks of, of a structure or of the pooled result."""
        found: Figure | None = getattr(holder, self.quantity)
        return found

    def residual(self, holder: object) -> Residual | None:
        """The residual that it speaks of, of one rule."""
        found: Residual | None = getattr(holder, self.quantity)
        return found


def parse_tolerance(quantity: str, text: str) -> Tolerance:
    """A tolerance from the name of a quantity and a number with a unit. Raises :class:`InputError`."""
    if quantity not in _NAMES:
        raise InputError(f"'{quantity}' is no quantity that can be limited; it must be energy, force or stress")
    kind = _NAMES[quantity]
    known = ", ".join(_UNITS[kind])
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise InputError(f"'{text}' is no tolerance for {quantity}: it must be a number and one of the units {known}")
    unit = match[2].replace("μ", "µ").replace("ueV", "µeV")
    unit = unit.replace("Angstrom", "A").replace("angstrom", "A").replace("A", "Å")
    unit = unit.replace("^3", "³").replace("Å3", "Å³")
    if not unit:
        raise InputError(f"'{text}' has no unit for {quantity}; it must be one of {known}")
    if unit not in _UNITS[kind]:
        raise InputError(f"'{match[2]}' is no unit for {quantity} in '{text}'; it must be one of {known}")
    value = float(match[1]) * _UNITS[kind][unit]
    if not value > 0 or not math.isfinite(value):
        raise InputError(f"the tolerance {quantity}={text} must be positive and finite")
    return Tolerance(kind, value, unit.endswith("/atom"), text.strip())


def parse_limit(text: str) -> Tolerance:
    """A tolerance from ``quantity=number unit``. Raises :class:`InputError`."""
    quantity, separator, value = text.partition("=")
    if not separator:
        raise InputError(f"'{text}' is no limit; it must read like force=1meV/Å or energy=0.1meV/atom")
    return parse_tolerance(quantity.strip(), value)
