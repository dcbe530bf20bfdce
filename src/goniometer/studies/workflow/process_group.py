"""Runs a command in a process group of its own, and ends the whole group when the process that started it is gone.

It is started as a file, ``python -P keeper.py COMMAND …``, as the leader of a new session, with a pipe as its standard
input. The system closes the pipe when the process at its other end ends, be it by SIGKILL; then whatever the command
has started is interrupted as by Ctrl-C, and ended after a while if it does not heed that. Otherwise the exit code is
that of the command.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

#: Seconds to stop after SIGINT, and after SIGTERM, before what remains is killed.
PATIENCE = ((signal.SIGINT, 120.0), (signal.SIGTERM, 5.0))
_OWN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _default_signals() -> None:
    """A shell that starts something in the background lets it ignore Ctrl-C, and all that it starts in turn."""
    for number in _OWN:
        signal.signal(number, signal.SIG_DFL)


def keep(command: list[str]) -> int:
    """Run a command to its end, or until standard input is closed; its exit code."""
    for number in _OWN:  # they are for the command, which is in the same group
        signal.signal(number, signal.SIG_IGN)
    # What this process was given to hold, the command holds as well.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False, preexec_fn=_default_signals)
    while child.poll() is None:
        readable, _, _ = select.select([sys.stdin], [], [], 0.1)
        if readable and not os.read(sys.stdin.fileno(), 1):
            _end(child)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _end(child: subprocess.Popen[bytes]) -> None:
    for number, seconds in PATIENCE:
        os.killpg(0, number)
        limit = time.monotonic() + seconds
        while child.poll() is None and time.monotonic() < limit:
            time.sleep(0.05)
        if child.poll() is not None:
            break
    os.killpg(0, signal.SIGKILL)  # tasks that have outlived the command, and this process


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
