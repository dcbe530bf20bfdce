"""Reading what a probe wrote: a finished document, or the journal of one that was ended before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from goniometer.errors import InputError
from goniometer.probing.journal import assembled, journal_of, loaded
from goniometer.probing.pooling import pool
from goniometer.probing.result import SCHEMA, ProbeResult, StructureResult


def read_probe(path: str | Path) -> ProbeResult:
    """Read a document ``goniometer/probe/1``, or the journal beside it if the probe was ended before it was written.

    Raises :class:`InputError` if the file is neither.
    """
    source = _newest(Path(path))
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    unfinished = source.suffix == ".partial"
    try:
        data = assembled(text) if unfinished else loaded(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{source} is not JSON ({error}); it must be a file that `goniometer probe --json` wrote"
        ) from error
    result = _checked(data, source)
    return replace(result, pooled=pool(result.structures)) if unfinished else result


def _newest(document: Path) -> Path:
    """The document, or its journal where that is newer or alone."""
    journal = journal_of(document)
    try:
        if not document.exists() or journal.stat().st_mtime_ns > document.stat().st_mtime_ns:
            return journal if journal.is_file() else document
    except OSError:
        pass
    return document


def _checked(data: object, path: Path) -> ProbeResult:
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise InputError(
            f"{path} holds the schema '{schema}', not '{SCHEMA}': it must come from `goniometer probe --json`"
        )
    try:
        result = TypeAdapter(ProbeResult).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path} is damaged at '{where}': {first['msg']}") from error
    for number, structure in enumerate(result.structures):
        _check_shapes(structure, f"{path} is damaged at 'structures.{number}")
    return result


def _check_shapes(structure: StructureResult, damaged: str) -> None:
    counts = {"numbers": len(structure.numbers), "positions": len(structure.positions)}
    for name, count in counts.items():
        if count != structure.n_atoms:
            raise InputError(f"{damaged}.{name}': {count} entries for {structure.n_atoms} atoms")
    vectors: list[Sequence[float]] = [*structure.positions, *structure.cell, structure.pbc]
    if len(structure.cell) != 3 or any(len(vector) != 3 for vector in vectors):
        raise InputError(f"{damaged}': a position, the cell or pbc has not three components")
    if not structure.rules:
        raise InputError(f"{damaged}.rules': there are none")
