"""Goniometer measures how broken the rotational symmetry of an interatomic potential is, and what it costs to mend it.

    load(spec)                        a potential: a metatomic model, an ASE calculator, or a packaged model by name
    read_structures(...)              structures from files, or the packaged ones by name
    probe(potential, structures)      the symmetry error, its spectrum and its noise floor
    plan(...)                         the cheapest rule of rotations that mends it
    rule(name)                        a quadrature rule of rotations
    symmetrize(potential, rule)       a potential that prefers no direction

Each is imported when it is first used: importing the package itself takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from goniometer.planning.planner import plan
    from goniometer.potentials.loading import load
    from goniometer.probing.measure import probe
    from goniometer.rotations import rule
    from goniometer.strategies import symmetrize
    from goniometer.structures import read_structures

    __version__: str

__all__ = ["__version__", "load", "plan", "probe", "read_structures", "rule", "symmetrize"]

_HOMES = {
    "load": "goniometer.potentials.loading",
    "plan": "goniometer.planning.planner",
    "probe": "goniometer.probing.measure",
    "read_structures": "goniometer.structures",
    "rule": "goniometer.rotations",
    "symmetrize": "goniometer.strategies",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("goniometer")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'goniometer' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
