"""Reading what a probe wrote."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from goniometer.errors import InputError
from goniometer.probe.result import SCHEMA, ProbeResult, StructureResult


def read_probe(path: str | Path) -> ProbeResult:
    """Read a document ``goniometer/probe/1``. Raises :class:`InputError` if the file is none."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        data = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not JSON ({error}); it must be a file that `goniometer probe --json` wrote"
        ) from error
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


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds the number {text}")
    return value


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
