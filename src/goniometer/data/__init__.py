"""Structures: reading, checking and turning them; the files that come with the package."""

from goniometer.data.packaged import packaged_files
from goniometer.data.structures import (
    NamedStructure,
    called,
    check_structure,
    packaged_structures,
    read_structures,
    write_structures,
)
from goniometer.data.turning import handedness, right_handed, turned
from goniometer.data.vectors import declare_vectors, vector_notes

__all__ = [
    "NamedStructure",
    "called",
    "check_structure",
    "declare_vectors",
    "handedness",
    "packaged_files",
    "packaged_structures",
    "read_structures",
    "right_handed",
    "turned",
    "vector_notes",
    "write_structures",
]
