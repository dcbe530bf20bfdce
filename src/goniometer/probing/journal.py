"""The journal of a probe that is under way: one line of JSON for each structure, beside the document to come.

A probe of many structures appends a record for each finished structure to ``probe.json.partial``, and writes
``probe.json`` once, at its end: the work of writing grows with the number of structures and not with its square. A
process may be killed at any moment: each record is flushed to the disk, and a last line that is torn is dropped.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from goniometer.errors import InputError
from goniometer.files.records import replace_text
from goniometer.probing.result import Failure, ProbeResult, StructureResult


def journal_of(document: Path) -> Path:
    """The journal that belongs to a document."""
    return document.with_name(f"{document.name}.partial")


class Journal:
    """Appends finished structures of a probe to a file.

    Parameters
    ----------
    path
        The file. It is replaced at :meth:`start`, in one step.

    Raises :class:`InputError` if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: Any = None

    def start(self, outline: ProbeResult) -> None:
        """Begin with what holds for all structures, and with the structures that ``outline`` has already."""
        head = replace(outline, structures=[], pooled=None, failures=[], complete=False)
        lines = [_line({"head": asdict(head)}), *(_line({"structure": asdict(each)}) for each in outline.structures)]
        try:
            replace_text(self.path, "".join(lines))
            self._stream = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._unwritable(error) from error

    def append(self, record: StructureResult | Failure, kind: str | None = None) -> None:
        """Add one record and wait until it is on the disk; ``kind`` is ``"fault"`` for a fault of the potential."""
        kind = kind or ("structure" if isinstance(record, StructureResult) else "failure")
        try:
            self._stream.write(_line({kind: asdict(record)}))
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Close the file, which stays."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def remove(self) -> None:
        """Close and remove the file: the document holds everything."""
        self.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(f"{self.path} cannot be written: {error.strerror or error}")


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def loaded(text: str) -> Any:
    """What a text of JSON holds; ValueError if it is none, or holds a number that is not finite."""
    return json.loads(text, parse_float=_finite, parse_constant=_finite)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds the number {text}")
    return value


def assembled(text: str) -> dict[str, Any]:
    """The document, as plain data, that the text of a journal amounts to; its last line may be torn.

    Raises ValueError if any other line is no record.
    """
    lines = text.split("\n")[:-1]  # what follows the last newline is torn
    records = [loaded(line) for line in lines if line]
    if not records or not isinstance(records[0], dict) or "head" not in records[0]:
        raise ValueError("its first line does not say what was probed")
    document: dict[str, Any] = records[0]["head"]
    document["structures"], document["failures"] = [], []
    document.setdefault("faults", [])
    lists = {"structure": "structures", "failure": "failures", "fault": "faults"}
    for number, record in enumerate(records[1:], start=2):
        kinds = record.keys() & lists if isinstance(record, dict) else set()
        if not kinds:
            raise ValueError(f"line {number} is no record of a structure")
        for kind in kinds:
            document[lists[kind]].append(record[kind])
    return document
