"""The cheapest rule that brings the symmetry error below a tolerance: looked up in a probe, then measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from goniometer.errors import InputError
from goniometer.planning.tolerance import Quantity, Tolerance, parse_tolerance
from goniometer.potentials import Potential
from goniometer.potentials.loading import load
from goniometer.probing.document import read_probe
from goniometer.probing.measure import probe
from goniometer.probing.residuals import TAIL
from goniometer.probing.result import Figure, ProbeResult, RuleResidual, StructureResult
from goniometer.probing.single_structure import quantities_of, weighted_mean
from goniometer.probing.spectrum import tail_factor
from goniometer.progress import Progress
from goniometer.rotations import Rule, rule
from goniometer.symmetrization import Response, response
from goniometer.symmetrization.verification import refused

SCHEMA = "goniometer/plan/1"
# Two evaluations of one structure by one model differ by less than this many floors.
_SAME = 20.0
#: How many rules are measured before giving up.
ATTEMPTS = 4


@dataclass(frozen=True)
class Measurement:
    """The residual of the planned rule on one structure, rms per component, against an independently turned finer rule.

    ``predicted`` is what the probe let expect, ``uncertainty`` twice the rms that the finer rule may leave itself,
    ``limit`` the tolerance.
    """

    structure: str
    quantity: Quantity
    predicted: float
    measured: float
    uncertainty: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the residual is below the limit even if the reference errs as far as it may."""
        return self.measured + self.uncertainty <= self.limit


@dataclass(frozen=True)
class RulePlan:
    """A rule that meets the tolerances, what it costs, and whether that was measured.

    ``certified`` is True if every measurement holds, False if it was refused or failed, None if it was not asked for;
    ``reason`` says which. ``n`` is the number of evaluations of the potential that one symmetrized evaluation takes.
    ``limits`` holds, for each structure and quantity, the tolerance in eV, eV/Å or eV/Å³, and ``predicted`` what is
    expected.
    """

    rule: str
    inversion: bool
    n: int
    degree: int
    tolerances: list[str]
    limits: dict[str, dict[Quantity, float]]
    predicted: dict[str, dict[Quantity, float]]
    certified: bool | None
    reason: str
    reference: str | None
    measurements: list[Measurement]
    failed: list[str]
    schema: str = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain dictionaries and lists."""
        return asdict(self)


def plan(
    source: Any,
    structures: Any = None,
    *,
    force: str | float | Tolerance | None = None,
    energy: str | float | Tolerance | None = None,
    stress: str | float | Tolerance | None = None,
    potential: Any = None,
    certify: bool = True,
    without: Iterable[str] = (),
    seed: int = 1,
    progress: Progress | None = None,
) -> RulePlan:
    """Find the cheapest rule whose average is within given tolerances of the average over the whole of O(3).

    The residual of every rule is predicted from a probe: √Σ P_ℓ ρ_ℓ in the mean over turns of the rule, and for the
    rule as it stands from the response reconstructed from the probe's nodes; of the two the larger is taken, and the
    most that the unresolved variance could add. What the probe measured counts where it is larger, as does the largest
    residual in the input orientation and its octahedral copies. The cheapest rule that is within every tolerance on
    every structure is then measured, against an independently turned rule of higher degree, and the next one if the
    measurement does not bear it out.

    Parameters
    ----------
    source
        A :class:`ProbeResult` or the JSON file of one, or a potential (or what :func:`goniometer.load` takes) that is
        then probed.
    structures
        For the probe; see :func:`goniometer.probe`. None if ``source`` is a result, which has its own.
    force, energy, stress
        Tolerances: ``"0.1meV/Å"``, ``"1meV"`` per structure or ``"0.1meV/atom"``, ``"1MPa"``; a number is in eV/Å, eV
        per structure and eV/Å³. Root mean square per component. At least one.
    potential
        What to certify with if ``source`` is a result.
    certify
        Whether to measure; it takes the rule's evaluations and those of the finer rule on every structure.
    without
        Operations that the probe leaves out; see :func:`goniometer.probe`.
    seed
        Of the turn of the finer rule.

    Raises
    ------
    InputError
        If no tolerance is given, if none of the known rules is predicted to meet them, or if ``structures`` are given
        beside a result.
    """
    tolerances = parse_tolerances(force=force, energy=energy, stress=stress)
    if isinstance(source, str | Path) and Path(source).suffix == ".json":
        source = read_probe(source)
    if isinstance(source, ProbeResult):
        if structures is not None:
            raise InputError(
                "a plan from a probe is for the structures of the probe: leave structures out, or probe anew"
            )
        result = source
        certifier = None if potential is None else load(potential)
    else:
        certifier = load(source)
        result = probe(certifier, structures, without=without, progress=progress)
        if not result.complete:
            raise KeyboardInterrupt
    if not result.structures:
        reasons = "; ".join(each.sentence for each in result.failures) or "it holds none"
        raise InputError(f"the probe has no structure to plan for ({reasons})")
    _check_quantities(result, tolerances)
    if certifier is not None:
        _check_model(result, certifier, tolerances)
    refusal = _refusal(result, tolerances)
    faulty = [f"refused: {each.sentence}" for each in result.faults]
    meeting = [each for each in _rules(result) if _meets(result, each, tolerances)]
    if not meeting:
        raise InputError((faulty or [refusal or _nothing_meets(result, tolerances)])[0])
    if faulty:
        return _made(result, meeting[0], tolerances, False, faulty[0], None, [], [])
    if not certify or certifier is None:
        return _made(result, meeting[0], tolerances, None, _unmeasured(result, meeting[0]), None, [], [])
    if refusal is None:
        refusal = refused(certifier, [_atoms(each) for each in result.structures], rule(*meeting[0]))
    if refusal is not None:
        return _made(result, meeting[0], tolerances, False, refusal, None, [], [])
    return _certified(certifier, result, meeting[:ATTEMPTS], tolerances, seed, progress)


def parse_tolerances(**given: str | float | Tolerance | None) -> list[Tolerance]:
    """Tolerances of ``force``, ``energy`` and ``stress``, where a number is in eV/Å, eV and eV/Å³; one at least."""
    units = {"force": "eV/Å", "energy": "eV", "stress": "eV/Å³"}
    found = []
    for quantity, value in given.items():
        if isinstance(value, Tolerance):
            found.append(value)
        elif value is not None:
            text = value if isinstance(value, str) else f"{value}{units[quantity]}"
            found.append(parse_tolerance(quantity, text))
    if not found:
        raise InputError("a plan needs a tolerance: force='0.1meV/Å', energy='0.1meV/atom' or stress='1MPa'")
    return found


def _check_quantities(result: ProbeResult, tolerances: Sequence[Tolerance]) -> None:
    for tolerance in tolerances:
        if all(tolerance.figure(each) is None for each in result.structures):
            raise InputError(
                f"no structure of the probe has a {tolerance.quantity}, which {tolerance.text} would limit"
            )


def _check_model(result: ProbeResult, potential: Potential, tolerances: Sequence[Tolerance]) -> None:
    if potential.virial == "none" and any(tolerance.quantity == "stress" for tolerance in tolerances):
        raise InputError(f"{potential.name} gives no stress here, which a tolerance would limit")
    then, now = (result.model.name, result.model.dtype), (potential.name, potential.dtype)
    if then != now:
        raise InputError(f"the probe is of {' in '.join(then)}; it cannot be certified with {' in '.join(now)}")
    if potential.stochastic:
        return
    for structure in result.structures:
        known = structure.energy.mean + structure.energy.as_given
        energy = float(potential.predict(_atoms(structure)).energies[0])
        if abs(energy - known) > _SAME * structure.energy.floor + 1e-9 * abs(known):
            raise InputError(
                f"{potential.name} gives {energy:.9g} eV for {structure.name} where the probe found {known:.9g} eV: "
                "it is not the model that was probed"
            )


def _rules(result: ProbeResult) -> list[tuple[str, bool]]:
    """Names of the rules that were predicted for every structure, the cheapest first."""
    listed = sorted(result.structures[0].rules, key=lambda each: (each.n, -each.degree))
    inverted = not _fails_on(result, "inversion")
    return [(each.name, each.inversion) for each in listed if inverted or not each.inversion]


def _fails_on(result: ProbeResult, operation: str) -> list[str]:
    """Names of the structures on which the potential failed at an operation."""
    return [each.name for each in result.structures if any(left.operation == operation for left in each.left_out)]


def _row(structure: StructureResult, name: tuple[str, bool]) -> RuleResidual:
    for each in structure.rules:
        if (each.name, each.inversion) == name:
            return each
    raise InputError(f"the probe predicts nothing for the rule {name[0]} on {structure.name}; probe it anew")


def _meets(result: ProbeResult, name: tuple[str, bool], tolerances: Sequence[Tolerance]) -> bool:
    for structure in result.structures:
        row = _row(structure, name)
        for tolerance in tolerances:
            residual = tolerance.residual(row)
            if residual is not None and residual.most > tolerance.limit(structure.n_atoms):
                return False
    return True


def _nothing_meets(result: ProbeResult, tolerances: Sequence[Tolerance]) -> str:
    """Says how far the best rule comes for each tolerance, on the structure where it is worst."""
    texts = []
    for tolerance in tolerances:
        worst = [
            max(
                (residual.most / tolerance.limit(structure.n_atoms), structure.name)
                for structure in result.structures
                if (residual := tolerance.residual(_row(structure, name))) is not None
            )
            for name in _rules(result)
        ]
        ratio, where = min(worst)
        if ratio > 1.0:
            texts.append(f"{tolerance.quantity} {tolerance.text} is missed by a factor of {ratio:.3g} on {where}")
    hint = "; probe with a higher lmax if the unresolved tail stands in the way, or ask for less"
    return f"no known rule meets the tolerance: {'; '.join(texts) or 'each fails on some structure'}{hint}"


def _unmeasured(result: ProbeResult, name: tuple[str, bool]) -> str:
    if result.rule.inversion or name[1]:
        return "not measured"
    return (
        "not measured, and the probe, without inversion itself, saw nothing of a part that only changes sign under "
        "inversion (odd, ℓ = 0): this rule would leave it"
    )


def _refusal(result: ProbeResult, tolerances: Sequence[Tolerance]) -> str | None:
    """Why a tolerance cannot be certified, if rotated copies or the noise of the model do not allow it."""
    fixed = _fails_on(result, "rotation")
    if fixed:
        return (
            f"refused: the model could be evaluated on {fixed[0]} only in orientations that exchange the axes, and "
            "nothing is known of others"
        )
    for structure in result.structures:
        for tolerance in tolerances:
            figure: Figure | None = tolerance.figure(structure)
            if figure is not None and tolerance.limit(structure.n_atoms) < figure.floor:
                return (
                    f"refused: {tolerance.quantity} {tolerance.text} lies below the noise floor of the model on "
                    f"{structure.name} ({figure.floor:.2g} {figure.unit})"
                )
    return None


def _certified(
    potential: Potential,
    result: ProbeResult,
    names: Sequence[tuple[str, bool]],
    tolerances: Sequence[Tolerance],
    seed: int,
    progress: Progress | None,
) -> RulePlan:
    """Measure the rules in turn until one holds; the finer rule is evaluated once for each degree that it needs."""
    references: dict[str, list[dict[str, np.ndarray]]] = {}
    failed: list[str] = []
    atoms = [_atoms(each) for each in result.structures]

    def means(over: Rule, what: str) -> list[dict[str, np.ndarray]]:
        whole, done = sum(len(each) for each in atoms) * len(over), 0
        found = []
        for structure, label in zip(atoms, result.structures, strict=True):

            def tick(count: int, name: str = label.name, size: int = len(structure)) -> None:
                nonlocal done
                done += count * size
                if progress is not None:
                    progress(done, whole, f"{what} on {name}")

            found.append(_means(response(potential, structure, over.matrices, tick), over, structure))
        return found

    hidden, inverted = _hidden(result), not _fails_on(result, "inversion")
    # Never the turn of the probe itself, whose nodes the prediction rests on.
    turn = int(np.random.SeedSequence([result.rule.seed or 0, seed, 1]).generate_state(1)[0])
    last: RulePlan | None = None
    for name in names:
        chosen = rule(*name)
        degree = max(2 * result.lmax, chosen.degree + 3)
        finer = rule(f"degree:{degree}", inversion=inverted).turned_at_random(turn)
        if finer.name not in references:
            references[finer.name] = means(finer, f"reference {finer.name}")
        averaged = means(chosen, chosen.name)
        rows = [
            row
            for structure, mean, reference in zip(result.structures, averaged, references[finer.name], strict=True)
            for row in _compare(structure, name, finer, mean, reference, tolerances, hidden)
        ]
        wrong = [row for row in rows if not row.holds]
        label = f"{finer.name} {'with' if inverted else 'without'} inversion, turned with seed {turn}"
        if not wrong:
            reason = f"measured against {label}"
            return _made(result, name, tolerances, True, reason, label, rows, failed)
        reason = _why_not(max(wrong, key=lambda row: (row.measured + row.uncertainty) / row.limit))
        last = _made(result, name, tolerances, False, reason, label, rows, failed)
        failed.append(f"{chosen.name}{' with inversion' if chosen.inversion else ''}: {reason}")
    assert last is not None  # names is not empty
    return last


def _hidden(result: ProbeResult) -> float:
    """The tail factor of the probe's nodes; a document that lacks it names a rule that can be made again."""
    if result.tail_factor is not None:
        return result.tail_factor
    return tail_factor(rule(result.rule.name, result.rule.inversion), result.lmax, result.lmax + TAIL)


def _why_not(worst: Measurement) -> str:
    if worst.measured > worst.limit:
        left = f"{worst.measured:.3g}, above {worst.limit:.3g}"
        return f"failed: on {worst.structure} the residual of the {worst.quantity} is {left}"
    hidden = f"{worst.uncertainty:.2g} of the {worst.quantity}, and the tolerance is {worst.limit:.2g}"
    return f"refused: on {worst.structure} the unresolved tail could hide {hidden}"


def _atoms(structure: StructureResult) -> Atoms:
    return Atoms(structure.numbers, positions=structure.positions, cell=structure.cell, pbc=structure.pbc)


def _means(over: Response, averaged: Rule, structure: Atoms) -> dict[str, np.ndarray]:
    return {name: weighted_mean(averaged, quantity(over)) for name, quantity in quantities_of(over, structure).items()}


def _compare(
    structure: StructureResult,
    name: tuple[str, bool],
    finer: Rule,
    mean: dict[str, np.ndarray],
    reference: dict[str, np.ndarray],
    tolerances: Sequence[Tolerance],
    hidden: float,
) -> list[Measurement]:
    rows = []
    for tolerance in tolerances:
        figure, residual = tolerance.figure(structure), tolerance.residual(_row(structure, name))
        if figure is None or residual is None:
            continue
        difference = mean[tolerance.quantity] - reference[tolerance.quantity]
        rows.append(
            Measurement(
                structure=structure.name,
                quantity=tolerance.quantity,
                predicted=residual.most,
                measured=float(np.sqrt(np.mean(difference**2))),
                uncertainty=2.0 * _left_by(finer, figure, hidden),
                limit=tolerance.limit(structure.n_atoms),
            )
        )
    return rows


def _left_by(finer: Rule, figure: Figure, hidden: float) -> float:
    """What the reference may leave itself: of the resolved spectrum, and of the tail at the worst ℓ."""
    spectrum = figure.spectrum
    low = len(spectrum.plus)
    even, odd = finer.residuals(low - 1 + TAIL)
    resolved = float(np.maximum(spectrum.plus[1:], 0.0) @ even[1:low])
    tail = hidden * max(spectrum.unresolved, 0.0) * max(even[low:].max(), odd[low:].max(), 0.0)
    return float(np.sqrt(max(resolved, 0.0) + tail))


def _made(
    result: ProbeResult,
    name: tuple[str, bool],
    tolerances: Sequence[Tolerance],
    certified: bool | None,
    reason: str,
    reference: str | None,
    measurements: list[Measurement],
    failed: list[str],
) -> RulePlan:
    row = _row(result.structures[0], name)
    limits: dict[str, dict[Quantity, float]] = {}
    expected: dict[str, dict[Quantity, float]] = {}
    for structure in result.structures:
        limits[structure.name], expected[structure.name] = {}, {}
        for tolerance in tolerances:
            residual = tolerance.residual(_row(structure, name))
            if residual is not None:
                limits[structure.name][tolerance.quantity] = tolerance.limit(structure.n_atoms)
                expected[structure.name][tolerance.quantity] = residual.most
    return RulePlan(
        rule=row.name,
        inversion=row.inversion,
        n=row.n,
        degree=row.degree,
        tolerances=[f"{each.quantity} {each.text}" for each in tolerances],
        limits=limits,
        predicted=expected,
        certified=certified,
        reason=reason,
        reference=reference,
        measurements=measurements,
        failed=list(failed),
    )
