"""Formats of structure files: the one that is asked for or recognised, the options of its reader, what is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ase.data import atomic_numbers
from ase.io.formats import filetype, ioformats

from goniometer.errors import InputError, did_you_mean

# Bytes at the start of a file by which its format is recognised.
_HEAD = 65536
# LAMMPS data without a suffix that ASE knows: a number of atoms and the edges of a box.
_LAMMPS_DATA = (re.compile(r"^\s*\d+\s+atoms\s*$", re.MULTILINE), re.compile(r"\bxlo\s+xhi\b"))
# Trajectories of other programs, by the bytes at their start: those that hold no elements.
_WITHOUT_ELEMENTS = {b"\x00\x00\x07\xcb": "a GROMACS XTC file", b"\x00\x00\x07\xc9": "a GROMACS TRR file"}


def check_format(name: str) -> None:
    """Raise :class:`InputError` unless ASE reads a format of that name."""
    if name not in ioformats or not ioformats[name].can_read:
        known = [each for each, form in ioformats.items() if form.can_read]
        hint = did_you_mean(name, known)
        raise InputError(f"ASE reads no format '{name}'{hint}; `ase info --formats` lists those that it reads")


def file_format(path: str | Path, given: str | None = None, options: Mapping[str, Any] | None = None) -> str:
    """The name that ASE has for the format of a file.

    Parameters
    ----------
    path
        A file that exists.
    given
        The format, if it is not to be recognised.
    options
        Arguments of ASE's reader.

    Raises
    ------
    InputError
        For a format that ASE does not read, and for files whose atoms would have no elements or wrong ones.
    ase.io.formats.UnknownFileTypeError
        If the format is not recognised.
    """
    if given is not None:
        check_format(given)
    with Path(path).open("rb") as stream:
        head = stream.read(_HEAD)
    if given is None:
        _check_binary(path, head)
    text = head.decode("latin-1")
    form = given or ("lammps-data" if all(each.search(text) for each in _LAMMPS_DATA) else filetype(str(path)))
    if form == "lammps-data":
        _check_lammps_data(path, options or {})
    if form == "lammps-dump-text":
        _check_lammps_dump(path, text, options or {})
    return str(form)


def _check_binary(path: str | Path, head: bytes) -> None:
    kind = _WITHOUT_ELEMENTS.get(head[:4])
    if head[4:8] == b"CORD":
        kind = "a DCD file of CP2K" if b"CP2K" in head[:1024] else "a DCD file with a CHARMM header (NAMD, LAMMPS)"
    if kind is not None:
        raise InputError(
            f"'{path}' is {kind}, which holds neither elements nor masses and is not read: convert it with its "
            "topology to extended XYZ, for instance by MDAnalysis and ase.io.write, with the cell and the time (fs) of "
            "each frame"
        )


def _check_lammps_data(path: str | Path, options: Mapping[str, Any]) -> None:
    """Without masses ASE takes the number of an atom type for its atomic number: type 1 is read as hydrogen."""
    if "Z_of_type" in options:
        return
    with Path(path).open(encoding="utf-8", errors="replace") as stream:
        if any(re.match(r"\s*(Masses|Atom Type Labels)\b", line) for line in stream):
            return
    raise InputError(
        f"'{path}' is LAMMPS data without masses, so that its atom types have no elements: name them by "
        "--read Z_of_type=1:Cu,2:O (in Python, options={'Z_of_type': {1: 29, 2: 8}})"
    )


def _check_lammps_dump(path: str | Path, head: str, options: Mapping[str, Any]) -> None:
    """The same for a dump: without elements and masses ASE takes types for atomic numbers."""
    columns = re.search(r"^ITEM: ATOMS(.*)$", head, re.MULTILINE)
    if columns is None or "specorder" in options or {"element", "mass"} & set(columns[1].split()):
        return
    raise InputError(
        f"'{path}' is a LAMMPS dump without elements or masses, so that its atom types have no elements: name them by "
        "--read specorder=Cu,O (in Python, options={'specorder': ['Cu', 'O']})"
    )


def reader_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Arguments of ASE's reader from ``KEY=VALUE``.

    Values are those of YAML, a list with commas (``specorder=Cu,O``), or a mapping from numbers to elements
    (``Z_of_type=1:Cu,2:O``).

    Raises
    ------
    InputError
        For what is no ``KEY=VALUE``, and for an element that there is not.
    """
    import yaml

    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals or not value:
            raise InputError(f"'{pair}' is no option of a reader: write KEY=VALUE, for instance atom_style=full")
        if re.fullmatch(r"\d+:\w+(,\d+:\w+)*", value):
            types = (each.split(":") for each in value.split(","))
            found[key] = {int(number): _atomic_number(element) for number, element in types}
        elif "," in value:
            found[key] = [each.strip() for each in value.split(",")]
        else:
            try:
                found[key] = yaml.safe_load(value)
            except yaml.YAMLError:
                found[key] = value
    return found


def _atomic_number(element: str) -> int:
    if element.isdigit():
        return int(element)
    if element not in atomic_numbers:
        raise InputError(f"'{element}' is no element: write a symbol or an atomic number, as in Z_of_type=1:Cu,2:8")
    return int(atomic_numbers[element])
