"""Trajectories that other programs wrote, a frame at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import ase.io
import h5py
import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms
from ase.io.formats import UnknownFileTypeError
from jaxtyping import Float64

from goniometer.errors import InputError
from goniometer.structures.formats import file_format
from goniometer.structures.reading import Reading, check_occupancies
from goniometer.trajectories.h5md import _CHUNK_BYTES, Frames, Trajectory

# Frames held at a time.
_MOST = 1000
# Bytes at the end of a file by which text is told from what is not.
_TAIL = 4096


class StructureFile(Trajectory):
    """Frames of one structure in a file that ASE reads, as a :class:`Trajectory` of one replica.

    Atoms may have been wrapped into the cell or not: each is followed from frame to frame by the shortest way, which is
    right as long as none moves by half a cell in between. Cells may change. Velocities are NaN where there are none;
    so are the times of frames without ``time`` (fs) in their ``info`` and without a ``spacing``.

    Raises :class:`InputError` with the number of the frame (from 0) for one that has other atoms than the first one, or
    that cannot be read, as the last one of a run that was killed.
    """

    def __init__(self, path: Path, spacing: float | None = None, reading: Reading | None = None) -> None:
        self.reading = reading or Reading()
        self.paths, self.name, self.spacing = [path], str(path), spacing
        self.replicas, self.attributes = 1, {}
        first = next(self._read(), None)
        if first is None:
            raise InputError(f"'{path}' holds no frames")
        self.replica = Atoms(first.numbers, first.positions, cell=first.cell, pbc=first.pbc)
        self.replica.set_masses(first.get_masses())
        check_occupancies(first, self.name)
        if not first.numbers.all():
            raise InputError(f"'{path}' has atoms without an element (X)")
        held = [each.index for each in first.constraints if isinstance(each, FixAtoms)]
        self.attributes["fixed_atoms"] = len(np.unique(np.concatenate(held))) if held else 0

    @cached_property
    def _lengths(self) -> list[int]:
        return [sum(1 for _ in self._read())]

    @cached_property
    def times(self) -> Float64[np.ndarray, " T"]:
        """Of all frames, in fs."""
        return np.array([self._time(number, atoms) for number, atoms in enumerate(self._read())])

    def chunks(self, size: int | None = None) -> Iterator[Frames]:
        """See :meth:`Trajectory.chunks`."""
        if size is None:
            size = max(1, min(_MOST, _CHUNK_BYTES // (24 * len(self.replica))))
        held: list[tuple[int, float, np.ndarray, np.ndarray, np.ndarray]] = []
        scaled: np.ndarray | None = None
        for number, atoms in enumerate(self._read()):
            self._check(number, atoms)
            positions, scaled = _followed(atoms, scaled)
            unknown = np.full((len(atoms), 3), np.nan)
            velocities = atoms.get_velocities() * units.fs if atoms.has("momenta") else unknown
            held.append((number, self._time(number, atoms), positions, velocities, atoms.cell.array))
            if len(held) == size:
                yield self._together(held)
                held = []
        if held:
            yield self._together(held)

    def _together(self, held: list[tuple[int, float, np.ndarray, np.ndarray, np.ndarray]]) -> Frames:
        steps, times, positions, velocities, cells = (np.array(each) for each in zip(*held, strict=True))
        return Frames(
            steps, times, positions[:, None], velocities[:, None], {}, cells if self.replica.pbc.any() else None
        )

    def _time(self, number: int, atoms: Atoms) -> float:
        if self.spacing is not None:
            return number * self.spacing
        time = atoms.info.get("time")
        return float(time) if isinstance(time, int | float | np.number) else float("nan")

    def _check(self, number: int, atoms: Atoms) -> None:
        if len(atoms) != len(self.replica):
            raise InputError(
                f"frame {number} of '{self.name}' has {len(atoms)} atoms, and the first one {len(self.replica)}: all "
                "frames hold the same atoms"
            )
        if not np.array_equal(atoms.numbers, self.replica.numbers):
            raise InputError(f"frame {number} of '{self.name}' has other elements than the first one, or another order")
        if not np.array_equal(atoms.pbc, self.replica.pbc):
            raise InputError(f"frame {number} of '{self.name}' is periodic in other directions than the first one")
        if not np.isfinite(atoms.positions).all():
            raise InputError(f"frame {number} of '{self.name}' has positions that are not finite")
        edges = atoms.cell.array[atoms.pbc]
        if not np.isfinite(edges).all() or np.linalg.matrix_rank(edges) < len(edges):
            raise InputError(f"frame {number} of '{self.name}' is periodic, and its cell has no volume")

    def _read(self) -> Iterator[Atoms]:
        path, number = self.paths[0], 0
        try:
            form = file_format(path, *self.reading)
            for atoms in ase.io.iread(
                path, index=":", format=form, do_not_split_by_at_sign=True, **self.reading.options
            ):
                yield atoms
                number += 1
        except FileNotFoundError:
            raise InputError(f"'{path}' cannot be read: there is no such file") from None
        except InputError:
            raise
        except UnknownFileTypeError:
            if (observable := _observable_in(path)) is not None:
                raise InputError(
                    f"'{path}' holds values of {observable} as 'goniometer observe' saved them, and no frames: give "
                    "the run itself (curves of several runs are made anew, at the same lags and of the same stretch of "
                    "time)"
                ) from None
            raise InputError(f"'{path}' cannot be read: its format is not recognised; name it by --format") from None
        except Exception as error:  # whatever the readers of so many formats raise
            said = str(error).strip().splitlines()
            # Some readers take a file as a whole, and have given no frame before they fail at the last one.
            which = "the last frame" if number == 0 and _stops_within_a_line(path) else f"frame {number}"
            raise InputError(
                f"{which} of '{path}' cannot be read ({said[0] if said else type(error).__name__}): was it cut off?"
            ) from error
        if _stops_within_a_line(path):
            raise InputError(
                f"frame {number - 1} of '{path}', the last one, stops within a line: it was cut off, and a number may "
                "lack digits (if it is whole, end the line)"
            )


def _observable_in(path: Path) -> str | None:
    """The name of the observable of which a file holds the values, None if it does not."""
    if not h5py.is_hdf5(path):
        return None
    with h5py.File(path) as file:
        known = file.attrs.get("observable")
    return None if known is None else str(known)


def _stops_within_a_line(path: Path) -> bool:
    """Whether a file is text, and its last line does not end."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _TAIL))
        end = stream.read()
    # Bytes of text are tabs, ends of lines and what can be printed.
    return bool(end) and end[-1:] not in b"\r\n" and all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in end)


def _followed(atoms: Atoms, before: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Positions by the shortest way from the scaled ones before, and the scaled ones now."""
    if not atoms.pbc.any():
        return atoms.positions, None
    cell = atoms.cell.complete().array
    scaled = np.linalg.solve(cell.T, atoms.positions.T).T
    if before is not None:
        scaled -= np.round(scaled - before) * atoms.pbc
    return scaled @ cell, scaled
