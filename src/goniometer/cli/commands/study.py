"""``goniometer study`` and ``goniometer report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from goniometer.cli.app import STUDY, app

if TYPE_CHECKING:
    from goniometer.studies.workflow.cost import TaskCost
    from goniometer.studies.workflow.graph import Graph


@app.command(rich_help_panel=STUDY, context_settings={"allow_extra_args": True})
def study(
    context: typer.Context,
    description: Annotated[
        str, typer.Argument(help="A packaged study (water-smoke, water-laptop, water-paper), or a YAML file like them.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Runs, results and the report.")],
    cores: Annotated[
        int | None, typer.Option(min=1, help="Tasks at a time on this machine; by default one for each core.")
    ] = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Say what there is to do and how long it takes, and do nothing.")
    ] = False,
    estimate: Annotated[bool, typer.Option(help="Measure how long it will take before it starts.")] = True,
) -> None:
    """Run a whole study and write its report; interrupted or killed, the same command goes on.

    What follows -- is passed on to Snakemake: -- --executor slurm --jobs 50.
    """
    import os
    import sys

    from goniometer.cli.progress_bar import progress_bar
    from goniometer.extras import require
    from goniometer.files.records import make_folder
    from goniometer.studies.workflow.cost import costs
    from goniometer.studies.workflow.description import read_study
    from goniometer.studies.workflow.engine import run_study
    from goniometer.studies.workflow.graph import study_graph

    require("study")
    make_folder(out)
    graph = study_graph(read_study(description), out)
    each = costs(graph) if estimate or dry else None
    number = cores or os.cpu_count() or 1
    for line in _plan(graph, each, number):
        typer.echo(line)
    if dry:
        return
    said = ""
    with progress_bar() as bar:

        def progress(done: int | float, whole: int | float, label: str) -> None:
            nonlocal said
            bar(round(1e3 * done / whole), 1000, label)
            # A log file is told how many tasks have ended.
            if label != said and not sys.stderr.isatty():
                typer.echo(f"{label}, {done / whole:.0%}", err=True)
            said = label

        weights = None if each is None else {name: cost.seconds for name, cost in each.items()}
        run_study(graph, cores=number, arguments=context.args, weights=weights, progress=progress)
    typer.echo(f"report: {out / 'report.html'}")


def _plan(graph: Graph, costs: dict[str, TaskCost] | None, cores: int) -> list[str]:
    """What there is to do: for each model and experiment its tasks, evaluations, time and disk."""
    from goniometer.studies.workflow.cost import total
    from goniometer.studies.workflow.engine import done
    from goniometer.units import plural

    parts = done(graph)
    left = sum(part < 1.0 for part in parts.values())
    lines = [f"{plural(len(graph.tasks), 'task')} in {graph.folder}, {left} to be done"]
    groups: dict[str, list[str]] = {}
    for task in graph.tasks:
        groups.setdefault("/".join(task.name.split("/")[:2]), []).append(task.name)
    for group, names in groups.items():
        words = plural(len(names), "task")
        if costs is not None and (all_of := total(costs[name] for name in names)).seconds > 0.0:
            words += f", {_words(all_of)}"
        lines.append(f"  {group}: {words}")
    if costs is not None:
        rest = sum((1.0 - parts[name]) * cost.seconds for name, cost in costs.items())
        lines.append(f"all: {_words(total(costs.values()))}; left: {_time(rest / cores)} on {plural(cores, 'core')}")
        lines.append(
            "Evaluations were timed here; relaxations are counted as if all took as long as typical ones of ice."
        )
        lines.append("Besides, a task takes some seconds to start, and probes and evaluations on data take minutes.")
    return lines


def _words(cost: TaskCost) -> str:
    from goniometer.units import number

    return f"{number(cost.evaluations)} evaluations, {_time(cost.seconds)} of a core, {_size(cost.size)} of disk"


def _time(seconds: float) -> str:
    from goniometer.units import number

    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * length:
            return f"{number(seconds / length, 2)} {unit}"
    return f"{number(seconds, 2)} s"


def _size(count: float) -> str:
    from goniometer.units import number

    return f"{number(count / 2**30)} GiB" if count >= 2**30 else f"{number(count / 2**20)} MiB"


@app.command(rich_help_panel=STUDY)
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Of `goniometer study`.", show_default=False)],
) -> None:
    """Write the report of a study anew, of what has been finished so far."""
    from goniometer.studies.report.folder import write_report

    typer.echo(f"report: {write_report(folder)}")
