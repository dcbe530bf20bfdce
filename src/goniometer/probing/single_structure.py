"""The probe of one structure: its response over a rule, and every figure that follows from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms

from goniometer.errors import GoniometerError, PotentialError
from goniometer.potentials.base import Potential
from goniometer.probing import contributions, noise_floor, repetition
from goniometer.probing.orientations import (
    Respond,
    aligned_weight,
    along_axes,
    anywhere,
    averaged_over_copies,
    is_box,
    joined_responses,
    part_of,
)
from goniometer.probing.procedure import Procedure
from goniometer.probing.residuals import Candidate
from goniometer.probing.result import (
    SINGULAR,
    Figure,
    Floor,
    LeftOut,
    Residual,
    RuleResidual,
    Spectrum,
    SphereMap,
    StructureResult,
    Torque,
)
from goniometer.probing.spectrum import Gram, gram, noise_by_ell, rounding_by_ell, sphere, variance_by_ell
from goniometer.probing.symmetry import forces_vanish
from goniometer.probing.torque import knows_torque, torque_by_rotation, torque_over_orbit, torques_of
from goniometer.rotations import Rule
from goniometer.symmetrization import Response

UNITS = {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å³"}

Tick = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class _Measured:
    """Deviations of one quantity from its mean over the rule, and what they give."""

    name: str
    mean: np.ndarray
    as_given: np.ndarray
    floor: Floor
    spectrum: Spectrum
    products: Gram
    variance: float
    largest: float
    largest_rms: float


def probe_structure(
    potential: Potential, name: str, structure: Atoms, plan: Procedure, progress: Tick | None = None
) -> StructureResult:
    """Probe one structure. Memory: the potential's own, and 72 (K + R) N + 32 K² + 65536 K bytes, see `probe`.

    Where the potential fails on inverted or on rotated copies, what does not need them is measured: the proper
    rotations, or the orientations that map the axes of a box onto each other.
    """
    if "rotation" in plan.without:
        return _probed(potential, name, structure, plan.along_axes, progress, [LeftOut("rotation", "as asked")])
    try:
        return _probed(potential, name, structure, plan, progress, [])
    except PotentialError as error:
        usable, left_out = _usable(potential, structure, plan, error)
        return _probed(potential, name, structure, usable, progress, left_out)


def _usable(
    potential: Potential, structure: Atoms, plan: Procedure, error: PotentialError
) -> tuple[Procedure, list[LeftOut]]:
    """What can be done where the whole failed with this error, and what cannot; raises the error where nothing can."""

    def why_not(respond: Respond, matrices: np.ndarray) -> str | None:
        try:
            respond(structure, matrices, None)
        except GoniometerError as failure:
            return str(failure)
        return None

    rotation = plan.nodes.matrices[:1] * np.sign(np.linalg.det(plan.nodes.matrices[0]))
    here, axes = anywhere(potential), along_axes(potential)
    if why_not(here, np.eye(3)[None]) is not None:
        raise error
    left_out = []
    failure = why_not(here, rotation)
    if failure is not None:
        if not is_box(structure) or why_not(axes, _THIRD) is not None:
            raise PotentialError(
                f"the structure as given can be evaluated, rotated copies of it cannot: {failure}"
            ) from error
        left_out.append(LeftOut("rotation", failure))
        plan, here = plan.along_axes, axes
    if plan.nodes.inversion:
        failure = why_not(here, -np.eye(3)[None])
        if failure is not None:
            left_out.append(LeftOut("inversion", failure))
            plan = plan.proper.along_axes if plan.axes_only else plan.proper
    if not left_out:
        raise error
    return plan, left_out


# A rotation by 120° about the diagonal, which maps x to y to z.
_THIRD = np.array([[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])


def _probed(
    potential: Potential, name: str, structure: Atoms, plan: Procedure, progress: Tick | None, left_out: list[LeftOut]
) -> StructureResult:
    start, evaluated = time.perf_counter(), 0

    def tick(count: int) -> None:
        nonlocal evaluated
        evaluated += count
        if progress is not None:
            progress(count)

    rng = np.random.default_rng(plan.seed)
    evaluate = along_axes(potential) if plan.axes_only else anywhere(potential)

    def respond(atoms: Atoms, matrices: np.ndarray, _: object = None) -> Response:
        return evaluate(atoms, matrices, tick)

    setting = noise_floor.Setting(respond, structure, potential.dtype, plan.without, tilted=not plan.axes_only)
    whole = respond(structure, np.concatenate([np.eye(3)[None], plan.nodes.matrices]))
    quantities = quantities_of(whole, structure)
    torques = torques_of(structure, whole) if knows_torque(potential, structure) else None
    functions = {**quantities, **({"torque": torques} if torques is not None else {})}
    again = repetition.repeat(respond, structure, whole, quantities, min(plan.repeats, len(whole)), rng, None)
    few = part_of(whole, slice(1, 1 + min(noise_floor.NODES, len(plan.nodes))))
    floors, failed = noise_floor.measure(setting, few, again.compared(whole), functions, rng)
    judge = repetition.Judge.of(whole, quantities, floors, potential.dtype)
    repeats = repetition.judged(again, whole, judge, respond, structure)
    found = {each: _measure(each, function(whole), plan, floors[each]) for each, function in quantities.items()}
    special = whole if plan.axes_only else respond(structure, plan.special.matrices)
    special = _confirmed(special, found, quantities, respond, structure)
    figures = {
        each: _with_special(_figure(found[each], len(structure)), found[each], quantities[each](special))
        for each in found
    }
    figures = contributions.attributed(
        figures, repeats, contributions.Pairs(setting, whole, again, judge, rng), quantities
    )
    if torques is not None:
        torque = torque_over_orbit(torques(whole), found["energy"].spectrum, floors["torque"], plan.nodes)
    elif plan.axes_only:
        torque = Torque(0.0, None, 0.0, 0.0)
    else:
        torque = torque_by_rotation(respond, structure, found["energy"].spectrum, floors["energy"].value, None)
    rules = _rules(respond, structure, found, figures, quantities, plan, special)
    map_ = sphere(plan.nodes, whole.energies[1:] - found["energy"].mean, plan.lmax)
    return StructureResult(
        name=name,
        n_atoms=len(structure),
        formula=structure.get_chemical_formula(),
        numbers=structure.numbers.tolist(),
        positions=structure.positions.tolist(),
        cell=structure.cell.array.tolist(),
        pbc=structure.pbc.tolist(),
        evaluations=evaluated,
        seconds=time.perf_counter() - start,
        energy=figures["energy"],
        forces=figures["forces"],
        stress=figures.get("stress"),
        torque=torque,
        net_force=float(np.linalg.norm(whole.forces[0].sum(axis=0))),
        force_rms_per_atom=_per_atom(whole, found["forces"].mean, plan.nodes).tolist(),
        orbit_energies=(whole.energies[1:] - found["energy"].mean).tolist(),
        sphere=SphereMap(
            axis=map_.axis,
            latitude=map_.latitude.tolist(),
            longitude=map_.longitude.tolist(),
            values=map_.values.tolist(),
            share=map_.share,
        ),
        rules=rules,
        repeats=repeats,
        left_out=[*left_out, *failed],
        symmetric=forces_vanish(structure),
    )


def _confirmed(
    special: Response,
    found: dict[str, _Measured],
    quantities: dict[str, noise_floor.Quantity],
    respond: Respond,
    structure: Atoms,
) -> Response:
    """The response at special orientations, where those that deviate as no random one does were evaluated again.

    Of two evaluations of a quantity that is nearer to the mean is taken: an outlier is no special orientation.
    """
    again = np.zeros(len(special), dtype=bool)
    for name, part in found.items():
        deviation = _deviations(quantities[name](special), part.mean)
        again |= (deviation > SINGULAR * part.largest_rms) & (deviation > 5.0 * part.floor.value)
    if not again.any():
        return special
    second = respond(structure, special.matrices[again], None)
    kept = []
    for number, place in enumerate(np.flatnonzero(again)):
        one, other = part_of(special, slice(place, place + 1)), part_of(second, slice(number, number + 1))
        near = _deviations(one.forces, found["forces"].mean) <= _deviations(other.forces, found["forces"].mean)
        kept.append(one if near[0] else other)
    rest = part_of(special, ~again)
    joined = joined_responses([rest, *kept])
    order = np.argsort(np.concatenate([np.flatnonzero(~again), np.flatnonzero(again)]))
    return part_of(joined, order)


def _deviations(values: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Rms over components of the deviation from the mean, (M,)."""
    return np.asarray(np.sqrt(np.mean((values - mean).reshape(len(values), -1) ** 2, axis=1)))


def _with_special(figure: Figure, part: _Measured, special: np.ndarray) -> Figure:
    return replace(figure, special=float(_deviations(special, part.mean).max()), random=part.largest_rms)


def quantities_of(whole: Response, structure: Atoms) -> dict[str, noise_floor.Quantity]:
    """Functions that take the quantities of the report, (M, …), from a response."""
    quantities: dict[str, noise_floor.Quantity] = {"energy": lambda r: r.energies, "forces": lambda r: r.forces}
    if whole.virials is not None and structure.pbc.all():
        volume = structure.get_volume()
        quantities["stress"] = lambda r: r.virials / volume
    return quantities


def _measure(name: str, values: np.ndarray, plan: Procedure, floor: Floor) -> _Measured:
    """``values`` (1 + K, …): as given first, then at the nodes."""
    nodes = plan.nodes
    mean = weighted_mean(nodes, values[1:])
    deviations = values[1:] - mean
    products = gram(deviations)
    variance = float(nodes.weights @ np.diag(products))
    spectrum = _spectrum(products, variance, float(np.mean(mean**2)), plan, floor)
    as_given = np.asarray(values[0] - mean)
    largest = float(max(np.abs(deviations).max(), np.abs(as_given).max()))
    largest_rms = float(np.sqrt(max(np.diag(products).max(), 0.0)))
    return _Measured(name, mean, as_given, floor, spectrum, products, max(variance, 0.0), largest, largest_rms)


def _spectrum(products: Gram, variance: float, mean_square: float, plan: Procedure, floor: Floor) -> Spectrum:
    nodes, lmax = plan.nodes, plan.lmax
    if plan.axes_only:
        return _unresolved(variance, mean_square, plan)
    plus, minus = variance_by_ell(nodes, products, lmax)
    resolved = float(plus[1:].sum() + (minus.sum() if minus is not None else 0.0))
    unresolved = variance - resolved
    plus[0] += mean_square
    below = noise_by_ell(nodes, floor.value**2, lmax) + rounding_by_ell(variance, lmax)
    hidden = plan.hidden * max(unresolved, 0.0)
    below += plan.leak * hidden
    return Spectrum(
        plus=plus.tolist(),
        minus=None if minus is None else minus.tolist(),
        floor=below.tolist(),
        unresolved=unresolved,
        resolved=max(0.0, 1.0 - hidden / variance) if variance > 0 else None,
    )


def _unresolved(variance: float, mean_square: float, plan: Procedure) -> Spectrum:
    """Of the axes' orientations alone: nothing is resolved, since every ℓ looks like another one there."""
    floor, minus = [variance] * (plan.lmax + 1), [0.0] * (plan.lmax + 1) if plan.nodes.inversion else None
    resolved = 0.0 if variance > 0.0 else None
    return Spectrum([mean_square, *[0.0] * plan.lmax], minus, floor, variance, resolved)


def _figure(found: _Measured, atoms: int) -> Figure:
    rms = float(np.sqrt(found.variance))
    energy = found.name == "energy"
    return Figure(
        unit=UNITS[found.name],
        mean=float(found.mean) if energy else float(np.sqrt(np.mean(found.mean**2))),
        rms=rms,
        as_given=float(found.as_given) if energy else float(np.sqrt(np.mean(found.as_given**2))),
        max=found.largest,
        floor=found.floor.value,
        floors=found.floor,
        spectrum=found.spectrum,
        rms_per_atom=rms / atoms if energy else None,
        mae_as_given=float(np.mean(np.abs(found.as_given))),
        floor_per_atom=found.floor.value / atoms if energy else None,
    )


def _per_atom(whole: Response, mean: np.ndarray, nodes: Rule) -> np.ndarray:
    """Rms force error of each atom, per component."""
    square = np.zeros(len(mean))
    for weight, forces in zip(nodes.weights, whole.forces[1:], strict=True):
        square += weight * np.mean((forces - mean) ** 2, axis=1)
    return np.sqrt(square)


def _rules(
    respond: Respond,
    structure: Atoms,
    found: dict[str, _Measured],
    figures: dict[str, Figure],
    quantities: dict[str, noise_floor.Quantity],
    plan: Procedure,
    special: Response,
) -> list[RuleResidual]:
    """Predictions for every candidate; measurements of those rules that are to be measured, and of the identity."""
    measured: dict[tuple[str, bool], dict[str, float]] = {
        ("identity", False): {each: _rms(part.as_given) for each, part in found.items()}
    }

    def residuals(rule: Rule, over: Response) -> dict[str, float]:
        return {
            each: _rms(np.asarray(weighted_mean(rule, function(over)) - found[each].mean))
            for each, function in quantities.items()
        }

    for rule in plan.rows:
        measured[rule.name, rule.inversion] = residuals(rule, respond(structure, rule.matrices, None))
    if not plan.axes_only:
        measured[plan.special.name, plan.special.inversion] = residuals(plan.special, special)
    rows = []
    for candidate in plan.candidates:
        rule = candidate.rule
        seen = measured.get((rule.name, rule.inversion), {})
        copies = averaged_over_copies(rule, special.matrices)
        left = {}
        for each, part in found.items():
            residual = _residual(candidate, part, figures[each], seen.get(each), plan)
            if copies is not None:
                means = np.tensordot(copies, quantities[each](special), axes=1)
                residual = replace(residual, special=float(_deviations(means, part.mean).max()))
            left[each] = residual
        rows.append(
            RuleResidual(
                name=rule.name,
                n=len(rule),
                degree=rule.degree,
                inversion=rule.inversion,
                energy=left["energy"],
                forces=left["forces"],
                stress=left.get("stress"),
            )
        )
    return rows


def _residual(
    candidate: Candidate, part: _Measured, figure: Figure, measured: float | None, plan: Procedure
) -> Residual:
    spectrum, rule = part.spectrum, candidate.rule
    if plan.axes_only:  # nothing is known of a rule's error in other orientations
        return Residual(float(np.sqrt(part.variance)), 0.0, None, measured)
    minus = None if spectrum.minus is None else np.array(spectrum.minus)
    tail = plan.hidden * max(spectrum.unresolved, 0.0)
    predicted = candidate.predict(np.array(spectrum.plus), minus, tail, part.products)
    residual = Residual(predicted.over_turns, predicted.tail, predicted.as_it_stands, measured)
    if not figure.singular:
        return residual
    added = aligned_weight(rule.matrices, rule.weights) * (figure.special or 0.0)
    return replace(residual, special=residual.most + added)


def weighted_mean(rule: Rule, values: np.ndarray) -> np.ndarray:
    """Σ_k w_k v_k over the first axis."""
    # Relative to a first value, since weights sum to 1 only to rounding: what is constant deviates by exactly nothing.
    return np.asarray(values[0] + np.tensordot(rule.weights, values - values[0], axes=1))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
