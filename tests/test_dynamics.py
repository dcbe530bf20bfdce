"""Dynamics: a run that was killed is as one that was not, thermostats give the canonical distribution, checks stop."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase import Atoms, units
from ase.calculators.lj import LennardJones
from scipy.stats import kstest

from goniometer import load, symmetrize
from goniometer.dynamics.checkpoint import read_sessions
from goniometer.dynamics.description import Run, packaged_runs, read_runs
from goniometer.dynamics.forces import Forces, evaluations
from goniometer.dynamics.langevin import WAVENUMBER, drift_matrix, efficiency
from goniometer.dynamics.limits import RunError
from goniometer.dynamics.run import Finished, run, start_of, structure_of, trajectory_of, turns_of_cell
from goniometer.errors import InputError, PotentialError, ServerError
from goniometer.potentials import Potential, Prediction
from goniometer.potentials.base import placed
from goniometer.potentials.caching import Remembering
from goniometer.rotations import rule as named_rule
from goniometer.structures import read_structures
from goniometer.trajectories.h5md import read_trajectory
from springs import Springs

EXACT = {"potential": {"dtype": "float64"}, "orientations": "random", "frames_every": 2.0, "length": 0.02}
LANGEVIN = {"ensemble": "nvt", "thermostat": {"kind": "langevin", "time": 50.0}}
STRATEGIES: dict[str, dict[str, Any]] = {
    "raw": {"kind": "raw"},
    "average": {"kind": "average", "rule": "klein"},
    "random": {"kind": "random"},
    "tumble": {"kind": "tumble", "period": 100.0, "memory": 100.0},
    "mts": {"kind": "mts", "rule": "klein", "ratio": 2},
    "mts, turned at random": {"kind": "mts", "rule": "identity", "ratio": 2, "outer": "random"},
}


def described(**settings: Any) -> Run:
    return Run.model_validate({**EXACT, **settings})


def arrays(folder: Path) -> dict[str, np.ndarray]:
    """Everything that a trajectory holds."""
    frames = read_trajectory(folder).frames()
    own = {"step": frames.steps, "positions": frames.positions, "velocities": frames.velocities}
    return {**own, **frames.observables}


@cache
def model() -> Potential:
    """The packaged model, loaded once; nothing depends on what it evaluated before."""
    return load("pet-water", dtype="float64", batch=64)


class Killed(BaseException):
    """As if the process had ended."""


def killed_often(description: Run, parent: Path, steps: int, **options: Any) -> Finished:
    """The run, ended without warning after so many steps of each attempt; checkpoints come when they come."""
    for attempt in range(100):
        calls = iter(range(steps + attempt % 3))

        def progress(done: int, whole: int, label: str, calls: Iterator[int] = calls) -> None:
            if next(calls, None) is None:
                raise Killed

        try:
            return run(description, parent, progress=progress, checkpoint=0.01, **options)
        except Killed:
            continue
    raise AssertionError("the run makes no headway")


# ---- a kill at any moment ------------------------------------------------------------------------------------------


#: Those in which most is drawn at random: turns, thermostats and both kinds of steps.
DEMANDING = {"tumble", "mts, turned at random"}


@pytest.mark.parametrize(
    ("strategy", "thermostat"),
    [
        pytest.param(
            name,
            thermostat,
            id=f"{name}-{ensemble}",
            marks=() if thermostat and name in DEMANDING else pytest.mark.nightly,
        )
        for name in STRATEGIES
        for ensemble, thermostat in (("nve", {}), ("langevin", LANGEVIN))
    ],
)
def test_a_killed_run_gives_the_same_trajectory_to_the_last_bit(strategy, thermostat, tmp_path: Path) -> None:
    description = described(strategy=STRATEGIES[strategy], replicas=2, **thermostat, checks={"energy": None})
    whole = run(description, tmp_path / "whole", potential=model())
    killed = killed_often(description, tmp_path / "killed", 13, potential=model())
    one, other = arrays(whole.folder), arrays(killed.folder)
    assert one["step"].tolist() == list(range(0, description.steps + 1, description.stride))
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)
    assert len(list(killed.folder.glob("frames-*.h5"))) > 1
    assert np.ptp(one["positions"], axis=0).max() > 0.01  # it moves


@pytest.mark.parametrize("kind", ["svr", "gle"])
def test_the_other_thermostats_go_on_as_well(kind: str, tmp_path: Path) -> None:
    description = described(ensemble="nvt", thermostat={"kind": kind}, replicas=2)
    whole = run(description, tmp_path / "whole", potential=model())
    killed = killed_often(description, tmp_path / "killed", 13, potential=model())
    for name, values in arrays(whole.folder).items():
        np.testing.assert_array_equal(values, arrays(killed.folder)[name], err_msg=name)


@pytest.mark.parametrize("strategy", [{"kind": "raw"}, {"kind": "mts", "rule": "identity", "ratio": 2}])
def test_a_periodic_structure_goes_on_as_well(tmp_path: Path, strategy: dict[str, Any]) -> None:
    box = Atoms("H2OH2O", [[0.6, 0, 1], [1.2, 1.5, 1], [0.9, 0.8, 1], [3.6, 0, 3], [4.2, 1.5, 3], [3.9, 0.8, 3]])
    box.set_cell([6.0, 6.0, 6.0])
    box.pbc = True
    box.write(tmp_path / "box.xyz")
    description = described(
        structure=str(tmp_path / "box.xyz"), strategy=strategy, seed=3, **LANGEVIN,
        checks={"temperature": None, "energy": None},
    )  # fmt: skip
    whole = run(description, tmp_path / "whole", potential=model())
    killed = killed_often(description, tmp_path / "killed", 16, potential=model())
    for name, values in arrays(whole.folder).items():
        np.testing.assert_array_equal(values, arrays(killed.folder)[name], err_msg=name)


def test_asked_for_a_greater_length_a_run_goes_on_and_it_serves_for_a_smaller_one(tmp_path: Path) -> None:
    short, long = (described(length=length, **LANGEVIN, strategy=STRATEGIES["mts"]) for length in (0.012, 0.02))
    first = run(short, tmp_path / "grown", potential=model())
    grown = run(long, tmp_path / "grown", potential=model())
    assert grown.folder == first.folder
    assert yaml.safe_load((grown.folder / "description.yaml").read_text("utf-8"))["length"] == 0.02
    whole = arrays(run(long, tmp_path / "whole", potential=model()).folder)
    for name, values in arrays(grown.folder).items():
        np.testing.assert_array_equal(values, whole[name], err_msg=name)
    told: list[int] = []
    assert run(short, tmp_path / "grown", potential=model(), progress=lambda done, *_: told.append(done)).finished
    assert told == []
    part = trajectory_of(short, grown.folder).frames()
    assert part.steps.tolist() == list(range(0, short.steps + 1, short.stride))
    np.testing.assert_array_equal(part.positions, whole["positions"][: len(part)])
    assert len(trajectory_of(long, grown.folder)) == len(whole["step"]) > len(part)
    # Control: anything else that differs is another run.
    other = run(short.model_copy(update={"seed": 1}), tmp_path / "grown", potential=model())
    assert other.folder != grown.folder
    sessions = read_sessions(grown.folder, short.steps)
    assert [each["to_step"] for each in sessions] == [short.steps]
    assert [each["to_step"] for each in read_sessions(grown.folder)] == [short.steps, long.steps]
    (part_of,) = read_sessions(tmp_path / "whole" / grown.folder.name, short.steps)
    (all_of,) = read_sessions(tmp_path / "whole" / grown.folder.name)
    assert part_of["seconds"] == pytest.approx(0.6 * all_of["seconds"])
    # What is asked of a run that another process makes longer is there all the same.
    with (grown.folder / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert run(short, tmp_path / "grown", potential=model()).finished
        with pytest.raises(InputError, match="another process is at work"):
            run(short.model_copy(update={"length": 0.04}), tmp_path / "grown", potential=model())


def command(tmp_path: Path) -> list[str]:
    (tmp_path / "gas.yaml").write_text(json.dumps({**EXACT, **LANGEVIN, "length": 0.4, "replicas": 2}))
    return [sys.executable, "-m", "goniometer.cli", "run", str(tmp_path / "gas.yaml"), "-o"]


@pytest.mark.nightly
def test_a_process_that_is_killed_at_random_moments_goes_on_to_the_same_end(tmp_path: Path) -> None:
    start = command(tmp_path)
    subprocess.run([*start, str(tmp_path / "whole")], check=True)
    rng = np.random.default_rng(0)
    for _ in range(5):
        process = subprocess.Popen([*start, str(tmp_path / "killed")])
        time.sleep(3.0 + 6.0 * rng.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*start, str(tmp_path / "killed")], check=True)
    (one,), (other,) = ((tmp_path / each).iterdir() for each in ("whole", "killed"))
    for name, values in arrays(one).items():
        np.testing.assert_array_equal(values, arrays(other)[name], err_msg=name)


def test_ctrl_c_lets_the_step_come_to_its_end_and_the_run_goes_on(tmp_path: Path) -> None:
    description = described(length=1.0)

    def interrupt(done: int, whole: int, label: str) -> None:
        if done == 10:
            os.kill(os.getpid(), signal.SIGINT)

    result = run(description, tmp_path, progress=interrupt)
    assert (result.steps, result.finished) == (10, False)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert len(arrays(result.folder)["step"]) == 3


def test_a_finished_run_is_not_done_again(tmp_path: Path) -> None:
    description = described()
    first = run(description, tmp_path)
    assert first.finished
    again = run(description, tmp_path, progress=lambda *_: pytest.fail("a step was made"))
    assert again == first
    assert [each["to_step"] for each in json.loads((first.folder / "sessions.json").read_text())] == [40]


def test_two_processes_do_not_work_on_one_run(tmp_path: Path) -> None:
    description = described()

    def second(done: int, whole: int, label: str) -> None:
        if done == 3:
            with pytest.raises(InputError, match="another process is at work on the run in"):
                run(description, tmp_path)

    assert run(description, tmp_path, progress=second).finished


def test_a_state_that_is_none_is_refused(tmp_path: Path) -> None:
    folder = run(described(), tmp_path, potential=model()).folder
    (folder / "state.json").write_text("{")
    with pytest.raises(InputError, match=r"state\.json' is not the state of a run"):
        run(described(), tmp_path, potential=model())


# ---- strategies ----------------------------------------------------------------------------------------------------


def test_multiple_time_steps_of_ratio_one_are_the_averaged_run(tmp_path: Path) -> None:
    averaged = run(described(strategy={"kind": "average", "rule": "klein"}, replicas=2), tmp_path).folder
    multiple = run(described(strategy={"kind": "mts", "rule": "klein", "ratio": 1}, replicas=2), tmp_path).folder
    raw = run(described(replicas=2), tmp_path).folder
    one, other = arrays(averaged), arrays(multiple)
    np.testing.assert_allclose(one["positions"], other["positions"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(one["potential_energy"], other["potential_energy"], rtol=0, atol=1e-9)
    assert np.abs(one["positions"] - arrays(raw)["positions"]).max() > 1e-6


class Counted(Springs):
    """Counts the copies that are evaluated."""

    evaluated = 0

    def turned_each(self, structure: Atoms, positions: np.ndarray, matrices: np.ndarray) -> Iterator[Prediction]:
        self.evaluated += len(matrices)
        return super().turned_each(structure, positions, matrices)


@pytest.mark.parametrize(
    ("rule", "inversion", "replicas", "outer"),
    [("identity", True, 0, "average"), ("klein", True, 3, "average"), ("legendre:2", False, 1, "average"),
     ("identity", True, 2, "random"), ("octahedral", True, 0, "average")],
)  # fmt: skip
def test_what_the_inner_steps_evaluated_is_not_evaluated_again(
    tmp_path: Path, rule: str, inversion: bool, replicas: int, outer: str
) -> None:
    """Of replicas, or (0) of a structure that is periodic."""
    strategy = {"kind": "mts", "rule": rule, "inversion": inversion, "ratio": 4, "outer": outer}
    water, replicas, periodic = read_structures("molecule")[0].atoms, max(1, replicas), replicas == 0
    start = {"structure": str(tmp_path / "start.xyz"), "orientations": "same"}
    if periodic:
        water.set_cell([9.0, 9.0, 9.0])
        water.pbc = True
    water.write(tmp_path / "start.xyz")
    description = described(strategy=strategy, replicas=replicas, checks={"energy": None}, **start)
    potential = Counted(water, field=0.1)
    run(description, tmp_path, potential=potential)
    # The test that the average is a potential, which comes once, before the first step.
    tested = Counted(water, field=0.1)
    Forces(description, structure_of(description), tested).verify(start_of(description, structure_of(description))[0])
    assert 0 < tested.evaluated <= 42  # most for models with a virial
    steps = 4 * description.steps
    first = evaluations(description.strategy) * 4 - 3  # the model and the average before the first step
    stepped = potential.evaluated - tested.evaluated
    assert stepped == pytest.approx(replicas * (steps * evaluations(description.strategy) + first))
    held = (named_rule(rule, inversion).matrices == np.eye(3)).all(axis=(1, 2)).any() and outer == "average"
    copies = len(named_rule(rule, inversion))
    assert evaluations(description.strategy) == 1.0 + (copies - held) / 4


def test_a_potential_that_remembers_is_the_same(tmp_path: Path) -> None:
    """Whatever it was asked before: copies in any order, of one structure or of several, in another cell."""
    rng = np.random.default_rng(0)
    water = read_structures("molecule")[0].atoms
    counted = Counted(water, field=0.3)
    remembering = Remembering(counted)
    shifted = [placed(water, water.positions + rng.normal(scale=0.1, size=(3, 3))) for _ in range(2)]
    matrices = np.concatenate([named_rule("klein", inversion=True).matrices, np.eye(3)[None]])
    for structure in (*shifted, shifted[0]):
        for order in (slice(None), [3, 0, 1], [1], [8, 8], slice(None, None, -1)):
            said = Prediction.joined(remembering.turned(structure, matrices[order]))
            expected = Prediction.joined(counted.turned(structure, matrices[order]))
            np.testing.assert_array_equal(said.energies, expected.energies)
            np.testing.assert_array_equal(said.forces, expected.forces)
            each = np.stack([shifted[place % 2].positions for place in range(len(matrices[order]))])
            said = Prediction.joined(remembering.turned_each(structure, each, matrices[order]))
            expected = Prediction.joined(counted.turned_each(structure, each, matrices[order]))
            np.testing.assert_array_equal(said.energies, expected.energies)
            np.testing.assert_array_equal(said.forces, expected.forces)
    before = counted.evaluated
    remembering.predict(shifted[0])
    remembering.predict(shifted[0])
    assert counted.evaluated == before + 1
    wider = shifted[0].copy()
    wider.set_cell([9.0, 9.0, 9.0])
    remembering.predict(wider)
    assert counted.evaluated == before + 2


def test_what_a_trajectory_says_of_the_model_is_true(tmp_path: Path) -> None:
    """The energies of the strategies, and the frames in which the model saw the molecule."""
    water, averaged = read_structures("molecule")[0].atoms, symmetrize(model(), "klein")
    for strategy in ("mts", "random", "tumble"):
        found = arrays(
            run(described(strategy=STRATEGIES[strategy], replicas=2, checks={"energy": None}), tmp_path).folder
        )
        for time_index in (0, 3):
            for replica in (0, 1):
                x = found["positions"][time_index, replica]
                energy = found["potential_energy"][time_index, replica]
                if strategy == "mts":
                    expected = averaged.predict(placed(water, x)).energies[0]
                    raw = model().predict(placed(water, x)).energies[0]
                    assert found["raw_potential_energy"][time_index, replica] == pytest.approx(raw, abs=1e-9)
                    assert abs(raw - expected) > 1e-6
                else:
                    turn = found["frame"][time_index, replica]
                    expected = model().predict(placed(water, x @ turn.T)).energies[0]
                assert energy == pytest.approx(expected, abs=1e-9)


def test_drivers_give_the_trajectory_of_this_process_and_any_but_the_last_may_be_killed(tmp_path: Path) -> None:
    description = described(strategy={"kind": "tumble", "rule": "klein", "inversion": False})
    here = arrays(run(description, tmp_path / "here").folder)
    killed = []

    def kill_one(done: int, whole: int, label: str) -> None:
        if done == 10:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            found = [int(each) for each in children if "driver" in Path(f"/proc/{each}/cmdline").read_text()]
            os.kill(found[0], signal.SIGKILL)
            killed.extend(found)

    there = arrays(run(description, tmp_path / "there", drivers=2, progress=kill_one).folder)
    assert len(killed) == 2
    np.testing.assert_allclose(here["positions"], there["positions"], rtol=0, atol=1e-9)


def test_drivers_that_all_end_end_the_run_with_what_they_said(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("def factory():\n    raise ValueError('no licence for today')\n")
    description = described(potential={"model": f"{tmp_path}/model.py:factory"})
    with pytest.raises(ServerError, match=r"all drivers have ended: .*no licence for today"):
        run(description, tmp_path / "runs", drivers=1)


def test_a_run_has_drivers_of_one_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="drivers are started here, or come to an address"):
        run(described(), tmp_path, drivers=1, address="5000")


# ---- known laws ----------------------------------------------------------------------------------------------------

DIATOMIC = Atoms("OH", [[0.0, 0.0, 0.0], [0.97, 0.0, 0.0]])


def sampled(thermostat: dict[str, Any] | None, tmp_path: Path, **settings: Any) -> dict[str, np.ndarray]:
    """Many diatomic molecules of springs that start at rest length with velocities of 300 K."""
    DIATOMIC.write(tmp_path / "diatomic.xyz")
    description = Run.model_validate(
        {
            "structure": str(tmp_path / "diatomic.xyz"),
            "orientations": "random",
            "replicas": 300,
            "ensemble": "nvt" if thermostat else "nve",
            "thermostat": thermostat,
            "length": 0.6,
            "frames_every": 20.0,
            "checks": {"temperature": None, "energy": None},
            **settings,
        }
    )
    return arrays(run(description, tmp_path, potential=Springs(DIATOMIC)).folder)


def velocity_deviates(found: dict[str, np.ndarray]) -> np.ndarray:
    """At the end, over their standard deviation at 300 K."""
    width = np.sqrt(units.kB * 300.0 * units.fs**2 / DIATOMIC.get_masses())
    return found["velocities"][-1] / width[:, None]


@pytest.mark.parametrize(
    "thermostat", [{"kind": "langevin", "time": 50.0}, {"kind": "gle"}], ids=lambda each: each["kind"]
)
def test_velocities_have_the_maxwell_boltzmann_distribution(thermostat, tmp_path: Path) -> None:
    deviates = velocity_deviates(sampled(thermostat, tmp_path))
    assert kstest(deviates.ravel(), "norm").pvalue > 1e-3
    # Equipartition: stretch and turns alike.
    squares = (deviates**2).mean(axis=(1, 2))
    assert abs(squares.mean() - 1.0) < 4.0 * squares.std() / np.sqrt(len(squares))


def test_without_a_thermostat_they_do_not(tmp_path: Path) -> None:
    """The control: half of the energy of the stretch goes into the spring, and the centres of mass are at rest."""
    assert kstest(velocity_deviates(sampled(None, tmp_path)).ravel(), "norm").pvalue < 1e-6


def test_rescaled_velocities_keep_the_direction_of_every_angular_momentum(tmp_path: Path) -> None:
    """Why the lone molecule is no place for this thermostat, whose temperature is right all the same."""
    for kind, kept in (("svr", True), ("langevin", False)):
        found = sampled({"kind": kind, "time": 50.0}, tmp_path, length=0.7)
        masses = DIATOMIC.get_masses()
        centre = np.einsum("a,traj->trj", masses, found["positions"])[:, :, None] / masses.sum()
        momenta = masses[:, None] * found["velocities"]
        angular = np.cross(found["positions"] - centre, momenta).sum(axis=2)
        directions = angular / np.linalg.norm(angular, axis=-1, keepdims=True)
        cosines = (directions[0] * directions[-1]).sum(axis=-1)
        assert bool(cosines.min() > 0.999) is kept
        temperatures = found["temperature"][20:]
        assert abs(temperatures.mean() - 300.0) < 20.0


def test_the_drift_matrix_couples_alike_over_four_decades_where_white_noise_does_not() -> None:
    frequencies = WAVENUMBER * np.logspace(np.log10(0.4), np.log10(4000.0), 30)
    matrix = drift_matrix(0.4, 4000.0)
    assert np.linalg.eigvalsh(matrix).min() > 0.0
    assert min(efficiency(matrix, each) for each in frequencies) > 0.1
    white = np.array([[2.0 * frequencies[-1]]])
    assert efficiency(white, 0.999 * frequencies[-1]) == pytest.approx(1.0, abs=1e-3)
    assert efficiency(white, frequencies[0]) < 1e-3
    for damping in (0.3, 5.0):  # τ = 1/γ + γ/(4ω²)
        exact = 1.0 / (1.0 / damping + damping / 4.0)
        assert efficiency(np.array([[damping]]), 1.0) == pytest.approx(exact, rel=1e-9)


# ---- checks --------------------------------------------------------------------------------------------------------


class Nothing(Potential):
    """Gives numbers that are none."""

    name = "nothing"

    def turned(self, structure, matrices):
        yield Prediction(np.full(len(matrices), np.nan), np.zeros((len(matrices), len(structure), 3)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"checks": {"temperature": 1e-3}},
            r"fs the temperature is \d+ K, above \d+ K: 0.001 times 300 K and what 3 atoms",
        ),
        ({"checks": {"energy": 1e-6}}, r"the conserved quantity has changed by -?\d.* meV per atom, more than 1e-06"),
        (
            {"checks": {"molecules": 1.01}},
            r"the bond between atoms \d \(.\) and \d \(.\), counted from 0, is [\d.]+ Å long",
        ),
    ],
)
def test_a_check_stops_the_run_and_keeps_what_was_seen(settings, message: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=message):
        run(described(**settings), tmp_path)
    (folder,) = tmp_path.iterdir()
    assert len(read_trajectory(folder / "stopped.h5")) >= 1
    with pytest.raises(RunError, match=message):  # and it stops again
        run(described(**settings), tmp_path)


def test_numbers_that_are_none_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(PotentialError, match="nothing gave an energy that is not finite"):
        run(described(), tmp_path, potential=Nothing())


# ---- descriptions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("length: 1\nlenght: 2\n", "there is no key 'lenght'; there are potential, .*; did you mean 'length'?"),
        ("length: 1\nstrategy: {kind: raw, rule: klein}\n", "'strategy': rule does not go with the strategy raw"),
        ("length: 1\nstrategy: {kinds: raw}\n", "there is no key 'strategy.kinds'; there are kind, rule"),
        ("length: 1\nensemble: nvt\n", "ensemble nvt needs a thermostat, and nve has none"),
        ("length: 1\nframes_every: 0.7\n", "frames_every is 0.7 fs, which is no multiple of the time step, 0.5 fs"),
        ("length: 0.0105\n", "length is 10.5 fs, which is no multiple of frames_every, 10 fs"),
        ("length: 1\nstrategy: {kind: mts, ratio: 3}\n", "no multiple of the ratio times the time step, 1.5 fs"),
        ("ensemble: nve\n", "'length': Field required"),
        ("length: 1\nruns: 3\n", "'runs' holds names, each with keys and values"),
        ("- 1\n", "is no description of a run"),
    ],
)
def test_a_description_that_cannot_be_right_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_runs(tmp_path / "run.yaml")


def test_the_description_in_a_folder_is_that_of_the_run(tmp_path: Path) -> None:
    """With all its defaults, those of other strategies and thermostats included."""
    for number, strategy in enumerate(STRATEGIES.values()):
        thermostat = {"kind": ("svr", "gle")[number % 2]}
        description = described(strategy=strategy, ensemble="nvt", thermostat=thermostat, length=0.002)
        folder = run(description, tmp_path, name="again", potential=model()).folder
        (read,) = read_runs(folder / "description.yaml").values()
        assert read == description
        assert run(read, tmp_path, name="again", potential=model()).folder == folder


def test_names_that_a_description_does_not_hold_are_refused() -> None:
    with pytest.raises(InputError, match="there is no description 'gas'; the packaged ones are gas-nve, gas-nvt"):
        read_runs("gas")
    with pytest.raises(InputError, match="has no size 'huge'; its sizes are smoke, laptop, paper"):
        read_runs("gas-nve", size="huge")
    with pytest.raises(InputError, match="holds no run 'cooked'; its runs are raw, 2i"):
        read_runs("gas-nve", only=["cooked"])
    with pytest.raises(InputError, match="holds no run 'cooked'; its runs are raw, 2i"):
        read_runs("gas-nve", changes={"runs.cooked.length": 1})
    with pytest.raises(InputError, match="'runs' holds names, each with keys and values"):
        read_runs("gas-nve", changes={"runs.2i": 1})


def test_a_change_can_be_of_one_run_alone() -> None:
    changes = {"runs.2i.length": 3.0, "length": 2.0, "runs.2i.strategy.ratio": 4}
    runs = read_runs("liquid-nvt", size="laptop", only=["raw", "2i"], changes=changes)
    raw, averaged = runs["liquid-nvt-laptop-raw"], runs["liquid-nvt-laptop-2i"]
    assert (raw.length, averaged.length, averaged.strategy.ratio) == (2.0, 3.0, 4)
    nested = {"length": 2.0, "runs": {"2i": {"length": 3.0, "strategy": {"ratio": 4}}}}
    assert read_runs("liquid-nvt", size="laptop", only=["raw", "2i"], changes=nested) == runs
    assert set(read_runs("liquid-nvt", size="laptop", only=["raw"], changes=changes)) == {"liquid-nvt-laptop-raw"}


@pytest.mark.parametrize("name", packaged_runs())
@pytest.mark.parametrize("size", ["smoke", "laptop", "paper"])
def test_packaged_descriptions_can_be_read_in_all_sizes(name: str, size: str) -> None:
    runs = read_runs(name, size=size)
    assert len({each.digest() for each in runs.values()}) == len(runs)
    changed = read_runs(name, size=size, changes={"potential.model": "other.pt", "seed": 3})
    assert all(each.potential.model == "other.pt" and each.seed == 3 for each in changed.values())
    assert {each.digest() for each in runs.values()}.isdisjoint(each.digest() for each in changed.values())


def test_replicas_of_a_periodic_structure_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="replicas are those of an isolated molecule"):
        run(described(structure="box", orientations="same", replicas=2), tmp_path)


def test_every_seed_turns_a_periodic_start_by_another_rotation_of_its_cell() -> None:
    starts = []
    for seed in range(24):
        description = described(structure="box", seed=seed)
        starts.append(start_of(description, structure_of(description))[0])
    replica = structure_of(described(structure="box"))
    np.testing.assert_allclose(starts[0].positions, replica.positions, atol=1e-12)
    distances = replica.get_all_distances(mic=True)
    for each in starts[1:]:
        np.testing.assert_array_equal(each.cell.array, replica.cell.array)
        np.testing.assert_allclose(each.get_all_distances(mic=True), distances, atol=1e-10)
    # Of the bonds of four starts the mean of the vectors is none, of 24 that of all quadrupoles as well.
    bonds = np.array([each.positions[1::3] - each.positions[0::3] for each in starts])
    np.testing.assert_allclose(bonds[:4].mean(axis=0), 0.0, atol=1e-10)
    moments = np.einsum("sni,snj->snij", bonds, bonds).mean(axis=0)
    square = (bonds[0] ** 2).sum(axis=1)
    np.testing.assert_allclose(moments, square[:, None, None] * np.eye(3) / 3.0, atol=1e-10)
    # Controls: the starts differ, and one molecule does point somewhere.
    assert len({each.positions.round(6).tobytes() for each in starts}) == 24
    assert np.abs(bonds[0]).max() > 0.5


def test_a_start_turned_with_its_cell_is_another_one_to_a_model_that_is_not_invariant() -> None:
    description = described(structure="box", seed=4)
    replica = structure_of(description)
    energies = [float(model().predict(each).energies[0]) for each in (replica, start_of(description, replica)[0])]
    assert 1e-4 < abs(energies[1] - energies[0]) < 1.0, energies
    lattice = [
        LennardJones(sigma=2.5, rc=5.0).get_potential_energy(each)
        for each in (replica, start_of(description, replica)[0])
    ]
    assert lattice[0] == pytest.approx(lattice[1], rel=1e-10)


def test_rotations_of_a_cell_are_its_own() -> None:
    found = turns_of_cell(Atoms("H", cell=[9.0, 9.0, 9.0], pbc=True))
    np.testing.assert_allclose(
        [each.diagonal() for each in found[:4]], [[1, 1, 1], [-1, -1, 1], [1, -1, -1], [-1, 1, -1]]
    )
    np.testing.assert_allclose(found[4], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)
    triclinic = [[9.0, 0.3, 0.2], [0.0, 8.0, 0.4], [0.0, 0.0, 7.0]]
    hexagonal = [[3.0, 0.0, 0.0], [-1.5, 1.5 * 3.0**0.5, 0.0], [0.0, 0.0, 5.0]]
    for cell, count in ((triclinic, 1), ([9.0, 8.0, 7.0], 4), ([9.0, 9.0, 7.0], 8), (hexagonal, 12)):
        turns = turns_of_cell(Atoms("H", cell=cell, pbc=True))
        assert len(turns) == count
        for each in turns:
            whole = np.linalg.solve(Atoms(cell=cell).cell.array.T, each @ Atoms(cell=cell).cell.array.T)
            np.testing.assert_allclose(whole, whole.round(), atol=1e-9)
    with pytest.raises(
        InputError, match=r"periodic in some directions only is not turned .*: set orientations to same"
    ):
        turns_of_cell(Atoms("H", cell=[9.0, 9.0, 9.0], pbc=[True, True, False]))
