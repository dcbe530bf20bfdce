"""Measure how often errors, p-values, bands and certificates are wrong: python scripts/measure_calibration.py

Every line is a synthetic ensemble whose truth is known. Counted is how often the program's statement is false: an
interval of ± 1.96 errors or a band that does not contain the truth, a p-value of at most 5 % where nothing differs. The
result goes to docs/figures/calibration.json, and is drawn in docs/figures/calibration.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase import units
from scipy.signal import lfilter
from scipy.stats import beta

from goniometer.comparison import compare_curves, decide
from goniometer.observables.blocks import Blocks
from goniometer.observables.orientation import free_energy, uniformity
from goniometer.observables.statics import Sampled, Static
from goniometer.observables.statistics import mean, slope
from goniometer.plotting.style import BLUE, GRID, INK, STYLE, VERMILLION
from goniometer.sampling.reweighting import Part, bound, margin, reweighted
from measure_certificates import trial

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
#: A rate may be off by this part of what is nominal.
ALLOWED = 1.0 / 3.0
TEMPERATURE = 300.0

Statement = Callable[[np.random.Generator], bool]


@dataclass(frozen=True)
class Line:
    """How often a statement is false: its nominal rate, and whether it may be false less often by construction."""

    name: str
    nominal: float
    false: int
    repeats: int
    at_most: bool

    @property
    def rate(self) -> float:
        return self.false / self.repeats

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Of the rate, after C. J. Clopper and E. S. Pearson."""
        low, high = 0.5 * (1.0 - level), 0.5 * (1.0 + level)
        return (
            float(beta.ppf(low, self.false, self.repeats - self.false + 1)) if self.false else 0.0,
            float(beta.ppf(high, self.false + 1, self.repeats - self.false)) if self.false < self.repeats else 1.0,
        )

    def calibrated(self, level: float = 0.998) -> bool:
        """Whether a rate within a third of the nominal one is compatible with the count."""
        low, high = self.interval(level)
        return low <= (1.0 + ALLOWED) * self.nominal and (self.at_most or high >= (1.0 - ALLOWED) * self.nominal)


# ---- synthetic ensembles ---------------------------------------------------------------------------------------------


def correlated(rng: np.random.Generator, shape: tuple[int, ...], memory: float) -> np.ndarray:
    """Autoregressive along the first axis, of unit variance."""
    noise = rng.standard_normal(shape) * np.sqrt(1.0 - memory**2)
    noise[0] /= np.sqrt(1.0 - memory**2)
    return np.asarray(lfilter([1.0], [1.0, -memory], noise, axis=0))


def curves(rng: np.random.Generator, count: int) -> np.ndarray:
    """Smooth curves of forty points whose noise grows a hundredfold."""
    white = np.cumsum(rng.standard_normal((count, 51)), axis=1)
    return (white[:, 11:] - white[:, :-11]) / np.sqrt(11.0) * np.linspace(0.01, 1.0, 40)


def of_slope(length: int, walk: float, noise: float, memory: float = 0.0) -> Statement:
    def wrong(rng: np.random.Generator) -> bool:
        series = walk * rng.standard_normal(length).cumsum() + noise * correlated(rng, (length,), memory)
        value, error = slope(np.arange(length) * 0.01, series)
        return bool(abs(value) > 1.96 * error)

    return wrong


def of_mean(length: int, replicas: int) -> Statement:
    def wrong(rng: np.random.Generator) -> bool:
        found = mean(correlated(rng, (length, replicas), 0.9))
        return bool(abs(found.value) > 1.96 * found.error)

    return wrong


def _blocks(rng: np.random.Generator, runs: int, length: int, components: int) -> Blocks:
    blocks = Blocks()
    for _ in range(runs):
        blocks.begin()
        blocks.add(correlated(rng, (length, components), 0.8))
    return blocks.independent()


def _ratio(values: np.ndarray) -> np.ndarray:
    """A quantity that is not linear in the means."""
    return np.asarray(values / (3.0 + values.mean()))


def of_blocks(runs: int, length: int) -> Statement:
    def wrong(rng: np.random.Generator) -> bool:
        value, error, _ = _blocks(rng, runs, length, 3).estimate(_ratio)
        return bool(abs(value[0]) > 1.96 * error[0])

    return wrong


def of_band(runs: int, length: int) -> Statement:
    def wrong(rng: np.random.Generator) -> bool:
        blocks = _blocks(rng, runs, length, 12)
        value, error, _ = blocks.estimate(_ratio)
        return bool((np.abs(value) > blocks.simultaneous(_ratio, 0.9) * error).any())

    return wrong


def of_verdict(numbers: tuple[int, int], spread: float, band: float | None = None) -> Statement:
    def wrong(rng: np.random.Generator) -> bool:
        found = compare_curves(curves(rng, numbers[0]), spread * curves(rng, numbers[1]))
        return bool(found.p_value <= 0.05 if band is None else (np.abs(found.difference) > found.band(band)).any())

    return wrong


def of_equivalence(spread: float) -> Statement:
    """A difference at one point that is just as large as δ."""

    def wrong(rng: np.random.Generator) -> bool:
        one = curves(rng, 7)
        one[:, 30] += 2.0
        (verdict,) = decide({"a": compare_curves(one, spread * curves(rng, 4))}, {"a": 2.0})
        return verdict.answer == "equivalent"

    return wrong


def of_holm(rng: np.random.Generator) -> bool:
    found = {str(each): compare_curves(curves(rng, 7), 2.0 * curves(rng, 4)) for each in range(8)}
    return any(each.answer == "differ" for each in decide(found))


def of_looks(rng: np.random.Generator) -> bool:
    one, other = rng.standard_normal((16, 1)), 3.0 * rng.standard_normal((16, 1))
    found = {look: {"a": compare_curves(one[: 4 * look], other[: 4 * look])} for look in (1, 2, 3, 4)}
    return any(decide(each, look=(look, 4))[0].answer == "differ" for look, each in found.items())


def _directions(rng: np.random.Generator, times: int, replicas: int) -> np.ndarray:
    vectors = correlated(rng, (times, replicas, 3), 0.9)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def of_uniformity(rng: np.random.Generator) -> bool:
    return uniformity(_directions(rng, 40, 40)) <= 0.05


def of_free_energy(rng: np.random.Generator) -> bool:
    found = free_energy(_directions(rng, 100, 16), grid=(3, 4), discard=0.0)
    return bool(abs(found.values[1, 1]) > 1.96 * found.errors[1, 1])


def of_reweighting(runs: int, frames: int, what: str) -> Statement:
    """A and ΔV are normal with a correlation of 0.2, so that the difference is −Cov(A, ΔV)/kT."""
    spread, shared = 0.2 * units.kB * TEMPERATURE, 0.2
    truth = -shared * spread / (units.kB * TEMPERATURE)

    def wrong(rng: np.random.Generator) -> bool:
        parts = []
        for _ in range(runs):
            correction = correlated(rng, (frames,), 0.5)
            values = shared * correction + np.sqrt(1.0 - shared**2) * correlated(rng, (frames,), 0.5)
            parts.append(Part(_sampled(values), spread * correction))
        found = reweighted(parts, TEMPERATURE)
        away = abs(float(found.values) - truth)
        if what == "bound":
            return bound(found) < abs(truth)
        return bool(away > (1.96 * float(found.errors) if what == "error" else float(margin(found))))

    return wrong


def _sampled(values: np.ndarray) -> Sampled:
    return Sampled(Static("a", "", {}, lambda *_: values, lambda each: each, {}), values)


def lines(repeats: int, certificates: int) -> Iterator[Line]:
    """All lines, each with random numbers of its own."""
    pairs, spreads = ((4, 4), (7, 4), (4, 7), (8, 8)), ((1.0, "1:1"), (3.0, "1:3"), (1.0 / 3.0, "3:1"))
    statements: list[tuple[str, float, Statement, bool]] = [
        ("slope, white noise, 2000 times", 0.05, of_slope(2000, 0.0, 1.0), True),
        ("slope, correlated noise, 2000 times", 0.05, of_slope(2000, 0.0, 1.0, 0.9), True),
        *((f"slope, walk, {each} times", 0.05, of_slope(each, 1.0, 0.0), False) for each in (30, 72, 1000, 5000)),
        ("slope, walk and noise, 72 times", 0.05, of_slope(72, 1.0, 3.0), True),
        ("slope, walk and noise, 1000 times", 0.05, of_slope(1000, 1.0, 10.0), True),
        ("slope, walk and correlated noise, 300 times", 0.05, of_slope(300, 1.0, 10.0, 0.9), True),
        ("mean of one series", 0.05, of_mean(4000, 1), False),
        ("mean of four replicas", 0.05, of_mean(1000, 4), False),
        ("mean of eight replicas", 0.05, of_mean(200, 8), False),
        ("jackknife, one run", 0.05, of_blocks(1, 4000), False),
        ("jackknife, six runs", 0.05, of_blocks(6, 300), False),
        ("90 % band, one run", 0.10, of_band(1, 4000), False),
        ("90 % band, six runs", 0.10, of_band(6, 300), False),
    ]
    for numbers in pairs:
        for spread, said in spreads:
            name = f"{numbers[0]} and {numbers[1]} runs, spreads {said}"
            statements.append((f"differ, {name}", 0.05, of_verdict(numbers, spread), False))
            statements.append((f"90 % band, {name}", 0.10, of_verdict(numbers, spread, 0.90), False))
    statements += [
        ("95 % band, 7 and 4 runs, spreads 1:3", 0.05, of_verdict((7, 4), 3.0, 0.95), False),
        ("equivalent, 7 and 4 runs, spreads 1:3", 0.05, of_equivalence(3.0), True),
        ("differ, any of eight observables", 0.05, of_holm, True),
        ("differ at any of four looks", 0.05, of_looks, True),
        ("uniform directions", 0.05, of_uniformity, False),
        ("orientational free energy, 16 replicas", 0.05, of_free_energy, False),
        ("reweighted difference, one run", 0.05, of_reweighting(1, 2000, "error"), False),
        ("reweighted difference, six runs", 0.05, of_reweighting(6, 100, "error"), False),
        ("90 % band of reweighting, six runs", 0.10, of_reweighting(6, 100, "band"), False),
        ("95 % bound of reweighting, six runs", 0.05, of_reweighting(6, 100, "bound"), True),
    ]
    for number, (name, nominal, wrong, at_most) in enumerate(statements):
        rng = np.random.default_rng([2026, number])
        yield Line(name, nominal, sum(bool(wrong(rng)) for _ in range(repeats)), repeats, at_most)
    if certificates:
        counts = [trial(seed, 2) for seed in range(certificates)]
        plans, false = sum(each.plans for each in counts), sum(each.false for each in counts)
        yield Line("certificate of a plan, against an adversary", 0.05, false, plans, True)


def draw(found: list[Line]) -> plt.Figure:
    """Rates over the nominal ones, with 95 % intervals; the band is what is allowed."""
    with matplotlib.style.context(STYLE):
        figure, axes = plt.subplots(figsize=(8.0, 0.24 * len(found) + 1.0))
        axes.axvspan(1.0 - ALLOWED, 1.0 + ALLOWED, color=GRID, zorder=0)
        axes.axvline(1.0, color=INK, linewidth=0.7)
        for place, line in enumerate(found):
            low, high = (each / line.nominal for each in line.interval())
            colour = BLUE if line.calibrated() else VERMILLION
            axes.plot([low, high], [place, place], color=colour, linewidth=1.3)
            filled = "none" if line.at_most else colour
            axes.plot(line.rate / line.nominal, place, "o", markersize=4.5, color=colour, markerfacecolor=filled)
        axes.set_yticks(
            range(len(found)), [f"{each.name}  ({100 * each.nominal:.0f} %)" for each in found], fontsize=7.5
        )
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.set_xlim(-0.05, 5.0)
        axes.set_xlabel("observed rate of false statements / nominal rate")
    return figure


def main() -> None:
    """Count, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--certificates", type=int, default=200, help="toys of the adversary of plans")
    chosen = parser.parse_args()
    found = []
    for line in lines(chosen.repeats, chosen.certificates):
        low, high = line.interval()
        mark = "" if line.calibrated() else "  OFF"
        print(f"{line.name:48s} {line.nominal:5.2f}  {line.rate:6.3f} [{low:.3f}, {high:.3f}]{mark}", flush=True)
        found.append(line)
        written = [{**asdict(each), "rate": each.rate, "interval": each.interval()} for each in found]
        (FIGURES / "calibration.json").write_text(json.dumps(written, indent=1) + "\n", "utf-8")
    draw(found).savefig(FIGURES / "calibration.png", dpi=150, facecolor="white")


if __name__ == "__main__":
    main()
