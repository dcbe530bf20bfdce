"""The probe of one structure: its response over a rule, and every figure that follows from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase import Atoms

from goniometer.potentials.base import Potential
from goniometer.probe import floor as noise_floor
from goniometer.probe.residuals import TAIL, Candidate
from goniometer.probe.result import (
    Figure,
    Floor,
    Residual,
    RuleResidual,
    Spectrum,
    SphereMap,
    StructureResult,
    Torque,
)
from goniometer.probe.spectrum import (
    Gram,
    gram,
    leak_matrix,
    noise_by_ell,
    rounding_by_ell,
    sphere,
    tail_factor,
    variance_by_ell,
)
from goniometer.rotations import Rule
from goniometer.symmetrize import Response, response

UNITS = {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å³"}
#: Step, in radians, of the finite rotations that give the torque where virials are symmetric.
_STEP = 0.05
# Fourth-order central difference: the points, in steps, and their weights.
_STENCIL = ((-2.0, 1 / 12), (-1.0, -2 / 3), (1.0, 2 / 3), (2.0, -1 / 12))

Tick = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Plan:
    """What is done to every structure alike."""

    nodes: Rule
    lmax: int
    candidates: list[Candidate]
    measured: list[Rule]
    seed: int

    @cached_property
    def hidden(self) -> float:
        """The largest ratio of the variance beyond lmax to what the spectrum shows to be missing."""
        return tail_factor(self.nodes, self.lmax, self.lmax + TAIL)

    @cached_property
    def leak(self) -> np.ndarray:
        """The largest part of a variance at any one ℓ above the resolved ones that turns up in P_ℓ, (lmax + 1,)."""
        leaked = leak_matrix(self.nodes, self.lmax, self.lmax + TAIL)[:, self.lmax + 1 :].max(axis=1)
        return np.maximum(leaked, 0.0)

    def evaluations(self, potential: Potential, structure: Atoms) -> int:
        """How many evaluations the structure takes."""
        floors = len(noise_floor.SOURCES) * min(noise_floor.NODES, len(self.nodes))
        finite = 0 if _knows_torque(potential, structure) else 3 * len(_STENCIL)
        return 1 + len(self.nodes) + floors + finite + sum(len(each) for each in self.measured)


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


def probe_structure(
    potential: Potential, name: str, structure: Atoms, plan: Plan, progress: Tick | None = None
) -> StructureResult:
    """Probe one structure. Memory: the potential's own, and 72 K N + 32 K² + 65536 K bytes, see `probe`."""
    start = time.perf_counter()
    rng = np.random.default_rng(plan.seed)
    matrices = np.concatenate([np.eye(3)[None], plan.nodes.matrices])
    whole = response(potential, structure, matrices, progress)
    quantities = quantities_of(whole, structure)
    few = _part(whole, slice(1, 1 + min(noise_floor.NODES, len(plan.nodes))))
    torques = _torques(structure, whole) if _knows_torque(potential, structure) else None
    functions = {**quantities, **({"torque": torques} if torques is not None else {})}
    floors = noise_floor.measure(potential, structure, few, functions, rng, progress)
    found = {each: _measure(each, function(whole), plan, floors[each]) for each, function in quantities.items()}
    if torques is not None:
        torque = _torque_over_orbit(torques(whole), found["energy"], floors["torque"], plan)
    else:
        torque = _torque_by_rotation(potential, structure, found["energy"], plan, progress)
    per_atom = _per_atom(whole, found["forces"].mean, plan.nodes)
    rules = _rules(potential, structure, found, quantities, plan, progress)
    figures = {each: _figure(found[each], len(structure)) for each in found}
    map_ = sphere(plan.nodes, whole.energies[1:] - found["energy"].mean, plan.lmax)
    return StructureResult(
        name=name,
        n_atoms=len(structure),
        formula=structure.get_chemical_formula(),
        numbers=structure.numbers.tolist(),
        positions=structure.positions.tolist(),
        cell=structure.cell.array.tolist(),
        pbc=structure.pbc.tolist(),
        evaluations=plan.evaluations(potential, structure),
        seconds=time.perf_counter() - start,
        energy=figures["energy"],
        forces=figures["forces"],
        stress=figures.get("stress"),
        torque=torque,
        net_force=float(np.linalg.norm(whole.forces[0].sum(axis=0))),
        force_rms_per_atom=per_atom.tolist(),
        orbit_energies=(whole.energies[1:] - found["energy"].mean).tolist(),
        sphere=SphereMap(
            axis=map_.axis,
            latitude=map_.latitude.tolist(),
            longitude=map_.longitude.tolist(),
            values=map_.values.tolist(),
            share=map_.share,
        ),
        rules=rules,
    )


def quantities_of(whole: Response, structure: Atoms) -> dict[str, noise_floor.Quantity]:
    """Functions that take the quantities of the report, (M, …), from a response."""
    quantities: dict[str, noise_floor.Quantity] = {"energy": lambda r: r.energies, "forces": lambda r: r.forces}
    if whole.virials is not None and structure.pbc.all():
        volume = structure.get_volume()
        quantities["stress"] = lambda r: r.virials / volume
    return quantities


def _part(whole: Response, part: slice) -> Response:
    virials = None if whole.virials is None else whole.virials[part]
    return Response(whole.matrices[part], whole.energies[part], whole.forces[part], virials)


def _measure(name: str, values: np.ndarray, plan: Plan, floor: Floor) -> _Measured:
    """``values`` (1 + K, …): as given first, then at the nodes."""
    nodes = plan.nodes
    mean = weighted_mean(nodes, values[1:])
    deviations = values[1:] - mean
    products = gram(deviations)
    variance = float(nodes.weights @ np.diag(products))
    spectrum = _spectrum(products, variance, float(np.mean(mean**2)), plan, floor)
    as_given = np.asarray(values[0] - mean)
    largest = float(max(np.abs(deviations).max(), np.abs(as_given).max()))
    return _Measured(name, mean, as_given, floor, spectrum, products, max(variance, 0.0), largest)


def _spectrum(products: Gram, variance: float, mean_square: float, plan: Plan, floor: Floor) -> Spectrum:
    nodes, lmax = plan.nodes, plan.lmax
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


def _knows_torque(potential: Potential, structure: Atoms) -> bool:
    """Whether forces or virials say what dE/dω is; if not, finite rotations must."""
    return potential.conservative and (potential.virial == "full" or not structure.pbc.any())


def _torques(structure: Atoms, whole: Response) -> noise_floor.Quantity | None:
    """dE/dω, (M, 3), in the frame of the structure: −Σ r × F of a molecule, Σ_ab ε_cab W_ab of what is periodic."""

    def from_forces(turned: Response) -> np.ndarray:
        arms = structure.positions - structure.positions.mean(axis=0)
        return -np.cross(arms, turned.forces).sum(axis=1)

    def from_virials(turned: Response) -> np.ndarray:
        skew = turned.virials - turned.virials.transpose(0, 2, 1)  # type: ignore[union-attr]
        return np.stack([skew[:, 1, 2], skew[:, 2, 0], skew[:, 0, 1]], axis=1)

    if not structure.pbc.any():
        return from_forces
    return from_virials if whole.virials is not None else None


def _expected_torque(energy: _Measured, plan: Plan) -> float:
    """√Σ ℓ(ℓ+1) P_ℓ, from the resolved spectrum."""
    ell = np.arange(plan.lmax + 1)
    powers = np.array(energy.spectrum.plus) + np.array(energy.spectrum.minus or [0.0] * (plan.lmax + 1))
    return float(np.sqrt(max(ell * (ell + 1) @ powers, 0.0)))


def _torque_over_orbit(torques: np.ndarray, energy: _Measured, floor: Floor, plan: Plan) -> Torque:
    """``torques`` (1 + K, 3): as given first, then at the nodes."""
    norms = np.linalg.norm(torques, axis=1)
    rms = float(np.sqrt(plan.nodes.weights @ norms[1:] ** 2))
    return Torque(float(norms[0]), rms, _expected_torque(energy, plan), float(np.sqrt(3.0) * floor.value))


def _torque_by_rotation(
    potential: Potential, structure: Atoms, energy: _Measured, plan: Plan, progress: Tick | None
) -> Torque:
    gradient = _finite_rotations(potential, structure, progress)
    spread = np.sqrt(3.0 * sum(weight**2 for _, weight in _STENCIL)) / _STEP
    floor = float(spread * energy.floor.value)
    return Torque(float(np.linalg.norm(gradient)), None, _expected_torque(energy, plan), floor)


def _finite_rotations(potential: Potential, structure: Atoms, progress: Tick | None) -> np.ndarray:
    """dE/dω by fourth-order central differences: rotations by ±h and ±2h about each axis."""
    from scipy.spatial.transform import Rotation

    turns = [point * _STEP * axis for axis in np.eye(3) for point, _ in _STENCIL]
    energies = response(potential, structure, Rotation.from_rotvec(turns).as_matrix(), progress).energies
    weights = np.array([weight for _, weight in _STENCIL]) / _STEP
    return (energies - energies.mean()).reshape(3, -1) @ weights


def _per_atom(whole: Response, mean: np.ndarray, nodes: Rule) -> np.ndarray:
    """Rms force error of each atom, per component."""
    square = np.zeros(len(mean))
    for weight, forces in zip(nodes.weights, whole.forces[1:], strict=True):
        square += weight * np.mean((forces - mean) ** 2, axis=1)
    return np.sqrt(square)


def _rules(
    potential: Potential,
    structure: Atoms,
    found: dict[str, _Measured],
    quantities: dict[str, noise_floor.Quantity],
    plan: Plan,
    progress: Tick | None,
) -> list[RuleResidual]:
    """Predictions for every candidate; measurements of those rules that are to be measured, and of the identity."""
    measured: dict[tuple[str, bool], dict[str, float]] = {
        ("identity", False): {each: _rms(part.as_given) for each, part in found.items()}
    }
    for rule in plan.measured:
        over = response(potential, structure, rule.matrices, progress)
        measured[rule.name, rule.inversion] = {
            each: _rms(np.asarray(weighted_mean(rule, function(over)) - found[each].mean))
            for each, function in quantities.items()
        }
    rows = []
    for candidate in plan.candidates:
        rule = candidate.rule
        seen = measured.get((rule.name, rule.inversion), {})
        residuals = {each: _residual(candidate, part, seen.get(each), plan.hidden) for each, part in found.items()}
        rows.append(
            RuleResidual(
                name=rule.name,
                n=len(rule),
                degree=rule.degree,
                inversion=rule.inversion,
                energy=residuals["energy"],
                forces=residuals["forces"],
                stress=residuals.get("stress"),
            )
        )
    return rows


def _residual(candidate: Candidate, part: _Measured, measured: float | None, hidden: float) -> Residual:
    spectrum = part.spectrum
    minus = None if spectrum.minus is None else np.array(spectrum.minus)
    predicted = candidate.predict(np.array(spectrum.plus), minus, hidden * max(spectrum.unresolved, 0.0), part.products)
    return Residual(predicted.over_turns, predicted.tail, predicted.as_it_stands, measured)


def weighted_mean(rule: Rule, values: np.ndarray) -> np.ndarray:
    """Σ_k w_k v_k over the first axis."""
    # Relative to a first value, since weights sum to 1 only to rounding: what is constant deviates by exactly nothing.
    return np.asarray(values[0] + np.tensordot(rule.weights, values - values[0], axes=1))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
