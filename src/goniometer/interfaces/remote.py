"""A potential whose rotated copies are evaluated by drivers of i-PI, on this machine or on others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ase import Atoms
from ase.io import write
from jaxtyping import Float64

from goniometer.errors import InputError, ServerError
from goniometer.interfaces.driver import PREFIX, Address
from goniometer.interfaces.ipi import ANGSTROM, ELECTRONVOLT
from goniometer.interfaces.server import Request, Server
from goniometer.interruption import StepAbandoned, interruption_requested
from goniometer.potentials.base import Potential, Prediction, checked
from goniometer.structures import right_handed

# Seconds between two looks at whether there is an answer, a driver, a signal.
_LOOK = 0.2
# Seconds that drivers have to complete a step after a signal has asked the program to end.
_PATIENCE = 5.0
# Drivers on this machine, for each of its processors.
_MOST_EACH = 8
# A box for what has none, in bohr; drivers of isolated structures do not look at it.
_BOX = 1e4


class Served(Potential):
    """A model that is evaluated by drivers which speak i-PI's protocol: ``goniometer driver``, or any other of i-PI's.

    All copies of a structure are offered at once, and go to the drivers as these become free. The copy of a driver that
    is killed, stalls, breaks the protocol or sends forces that make no sense goes to another one; see
    :class:`goniometer.interfaces.server.Server`. Drivers of this program are not asked to rotate
    anything themselves here, and have the structure's atoms in its order.

    Parameters
    ----------
    address
        Where to listen.
    alive
        Is called from time to time; raises an error if no driver will come any more.

    Evaluations raise :class:`goniometer.interruption.StepAbandoned` if a signal asks the program to end and no
    driver answers.

    A context manager: within it the address is listened at.
    """

    virial = "symmetric"

    def __init__(self, address: Address, alive: Callable[[], None] = lambda: None) -> None:
        self.address, self.alive = address, alive
        self.name = f"drivers at {address}"
        self._server = Server(address)

    def __enter__(self) -> Served:
        self._server.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def wait_for_driver(self) -> None:
        """Return when a driver is connected, or a signal asks the program to end."""
        while not self._server.drivers and not interruption_requested():
            self.alive()
            time.sleep(_LOOK)

    def turned(self, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> Iterator[Prediction]:
        """See :meth:`Potential.turned`."""
        repeated = np.broadcast_to(structure.positions, (len(matrices), *structure.positions.shape))
        return self.turned_each(structure, repeated, matrices)

    def turned_each(
        self, structure: Atoms, positions: Float64[np.ndarray, "K N 3"], matrices: Float64[np.ndarray, "K 3 3"]
    ) -> Iterator[Prediction]:
        """See :meth:`Potential.turned_each`."""
        if not self._server.listening:
            raise ServerError(f"nobody listens at {self.address}: use the potential within 'with'")
        cell = structure.cell.array if structure.pbc.any() else np.eye(3) * (_BOX / ANGSTROM)
        requests = []
        for each, matrix in zip(positions, matrices, strict=True):
            turn = matrix if structure.pbc.any() else np.eye(3)
            h = right_handed(cell @ turn.T).T * ANGSTROM
            requests.append(Request(h, np.linalg.inv(h), each @ matrix.T * ANGSTROM))
        self._server.submit(requests)
        try:
            answers = [self._answer(request) for request in requests]
        finally:
            self._server.withdraw(requests)
        yield checked(Prediction.joined(answers), structure, self.name)

    def _answer(self, request: Request) -> Prediction:
        asked = None
        while not request.done.wait(_LOOK):
            self.alive()
            if interruption_requested():
                asked = asked or time.monotonic()
                patience = max(_PATIENCE, 2.0 * self._server.longest)
                if not self._server.drivers or time.monotonic() - asked > patience:
                    raise StepAbandoned
        assert request.answer is not None
        energy, forces, virial = request.answer
        virial = -virial.reshape(1, 3, 3) / ELECTRONVOLT
        return Prediction(
            np.array([energy]) / ELECTRONVOLT,
            forces.reshape(1, -1, 3) * (ANGSTROM / ELECTRONVOLT),
            0.5 * (virial + virial.swapaxes(1, 2)) if np.isfinite(virial).all() else None,
        )


def _check_count(count: int) -> None:
    processors = os.cpu_count() or 1
    if count > _MOST_EACH * processors:
        raise InputError(
            f"{count} drivers are more than this machine can run: at most {_MOST_EACH} for each of its {processors} "
            "processors"
        )


@contextmanager
def drivers(count: int, model: str, structure: Atoms, options: Sequence[str] = ()) -> Iterator[Served]:
    """So many drivers of a model on this machine, each a process of its own with its share of the processors.

    Parameters
    ----------
    count
        Of processes.
    model, options
        Arguments of ``goniometer driver``.
    structure
        What they evaluate.

    Raises :class:`ServerError` when all of them have ended, and :class:`InputError` for more than this machine can run.
    """
    _check_count(count)
    address = Address(f"{PREFIX}goniometer-{os.getpid()}-{time.monotonic_ns()}")
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    processes: list[subprocess.Popen[bytes]] = []

    with TemporaryDirectory() as folder:
        log = Path(folder) / "errors"

        def alive() -> None:
            if all(each.poll() is not None for each in processes):
                lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
                reason = lines[-1].strip().removeprefix("goniometer: ") if lines else "without an error message"
                raise ServerError(f"all drivers have ended: {reason}")

        path = Path(folder) / "structure.xyz"
        write(path, structure, format="extxyz")
        program = [sys.executable, "-m", "goniometer.cli", "driver"]
        command = [*program, model, str(path), "--unix", str(address), *options]
        with Served(address, alive) as served, log.open("ab") as errors:
            try:
                for _ in range(count):
                    # In a session of their own: Ctrl-C is for this process, which needs them to complete its step.
                    processes.append(
                        subprocess.Popen(
                            command, env=environment, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
                        )
                    )
                yield served
            finally:
                for each in processes:
                    each.terminate()
                for each in processes:
                    each.wait()
