"""Rules by name: the text that stands in a command line or a report, and the rule it makes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from goniometer.errors import InputError
from goniometer.rotations import families
from goniometer.rotations.quadrature import MAX_ELEMENTS, Rule, random_rotations

#: The grids of arXiv 2406.17747 (1, 2, 18, 36, 75, 150 elements): arguments of :func:`rule` by the study's labels.
PAPER_GRIDS: dict[str, tuple[str, bool]] = {
    "none": ("identity", False),
    "i": ("identity", True),
    "2": ("legendre:2", False),
    "2i": ("legendre:2", True),
    "3": ("legendre:3", False),
    "3i": ("legendre:3", True),
}
#: The labels of the study, by (rule, inversion).
GRID_NAMES = {grid: name for name, grid in PAPER_GRIDS.items()}
#: These, and the rotation groups of the tetrahedron, octahedron and icosahedron.
GRIDS: dict[str, tuple[str, bool]] = {
    **PAPER_GRIDS,
    "T": ("tetrahedral", False),
    "O": ("octahedral", False),
    "I": ("icosahedral", False),
}


def check_grids(names: Iterable[str]) -> None:
    """Raise :class:`InputError` for a name that is none of :data:`GRIDS`."""
    for name in names:
        if name not in GRIDS:
            raise InputError(f"there is no grid '{name}'; there are {', '.join(GRIDS)}")


def grid_rule(name: str) -> Rule:
    """The rule of one of :data:`GRIDS`."""
    check_grids([name])
    return rule(*GRIDS[name])


_MAX_LEBEDEV = max(families.LEBEDEV_POINTS)
_KNOWN = (
    f"{', '.join(families.GROUPS)}, legendre:L, lebedev:DEGREE, gauss:DEGREE, random:N or random:N:SEED, and degree:N "
    "for the smallest rule of degree N"
)
_FIRST = {"legendre": 1, "lebedev": 1, "gauss": 1, "degree": 0}
_NAME = re.compile(r"([a-z]+)((?::\d{1,18})*)", re.ASCII)


def rule(name: str, inversion: bool = False) -> Rule:
    """The rule on SO(3) of that name; with ``inversion`` the rule on O(3) of twice as many elements.

    =======================  ==================================================================  ==============  =======
    name                     elements                                                            number          degree
    =======================  ==================================================================  ==============  =======
    ``identity``             the identity                                                        1               0
    ``klein``                half turns about x, y, z and the identity                           4               1
    ``tetrahedral``          rotations of the tetrahedron                                        12              2
    ``octahedral``           of the octahedron; removes ℓ = 5, 7, 11 as well                     24              3
    ``icosahedral``          of the icosahedron; removes ℓ = 7, 8, 9, 11, 13, 14 as well         60              5
    ``legendre:L``           L Gauss-Legendre nodes in cos β, 2L−1 equispaced α and γ            L (2L−1)²       2L−2
    ``lebedev:DEGREE``       a Lebedev rule on the sphere, DEGREE + 1 equispaced angles          points × (D+1)  DEGREE
    ``gauss:DEGREE``         the smallest known to us, for degrees 1 to 14                       4 … 960         DEGREE
    ``random:N[:SEED]``      uniform on SO(3), equal weights; the default seed is 0              N               0
    ``degree:N``             the smallest of the above that is exact to N, under its own name                    ≥ N
    =======================  ==================================================================  ==============  =======

    The arrays of the rule cannot be written to. The same arguments give the same rule, on every machine to rounding.

    Raises
    ------
    InputError
        If there is no such rule, or it has more than ``MAX_ELEMENTS`` elements; nothing was computed then.

    Sources: V. I. Lebedev, D. N. Laikov, Doklady Math. 59, 477 (1999); M. Gräf, D. Potts, Numer. Funct. Anal. Optim.
    30, 665 (2009) for the rules called Gauss; arXiv 2406.17747 for ``legendre``.
    """
    which = _parse(name)
    limit = MAX_ELEMENTS // 2 if inversion else MAX_ELEMENTS
    if which.family == "degree":
        which = _smallest(which.numbers[0], limit, inversion)
    if which.size > limit:
        raise InputError(
            f"rule '{name}'{' with inversion' if inversion else ''} has {which.size * (1 + inversion)} elements; "
            f"at most {MAX_ELEMENTS} can be handled"
        )
    return _build(which, inversion)


def catalogue(max_elements: int, inversion: bool | None = None) -> list[Rule]:
    """Every named rule of at most that many elements, smallest first: without inversion, with it, or (None) both.

    Random rules are left out: there is one for every size, and it leaves ρ_ℓ = 1/N in the mean. The family of a rule is
    ``rule.name.split(":")[0]``. Raises :class:`InputError` above ``MAX_ELEMENTS``.
    """
    if max_elements > MAX_ELEMENTS:
        raise InputError(f"a catalogue of up to {max_elements} elements: at most {MAX_ELEMENTS} can be handled")
    chosen = [
        (which.size * (1 + inverted), which, inverted)
        for inverted in ((False, True) if inversion is None else (inversion,))
        for which in _members(max_elements // (1 + inverted))
    ]
    return [_build(which, inverted) for _, which, inverted in sorted(chosen)]


class _Which(NamedTuple):
    """A member of a family, not built yet."""

    family: str
    numbers: tuple[int, ...] = ()

    def __str__(self) -> str:
        return ":".join([self.family, *map(str, self.numbers)])

    @property
    def size(self) -> int:
        """The number of proper rotations."""
        match self:
            case ("random", (count, _)):
                return count
            case ("legendre", (nodes,)):
                return families.legendre_size(nodes)
            case ("lebedev", (degree,)):
                return families.lebedev_size(degree)
            case ("gauss", (degree,)):
                return families.gauss_size(degree)
        return families.GROUPS[self.family].order

    @property
    def degree(self) -> int:
        match self:
            case ("random", _):
                return 0
            case ("legendre", (nodes,)):
                return families.legendre_degree(nodes)
            case ("lebedev" | "gauss", (degree,)):
                return degree
        return families.GROUPS[self.family].degree

    def nodes(self) -> families.Nodes:
        match self:
            case ("random", (count, seed)):
                return random_rotations(count, np.random.default_rng(seed)), np.full(count, 1.0 / count)
            case ("legendre", (nodes,)):
                return families.legendre_nodes(nodes)
            case ("lebedev", (degree,)):
                return families.lebedev_nodes(degree)
            case ("gauss", (degree,)):
                return families.gauss_nodes(degree)
        return families.group_nodes(self.family)


def _parse(name: str) -> _Which:
    """The member that a name means, ``degree:N`` included, or an error that says what there is."""
    match = _NAME.fullmatch(name)
    family = match[1] if match else ""
    numbers = tuple(int(number) for number in match[2].split(":")[1:]) if match else ()
    if family in families.GROUPS and not numbers:
        return _Which(family)
    if family == "random" and len(numbers) in (1, 2):
        if numbers[0] < 1:
            raise InputError(f"rule '{name}': the number of rotations must be at least 1")
        return _Which(family, (*numbers, 0)[:2])
    if family not in _FIRST or len(numbers) != 1:
        raise InputError(f"unknown rule '{name}'; the rules are {_KNOWN}{_meant(name)}")
    number, first = numbers[0], _FIRST[family]
    if number < first:
        raise InputError(f"there is no rule '{name}': {family} starts at {family}:{first}")
    last = {"gauss": max(families.gauss_table()), "lebedev": _MAX_LEBEDEV}.get(family, number)
    if number > last:
        hint = f"; beyond it there is lebedev:{number}" if number <= _MAX_LEBEDEV else ""
        raise InputError(f"there is no rule '{name}': {family} ends at {family}:{last}{hint}")
    return _Which(family, numbers)


def _meant(name: str) -> str:
    """The family that comes close, with the numbers that were given, if that is a rule."""
    family, colon, numbers = name.partition(":")
    close = get_close_matches(family.lower(), [*families.GROUPS, *_FIRST, "random"], n=1)
    meant = f"{close[0]}{colon}{numbers}" if close else name
    if meant == name:
        return ""
    try:
        _parse(meant)
    except InputError:
        return ""
    return f"; did you mean '{meant}'?"


@lru_cache(maxsize=128)
def _build(which: _Which, inversion: bool) -> Rule:
    built = Rule(str(which), *which.nodes(), which.degree)
    if inversion:
        built = built.with_inversion()
    for array in (built.matrices, built.weights):
        array.setflags(write=False)  # the rule is shared by all who ask for it
    return built


def _members(max_rotations: int) -> list[_Which]:
    """All but the random rules, up to a number of rotations; groups before the rest."""
    every = [_Which(name) for name in families.GROUPS]
    every += [_Which("gauss", (degree,)) for degree in families.gauss_table()]
    every += [_Which("lebedev", (degree,)) for degree in range(1, _MAX_LEBEDEV + 1)]
    every += [_Which("legendre", (nodes,)) for nodes in range(2, _MAX_LEBEDEV // 2)]  # L = 1 is the identity
    return [which for which in every if which.size <= max_rotations]


def _smallest(degree: int, max_rotations: int, inversion: bool) -> _Which:
    """The member with the fewest rotations of that degree or a higher one."""
    members = _members(max_rotations)
    enough = [which for which in members if which.degree >= degree]
    if not enough:
        raise InputError(
            f"there is no rule of degree {degree}{' with inversion' if inversion else ''} of at most {MAX_ELEMENTS} "
            f"elements; the highest degree is {max(which.degree for which in members)}"
        )
    return min(enough, key=lambda which: which.size)
