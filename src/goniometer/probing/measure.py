"""The probe: how large the symmetry error of a potential is, which angular momenta carry it, what would remove it."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from goniometer.errors import GoniometerError, InputError
from goniometer.files.records import versions
from goniometer.potentials import Potential
from goniometer.potentials.batching import peak_memory_bytes
from goniometer.potentials.loading import load
from goniometer.probing.journal import Journal
from goniometer.probing.noise_floor import OPERATIONS
from goniometer.probing.pooling import pool
from goniometer.probing.procedure import Procedure
from goniometer.probing.repetition import count_for
from goniometer.probing.residuals import candidates
from goniometer.probing.result import Failure, ModelInfo, ProbeResult, RuleInfo, StructureResult
from goniometer.probing.single_structure import probe_structure
from goniometer.progress import Progress
from goniometer.rotations import Rule
from goniometer.rotations import rule as named_rule
from goniometer.structures import NamedStructure, check_structure, packaged_structures, read_structures
from goniometer.symmetrization.verification import Verification

LMAX = 4
# A rule that may see less than this part of what lies beyond lmax is not taken.
_HIDDEN = 50.0
PACKAGES = ("goniometer", "numpy", "scipy", "ase", "torch", "metatomic-torch")
#: Rules that are evaluated besides, so that a report shows prediction and measurement side by side.
MEASURED = (("identity", True), ("legendre:2", True), ("octahedral", True))


def probe(
    potential: Any,
    structures: Any = None,
    *,
    lmax: int | None = None,
    rule: str | Rule | None = None,
    inversion: bool = True,
    seed: int = 0,
    measured: Sequence[tuple[str, bool]] = MEASURED,
    without: Iterable[str] = (),
    resume: ProbeResult | None = None,
    progress: Progress | None = None,
    journal: Journal | None = None,
    finished: Callable[[StructureResult | Failure], None] | None = None,
) -> ProbeResult:
    """Measure how far a potential is from rotational symmetry.

    For every structure x the back-rotated response E(g) = E(g·x), F(g) = F(g·x) R, S(g) = Rᵀ S(g·x) R is evaluated over
    a rule on O(3) that is turned at random, and its mean, its rms deviation, its spectrum in angular momentum and
    parity, its noise floor and the residual that every known rule would leave are worked out; see
    :mod:`goniometer.probing.result` for each figure.

    Parameters
    ----------
    potential
        A :class:`goniometer.potentials.Potential`, or anything that :func:`goniometer.load` takes.
    structures
        Anything that :func:`goniometer.read_structures` takes; the packaged structures by default.
    lmax
        The spectrum is resolved to this ℓ, which takes a rule of degree ≥ 2 ``lmax``; 4 by default, or half the degree
        of the given rule.
    rule
        A rule or its name; by default the smallest that is exact to 2 ``lmax``.
    inversion
        Whether inversion is added; without it the parities cannot be told apart.
    seed
        Of the rule's turn and of the changes that measure the floor.
    measured
        Rules (name, inversion) to be evaluated besides, as a check of the prediction.
    without
        Operations that are not applied, where the potential does not take them: ``"translation"``,
        ``"permutation"``, ``"cell"``, ``"rounding"``; ``"rotation"`` evaluates only the orientations that map the axes
        of a box onto each other. Inversion is left out by ``inversion=False``.
    resume
        An earlier, unfinished result: its structures are taken over if model, rule and structure are the same.
    progress
        Called as work goes on.
    journal
        Where each structure is recorded as soon as it is finished; see :class:`goniometer.probing.journal.Journal`.
    finished
        Called with each structure that was finished, or that failed.

    Returns
    -------
    ProbeResult
        With ``complete=False`` if it was interrupted (Ctrl-C): the structures that were finished are in it. Structures
        that could not be probed are listed in ``failures``.

    Raises
    ------
    InputError
        If the potential, the rule or the source of the structures cannot be used.

    Memory: that of one batch of the model (4 GiB at most, or one copy of the structure where that takes more), and
    72 (K + R) N + 32 K² + 65536 K bytes for K nodes, R repetitions (150 at most) and N atoms of one structure.
    """
    start = time.perf_counter()
    potential = potential if isinstance(potential, Potential) else load(potential)
    named = read_structures(packaged_structures() if structures is None else structures)
    nodes, lmax = _nodes(rule, lmax, inversion, seed)
    rules = [named_rule(name, inverted) for name, inverted in measured if nodes.inversion or not inverted]
    plan = Procedure(
        nodes, lmax, candidates(nodes, lmax), rules, seed, count_for(len(named), len(nodes)), _without(without)
    )
    if plan.hidden > _HIDDEN:
        raise InputError(
            f"rule '{nodes.name}' cannot resolve ℓ ≤ {lmax}: what lies above could pass for it or not be seen at all; "
            f"take a rule of degree ≥ {max(2 * lmax, 1)} or a smaller lmax"
        )
    outline = _outline(potential, plan)
    earlier = _reusable(resume, outline)
    costs = [plan.evaluations(potential, each.atoms) * len(each.atoms) for each in named]
    whole, done = sum(costs), 0
    found: list[StructureResult] = []
    failures: list[Failure] = []
    verification = Verification(potential, nodes.matrices)
    faults: list[Failure] = [] if resume is None else list(resume.faults)

    def result(complete: bool, known: Sequence[StructureResult] | None = None) -> ProbeResult:
        seconds = time.perf_counter() - start + (resume.seconds if earlier and resume is not None else 0.0)
        return ProbeResult(
            **outline,
            structures=list(found if known is None else known),
            pooled=pool(found) if known is None else None,
            failures=list(failures),
            faults=list(faults),
            complete=complete,
            seconds=seconds,
            peak_memory_bytes=peak_memory_bytes(),
            versions=versions(PACKAGES),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            tail_factor=plan.hidden,
        )

    def record(outcome: StructureResult | Failure) -> None:
        if journal is not None and (isinstance(outcome, Failure) or earlier.get(outcome.name) is not outcome):
            journal.append(outcome)
        if finished is not None:
            finished(outcome)

    if journal is not None:
        journal.start(result(complete=False, known=list(earlier.values())))
    try:
        for (name, atoms), cost in zip(named, costs, strict=True):
            before = done

            def tick(count: int, name: str = name, size: int = len(atoms), limit: int = before + cost) -> None:
                nonlocal done
                done = min(done + count * size, limit)
                if progress is not None:
                    progress(done, whole, name)

            outcome: StructureResult | Failure | None = _known(earlier, name, atoms)
            if outcome is None:
                try:
                    check_structure(atoms, name)
                    tick(0)
                    outcome = probe_structure(potential, name, atoms, plan, tick)
                except GoniometerError as error:
                    outcome = Failure(name, str(error))
            if isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                found.append(outcome)
            record(outcome)
            if isinstance(outcome, StructureResult) and earlier.get(name) is not outcome and _smooth(outcome):
                # Of a calculator that is not deterministic, or discontinuous, derivatives say nothing.
                fault = verification.fault(atoms)
                if fault is not None and all(each.error != fault for each in faults):
                    faults.append(Failure(name, fault))
                    if journal is not None:
                        journal.append(faults[-1], kind="fault")
            done = before + cost
    except KeyboardInterrupt:
        return result(complete=False)
    return result(complete=True)


def _smooth(result: StructureResult) -> bool:
    """Whether the probe found the calculator deterministic and continuous on this structure."""
    repeated = result.repeats is None or result.repeats.kind is None
    return repeated and not any(figure.floors.discontinuous for figure in (result.energy, result.forces))


def _nodes(rule: str | Rule | None, lmax: int | None, inversion: bool, seed: int) -> tuple[Rule, int]:
    if lmax is not None and not 0 <= lmax <= 40:
        raise InputError(f"lmax is {lmax}; it must lie between 0 and 40")
    if rule is None:
        lmax = LMAX if lmax is None else lmax
        nodes = named_rule(f"degree:{max(2 * lmax, 1)}", inversion)
    else:
        nodes = named_rule(rule) if isinstance(rule, str) else rule
        nodes = nodes.with_inversion() if inversion else nodes
        lmax = nodes.degree // 2 if lmax is None else lmax
    return nodes.turned_at_random(seed), lmax


def _without(names: Iterable[str]) -> frozenset[str]:
    known = (*OPERATIONS, "rotation")
    for name in names:
        if name not in known:
            hint = "; inversion is left out by --no-inversion" if name == "inversion" else ""
            raise InputError(f"'{name}' is no operation that can be left out; there are {', '.join(known)}{hint}")
    return frozenset(names)


def _outline(potential: Potential, plan: Procedure) -> dict[str, Any]:
    """What must agree for results to belong together."""
    nodes = plan.nodes
    return {
        "model": ModelInfo(
            name=potential.name,
            dtype=potential.dtype,
            virial=potential.virial,
            conservative=potential.conservative,
            stochastic=potential.stochastic,
        ),
        "rule": RuleInfo(nodes.name, len(nodes), nodes.degree, nodes.inversion, nodes.seed),
        "lmax": plan.lmax,
        "without": sorted(plan.without),
    }


def _reusable(earlier: ProbeResult | None, outline: dict[str, Any]) -> dict[str, StructureResult]:
    if earlier is None:
        return {}
    for part, now in outline.items():
        then = getattr(earlier, part)
        if then != now:
            raise InputError(f"the earlier result cannot be continued: its {part} is {then}, and now it is {now}")
    return {each.name: each for each in earlier.structures}


def _known(earlier: dict[str, StructureResult], name: str, atoms: Any) -> StructureResult | None:
    known = earlier.get(name)
    if known is None or known.numbers != atoms.numbers.tolist() or known.pbc != atoms.pbc.tolist():
        return None
    same = np.array_equal(known.positions, atoms.positions) and np.array_equal(known.cell, atoms.cell.array)
    return known if same else None


__all__ = ["LMAX", "MEASURED", "NamedStructure", "probe"]
