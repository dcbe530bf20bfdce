"""Structures: reading, checking and rotating them; labelled data sets."""

from goniometer.structures.reading import (
    NamedStructure,
    called,
    check_structure,
    packaged_structures,
    read_structures,
    write_structures,
)
from goniometer.structures.rotation import handedness, right_handed, turned
from goniometer.structures.vectors import declare_vectors, vector_notes

__all__ = [
    "NamedStructure",
    "called",
    "check_structure",
    "declare_vectors",
    "handedness",
    "packaged_structures",
    "read_structures",
    "right_handed",
    "turned",
    "vector_notes",
    "write_structures",
]
