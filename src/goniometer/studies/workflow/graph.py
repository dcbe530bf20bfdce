"""What a study does, as commands and what each of them needs."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from goniometer import __version__
from goniometer.dynamics.description import Run, read_runs
from goniometer.dynamics.forces import evaluations
from goniometer.dynamics.run import digest, structure_of
from goniometer.errors import InputError
from goniometer.files.records import replace_text
from goniometer.observables.molecules import find_molecules
from goniometer.potentials.loading import identity
from goniometer.rotations import GRIDS
from goniometer.sampling.reweighting import evaluated_elements
from goniometer.sampling.starting_configurations import CONFIGURATIONS, EquilibrationPlan, described
from goniometer.studies.experiments.gas import SHOWN
from goniometer.studies.experiments.ice import effort as ice_effort
from goniometer.studies.experiments.liquid import DESCRIPTION, OTHERS, averages, frames_of, walks
from goniometer.studies.report.chapter import SCHEMA
from goniometer.studies.workflow.description import Experiment, Study, label


@dataclass(frozen=True)
class Task:
    """A command.

    Attributes
    ----------
    name
        Of letters, digits, ``-``, ``_``, ``.`` and ``/``.
    command
        Its words, after ``goniometer``.
    needs
        Names of the tasks that must have ended before.
    key
        A hash of all that decides the outcome: a task is done anew if it has changed.
    run, folder
        The description and the folder, if it is a run.
    outcome
        The file that holds what came of it, if it is no run.
    sample, evaluations
        A run of which one evaluation of the raw model costs as much as here, and how many there are, as far as they can
        be foreseen; those of replicas are counted one by one.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...]
    key: str
    run: Run | None = None
    folder: Path | None = None
    sample: Run | None = None
    evaluations: float = 0.0
    outcome: Path | None = None

    @property
    def size(self) -> float:
        """Of the trajectory, in bytes: two times three numbers of float64 for each atom and frame."""
        if self.run is None:
            return 0.0
        frames = self.run.steps // self.run.stride + 1
        return 48.0 * frames * self.run.replicas * len(sample_structure(self.run))

    @property
    def work(self) -> float:
        """Evaluations times atoms, which is about what it takes of its model."""
        return self.evaluations * len(sample_structure(self.sample)) if self.sample is not None else 0.0


def sample_structure(run: Run) -> Atoms:
    """A structure as large as that of a run, whose starting ensemble need not be there yet."""
    return structure_of(run.model_copy(update={"starts": None}))


@dataclass(frozen=True)
class Graph:
    """The tasks of a study, each after those that it needs.

    Attributes
    ----------
    folder
        Of the study: a folder for each model, in that one for each experiment; records; the report.
    study
        Its description.
    tasks
        In an order in which they could be done.
    """

    folder: Path
    study: Study
    tasks: tuple[Task, ...]

    @property
    def ahead(self) -> dict[str, float]:
        """The work of every task and of the longest row of those that need it: what has most should begin first."""
        found: dict[str, float] = {}
        for each in reversed(self.tasks):  # those that need it come first
            found[each.name] = each.work + found.get(each.name, 0.0)
            for needed in each.needs:
                found[needed] = max(found.get(needed, 0.0), found[each.name])
        return found

    def write(self) -> None:
        """Write what the engine and the report need: the description, the graph, and a script for every task."""
        import yaml

        description = yaml.safe_dump(self.study.model_dump(mode="json", exclude_unset=True), sort_keys=False)
        program = (sys.executable, "-m", "goniometer.cli")
        for each in self.tasks:
            path = self.folder / "task" / f"{each.name}.sh"
            for place in (path.parent, (self.folder / each.name).parent):
                place.mkdir(parents=True, exist_ok=True)
            line = f"cd {shlex.quote(str(Path.cwd()))} && exec {shlex.join((*program, *each.command))}\n"
            replace_text(path, line)
        ahead = self.ahead
        order = sorted(ahead, key=lambda name: ahead[name])
        tasks = [
            {"name": each.name, "needs": each.needs, "key": each.key, "priority": order.index(each.name)}
            for each in self.tasks
        ]
        replace_text(self.folder / "study.yaml", description)
        replace_text(self.folder / "graph.json", json.dumps(tasks, indent=1))


def study_graph(study: Study, folder: str | Path) -> Graph:
    """The graph of a study in a folder. Raises :class:`InputError` for what cannot be run."""
    folder = Path(folder).resolve()
    of_models = [task for model in study.models for task in _of_model(study, model, folder)]
    tasks = list({task.name: task for task in of_models}.values())  # models share starting ensembles
    needs = tuple(each.name for each in tasks if each.run is None)
    report = Task("report", ("report", str(folder)), needs, _key(__version__, study.size, [each.key for each in tasks]))
    return Graph(folder, study, (*tasks, report))


def _of_model(study: Study, model: str, folder: Path) -> Iterator[Task]:
    command: tuple[str, ...]
    name, known = label(model), identity(model)
    place = folder / name
    shared = (__version__, known, study.dtype)
    dtype = ("--dtype", study.dtype) if study.dtype is not None else ()
    if study.probe:
        kept = place / "probe.json"
        command = ("probe", model, *study.probe, "--json", str(kept), "--report", str(kept.with_suffix(".html")))
        command += ("--seed", str(study.seed), *dtype)
        key = _key(*shared, study.probe, study.seed, _contents(study.probe))
        yield Task(f"{name}/probe", command, (), key, outcome=kept)
    if study.evaluate:
        kept = place / "evaluation.json"
        command = ("evaluate", model, *study.evaluate, "--json", str(kept), *dtype)
        command += ("--grids", ",".join(study.grids)) if study.grids else ()
        key = _key(*shared, study.grids, _contents(study.evaluate))
        yield Task(f"{name}/evaluation", command, (), key, outcome=kept)
    for each in study.experiments:
        if model in (each.models or study.models):
            yield from _of_experiment(study, each, model, place / each.experiment)


def _of_experiment(study: Study, experiment: Experiment, model: str, folder: Path) -> Iterator[Task]:
    size, name = experiment.size or study.size, f"{label(model)}/{experiment.experiment}"
    changes: dict[str, Any] = {"potential.model": model, **experiment.set}
    if study.dtype is not None:
        changes["potential.dtype"] = study.dtype
    starts = None
    if experiment.equilibrate is not None:
        starts, more = _equilibration(study, experiment, size, changes, folder.parent.parent)
        changes |= more
        yield starts
    runs = list(_runs(study, experiment, size, changes, folder, name, starts))
    yield from runs
    changes["seed"] = study.seed
    command = ["experiment", experiment.experiment, "-o", str(folder), "--size", size, *_set(changes)]
    if experiment.experiment == "liquid":
        for only in experiment.only:
            command += ["--only", only]
        if experiment.walkers is not None:
            by_name = experiment.walkers if isinstance(experiment.walkers, dict) else {OTHERS: experiment.walkers}
            for each, count in by_name.items():
                command += ["--walkers", str(count) if each == OTHERS else f"{each}={count}"]
        if experiment.frames is not None:
            command += ["--frames", str(experiment.frames)]
        if experiment.grids:
            command += ["--grids", ",".join(experiment.grids)]
    sample, effort = None, 0.0
    if experiment.experiment == "liquid" and runs:
        sample, frames = runs[0].run, frames_of(size, experiment.frames)
        if frames and sample is not None:
            grids = averages(experiment.grids or tuple(GRIDS))
            effort = float(frames * evaluated_elements(grids, sample_structure(sample)))
    if experiment.experiment == "ice":
        known = {**changes, "structure": "ice"}
        for setting in experiment.set:
            del known[setting]
        (sample,) = read_runs("liquid-nvt", size="laptop", only=("raw",), changes=known).values()
        effort = ice_effort(size, **experiment.set) / len(find_molecules(structure_of(sample)))
    key = _key(__version__, SCHEMA, identity(model), command[4:], [each.key for each in runs])
    needs = tuple(each.name for each in runs)
    outcome = folder / f"{experiment.experiment}-{size}.json"
    yield Task(f"{name}/analysis", tuple(command), needs, key, sample=sample, evaluations=effort, outcome=outcome)


def _equilibration(
    study: Study, experiment: Experiment, size: str, changes: dict[str, Any], folder: Path
) -> tuple[Task, dict[str, Any]]:
    """The task that makes the starting configurations of an experiment, and the changes that name them to runs."""
    settings = experiment.equilibrate
    assert settings is not None
    walked = walks(size, experiment.only, experiment.walkers, {**changes, "seed": study.seed})
    count = settings.starts or len(walked)
    if len(walked) > count:
        raise InputError(
            f"there are {len(walked)} independent runs and {count} starting configurations (equilibrate.starts)"
        )
    own = {name: value for name, value in changes.items() if name != "length" and not name.startswith("runs.")}
    own |= {"length": settings.length, "seed": study.seed}
    if settings.model is not None:
        own["potential.model"] = settings.model
    plan = EquilibrationPlan(
        described(DESCRIPTION, size, "raw", own), count, settings.runs, allow_short=settings.allow_short
    )
    key = plan.key()
    place = folder / "starts" / key
    command = ("equilibrate", DESCRIPTION, "--size", size, "--only", "raw", "--starts", str(count))
    command += ("--runs", str(settings.runs), "-o", str(place), *(("--allow-short",) if settings.allow_short else ()))
    run = plan.description
    evaluated = float(run.steps * settings.runs)
    task = Task(f"starts/{key}", (*command, *_set(own)), (), _key(key), sample=run, evaluations=evaluated)
    return task, {"starts.file": str(place / CONFIGURATIONS), "starts.key": key, "starts.first": study.seed}


def _runs(
    study: Study,
    experiment: Experiment,
    size: str,
    changes: dict[str, Any],
    folder: Path,
    prefix: str,
    starts: Task | None,
) -> Iterator[Task]:
    """A task for each run of an experiment."""
    chosen: list[tuple[str, tuple[str, ...], dict[str, Any]]] = []
    if experiment.experiment == "gas":
        chosen = [("gas-nve", (), {"seed": study.seed}), ("gas-nvt", SHOWN, {"seed": study.seed})]
    elif experiment.experiment == "liquid":
        each = walks(size, experiment.only, experiment.walkers, {**changes, "seed": study.seed})
        chosen = [(DESCRIPTION, names, {"seed": seed}) for seed, names in each]
    for source, only, more in chosen:
        for name, run in read_runs(source, size=size, only=only, changes={**changes, **more}).items():
            strategy = name.removeprefix(f"{source}-{size}-")
            words = ("run", source, "--size", size, "--only", strategy, "-o", str(folder), "--wait")
            task = "-".join([f"{prefix}/{source.partition('-')[2]}", strategy, *map(str, more.values())])
            own, count = digest(run), round(1e3 * run.length / run.timestep) * run.replicas
            effort = evaluations(run.strategy) * count
            command = (*words, *_set({**changes, **more}))
            needs = () if starts is None else (starts.name,)
            yield Task(task, command, needs, _key(own, run.length), run, folder / f"{name}-{own}", run, effort)


def _set(changes: dict[str, Any]) -> tuple[str, ...]:
    return tuple(word for key, value in changes.items() for word in ("--set", f"{key}={json.dumps(value)}"))


def _contents(sources: tuple[str, ...]) -> list[str]:
    """Hashes of the files among names of structures, which may choose frames by ``@``."""
    paths = [Path(each) if Path(each).is_file() else Path(each.rpartition("@")[0]) for each in sources]
    return [hashlib.sha256(each.read_bytes()).hexdigest() if each.is_file() else "" for each in paths]


def _key(*what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=list).encode()).hexdigest()[:12]
