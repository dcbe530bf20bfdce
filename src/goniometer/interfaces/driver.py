"""A driver of i-PI: connects to its socket and answers with energies, forces and virials until it is told to leave.

The server speaks in words of twelve characters: STATUS is answered by NEEDINIT, READY or HAVEDATA; INIT carries a text;
POSDATA carries a cell, its inverse and positions; GETFORCE is answered by FORCEREADY and the results; EXIT ends it.
Numbers are little-endian float64 and int32, in i-PI's units.
"""

from __future__ import annotations

import inspect
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from ipi.interfaces.sockets import InterfaceSocket

from goniometer.errors import InputError, ServerError
from goniometer.interfaces.ipi import Answer, PotentialPES

#: i-PI's own prefix of the paths of its unix sockets: ``ipi_`` in the system's folder of temporary files.
PREFIX: str = inspect.signature(InterfaceSocket).parameters["sockets_prefix"].default

_WORD = 12
_RETRY_SECONDS = 0.1
_INET_SECONDS = 5.0
_MOST_ATOMS = 10**8


@dataclass(frozen=True)
class Address:
    """Where a server listens: a unix path, or a host and a port."""

    target: str | tuple[str, int]

    def __str__(self) -> str:
        return self.target if isinstance(self.target, str) else f"{self.target[0]}:{self.target[1]}"


def unix_address(name: str) -> Address:
    """What i-PI calls the address of a unix socket, ``PREFIX`` put before it; or a path, if there is a slash in it."""
    if not name:
        raise InputError("the name of a unix socket is empty; it must be the <address> of i-PI's input")
    return Address(name if "/" in name else PREFIX + name)


def inet_address(text: str) -> Address:
    """``HOST:PORT``, or ``PORT`` on this machine."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"the address '{text}' is not of the form HOST:PORT, with a port from 1 to 65535")
    return Address((host.strip("[]") or "localhost", int(port)))


def one_address(unix: str | None, address: str | None) -> Address:
    """The one of both that is given: see :func:`unix_address` and :func:`inet_address`."""
    if unix is not None and address is not None:
        raise InputError("a driver has one address, and two are given: leave out --unix or --address")
    if unix is None and address is None:
        raise InputError("a driver needs an address: --unix NAME, or --address HOST:PORT")
    return unix_address(unix) if unix is not None else inet_address(str(address))


def socket_forcefield(address: Address, *, name: str = "goniometer") -> str:
    """The line of i-PI's input that listens at an address for drivers, any of which may be killed at any moment.

    With the consolidated messages that are i-PI's default, one that is killed before it has read them ends the thread
    of i-PI that polls, and the run hangs.

    Raises :class:`InputError` for a unix path, which i-PI's input cannot hold: it puts ``PREFIX`` before each name.
    """
    target = address.target
    if isinstance(target, str):
        if not target.startswith(PREFIX):
            raise InputError(f"i-PI's unix sockets are files {PREFIX}NAME: give a NAME without a slash, not {target}")
        where = f'mode="unix"><address>{escape(target.removeprefix(PREFIX))}</address>'
    else:
        where = f'mode="inet"><address>{escape(target[0])}</address><port>{target[1]}</port>'
    return f"<ffsocket name={quoteattr(name)} {where}<consolidate_messages>False</consolidate_messages></ffsocket>"


@contextmanager
def connected(address: Address, wait: float = 0.0) -> Iterator[socket.socket]:
    """A connection to a server, tried for so many seconds. Raises :class:`ServerError` if there is none."""
    deadline = time.monotonic() + wait
    while True:
        try:
            server = _connection(address.target)
            break
        except OSError as error:
            if time.monotonic() >= deadline:
                raise ServerError(_reason(address, error)) from error
        time.sleep(_RETRY_SECONDS)
    with server:
        yield server


def _connection(target: str | tuple[str, int]) -> socket.socket:
    if not isinstance(target, str):
        server = socket.create_connection(target, timeout=_INET_SECONDS)
        server.settimeout(None)
        # The messages are short, and each is waited for.
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A queue that is full would block, without an end and without a word.
        server.setblocking(False)
        server.connect(target)
        server.setblocking(True)
    except BaseException:
        server.close()
        raise
    return server


def _reason(address: Address, error: OSError) -> str:
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return f"nobody listens at {address}: start i-PI first, with this address in its <ffsocket>"
    if isinstance(error, BlockingIOError):
        return f"{address} is full: as many drivers wait there as the <slots> of i-PI allow; try again later"
    if isinstance(error, TimeoutError):
        return f"{address} does not answer, or is full"
    return f"cannot connect to {address}: {error.strerror or error}"


def serve(pes: PotentialPES, server: socket.socket, address: Address) -> int:
    """Answer the server until it says EXIT; returns how many structures were evaluated.

    Raises :class:`ServerError` if the server goes away without a word or says what is not understood, and what ``pes``
    raises: the connection should then be closed, and the server will give the structure to another driver.
    """
    ready, structure, answer, count = False, None, b"", 0
    try:
        while True:
            word = received(server, _WORD).decode("latin-1").rstrip()
            # Not before the next word is read: i-PI 3.3 sends GETFORCE together with the positions, and a connection
            # that breaks with something unread is reset, which ends i-PI's polling thread and so hangs its run.
            if structure is not None and word in ("STATUS", "GETFORCE"):
                answer = _packed(pes.evaluate(*structure))
                structure, count = None, count + 1
            if word == "STATUS":
                server.sendall(message("HAVEDATA" if answer else "READY" if ready else "NEEDINIT"))
            elif word == "INIT":
                _check_init(server, address)
                ready = True
            elif word == "POSDATA":
                structure = _structure(server, address)
            elif word == "GETFORCE" and answer:
                server.sendall(answer)
                answer = b""
            elif word == "EXIT":
                return count
            else:
                raise ServerError(f"the server at {address} says {word!r}, which is not of i-PI's protocol")
    except (OSError, EOFError) as error:
        raise ServerError(f"the server at {address} is gone, without an EXIT, after {count} structures") from error


def message(word: str) -> bytes:
    """A word as it is sent."""
    return word.ljust(_WORD).encode()


def received(server: socket.socket, size: int, deadline: float | None = None) -> bytes:
    """So many bytes; all of them before a time of the monotonic clock, if there is one.

    Raises :class:`EOFError` if the connection is closed before, and :class:`TimeoutError`.
    """
    parts = bytearray()
    while len(parts) < size:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0.0:
                raise TimeoutError
            server.settimeout(left)
        part = server.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def _integer(server: socket.socket) -> int:
    return int(np.frombuffer(received(server, 4), np.int32)[0])


def _numbers(server: socket.socket, count: int) -> np.ndarray:
    return np.frombuffer(received(server, 8 * count), np.float64)


def _check_init(server: socket.socket, address: Address) -> None:
    _integer(server)  # the number of the replica
    text = received(server, _integer(server)).decode("utf-8", "replace")
    batch = re.search(r"batch_size *: *(\d+)", text)
    if batch and int(batch[1]) > 1:
        raise ServerError(f"the server at {address} sends {batch[1]} structures at a time; set its <batch_size> to 1")


def _structure(server: socket.socket, address: Address) -> tuple[np.ndarray, np.ndarray]:
    """Cell h (3, 3) and positions (N, 3)."""
    cell, inverse = _numbers(server, 9).reshape(3, 3), _numbers(server, 9).reshape(3, 3)
    if np.isfinite(inverse).all() and not np.allclose(cell @ inverse, np.eye(3), atol=1e-6):
        raise ServerError(
            f"the server at {address} sends a cell whose inverse is another's; the modes of its <ffsocket> that are "
            "understood are unix and inet"
        )
    count = _integer(server)
    if not 0 <= count <= _MOST_ATOMS:
        raise ServerError(f"the server at {address} sends {count} atoms")
    return cell, _numbers(server, 3 * count).reshape(count, 3)


def _packed(answer: Answer) -> bytes:
    energy, forces, virial, text = answer
    extra = text.encode()
    return b"".join(
        [
            message("FORCEREADY"),
            np.float64(energy).tobytes(),
            np.int32(len(forces)).tobytes(),
            forces.tobytes(),
            virial.tobytes(),
            np.int32(len(extra)).tobytes(),
            extra,
        ]
    )
