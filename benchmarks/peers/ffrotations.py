"""i-PI's ``ffrotations``, timed over whole evaluations of energy and forces with the same model file.

An order L of i-PI's grids is exact to degree L − 1 in mode lebedev, 2L − 2 in mode legendre, as our own proof of rules
finds; inversion doubles the evaluations.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.io import write

FFROTATIONS = """<ffrotations name="peer">
  <grid_order>{order}</grid_order> <grid_mode>{mode}</grid_mode> <inversion>{inversion}</inversion>
  <ffdirect name="model">
    <pes>metatomic</pes>
    <parameters>{{model: {model}, template: {template}}}</parameters>
    <batch_size>{batch}</batch_size>
  </ffdirect>
</ffrotations>"""

# A box for structures that have no cell: i-PI needs one, and its metatomic driver takes it for periodic.
_VACUUM = 40.0


class PeerResult(NamedTuple):
    """Seconds of one evaluation (the shortest of several), forces (N, 3) in eV/Å, and copies evaluated."""

    seconds: float
    forces: np.ndarray
    copies: int


def ffrotations(
    structure: Atoms,
    model_path: str | Path,
    grid_order: int,
    inversion: bool,
    repeat: int,
    *,
    grid_mode: str = "lebedev",
    batch: int = 8,
) -> PeerResult:
    """Time i-PI's average over a grid of rotations, the model evaluated in process by ``ffdirect`` in batches.

    The batch is the largest divisor of the number of copies that is not above ``batch``: i-PI waits for ever for the
    rest of a batch that is not full. What i-PI itself costs (a request a copy, and a thread that looks every 0.1 ms
    whether all is there) is part of the time.
    """
    from ipi.engine.atoms import Atoms as IpiAtoms
    from ipi.engine.cell import GenericCell
    from ipi.utils.units import unit_to_internal, unit_to_user

    copies = _copies(grid_order, grid_mode) * (2 if inversion else 1)
    size = max(number for number in range(1, batch + 1) if copies % number == 0)
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "template.xyz"
        write(template, structure)
        text = FFROTATIONS.format(
            order=grid_order, mode=grid_mode, inversion=inversion, model=model_path, template=template, batch=size
        )
        field = _forcefield(text)
    atoms = IpiAtoms(len(structure))
    atoms.q[:] = unit_to_internal("length", "angstrom", structure.positions).ravel()
    rows = structure.cell.array if structure.pbc.all() else _VACUUM * np.eye(3)
    cell = GenericCell(unit_to_internal("length", "angstrom", rows.T.copy()))
    field.start()
    times = []
    try:
        for _ in range(repeat + 1):  # the first is not counted
            start = time.perf_counter()
            request = field.queue(atoms, cell, reqid=0)
            request._event_done.wait()
            times.append(time.perf_counter() - start)
            forces = request["result"][1]
    finally:
        field.stop()
        field._thread.join()
    return PeerResult(min(times[1:]), unit_to_user("force", "ev/ang", forces).reshape(-1, 3), copies)


def _copies(order: int, mode: str) -> int:
    from ipi.utils.mathtools import get_rotation_quadrature_lebedev, get_rotation_quadrature_legendre

    grids = {"lebedev": get_rotation_quadrature_lebedev, "legendre": get_rotation_quadrature_legendre}
    return len(grids[mode](order))


def _forcefield(text: str) -> Any:
    """What i-PI makes of a part of its input."""
    from ipi.inputs.forcefields import InputFFRotations
    from ipi.utils.io.inputs.io_xml import xml_parse_string

    field = InputFFRotations()
    ((_, node),) = xml_parse_string(text).fields
    # The default seed of its generator, which the grid does not use, is the time; and it tells on standard output.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        field.parse(node)
        return field.fetch()
