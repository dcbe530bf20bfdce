"""The command line: one module for each command."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import NoReturn

# Of a disk that is full, read-only or broken.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)


def main() -> None:
    """Run the command line.

    What a user can mend ends with one sentence and exit code 2; what a signal stops with 128 + its number, 130 for
    Ctrl-C.
    """
    from goniometer.cli.encoding import show_everything
    from goniometer.interruption import exit_code, handle_signals

    _keep_assertions()
    handle_signals()
    show_everything()
    # Threads that wait for work by spinning take minutes for what takes seconds where another program runs as well.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = _ended()
        sys.stdout.flush()
    except KeyboardInterrupt:  # while modules are imported, for instance
        _leave(exit_code(), "stopped")
    except BrokenPipeError:  # the reader of a pipe has seen enough
        sys.stderr.close()
        raise SystemExit(0) from None
    except MemoryError as error:
        _leave(2, f"there is not enough memory: {error}" if str(error) else "there is not enough memory")
    except OSError as error:
        if error.errno not in _FULL:
            raise
        with suppress(OSError):  # what is still to be printed goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(2, f"{error.filename or 'the output'} cannot be written: {error.strerror}")
    raise SystemExit(code)


def _ended() -> int:
    """Run the command; the exit code of one that has ended by itself."""
    import typer

    from goniometer.cli.app import app
    from goniometer.errors import GoniometerError
    from goniometer.extras import remedy
    from goniometer.interruption import Interrupted, exit_code

    try:
        code = app(prog_name="goniometer", standalone_mode=False) or 0
    except GoniometerError as error:
        _leave(2, str(error))
    except ModuleNotFoundError as error:
        if (text := remedy(error)) is None:
            raise
        _leave(2, text)
    except Interrupted as stopped:
        _leave(exit_code(), str(stopped))
    except typer.Abort:
        _leave(exit_code(), "stopped")
    except Exception as error:
        # What typer says of wrong usage; the class has no public name that all its versions share.
        if not hasattr(error, "format_message"):
            raise
        _leave(2, error.format_message())
    if code == 130:  # typer has made an exit code of a Ctrl-C
        _leave(exit_code(), "stopped")
    return int(code)


def _keep_assertions() -> None:
    """Start again with assertions where Python leaves them out (``-O``, ``PYTHONOPTIMIZE``).

    ASE 3.29 reads a line of its extended XYZ format within an assertion, and misreads files without it.
    """
    if not sys.flags.optimize:
        return
    program, *words = sys.orig_argv
    while words and words[0] in ("-O", "-OO"):
        del words[0]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONOPTIMIZE"}
    if {"-O", "-OO"}.isdisjoint(words[: words.index("-m") if "-m" in words else 0]):
        os.execve(sys.executable, [program, *words], environment)


def _leave(code: int, message: str) -> NoReturn:
    """End with one sentence on the error stream, if there is one: help, asked for or not, has said it all."""
    from goniometer.cli.encoding import printable

    text = printable(" ".join(message.split()))
    if text:
        with suppress(OSError):  # a terminal that has been closed
            print(f"goniometer: {text}", file=sys.stderr)
    raise SystemExit(code) from None
