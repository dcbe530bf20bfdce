"""Files that are whole at any moment, and what they say of the software that wrote them."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Put a text in the place of a file, which holds the old one or the new one at any moment, a crash included."""
    partial = path.with_name(path.name + ".part")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of Python and of those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
