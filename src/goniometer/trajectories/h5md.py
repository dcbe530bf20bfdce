"""Trajectories in H5MD, in segments that are each whole and never changed again.

H5MD 1.1 (P. de Buyl, P. Colberg, F. Höfling, Comput. Phys. Commun. 185, 1546 (2014)) is HDF5 with names that programs
agree on. A file holds the atoms of all replicas in a row, in ``particles/atoms``, and what else was recorded in
``observables``. A run's folder holds such files, ``frames-000000.h5`` and so on, and is read as one trajectory.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase import Atoms
from jaxtyping import Float64, Int64

from goniometer.errors import InputError
from goniometer.files.records import replace_bytes

_GROUP = "particles/atoms"
_UNITS = {"position": "Angstrom", "velocity": "Angstrom fs-1"}
# What is recorded besides, where it has a unit.
_OBSERVABLE_UNITS = {"temperature": "K", "frame": ""}
#: The part of a trajectory at its start that means leave out.
DISCARD = 0.1
# Frames held at a time while a trajectory is gone through, in bytes of their positions.
_CHUNK_BYTES = 2**26


@dataclass(frozen=True)
class Frames:
    """Frames that follow each other.

    Attributes
    ----------
    steps, times : (T,)
        Times in fs.
    positions, velocities : (T, R, N, 3)
        Of R replicas, in Å (not wrapped into the cell) and Å/fs.
    observables
        Names to arrays whose first axis is time; energies in eV.
    cells : (T, 3, 3), optional
        Of periodic structures, in Å; rows are the vectors.
    """

    steps: Int64[np.ndarray, " T"]
    times: Float64[np.ndarray, " T"]
    positions: Float64[np.ndarray, "T R N 3"]
    velocities: Float64[np.ndarray, "T R N 3"]
    observables: Mapping[str, np.ndarray]
    cells: Float64[np.ndarray, "T 3 3"] | None = None

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, part: slice) -> Frames:
        cells = None if self.cells is None else self.cells[part]
        observables = {name: each[part] for name, each in self.observables.items()}
        return Frames(
            self.steps[part], self.times[part], self.positions[part], self.velocities[part], observables, cells
        )


def write_segment(path: Path, replica: Atoms, frames: Frames, attributes: Mapping[str, Any]) -> None:
    """Write frames as a file, which is there as a whole or not at all.

    Parameters
    ----------
    path
        Of the file; one that exists is replaced.
    replica
        One of the R structures that the frames hold: its species, masses and cell.
    frames
        What to write.
    attributes
        Plain values that are kept with them, as JSON.
    """
    count, content = frames.positions.shape[1], io.BytesIO()
    with h5py.File(content, "w") as file:  # in memory: HDF5 does not survive a disk that is full
        _describe(file, attributes)
        group = file.create_group(_GROUP)
        group.attrs["replicas"] = count
        _element(group, "position", frames.positions.reshape(len(frames), -1, 3), frames, _UNITS["position"])
        clock = group["position"]
        _element(group, "velocity", frames.velocities.reshape(len(frames), -1, 3), clock, _UNITS["velocity"])
        group["species"] = np.tile(replica.numbers, count)
        group["mass"] = np.tile(replica.get_masses(), count)
        group["mass"].attrs["unit"] = "u"
        _box(group.create_group("box"), replica, clock, len(frames))
        for name, values in frames.observables.items():
            _element(file.require_group("observables"), name, values, clock, _OBSERVABLE_UNITS.get(name, "eV"))
    replace_bytes(path, content.getvalue())


def _describe(file: h5py.File, attributes: Mapping[str, Any]) -> None:
    from importlib.metadata import version

    about = file.create_group("h5md")
    about.attrs["version"] = np.array([1, 1], dtype=np.int32)
    about.create_group("author").attrs["name"] = "unknown"
    creator = about.create_group("creator")
    creator.attrs["name"], creator.attrs["version"] = "goniometer", version("goniometer")
    file.create_group("parameters").attrs["goniometer"] = json.dumps(dict(attributes))


def _box(box: h5py.Group, replica: Atoms, clock: h5py.Group, length: int) -> None:
    """The cell of a periodic structure, once a frame: MDAnalysis reads it so, though H5MD knows fixed ones as well."""
    box.attrs["dimension"] = 3
    box.attrs["boundary"] = ["periodic" if each else "none" for each in replica.pbc]
    if replica.pbc.any():
        edges = np.broadcast_to(replica.cell.array, (length, 3, 3))
        _element(box, "edges", edges, clock, _UNITS["position"])


def _element(group: h5py.Group, name: str, values: np.ndarray, clock: Frames | h5py.Group, unit: str) -> None:
    """An element of H5MD that depends on time; all of a file share the first one's steps and times."""
    element = group.create_group(name)
    element.create_dataset("value", data=values, compression="gzip", compression_opts=1, shuffle=True)
    if unit:
        element["value"].attrs["unit"] = unit
    if isinstance(clock, Frames):
        element["step"], element["time"] = clock.steps, clock.times
        element["time"].attrs["unit"] = "fs"
    else:
        element["step"], element["time"] = clock["step"], clock["time"]


class Trajectory:
    """A trajectory in one or several files; frames are read when they are asked for.

    Attributes
    ----------
    replica : Atoms
        One of the structures: species, masses, cell; its positions are those of the first frame.
    replicas : int
        How many there are.
    attributes
        What was kept with the frames, the description of the run for instance.
    """

    def __init__(self, paths: list[Path], name: str) -> None:
        self.paths, self.name = paths, name
        with _opened(paths[0]) as file:
            group = file[_GROUP]
            self.replicas = int(group.attrs["replicas"])
            size = len(group["species"]) // self.replicas
            box = group["box"]
            periodic = [each in ("periodic", b"periodic") for each in box.attrs["boundary"]]
            positions = group["position/value"][0][:size]
            cell = box["edges/value"][0] if "edges" in box else None
            self.replica = Atoms(group["species"][:size], positions, cell=cell, pbc=periodic)
            self.replica.set_masses(group["mass"][:size])
            self.attributes: dict[str, Any] = json.loads(file["parameters"].attrs["goniometer"])

    def __len__(self) -> int:
        return sum(self._lengths)

    @cached_property
    def _lengths(self) -> list[int]:
        lengths: list[int] = []
        for path in self.paths:
            first = sum(lengths)
            with _opened(path, first) as file:
                self._check(file, f"frame {first} of '{self.name}' ({path.name})")
                lengths.append(len(file[_GROUP]["position/step"]))
        return lengths

    def _check(self, file: h5py.File, frame: str) -> None:
        """That a segment holds the atoms of the first one."""
        group = file[_GROUP]
        count, species = int(group.attrs["replicas"]), group["species"][()]
        size = len(species) // count
        if count != self.replicas or size != len(self.replica):
            raise InputError(
                f"{frame} has {size} atoms in {count} replicas, and the first one {len(self.replica)} in "
                f"{self.replicas}: all frames hold the same atoms"
            )
        if not np.array_equal(species[:size], self.replica.numbers):
            raise InputError(f"{frame} has other elements than the first one, or another order")

    @cached_property
    def times(self) -> Float64[np.ndarray, " T"]:
        """Of all frames, in fs."""
        found = []
        for path, length in zip(self.paths, self._lengths, strict=True):
            with _opened(path) as file:
                found.append(file[_GROUP]["position/time"][:length])
        return np.concatenate(found)

    def chunks(self, size: int | None = None) -> Iterator[Frames]:
        """The frames, at most so many at a time; by default as many as fit into 64 MB of positions."""
        if size is None:
            size = max(1, _CHUNK_BYTES // (24 * len(self.replica) * self.replicas))
        for path, length in zip(self.paths, self._lengths, strict=True):
            with _opened(path) as file:
                for start in range(0, length, size):
                    yield self._frames(file, slice(start, start + size))

    def settled(self, discard: float = DISCARD) -> Iterator[Frames]:
        """The frames without that part of them at the start which remembers it, in chunks."""
        first, number = int(discard * len(self)), 0
        for chunk in self.chunks():
            left = max(0, first - number)
            number += len(chunk)
            if left < len(chunk):
                yield chunk[left:]

    def frames(self) -> Frames:
        """All frames at once."""
        return _joined(list(self.chunks(2**62)))

    def taken(self, numbers: Int64[np.ndarray, " F"]) -> Frames:
        """Some frames, by numbers that increase. Raises :class:`InputError` for one that is not there."""
        if not len(numbers) or numbers[0] < 0 or numbers[-1] >= len(self) or (np.diff(numbers) <= 0).any():
            raise InputError(f"frames of '{self.name}' are taken by numbers that increase, from 0 to {len(self) - 1}")
        found, number = [], 0
        for chunk in self.chunks():
            for each in numbers[(numbers >= number) & (numbers < number + len(chunk))] - number:
                found.append(chunk[int(each) : int(each) + 1])
            number += len(chunk)
        return _joined(found)

    def _frames(self, file: h5py.File, part: slice) -> Frames:
        group, shape = file[_GROUP], (-1, self.replicas, len(self.replica), 3)
        steps, positions = group["position/step"][part], group["position/value"][part]
        if not np.isfinite(positions).all():
            step = steps[np.argmin(np.isfinite(positions).all(axis=(1, 2)))]
            raise InputError(f"the frame of step {step} of '{self.name}' has positions that are not finite")
        return Frames(
            steps,
            group["position/time"][part],
            positions.reshape(shape),
            group["velocity/value"][part].reshape(shape),
            {name: each["value"][part] for name, each in file.get("observables", {}).items()},
            group["box/edges/value"][part] if "edges" in group["box"] else None,
        )

    def structures(self, every: int = 1) -> Iterator[Atoms]:
        """Frames as ASE has them, all replicas in one, with velocities, and energies and times in ``info``."""
        number = 0
        whole = Atoms(np.tile(self.replica.numbers, self.replicas), cell=self.replica.cell, pbc=self.replica.pbc)
        whole.set_masses(np.tile(self.replica.get_masses(), self.replicas))
        from ase import units

        for frames in self.chunks():
            for index in range(len(frames)):
                if number % every == 0:
                    atoms = whole.copy()
                    atoms.positions = frames.positions[index].reshape(-1, 3)
                    atoms.set_velocities(frames.velocities[index].reshape(-1, 3) / units.fs)
                    atoms.info = {"time": float(frames.times[index]), "step": int(frames.steps[index])}
                    atoms.info.update({name: each[index] for name, each in frames.observables.items()})
                    yield atoms
                number += 1


def _joined(parts: list[Frames]) -> Frames:
    cells = [each.cells for each in parts if each.cells is not None]
    return Frames(
        np.concatenate([each.steps for each in parts]),
        np.concatenate([each.times for each in parts]),
        np.concatenate([each.positions for each in parts]),
        np.concatenate([each.velocities for each in parts]),
        {name: np.concatenate([each.observables[name] for each in parts]) for name in parts[0].observables},
        np.concatenate(cells) if cells else None,
    )


class Excerpt(Trajectory):
    """Frames ``first`` to ``last`` (not included) of a trajectory."""

    def __init__(self, of: Trajectory, first: int, last: int) -> None:
        self.of, self.first, self.last = of, first, min(last, len(of))
        self.paths, self.name, self.attributes = of.paths, f"{of.name}@{first}:{last}", of.attributes
        self.replica, self.replicas = of.replica, of.replicas

    def __len__(self) -> int:
        return max(0, self.last - self.first)

    @cached_property
    def times(self) -> Float64[np.ndarray, " T"]:
        """Of all frames, in fs."""
        return self.of.times[self.first : self.last]

    def chunks(self, size: int | None = None) -> Iterator[Frames]:
        """See :meth:`Trajectory.chunks`."""
        number = 0
        for chunk in self.of.chunks(size):
            part = slice(max(0, self.first - number), max(0, self.last - number))
            number += len(chunk)
            if part.start < len(chunk) and part.stop > 0:
                yield chunk[part]
            if number >= self.last:
                return


class Thinned(Trajectory):
    """Every such frame of a trajectory, from the first one on."""

    def __init__(self, of: Trajectory, every: int) -> None:
        self.of, self.every = of, every
        self.paths, self.name, self.attributes = of.paths, of.name, of.attributes
        self.replica, self.replicas = of.replica, of.replicas

    def __len__(self) -> int:
        return -(-len(self.of) // self.every)

    @cached_property
    def times(self) -> Float64[np.ndarray, " T"]:
        """Of all frames, in fs."""
        return self.of.times[:: self.every]

    def chunks(self, size: int | None = None) -> Iterator[Frames]:
        """See :meth:`Trajectory.chunks`."""
        number = 0
        for chunk in self.of.chunks(size):
            first = -number % self.every
            number += len(chunk)
            if first < len(chunk):
                yield chunk[first :: self.every]


def check_velocities(frames: Frames, name: str, what: str) -> None:
    """Raise :class:`InputError` for the first frame of a trajectory without velocities, or with some not finite."""
    known = np.isfinite(frames.velocities).all(axis=(1, 2, 3))
    if not known.all():
        raise InputError(
            f"the frame of step {frames.steps[np.argmin(known)]} of '{name}' holds no velocities, and {what} needs "
            "them: give a file with the velocities of all frames (momenta in extended XYZ)"
        )


def read_trajectory(
    path: str | Path,
    spacing: float | None = None,
    *,
    format: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Trajectory:
    """Open the trajectory of a run's folder, or of one of its files, or a file of frames in any format that ASE reads.

    Parameters
    ----------
    path
        A folder, an H5MD file (``.h5``) of this program, or any other file.
    spacing
        The time between two frames in fs of a file of frames, in place of what it says; see
        :class:`goniometer.trajectories.foreign.StructureFile`.
    format, options
        Of a file of frames: its format as ASE calls it, and arguments of ASE's reader, as for
        :func:`goniometer.read_structures`.

    Raises :class:`InputError` if there is none, and for a spacing or format of a run, which has its own.
    """
    path = Path(path)
    if is_foreign(path) or (format is not None and path.is_file()):
        from goniometer.structures.reading import Reading
        from goniometer.trajectories.foreign import StructureFile

        return StructureFile(path, spacing, Reading(format, options or {}))
    if format is not None or options:
        raise InputError(f"'{path}' is no file of frames of another program: a format is given for those")
    if spacing is not None:
        raise InputError(f"'{path}' has times of its own: the time between frames is given for files of frames")
    paths = sorted(path.glob("frames-*.h5")) if path.is_dir() else [path]
    if not paths:
        raise InputError(f"'{path}' holds no trajectory: no files frames-000000.h5 and so on")
    if path.is_dir():
        _check_row(paths)
    try:
        return Trajectory(paths, str(path))
    except InputError:
        raise
    except (KeyError, ValueError) as error:
        raise InputError(f"'{paths[0]}' is no trajectory of this program: {error}") from error


def read_beginning(folder: str | Path, count: int) -> Trajectory:
    """Open the first frames of a run's folder, and no file that holds none of them: the run may be going on."""
    whole, paths, total = read_trajectory(folder), list[Path](), 0
    for path in whole.paths:
        if total >= count:
            break
        with _opened(path, total) as file:
            total += len(file[_GROUP]["position/step"])
        paths.append(path)
    part = Trajectory(paths, whole.name)
    return part if total <= count else Excerpt(part, 0, count)


def segment_name(number: int) -> str:
    """The file name of a segment of a run."""
    return f"frames-{number:06d}.h5"


def check_segments(folder: Path, segments: int, frames: int) -> None:
    """Check that so many segments are in a folder, whole, and hold so many frames together.

    Raises :class:`InputError` that names the first one at fault.
    """
    found = 0
    for number in range(segments):
        path = folder / segment_name(number)
        with _opened(path, found) as file:
            try:
                group = file[_GROUP]
                length = len(group["position/step"])
                whole = all(len(group[f"{name}/value"]) == length for name in ("position", "velocity"))
                group["position/value"][-1:], group["velocity/value"][-1:]  # a file that was cut ends before them
            except (KeyError, ValueError, OSError, RuntimeError) as error:
                raise InputError(f"'{path}' is no trajectory of this program: {error}") from error
            if not whole:
                raise InputError(f"'{path}' holds other numbers of positions and velocities")
            found += length
    if found != frames:
        raise InputError(f"its segments hold {found} frames, and its state counts {frames}")


def is_foreign(path: Path) -> bool:
    """Whether a path is a file of frames that this program did not write."""
    return path.is_file() and path.suffix != ".h5"


def _check_row(paths: list[Path]) -> None:
    """That no segment is missing between others."""
    for number, path in enumerate(paths):
        wanted = path.with_name(segment_name(number))
        if path == wanted:
            continue
        before = 0
        for each in paths[:number]:
            with _opened(each, before) as file:
                before += len(file[_GROUP]["position/step"])
        raise InputError(f"frame {before} of '{path.parent}' and those after it are missing: there is no {wanted.name}")


def _opened(path: Path, first: int = 0) -> h5py.File:
    """A segment whose first frame has that number."""
    try:
        return h5py.File(path, "r")
    except OSError as error:
        reason = "there is no such file" if not path.exists() else "it is no HDF5 file, or was cut off"
        frames = f"; it would hold frame {first} and those after it" if first else ""
        raise InputError(f"'{path}' cannot be read: {reason}{frames}") from error
