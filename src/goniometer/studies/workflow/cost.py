"""What a study will take: evaluations, time on this machine, and disk."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from ase import Atoms

from goniometer.dynamics.description import Run
from goniometer.dynamics.forces import Forces
from goniometer.dynamics.run import start_of, structure_of
from goniometer.potentials.base import Potential
from goniometer.studies.workflow.engine import ended
from goniometer.studies.workflow.graph import Graph

# Seconds from which on an evaluation is not done twice to be timed.
_LONG = 2.0


@dataclass(frozen=True)
class TaskCost:
    """Of a task.

    Attributes
    ----------
    evaluations
        Of the raw model, those of replicas counted one by one.
    seconds
        On one core of this machine; none if it has ended.
    size
        Of trajectories, in bytes.
    """

    evaluations: float
    seconds: float
    size: float


def costs(graph: Graph) -> dict[str, TaskCost]:
    """The cost of every task as far as it can be foreseen, from a step or two of each model, structure and strategy.

    What a step takes besides forces is not counted: take it for what it is, an estimate.
    """
    known: dict[str, float] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as tasks have it

    def step(run: Run) -> float:
        key = f"{run.potential} {run.structure} {run.repeat} {run.replicas} {run.strategy}"
        if key not in known:
            known[key] = _seconds(run)
        return known[key]

    found = {}
    try:
        for task in graph.tasks:
            seconds = 0.0
            if ended(graph, task):
                pass
            elif task.run is not None:
                seconds = task.run.steps * step(task.run)
            elif task.sample is not None:
                seconds = task.evaluations * step(task.sample) / task.sample.replicas
            found[task.name] = TaskCost(task.evaluations, seconds, task.size)
    finally:
        torch.set_num_threads(threads)
    return found


def _seconds(run: Run) -> float:
    """Of one step of the integrator: with multiple time steps ``ratio`` inner evaluations and an outer one."""
    run = run.model_copy(update={"starts": None})
    replica = structure_of(run)
    atoms, _ = start_of(run, replica)
    potentials = Forces(run, replica, verify=False).potentials
    for shift in (0.0, 1e-3):  # the first evaluation, which is slower, counts if it is long
        atoms.positions[0] += shift
        # The outer potential comes by what the inner one has just evaluated, as it does in a run.
        times = [_timed(each, atoms) for each in potentials]
        if sum(times) > _LONG:
            break
    return times[0] if len(times) == 1 else run.strategy.ratio * times[0] + times[1]


def _timed(potential: Potential, atoms: Atoms) -> float:
    began = time.perf_counter()
    potential.predict(atoms)
    return time.perf_counter() - began


def total(each: Iterable[TaskCost]) -> TaskCost:
    """The sum."""
    kept = list(each)
    return TaskCost(*(sum(getattr(one, name) for one in kept) for name in ("evaluations", "seconds", "size")))
