"""The form in which long work reports its progress."""

from __future__ import annotations

from collections.abc import Callable

#: A function that is told what is done, what there is to do in all (in the same unit), and what is being done.
Progress = Callable[[float, float, str], None]

#: A function that is told how many evaluations have been added.
Advance = Callable[[int], None]


def named(progress: Progress | None, name: str) -> Progress | None:
    """The same function with a name in front of each label; None stays None."""
    if progress is None:
        return None

    def report(done: int | float, whole: int | float, label: str, /) -> None:
        progress(done, whole, f"{name}, {label}")

    return report
