"""What the experiments of the study find: plain data, from which numbers, figures and reports are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from goniometer.comparison.runs import Report
from goniometer.dynamics.optimization import Relaxed
from goniometer.observables.result import Observable

#: Grid to a value and its error, None where it is not known.
Curve = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class GasStudy:
    """What figure 1 shows; names of runs are those of their descriptions.

    Attributes
    ----------
    momenta
        Angular momentum against time by run.
    grids
        What every grid leaves, from :func:`goniometer.observables.gas.by_grid`.
    spectra
        Power spectra of the potential and of what averaging adds to it.
    free_energies
        Orientational free energies by run.
    drifts
        Slopes of the conserved quantity at constant energy, per molecule, by run.
    model
        What the runs are of.
    """

    momenta: Mapping[str, Observable]
    grids: Observable
    spectra: Mapping[str, Observable]
    free_energies: Mapping[str, Observable]
    drifts: Mapping[str, Observable]
    model: str


@dataclass(frozen=True)
class Bound:
    """How far a strategy can be from the averaged ensemble in an observable.

    Attributes
    ----------
    seen
        The largest difference that was found.
    upper
        What the largest of the bias is below, with 95 % confidence, one-sided.
    unit
        Of both.
    way
        How it is known, in words.
    """

    seen: float
    upper: float
    unit: str
    way: str


@dataclass(frozen=True)
class StrategyCost:
    """What a strategy takes, and what it may get wrong.

    Attributes
    ----------
    evaluations
        Of the model, for each (inner) time step.
    seconds, seconds_error
        A ps, on the machine where it ran; the error is the scatter over runs, NaN for a single one.
    temperature
        Of its velocities, in K.
    target
        The temperature of the thermostat, in K.
    heat
        The slope of the conserved quantity of the box, in eV/ps: what the thermostat has to take.
    bounds
        Of its bias, by observable.
    potential
        Of the bias of the potential that it samples, without that of the integrator; none if it samples none.
    """

    evaluations: float
    seconds: float
    temperature: Observable
    seconds_error: float = float("nan")
    target: float = float("nan")
    heat: Observable | None = None
    bounds: Mapping[str, Bound] = field(default_factory=dict)
    potential: Mapping[str, Bound] = field(default_factory=dict)

    def times(self, raw: StrategyCost) -> tuple[float, float]:
        """The time of another one's, and the error of that."""
        ratio = self.seconds / raw.seconds
        if self is raw:
            return 1.0, 0.0
        return ratio, ratio * float(np.hypot(self.seconds_error / self.seconds, raw.seconds_error / raw.seconds))


@dataclass(frozen=True)
class LiquidStudy:
    """What figures 2 and 3 show; names of runs are those of their descriptions.

    Attributes
    ----------
    model, lengths
        What the runs are of, and how many ps of each there are.
    drawn
        Kind of observable to run to values: ``orientation``, ``g_OO``, ``c_uu(r)``, ``displacement``, ``c_uu(t)``.
    conserved, drifts
        The conserved quantity of the box against time, and its slope, by run.
    grids
        The symmetry error by grid on frames of the raw runs; None if it was left out.
    differences
        Kind of observable to grid to what averaging over it changes, by reweighting the raw runs.
    costs
        Of each run.
    verdicts
        Each run against the raw one, or why they cannot be compared.
    reference
        What bounds of the bias are taken from, in words.
    molecules
        Of the box.
    remaining
        Kind of observable to grid, ``none`` among them, to the ensemble of the finest grid less that of this one.
    window
        From when to when ``drawn`` is taken of each run, in ps; NaN for results in which it is not known.
    too_short
        Of the strategies whose runs are too short for bounds, why.
    """

    model: str
    lengths: Mapping[str, float]
    drawn: Mapping[str, Mapping[str, Observable]]
    drifts: Mapping[str, Observable]
    grids: Observable | None
    differences: Mapping[str, Mapping[str, Observable]]
    costs: Mapping[str, StrategyCost]
    verdicts: Mapping[str, Report | str]
    conserved: Mapping[str, Observable]
    molecules: int
    reference: str = ""
    remaining: Mapping[str, Mapping[str, Observable]] = field(default_factory=dict)
    window: tuple[float, float] = (float("nan"), float("nan"))
    too_short: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CellEnergies:
    """Of relaxed cells, each by its own potential, less their mean over cells, in meV for each molecule.

    Attributes
    ----------
    names
        Of the cells.
    raw, averaged
        In their order.
    """

    names: Sequence[str]
    raw: Sequence[float]
    averaged: Sequence[float]


@dataclass(frozen=True)
class IceStudy:
    """What the study says of ice.

    Attributes
    ----------
    model
        What it is of.
    table
        Raw against averaged: the six quantities of :func:`ice`, or the two of starting structures, with the scatter
        over cells.
    grids
        The first and the fifth of them for every grid on the starting structures.
    raw, averaged
        The relaxations.
    """

    model: str
    table: Observable
    grids: Observable
    raw: Mapping[str, Relaxed]
    averaged: Mapping[str, Relaxed]


@dataclass(frozen=True)
class GridComparison:
    """What each grid leaves in one kind of frames.

    Attributes
    ----------
    where, label
        Frames of what: ``test``, ``liquid`` or ``gas``, and in words.
    energies, forces
        In meV a structure and meV/Å a component.
    given_energies, given_forces
        The same of the study.
    """

    where: str
    label: str
    energies: Curve
    forces: Curve
    given_energies: Mapping[str, float]
    given_forces: Mapping[str, float]
