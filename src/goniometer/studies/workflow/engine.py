"""The engine of studies, Snakemake: started, watched, stopped, and its failures said in a sentence."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from goniometer.errors import InputError
from goniometer.extras import require
from goniometer.files.packaged import packaged_files
from goniometer.files.records import locked, make_folder
from goniometer.interruption import Interrupted
from goniometer.progress import Progress
from goniometer.studies.workflow import process_group as keeper
from goniometer.studies.workflow.graph import Graph, Task
from goniometer.studies.workflow.outcomes import discard_damaged

#: Seconds between two looks at what has been done.
LOOK = 1.0
# Seconds for tasks to stop by themselves after an interruption, before they are ended.
_PATIENCE = 120.0


class StudyError(InputError):
    """Some tasks of a study failed; the message says which and why."""


def run_study(
    graph: Graph,
    *,
    cores: int,
    arguments: Sequence[str] = (),
    weights: dict[str, float] | None = None,
    progress: Progress | None = None,
) -> None:
    """Do what is not done of a study: whatever ended is kept, and what was cut off goes on.

    Parameters
    ----------
    graph
        From :func:`goniometer.studies.workflow.graph.study_graph`.
    cores
        Tasks at a time, on this machine.
    arguments
        More of Snakemake's, for instance ``--executor slurm --jobs 50``.
    weights
        What each task counts for in the progress; by default its evaluations.
    progress
        Is told what has been done.

    Raises :class:`Interrupted` after Ctrl-C, :class:`StudyError` if tasks failed, with all others done that do
    not need them, and :class:`InputError` if the study cannot be started.
    """
    require("study")
    make_folder(graph.folder)
    with _alone(graph.folder) as engine, (graph.folder / "engine.log").open("ab") as log:
        for name in discard_damaged(graph):
            log.write(f"goniometer: what {name} has left cannot be read: it is done again\n".encode())
        graph.write()
        snakefile = packaged_files("studies", "Snakefile")["Snakefile"]
        # The keeper ends them all if this process is killed.
        command = [sys.executable, "-P", keeper.__file__, sys.executable, "-m", "snakemake"]
        command += ["--snakefile", str(snakefile)]
        command += ["--directory", str(graph.folder), "--cores", str(cores), "--nolock", "--rerun-incomplete"]
        command += ["--rerun-triggers", "mtime", "params", "--keep-going", *arguments]
        began = time.time()
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(engine.fileno(),),
        )
        engine.write(str(process.pid))
        engine.flush()
        assert process.stdin is not None
        try:
            _watch(process, graph, weights or {}, progress)
        except KeyboardInterrupt:
            raise Interrupted("stopped; the same command goes on") from None
        finally:
            if process.poll() is None:
                _stop(process.pid)
            process.stdin.close()
    if process.returncode != 0:
        raise StudyError(_failure(graph, began))


def done(graph: Graph) -> dict[str, float]:
    """The part of every task that has been done, between 0 and 1; of a run that of its last checkpoint."""
    found = {}
    for task in graph.tasks:
        found[task.name] = float(ended(graph, task))
        if task.run is not None and task.folder is not None and not found[task.name]:
            found[task.name] = min(1.0, _steps(task.folder) / task.run.steps)  # a run may be longer than is asked
    return found


def ended(graph: Graph, task: Task) -> bool:
    """Whether a task has ended as it is described now."""
    return recorded(graph.folder, task.name) == task.key


def recorded(folder: Path, name: str) -> str | None:
    """The key with which a task of a study ended; None if it did not."""
    try:
        return (folder / "done" / name).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None


def _steps(folder: Path) -> int:
    try:
        return int(json.loads((folder / "state.json").read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _watch(
    process: subprocess.Popen[bytes], graph: Graph, weights: dict[str, float], progress: Progress | None
) -> None:
    sizes = {each.name: weights.get(each.name, each.evaluations) + 1e-9 for each in graph.tasks}
    whole, last = sum(sizes.values()), 0.0

    def tell() -> None:
        if progress is not None:
            parts = done(graph)
            at = sum(sizes[name] * part for name, part in parts.items())
            progress(at, whole, f"{sum(part == 1.0 for part in parts.values())} of {len(parts)} tasks")

    while process.poll() is None:
        if time.monotonic() - last > LOOK:
            tell()
            last = time.monotonic()
        time.sleep(0.1)
    tell()


def _stop(group: int) -> None:
    """As Ctrl-C would, the engine and its tasks, which keep what they have; whoever does not heed it is ended.

    A second Ctrl-C waits no longer.
    """
    for number, patience in ((signal.SIGINT, _PATIENCE), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(group, number)
            limit = time.monotonic() + patience
            while time.monotonic() < limit:
                with suppress(ChildProcessError):  # it is no child of ours if an earlier start left it
                    os.waitpid(group, os.WNOHANG)
                os.killpg(group, 0)
                time.sleep(0.05)
        except ProcessLookupError:
            return
        except KeyboardInterrupt:
            continue


@contextmanager
def _alone(folder: Path) -> Iterator[IO[str]]:
    """Hold the study, and give what its engine is to hold.

    An engine and its tasks outlive a study that was killed. They are stopped, as Ctrl-C would, before another one is
    started.
    """
    with locked(folder, f"the study in '{folder}'"), _opened(folder / "engine") as engine:
        engine.seek(0)
        left = engine.read().strip()
        if left.isdigit() and _is_of(int(left), folder):
            _stop(int(left))
        fcntl.flock(engine, fcntl.LOCK_EX)
        engine.truncate(0)
        yield engine
        engine.truncate(0)


def _is_of(group: int, folder: Path) -> bool:
    """Whether a group of processes works in the folder, and has not come by the number of one that did."""
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getpgid(process.pid) == group and any(str(folder) in word for word in process.cmdline()):
                return True
    return False


def _opened(path: Path) -> IO[str]:
    try:
        return path.open("a+", encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"'{path}' cannot be opened: {error.strerror or error}") from error


def _failure(graph: Graph, began: float) -> str:
    """Which tasks failed and why: those that wrote to their log since then and have not ended."""
    missing = [each for each in graph.tasks if not ended(graph, each)]
    names = {each.name for each in missing}
    failed = [each for each in missing if not names & set(each.needs) and _written(_log(graph, each)) >= began - 1.0]
    if not failed:
        log = graph.folder / "engine.log"
        return f"the engine failed: {_last_line(log)} (see {log})"
    first = failed[0]
    said = f"{len(failed)} of {len(graph.tasks)} tasks failed and {len(missing) - len(failed)} wait for others"
    return f"{said}; {first.name}: {_last_line(_log(graph, first))} (see {_log(graph, first)})"


def _written(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def _log(graph: Graph, task: Task) -> Path:
    return graph.folder / "log" / f"{task.name}.log"


def _last_line(path: Path) -> str:
    lines = [each for each in path.read_text(encoding="utf-8", errors="replace").splitlines() if each.strip()]
    return lines[-1].removeprefix("goniometer: ") if lines else "it said nothing"
