"""Served runs: connections that do not speak the protocol are dropped, and one signal ends a run that waits."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from goniometer.dynamics.description import Run
from goniometer.dynamics.run import run
from goniometer.errors import InputError, PotentialError, ServerError
from goniometer.interfaces import remote as served_module
from goniometer.interfaces import server as server_module
from goniometer.interfaces.driver import Address, connected, serve
from goniometer.interfaces.ipi import PotentialPES
from goniometer.interfaces.remote import Served
from goniometer.potentials import Prediction
from springs import Springs

WATER = molecule("H2O")
MODEL = Springs(WATER, field=0.1)
MATRICES = np.stack([np.eye(3), -np.eye(3), np.diag([1.0, -1.0, -1.0])])
#: What follows FORCEREADY: an energy and the number of atoms.
HEADER = struct.pack("<di", 1.0, 3)


def word(text: str) -> bytes:
    return text.ljust(12).encode()


def read(client: socket.socket, size: int) -> bytes:
    found = client.recv(size, socket.MSG_WAITALL)
    if len(found) < size:
        raise EOFError
    return found


def answering(last: bytes) -> Callable[[socket.socket], None]:
    """A driver that follows the protocol up to the forces, and then sends something of its own."""

    def talk(client: socket.socket) -> None:
        state = "READY"
        while True:
            said = read(client, 12)
            if said == word("STATUS"):
                client.sendall(word(state))
            elif said == word("POSDATA"):
                read(client, 144 + 4 + 72)
                state = "HAVEDATA"
            elif said == word("GETFORCE"):
                client.sendall(last)
                client.settimeout(60.0)
                client.recv(1)
                return

    return talk


def closes(client: socket.socket) -> None:
    pass


def says(text: bytes) -> Callable[[socket.socket], None]:
    def talk(client: socket.socket) -> None:
        client.sendall(text)
        client.settimeout(60.0)
        with suppress(OSError):
            while client.recv(4096):
                pass

    return talk


def stalls(client: socket.socket) -> None:
    """Takes a structure, and is heard of no more."""
    read(client, 12)
    client.sendall(word("READY"))
    read(client, 12)
    client.sendall(word("READY"))
    read(client, 12 + 144 + 4 + 72)
    read(client, 12)
    client.recv(1)


NOT_A_NUMBER = word("FORCEREADY") + HEADER + struct.pack("<9d", *[np.nan] * 9) + bytes(72) + struct.pack("<i", 0)
WRONG_COUNT = word("FORCEREADY") + struct.pack("<di", 1.0, 2) + bytes(48 + 72 + 4)
STRAYS: dict[str, Callable[[socket.socket], None]] = {
    "closes at once": closes,
    "asks for a page": says(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "garbage": says(bytes(range(256)) * 100),
    "silent": says(b""),
    "stalls with a structure": stalls,
    "another word": says(word("FORCEREADY")),
    "half a word": says(b"REA"),
    "forces that are not a number": answering(NOT_A_NUMBER),
    "forces of other atoms": answering(WRONG_COUNT),
    "an absurd number of atoms": answering(word("FORCEREADY") + struct.pack("<di", 1.0, 2**31 - 1)),
    "a negative number of atoms": answering(word("FORCEREADY") + struct.pack("<di", 1.0, -1)),
    "an absurd text": answering(word("FORCEREADY") + HEADER + bytes(144) + struct.pack("<i", 2**31 - 1)),
    "half of its forces": answering(word("FORCEREADY") + HEADER + bytes(30)),
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ANSWER": 0.5, "FIRST": 1.0, "_SHARED_SECONDS": 0.3, "_GIVEN_UP_SECONDS": 1.0}.items():
        monkeypatch.setattr(server_module, name, value)
    monkeypatch.setattr(served_module, "_PATIENCE", 0.5)


def somewhere() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return Address(("127.0.0.1", taken.getsockname()[1]))


def started(address: Address, talk: Callable[[socket.socket], None]) -> threading.Thread:
    def connect() -> None:
        with connected(address, 10.0) as client, suppress(OSError, EOFError):
            talk(client)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    return thread


def good(client: socket.socket) -> None:
    with suppress(ServerError):
        serve(PotentialPES(MODEL, WATER), client, Address("test"))


def waited(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def predicted(potential: Served) -> Prediction:
    return Prediction.joined(potential.turned(WATER, MATRICES))


@pytest.mark.parametrize("kind", STRAYS)
def test_a_stray_connection_is_dropped_with_a_line_and_the_good_driver_does_the_work(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    address, expected = somewhere(), Prediction.joined(MODEL.turned(WATER, MATRICES))
    with Served(address) as potential:
        stray = started(address, STRAYS[kind])
        finished: list[Prediction] = []
        work = threading.Thread(target=lambda: finished.append(predicted(potential)), daemon=True)
        work.start()
        time.sleep(0.1)  # the stray one is the first that a structure is offered to
        started(address, good)
        work.join(10.0)
        assert not work.is_alive(), "the run hangs"
        waited(lambda: potential._server.dropped)
        again = predicted(potential)
    for found in (finished[0], again):
        np.testing.assert_allclose(found.energies, expected.energies, atol=1e-9)
        np.testing.assert_allclose(found.forces, expected.forces, atol=1e-9)
    stray.join(10.0)
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "dropped" in each]
    assert line.startswith(f"goniometer: connection 1 at {address} from 127.0.0.1 is dropped: it ")


def test_a_hundred_silent_connections_keep_nobody_waiting() -> None:
    address = somewhere()
    with Served(address) as potential:
        for _ in range(100):
            started(address, STRAYS["silent"])
        started(address, good)
        began = time.monotonic()
        predicted(potential)
        assert time.monotonic() - began < 10.0


def test_an_answer_that_is_wrong_but_finite_is_taken() -> None:
    """The control: what follows the protocol is not dropped."""
    address = somewhere()
    with Served(address) as potential:
        started(address, answering(word("FORCEREADY") + HEADER + bytes(72 + 72 + 4)))
        found = Prediction.joined(potential.turned(WATER, MATRICES[:1]))
    assert (found.forces == 0.0).all()


def test_a_model_without_a_virial_is_served() -> None:
    address = somewhere()
    with Served(address) as potential:
        started(address, good)
        assert predicted(potential).virials is None


DESCRIPTION = Run.model_validate({"potential": {"model": "pet-water"}, "length": 1.0, "checks": {"energy": None}})


@pytest.mark.parametrize(
    ("drivers", "number"),
    [
        ("none", signal.SIGINT),
        ("none", signal.SIGTERM),
        ("none", signal.SIGHUP),
        ("one that stalls", signal.SIGINT),
        ("a good one that leaves", signal.SIGINT),
    ],
)
def test_one_signal_ends_a_run_that_waits(drivers: str, number: int, tmp_path: Path) -> None:
    address = somewhere()
    handler = signal.signal(number, lambda *_: pytest.fail("the signal came through"))
    leaves = threading.Event()

    def leaving(client: socket.socket) -> None:
        with suppress(ServerError, PotentialError):
            serve(PotentialPES(Leaving(), WATER), client, Address("test"))

    class Leaving(Springs):
        """The model, until it has evaluated forces often enough."""

        def __init__(self) -> None:
            super().__init__(WATER)
            self.calls = 0

        def turned(self, structure: object, matrices: np.ndarray) -> Iterator[Prediction]:
            self.calls += 1
            if self.calls > 50:
                leaves.set()
                raise PotentialError("enough")
            yield from super().turned(structure, matrices)  # type: ignore[arg-type]

    if drivers == "one that stalls":
        started(address, stalls)
    elif drivers == "a good one that leaves":
        started(address, leaving)

    def end() -> None:
        if drivers == "a good one that leaves":
            leaves.wait(20.0)
        time.sleep(0.7)
        os.kill(os.getpid(), number)

    threading.Thread(target=end, daemon=True).start()
    try:
        found = run(DESCRIPTION, tmp_path, address=f"127.0.0.1:{address.target[1]}", checkpoint=0.0)
    finally:
        signal.signal(number, handler)
    assert not found.finished
    assert (found.steps > 10) == (drivers == "a good one that leaves")


def test_the_command_ends_by_one_signal_with_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "gas.yaml").write_text("length: 1.0\n", encoding="utf-8")
    address = somewhere()
    command = [sys.executable, "-m", "goniometer.cli", "run", str(tmp_path / "gas.yaml"), "-o", str(tmp_path / "runs")]
    process = subprocess.Popen([*command, "--address", str(address)], stderr=subprocess.PIPE, text=True)
    with connected(address, 60.0):
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert error.splitlines()[-1].startswith("goniometer: stopped")
    assert "Traceback" not in error


def test_an_absurd_number_of_drivers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="100000 drivers are more than this machine can run: at most 8 for each"):
        run(DESCRIPTION, tmp_path, drivers=100000)


def test_an_address_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address(("127.0.0.1", taken.getsockname()[1]))
        with pytest.raises(ServerError, match="nobody can listen at 127"), Served(address):
            pass
