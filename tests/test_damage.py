"""What is damaged in a folder is found at the start, in one sentence, and a study does it again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from ase.build import molecule

from goniometer.dynamics.checkpoint import is_damaged, read_sessions
from goniometer.dynamics.description import Run
from goniometer.dynamics.run import run
from goniometer.errors import InputError
from goniometer.files.records import replace_text
from goniometer.studies.report.folder import write_report
from goniometer.studies.workflow import read_study, study_graph
from goniometer.studies.workflow.outcomes import discard_damaged
from goniometer.trajectories.h5md import read_trajectory
from springs import Springs

WATER = molecule("H2O")
LENGTHS = (0.004, 0.006)


def described(length: float) -> Run:
    return Run.model_validate({"length": length, "frames_every": 1.0, "checks": {"energy": None}})


def resumed(folder: Path, length: float = LENGTHS[1]) -> Path:
    return run(described(length), folder, potential=Springs(WATER), checkpoint=0.0).folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = resumed(tmp_path_factory.mktemp("runs"), LENGTHS[0])
    assert len(list(folder.glob("frames-*.h5"))) == 5
    return folder


@pytest.fixture
def half(original: Path, tmp_path: Path) -> Path:
    """The folder of a run of which a part has been done, in several segments."""
    return Path(shutil.copytree(original, tmp_path / original.name))


# ---- logs, which nothing depends on --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"[{", b"\xff\xfe\x00", b"null", b"{}", b"[1, {}]", b'[{"from_step": "a", "to_step": 1}]', None],
    ids=repr,
)
def test_a_log_that_is_damaged_blocks_no_run(content: bytes | None, half: Path) -> None:
    log = half / "sessions.json"
    log.unlink()
    if content is None:
        log.mkdir()
    else:
        log.write_bytes(content)
    assert read_sessions(half) == []
    assert read_sessions(half, 10) == []
    if content in (b"[{", None):
        assert resumed(half.parent) == half
        assert [each["to_step"] for each in read_sessions(half)] == ([12] if content is not None else [])


# ---- states and segments, on which all depends ---------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Other digits in the middle of a number."""
    text = path.read_text("utf-8")
    place = text.index('"momenta"') + 20
    while not (text[place].isdigit() and text[place + 1].isdigit()):
        place += 1
    path.write_text(text[:place] + str(9 - int(text[place])) + text[place + 1 :], encoding="utf-8")


def lose_frames(path: Path) -> None:
    with h5py.File(path, "a") as file:
        group = file["particles/atoms"]
        for name in ("position/step", "position/time", "position/value", "velocity/value"):
            kept = group[name][:0]
            del group[name]
            group[name] = kept


DAMAGES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "state, cut": ("state.json", cut, "is not the state of a run"),
    "state, empty": ("state.json", lambda path: path.write_bytes(b""), "is not the state of a run"),
    "state, another": ("state.json", lambda path: path.write_text("{}"), "it lacks conserved, exchanged"),
    "state, a list": ("state.json", lambda path: path.write_text("[]"), "is not the state of a run"),
    "state, no text": ("state.json", lambda path: path.write_bytes(b"\xff\xfe"), "is not the state of a run"),
    "state, flipped": ("state.json", flip, "its checksum is another one"),
    "segment, missing": ("frames-000001.h5", Path.unlink, "frames-000001.h5' cannot be read: there is no such file"),
    "last segment, missing": ("frames-000003.h5", Path.unlink, "frames-000003.h5' cannot be read: there is no such"),
    "segment, cut": ("frames-000001.h5", cut, "frames-000001.h5' cannot be read: it is no HDF5 file, or was cut off"),
    "segment, empty": ("frames-000000.h5", lambda path: path.write_bytes(b""), "frames-000000.h5' cannot be read"),
    "segment, garbled": ("frames-000002.h5", lambda path: path.write_bytes(b"H" * 99), "frames-000002.h5' cannot be"),
    "segment, without frames": ("frames-000002.h5", lose_frames, "its segments hold .* frames, and its state counts"),
}


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("length", LENGTHS, ids=["finished", "unfinished"])
def test_damage_is_found_at_the_start_in_one_sentence(kind: str, length: float, half: Path) -> None:
    name, damage, sentence = DAMAGES[kind]
    assert not is_damaged(described(length), half)
    damage(half / name)
    with pytest.raises(InputError, match=sentence) as caught:
        resumed(half.parent, length)
    assert str(caught.value).endswith("remove the folder, and the same command starts anew")
    assert is_damaged(described(length), half)


def test_a_state_without_a_checksum_is_an_older_one(half: Path) -> None:
    state = json.loads((half / "state.json").read_text("utf-8"))
    del state["sha256"]
    (half / "state.json").write_text(json.dumps(state), encoding="utf-8")
    assert len(read_trajectory(resumed(half.parent))) == 7


def test_a_missing_segment_does_not_cost_those_behind_it(half: Path) -> None:
    """What lies beyond the state is deleted by its number, not by its place in the list."""
    (half / "frames-000001.h5").unlink()
    kept = sorted(half.glob("frames-*.h5"))
    with pytest.raises(InputError):
        resumed(half.parent)
    assert sorted(half.glob("frames-*.h5")) == kept


def test_a_lock_that_is_a_folder_is_named(half: Path) -> None:
    (half / "lock").unlink()
    (half / "lock").mkdir()
    with pytest.raises(InputError, match=r"lock', the lock of the run in .* cannot be opened: Is a directory"):
        resumed(half.parent)


@pytest.mark.parametrize("damage", [cut, lambda path: path.write_bytes(b"")])
def test_a_training_checkpoint_that_is_damaged_is_refused(damage: Callable[[Path], Any], tmp_path: Path) -> None:
    import torch

    from goniometer.training.checkpoint import Checkpoint, Identity, TrainingState, read_checkpoint

    path = tmp_path / "checkpoint.pt"
    weights = {"weight": torch.arange(3000.0)}
    Checkpoint(Identity({}, 0, [], []), {}, TrainingState(step=3), {}, weights, None).write(path)
    assert read_checkpoint(path).progress.step == 3
    torch.testing.assert_close(read_checkpoint(path).weights, weights)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(len(whole) - 100, size=10):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"damaged since it was written|cannot be read as a checkpoint|is not a"):
            read_checkpoint(path)
    damage(path)
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        read_checkpoint(path)


# ---- studies -------------------------------------------------------------------------------------------------------

STUDY = {
    "models": ["pet-water"],
    "probe": ["molecule"],
    "experiments": [{"experiment": "gas", "set": {"length": 0.02, "frames_every": 5}}],
}


@pytest.fixture
def study(tmp_path: Path) -> Any:
    """The graph of a study all of whose tasks are recorded as done, with runs that are there."""
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(STUDY), encoding="utf-8")
    graph = study_graph(read_study(tmp_path / "own.yaml"), tmp_path / "study")
    graph.write()
    for task in graph.tasks:
        replace_text_in(graph.folder / "done" / task.name, task.key)
        if task.run is not None and task.folder is not None:
            task.folder.mkdir(parents=True)
    return graph


def replace_text_in(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, text)


def test_what_the_report_calls_missing_the_study_does_again(study: Any, half: Path) -> None:
    """Runs without a state, outcomes that are missing or garbled; what is sound stays."""
    names = {task.name for task in study.tasks}
    sound = next(task for task in study.tasks if task.run is not None)
    object.__setattr__(sound, "run", described(LENGTHS[0]))
    sound.folder.rmdir()
    shutil.copytree(half, sound.folder)
    replace_text_in(next(task.outcome for task in study.tasks if task.name.endswith("probe")), "{")
    with pytest.raises(InputError, match="there is nothing in"):
        write_report(study.folder)
    again = set(discard_damaged(study))
    assert again == names - {sound.name, "report"}
    done = study.folder / "done"
    assert {str(each.relative_to(done)) for each in done.rglob("*") if each.is_file()} == {sound.name, "report"}
    cut(sound.folder / "frames-000001.h5")
    assert discard_damaged(study) == [sound.name]
    assert not sound.folder.exists()
    assert sound.folder.with_name(f"{sound.folder.name}.damaged").is_dir()
    assert discard_damaged(study) == []


def test_a_graph_that_is_garbled_takes_one_sentence(study: Any) -> None:
    (study.folder / "graph.json").write_bytes(b"[{\xff")
    with pytest.raises(InputError, match=r"graph.json' cannot be read: `goniometer study` with this folder writes it"):
        write_report(study.folder)
