"""Whole curves of two ensembles, compared with error rates that hold for unequal spreads and numbers of units.

The units are independent curves: one from every independent run, or from every stretch of a run that is long enough.
For each point r

    t(r) = (mean_A − mean_B) / s(r)        s² = s_A²/n_A + s_B²/n_B
    ν(r) = s⁴ / (s_A⁴/(n_A² (n_A − 1)) + s_B⁴/(n_B² (n_B − 1)))

with s no smaller than a tenth of its median, so that points where next to nothing happens do not decide. If the
ensembles have the same mean, t(r) is distributed as Student's t with ν degrees of freedom (B. L. Welch, Biometrika 34,
28 (1947)), whatever the spreads. The probability that |t| exceeds u anywhere on the curve is at most

    P(u) = p_1 + Σ_r min(p_r+1, θ_r/π (1 + u²/ν)^(−ν/2))        p_r = P(|t_ν| > u)

with θ_r the angle between the deviations of both points, arccos of their absolute correlation: the tube formula for
curves (D. Q. Naiman, Ann. Stat. 14, 896 (1986); B. Efron, J. Am. Stat. Assoc. 92, 1262 (1997)). Neighboring points that
move together count once, independent ones as in Bonferroni's inequality. P(max |t|) is the p-value of the whole curve,
and D(r) ± c s(r) with P(c) = 5 % is the band that holds everywhere at once with 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.optimize import brentq
from scipy.stats import norm
from scipy.stats import t as student

from goniometer.errors import InputError

#: The probability of finding what is there, for which run lengths are estimated.
POWER = 0.8
# The p-value beyond which nothing speaks for a difference, whose size then says nothing of how long to run.
_CHANCE = 0.5
# The least part of the median error that a point's error is taken for.
_FLOOR = 0.1
# Curves drawn to see how large a difference appears where there is none.
_DRAWS = 1000
# Parts of the range of a curve that are rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Comparison:
    """The difference of two sets of curves, and how it is distributed.

    Attributes
    ----------
    difference, errors : (P,)
        mean_A − mean_B, and s(r); NaN where a side has no value.
    freedom : (Q,)
        ν(r), of the points that vary, in their order.
    angles : (Q − 1,)
        θ_r between neighbors among these, in radians.
    largest : float
        max_r |t(r)|.
    swings : (Y,)
        max_r |D(r)| of random curves with these errors: how large a difference is seen where there is none.
    units : (int, int)
        How many there are on each side.
    too_short
        Why the runs behind it are no independent samples of their ensembles, empty if they are. There is then no
        p-value (NaN), no band and no bound (infinite).
    """

    difference: Float64[np.ndarray, " P"]
    errors: Float64[np.ndarray, " P"]
    freedom: Float64[np.ndarray, " Q"]
    angles: Float64[np.ndarray, " R"]
    largest: float
    swings: Float64[np.ndarray, " Y"]
    units: tuple[int, int]
    too_short: str = ""

    def exceeds(self, threshold: float) -> float:
        """The probability P(u) that |t| exceeds a threshold somewhere, if both means are the same."""
        if self.too_short:
            return float("nan")
        if not len(self.freedom) or threshold <= 0.0:
            return 1.0
        single = 2.0 * student.sf(threshold, self.freedom)
        least = np.minimum(self.freedom[1:], self.freedom[:-1])
        steps = self.angles / np.pi * (1.0 + threshold**2 / least) ** (-0.5 * least)
        return float(min(1.0, single[0] + np.minimum(single[1:], steps).sum()))

    @property
    def p_value(self) -> float:
        """Of no difference: the probability of a maximum as large."""
        return self.exceeds(self.largest)

    @property
    def where(self) -> int:
        """The point with the largest |t|."""
        return int(np.nanargmax(np.abs(self.difference) / self.errors))

    def band(self, level: float = 0.95) -> Float64[np.ndarray, " P"]:
        """Half the width at each point of the band that holds everywhere at once."""
        if self.too_short:
            return np.full(len(self.errors), np.inf)
        return np.asarray(self.quantile(level) * self.errors)

    def quantile(self, level: float) -> float:
        """Of max |t|; zero if nothing varies."""
        if self.too_short:
            return float("inf")
        if not len(self.freedom):
            return 0.0
        highest = float(student.isf(0.5 * (1.0 - level) / len(self.freedom), self.freedom.min()))
        return float(brentq(lambda u: self.exceeds(u) - (1.0 - level), 0.0, 2.0 * highest))

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
        often than claimed where the largest difference is at one point.

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
        if self.too_short or not np.isfinite(moved[looked] + wide[looked]).all():
            return float("inf")
        left = np.abs(self.difference - moved)[looked]
        # What never varies has no error.
        width = self.quantile(2.0 * level - 1.0) * np.nan_to_num(self.errors[looked])
        return float((left + np.hypot(width, wide[looked])).max())

    def outside(self, within: float) -> float:
        """The p-value of |D(r)| ≥ δ somewhere: half of what the widest band inside ±δ leaves out."""
        if self.too_short:
            return float("nan")
        room = (within - np.abs(self.difference)) / self.errors
        least = float(np.nanmin(room))
        if least <= 0.0:
            return 1.0
        return 0.5 * self.exceeds(least) if len(self.freedom) else 0.0


def compare_curves(
    first: Float64[np.ndarray, "A P"], second: Float64[np.ndarray, "B P"], *, seed: int = 0, too_short: str = ""
) -> Comparison:
    """Compare curves, one in each row.

    Parameters
    ----------
    first, second : (A, P), (B, P)
        The independent units of each side; their numbers and spreads may differ.
    seed
        Of the random curves in :attr:`Comparison.swings`.
    too_short
        Why the curves are no independent samples: see :attr:`Comparison.too_short`.

    Raises :class:`InputError` for fewer than two on a side, and for curves without a point that both sides have.
    """
    units = len(first), len(second)
    if min(units) < 2:
        raise InputError(
            f"a comparison takes two independent curves or more on each side, not {units[0]} and {units[1]}"
        )
    pooled = np.concatenate([first, second])
    known = np.isfinite(pooled).all(axis=0)
    # What never changes has no error, and is the same on both sides or not.
    moving = known & (np.ptp(pooled, axis=0) > _ROUNDING * np.abs(np.where(known, pooled, 0.0)).max(axis=0))
    if not known.any():
        raise InputError("the curves have no point at which all of them are known")
    difference, errors = np.full(len(known), np.nan), np.full(len(known), np.nan)
    difference[known] = first[:, known].mean(axis=0) - second[:, known].mean(axis=0)
    if not moving.any():
        none = np.zeros(0)
        return Comparison(difference, np.where(known, 1e-300, np.nan), none, none, 0.0, np.zeros(1), units, too_short)
    # Deviations of each unit from the mean of its side, scaled so that the sum of their squares is s².
    sides = [
        (each - each.mean(axis=0)) / np.sqrt(len(each) * (len(each) - 1))
        for each in (first[:, moving], second[:, moving])
    ]
    squares = [np.sum(each**2, axis=0) for each in sides]
    deviations, variance = np.concatenate(sides), squares[0] + squares[1]
    spread = np.sqrt(variance)
    floored = np.maximum(spread, max(_FLOOR * float(np.median(spread)), np.finfo(float).tiny))
    errors[moving] = floored
    draws = np.random.default_rng(seed).standard_normal((_DRAWS, len(deviations)))
    return Comparison(
        difference,
        errors,
        _freedom(squares, units),
        _angles(deviations, spread),
        float(np.max(np.abs(difference[moving]) / floored)),
        np.abs(draws @ deviations).max(axis=1),
        units,
        too_short,
    )


def _freedom(squares: list[np.ndarray], units: tuple[int, int]) -> np.ndarray:
    """The degrees of freedom of F. E. Satterthwaite (Biometrics Bull. 2, 110 (1946)); of a constant the fewest."""
    variance = squares[0] + squares[1]
    shares = [np.divide(each, variance, out=np.ones_like(each), where=variance > 0.0) for each in squares]
    return np.asarray(1.0 / (shares[0] ** 2 / (units[0] - 1) + shares[1] ** 2 / (units[1] - 1)))


def _angles(deviations: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Between the deviations of neighboring points, which are (U, Q); right angles where one has none."""
    products = np.sum(deviations[:, 1:] * deviations[:, :-1], axis=0)
    scale = spread[1:] * spread[:-1]
    cosines = np.divide(products, scale, out=np.zeros_like(scale), where=scale > 0.0)
    return np.asarray(np.arccos(np.minimum(np.abs(cosines), 1.0)))


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
        (S. Holm, Scand. J. Stat. 6, 65 (1979)); the latter is NaN without a δ, and both for runs that are too short.
    within
        δ, or None.
    longer
        By which factor runs would have to be longer to decide, with a probability of 0.8; NaN if decided, and if
        nothing speaks for a difference. Without a δ it takes the clearest difference for the true one, though that is
        seen where errors happen to be small, too.
    """

    name: str
    answer: str
    comparison: Comparison
    p_differ: float
    p_outside: float
    within: float | None
    longer: float


def decide(
    comparisons: Mapping[str, Comparison],
    within: Mapping[str, float] | None = None,
    *,
    level: float = 0.05,
    look: tuple[int, int] = (1, 1),
) -> list[Verdict]:
    """A verdict for every observable, with a probability of ``level`` at most that any *differ* of all is wrong.

    The same holds for the *equivalent*s, which need a δ in ``within``. An observable of which both can be said (a small
    difference, well resolved) is *equivalent*: what was asked for is whether it matters. Comparisons of runs that are
    too short are *undecided* in both directions, whatever is seen, and are not counted among the observables.

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
    known = {name: each for name, each in comparisons.items() if not each.too_short}
    differ = _holm({name: each.p_value for name, each in known.items()})
    outside = _holm({name: known[name].outside(size) for name, size in asked.items() if name in known})
    found = []
    for name, each in comparisons.items():
        delta, p_differ, p_outside = asked.get(name), differ.get(name, float("nan")), outside.get(name, float("nan"))
        answer = "undecided"
        if p_differ <= spent:
            answer = "differ"
        if delta is not None and p_outside <= spent:
            answer = "equivalent"
        longer = float("nan")
        if answer == "undecided" and name in known:
            longer = _longer(each, delta, spent / (len(outside) if delta is not None else len(known)))
        found.append(Verdict(name, answer, each, p_differ, p_outside, delta, longer))
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
