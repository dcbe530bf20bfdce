"""Dynamics of one molecule by i-PI with its own metatomic driver in process, raw or averaged by ``ffrotations``."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

DIRECT = """<ffdirect name="{name}"><pes>metatomic</pes>
<parameters>{{model: {model}, template: {template}}}</parameters>{batch}</ffdirect>"""
ROTATIONS = """<ffrotations name="forces"><grid_order>{order}</grid_order><grid_mode>legendre</grid_mode>
<inversion>True</inversion>{direct}</ffrotations>"""
SIMULATION = """<simulation mode="md" verbosity="quiet" threading="False">
<total_steps>1000000</total_steps><prng><seed>1</seed></prng><output prefix="peer"/>
{field}
<system><initialize nbeads="1"><file mode="ase">{template}</file>
<velocities mode="thermal" units="kelvin">300</velocities></initialize>
<forces><force forcefield="forces"/></forces><ensemble><temperature units="kelvin">300</temperature></ensemble>
<motion mode="dynamics"><dynamics mode="nve"><timestep units="femtosecond">0.5</timestep></dynamics></motion></system>
</simulation>"""
# i-PI's metatomic driver takes every structure for periodic.
_VACUUM = 40.0


def seconds_per_step(
    structure: Atoms, model: str | Path, steps: int, order: int | None = None, batch: int = 1
) -> float:
    """The mean time of a step of NVE; with an order, averaged over its Legendre grid."""
    from ipi.engine.simulation import Simulation

    atoms = structure.copy()
    if not atoms.pbc.any():
        atoms.set_cell(_VACUUM * np.eye(3))
        atoms.pbc = True
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        template = Path(folder) / "start.xyz"
        write(template, atoms)
        name = "forces" if order is None else "model"
        size = f"<batch_size>{batch}</batch_size>" if batch > 1 else ""
        field = DIRECT.format(name=name, model=model, template=template, batch=size)
        if order is not None:
            field = ROTATIONS.format(order=order, direct=field)
        simulation = Simulation.load_from_xml(SIMULATION.format(field=field, template=template), read_only=True)
        for each in simulation.fflist.values():
            each.start()
        try:
            for step in range(10):
                simulation.run_step(step)
            start = time.perf_counter()
            for step in range(10, 10 + steps):
                simulation.run_step(step)
            return (time.perf_counter() - start) / steps
        finally:
            for each in simulation.fflist.values():
                each.stop()
