"""i-PI's integrators and thermostats, one call a step, with a state that goes on to the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from ipi.engine.simulation import Simulation
from ipi.inputs.simulation import InputSimulation
from ipi.utils.units import unit_to_internal
from jaxtyping import Float64

from goniometer.dynamics.constraints import fixed_atoms
from goniometer.dynamics.description import Run, Thermostat
from goniometer.dynamics.forces import Forces
from goniometer.dynamics.langevin import drift_matrix
from goniometer.errors import InputError
from goniometer.interfaces.ipi import ANGSTROM, ELECTRONVOLT, PotentialPES

FEMTOSECOND: float = unit_to_internal("time", "femtosecond", 1.0)  # atomic units
KELVIN: float = unit_to_internal("temperature", "kelvin", 1.0)
DALTON: float = unit_to_internal("mass", "dalton", 1.0)

# Names of the forces in the input: the model within, and what averages it.
_INNER, _OUTER = "inner", "outer"


class Engine:
    """A simulation by i-PI without its input and output: one call a step.

    i-PI integrates, draws its random numbers, and keeps account of the conserved quantity; forces are those of
    :class:`goniometer.dynamics.forces.Forces`. Its own output has 9 digits and its restart files are overwritten in
    place, so that neither is used: :meth:`state` holds all digits.

    Parameters
    ----------
    run
        The description.
    structure
        All atoms, those of all replicas in a row.
    forces
        What moves them.
    velocities : (N, 3)
        At the start, in Å/fs.
    state
        Go on from this state instead of beginning.

    Raises :class:`InputError` if i-PI does not take the structure.
    """

    def __init__(
        self,
        run: Run,
        structure: Atoms,
        forces: Forces,
        velocities: Float64[np.ndarray, "N 3"],
        state: dict[str, Any] | None = None,
    ) -> None:
        self.run, self.forces = run, forces
        self.step = 0 if state is None else int(state["step"])
        text = _input(run, structure, velocities, len(forces.potentials)) if state is None else state["ipi"]
        #: The input in i-PI's own language.
        self.input = text
        faces = {
            name: PotentialPES(each, structure) for name, each in zip((_INNER, _OUTER), forces.potentials, strict=False)
        }

        def attach(simulation: Any) -> None:
            for field in simulation.fflist.values():
                field.driver = faces[field.name]

        if state is not None:
            forces.restore(state["forces"])
        self._simulation = Simulation.load_from_xml(text, post_init_hook=attach, read_only=True)
        (self._system,) = self._simulation.syslist
        if state is not None:
            # On loading i-PI takes the motion of the centre of mass out once more, which changes the last bits.
            self._system.beads.p[0] = np.array(state["momenta"])
            self._system.ensemble.eens = state["exchanged"]

    def advance(self) -> None:
        """One step of the integrator."""
        self._simulation.step = self.step
        self._simulation.run_step(self.step)
        self.step += 1

    @property
    def time(self) -> float:
        """In fs."""
        return self.step * self.run.step

    @property
    def positions(self) -> Float64[np.ndarray, "N 3"]:
        """In Å; not wrapped into the cell."""
        return np.asarray(self._system.beads.q[0]).reshape(-1, 3) / ANGSTROM

    @property
    def velocities(self) -> Float64[np.ndarray, "N 3"]:
        """In Å/fs."""
        momenta, masses = np.asarray(self._system.beads.p[0]), np.asarray(self._system.beads.m3[0])
        return (momenta / masses).reshape(-1, 3) * (FEMTOSECOND / ANGSTROM)

    @property
    def potential_energies(self) -> list[float]:
        """In eV, of the forces in the order of :attr:`Forces.potentials`, all replicas together."""
        return [float(each.pot) / ELECTRONVOLT for each in self._system.forces.mforces]

    @property
    def conserved(self) -> float:
        """In eV: the energy and what the thermostat has taken, less the work of tumbling frames if that is known."""
        return float(self._system.ensemble.econs) / ELECTRONVOLT - (self.forces.work or 0.0)

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, as plain values."""
        stored = InputSimulation()
        stored.store(self._simulation)
        return {
            "step": self.step,
            "ipi": stored.write(name="simulation"),
            "momenta": np.asarray(self._system.beads.p[0]).tolist(),
            "exchanged": float(self._system.ensemble.eens),
            "forces": self.forces.state,
        }


def _input(run: Run, structure: Atoms, velocities: np.ndarray, fields: int) -> str:
    """The simulation as i-PI reads it."""
    masses = structure.get_masses() * DALTON
    momenta = masses[:, None] * velocities * (ANGSTROM / FEMTOSECOND)
    shape = 3 * len(structure)
    names = ", ".join(structure.get_chemical_symbols())
    # Of the levels of multiple time stepping the first is the outer one.
    weights = {1: ["[1]"], 2: ["[-1, 1]", "[1, 0]"]}[fields]
    components = "".join(
        f"<force forcefield='{name}'><mts_weights>{weight}</mts_weights></force>"
        for name, weight in zip((_INNER, _OUTER), weights, strict=False)
    )
    levels = f"<nmts>[1, {run.strategy.ratio}]</nmts>" if fields == 2 else ""
    fixed = fixed_atoms(structure, "the structure")
    held = f"<fixatoms>[{', '.join(map(str, fixed.tolist()))}]</fixatoms>" if len(fixed) else ""
    return (
        "<simulation mode='md' threading='False' verbosity='quiet' floatformat='%24.16e'>"
        f"<total_steps>1000000000</total_steps><prng><seed>{run.seed}</seed></prng><output prefix='ipi'/>"
        + "".join(f"<ffdirect name='{name}'><pes>dummy</pes></ffdirect>" for name in (_INNER, _OUTER)[:fields])
        + f"<system><beads natoms='{len(structure)}' nbeads='1'>"
        f"<q shape='(1,{shape})'>{_digits(structure.positions * ANGSTROM)}</q>"
        f"<p shape='(1,{shape})'>{_digits(momenta)}</p>"
        f"<m shape='({len(structure)})'>{_digits(masses)}</m>"
        f"<names shape='({len(structure)})'>[{names}]</names></beads>"
        f"<cell shape='(3,3)'>{_digits(_cell(structure).T * ANGSTROM)}</cell><forces>{components}</forces>"
        f"<ensemble><temperature units='kelvin'>{run.temperature!r}</temperature></ensemble>"
        f"<motion mode='dynamics'><fixcom>{bool(structure.pbc.any()) and not len(fixed)}</fixcom>{held}"
        f"<dynamics mode='{run.ensemble}'><timestep units='femtosecond'>{run.step!r}</timestep>{levels}"
        f"{_thermostat(run.thermostat, run.temperature)}</dynamics></motion></system></simulation>"
    )


def _thermostat(settings: Thermostat | None, temperature: float) -> str:
    if settings is None:
        return ""
    if settings.kind == "gle":
        matrix = drift_matrix(*settings.wavenumbers) / FEMTOSECOND
        return f"<thermostat mode='gle'><A shape='{matrix.shape}'>{_digits(matrix)}</A></thermostat>"
    return f"<thermostat mode='{settings.kind}'><tau units='femtosecond'>{settings.time!r}</tau></thermostat>"


def _cell(structure: Atoms) -> np.ndarray:
    """Rows; where there is none, a box that nothing reaches."""
    if not structure.pbc.any():
        return 1e4 * np.eye(3)
    cell = structure.cell.array
    if np.abs(np.triu(cell, 1)).max() > 1e-12 * np.abs(cell).max():
        raise InputError(
            "i-PI needs a cell whose first vector lies along x and whose second one lies in the xy plane: turn the "
            "structure so (ase.cell.Cell.standard_form)"
        )
    return np.asarray(np.tril(cell))


def _digits(values: np.ndarray) -> str:
    return "[" + ", ".join(f"{value:.17g}" for value in np.ravel(values)) + "]"


def initial_velocities(
    structure: Atoms, temperature: float, groups: Sequence[slice], generator: np.random.Generator
) -> Float64[np.ndarray, "N 3"]:
    """Velocities of the Maxwell-Boltzmann distribution in Å/fs, (N, 3): each group of atoms is at rest as a whole.

    Fixed atoms have none; a group that holds some is not brought to rest as a whole, since its centre of mass is free.
    """
    masses = structure.get_masses()
    # kT in Å² u / fs².
    scale = units.kB * temperature * units.fs**2
    velocities = generator.standard_normal((len(structure), 3)) * np.sqrt(scale / masses)[:, None]
    fixed = np.zeros(len(structure), dtype=bool)
    fixed[fixed_atoms(structure, "the structure")] = True
    velocities[fixed] = 0.0
    for group in groups:
        if fixed[group].any():
            continue
        velocities[group] -= masses[group] @ velocities[group] / masses[group].sum()
    return velocities
