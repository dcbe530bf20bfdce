"""Files written in one step, and what is said where a disk is full, a folder is taken or an input is absurd."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from goniometer.dynamics.description import Run, read_runs
from goniometer.dynamics.relaxation import relax_all
from goniometer.dynamics.run import run, structure_of
from goniometer.errors import InputError
from goniometer.files.records import locked, remove_partial, replace_bytes, replace_text, replacing
from goniometer.files.settings import read_yaml
from goniometer.observables.result import Axis, Observable
from goniometer.potentials.loading import model_file
from goniometer.reporting.figures import write_figure
from goniometer.structures import read_structures, write_structures
from goniometer.studies.ice_cells import ice
from goniometer.trajectories.h5md import Frames, write_segment
from springs import Springs

WATER = molecule("H2O")
GAS: dict[str, Any] = {"length": 0.02, "frames_every": 2.0, "checks": {"energy": None}}


# ---- one step ------------------------------------------------------------------------------------------------------


def broken_in_the_middle(path: Path) -> None:
    with replacing(path) as partial:
        partial.write_text("half of it", encoding="utf-8")
        raise KeyboardInterrupt


def test_a_file_is_whole_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    replace_text(path, "the old one")
    with pytest.raises(KeyboardInterrupt):
        broken_in_the_middle(path)
    assert path.read_text("utf-8") == "the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_two_processes_write_one_file_without_a_clash(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with replacing(path) as one, replacing(path) as other:
        assert one != other
        one.write_text("one", encoding="utf-8")
        other.write_text("other", encoding="utf-8")
    assert path.read_text("utf-8") == "one"


def test_what_a_link_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    replace_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_text("utf-8") == "text"


def test_a_device_is_written_to_and_not_replaced() -> None:
    replace_text("/dev/null", "text")
    assert not Path("/dev/null").is_file()
    with pytest.raises(InputError, match="/dev/full cannot be written: No space left on device"):
        replace_text("/dev/full", "text")


def test_what_is_no_text_can_be_written(tmp_path: Path) -> None:
    replace_text(tmp_path / "page", os.fsdecode(b"\xff.xyz"))
    assert (tmp_path / "page").read_text("utf-8") == "\\udcff.xyz"


# ---- disks that are full, or not ours ------------------------------------------------------------------------------


def segment(path: Path) -> None:
    steps = np.arange(1000)
    positions = np.random.default_rng(0).random((1000, 1, 3, 3))
    write_segment(path, WATER, Frames(steps, 1.0 * steps, positions, positions, {}), {})


def checkpoint(path: Path) -> None:
    from goniometer.training.checkpoint import Checkpoint, Identity, TrainingState

    identity = Identity({}, 0, [], [])
    Checkpoint(identity, {}, TrainingState(), {}, {"weight": torch.rand(30_000)}, None).write(path)


def dataset(path: Path) -> None:
    values = np.random.default_rng(0).random(30_000)
    axis = Axis(np.arange(30_000.0), "fs")
    Observable("noise", "eV", values, values, {"time": axis}).save(path)


def picture(path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 8))
    figure.subplots().imshow(np.random.default_rng(0).random((300, 300)))
    write_figure(figure, path, "noise", "")


WRITERS: dict[str, Callable[[Path], None]] = {
    "run.json": lambda path: replace_text(path, "x" * 200_000),
    "model.bin": lambda path: replace_bytes(path, bytes(200_000)),
    "frames.h5": segment,
    "checkpoint.pt": checkpoint,
    "noise.nc": dataset,
    "noise.png": picture,
    "many.xyz": lambda path: write_structures(path, [WATER] * 1000),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_is_full_takes_one_sentence_and_leaves_the_old_file(name: str, tmp_path: Path) -> None:
    """A limit on the size of files, which fails as a full disk does, with another number."""
    path = tmp_path / name
    path.write_text("the old one", encoding="utf-8")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # Python ignores the signal that comes with it
    try:
        with pytest.raises(InputError, match=rf"{name} cannot be written: (File too large|.*errno = 27)"):
            WRITERS[name](path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text("utf-8") == "the old one"
    assert list(tmp_path.iterdir()) == [path]
    WRITERS[name](path)  # the control
    assert path.stat().st_size > 20_000


def failing(number: int, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, files cannot be put into their place, but for the first ones."""
    replace, count = Path.replace, iter(range(after))

    def refused(self: Path, target: Path) -> Path:
        if next(count, None) is None:
            raise OSError(number, os.strerror(number))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refused)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("after", range(5))
def test_a_run_on_a_full_disk_takes_one_sentence_and_resumes(
    number: int, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    description = Run.model_validate(GAS)
    with monkeypatch.context() as context:
        failing(number, after, context)
        with pytest.raises(InputError, match=f"cannot be written: {os.strerror(number)}"):
            run(description, tmp_path, potential=Springs(WATER))
    assert run(description, tmp_path, potential=Springs(WATER)).finished


def test_relaxations_on_a_full_disk_take_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rattled = WATER.copy()
    rattled.rattle(0.02, seed=0)
    named = read_structures([rattled])
    with monkeypatch.context() as context:
        failing(errno.ENOSPC, 0, context)
        with pytest.raises(InputError, match="cannot be written: No space left"):
            relax_all(named, Springs(WATER), tmp_path)
    assert len(relax_all(named, Springs(WATER), tmp_path)) == 1


# ---- one process at a time -----------------------------------------------------------------------------------------


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    with locked(tmp_path, "the work"), pytest.raises(InputError, match="another process is at work on the work"):
        locked(tmp_path, "the work").__enter__()
    with locked(tmp_path, "the work"):
        pass
    with (
        locked(tmp_path, "the work"),
        pytest.raises(InputError, match="another process is at work on the relaxations in"),
    ):
        relax_all(read_structures([WATER]), Springs(WATER), tmp_path)


def test_a_lock_that_is_a_folder_takes_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(InputError, match=r"lock', the lock of the work, cannot be opened: Is a directory"):
        locked(tmp_path, "the work").__enter__()


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "part-1234-frames-000000.h5").touch()
    (tmp_path / "frames-000000.h5").touch()
    remove_partial(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["frames-000000.h5"]


# ---- what cannot be meant ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("length: .inf", "'length': Input should be a finite number"),
        ("length: .nan", "'length': Input should be"),
        ("length: 1.0e+300", r"length is 1e\+300 ps, which takes 2e\+303 steps; at most 1e\+10"),
        ("length: 1\ntemperature: .inf", "'temperature': Input should be a finite number"),
        ("length: 1\nlength: 2", "the key 'length' stands twice, the second time in line 2"),
        ("length: 1\nchecks: {energy: 1, energy: 2}", "the key 'energy' stands twice, the second time in line 2"),
        ("checks:\n  <<: {energy: 1, energy: 2}", "the key 'energy' stands twice, the second time in line 2"),
        ("checks:\n  <<: {energy: 1}\n  <<: {energy: 2}", "the key '<<' stands twice, the second time in line 3"),
        ("checks:\n  <<: [{energy: 1}, {energy: 2}]", "the key 'energy' has another value in a mapping that is merged"),
        ("length: 1\nseed: 100000000000000000000", "'seed': Input should be less than"),
        ("length: 1\nreplicas: 1000000000", "the run would have 3000000000 atoms, all replicas together; at most"),
        ("length: 1\nstructure: box\nrepeat: [100000, 1000, 1000]", "the run would have"),
        ("[" * 5_000, "cannot be read as YAML"),
        ("? [a, b]\n: 1\nlength: 1", "cannot be read as YAML|must hold keys and values"),
    ],
)
def test_an_absurd_description_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        structure_of(next(iter(read_runs(tmp_path / "own.yaml").values())))


def test_merged_and_different_keys_of_yaml_are_taken(tmp_path: Path) -> None:
    """The control."""
    (tmp_path / "own.yaml").write_text("a: &one {x: 1, y: 2}\nb: {<<: [*one, {x: 1, y: 4}], y: 3}\n", encoding="utf-8")
    assert read_yaml(tmp_path / "own.yaml", "file") == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom", "/dev/null"])
def test_a_device_is_no_model_and_no_structure(device: str) -> None:
    with pytest.raises(InputError, match=f"'{device}' is a device or a pipe; a model file"):
        model_file(device)
    with pytest.raises(InputError, match=f"'{device}' is a device or a pipe; a structure file"):
        read_structures(device)
    with pytest.raises(InputError, match="there is no description"):
        read_runs(device)


@pytest.mark.parametrize(("molecules", "count"), [(16 * 10**9, 1), (16, 10**9)])
def test_an_absurd_number_of_molecules_is_refused(molecules: int, count: int) -> None:
    with pytest.raises(InputError, match="at most 100000 molecules and 100000 cells are made"):
        ice(molecules, count)


# ---- names and terminals -------------------------------------------------------------------------------------------


def test_odd_names_reach_no_terminal(tmp_path: Path) -> None:
    for name in (b"red\x1b[31m.xyz", b"latin\xe9.xyz", b"two\nlines.xyz"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        molecule("CO").write(path, format="extxyz")
        ((found, atoms),) = read_structures(path)
        assert found.isprintable()
        assert "?" in found
        assert isinstance(atoms, Atoms)


def test_a_terminal_of_ascii_shows_everything() -> None:
    environment = {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "goniometer.cli", "rule\udce9s", "±"]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr.decode("ascii")
    command = [sys.executable, "-m", "goniometer.cli", "rules"]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "octahedral" in done.stdout.decode("ascii")


def test_it_works_without_assertions_and_docstrings(tmp_path: Path) -> None:
    molecule("CO").write(tmp_path / "CO.xyz")
    (tmp_path / "toy.py").write_text("from ase.calculators.lj import LennardJones as made\n", encoding="utf-8")
    command = [sys.executable, "-m", "goniometer.cli", "probe", "toy.py:made", "CO.xyz", "--lmax", "1"]
    environment = {**os.environ, "PYTHONOPTIMIZE": "2"}
    done = subprocess.run(
        [*command, "--json", "probe.json"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "probe.json").read_text("utf-8"))["complete"]


def test_a_segment_can_be_read_by_others(tmp_path: Path) -> None:
    """The control of writing in memory: it is a plain HDF5 file."""
    segment(tmp_path / "frames.h5")
    with h5py.File(tmp_path / "frames.h5") as file:
        assert file["particles/atoms/position/value"].shape == (1000, 3, 3)


def test_an_output_that_is_full_takes_one_sentence() -> None:
    command = [sys.executable, "-m", "goniometer.cli", "rules"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "goniometer: the output cannot be written: No space left on device\n",
    )
