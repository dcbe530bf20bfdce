"""The files that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

#: The folder of the data that come with the package.
DATA = Path(__file__).parents[1] / "data"


def packaged_files(folder: str, suffix: str) -> dict[str, Path]:
    """Name to path of the files with this suffix in a folder of the package's data, sorted by name."""
    return {path.stem: path for path in sorted((DATA / folder).glob(f"*{suffix}"))}
