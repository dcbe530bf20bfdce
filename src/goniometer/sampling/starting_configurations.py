"""Independent starting configurations, taken several correlation times apart from long runs of any model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from goniometer.dynamics.checkpoint import PACKAGES
from goniometer.dynamics.description import Run, read_runs
from goniometer.dynamics.run import digest, model_hash, run, trajectory_of
from goniometer.dynamics.starts import SCHEMA, StartingEnsemble, read_starts
from goniometer.errors import InputError
from goniometer.files.records import hardware, make_folder, replace_text, replacing, versions
from goniometer.interruption import Interrupted
from goniometer.observables.equilibration import SEVERAL, duration, slowest
from goniometer.observables.relaxation import CorrelationTime
from goniometer.potentials.base import Potential
from goniometer.progress import Progress, named
from goniometer.trajectories.h5md import Trajectory

#: Names of the files in the folder of an ensemble.
CONFIGURATIONS, RECORD = "starts.xyz", "starts.json"


@dataclass(frozen=True)
class EquilibrationPlan:
    """How starting configurations are made.

    Attributes
    ----------
    description
        Of the runs, at constant temperature; they have its seed and those after it.
    starts
        How many configurations are wanted.
    runs
        How many runs they are taken from.
    several
        So many correlation times are left out at the start of each run, and lie between configurations of one run.
    allow_short
        Whether configurations are written though the runs are too short; they are then marked as not independent.
    """

    description: Run
    starts: int = 8
    runs: int = 1
    several: float = SEVERAL
    allow_short: bool = False

    def __post_init__(self) -> None:
        if self.starts < 1 or self.runs < 1:
            raise InputError(f"{self.starts} configurations of {self.runs} runs: wanted are one or more of both")
        if not self.several >= SEVERAL:
            raise InputError(
                f"configurations {self.several:g} correlation times apart are not independent: {SEVERAL:g} are"
            )
        if self.description.ensemble != "nvt" or self.description.replicas > 1:
            raise InputError(
                "starting configurations are those of a periodic box at constant temperature (ensemble: nvt)"
            )

    def of_run(self, place: int) -> Run:
        """The description of one of the runs."""
        return self.description.model_copy(update={"seed": self.description.seed + place})

    def key(self, potential: Potential | None = None) -> str:
        """A hash of all that decides the configurations but the length of the runs."""
        what = [digest(self.of_run(place), potential) for place in range(self.runs)]
        whole = json.dumps([what, self.starts, self.several, self.allow_short])
        if self.allow_short:  # then the length decides as well
            whole += f" {self.description.length}"
        return sha256(whole.encode()).hexdigest()[:12]


def described(
    source: str | Path, size: str | None = None, only: str | None = None, changes: dict[str, Any] | None = None
) -> Run:
    """The run of a description that configurations are taken from: the one named, else ``raw``, else the only one.

    Raises :class:`InputError` if it holds several and none is named or called raw.
    """
    if only is not None:
        (found,) = read_runs(source, size=size, only=(only,), changes=changes).values()
        return found
    every = read_runs(source, size=size, changes=changes)
    raw = [each for name, each in every.items() if name.endswith("-raw")] or list(every.values())
    if len(raw) > 1:
        raise InputError(f"'{source}' holds the runs {', '.join(every)}: name one (--only)")
    return raw[0]


def equilibrate(
    plan: EquilibrationPlan, folder: str | Path, *, potential: Potential | None = None, progress: Progress | None = None
) -> StartingEnsemble:
    """Run what is not finished, and write independent configurations with a record of how they came about.

    The correlation time τ is that of the slowest observable, from all runs together, with its upper limit of 95 %
    (:func:`goniometer.observables.relaxation.correlation_time`). Configurations are taken at ``several`` τ from the
    start of each run and every ``several`` τ after that, as far apart as the runs allow. ``starts.xyz`` holds them with
    their cell, energies and times; ``starts.json`` is the record. An ensemble that is there is not made again.

    Parameters
    ----------
    plan
        What is wanted.
    folder
        Of the files and of the runs, which resume if they were stopped.
    potential
        In place of the model that the description names.
    progress
        Is told the steps done, the steps in all, and what is going on.

    Raises :class:`goniometer.interruption.Interrupted` after Ctrl-C, and :class:`InputError` for what cannot be run
    and if the runs are too short, with the length that would do.
    """
    folder = Path(folder)
    make_folder(folder)
    key, path = plan.key(potential), folder / CONFIGURATIONS
    if path.is_file() and path.with_suffix(".json").is_file():
        found = read_starts(path)
        if found.record.get("key") != key:
            raise InputError(f"'{path}' is a starting ensemble of another description: give another folder")
        return found
    trajectories = [_trajectory(plan, place, folder, potential, progress) for place in range(plan.runs)]
    measured, taken, said = _chosen(plan, trajectories)
    if said and not plan.allow_short:
        raise InputError(said)
    configurations, about = _configurations(plan, trajectories, taken)
    with replacing(path) as partial:
        write(partial, configurations, format="extxyz")
    record = {
        "schema": SCHEMA,
        "key": key,
        "sha256": sha256(path.read_bytes()).hexdigest(),
        "independent": not said,
        "note": said,
        "observable": measured.name,
        "correlation_time_ps": 1e-3 * measured.upper if measured.resolved else None,
        "estimate_ps": 1e-3 * measured.time if measured.resolved else None,
        "apart_in_correlation_times": plan.several,
        "temperature_K": plan.description.temperature,
        "description": plan.description.model_dump(mode="json"),
        "runs": plan.runs,
        "model_sha256": model_hash(plan.description, potential),
        "configurations": about,
        "versions": versions(PACKAGES),
        "hardware": hardware(),
    }
    replace_text(path.with_suffix(".json"), json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return read_starts(path)


def _trajectory(
    plan: EquilibrationPlan, place: int, folder: Path, potential: Potential | None, progress: Progress | None
) -> Trajectory:
    label = f"equilibrate-{place}"
    description = plan.of_run(place)
    result = run(description, folder, name="equilibrate", potential=potential, progress=named(progress, label))
    if not result.finished:
        raise Interrupted(f"stopped in {label}; the same command resumes")
    return trajectory_of(description, result.folder)


def _chosen(plan: EquilibrationPlan, runs: list[Trajectory]) -> tuple[CorrelationTime, list[np.ndarray], str]:
    """The slowest correlation time, the numbers of the frames that are taken of each run, and why they are too few."""
    measured = slowest(runs)
    if measured is None:
        raise InputError("starting configurations are those of a box that is periodic in three directions")
    length = min(map(duration, runs))
    apart = plan.several * measured.upper
    shares = [plan.starts // plan.runs + (place < plan.starts % plan.runs) for place in range(plan.runs)]
    needed = apart * max(shares)
    said = ""
    if not measured.resolved or not needed <= length:
        said = _too_short(plan, measured, length, needed)
    # As far apart as the runs allow, the first as far from the start.
    taken = []
    for each, share in zip(runs, shares, strict=True):
        at = duration(each) * np.arange(1, share + 1) / max(1, share)
        taken.append(np.searchsorted(each.times, each.times[0] + at - 1e-6).clip(0, len(each) - 1))
    return measured, taken, said


def _too_short(plan: EquilibrationPlan, found: CorrelationTime, length: float, needed: float) -> str:
    known = f"{1e-3 * found.time:.2g} ps (at most {1e-3 * found.upper:.2g})"
    if not found.resolved:
        known = f"longer than half of a run (extrapolated: {1e-3 * found.time:.2g} ps)"
        if not np.isfinite(found.time):
            known = "longer than can be measured in these runs"
    said = f"too short: the correlation time of {found.name} is {known}, and a run {1e-3 * length:.3g} ps long; "
    if not np.isfinite(needed):
        return said + "run several times as long (--length)"
    runs = "run" if plan.runs == 1 else f"each of {plan.runs} runs"
    return said + (
        f"for {plan.starts} configurations {plan.several:g} correlation times apart {runs} takes at least "
        f"{1e-3 * max(needed, 2.0 * length if not found.resolved else 0.0):.2g} ps (--length)"
    )


def _configurations(
    plan: EquilibrationPlan, runs: list[Trajectory], taken: list[np.ndarray]
) -> tuple[list[Atoms], list[dict[str, Any]]]:
    """In turn from all runs, so that the first few come from as many of them as possible."""
    found: list[tuple[int, int, Atoms, dict[str, Any]]] = []
    for place, (each, numbers) in enumerate(zip(runs, taken, strict=True)):
        for order, number in enumerate(numbers):
            frames = each.taken(np.array([number]))
            cell = each.replica.cell if frames.cells is None else frames.cells[0]
            atoms = Atoms(each.replica.numbers, frames.positions[0, 0], cell=cell, pbc=True)
            seed, time = plan.description.seed + place, 1e-3 * float(frames.times[0])
            if not np.allclose(masses := each.replica.get_masses(), atoms.get_masses()):
                atoms.set_masses(masses)
            atoms.info = {"seed": seed, "time_ps": time, "temperature_K": plan.description.temperature}
            found.append((order, place, atoms, {"seed": seed, "time_ps": time}))
    found.sort(key=lambda each: each[:2])
    return [each[2] for each in found], [each[3] for each in found]
