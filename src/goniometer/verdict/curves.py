"""Whole curves of two ensembles, compared with error rates that are what they say.

The units are curves that know nothing of each other: one from every independent run, or from every stretch of a run
that is long enough. For each point r

    t(r) = (mean_A − mean_B) / s(r)        s² = s_A²/n_A + s_B²/n_B

with s no smaller than a tenth of its median, so that points where next to nothing happens do not decide. If both
ensembles are the same, units may change sides: the distribution of max_r |t(r)| over exchanges (all of them where there
are not too many) gives a p-value for the whole curve that is exact for any number of units and any correlation along
the curve, provided that units of both sides are alike: stretches of one length. The band D(r) ± c s(r) has the
quantile c of the same maximum for units less the mean of their own side: it holds everywhere at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Bool, Float64
from scipy.stats import norm

from goniometer.errors import InputError

#: Exchanges of units that are looked at, when there are more.
EXCHANGES = 4000
#: The probability of finding what is there, for which run lengths are estimated.
POWER = 0.8
# The p-value beyond which nothing speaks for a difference, whose size then says nothing of how long to run.
_CHANCE = 0.5
# The least part of the median error that a point's error is taken for.
_FLOOR = 0.1
# Numbers held at a time.
_NUMBERS = 2**22
# Parts of the range of a curve that are rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Comparison:
    """Two sets of curves beside each other.

    Attributes
    ----------
    difference, errors : (P,)
        mean_A − mean_B, and s(r); NaN where a side has no value.
    largest : float
        max_r |t(r)|.
    maxima : (X,)
        The same for units that changed sides: what it would be if there were no difference.
    around : (Y,)
        The same for units less the mean of their side: what the band is made of.
    swings : (Y,)
        max_r |D(r)| of these: how large a difference is seen where there is none.
    units : (int, int)
        How many there are on each side.
    """

    difference: Float64[np.ndarray, " P"]
    errors: Float64[np.ndarray, " P"]
    largest: float
    maxima: Float64[np.ndarray, " X"]
    around: Float64[np.ndarray, " Y"]
    swings: Float64[np.ndarray, " Y"]
    units: tuple[int, int]

    @property
    def p_value(self) -> float:
        """Of no difference: the part of exchanges, this one included, with a maximum as large."""
        return float(np.mean(self.maxima >= self.largest * (1.0 - _ROUNDING)))

    @property
    def where(self) -> int:
        """The point with the largest |t|."""
        return int(np.nanargmax(np.abs(self.difference) / self.errors))

    def band(self, level: float = 0.95) -> Float64[np.ndarray, " P"]:
        """Half the width at each point of the band that holds everywhere at once."""
        return np.asarray(self.quantile(level) * self.errors)

    def quantile(self, level: float) -> float:
        """Of max |t|; infinite if there are too few exchanges to know."""
        if len(self.around) * (1.0 - level) < 1.0 - _ROUNDING:
            return float("inf")
        return float(np.quantile(self.around, level, method="higher"))

    def bound(
        self,
        level: float = 0.95,
        shift: Float64[np.ndarray, " P"] | None = None,
        margin: Float64[np.ndarray, " P"] | None = None,
    ) -> float:
        """How large max_r |mean_A − mean_B − shift| of the ensembles can be, with that confidence, one-sided.

            max_r (|D(r) − shift(r)| + √((c s(r))² + margin(r)²))

        with the quantile c of the band of 2 · level − 1, 90 % by default: the smallest δ within which :func:`decide`
        would call one observable equivalent. It holds for all points at once, and so for the largest: it is wrong less
        often than said where the largest difference is at one point. Infinite if there are too few exchanges.

        Parameters
        ----------
        level
            The confidence.
        shift, margin : (P,)
            A difference that is known from elsewhere, and how far that may be off in a band as wide as c · s here; both
            widths are added in quadrature. Zero by default; a point of which the shift is not known can be anything.
        """
        looked = np.isfinite(self.difference)
        moved = np.zeros(len(looked)) if shift is None else shift
        wide = np.zeros(len(looked)) if margin is None else margin
        if not looked.any():
            return float("nan")
        if not np.isfinite(moved[looked] + wide[looked]).all():
            return float("inf")
        left = np.abs(self.difference - moved)[looked]
        if self.largest == 0.0 and len(self.around) == 1:  # nothing moves
            return float((left + wide[looked]).max())
        allowed = int(2.0 * (1.0 - level) * (1 + len(self.around)) + _ROUNDING) - 1
        if allowed < 0:
            return float("inf")
        # What never changes has no error.
        width = np.sort(self.around)[::-1][allowed] * np.nan_to_num(self.errors[looked])
        return float((left + np.hypot(width, wide[looked])).max())

    @property
    def least(self) -> float:
        """The smallest p-value that so many units can have: a side exchanged as a whole is the same difference."""
        return float(
            (1 + (self.units[0] == self.units[1] and comb(sum(self.units), self.units[0]) == len(self.maxima)))
            / len(self.maxima)
        )

    def outside(self, within: float) -> float:
        """The p-value of |D(r)| ≥ δ somewhere: half of what the widest band inside ±δ leaves out."""
        room = (within - np.abs(self.difference)) / self.errors
        least = float(np.nanmin(room))
        if least <= 0.0:
            return 1.0
        return 0.5 * float((1 + np.sum(self.around >= least)) / (1 + len(self.around)))


def compare_curves(
    first: Float64[np.ndarray, "A P"], second: Float64[np.ndarray, "B P"], *, seed: int = 0, exchanges: int = EXCHANGES
) -> Comparison:
    """Compare curves, one in each row.

    Raises :class:`InputError` for fewer than two on a side, and for curves without a point that both sides have.
    """
    count, other = len(first), len(second)
    if min(count, other) < 2:
        raise InputError(f"a comparison takes two independent curves or more on each side, not {count} and {other}")
    pooled = np.concatenate([first, second])
    known = np.isfinite(pooled).all(axis=0)
    # What never changes has no error, and is the same on both sides or not.
    moving = known & (np.ptp(pooled, axis=0) > _ROUNDING * np.abs(np.where(known, pooled, 0.0)).max(axis=0))
    if not known.any():
        raise InputError("the curves have no point at which all of them are known")
    difference, errors = np.full(len(known), np.nan), np.full(len(known), np.nan)
    difference[known] = first[:, known].mean(axis=0) - second[:, known].mean(axis=0)
    if not moving.any():
        none = np.zeros(1)
        return Comparison(difference, np.where(known, 1e-300, np.nan), 0.0, none, none, none, (count, other))
    sides = _sides(count, other, exchanges, seed)
    units = pooled[:, moving]
    centred = np.concatenate([each[:, moving] - each[:, moving].mean(axis=0) for each in (first, second)])
    scaled, spread = _statistic(units, sides[:1])
    errors[moving] = spread[0]
    (maxima, _), (around, swings) = _maxima(units, sides), _maxima(centred, sides[1:])
    return Comparison(difference, errors, float(np.abs(scaled[0]).max()), maxima, around, swings, (count, other))


def _sides(count: int, other: int, most: int, seed: int) -> Bool[np.ndarray, "X U"]:
    """Which units are on the first side, as they are and exchanged."""
    whole = count + other
    if comb(whole, count) <= most:
        chosen = np.array(list(combinations(range(whole), count)))
    else:
        rng = np.random.default_rng(seed)
        chosen = np.argsort(rng.random((most - 1, whole)), axis=1)[:, :count]
        chosen = np.concatenate([np.arange(count)[None], chosen])
    sides = np.zeros((len(chosen), whole), dtype=bool)
    np.put_along_axis(sides, chosen, True, axis=1)
    return sides


def _maxima(units: np.ndarray, sides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """max |t(r)| and max |D(r)| for every exchange, a part of them at a time."""
    size, found = max(1, _NUMBERS // units.shape[1]), []
    for start in range(0, len(sides), size):
        scaled, spread = _statistic(units, sides[start : start + size])
        found.append([np.abs(scaled).max(axis=1), np.abs(scaled * spread).max(axis=1)])
    maxima, swings = np.concatenate(found, axis=1)
    return maxima, swings


def _statistic(units: np.ndarray, sides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """t(r) and s(r) for every exchange: (X, P) each."""
    centre = units.mean(axis=0)
    values = units - centre
    weights = sides.astype(float)
    found = []
    for each in (weights, 1.0 - weights):
        number = each.sum(axis=1, keepdims=True)
        mean = each @ values / number
        square = each @ values**2 / number
        found.append((mean, np.maximum(square - mean**2, 0.0) / (number - 1.0)))
    (one, one_square), (two, two_square) = found
    spread = np.sqrt(one_square + two_square)
    spread = np.maximum(spread, _FLOOR * np.median(spread, axis=1, keepdims=True))
    spread = np.maximum(spread, np.finfo(float).tiny)
    return (one - two) / spread, spread


@dataclass(frozen=True)
class Verdict:
    """What can be said of one observable.

    Attributes
    ----------
    name
        Of the observable.
    answer
        ``differ``, ``equivalent`` or ``undecided``.
    comparison
        The numbers behind it.
    p_differ, p_outside
        Of no difference, and of a difference of δ or more somewhere, both adjusted for the number of observables
        (S. Holm, Scand. J. Stat. 6, 65 (1979)); the latter is NaN without a δ.
    within
        δ, or None.
    longer
        By which factor runs would have to be longer (or more) to decide, with a probability of 0.8; NaN if decided, if
        nothing speaks for a difference, or if there are too few units. Without a δ it takes the clearest difference for
        the true one, though that is seen where errors happen to be small, too.
    few
        Whether there are too few units for either answer, however long they are.
    """

    name: str
    answer: str
    comparison: Comparison
    p_differ: float
    p_outside: float
    within: float | None
    longer: float
    few: bool = False


def decide(
    comparisons: Mapping[str, Comparison],
    within: Mapping[str, float] | None = None,
    *,
    level: float = 0.05,
    look: tuple[int, int] = (1, 1),
) -> list[Verdict]:
    """A verdict for every observable, with a probability of ``level`` at most that any *differ* of all is wrong.

    The same holds for the *equivalent*s, which need a δ in ``within``. An observable of which both can be said (a small
    difference, well resolved) is *equivalent*: what was asked for is whether it matters.

    ``look`` is (k, K) for runs that go on if nothing is decided: the k-th of K looks at equally spaced lengths spends
    the part of ``level`` that P. C. O'Brien and T. R. Fleming's boundaries leave to it (K. K. G. Lan, D. L. DeMets,
    Biometrika 70, 659 (1983)).

    Raises :class:`InputError` for a δ of an observable that is not compared, and for one that is not positive.
    """
    asked = dict(within or {})
    for name, size in asked.items():
        if name not in comparisons:
            raise InputError(f"there is no '{name}' to be equivalent in; compared are {', '.join(comparisons)}")
        if not size > 0.0:
            raise InputError(f"'{name}' is to be equivalent within a positive number, not {size:g}")
    spent = spent_at(level, look)
    differ = _holm({name: each.p_value for name, each in comparisons.items()})
    outside = _holm({name: comparisons[name].outside(size) for name, size in asked.items()})
    found = []
    for name, each in comparisons.items():
        delta, p_outside = asked.get(name), outside.get(name, float("nan"))
        answer = "undecided"
        if differ[name] <= spent:
            answer = "differ"
        if delta is not None and p_outside <= spent:
            answer = "equivalent"
        few = len(comparisons) * each.least > spent
        longer = float("nan")
        if answer == "undecided" and not few:
            longer = _longer(each, delta, spent / (len(asked) if delta is not None else len(comparisons)))
        found.append(Verdict(name, answer, each, differ[name], p_outside, delta, longer, few and answer == "undecided"))
    return found


def spent_at(level: float, look: tuple[int, int]) -> float:
    """The part of the level that a look may spend. Raises :class:`InputError` for a look that is none."""
    number, looks = look
    if not 1 <= number <= looks:
        raise InputError(f"look {number} of {looks} is none")

    def until(part: float) -> float:
        return float(2.0 * norm.sf(norm.isf(level / 2.0) / np.sqrt(part))) if part > 0.0 else 0.0

    return until(number / looks) - until((number - 1) / looks)


def _holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values."""
    ordered = sorted(p_values, key=lambda name: p_values[name])
    adjusted, largest = {}, 0.0
    for place, name in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - place) * p_values[name]))
        adjusted[name] = largest
    return adjusted


def _longer(found: Comparison, within: float | None, level: float) -> float:
    """The factor in length after which errors, which fall with its square root, decide with a probability of 0.8."""
    power = float(norm.ppf(POWER))
    if within is not None:
        # If there is no difference what is seen is smaller than this in 80 % of cases; the band comes on top of it.
        seen = float(np.quantile(found.swings, POWER))
        needed = (found.quantile(1.0 - 2.0 * level) * np.nanmax(found.errors) + seen) / within
        return float(max(1.0, needed**2)) if np.isfinite(needed) else float("nan")
    if found.largest <= 0.0 or found.p_value > _CHANCE:
        return float("nan")
    quantile = found.quantile(1.0 - level)
    return float(max(1.0, ((quantile + power) / found.largest) ** 2)) if np.isfinite(quantile) else float("nan")
