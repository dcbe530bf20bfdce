"""The server's side of i-PI's protocol: listens for drivers, and hands structures to those that behave.

Every connection has a thread of its own, so that one which says nothing, or something else, keeps nobody waiting: it is
dropped, with one line, and its structure goes to another driver. i-PI's own server (``ipi.interfaces.sockets``) looks
after all connections in one thread, which waits up to a minute for each and ends with the first that breaks the
protocol.
"""

from __future__ import annotations

import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from goniometer.errors import ServerError
from goniometer.interfaces.driver import Address, message, received

#: Seconds for a driver to answer whatever takes no computation.
ANSWER = 20.0
#: Seconds for a driver to initialize, and for the first evaluation of a run, which may compile the model.
FIRST = 600.0
# An evaluation that takes so many times as long as the longest one so far, and no less than so many seconds, is given
# to a driver that is idle as well, and whichever is finished first counts; or is given up.
_SHARED, _SHARED_SECONDS = 3.0, 5.0
_GIVEN_UP, _GIVEN_UP_SECONDS = 20.0, 60.0
# Connections at a time; text that a driver may send beside its forces, in bytes.
_MOST_CONNECTIONS, _MOST_TEXT = 256, 10**7
# Seconds between two looks at whether an idle driver is still there.
_LOOK = 0.5


class Request:
    """A structure that is to be evaluated.

    Parameters
    ----------
    cell, inverse : (3, 3)
        h in bohr, and its inverse.
    positions : (N, 3)
        In bohr.

    Attributes
    ----------
    done
        Is set when there is an answer.
    answer
        Energy (hartree), forces (N, 3; hartree/bohr) and virial (3, 3; hartree).
    """

    def __init__(self, cell: np.ndarray, inverse: np.ndarray, positions: np.ndarray) -> None:
        self.atoms = len(positions)
        parts = (cell, inverse, np.int32(self.atoms), np.ascontiguousarray(positions, dtype=np.float64))
        self.posdata = message("POSDATA") + b"".join(np.asarray(each).tobytes() for each in parts)
        self.done = threading.Event()
        self.answer: tuple[float, np.ndarray, np.ndarray] | None = None
        self.workers = 0
        self.began = 0.0


class Server:
    """Listens at an address, and evaluates requests by the drivers that connect.

    Parameters
    ----------
    address
        Where to listen.
    say
        Is told a line whenever a connection is dropped; by default it is printed on the error stream.

    Attributes
    ----------
    drivers
        How many are connected that have answered.
    dropped
        Why the last connection was dropped; empty if none was.
    longest
        Seconds that the longest evaluation so far took; 0 before the first.
    """

    def __init__(self, address: Address, say: Callable[[str], None] | None = None) -> None:
        self.address, self._say = address, say or _print
        self.drivers, self.dropped, self.longest = 0, "", 0.0
        self._requests: list[Request] = []
        self._changed = threading.Condition()
        self._closed = False
        self._listening: socket.socket | None = None
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    @property
    def listening(self) -> bool:
        """Whether it has been opened, and not closed."""
        return self._listening is not None and not self._closed

    def open(self) -> None:
        """Listen. Raises :class:`ServerError` if that cannot be done."""
        target = self.address.target
        try:
            if isinstance(target, str):
                self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._listening.bind(target)
                self._listening.listen(128)
            else:
                family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
                self._listening = socket.create_server(target, family=family, backlog=128)
        except (OSError, OverflowError, UnicodeError) as error:
            if self._listening is not None:
                self._listening.close()
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise ServerError(f"nobody can listen at {self.address}: {reason}") from error
        self._start(self._accept)

    def close(self) -> None:
        """Tell the drivers to leave, and listen no more."""
        with self._changed:
            self._closed = True
            self._requests.clear()
            self._changed.notify_all()
        if self._listening is not None:
            with suppress(OSError):  # wakes the thread that accepts
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            if isinstance(self.address.target, str):
                Path(self.address.target).unlink(missing_ok=True)
        deadline = time.monotonic() + 2.0 * _LOOK
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for connection in list(self._connections):  # those that are at work, or say nothing
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def submit(self, requests: list[Request]) -> None:
        """Offer structures to the drivers."""
        with self._changed:
            self._requests += requests
            self._changed.notify_all()

    def withdraw(self, requests: list[Request]) -> None:
        """Offer them no longer."""
        with self._changed:
            self._requests = [each for each in self._requests if each not in requests]

    def _start(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True, name="drivers")
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()

    def _accept(self) -> None:
        assert self._listening is not None
        number = 0
        while not self._closed:
            try:
                connection, peer = self._listening.accept()
            except OSError:
                if self._closed:
                    return
                time.sleep(_LOOK)  # out of file descriptors, for instance
                continue
            number += 1
            name = f"connection {number} at {self.address}" + (f" from {peer[0]}" if isinstance(peer, tuple) else "")
            if len(self._connections) >= _MOST_CONNECTIONS:
                self._drop(name, f"there are {_MOST_CONNECTIONS} already")
                connection.close()
                continue
            self._connections.add(connection)
            self._start(self._attend, connection, name)

    def _drop(self, name: str, reason: str) -> None:
        self.dropped = f"{name} is dropped: {reason}"
        self._say(self.dropped)

    def _attend(self, connection: socket.socket, name: str) -> None:
        """Serve one connection to its end."""
        greeted = False
        try:
            if connection.family != getattr(socket, "AF_UNIX", None):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _initialize(connection)
            with self._changed:
                self.drivers, greeted = self.drivers + 1, True
            while (request := self._next(connection)) is not None:
                self._evaluate(connection, request)
            connection.settimeout(ANSWER)
            connection.sendall(message("EXIT"))
        except _Refused as refused:
            if not self._closed:
                self._drop(name, str(refused))
        except (OSError, EOFError) as error:
            silent = isinstance(error, TimeoutError)
            if not self._closed:
                self._drop(name, "it does not answer" if silent else "it has closed the connection")
        finally:
            with self._changed:
                self.drivers -= greeted
                self._connections.discard(connection)
            connection.close()

    def _next(self, connection: socket.socket) -> Request | None:
        """What this driver is to do next, when there is something; None when the server is closed."""
        while True:
            with self._changed:
                if self._closed:
                    return None
                request = self._chosen()
                if request is not None:
                    request.workers += 1
                    request.began = time.monotonic()
                    return request
                self._changed.wait(_LOOK)
            if select.select([connection], [], [], 0.0)[0]:
                if not connection.recv(1, socket.MSG_PEEK):
                    raise EOFError
                raise _Refused("it speaks without being asked")

    def _chosen(self) -> Request | None:
        """One that nobody is at; or one that takes suspiciously long."""
        late = time.monotonic() - max(_SHARED_SECONDS, _SHARED * self.longest)
        for request in self._requests:
            if not request.workers and not request.done.is_set():
                return request
        for request in self._requests:
            if request.workers == 1 and request.began < late and not request.done.is_set():
                return request
        return None

    def _evaluate(self, connection: socket.socket, request: Request) -> None:
        try:
            _initialize(connection)
            connection.settimeout(ANSWER)
            connection.sendall(request.posdata)
            began = time.monotonic()
            limit = max(_GIVEN_UP_SECONDS, _GIVEN_UP * self.longest) if self.longest else FIRST
            _asked(connection, "STATUS", limit, "HAVEDATA")
            _asked(connection, "GETFORCE", ANSWER, "FORCEREADY")
            answer = _forces(connection, request.atoms)
        except BaseException:
            with self._changed:
                request.workers -= 1
                self._changed.notify_all()
            raise
        with self._changed:
            self.longest = max(self.longest, time.monotonic() - began)
            if not request.done.is_set():
                request.answer = answer
                request.done.set()
            self._requests = [each for each in self._requests if each is not request]


class _Refused(Exception):  # noqa: N818 - it is no error of the program
    """What a driver said is not of the protocol; the message says what."""


def _print(line: str) -> None:
    with suppress(OSError, ValueError):
        print(f"goniometer: {line}", file=sys.stderr, flush=True)


def _asked(connection: socket.socket, word: str, seconds: float, *answers: str) -> str:
    """The answer to a word, one of those that it may have."""
    connection.settimeout(ANSWER)
    connection.sendall(message(word))
    said = received(connection, len(message(word)), time.monotonic() + seconds).decode("latin-1").rstrip()
    if said not in answers:
        raise _Refused(f"it says {said!r}, where i-PI's protocol has {' or '.join(answers)}")
    return said


def _initialize(connection: socket.socket) -> None:
    """Return when a driver is ready for a structure."""
    if _asked(connection, "STATUS", ANSWER, "READY", "NEEDINIT") == "NEEDINIT":
        connection.sendall(message("INIT") + np.array([0, 1], np.int32).tobytes() + b" ")
        _asked(connection, "STATUS", FIRST, "READY")


def _forces(connection: socket.socket, atoms: int) -> tuple[float, np.ndarray, np.ndarray]:
    """What follows FORCEREADY; nothing is allocated for more atoms than there are."""
    deadline = time.monotonic() + ANSWER
    energy = float(np.frombuffer(received(connection, 8, deadline), np.float64)[0])
    count = int(np.frombuffer(received(connection, 4, deadline), np.int32)[0])
    if count != atoms:
        raise _Refused(f"it sends forces on {count} atoms of a structure of {atoms}")
    forces = np.frombuffer(received(connection, 24 * atoms, deadline), np.float64).reshape(atoms, 3)
    virial = np.frombuffer(received(connection, 72, deadline), np.float64).reshape(3, 3)
    size = int(np.frombuffer(received(connection, 4, deadline), np.int32)[0])
    if not 0 <= size <= _MOST_TEXT:
        raise _Refused(f"it announces a text of {size} bytes")
    received(connection, size, deadline)
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise _Refused("it sends an energy or forces that are not finite (NaN or infinity)")
    return energy, forces, virial
