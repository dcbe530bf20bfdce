"""Structures from files, by name or from memory, each with a name to report it by; and the checks they must pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell, minkowski_reduce
from ase.io import iread, write
from ase.io.formats import UnknownFileTypeError, get_ioformat, string2index
from jaxtyping import Bool, Float64, Int64
from scipy.spatial import KDTree

from goniometer.errors import InputError, did_you_mean
from goniometer.files.packaged import packaged_files
from goniometer.files.records import replacing
from goniometer.structures.formats import check_format, file_format
from goniometer.structures.vectors import declare_vectors

#: Atoms closer than this, in Å, are taken for a mistake: the shortest bond, of H2, is 0.74 Å.
COINCIDENT = 0.05
#: Positions and cells larger than this, in Å, are taken for a mistake: a tenth of a millimetre.
LARGEST = 1e6
#: Cell vectors whose directions have a smallest singular value below this are taken for dependent.
DEGENERATE = 1e-6


class NamedStructure(NamedTuple):
    """A structure and what reports call it, for instance ``box.xyz#3``, frame 3 (counted from 0) of a file.

    A frame that could not be parsed has no atoms and the reason in ``atoms.info["unreadable"]``:
    :func:`check_structure` raises it, so that one bad frame does not take the others with it.
    """

    name: str
    atoms: Atoms


Source: TypeAlias = str | Path | Atoms | NamedStructure


def packaged_structures() -> list[str]:
    """Names of the structures that come with the package."""
    return list(packaged_files("structures_files", ".xyz"))


def called(structure: Atoms) -> str:
    """What an error calls a structure: the name that its ``info`` holds, or its formula and number of atoms."""
    name = structure.info.get("name")
    return str(name) if name else f"{structure.get_chemical_formula()} ({len(structure)} atoms)"


class Reading(NamedTuple):
    """How files are read.

    Attributes
    ----------
    format
        As ASE calls it; None to recognise it.
    options
        Arguments of ASE's reader.
    """

    format: str | None = None
    options: Mapping[str, Any] = {}


def read_structures(
    source: Source | Iterable[Any],
    *,
    format: str | None = None,
    options: Mapping[str, Any] | None = None,
    vectors: Mapping[str, str] | None = None,
) -> list[NamedStructure]:
    """Read structures; they are not checked yet, see :func:`check_structure`.

    A source is the name of a packaged structure, the path of a file in any format that ASE reads (all its frames, or
    those that an index after ``@`` selects, as in ``file.xyz@::10``), a structure in memory, or a sequence of such. A
    packaged name goes before a file of that name; write ``./molecule`` for the file.

    Parameters
    ----------
    source
        What to read.
    format
        Of the files, as ASE calls it (``lammps-data``); by default it is recognised.
    options
        Arguments of ASE's reader of that format, for instance ``{"atom_style": "full", "Z_of_type": {1: 29}}``.
    vectors
        Names of entries of ``arrays`` and ``info`` to what they are, ``rotate``, ``axial`` or ``leave``: see
        :func:`goniometer.structures.declare_vectors`.

    Raises
    ------
    InputError
        For a missing file, one that holds no structure, a frame that does not exist, a format that ASE does not read,
        and vectors that no structure has.
    """
    if format is not None:
        check_format(format)
    found = _read_all(source, Reading(format, options or {}))
    if vectors:
        declare_vectors([atoms for _, atoms in found], vectors)
    return found


def _read_all(source: Source | Iterable[Any], reading: Reading) -> list[NamedStructure]:
    if isinstance(source, Atoms):
        return [NamedStructure(source.get_chemical_formula(), source)]
    if isinstance(source, NamedStructure):
        return [source]
    if isinstance(source, str | Path):
        return _read(str(source), Path(source).name, reading)
    sources = _checked_sources(source)
    # Two files of the same name in different folders are told apart by their paths.
    shared = Counter(Path(item).name for item in {item for item in sources if isinstance(item, str | Path)})
    found: list[NamedStructure] = []
    for number, item in enumerate(sources):
        if isinstance(item, Atoms):
            found.append(NamedStructure(f"{item.get_chemical_formula()}#{number}", item))
        elif isinstance(item, NamedStructure):
            found.append(item)
        else:
            name = Path(item).name
            found.extend(_read(str(item), name if shared[name] == 1 else str(item), reading))
    return found


def _printable(name: str) -> str:
    """The name of a file without control characters and bytes that are no text, for tables and pages."""
    return "".join(each if each.isprintable() else "?" for each in name)


def write_structures(path: Path, structures: Iterable[Atoms]) -> None:
    """Write extended XYZ, in one step. Raises :class:`InputError` if that cannot be done."""
    with replacing(path) as partial:
        write(partial, structures, format="extxyz")


def _checked_sources(sources: Iterable[object]) -> list[Source]:
    listed = list(sources) if isinstance(sources, Iterable) else [sources]
    for item in listed:
        if not isinstance(item, Source):
            raise InputError(f"structures are paths, names or ase.Atoms, not {type(item).__name__}")
    if not listed:
        raise InputError("no structures were given")
    return listed


def _read(source: str, label: str, reading: Reading) -> list[NamedStructure]:
    packaged = packaged_files("structures_files", ".xyz")
    path, index = source, None
    if source in packaged:
        path, reading = str(packaged[source]), Reading()
    elif not Path(source).exists() and "@" in label:
        path, _, selection = source.rpartition("@")
        label = label.rpartition("@")[0]
        index = _selection(selection, source)
    label = _printable(label)
    if not Path(path).exists():
        hint = did_you_mean(Path(path).stem, packaged)
        raise InputError(
            f"there is no file '{path}'; the packaged structures are {', '.join(packaged) or 'none'}{hint}"
        )
    if Path(path).is_dir():
        raise InputError(f"'{path}' is a folder; a structure file is needed")
    if not Path(path).is_file():
        raise InputError(f"'{path}' is a device or a pipe; a structure file is needed")
    if Path(path).stat().st_size == 0:
        raise InputError(f"'{path}' is empty; a structure file is needed")
    numbered = _frames(path, index, reading)
    if not numbered:
        raise InputError(f"'{path}' holds no structure" + (f" at index {selection}" if index is not None else ""))
    if all("unreadable" in atoms.info for _, atoms in numbered):
        raise InputError(f"'{path}' cannot be read: {numbered[0][1].info['unreadable']}")
    if index is None and len(numbered) == 1:
        return [NamedStructure(label, numbered[0][1])]
    return [NamedStructure(f"{label}#{number}", atoms) for number, atoms in numbered]


def _selection(text: str, source: str) -> int | slice:
    try:
        index = string2index(text)
    except ValueError:
        index = text
    if isinstance(index, str):
        raise InputError(f"'{text}' in '{source}' does not select frames: write @3, @:10 or @::10 after the file")
    return index


def _frames(path: str, index: int | slice | None, reading: Reading) -> list[tuple[int, Atoms]]:
    """Frames with their numbers in the file, counted from its end for a negative integer index."""
    if isinstance(index, int):
        # An end of None, since the frame after −1 is not frame 0.
        frames = _parsed(path, slice(index, index + 1 or None), reading)
        return [(index, frames[0])] if frames else []
    selected = index if index is not None else slice(None)
    start, step = selected.start or 0, selected.step or 1
    if min(start, step, selected.stop or 0) < 0:
        # Numbers that count from the end need the whole file.
        frames = _parsed(path, slice(None), reading)
        return [(number, frames[number]) for number in range(len(frames))[selected]]
    return list(zip(count(start, step), _parsed(path, selected, reading), strict=False))


def _parsed(path: str, selected: slice, reading: Reading) -> list[Atoms]:
    try:
        form, options = file_format(path, *reading), reading.options
        if get_ioformat(form).single:
            return list(_iread(path, slice(None), form, options))[selected]
        if form == "extxyz" and min(selected.start or 0, selected.step or 1) >= 0:
            return list(_one_by_one(path, selected, options))
        return list(_iread(path, selected, form, options))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"'{path}' is not a structure file that ASE can read: {_reason(error)}") from error


def _one_by_one(path: str, selected: slice, options: Mapping[str, Any]) -> Iterator[Atoms]:
    """Frames of an extended XYZ file; one that cannot be parsed is an empty structure that says why.

    This format alone tells where a frame ends before it is parsed: in others, one bad frame makes the file unreadable.
    """
    # Reading from far beyond the end parses nothing, and raises if the headers do not say where the frames are.
    list(_iread(path, slice(10**12, None), "extxyz", options))
    frame, step = selected.start or 0, selected.step or 1
    while True:
        try:
            for atoms in _iread(path, slice(frame, selected.stop, step), "extxyz", options):
                frame += step
                yield atoms
            return
        except Exception as error:
            frame += step
            yield Atoms(info={"unreadable": _reason(error)})


def _iread(path: str, selected: slice, form: str, options: Mapping[str, Any]) -> Iterator[Atoms]:
    return iread(path, selected, format=form, do_not_split_by_at_sign=True, **options)


def _reason(error: Exception) -> str:
    if isinstance(error, UnknownFileTypeError):
        return "its format is not recognised"
    if isinstance(error, KeyError):
        return f"{error} is not known"
    if isinstance(error, StopIteration):
        return "it ends too early"
    return " ".join(str(error).split()) or type(error).__name__


def check_structure(atoms: Atoms, name: str) -> None:
    """Raise :class:`InputError` with one sentence, beginning with the name, if a potential could make no sense of this.

    That is: a frame that could not be parsed; no atoms; positions or a cell with NaN, infinity or beyond 10⁶ Å;
    periodicity along an axis whose cell vector is zero; cell vectors that are not zero but shorter than 0.05 Å, or not
    independent; two atoms, or an atom and its periodic image, within 0.05 Å of each other; an atom without an element;
    a site that is occupied in part, or by several elements.
    """
    if "unreadable" in atoms.info:
        raise InputError(f"{name}: the frame cannot be parsed: {atoms.info['unreadable']}")
    if len(atoms) == 0:
        raise InputError(f"{name}: there are no atoms")
    usable = (np.abs(atoms.positions) < LARGEST).all(axis=1)
    if not usable.all():
        index = int(np.argmin(usable))
        what = "is beyond 10⁶ Å" if np.isfinite(atoms.positions[index]).all() else "is NaN or infinite"
        raise InputError(f"{name}: the position of atom {index} ({atoms.symbols[index]}, counted from 0) {what}")
    if (atoms.numbers == 0).any():
        index = int(np.argmax(atoms.numbers == 0))
        raise InputError(f"{name}: atom {index} (counted from 0) has no element: it is read as X")
    check_occupancies(atoms, name)
    _check_cell(atoms, name)
    _check_distances(atoms, name)


def check_occupancies(atoms: Atoms, name: str) -> None:
    """Raise :class:`InputError` for a site that is occupied in part, or by several elements.

    ASE keeps the occupancies of a CIF file by site in ``info["occupancy"]``, and places the element of the greatest one
    as a whole atom. Arrays ``occupancy`` and ``occupancies`` hold numbers by atom; zeros alone, which many programs
    write, mean that there are none.
    """
    sites = atoms.info.get("occupancy")
    if isinstance(sites, Mapping):
        for site in sites.values():
            if not isinstance(site, Mapping):
                continue
            shares = {str(element): float(share) for element, share in site.items()}
            if len(shares) > 1 or any(abs(share - 1.0) > 1e-6 for share in shares.values()):
                said = ", ".join(f"{element} {share:g}" for element, share in shares.items())
                raise InputError(
                    f"{name}: a site is occupied in part ({said}): a potential needs whole atoms, so give an ordered "
                    "structure, for instance a supercell in which the sites are filled"
                )
    for key in ("occupancy", "occupancies"):
        shares_by_atom = np.asarray(atoms.arrays.get(key, []))
        if shares_by_atom.dtype.kind == "f" and ((shares_by_atom > 0.0) & (shares_by_atom < 1.0 - 1e-6)).any():
            index = int(np.argmax((shares_by_atom > 0.0) & (shares_by_atom < 1.0 - 1e-6)))
            raise InputError(
                f"{name}: atom {index} ({atoms.symbols[index]}, counted from 0) has the occupancy "
                f"{shares_by_atom[index]:g}: a potential needs whole atoms, so give an ordered structure"
            )


def _check_cell(atoms: Atoms, name: str) -> None:
    cell, pbc = atoms.cell.array, atoms.pbc
    axes = np.array(["a", "b", "c"])
    if not (np.abs(cell) < LARGEST).all():
        raise InputError(f"{name}: the cell has a component that is NaN, infinite or beyond 10⁶ Å")
    lengths, present = np.linalg.norm(cell, axis=1), cell.any(axis=1)
    for axis in axes[pbc & ~present]:
        raise InputError(f"{name}: it is periodic along {axis}, but cell vector {axis} is zero")
    # Neighbor lists invert the cell even where it is not periodic: a senseless one makes ASE's lose pairs in silence.
    for axis, length in zip(axes[present], lengths[present], strict=True):
        if length < COINCIDENT:
            raise InputError(f"{name}: cell vector {axis} is only {length:.2g} Å long")
    directions = cell[present] / lengths[present, None]
    if present.any() and np.linalg.svd(directions, compute_uv=False).min() < DEGENERATE:
        raise InputError(f"{name}: cell vectors {', '.join(axes[present])} are not independent: the cell has no volume")


def _check_distances(atoms: Atoms, name: str) -> None:
    cell, pbc = atoms.cell.array, atoms.pbc
    if pbc.any():
        # A reduced cell holds the shortest lattice vectors, and its nearest images suffice however skewed the given is.
        cell = minkowski_reduce(np.where(pbc[:, None], cell, 0.0), pbc)[0]
        shortest = np.linalg.norm(cell[pbc], axis=1).min()
        if shortest < COINCIDENT:
            raise InputError(f"{name}: every atom is {shortest:.2g} Å from its own periodic image")
    positions, owners = _with_images(atoms.positions, complete_cell(np.where(pbc[:, None], cell, 0.0)), pbc)
    # Each point finds itself and its nearest neighbor, in either order if they are at the same place.
    distances, neighbors = KDTree(positions).query(positions, k=2, distance_upper_bound=COINCIDENT)
    closest = int(np.argmin(distances[:, 1]))
    if distances[closest, 1] < COINCIDENT:
        other = next(int(index) for index in neighbors[closest] if index != closest)
        first, second = sorted((owners[closest], owners[other]))
        apart = f"{distances[closest, 1]:.2g} Å apart"
        raise InputError(f"{name}: atoms {first} and {second} (counted from 0) coincide: they are {apart}")


def _with_images(
    positions: Float64[np.ndarray, "N 3"], cell: Float64[np.ndarray, "3 3"], pbc: Bool[np.ndarray, "3"]
) -> tuple[Float64[np.ndarray, "M 3"], Int64[np.ndarray, " M"]]:
    """Positions wrapped into the cell, with the images just outside its faces, and the atom that each belongs to."""
    scaled = positions @ np.linalg.inv(cell)
    scaled[:, pbc] %= 1.0
    owners = np.arange(len(positions))
    margins = COINCIDENT * np.linalg.norm(np.linalg.inv(cell), axis=0)
    for axis in np.flatnonzero(pbc):
        low, high = scaled[:, axis] < margins[axis], scaled[:, axis] > 1.0 - margins[axis]
        step = np.eye(3)[axis]
        scaled, owners = (
            np.concatenate([scaled, scaled[low] + step, scaled[high] - step]),
            np.concatenate([owners, owners[low], owners[high]]),
        )
    return scaled @ cell, owners
