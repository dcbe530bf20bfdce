"""Reading what a probe wrote."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from goniometer.errors import InputError
from goniometer.probe.result import SCHEMA, ProbeResult


def read_probe(path: str | Path) -> ProbeResult:
    """Read a document ``goniometer/probe/1``. Raises :class:`InputError` if the file is none."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InputError(
            f"{path} is not JSON ({error}); it must be a file that `goniometer probe --json` wrote"
        ) from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise InputError(
            f"{path} holds the schema '{schema}', not '{SCHEMA}': it must come from `goniometer probe --json`"
        )
    try:
        return TypeAdapter(ProbeResult).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path} is damaged at '{where}': {first['msg']}") from error
