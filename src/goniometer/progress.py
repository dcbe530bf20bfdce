"""How long work reports its progress: one protocol for all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """A function that is told what is done, what there is to do in all (in the same unit), and what is being done."""

    def __call__(self, done: float, whole: float, label: str, /) -> None:
        """Report that ``done`` of ``whole`` is finished, and that ``label`` is under way."""


#: A function that is told how many evaluations have been added.
Advance = Callable[[int], None]
