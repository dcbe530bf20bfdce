"""A run in its folder: started, gone on with, or finished; killed at any moment, it is as one that was not.

The folder holds

====================  ==============================================================================================
``description.yaml``  the description, with all its defaults
``start.xyz``         the structure
``i-pi.xml``          what i-PI was given at the start
``frames-000000.h5``  segments of the trajectory, each whole and never changed again
``state.json``        all that the next step depends on, and how many segments belong to it
``sessions.json``     when it ran, for how long, with which versions
====================  ==============================================================================================

A segment is written before the state that counts it, and both come into their place by being renamed. What lies beyond
the state is deleted and made again, the same to the last bit.
"""

from __future__ import annotations

import fcntl
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io import write
from jaxtyping import Float64
from scipy.spatial.transform import Rotation

from goniometer.data import check_structure, read_structures
from goniometer.data.records import hardware, make_folder, replace_text, versions
from goniometer.data.trajectory import Frames, Trajectory, read_beginning, write_segment
from goniometer.dynamics.checks import RunError, Watch
from goniometer.dynamics.description import Run
from goniometer.dynamics.engine import Engine, initial_velocities
from goniometer.dynamics.forces import Forces
from goniometer.dynamics.starts import start_key, start_record, start_structure
from goniometer.engines.driver import inet_address
from goniometer.engines.served import Served
from goniometer.engines.served import drivers as served_by
from goniometer.errors import InputError
from goniometer.potentials.base import Potential
from goniometer.potentials.loading import content
from goniometer.symmetrize.crystal import lattice_elements
from goniometer.symmetrize.random import generator

#: Seconds between two checkpoints.
CHECKPOINT = 60.0
PACKAGES = ("goniometer", "ipi", "torch", "metatomic-torch", "metatensor-torch", "vesin", "ase", "numpy")

# Words between the seed and what is drawn from it, apart from those of turns and tumbling frames.
_VELOCITIES, _ORIENTATIONS = 2, 3

# Å between replicas, which do not feel each other.
_GAP = 20.0

#: Steps done, steps in all, and what is going on.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Finished:
    """What came of a run.

    Attributes
    ----------
    folder
        Where it is.
    steps
        How many have been made.
    finished
        Whether these are all; otherwise it was interrupted.
    """

    folder: Path
    steps: int
    finished: bool


def run(
    description: Run,
    parent: str | Path,
    *,
    name: str = "run",
    potential: Potential | None = None,
    drivers: int = 0,
    address: str | None = None,
    progress: Progress | None = None,
    checkpoint: float = CHECKPOINT,
    wait: bool = False,
) -> Finished:
    """Start a run, or go on with it, or find it finished. Asked for a longer one, a finished run goes on.

    Parameters
    ----------
    description
        What to do.
    parent
        The folder in which the run has a folder of its own, ``name-hash``: the hash is that of the description (but for
        its length), the structure and the model.
    potential
        In the place of the model that the description names; it must be a function of its name.
    drivers
        So many processes evaluate the copies that a step needs, instead of this one.
    address
        ``HOST:PORT`` to listen at for drivers that are started by hand, on this machine or on others.
    progress
        Is told the steps done, the steps in all, and the speed in ns/day, all replicas together.
    checkpoint
        Seconds between two checkpoints.
    wait
        If another process is at it, wait until that has ended, and go on from there.

    The last bits of a trajectory depend on where its copies are evaluated, one by one by drivers or in batches here.

    A SIGINT (Ctrl-C) ends it after the step, with a checkpoint.

    Raises :class:`RunError` if a check stops it, :class:`InputError` for what cannot be run, or if another process is
    at it.
    """
    structure = structure_of(description)
    folder = Path(parent) / f"{name}-{digest(description, potential)}"
    make_folder(folder)
    if ended := _ended(folder, description, _read_state(folder)):  # be it that another process makes it longer
        return ended
    with _locked(folder, wait):
        state = _read_state(folder)
        if ended := _ended(folder, description, state):
            return ended
        with _elsewhere(description, structure, drivers, address) as served:
            trajectory = _Trajectory(description, structure, folder, served or potential, state)
            with _session(folder, trajectory.engine), _interrupts() as interrupted:
                trajectory.go(progress, checkpoint, interrupted)
        return Finished(folder, trajectory.engine.step, trajectory.engine.step >= description.steps)


def _ended(folder: Path, description: Run, state: dict[str, Any] | None) -> Finished | None:
    if state is None or state["step"] < description.steps:
        return None
    return Finished(folder, state["step"], True)


@contextmanager
def _elsewhere(description: Run, structure: Atoms, count: int, address: str | None) -> Iterator[Served | None]:
    """The potential that drivers evaluate, if any are wanted."""
    if count and address is not None:
        raise InputError("drivers are started here, or come to an address: leave out one of both")
    if count:
        with served_by(count, description.potential.model, structure, driver_options(description)) as served:
            yield served
    elif address is not None:
        with Served(inet_address(address)) as served:
            yield served
    else:
        yield None


def driver_options(description: Run) -> list[str]:
    """The options of ``goniometer driver`` for the model of a run."""
    model = description.potential
    given = {"--device": model.device, "--dtype": model.dtype, "--forces": model.forces, "--batch": model.batch}
    options = [str(each) for name, value in given.items() if value is not None for each in (name, value)]
    for key, value in model.options.items():
        options += ["--option", f"{key}={value}"]
    return options


class _Trajectory:
    def __init__(
        self,
        description: Run,
        replica: Atoms,
        folder: Path,
        potential: Potential | None,
        state: dict[str, Any] | None,
    ) -> None:
        import yaml

        self.run, self.folder = description, folder
        start, velocities = start_of(description, replica)
        self.structure = start
        forces = Forces(description, replica, potential)
        self.engine = Engine(description, start, forces, velocities, state)
        self.segments = 0 if state is None else int(state["segments"])
        self.first = None if state is None else float(state["conserved"])
        self.watch = Watch(description, start)
        self.origin = start_record(description, model_hash(description, potential))
        self.replica = replica
        self.frames: list[dict[str, Any]] = []
        # Of a molecule at rest as a whole, and of a box whose centre of mass is kept, three degrees do not move.
        free = 3 * len(start)
        if replica.pbc.any():
            free -= 3
        elif description.ensemble == "nve":
            free -= 3 * description.replicas
        self.degrees = free
        if state is None:
            replace_text(folder / "i-pi.xml", self.engine.input)
            write(folder / "start.xyz", start, format="extxyz")
        # It says how far the run was to go when it was last at work.
        replace_text(folder / "description.yaml", yaml.safe_dump(description.model_dump(), sort_keys=False))
        for extra in sorted(folder.glob("frames-*.h5"))[self.segments :]:
            extra.unlink()

    def go(self, progress: Progress | None, checkpoint: float, interrupted: Callable[[], bool]) -> None:
        engine, whole, stride = self.engine, self.run.steps, self.run.stride
        began, from_step = time.monotonic(), engine.step
        saved = began
        try:
            if engine.step == 0 and not self.segments:
                self._record()
            while engine.step < whole and not interrupted():
                engine.advance()
                if engine.step % stride == 0:
                    self._record()
                now = time.monotonic()
                if now - saved > checkpoint:
                    self.save()
                    saved = now
                if progress is not None:
                    days = max(now - began, 1e-9) / 86400.0
                    done = (engine.step - from_step) * self.run.step * 1e-6 * self.run.replicas
                    progress(engine.step, whole, f"{done / days:.3g} ns/day")
        except RunError:
            self._segment(self.folder / "stopped.h5")
            raise
        self.save()

    def _record(self) -> None:
        """Keep a frame, once it has passed the checks."""
        engine, forces = self.engine, self.engine.forces
        positions, velocities = engine.positions, engine.velocities
        kinetic = 0.5 * self.structure.get_masses() * (velocities**2).sum(axis=1) / units.fs**2
        count = self.run.replicas
        kinetic = kinetic.reshape(count, -1).sum(axis=1)
        conserved = engine.conserved
        if self.first is None:
            self.first = conserved
        potentials = forces.energies() or [np.array([each]) for each in engine.potential_energies]
        values: dict[str, Any] = {
            "potential_energy": potentials[-1],
            "kinetic_energy": kinetic,
            "conserved_energy": np.array(conserved),
            "temperature": np.array(2.0 * kinetic.sum() / (self.degrees * units.kB)),
        }
        if len(potentials) > 1:
            values["raw_potential_energy"] = potentials[0]
        if forces.turns is not None:
            values["frame"] = forces.turns
        if forces.work is not None:
            values["frame_work"] = np.array(forces.work)
        shape = (count, -1, 3)
        frame = {
            "step": engine.step,
            "positions": positions.reshape(shape).copy(),
            "velocities": velocities.reshape(shape),
            "values": values,
        }
        self.frames.append(frame)
        self.watch(engine.time, positions, float(values["temperature"]), conserved - self.first)

    def save(self) -> None:
        """Write the frames since the last time as a segment, and then the state."""
        if self.frames:
            self._segment(self.folder / f"frames-{self.segments:06d}.h5")
            self.segments += 1
        state = {**self.engine.state(), "segments": self.segments, "conserved": self.first}
        replace_text(self.folder / "state.json", json.dumps(state))

    def _segment(self, path: Path) -> None:
        frames, self.frames = self.frames, []
        if not frames:
            return
        steps = np.array([each["step"] for each in frames])
        whole = Frames(
            steps,
            steps * self.run.step,
            np.stack([each["positions"] for each in frames]),
            np.stack([each["velocities"] for each in frames]),
            {name: np.stack([each["values"][name] for each in frames]) for name in frames[0]["values"]},
        )
        attributes = {"description": self.run.model_dump(), "start": self.origin}
        write_segment(path, self.replica, whole, attributes)


def digest(description: Run, potential: Potential | None = None) -> str:
    """The hash that the folder of a run has in its name: of the description, the structure and the model."""
    start = _content(structure_of(description)) if description.starts is None else start_key(description)
    return description.digest(start, _model_content(description, potential))


def model_hash(description: Run, potential: Potential | None = None) -> str:
    """SHA-256 of the contents of the model of a run, by which equal models are recognised under any name."""
    return sha256(_model_content(description, potential)).hexdigest()


def _model_content(description: Run, potential: Potential | None) -> bytes:
    return content(description.potential.model) if potential is None else potential.name.encode()


def trajectory_of(description: Run, folder: Path) -> Trajectory:
    """What a finished run of this description has in its folder: of a longer one so much of it."""
    return read_beginning(folder, description.steps // description.stride + 1)


def structure_of(description: Run) -> Atoms:
    """One replica, as a run starts from it. Raises :class:`InputError` if there is none."""
    if description.starts is not None:
        return start_structure(description)
    source, repeat = description.structure, description.repeat
    found = read_structures(source)
    if len(found) != 1:
        raise InputError(f"'{source}' holds {len(found)} structures; one is needed: write {source}@0")
    name, atoms = found[0]
    check_structure(atoms, name)
    if repeat != (1, 1, 1) and not atoms.pbc.all():
        raise InputError(f"'{source}' is not periodic in three directions: it cannot be repeated")
    atoms = atoms.repeat(repeat)
    atoms.info = {"name": name}
    atoms.set_constraint()
    return atoms


def _content(structure: Atoms) -> bytes:
    numbers, pbc = structure.numbers.astype("<i8"), structure.pbc
    return b"".join(each.tobytes() for each in (numbers, structure.positions, structure.cell.array, pbc))


def start_of(description: Run, replica: Atoms) -> tuple[Atoms, np.ndarray]:
    """All replicas, one after the other, and their velocities."""
    count, size = description.replicas, len(replica)
    positions = np.repeat(replica.positions[None], count, axis=0)
    if description.orientations == "random" and description.configuration is None:
        if replica.pbc.any():
            turns = turns_of_cell(replica)
            rotations = turns[[description.seed % len(turns)]]
            centre = 0.5 * replica.cell.array.sum(axis=0)
        else:
            rotations = Rotation.random(count, rng=generator(description.seed, _ORIENTATIONS)).as_matrix()
            centre = replica.get_center_of_mass()
        positions = (positions - centre) @ rotations.transpose(0, 2, 1) + centre
    positions = positions + _apart(count, np.ptp(replica.positions, axis=0).max(initial=0.0))[:, None]
    start = Atoms(np.tile(replica.numbers, count), positions.reshape(-1, 3), cell=replica.cell, pbc=replica.pbc)
    start.set_masses(np.tile(replica.get_masses(), count))
    groups = [slice(size * each, size * (each + 1)) for each in range(count)]
    drawn = generator(description.seed, _VELOCITIES)
    return start, initial_velocities(start, description.temperature, groups, drawn)


def turns_of_cell(structure: Atoms) -> Float64[np.ndarray, "T 3 3"]:
    """The proper rotations that map the lattice of a structure onto itself: 24 of a cube, the first of which is none.

    Each next one is what leaves the sum of the matrices so far smallest: of a cube the first four are none and a half
    turn about each axis, under which vectors cancel. A triclinic lattice has none but the first.

    Raises :class:`InputError` if the structure is not periodic in three directions.
    """
    if not structure.pbc.all():
        raise InputError(
            "a structure that is periodic in some directions only is not turned at the start: set orientations to same"
        )
    left = [matrix for matrix in lattice_elements(structure) if np.linalg.det(matrix) > 0.0]
    left.sort(key=_place)
    found = [left.pop(0)]
    while left:
        sums = [np.linalg.norm(np.sum([*found, each], axis=0)).round(6) for each in left]
        found.append(left.pop(int(np.argmin(sums))))
    return np.array(found)


def _place(matrix: Float64[np.ndarray, "3 3"]) -> tuple[bool, tuple[float, ...]]:
    """In an order that rounding has no part in: the identity, then by what stays of z, of x and of y."""
    rounded = matrix.round(6) + 0.0
    stays = -rounded.diagonal()[[2, 0, 1]]
    return not np.array_equal(rounded, np.eye(3)), (*stays.tolist(), *rounded.ravel().tolist())


def _apart(count: int, extent: float) -> np.ndarray:
    """Where replicas are put: on a cubic grid, so that pictures are of use and no atoms coincide."""
    side = int(np.ceil(count ** (1.0 / 3.0)))
    return (extent + _GAP) * np.stack(np.unravel_index(np.arange(count), (side,) * 3), axis=1)


def _read_state(folder: Path) -> dict[str, Any] | None:
    path = folder / "state.json"
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = {"step", "ipi", "momenta", "exchanged", "forces", "segments", "conserved"} - state.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"'{path}' is not the state of a run ({error}): delete the folder to start anew") from error
    if missing:
        raise InputError(f"'{path}' is not the state of a run: it lacks {', '.join(sorted(missing))}")
    return state


@contextmanager
def _locked(folder: Path, wait: bool) -> Iterator[None]:
    with (folder / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            raise InputError(f"another process is at work on the run in '{folder}'") from None
        yield


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Let a step come to its end before Ctrl-C takes effect; a second one is not waited for."""
    caught: list[int] = []

    def note(number: int, _: Any) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # not the main thread, which alone is interrupted
        yield lambda: False
        return
    try:
        yield lambda: bool(caught)
    finally:
        signal.signal(signal.SIGINT, before)


def read_sessions(folder: Path, steps: int | None = None) -> list[dict[str, Any]]:
    """When a run was at work, with which versions, on what; none of one that was killed before it could be noted.

    Of a run that is longer only those are given that went to so many ``steps``, and of the last one its share.
    """
    path = folder / "sessions.json"
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    if steps is None:
        return found
    kept = [each for each in found if each["from_step"] < steps]
    for each in kept:
        if each["to_step"] > steps:
            each["seconds"] *= (steps - each["from_step"]) / (each["to_step"] - each["from_step"])
            each["to_step"] = steps
    return kept


@contextmanager
def _session(folder: Path, engine: Engine) -> Iterator[None]:
    """Note when it ran, with which versions."""
    path, sessions = folder / "sessions.json", read_sessions(folder)
    session: dict[str, Any] = {
        "began": _now(),
        "from_step": engine.step,
        "versions": versions(PACKAGES),
        "hardware": hardware(),
    }
    began = time.monotonic()
    try:
        yield
    finally:
        session.update(ended=_now(), seconds=round(time.monotonic() - began, 1), to_step=engine.step)
        replace_text(path, json.dumps([*sessions, session], indent=1))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
