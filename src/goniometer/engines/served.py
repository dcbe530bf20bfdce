"""A potential whose turned copies are evaluated by drivers of i-PI, on this machine or on others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write
from ipi.engine.forcefields import FFSocket
from ipi.interfaces.sockets import InterfaceSocket
from ipi.utils.messages import verbosity
from jaxtyping import Float64

from goniometer.data import right_handed
from goniometer.engines.driver import PREFIX, Address
from goniometer.engines.ipi import ANGSTROM, ELECTRONVOLT
from goniometer.errors import InputError, ServerError
from goniometer.potentials.base import Potential, Prediction, checked

# Drivers that may wait to be greeted.
_SLOTS = 64
# Seconds after which a driver that does not answer is given up, and its structure goes to another one.
_TIMEOUT = 10.0
# A box for what has none, in bohr; drivers of isolated structures do not look at it.
_BOX = 1e4


class Served(Potential):
    """What drivers say that speak i-PI's protocol, each of a model: ``goniometer driver``, or any other of i-PI's.

    All copies of a structure are offered at once, and go to the drivers as these become free. A driver that is killed
    loses nothing: its copy goes to another one. Drivers of this program turn nothing themselves here, and have the
    structure's atoms in its order.

    Parameters
    ----------
    address
        Where to listen.
    alive
        Is asked from time to time whether a driver may still come; raises what there is to say if none will.

    A context manager: within it the address is listened at.
    """

    virial = "symmetric"

    def __init__(self, address: Address, alive: Callable[[], None] = lambda: None) -> None:
        self.address, self.alive = address, alive
        self.name = f"drivers at {address}"
        self._field: FFSocket | None = None

    def __enter__(self) -> Served:
        target = self.address.target
        where: dict[str, Any] = {"mode": "inet"}
        if isinstance(target, str):
            if not target.startswith(PREFIX):
                raise InputError(
                    f"i-PI's unix sockets are files {PREFIX}NAME: give a NAME without a slash, not {target}"
                )
            where = {"mode": "unix", "address": target.removeprefix(PREFIX)}
        else:
            where |= {"address": target[0], "port": target[1]}
        verbosity.level = "quiet"
        # Without consolidated messages a driver may be killed at any moment.
        interface = InterfaceSocket(**where, slots=_SLOTS, timeout=_TIMEOUT, consolidate_messages=False)
        self._field = FFSocket(name="goniometer", dopbc=False, interface=interface)
        try:
            self._field.start()
        except (OSError, RuntimeError, ValueError) as error:
            raise ServerError(f"nobody can listen at {self.address}: {' '.join(str(error).split())}") from error
        return self

    def __exit__(self, *_: object) -> None:
        assert self._field is not None
        self._field.stop()
        self._field = None

    def turned(self, structure: Atoms, matrices: Float64[np.ndarray, "K 3 3"]) -> Iterator[Prediction]:
        """See :meth:`Potential.turned`."""
        repeated = np.broadcast_to(structure.positions, (len(matrices), *structure.positions.shape))
        return self.turned_each(structure, repeated, matrices)

    def turned_each(
        self, structure: Atoms, positions: Float64[np.ndarray, "K N 3"], matrices: Float64[np.ndarray, "K 3 3"]
    ) -> Iterator[Prediction]:
        """See :meth:`Potential.turned_each`."""
        if self._field is None:
            raise ServerError(f"nobody listens at {self.address}: use the potential within 'with'")
        cell = structure.cell.array if structure.pbc.any() else np.eye(3) * (_BOX / ANGSTROM)
        requests = []
        for index, (each, matrix) in enumerate(zip(positions, matrices, strict=True)):
            turn = matrix if structure.pbc.any() else np.eye(3)
            h = right_handed(cell @ turn.T).T * ANGSTROM
            atoms = SimpleNamespace(q=np.ravel(each @ matrix.T) * ANGSTROM)
            requests.append(self._field.queue(atoms, SimpleNamespace(h=h, ih=np.linalg.inv(h)), reqid=index))
        try:
            answers = [self._answer(request) for request in requests]
        finally:
            for request in requests:
                self._field.release(request)
        yield checked(Prediction.joined(answers), structure, self.name)

    def _answer(self, request: Any) -> Prediction:
        while not request._event_done.wait(1.0):
            self.alive()
        energy, forces, virial, _ = request["result"]
        virial = -np.asarray(virial).reshape(1, 3, 3) / ELECTRONVOLT
        return Prediction(
            np.array([float(energy)]) / ELECTRONVOLT,
            np.asarray(forces).reshape(1, -1, 3) * (ANGSTROM / ELECTRONVOLT),
            0.5 * (virial + virial.swapaxes(1, 2)),
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

    Raises :class:`ServerError` when all of them have ended.
    """
    address = Address(f"{PREFIX}goniometer-{os.getpid()}-{time.monotonic_ns()}")
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    processes: list[subprocess.Popen[str]] = []

    def alive() -> None:
        if all(each.poll() is not None for each in processes):
            said = [line for line in (processes[-1].stderr or []) if line.strip()]
            reason = said[-1].strip().removeprefix("goniometer: ") if said else "they said nothing"
            raise ServerError(f"all drivers have ended: {reason}")

    with TemporaryDirectory() as folder, Served(address, alive) as served:
        path = Path(folder) / "structure.xyz"
        write(path, structure, format="extxyz")
        program = [sys.executable, "-m", "goniometer.cli", "driver"]
        command = [*program, model, str(path), "--unix", str(address), *options]
        try:
            for _ in range(count):
                processes.append(
                    subprocess.Popen(
                        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
                    )
                )
            yield served
        finally:
            for each in processes:
                each.terminate()
            for each in processes:
                each.wait()
                if each.stderr is not None:
                    each.stderr.close()
