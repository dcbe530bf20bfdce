"""Public data sets: downloaded once, known by their git blob id, converted to eV and Å."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from goniometer.errors import InputError, did_you_mean
from goniometer.progress import Progress

#: Å and eV, CODATA 2018. Not those of ASE, which are older: its Bohr radius moves what lies 12 Å from the origin by
#: 1e-8 Å, and the paper's archive, written to 1e-8 Å, would hold the same structures under other hashes.
BOHR, HARTREE = 0.529177210903, 27.211386245988


@dataclass(frozen=True)
class PublicSet:
    """A file of structures in bohr, hartree and hartree/bohr: where it is, what it must be, what its labels are called.

    ``blob`` is the id that git gives the content: the SHA-1 of ``blob``, the size and the bytes.
    """

    url: str
    blob: str
    structures: int
    energy: str
    forces: str
    citation: str

    @property
    def file(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


_CHENG = "https://raw.githubusercontent.com/BingqingCheng/ab-initio-thermodynamics-of-water"
SETS = {
    "water": PublicSet(
        f"{_CHENG}/7b8b1a2b4270cffcab1bfd11a8603767b4966396/training-set/dataset_1593.xyz",
        "6792c4658498c07f47c881a011ac82b2f26109fc",
        1593,
        "TotEnergy",
        "force",
        "B. Cheng, E. A. Engel, J. Behler, C. Dellago and M. Ceriotti, PNAS 116, 1110 (2019), "
        "doi:10.1073/pnas.1815117116",
    )
}


def public_set(name: str) -> PublicSet:
    """The public set of this name. Raises :class:`InputError` if there is none."""
    if name not in SETS:
        raise InputError(f"there is no data set '{name}'; there are {', '.join(SETS)}{did_you_mean(name, SETS)}")
    return SETS[name]


def fetch(name: str, url: str | None = None, progress: Progress | None = None) -> Path:
    """The original file of a public set, from the cache or from its server (or the mirror at ``url``).

    The cache is the folder that the variable ``GONIOMETER_CACHE`` names, or that of the system. What has arrived of a
    download that broke off stays there, and the next call asks for the rest (HTTP Range) where the server can.

    Raises :class:`InputError` if the server cannot be reached, or if what it sends is not the file that was meant.
    """
    import pooch

    wanted = public_set(name)
    folder = Path(os.environ.get("GONIOMETER_CACHE") or pooch.os_cache("goniometer"))
    path = folder / wanted.file
    if path.exists() and blob_id(path) != wanted.blob:
        path.unlink()
    # It would tell of every download and of its hash, which is checked here.
    pooch.get_logger().setLevel("WARNING")
    download = _Download(wanted, path, progress)
    try:
        return Path(pooch.retrieve(url or wanted.url, None, path.name, folder, downloader=download))
    except OSError as error:
        raise InputError(f"the cache {folder} cannot be used: {error.strerror or error}") from error


def blob_id(path: Path) -> str:
    """The id that git gives the content of a file."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def converted(path: Path, of: PublicSet, progress: Progress | None = None) -> Iterator[Atoms]:
    """The structures of an original file with energy and forces in eV, Å and eV/Å."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import iread

    for number, frame in enumerate(iread(path, format="extxyz")):
        if progress is not None:
            progress(number, of.structures, "converting")
        atoms = Atoms(frame.numbers, frame.positions * BOHR, cell=frame.cell * BOHR, pbc=frame.pbc)
        energy, forces = frame.info[of.energy] * HARTREE, frame.arrays[of.forces] * (HARTREE / BOHR)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        yield atoms


class _Download:
    """A downloader for pooch that goes on with what an earlier one left in ``….part``, and checks the identity."""

    def __init__(self, wanted: PublicSet, path: Path, progress: Progress | None) -> None:
        self.wanted, self.path, self.progress = wanted, path, progress

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        from requests.exceptions import RequestException

        part = self.path.with_name(self.path.name + ".part")
        # A part that is whole was left by a run that ended before it could be renamed.
        if not part.exists() or blob_id(part) != self.wanted.blob:
            try:
                self._receive(url, part)
            except RequestException as error:
                raise InputError(self._broken(url, error)) from error
        found, size = blob_id(part), part.stat().st_size
        if found != self.wanted.blob:
            part.unlink()
            raise InputError(
                f"{url} is not the {self.wanted.file} that was meant: its {size} bytes have the git blob id {found}, "
                f"not {self.wanted.blob}"
            )
        part.replace(output_file)

    def _receive(self, url: str, part: Path) -> None:
        from pooch import HTTPDownloader

        with part.open("ab") as file:
            bar = _Bar(file.tell(), self.wanted.file, self.progress)

            def begin(response: Any, *args: Any, **kwargs: Any) -> None:
                # The whole file instead of the rest, or a part that is longer than the file.
                if response.status_code in (200, 416):
                    file.truncate(0)
                    bar.start = bar.done = 0

            # Compressed on the way, a range would be one of other bytes.
            headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={bar.start}-"} if bar.start else {})
            receive = HTTPDownloader(progressbar=bar, chunk_size=1 << 14, headers=headers, hooks={"response": begin})
            receive(url, file, None)

    def _broken(self, url: str, error: Exception) -> str:
        response = getattr(error, "response", None)
        what = "cannot be reached" if response is None else f"answers {response.status_code} {response.reason}"
        return (
            f"{url} {what}: the same command goes on with what has arrived, --url names a mirror, and a copy of the "
            f"file that is put at {self.path} is taken as well"
        )


class _Bar:
    """What pooch wants of a progress bar, as calls of a callback; ``total`` is what comes after ``start``."""

    def __init__(self, start: int, file: str, progress: Progress | None) -> None:
        self.start, self.done, self.total, self.label, self.progress = start, start, 0, f"fetching {file}", progress

    def update(self, size: int) -> None:
        whole = self.start + self.total
        self.done = min(self.done + size, whole)
        if self.progress is not None:
            self.progress(self.done, whole, self.label)

    def reset(self) -> None:
        self.done = self.start

    def close(self) -> None:
        pass
