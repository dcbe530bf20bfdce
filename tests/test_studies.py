"""Studies as a whole: what is refused, what the graph is, the smallest study to its report, and what survives kills."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray
import yaml

from browsing import look
from goniometer.errors import InputError
from goniometer.studies.workflow import packaged_studies, read_study, study_graph
from goniometer.studies.workflow.cost import costs, total
from goniometer.studies.workflow.graph import Task

#: Cheap, visibly broken.
MODEL = "pet-water-unaugmented"
GAS = {"experiment": "gas", "set": {"length": 0.08, "frames_every": 5}}


def written(folder: Path, **study: object) -> Path:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({"models": [MODEL], **study}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model": MODEL}, "there is no key 'model'; there are models, experiments"),
        ({"probe": ["molecule"], "models": []}, "'models': Tuple should have at least 1 item"),
        ({}, "there is nothing to do"),
        ({"experiments": [{"experiment": "plasma"}]}, "'experiments.0.experiment': Input should be 'gas', 'liquid' or"),
        (
            {"experiments": [{"experiment": "gas", "walkers": 2}]},
            "walkers goes with the experiment liquid, not with gas",
        ),
        ({"experiments": [{"experiment": "liquid", "grids": ["2ii"]}]}, "there is no grid '2ii'; there are none, i,"),
        (
            {"experiments": [{"experiment": "ice", "set": {"length": 5}}]},
            "'length' is no setting of ice; there are",
        ),
        (
            {"experiments": [{"experiment": "ice", "set": {"molecules": 96.0}}]},
            "'molecules' is 96.0: give the whole number",
        ),
        ({"models": ["report"], "probe": ["box"]}, "a model cannot be called report here"),
        ({"probe": ["moleculee"]}, "moleculee"),
        ({"evaluate": ["nowhere.xyz"]}, "there is no file 'nowhere.xyz'"),
        ({"experiments": [{"experiment": "gas", "set": {"seed": 1}}]}, "seed is not set here"),
        ({"experiments": [{"experiment": "gas", "models": ["pet-watr"]}]}, "'pet-watr' is none of the models"),
        ({"experiments": [{"experiment": "gas"}] * 2}, f"there are two experiments gas of {MODEL}"),
        ({"models": ["pet-water", "a/pet-water.pt"], "probe": ["box"]}, "two models are called pet-water"),
        ({"models": ["nowhere.pt"], "probe": ["box"]}, "nowhere.pt"),
    ],
)
def test_what_cannot_be_right_is_refused_in_a_sentence(tmp_path: Path, settings: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        read_study(written(tmp_path, **settings))


def test_files_are_looked_for_beside_the_study_and_a_word_is_a_list(tmp_path: Path) -> None:
    (tmp_path / "water.xyz").write_text("3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n", encoding="utf-8")
    study = read_study(written(tmp_path, models=MODEL, probe="water.xyz@0"))
    assert study.models == (MODEL,)
    assert study.probe == (f"{tmp_path / 'water.xyz'}@0",)


def test_the_packaged_studies_become_graphs(tmp_path: Path) -> None:
    assert packaged_studies() == ["water-laptop", "water-paper", "water-smoke"]
    for name in packaged_studies():
        graph = study_graph(read_study(name), tmp_path)
        names = [each.name for each in graph.tasks]
        assert len(set(names)) == len(names)
        for place, task in enumerate(graph.tasks):
            assert set(task.needs) <= set(names[:place])
        assert names[-1] == "report"
    # Twenty walkers of six strategies at 512 molecules.
    liquid = [each for each in study_graph(read_study("water-paper"), tmp_path).tasks if "liquid/nvt" in each.name]
    assert len(liquid) == 120
    assert all(each.run is not None and each.run.repeat == (2, 2, 2) for each in liquid)


def test_only_what_changed_has_another_key(tmp_path: Path) -> None:
    def keys(**study: object) -> dict[str, str]:
        return {each.name: each.key for each in study_graph(read_study(written(tmp_path, **study)), tmp_path).tasks}

    liquid = {"experiment": "liquid", "only": ["i"], "set": {"length": 0.04, "frames_every": 5}}
    before = keys(experiments=[{"experiment": "gas"}, liquid], probe=["molecule"])
    more = keys(experiments=[{"experiment": "gas"}, {**liquid, "walkers": 2}], probe=["molecule"])
    changed = {name for name, key in before.items() if more[name] != key}
    assert changed == {f"{MODEL}/liquid/analysis", "report"}
    assert set(more) - set(before) == {f"{MODEL}/liquid/nvt-raw-1", f"{MODEL}/liquid/nvt-i-1"}
    own = keys(experiments=[{"experiment": "gas"}, {**liquid, "walkers": {"raw": 2, "others": 1}}], probe=["molecule"])
    assert set(more) - set(own) == {f"{MODEL}/liquid/nvt-i-1"}
    longer = keys(experiments=[{"experiment": "gas", "set": {"length": 0.12}}, liquid], probe=["molecule"])
    assert {name for name in before if longer[name] != before[name]} == {
        each for each in before if "/gas/" in each or each == "report"
    }


def test_runs_wait_for_their_starting_configurations(tmp_path: Path) -> None:
    """One task for all models; it decides what runs are, and its file need not be there to describe them."""
    settings = {"model": "soap-bpnn-water", "length": 0.02, "allow_short": True}
    short = {"length": 0.04, "frames_every": 5}
    liquid = {"experiment": "liquid", "only": ["i"], "walkers": 2, "set": short, "equilibrate": settings}

    def graph_of(**more: object) -> dict[str, Task]:
        models = [MODEL, "pet-water"]
        study = read_study(written(tmp_path, models=models, experiments=[{**liquid, **more}]))
        return {each.name: each for each in study_graph(study, tmp_path).tasks}

    tasks = graph_of()
    (first,) = [each for each in tasks.values() if each.name.startswith("starts/")]
    runs = [each for each in tasks.values() if each.run is not None]
    assert len(runs) == 8
    assert all(each.needs == (first.name,) for each in runs)
    assert [each.run.configuration for each in runs[:4]] == [0, 0, 1, 1]  # type: ignore[union-attr]
    assert first.evaluations == 40
    assert first.command[first.command.index("--starts") + 1] == "2"
    assert "--allow-short" in first.command
    other = graph_of(equilibrate={**settings, "length": 0.04})
    assert not {each.name for each in other.values()} >= {first.name}
    assert all(other[each.name].key != each.key for each in runs)
    with pytest.raises(InputError, match="there are 2 independent runs and 1 starting configurations"):
        graph_of(equilibrate={**settings, "starts": 1})
    with pytest.raises(InputError, match="equilibrate goes with the experiment liquid, not with gas"):
        read_study(written(tmp_path, experiments=[{"experiment": "gas", "equilibrate": settings}]))


def test_costs_follow_from_steps_and_rules(tmp_path: Path) -> None:
    liquid = {"experiment": "liquid", "only": ["i", "2i"], "frames": 2, "grids": ["none", "2"]}
    path = written(tmp_path, experiments=[{**liquid, "set": {"length": 0.04, "frames_every": 5}}])
    graph = study_graph(read_study(path), tmp_path)
    found = costs(graph)
    steps = 80
    count = {name.rpartition("/")[2]: cost.evaluations for name, cost in found.items()}
    assert count == {"nvt-raw-0": steps, "nvt-i-0": 1.1 * steps, "nvt-2i-0": 4.6 * steps, "analysis": 132, "report": 0}
    assert found[f"{MODEL}/liquid/nvt-raw-0"].size == 9 * 192 * 48
    raw, inverted, finer = (found[f"{MODEL}/liquid/nvt-{name}-0"].seconds for name in ("raw", "i", "2i"))
    assert 0.0 < raw < finer
    assert 0.5 * raw < inverted < finer  # what the inner steps evaluated counts once, and not never
    assert total(found.values()).evaluations == sum(count.values())
    # Two cells of 16 molecules are half of the packaged one: at most 3 steps and a start by 1 + 36 rotations, and 93.
    path = written(tmp_path, experiments=[{"experiment": "ice", "set": {"steps": 3}}])
    (ice, _) = costs(study_graph(read_study(path), tmp_path)).values()
    assert ice.evaluations == 0.5 * (4 * 37 + 93)
    assert ice.seconds > 0.0


# --- runs -----------------------------------------------------------------------------------------------------------


def started(source: Path | str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "goniometer.cli", "study", str(source), "-o", str(folder), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder.parent, start_new_session=True
    )


def finished(source: Path | str, folder: Path, *arguments: str) -> str:
    process = started(source, folder, *arguments)
    out, error = process.communicate()
    assert process.returncode == 0, error + (folder / "engine.log").read_text()[-3000:]
    return out


def records(folder: Path) -> dict[str, int]:
    return {str(each): each.stat().st_mtime_ns for each in sorted((folder / "done").rglob("*")) if each.is_file()}


def results(folder: Path) -> dict[str, xarray.Dataset]:
    return {str(each.relative_to(folder)): xarray.load_dataset(each) for each in sorted(folder.rglob("*.nc"))}


def endings(folder: Path) -> dict[str, int]:
    """How often each run came to its end."""
    found = {}
    for path in sorted(folder.rglob("sessions.json")):
        whole = json.loads((path.parent / "state.json").read_text())["step"]
        found[path.parent.name] = sum(each["to_step"] == whole for each in json.loads(path.read_text()))
    return found


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The smallest study, finished: once for all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "smoke-study"
    with folder.with_suffix(".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if not (folder / "report.html").exists():
            out = finished("water-smoke", folder, "--no-estimate", "--cores", "2")
            assert out.splitlines()[-1] == f"report: {folder / 'report.html'}"
    return folder


def test_the_smallest_study_has_all_phases_and_strategies(smoke: Path) -> None:
    assert len(records(smoke)) == 16
    (starts,) = smoke.glob("starts/*/starts.json")
    record = json.loads(starts.read_text("utf-8"))
    assert record["note"].startswith("too short: the correlation time of M is ")
    assert not record["independent"]
    assert len(record["configurations"]) == 1
    assert set(endings(smoke).values()) == {1}
    page = (smoke / "report.html").read_text(encoding="utf-8")
    for heading in ("grids", "molecule", "liquid", "drift", "ice", "spectra", "changes", "cost", "runs"):
        assert f'<section id="{heading}">' in page
    assert "their numbers mean nothing" in page
    assert 'id="failures"' not in page
    for run in (
        "gas-nve mts",
        "gas-nve random",
        "gas-nve tumble",
        "liquid-nvt raw",
        "liquid-nvt 2i",
        "liquid-nvt turned",
    ):
        assert run in page


def test_what_takes_longest_is_begun_first(smoke: Path) -> None:
    begun = re.findall(r"^    log: log/(.*)\.log$", (smoke / "engine.log").read_text("utf-8"), re.MULTILINE)
    ready = [each for each in json.loads((smoke / "graph.json").read_text("utf-8")) if not each["needs"]]
    longest = sorted(ready, key=lambda task: -task["priority"])[:2]  # what two cores begin with
    assert set(begun[:2]) == {task["name"] for task in longest}
    assert any(each.startswith("starts/") for each in begun[:2])  # runs of the liquid wait for it


def test_what_much_waits_for_comes_before_what_takes_long_itself(tmp_path: Path) -> None:
    """Frames of the raw runs over all grids take longer than the runs."""
    liquid = {"experiment": "liquid", "only": ["tumble"], "walkers": 2, "frames": 100, "set": {"length": 0.02}}
    graph = study_graph(read_study(written(tmp_path, experiments=[liquid], probe=["box"])), tmp_path)
    work = {task.name: task.work for task in graph.tasks}
    runs, analysis = [task for task in graph.tasks if task.run is not None], f"{MODEL}/liquid/analysis"
    assert (
        work[analysis] == 100 * 280 * 192
    )  # of 378 rotations of all grids some are in several; with the 48 of the lattice
    for run in runs:
        assert work[run.name] == 40 * 192
        assert graph.ahead[run.name] == work[run.name] + work[analysis]
    assert graph.ahead["report"] == work["report"] == 0.0


def test_the_same_command_again_does_nothing(smoke: Path) -> None:
    before = records(smoke)
    assert "16 tasks" in finished("water-smoke", smoke, "--no-estimate").splitlines()[0]
    assert records(smoke) == before


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 380)])
def test_the_report_in_a_browser(browser: object, smoke: Path, scheme: str, width: int) -> None:
    seen = look(browser, smoke / "report.html", scheme, width)
    assert (seen.complaints, seen.requests) == ([], [])
    assert seen.overflow <= 0
    kinds = ("gas", "liquid", "liquid-drift", "liquid-convergence", "liquid-cost")
    assert {f"{kind}-{hashlib.sha256(MODEL.encode()).hexdigest()[:8]}" for kind in kinds} < set(seen.figures)
    assert "grids-0" in seen.figures
    # On a phone a figure with many panels is as large as it has to be, and scrolls.
    assert seen.figures["grids-0"][0] >= 640
    assert all(wide > 200 and high > 80 for wide, high in seen.figures.values())


def test_a_failed_task_is_named_and_the_rest_is_done(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(
        "from ase.calculators.lj import LennardJones\n\n\ndef made():\n    raise RuntimeError('out of paint')\n"
        "\n\ndef good():\n    return LennardJones(epsilon=0.01)\n",
        encoding="utf-8",
    )
    models = [f"{tmp_path / 'toy.py'}:{name}" for name in ("made", "good")]
    path = written(tmp_path, models=models, probe=["molecule"])
    folder = tmp_path / "study"
    process = started(path, folder, "--no-estimate", "--cores", "1")
    _, error = process.communicate()
    assert process.returncode == 2
    said = error.splitlines()[-1]
    assert said.startswith("goniometer: 1 of 3 tasks failed and 1 wait for others; toy-made/probe: ")
    assert "out of paint" in said
    assert "Traceback" not in error
    assert re.search(r"^1 of 3 tasks, \d+%$", error, re.MULTILINE)
    assert (folder / "done" / "toy-good" / "probe").exists()
    (tmp_path / "toy.py").write_text((tmp_path / "toy.py").read_text().replace("raise", "return good()\n    raise"))
    finished(path, folder, "--no-estimate")
    assert len(records(folder)) == 3


@pytest.mark.nightly
def test_control_c_stops_and_the_same_command_goes_on(tmp_path: Path) -> None:
    path = written(tmp_path, experiments=[{**GAS, "set": {**GAS["set"], "length": 4.0}}])
    folder = tmp_path / "study"
    process = started(path, folder, "--no-estimate", "--cores", "1")
    wait_for(lambda: list(folder.rglob("sessions.json")) or list(folder.rglob("start.xyz")), process)
    time.sleep(2.0)
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=100)
    assert process.returncode == 130
    assert error.splitlines()[-1] == "goniometer: stopped; the same command goes on"
    (state,) = folder.rglob("state.json")
    assert 0 < json.loads(state.read_text())["step"] < 8000
    again = started(path, folder, "--no-estimate", "--cores", "1")
    wait_for(lambda: held(folder / "lock"), again)
    other = started(path, folder, "--no-estimate")
    _, refused = other.communicate(timeout=100)
    assert other.returncode == 2
    assert refused.splitlines()[-1] == f"goniometer: another process is at work on the study in '{folder}'"
    os.kill(again.pid, signal.SIGINT)
    again.communicate(timeout=100)
    assert again.returncode == 130


SLOW = """
import time
from pathlib import Path
from ase.calculators.lj import LennardJones


class Slow(LennardJones):
    def calculate(self, *arguments, **more):
        Path("{folder}/reached").touch()
        time.sleep(200.0)


def made():
    return Slow()
"""


def at_work(group: int) -> list[int]:
    """The processes of a group, but for those that have ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, own = path.read_text().rpartition(")")[2].split()[:3]
            if int(own) == group and state not in "ZX":
                found.append(int(path.parent.name))
    return found


@pytest.mark.nightly
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_killed_study_takes_its_engine_and_its_tasks_with_it(number: int, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW.format(folder=tmp_path), encoding="utf-8")
    path = written(tmp_path, models=[f"{tmp_path / 'slow.py'}:made"], probe=["molecule"])
    folder = tmp_path / "study"
    process = started(path, folder, "--no-estimate", "--cores", "1")
    wait_for((tmp_path / "reached").exists, process)
    group = int((folder / "engine").read_text())
    assert len(at_work(group)) >= 3  # the keeper, Snakemake and the task
    os.kill(process.pid, number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    if number != signal.SIGKILL:
        assert error.splitlines()[-1] == "goniometer: stopped; the same command goes on"
    limit = time.monotonic() + 30.0
    while at_work(group):
        assert time.monotonic() < limit
        time.sleep(0.1)


def held(path: Path) -> bool:
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def wait_for(there: object, process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 300.0
    while time.monotonic() < limit and process.poll() is None:
        if there():  # type: ignore[operator]
            return
        time.sleep(0.1)
    raise AssertionError(process.communicate()[1])


@pytest.mark.nightly
def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, experiments=[GAS])
    finished(path, tmp_path / "whole", "--no-estimate")
    folder = tmp_path / "killed"
    rng = np.random.default_rng(0)
    kills = 0
    while kills < 10:
        process = started(path, folder, "--no-estimate")
        time.sleep(rng.uniform(2.0, 8.0 + kills))
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        engine = (folder / "engine").read_text() if (folder / "engine").exists() else ""
        if engine.isdigit() and rng.random() < 0.5:  # the engine and its tasks as well; otherwise they are left alone
            os.killpg(int(engine), signal.SIGKILL)
        process.communicate()
        kills += 1
    finished(path, folder, "--no-estimate")
    assert kills >= 3  # of ten: a fast machine is done before
    one, other = results(tmp_path / "whole"), results(folder)
    assert set(one) == set(other)
    for name, data in one.items():
        xarray.testing.assert_equal(data, other[name])
    assert set(endings(folder).values()) == {1}


SLURM = """ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/none
CryptoType=crypto/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/node.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
MinJobAge=300
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[None]:
    """Slurm with this machine as its one node, where it is installed (Debian: slurmctld, slurmd, slurm-client)."""
    settings = Path("/etc/slurm/slurm.conf")
    if not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch"))):
        pytest.skip("Slurm is not installed")
    if os.getuid() != 0 or settings.exists():
        pytest.skip("a Slurm of one's own takes root, and none that is configured already")
    folder = tmp_path / "slurm"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    host = socket.gethostname().partition(".")[0]
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        settings.parent.mkdir(exist_ok=True)
        settings.write_text(SLURM.format(host=host, folder=folder), encoding="utf-8")
        for name in ("slurmctld", "slurmd"):
            daemons.append(subprocess.Popen([name, "-D"], stderr=subprocess.DEVNULL))
            time.sleep(2.0)
        for _ in range(60):
            if b"idle" in subprocess.run(["sinfo"], capture_output=True).stdout:
                break
            time.sleep(0.5)
        else:
            pytest.skip("the node of Slurm does not come up here")
        yield
    finally:
        for each in daemons:
            each.terminate()
            each.wait()
        settings.unlink()


@pytest.mark.nightly
def test_slurm_runs_the_same_graph(cluster: None, tmp_path: Path) -> None:
    path = written(tmp_path, probe=["molecule"])
    folder = tmp_path / "study"
    slurm = ("--executor", "slurm", "--jobs", "2", "--slurm-status-command", "squeue", "--default-resources")
    resources = ("slurm_partition=main", "mem_mb=1000", "runtime=10")
    finished(path, folder, "--no-estimate", "--", *slurm, *resources)
    assert len(records(folder)) == 2
    jobs = subprocess.run(["squeue", "--states=all", "--noheader", "--format=%T"], capture_output=True, text=True)
    assert jobs.stdout.split() == ["COMPLETED"] * 2
