"""Files that are whole at any moment, and what they say of the software that wrote them."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from goniometer.errors import InputError


def replace_text(path: Path, text: str) -> None:
    """Put a text in the place of a file, which holds the old one or the new one at any moment, a crash included."""
    partial = path.with_name(path.name + ".part")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def make_folder(path: Path) -> None:
    """Make a folder if it is not there. Raises :class:`InputError` if that cannot be done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"cannot write into {path}: it is a file; give the name of a folder") from None
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror or error}") from error


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
