"""Files that are whole at any moment, folders that one process works in at a time, and what wrote them."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from secrets import token_hex

from goniometer.errors import InputError

# What files that are being written begin with, until they take the place of another one.
_PARTIAL = "part-"
# Characters of its own name in that of such a file, so that it is never too long for a name.
_KEPT = 80


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file in one step: at any moment it holds what it held before or all of the new content.

    Yields the path to write to, in the same folder, with a name that no other process uses and the same ending. It
    takes the place of ``path`` at the end of the block, if that ends without an error, and is removed otherwise. What a
    link leads to is replaced, not the link; what is no file (a pipe, ``/dev/stdout``) is written to.

    Raises :class:`InputError` if the file cannot be written: the disk is full, for instance, or read-only.
    """
    path = Path(path)
    try:
        with _partial(path) as partial:
            yield partial
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    stream = _is_stream(path)
    target = path.resolve() if path.is_symlink() and not stream else path
    if target.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    folder = Path(tempfile.gettempdir()) if stream else target.parent
    partial = folder / f"{_PARTIAL}{token_hex(4)}-{target.name[-_KEPT:]}"
    try:
        try:
            yield partial
        except (RuntimeError, ValueError) as error:
            # HDF5 and PyTorch do not raise an OSError where the disk is full.
            _check_space(partial, error)
            raise
        if stream:
            with partial.open("rb") as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        else:
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.replace(target)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _is_stream(path: Path) -> bool:
    """Whether it is there and is no file, or is one of the program's own open files."""
    own = str(path).startswith(("/dev/std", "/dev/fd/", "/proc/self/fd/"))
    return own or (path.exists() and not path.is_file() and not path.is_dir())


def _check_space(partial: Path, error: Exception) -> None:
    """Raise the OSError that lies behind another error, if there is one, or that writing raises now."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, OSError):
            raise behind
        behind = behind.__cause__ or behind.__context__
    with partial.open("ab") as stream:
        stream.write(bytes(1 << 16))
        stream.flush()
        os.fsync(stream.fileno())


def replace_bytes(path: str | Path, content: bytes) -> None:
    """Put bytes in the place of a file: see :func:`replacing`."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def replace_text(path: str | Path, text: str) -> None:
    """Put a text in the place of a file, in UTF-8: see :func:`replacing`.

    What is no character, a byte of a file name that is not in UTF-8 for instance, is written as ``\\udc80``.
    """
    replace_bytes(path, text.encode("utf-8", "backslashreplace"))


def remove_partial(folder: Path) -> None:
    """Remove what killed processes left in a folder that this process holds (:func:`locked`)."""
    for left in folder.glob(f"{_PARTIAL}*"):
        with suppress(OSError):
            left.unlink()


@contextmanager
def locked(folder: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a folder, by the file ``lock`` in it; the system lets go of it when the process ends, however that ends.

    Parameters
    ----------
    folder
        Is there.
    what
        In the error message: "the run in 'folder'".
    wait
        Until another process has let go of it.

    Raises :class:`InputError` if another process holds it, or the file cannot be made.
    """
    path = folder / "lock"
    try:
        stream = path.open("a")
    except OSError as error:
        raise InputError(f"'{path}', the lock of {what}, cannot be opened: {error.strerror or error}") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise InputError(f"another process is at work on {what}") from None
        except OSError as error:
            raise InputError(f"'{path}' cannot be locked: {error.strerror or error}") from error
        yield


def make_folder(path: Path) -> None:
    """Make a folder if it is not there. Raises :class:`InputError` if that cannot be done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"cannot write into {path}: it is a file; give the name of a folder") from None
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror or error}") from error


def remove_unused(folders: Iterable[Path]) -> None:
    """Remove folders, the innermost first, that hold nothing, or a lock alone, which the process that asks holds."""
    for folder in folders:
        if {each.name for each in folder.iterdir()} - {"lock"}:
            return
        (folder / "lock").unlink(missing_ok=True)
        folder.rmdir()


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of Python and of those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> str:
    """The processor and its cores, as far as the system says."""
    name = platform.processor() or platform.machine()
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return f"{found.group(1).strip() if found else name}, {os.cpu_count()} cores"


def check_writable(path: Path) -> None:
    """Raise InputError unless a file can be written there; call it before the work whose outcome goes into it."""
    folder = path.parent
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give the name of a file")
    if not folder.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {folder}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InputError(f"cannot write {path}: no permission to write there")
