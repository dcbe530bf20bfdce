"""What contributes to the deviation under rotation, and how much of it is due to rotation alone.

Noise, a dependence on the origin and a discontinuity change the prediction at random from one orientation to the next,
and so enter the variance over orientations. They differ between two evaluations r, r' of the same orientation that have
another origin, while the dependence on the orientation does not: with means over M orientations,

    ⟨rotation²⟩ = 1/(M − 1) Σ_k ⟨r_k − r̄, r'_k − r̄'⟩

is free of them in the mean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from goniometer.errors import GoniometerError
from goniometer.probing.noise_floor import Quantity, Setting, least_noise, operated
from goniometer.probing.orientations import part_of
from goniometer.probing.repetition import Again, Judge
from goniometer.probing.result import Figure, Repeats
from goniometer.symmetrization import Response

#: Orientations of which pairs are made.
PAIRS = 64
# What contributes less than this share of the rms is no cause of it.
_SHARE = 0.1
# Pairs of repetitions from which on no others are made.
_FEWEST = 16
# Standard errors of the mean square below which a rotation error is not told from nothing.
_SIGMAS = 3.0


@dataclass(frozen=True)
class Pairs:
    """Where two evaluations of the same orientations come from: repetitions, and the same at another origin."""

    setting: Setting
    whole: Response
    again: Again
    judge: Judge
    rng: np.random.Generator

    def repeated(self, kind: str | None) -> tuple[Response, Response]:
        """Repetitions; of outliers those that do not differ, which hold none."""
        first, second = self.again.compared(self.whole)
        if kind == "outliers":
            same = ~self.judge.differing(first, second)
            first, second = part_of(first, same), part_of(second, same)
        return first, second

    def elsewhere(self) -> tuple[Response, Response]:
        """Some orientations, and the same at another origin; where a translation is left out, rounded otherwise."""
        count = len(self.whole) - 1
        first = part_of(self.whole, 1 + self.rng.choice(count, min(PAIRS, count), replace=False))
        for operation in ("translation", "rounding"):
            if operation not in self.setting.without:
                try:
                    return first, operated(operation, self.setting, first.matrices, self.rng)
                except GoniometerError:
                    continue
        return first, self.setting.respond(self.setting.structure, first.matrices, None)


def cause_of(figure: Figure, repeats: Repeats) -> str | None:
    """What else than rotation may make a deviation: noise, a discontinuity or a translation; None if nothing does."""
    floors = figure.floors
    if repeats.kind is not None:
        return "noise" if floors.repeat > _SHARE * figure.rms else None
    if figure.at_floor:
        return None
    if floors.discontinuous and (floors.rounding or 0.0) > _SHARE * figure.rms:
        return "discontinuity"
    if floors.translation is not None and floors.translation > max(2.0 * floors.value, _SHARE * figure.rms):
        return "translation"
    return None


def attributed(
    figures: dict[str, Figure], repeats: Repeats, pairs: Pairs, quantities: dict[str, Quantity]
) -> dict[str, Figure]:
    """The figures, with the cause of each that has one and its error under rotation alone."""
    causes = {name: cause_of(figure, repeats) for name, figure in figures.items()}
    if not any(causes.values()):
        return figures
    first, second = pairs.elsewhere() if repeats.kind is None else pairs.repeated(repeats.kind)
    if repeats.kind == "noise" and len(first) < _FEWEST:
        # Another origin changes nothing but the noise, which is drawn anew.
        first, second = pairs.elsewhere()
    found = {}
    for name, figure in figures.items():
        if causes[name] is None:
            found[name] = figure
            continue
        values = quantities[name](first)
        square, error = rotation_alone(values, quantities[name](second))
        # State that is carried along may follow the orientation: what two evaluations share is then no rotation error.
        known = repeats.kind != "history"
        least = float(np.sqrt(max(square - _SIGMAS * error, 0.0))) if known else 0.0
        rounding = max(
            2.0 * least_noise(name, pairs.setting.structure, values), pairs.judge.allowed.get(name, 0.0) / 25.0
        )
        found[name] = replace(
            figure,
            cause=causes[name],
            rotation=float(np.sqrt(max(square, 0.0))),
            rotation_least=least if least > rounding else 0.0,
        )
    return found


def rotation_alone(first: np.ndarray, again: np.ndarray) -> tuple[float, float]:
    """The mean square per component of what two evaluations of M orientations share, and its standard error."""
    count = len(first)
    if count < 3:
        return 0.0, 0.0
    one, other = (values.reshape(count, -1) - values.reshape(count, -1).mean(axis=0) for values in (first, again))
    products = (one * other).mean(axis=1) * count / (count - 1)
    return float(products.mean()), float(products.std(ddof=1) / np.sqrt(count))
