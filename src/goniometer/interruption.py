"""Signals that ask the program to end: Ctrl-C, SIGTERM of schedulers and containers, SIGHUP of a closed terminal.

All of them are handled alike: what is finished is kept, and the exit code is 128 + the number of the signal.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

#: Those that end a program which does not handle them; a platform without SIGHUP has none.
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

# The last signal that was received; None if there was none. Signals belong to the process, and so does this.
_received: int | None = None
# Whether a signal has arrived that the deferring part of the program has yet to act upon.
_pending = False


class Interrupted(Exception):  # noqa: N818 - it is no error
    """Work that a signal ended in an orderly way; the message tells what is kept and how the work is resumed."""


class StepAbandoned(KeyboardInterrupt):
    """A step that was interrupted while it waited for drivers, and cannot be completed: the last checkpoint counts."""


def exit_code() -> int:
    """128 + the number of the signal that ended the program; that of Ctrl-C, 130, if none was noted."""
    return 128 + (_received or signal.SIGINT)


def interruption_requested() -> bool:
    """Whether a signal has arrived within :func:`deferred`."""
    return _pending


def handle_signals() -> None:
    """Let SIGTERM and SIGHUP raise :class:`KeyboardInterrupt` from now on, as Ctrl-C does.

    A signal that was ignored when the program started (``nohup``) stays ignored, and one that has a handler keeps it.
    """
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _raise)


def _raise(number: int, _: Any) -> None:
    _note(number)
    raise KeyboardInterrupt


def _note(number: int) -> None:
    global _received
    _received = number
    if number == getattr(signal, "SIGHUP", None):
        _leave_the_terminal()


def _leave_the_terminal() -> None:
    """Send what would be printed on a terminal that is closed nowhere: writing to it is an error from now on."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            if stream.isatty():
                os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Let a step come to its end before a signal takes effect; a second one is not waited for.

    Yields a function that tells whether a signal has arrived. After the block a signal other than Ctrl-C that nobody
    handled before ends the process, as it would have without the block.
    """
    global _pending
    caught: list[int] = []

    def note(number: int, _: Any) -> None:
        global _pending
        _note(number)
        if caught:
            raise KeyboardInterrupt
        caught.append(number)
        _pending = True

    before: dict[int, Any] = {}
    try:
        for number in ENDING:
            if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, note)
    except ValueError:  # not the main thread, which alone receives signals
        yield lambda: False
        return
    try:
        yield lambda: bool(caught)
    finally:
        _pending = False
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in caught:
            if number != signal.SIGINT and before[number] is signal.SIG_DFL:
                signal.raise_signal(number)
