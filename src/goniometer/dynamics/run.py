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

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms
from ase.io import write
from jaxtyping import Float64
from scipy.spatial.transform import Rotation

from goniometer.dynamics.checkpoint import check_folder, read_state, session, write_state
from goniometer.dynamics.constraints import fixed_atoms
from goniometer.dynamics.description import MOST_ATOMS, Run
from goniometer.dynamics.forces import Forces
from goniometer.dynamics.integrators import Engine, initial_velocities
from goniometer.dynamics.limits import RunError, Watch
from goniometer.dynamics.starts import start_key, start_record, start_structure
from goniometer.errors import InputError, PotentialError
from goniometer.files.records import locked, make_folder, remove_partial, remove_unused, replace_text, replacing
from goniometer.interfaces.driver import inet_address
from goniometer.interfaces.remote import Served
from goniometer.interfaces.remote import drivers as served_by
from goniometer.interruption import StepAbandoned, deferred
from goniometer.potentials.base import Potential
from goniometer.potentials.loading import content
from goniometer.progress import Progress
from goniometer.structures import called, check_structure, read_structures, turned, vector_notes
from goniometer.structures.vectors import directed
from goniometer.symmetrization.crystal import lattice_elements
from goniometer.symmetrization.random import generator
from goniometer.trajectories.h5md import Frames, Trajectory, read_beginning, segment_name, write_segment

#: Seconds between two checkpoints.
CHECKPOINT = 60.0

# Words between the seed and what is drawn from it, apart from those of turns and tumbling frames.
_VELOCITIES, _ORIENTATIONS = 2, 3

# Å between replicas, which do not feel each other.
_GAP = 20.0


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

    Ctrl-C, SIGTERM or SIGHUP ends it after the step, with a checkpoint. A step that waits for drivers which do not
    answer is abandoned, and the run resumes from the checkpoint before.

    Before the first step it is tested that an average is a potential, in about 30 evaluations; a run that is resumed is
    not tested again.

    Raises :class:`RunError` if a check stops it, :class:`InputError` for what cannot be run, or if another process is
    at it, and :class:`PotentialError` if the average is no potential: nothing is written then.
    """
    structure = structure_of(description)
    folder = Path(parent) / f"{name}-{digest(description, potential)}"
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    make_folder(folder)
    if ended := _ended(folder, description, read_state(folder)):  # be it that another process makes it longer
        return ended
    with locked(folder, f"the run in '{folder}'", wait=wait):
        remove_partial(folder)
        state = read_state(folder)
        if ended := _ended(folder, description, state):
            return ended
        with _elsewhere(description, structure, drivers, address) as served:
            try:
                forces = _tested(description, structure, served or potential, state)
            except PotentialError:
                remove_unused(missing)
                raise
            trajectory = _Trajectory(description, structure, folder, forces, model_hash(description, potential), state)
            with session(folder, trajectory.engine), deferred() as interrupted:
                trajectory.go(progress, checkpoint, interrupted, served)
        return Finished(folder, trajectory.saved, trajectory.saved >= description.steps)


def _tested(description: Run, structure: Atoms, potential: Potential | None, state: dict[str, Any] | None) -> Forces:
    """The forces of a run, which are tested before the first step."""
    verify = description.verify and not (state or {}).get("verified", False)
    forces = Forces(description, structure, potential, verify=verify)
    if verify and description.strategy.kind != "raw":
        if isinstance(potential, Served):
            potential.wait_for_driver()
        forces.verify(start_of(description, structure)[0])
    return forces


def _ended(folder: Path, description: Run, state: dict[str, Any] | None) -> Finished | None:
    if state is None:
        return None
    check_folder(folder, description, state)
    if state["step"] < description.steps:
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
        forces: Forces,
        model: str,
        state: dict[str, Any] | None,
    ) -> None:
        import yaml

        self.run, self.folder = description, folder
        start, velocities = start_of(description, replica)
        self.structure = start
        self.engine = Engine(description, start, forces, velocities, state)
        self.segments = 0 if state is None else int(state["segments"])
        #: The step of the last checkpoint.
        self.saved = 0 if state is None else int(state["step"])
        self.first = None if state is None else float(state["conserved"])
        self.watch = Watch(description, start)
        self.verified = description.verify or bool((state or {}).get("verified", False))
        self.origin = start_record(description, model)
        self.replica = replica
        self.frames: list[dict[str, Any]] = []
        # Of a molecule at rest as a whole, and of a box whose centre of mass is kept, three degrees do not move.
        # Beside fixed atoms the centre of mass moves.
        fixed = len(fixed_atoms(start, "the structure"))
        free = 3 * (len(start) - fixed)
        if fixed:
            pass
        elif replica.pbc.any():
            free -= 3
        elif description.ensemble == "nve":
            free -= 3 * description.replicas
        self.degrees = free
        if state is None:
            replace_text(folder / "i-pi.xml", self.engine.input)
            with replacing(folder / "start.xyz") as partial:
                write(partial, start, format="extxyz")
        # It says how far the run was to go when it was last at work.
        replace_text(folder / "description.yaml", yaml.safe_dump(description.model_dump(), sort_keys=False))
        for extra in folder.glob("frames-*.h5"):
            if extra.name >= segment_name(self.segments):
                extra.unlink()

    def go(
        self, progress: Progress | None, checkpoint: float, interrupted: Callable[[], bool], served: Served | None
    ) -> None:
        engine, whole, stride = self.engine, self.run.steps, self.run.stride
        began, from_step = time.monotonic(), engine.step
        saved = began
        wait = served.wait_for_driver if served is not None else lambda: None
        try:
            wait()
            if engine.step == 0 and not self.segments and not interrupted():
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
                if engine.step < whole:
                    wait()
            if self.first is None:  # interrupted before there was anything to save
                return
        except StepAbandoned:
            return
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
            self._segment(self.folder / segment_name(self.segments))
            self.segments += 1
        state = {**self.engine.state(), "segments": self.segments, "conserved": self.first, "verified": self.verified}
        write_state(self.folder, state)
        self.saved = self.engine.step

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
    found = read_structures(
        source, format=description.format, options=description.read, vectors=description.vectors or None
    )
    if len(found) != 1:
        raise InputError(f"'{source}' holds {len(found)} structures; one is needed: write {source}@0")
    name, atoms = found[0]
    check_structure(atoms, name)
    if repeat != (1, 1, 1) and not atoms.pbc.all():
        raise InputError(f"'{source}' is not periodic in three directions: it cannot be repeated")
    whole = len(atoms) * math.prod(repeat) * description.replicas
    if whole > MOST_ATOMS:
        raise InputError(f"the run would have {whole} atoms, all replicas together; at most {MOST_ATOMS}")
    fixed = fixed_atoms(atoms, name)
    atoms = atoms.copy()
    atoms.set_constraint(FixAtoms(fixed) if len(fixed) else None)
    atoms = atoms.repeat(repeat)
    atoms.info["name"] = name
    if description.velocities == "drawn":
        atoms.arrays.pop("momenta", None)
    elif not atoms.has("momenta"):
        raise InputError(f"{name} holds no velocities, and the run is to start from them: set velocities to drawn")
    turned_apart = description.orientations == "random" and not atoms.pbc.any()
    if turned_apart and (names := directed(atoms)):
        raise InputError(
            f"'{names[0]}' of {name} is a vector or tensor, which has one direction for all replicas: set orientations "
            "to same"
        )
    return atoms


def start_notes(description: Run) -> list[str]:
    """What a user should know of how the structure of a run is used, a sentence each."""
    named = read_structures(
        description.structure, format=description.format, options=description.read, vectors=description.vectors or None
    )
    notes = vector_notes(named)
    for name, atoms in named:
        if atoms.has("momenta"):
            held = 2.0 * atoms.get_kinetic_energy() / (3.0 * len(atoms) * units.kB)
            notes.append(
                f"the velocities of {name} (3N degrees of freedom at {held:.0f} K) are not used: new ones are drawn at "
                f"{description.temperature:g} K; velocities: structure uses them"
                if description.velocities == "drawn"
                else f"the run starts with the velocities of {name} (3N degrees of freedom at {held:.0f} K)"
            )
        if len(fixed := fixed_atoms(atoms, name)):
            notes.append(f"{len(fixed)} of {len(atoms)} atoms of {name} are held fixed (FixAtoms)")
    return notes


def _content(structure: Atoms) -> bytes:
    numbers, pbc = structure.numbers.astype("<i8"), structure.pbc
    parts = [each.tobytes() for each in (numbers, structure.positions, structure.cell.array, pbc)]
    # What few structures have: their runs are others.
    parts += [f"fixed {fixed_atoms(structure, 'the structure').tolist()}".encode()] if structure.constraints else []
    for holder in (structure.arrays, structure.info):
        for name in sorted(holder.keys() - {"numbers", "positions"}):
            values = np.asarray(holder[name])
            if values.dtype.kind in "fiub":
                parts.append(name.encode() + values.tobytes())
    return b"".join(parts)


def start_of(description: Run, replica: Atoms) -> tuple[Atoms, np.ndarray]:
    """All replicas, one after the other, and their velocities."""
    count, size = description.replicas, len(replica)
    positions = np.repeat(replica.positions[None], count, axis=0)
    start = replica.copy()
    if description.orientations == "random" and description.configuration is None:
        if replica.pbc.any():
            turns = turns_of_cell(replica)
            rotations = turns[[description.seed % len(turns)]]
            centre = 0.5 * replica.cell.array.sum(axis=0)
        else:
            rotations = Rotation.random(count, rng=generator(description.seed, _ORIENTATIONS)).as_matrix()
            centre = replica.get_center_of_mass()
        if count == 1:
            # Velocities, magnetic moments and the like are rotated with the positions; the cell stays.
            rotated = turned(start, rotations[0])
            start.arrays, start.info = rotated.arrays, rotated.info
        positions = (positions - centre) @ rotations.transpose(0, 2, 1) + centre
    positions = positions + _apart(count, np.ptp(replica.positions, axis=0).max(initial=0.0))[:, None]
    if count > 1:
        fixed = fixed_atoms(replica, called(replica))
        start = Atoms(np.tile(replica.numbers, count), cell=replica.cell, pbc=replica.pbc, info=dict(start.info))
        for name in replica.arrays.keys() - {"numbers", "positions"}:
            start.arrays[name] = np.concatenate([replica.arrays[name]] * count)
        if len(fixed):
            start.set_constraint(FixAtoms((fixed + size * np.arange(count)[:, None]).ravel()))
    start.positions = positions.reshape(-1, 3)
    start.set_masses(np.tile(replica.get_masses(), count))
    groups = [slice(size * each, size * (each + 1)) for each in range(count)]
    if description.velocities == "structure":
        return start, _own_velocities(start)
    drawn = generator(description.seed, _VELOCITIES)
    return start, initial_velocities(start, description.temperature, groups, drawn)


def _own_velocities(start: Atoms) -> Float64[np.ndarray, "N 3"]:
    """The velocities that a structure has, in Å/fs, with fixed atoms at rest, or else the centre of mass."""
    velocities = np.asarray(start.get_velocities()) * units.fs
    fixed = fixed_atoms(start, called(start))
    velocities[fixed] = 0.0
    masses = start.get_masses()
    return velocities if len(fixed) else velocities - masses @ velocities / masses.sum()


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
