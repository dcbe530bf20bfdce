"""i-PI's faces: units and transposes, in process and over sockets, a driver that dies, and every refusal."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import typer
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.io import write
from ase.md.verlet import VelocityVerlet
from ipi.engine.atoms import Atoms as IpiAtoms
from ipi.engine.cell import GenericCell
from ipi.inputs.forcefields import InputFFRotations, InputFFSocket
from ipi.utils.io.inputs.io_xml import xml_parse_string
from ipi.utils.mathtools import get_rotation_quadrature_lebedev, get_rotation_quadrature_legendre
from ipi.utils.units import Constants

import goniometer
from goniometer.cli import main
from goniometer.cli.app import app
from goniometer.errors import InputError, PotentialError, ServerError
from goniometer.interfaces import ipi_pes
from goniometer.interfaces.driver import (
    PREFIX,
    Address,
    connected,
    inet_address,
    serve,
    socket_forcefield,
    unix_address,
)
from goniometer.interfaces.ipi import ANGSTROM, ELECTRONVOLT, PotentialPES, forcefield, pes, pes_from_input
from goniometer.potentials import Potential, Prediction, load
from goniometer.rotations import Rule
from goniometer.testing import MolecularToy, PairToy, PeriodicToy

TOYS = """
import os
import time
from pathlib import Path
import numpy as np
from goniometer.potentials import Potential, Prediction, load

AXIS = np.array([0.3, -0.5, 0.8])

class Springs(Potential):
    '''Springs between all atoms, and a pull along an axis of the laboratory. It may write which process evaluates.'''

    name, virial = "springs", "full"

    def __init__(self, pull=0.3):
        self.pull = pull

    def turned(self, structure, matrices):
        for matrix in matrices:
            if "CALLS" in os.environ:
                with open(os.environ["CALLS"], "a") as log:
                    print(os.getpid(), file=log)
                time.sleep(0.001)
            yield self.evaluated(structure.positions @ matrix.T)

    def evaluated(self, positions):
        first, second = np.triu_indices(len(positions), 1)
        d = positions[second] - positions[first]
        r = np.linalg.norm(d, axis=1)
        along = d @ AXIS
        energy = (5.0 * (r - 1.3) ** 2 + self.pull * along**2).sum()
        slope = 10.0 * (1.0 - 1.3 / r)[:, None] * d + 2.0 * self.pull * along[:, None] * AXIS
        forces = np.zeros_like(positions)
        np.add.at(forces, first, slope)
        np.add.at(forces, second, -slope)
        return Prediction(np.array([energy]), forces[None], (d.T @ slope)[None])

def springs(pull=0.3):
    if "LOADED" in os.environ:
        with open(os.environ["LOADED"], "a") as log:
            print(os.getpid(), file=log)
        # Who has loaded sooner shall not have done the work before the other is there.
        while not Path(os.environ["SERVER"]).exists():
            time.sleep(0.002)
        time.sleep(0.5)  # between being bound, when its file is there, and listening
    return Springs(pull)

def crystal():
    from goniometer.testing import MolecularToy, PairToy, PeriodicToy
    return PeriodicToy(2, 1, 0.1, 4.0, tuple(AXIS))

def chiral():
    from goniometer.testing import MolecularToy
    return MolecularToy(3, -1, 0.1, tuple(AXIS))

def broken():
    raise RuntimeError("no weights")

class Failing(Springs):
    '''Takes no improper copies.'''

    def turned(self, structure, matrices):
        from goniometer.errors import PotentialError
        for matrix in matrices:
            if np.linalg.det(matrix) < 0:
                raise PotentialError("the model failed")
            yield self.evaluated(structure.positions @ matrix.T)

def failing():
    return Failing()
"""
BIN = Path(sys.executable).parent
PAGE = Path(__file__).resolve().parent.parent / "docs" / "ipi.md"
EPS = np.finfo(float).eps
AXIS = (0.3, -0.5, 0.8)


def skewed() -> Atoms:
    """A crystal of eight atoms in a triclinic cell, as i-PI holds it: a along x, b in the plane of x and y."""
    atoms = bulk("NaCl", "rocksalt", 5.4, cubic=True)
    strain = np.array([[0.02, 0.0, 0.0], [0.05, -0.03, 0.0], [-0.04, 0.06, 0.01]])
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    atoms.rattle(0.1, seed=3)
    return atoms


def columns(atoms: Atoms) -> np.ndarray:
    return ANGSTROM * atoms.cell.array.T


def listed(values: np.ndarray) -> str:
    return "[" + ", ".join(f"{value:.17e}" for value in np.ravel(values)) + "]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ipi")
    (made / "toys.py").write_text(TOYS, encoding="utf-8")
    write(made / "ammonia.xyz", molecule("NH3"))
    write(made / "crystal.xyz", skewed())
    return made


def simulation(field: str, system: str, steps: int, outputs: str, timestep: str) -> str:
    """An input of i-PI, NVE with all digits."""
    name = re.search('name="([^"]*)"', field)[1]
    return f"""<simulation verbosity="quiet" floatformat="%24.16e">
      <output prefix="run"><properties filename="out" stride="1">[{outputs}]</properties></output>
      <total_steps>{steps}</total_steps><prng><seed>7</seed></prng>{field}
      <system>{system}<forces><force forcefield="{name}"/></forces>
        <ensemble><temperature units="kelvin">300</temperature></ensemble>
        <motion mode="dynamics"><fixcom>False</fixcom><dynamics mode="nve">{timestep}</dynamics></motion>
      </system></simulation>"""


def started(command: list[str], cwd: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_ipi(cwd: Path, text: str, **environment: str) -> subprocess.Popen[str]:
    (cwd / "input.xml").write_text(text, encoding="utf-8")
    return started([sys.executable, str(BIN / "i-pi"), "input.xml"], cwd, **environment)


def finished(process: subprocess.Popen[str], seconds: float = 60.0) -> str:
    """What a process said; it must have ended well."""
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"still there after {seconds} seconds: {process.communicate()[0]}") from None
    assert process.returncode == 0, said
    return said


def final_state(cwd: Path) -> list[str]:
    """Positions and momenta of all beads, all digits, as the checkpoint at the end has them."""
    text = (cwd / "RESTART").read_text(encoding="utf-8")
    return [re.search(rf"<{tag} [^>]*>(.*?)</{tag}>", text, flags=re.DOTALL)[1] for tag in ("q", "p")]


# Units, signs and transposes


def strained(face: PotentialPES, cell: np.ndarray, positions: np.ndarray, i: int, j: int, step: float) -> float:
    """The energy under x → (1 + ε) x of columns, with one component of ε."""
    strain = np.eye(3)
    strain[i, j] += step
    return face.evaluate(strain @ cell, positions @ strain.T)[0]


def test_virial_is_minus_the_gradient_by_the_strains_that_keep_the_cell_triangular() -> None:
    atoms = skewed()
    toy = PeriodicToy(2, 1, 0.1, 4.0, AXIS)
    face = PotentialPES(toy, atoms)
    cell, positions = columns(atoms), ANGSTROM * atoms.positions
    energy, _, virial, _ = face(cell, positions)
    step = 1e-5
    # The error of central differences: step² times the third derivative, and rounding over the step.
    tolerance = 100.0 * (step**2 + EPS / step) * abs(energy)
    upper = [(i, j) for i in range(3) for j in range(i, 3)]
    measured = np.array(
        [(strained(face, cell, positions, *at, -step) - strained(face, cell, positions, *at, step)) / 2 for at in upper]
    )
    measured /= step
    theirs = np.array([virial[at] for at in upper])
    assert np.abs(measured - theirs).max() < tolerance
    # Controls: the virial of row vectors, and the symmetric part alone.
    for wrong in (virial.T, (virial + virial.T) / 2):
        assert np.abs(measured - [wrong[at] for at in upper]).max() > 100 * tolerance


def test_forces_are_minus_the_gradient_in_their_units() -> None:
    atoms = skewed()
    face = PotentialPES(PeriodicToy(2, 1, 0.1, 4.0, AXIS), atoms)
    cell, positions = columns(atoms), ANGSTROM * atoms.positions
    energy, forces, _, _ = face(cell, positions)
    assert forces.dtype == np.float64
    step = 1e-4
    moved = np.zeros_like(positions)
    moved[2, 1] = step
    slope = (face(cell, positions - moved)[0] - face(cell, positions + moved)[0]) / (2 * step)
    assert abs(slope - forces[2, 1]) < 100.0 * (step**2 + EPS / step) * abs(energy)


def test_numbers_are_those_of_the_potential_in_the_units_of_ipi() -> None:
    atoms = skewed()
    toy = PeriodicToy(2, 1, 0.1, 4.0, AXIS)
    energy, forces, virial, _ = PotentialPES(toy, atoms)(columns(atoms), ANGSTROM * atoms.positions)
    expected = toy.predict(atoms)
    # i-PI writes its constants with eight digits, of which the last is not always right.
    assert energy == pytest.approx(float(expected.energies[0]) / units.Hartree, rel=2e-7)
    assert forces == pytest.approx(expected.forces[0] / (units.Hartree / units.Bohr), rel=2e-7, abs=1e-12)
    assert virial == pytest.approx(-expected.virials[0].T / units.Hartree, rel=2e-7, abs=1e-12)


def test_lists_of_structures_are_evaluated_one_by_one() -> None:
    atoms = skewed()
    face = PotentialPES(PairToy(), atoms)
    cell, positions = columns(atoms), ANGSTROM * atoms.positions
    both = face([cell, cell], [positions, 1.01 * positions])
    assert [each[0] for each in both] == [face(cell, positions)[0], face(cell, 1.01 * positions)[0]]
    assert both[0][0] != both[1][0]


def test_a_potential_without_a_virial_gives_none_rather_than_zero() -> None:
    class Bare(PairToy):
        def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
            for part in super().turned(structure, matrices):
                yield Prediction(part.energies, part.forces)

    atoms = skewed()
    assert np.isnan(PotentialPES(Bare(), atoms)(columns(atoms), ANGSTROM * atoms.positions)[2]).all()


def test_directions_that_are_not_periodic_keep_the_cell_of_the_structure() -> None:
    seen: list[Atoms] = []

    class Seeing(PairToy):
        def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
            seen.append(structure.copy())
            yield from super().turned(structure, matrices)

    slab = skewed()
    slab.pbc = (True, True, False)
    PotentialPES(Seeing(), slab)(1.1 * columns(slab), ANGSTROM * slab.positions)
    assert np.allclose(seen[0].cell[:2], 1.1 * slab.cell[:2], rtol=1e-15)
    assert (seen[0].cell[2] == slab.cell[2]).all()
    lone = molecule("NH3")
    PotentialPES(Seeing(), lone)(40.0 * np.eye(3), ANGSTROM * lone.positions)
    assert not seen[1].cell.array.any()
    assert not seen[1].pbc.any()


# In process


def test_trajectory_in_process_is_that_of_ase(folder: Path, tmp_path: Path) -> None:
    atoms, steps = skewed(), 20
    rng = np.random.default_rng(5)
    timestep, velocities = 1.0 * units.fs, 0.02 * rng.standard_normal((8, 3))
    toy = PeriodicToy(2, 1, 0.1, 4.0, AXIS)
    # i-PI's atomic unit of time, from its own constants.
    second = np.sqrt(Constants.amu / ELECTRONVOLT)
    system = f"""<initialize nbeads="1"><file mode="ase" units="angstrom">{folder}/crystal.xyz</file>
      <cell mode="manual">{listed(columns(atoms))}</cell>
      <masses mode="manual" units="dalton">{listed(atoms.get_masses())}</masses>
      <positions mode="manual">{listed(ANGSTROM * atoms.positions)}</positions>
      <velocities mode="manual">{listed(velocities / second)}</velocities></initialize>"""
    field = forcefield(f"{folder}/toys.py:crystal", f"{folder}/crystal.xyz")
    places = ", ".join(f"atom_x(atom={index})" for index in range(8))
    step = f"<timestep>{timestep * ANGSTROM * second:.17e}</timestep>"
    text = simulation(field, system, steps, f"potential, virial_md, {places}", step)
    finished(start_ipi(tmp_path, text))
    table = np.loadtxt(tmp_path / "run.out")
    assert len(table) == steps + 1

    def with_ase(timestep: float) -> list[Atoms]:
        moving = atoms.copy()
        moving.calc = toy.calculator()
        moving.set_velocities(velocities)
        frames = [moving.copy()]
        dynamics = VelocityVerlet(moving, timestep)
        for _ in range(steps):
            dynamics.run(1)
            frames.append(moving.copy())
        return frames

    def apart(frames: list[Atoms]) -> float:
        theirs = table[:, 7:].reshape(-1, 8, 3) / ANGSTROM
        return max(np.abs(frame.positions - each).max() for frame, each in zip(frames, theirs, strict=True))

    frames = with_ase(timestep)
    size = np.abs(atoms.positions).max()
    tolerance = 50.0 * steps * EPS * size  # each step rounds the positions, and forces grow what was rounded before
    assert apart(frames) < tolerance
    assert apart(with_ase(timestep * (1.0 + 1e-8))) > tolerance
    # The file of the structure has eight digits; the numbers of the simulation come from the input.
    for frame, row in zip(frames, table, strict=True):
        expected = toy.predict(frame)
        assert row[0] / ELECTRONVOLT == pytest.approx(float(expected.energies[0]), abs=1e-10)
        stress = -expected.virials[0].T / frame.get_volume() * ELECTRONVOLT / ANGSTROM**3
        order = ([0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2])
        assert row[1:7] == pytest.approx(stress[order], rel=1e-9, abs=1e-14)


BEADS = """<initialize nbeads="4"><file mode="ase" units="angstrom">ammonia.xyz</file>
  <cell mode="manual" units="angstrom">[20, 0, 0, 0, 20, 0, 0, 0, 20]</cell>
  <velocities mode="thermal" units="kelvin">300</velocities></initialize>"""
STEP = '<timestep units="femtosecond">0.5</timestep>'
OUTPUTS = "step, conserved, potential, atom_x(atom=1;bead=2)"
MODEL = ("toys.py:springs", "ammonia.xyz")
CHOSEN = {"rule": "klein", "inversion": True}


def place(tmp_path: Path, folder: Path) -> Path:
    for name in ("toys.py", "ammonia.xyz"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    return tmp_path


@pytest.fixture(scope="module")
def in_process(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four beads, every force of which is an average over the Klein group with inversion."""
    cwd = place(tmp_path_factory.mktemp("in_process"), folder)
    finished(start_ipi(cwd, simulation(forcefield(*MODEL, **CHOSEN), BEADS, 30, OUTPUTS, STEP)))
    return cwd


# i-PI's own average


def averaged_by_ipi(field: str, grid: str, atoms: Atoms) -> list[np.ndarray]:
    """Energy, forces (N, 3) and virial of i-PI's ``ffrotations`` around a forcefield."""
    text = f'<ffrotations name="peer">{grid}<inversion>True</inversion>{field}</ffrotations>'
    ((_, node),) = xml_parse_string(text).fields
    made = InputFFRotations()
    made.parse(node)
    peer = made.fetch()
    theirs, cell = IpiAtoms(len(atoms)), GenericCell(columns(atoms) if atoms.pbc.all() else CELL)
    theirs.q[:] = ANGSTROM * atoms.positions.ravel()
    peer.start()
    try:
        request = peer.queue(theirs, cell, reqid=0)
        assert request._event_done.wait(60)
    finally:
        peer.stop()
        peer._thread.join()
    energy, forces, virial, _ = request["result"]
    return [np.array(energy), forces.reshape(-1, 3), virial]


@pytest.mark.parametrize(("order", "mode"), [(3, "lebedev"), (2, "legendre")])
@pytest.mark.parametrize("kind", ["crystal", "molecule", "pet-water"])
def test_the_numbers_are_those_of_ffrotations(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, order: int, mode: str
) -> None:
    """On its grids, which leave much: the orders are exact to degree 2."""
    monkeypatch.chdir(folder)
    model, path = {
        "crystal": ("toys.py:crystal", "crystal.xyz"),
        "molecule": ("toys.py:chiral", "ammonia.xyz"),
        "pet-water": ("pet-water", str(tmp_path / "water.xyz")),
    }[kind]
    if kind == "pet-water":
        write(path, goniometer.read_structures("molecule")[0].atoms)
    dtype = "float64" if kind == "pet-water" else None
    atoms = goniometer.read_structures(path)[0].atoms
    grid = f"<grid_order>{order}</grid_order><grid_mode>{mode}</grid_mode>"
    found = averaged_by_ipi(forcefield(model, path, dtype=dtype), grid, atoms)
    quadrature = {"lebedev": get_rotation_quadrature_lebedev, "legendre": get_rotation_quadrature_legendre}[mode](order)
    weights = np.array([weight for _, weight, _ in quadrature])
    over = Rule("peer", np.array([matrix for matrix, _, _ in quadrature]), weights / weights.sum(), 2).with_inversion()
    inner = pes(model, path, dtype=dtype).potential
    cell, positions = columns(atoms) if atoms.pbc.all() else CELL, ANGSTROM * atoms.positions
    ours = PotentialPES(goniometer.symmetrize(inner, over), atoms)(cell, positions)
    raw = PotentialPES(inner, atoms)(cell, positions)
    for name, theirs, mine, plain in zip(("energy", "forces", "virial"), found, ours, raw, strict=False):
        scale = np.abs(mine).max()
        assert np.abs(theirs - mine).max() < 1e-10 * scale, name
        # Control: there is something to average.
        assert np.abs(plain - mine).max() > 1e-7 * scale, name


# Over a socket


@contextmanager
def unix_name() -> Iterator[str]:
    """The name of a socket that nobody else has; i-PI leaves its file behind where it is killed."""
    name = f"goniometer_{os.getpid()}_{time.monotonic_ns()}"
    try:
        yield name
    finally:
        Path(f"{PREFIX}{name}").unlink(missing_ok=True)


def socket_field(name: str) -> str:
    return f'<ffsocket name="g" mode="unix"><address>{name}</address><latency>1e-3</latency></ffsocket>'


def driver_command(name: str) -> list[str]:
    module = [sys.executable, "-m", "goniometer.cli", "driver"]
    return [*module, *MODEL, "--rule", "klein", "--inversion", "--unix", name, "--wait", "60"]


def their_driver_command(name: str) -> list[str]:
    parameters = "model={},structure={},rule=klein,inversion=true".format(*MODEL)
    script = [sys.executable, str(BIN / "i-pi-driver-py"), "-u", "-a", name, "-m", "custom"]
    return [*script, "-P", str(Path(ipi_pes.__file__)), "-o", parameters]


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.002)


def lines(log: Path) -> Counter[int]:
    """How often each process has written its number."""
    return Counter(int(line) for line in log.read_text().split()) if log.exists() else Counter()


@contextmanager
def served(cwd: Path, commands: list[Callable[[str], list[str]]]) -> Iterator[tuple]:
    """i-PI and its drivers, all of which are there from the first step on; and the counts of their evaluations."""
    with unix_name() as name:
        path = f"{PREFIX}{name}"
        environment = {"CALLS": str(cwd / "calls"), "LOADED": str(cwd / "loaded"), "SERVER": path}
        drivers = [started(make(name), cwd, **environment) for make in commands]
        wait_for(lambda: len(lines(cwd / "loaded")) == len(drivers), 120)
        server = start_ipi(cwd, simulation(socket_field(name), BEADS, 30, OUTPUTS, STEP))
        try:
            yield server, drivers, lambda: lines(cwd / "calls")
        finally:
            for process in (server, *drivers):
                process.kill()
                process.communicate()


def same_trajectory(one: Path, other: Path) -> bool:
    outs = [(cwd / "run.out").read_text(encoding="utf-8") for cwd in (one, other)]
    return final_state(one) == final_state(other) and outs[0] == outs[1]


def test_two_drivers_give_the_trajectory_in_process_to_the_last_bit(
    folder: Path, in_process: Path, tmp_path: Path
) -> None:
    cwd = place(tmp_path, folder)
    with served(cwd, [driver_command, their_driver_command]) as (server, drivers, evaluations):
        finished(server)
        said = [finished(driver) for driver in drivers]
    done = evaluations()
    assert set(done) == {driver.pid for driver in drivers}
    assert min(done.values()) > 0.2 * max(done.values()), done
    assert "is done" in said[0]
    assert same_trajectory(cwd, in_process)


def test_one_digit_tells_two_trajectories_apart(in_process: Path, tmp_path: Path) -> None:
    for name in ("RESTART", "run.out"):
        (tmp_path / name).write_bytes((in_process / name).read_bytes())
    assert same_trajectory(tmp_path, in_process)
    text = (tmp_path / "RESTART").read_text(encoding="utf-8")
    last = re.search(r"<p .*(\d)e[+-]\d\d\D*</p>", text, flags=re.DOTALL).start(1)
    changed = str((int(text[last]) + 1) % 10)
    (tmp_path / "RESTART").write_text(text[:last] + changed + text[last + 1 :], encoding="utf-8")
    assert not same_trajectory(tmp_path, in_process)


def test_a_driver_that_is_killed_in_mid_run_loses_nothing(folder: Path, in_process: Path, tmp_path: Path) -> None:
    cwd = place(tmp_path, folder)
    with served(cwd, [driver_command, driver_command]) as (server, drivers, evaluations):
        victim, survivor = drivers
        # Of about 500 evaluations; eight make an average, in the midst of which it is killed.
        wait_for(lambda: evaluations()[victim.pid] >= 100)
        victim.send_signal(signal.SIGKILL)
        lost = evaluations()[victim.pid]
        finished(server)
        assert "is done" in finished(survivor)
        victim.communicate(timeout=10)
    assert victim.returncode == -signal.SIGKILL
    done = evaluations()
    assert done[victim.pid] <= lost + 8
    assert done[survivor.pid] > done[victim.pid]
    assert same_trajectory(cwd, in_process)


def read_of(server: socket.socket, size: int) -> bytes:
    return server.recv(size, socket.MSG_WAITALL)


def dies_between_header_and_body(address: Address, unread: list[bytes]) -> None:
    """What the kernel does for a driver that is killed there: its socket closes, with something unread."""
    with connected(address, 60.0) as server:
        known = False
        while (said := read_of(server, 12)) != word("POSDATA"):
            if said == word("STATUS"):
                server.sendall(word("READY" if known else "NEEDINIT"))
            else:
                assert said == word("INIT")
                read_of(server, int(np.frombuffer(read_of(server, 8), np.int32)[1]))
                known = True
        unread.append(server.recv(1, socket.MSG_PEEK))


@contextmanager
def served_by_one_that_dies(cwd: Path, line: Callable[[str], str]) -> Iterator[tuple]:
    """i-PI, a driver that dies while it receives, and one that does the work."""
    with unix_name() as name:
        unread: list[bytes] = []
        dying = (unix_address(name), unread)
        threading.Thread(target=dies_between_header_and_body, args=dying, daemon=True).start()
        server = start_ipi(cwd, simulation(line(name), BEADS, 30, OUTPUTS, STEP))
        driver = started(driver_command(name), cwd)
        try:
            yield server, driver, unread
        finally:
            for process in (server, driver):
                process.kill()
                process.communicate()


def test_a_driver_that_is_killed_while_it_receives_loses_nothing(
    folder: Path, in_process: Path, tmp_path: Path
) -> None:
    """With the line that we print for i-PI's input."""
    cwd = place(tmp_path, folder)
    with served_by_one_that_dies(cwd, lambda name: socket_forcefield(unix_address(name))) as (server, driver, unread):
        finished(server)
        assert "is done" in finished(driver)
    assert [len(byte) for byte in unread] == [1]
    assert same_trajectory(cwd, in_process)


@pytest.mark.nightly
def test_with_consolidated_messages_it_hangs_the_run(folder: Path, tmp_path: Path) -> None:
    """The control, i-PI 3.3.1: its polling thread ends, and the run goes on waiting for it."""

    def line(name: str) -> str:
        return socket_forcefield(unix_address(name)).replace("False", "True")

    with served_by_one_that_dies(place(tmp_path, folder), line) as (server, _, unread):
        wait_for(lambda: bool(unread), 60.0)
        with pytest.raises(subprocess.TimeoutExpired):
            server.communicate(timeout=20.0)
        server.kill()
        assert "ConnectionResetError" in server.communicate()[0]


# The protocol, without i-PI


WHERE = Address("test")
LONE = molecule("NH3")
CELL = 40.0 * np.eye(3)


def word(text: str) -> bytes:
    return text.ljust(12).encode()


def init(text: str = "") -> bytes:
    return word("INIT") + np.int32([0, len(text)]).tobytes() + text.encode()


def posdata(positions: np.ndarray, cell: np.ndarray = CELL, inverse: np.ndarray | None = None) -> bytes:
    inverse = np.linalg.inv(CELL) if inverse is None else inverse
    return word("POSDATA") + b"".join(
        part.tobytes() for part in (cell, inverse, np.int32(len(positions)), np.ascontiguousarray(positions))
    )


def exchanged(face: PotentialPES, sent: bytes) -> tuple[int, bytes]:
    """How many structures were evaluated, and what was answered to a server that has said all it will say."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        count = serve(face, ours, WHERE)
        ours.shutdown(socket.SHUT_WR)
        answers = bytearray()
        while part := theirs.recv(4096):
            answers += part
        return count, bytes(answers)


@pytest.fixture
def face() -> PotentialPES:
    return PotentialPES(MolecularToy(2, 1, 0.3, AXIS), LONE, "ammonia")


def test_nothing_is_left_unread_while_a_structure_is_evaluated() -> None:
    """Else a connection that breaks there is reset, and i-PI 3.3.1 does not survive that."""
    ours, theirs = socket.socketpair()
    unread: list[bytes] = []

    class Peeking(PairToy):
        def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
            unread.append(ours.recv(1, socket.MSG_PEEK))
            yield from super().turned(structure, matrices)

    with ours, theirs:
        theirs.sendall(init() + posdata(ANGSTROM * LONE.positions) + word("GETFORCE"))
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ServerError, match="after 1 structures"):
            serve(PotentialPES(Peeking(), LONE), ours, WHERE)
    assert unread == [b""]


def test_answers_are_those_of_the_protocol(face: PotentialPES) -> None:
    positions = ANGSTROM * LONE.positions
    status = word("STATUS")
    sent = status + init("temperature : 3") + status + posdata(positions) + status + word("GETFORCE") + status
    count, answers = exchanged(face, sent + word("EXIT"))
    assert count == 1
    energy, forces, virial, _ = face(CELL, positions)
    expected = word("NEEDINIT") + word("READY") + word("HAVEDATA") + word("FORCEREADY")
    expected += np.float64(energy).tobytes() + np.int32(4).tobytes() + forces.tobytes() + virial.tobytes()
    assert answers == expected + np.int32(0).tobytes() + word("READY")


BAD = ANGSTROM * LONE.positions.copy()
BAD[2, 0] = np.nan


@pytest.mark.parametrize(
    ("sent", "error", "message"),
    [
        (b"", ServerError, "is gone, without an EXIT, after 0 structures"),
        (word("STATUS"), ServerError, "is gone, without an EXIT"),
        (posdata(ANGSTROM * LONE.positions)[:-5], ServerError, "is gone, without an EXIT"),
        (b"HTTP/1.1 400 Bad Request\r\n", ServerError, "says 'HTTP/1.1 400', which is not of i-PI's protocol"),
        (word("GETFORCE"), ServerError, "says 'GETFORCE'"),
        (init("x : 1 , batch_size:8"), ServerError, "sends 8 structures at a time; set its <batch_size> to 1"),
        (posdata(np.zeros((5, 3))) + word("GETFORCE"), InputError, "i-PI sends 5 atoms, but ammonia has 4"),
        (posdata(BAD) + word("STATUS"), InputError, "the structure that i-PI sends: the position of atom 2 .* is NaN"),
        (posdata(np.zeros((4, 3))) + word("STATUS"), InputError, "atoms 0 and 1 .* coincide"),
        (posdata(BAD, inverse=np.eye(3)), ServerError, "a cell whose inverse is another's"),
    ],
)
def test_what_a_server_cannot_say_is_refused(
    face: PotentialPES, sent: bytes, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        exchanged(face, sent)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (np.full((3, 3), np.nan), "the cell has a component that is NaN"),
        (np.diag([10.0, 10.0, 0.0]), "periodic along c, but cell vector c is zero"),
        (np.array([[9.0, 9.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 9.0]]), "not independent"),
    ],
)
def test_a_cell_that_cannot_be_taken_is_refused(cell: np.ndarray, message: str) -> None:
    atoms = skewed()
    sent = posdata(ANGSTROM * atoms.positions, cell, np.full((3, 3), np.inf)) + word("GETFORCE")
    with pytest.raises(InputError, match=message):
        exchanged(PotentialPES(PairToy(), atoms), sent)


# The command line


@pytest.fixture
def run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["goniometer", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def refused(outcome: tuple[int, str, str], message: str) -> None:
    code, _, err = outcome
    assert code == 2
    assert len(err.splitlines()) == 1
    assert re.search(message, err), err


@contextmanager
def listening(sent: bytes = b"", backlog: int = 1) -> Iterator[str]:
    """A server that says one thing to whoever comes first, and leaves."""
    with unix_name() as name, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{PREFIX}{name}")
        server.listen(backlog)

        def answer() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(sent)

        if sent:
            threading.Thread(target=answer, daemon=True).start()
        yield name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toys.py:broken", "ammonia.xyz"], "no weights"),
        (["nothing.pt", "ammonia.xyz"], "there is no model file 'nothing.pt'"),
        (["toys.py:springs", "nothing.xyz"], "there is no file 'nothing.xyz'"),
        (["toys.py:springs", "ammonia.xyz", "--rule", "octohedral"], "unknown rule 'octohedral'"),
        (["toys.py:springs", "ammonia.xyz", "--strategy", "mean"], "the strategy is 'average'.*not 'mean'"),
        (["toys.py:springs", "ammonia.xyz", "--strategy", "tumble"], "i-PI tells its drivers no time"),
        (["toys.py:springs", "ammonia.xyz"], "nobody listens at .*ipi_nobody: start i-PI first"),
    ],
)
def test_what_cannot_be_used_is_said_before_anybody_is_asked(run: Callable, arguments: list[str], message: str) -> None:
    refused(run("driver", *arguments, "--unix", "nobody", "--wait", "0"), message)


def test_a_driver_needs_one_address(run: Callable) -> None:
    refused(run("driver", *MODEL), "a driver needs an address")
    refused(run("driver", *MODEL, "--unix", "a", "--address", "31415"), "a driver has one address, and two are given")
    refused(run("driver", *MODEL, "--address", "host"), "not of the form HOST:PORT")
    refused(run("driver", *MODEL, "--unix", ""), "the name of a unix socket is empty")


def test_addresses_are_on_this_machine_unless_another_is_named() -> None:
    assert inet_address("31415").target == inet_address(":31415").target == ("localhost", 31415)
    assert inet_address("[::1]:31415").target == ("::1", 31415)
    assert inet_address("node7:31415").target == ("node7", 31415)
    assert str(unix_address("water")) == f"{PREFIX}water"
    assert str(unix_address("./water")) == "./water"


def test_a_port_where_nobody_listens(run: Callable) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    refused(run("driver", *MODEL, "--address", str(port), "--wait", "0"), f"nobody listens at localhost:{port}")


def test_a_socket_file_that_was_left_behind(run: Callable) -> None:
    with unix_name() as name:
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(f"{PREFIX}{name}")
        refused(run("driver", *MODEL, "--unix", name, "--wait", "0"), "nobody listens")


def test_an_address_that_is_full(run: Callable) -> None:
    with listening(backlog=0) as name, connected(unix_address(name)):
        refused(run("driver", *MODEL, "--unix", name, "--wait", "0.2"), "is full: as many drivers wait there")


def test_a_structure_from_the_server_that_cannot_be_taken(run: Callable) -> None:
    with listening(posdata(np.zeros((192, 3))) + word("GETFORCE")) as name:
        refused(run("driver", *MODEL, "--unix", name), "i-PI sends 192 atoms, but ammonia.xyz has 4")
    with listening(posdata(BAD) + word("GETFORCE")) as name:
        refused(run("driver", *MODEL, "--unix", name), "the position of atom 2")


def test_a_server_that_leaves_with_and_without_a_word(run: Callable) -> None:
    with listening(word("EXIT")) as name:
        code, out, err = run("driver", *MODEL, "--unix", name)
        assert (code, err) == (0, "")
        assert "is done: 0 structures" in out
    with listening(word("STATUS")) as name:
        refused(run("driver", *MODEL, "--unix", name), "is gone, without an EXIT")


def test_control_c_ends_a_driver_that_waits(folder: Path) -> None:
    with unix_name() as name, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{PREFIX}{name}")
        server.listen(1)
        server.settimeout(30)
        driver = started(driver_command(name), folder)
        client, _ = server.accept()
        with client:
            client.sendall(word("STATUS"))
            assert client.recv(12) == word("NEEDINIT")
            driver.send_signal(signal.SIGINT)
            said, _ = driver.communicate(timeout=30)
            assert client.recv(1) == b""
    assert driver.returncode == 130
    assert said.splitlines()[-1] == "goniometer: stopped"


def test_a_driver_waits_for_its_server(folder: Path) -> None:
    with unix_name() as name, socket.socket(socket.AF_UNIX) as server:
        late = threading.Timer(0.3, lambda: (server.bind(f"{PREFIX}{name}"), server.listen(1)))
        late.start()
        with connected(unix_address(name), wait=20.0):
            pass
        late.join()


# The line of i-PI's input


def read_by_ipi(line: str) -> dict[str, object]:
    """The parameters as i-PI understands them."""
    from ipi.utils.io.inputs.io_xml import read_dict

    return read_dict(re.search("<parameters>(.*)</parameters>", line)[1])


def test_the_line_says_what_was_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    line = forcefield("toys.py:springs", "ammonia.xyz", rule="lebedev:3", inversion=False, options=["pull=0.5"])
    parameters = read_by_ipi(line)
    assert parameters == {
        "model": "toys.py:springs",
        "structure": "ammonia.xyz",
        "rule": "lebedev:3",
        "inversion": False,
        "options": "pull=0.5",
    }
    face = pes_from_input(**parameters, verbosity=True)
    same = goniometer.symmetrize(load("toys.py:springs", pull=0.5), "lebedev:3", inversion=False).predict(LONE)
    positions = ANGSTROM * LONE.positions
    # The file of the structure plays no part in the positions, only their conversion does.
    assert face(CELL, positions)[0] / ELECTRONVOLT == pytest.approx(float(same.energies[0]), abs=1e-12)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"inverison": True}, "there is no parameter 'inverison'; the parameters are model, structure, rule"),
        ({"structure": "box@:"}, None),
        ({"model": None}, "lack the model"),
        ({"inversion": "maybe"}, "'inversion' is 'maybe'; it must be of type bool"),
        ({"seed": 1.5}, "'seed' is '1.5'; it must be of type int"),
        ({"period": "long"}, "'period' is 'long'; it must be of type float"),
        ({"space_group": "Fm-3m"}, "'space_group' is 'Fm-3m'; it must be of type bool"),
        ({"strategy": "random", "key": "step"}, "i-PI tells a potential no step"),
        ({"strategy": "random", "key": "time"}, "the key of a random turn is 'positions' or 'step', not 'time'"),
        ({"inversion": True}, "inversion goes with a rule, and none is given"),
        ({"force_tolerance": "1meV/Å"}, "force_tolerance goes with a rule, and none is given"),
        ({"space_group": True}, "space_group goes with a rule, and none is given"),
        ({"rule": "klein", "seed": 3}, "seed does not go with strategy 'average'"),
        ({"rule": "klein", "force_tolerance": "1meV/Å"}, "a tolerance goes with rule='plan'"),
        ({"rule": "plan"}, "a planned rule needs a tolerance"),
        ({"rule": "plan", "force_tolerance": 0.001}, "'0.001' has no unit for force"),
        ({"rule": "octahedral", "space_group": True}, "is not periodic in three directions, so it has no space group"),
    ],
)
def test_parameters_that_make_no_sense(
    folder: Path, monkeypatch: pytest.MonkeyPatch, parameters: dict, message: str | None
) -> None:
    monkeypatch.chdir(folder)
    given = {"model": "toys.py:springs", "structure": "ammonia.xyz", **parameters}
    given = {key: value for key, value in given.items() if value is not None}
    if message is None:
        write("two.xyz", [LONE, LONE])
        given["structure"], message = "two.xyz", "'two.xyz' holds 2 structures; one is needed: write two.xyz@0"
    for make in (pes_from_input, pes) if message.startswith("there is no parameter") else (pes_from_input,):
        with pytest.raises(InputError, match=message):
            make(**given)


def through_the_input(model: str, structure: str, **parameters: object) -> Potential:
    """The potential that i-PI makes of the line."""
    return pes_from_input(**read_by_ipi(forcefield(model, structure, **parameters))).potential


def test_all_that_symmetrize_takes_as_a_plain_value_comes_through_the_input(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    random = through_the_input(*MODEL, rule="klein", strategy="random", seed=4, proper=True)
    assert (random.seed, random.proper, random.key) == (4, True, "positions")
    frozen = through_the_input(*MODEL, rule="klein", strategy="frozen", seed=4, proper=True, inversion=False)
    expected = goniometer.symmetrize(PairToy(), "klein", inversion=False, strategy="frozen", seed=4, proper=True)
    np.testing.assert_array_equal(frozen.rule.matrices, expected.rule.matrices)
    tumbling = through_the_input(*MODEL, strategy="tumble", timestep=1, period=300, memory=900.0, seed=4, proper=True)
    assert (tumbling.timestep, tumbling.period, tumbling.memory, tumbling.frame.seed) == (1.0, 300.0, 900.0, 4)
    assert (len(tumbling.rule), tumbling.frame.improper) == (1, False)
    planned = through_the_input(*MODEL, rule="plan", force_tolerance="300meV/Å", energy_tolerance="10eV")
    assert planned.plan.certified
    assert planned.plan.tolerances == ["forces 300meV/Å", "energy 10eV"]
    assert list(planned.plan.limits) == ["ammonia.xyz"]
    # What is not said is as symmetrize has it.
    plain = through_the_input(*MODEL, rule="klein")
    assert (len(plain.rule), plain.rule.inversion) == (8, True)
    signature = inspect.signature(goniometer.strategies.symmetrize)
    assert len(through_the_input(*MODEL, rule="klein", verify=False).rule) == 8
    covered = "rule strategy seed proper key inversion timestep period memory space_group verify"
    tolerances = {"force_tolerance", "energy_tolerance", "stress_tolerance"}
    assert set(signature.parameters) == {*covered.split(), *tolerances, "potential", "structures"}


def test_the_space_group_of_the_structure_saves_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    crystal = bulk("NaCl", "rocksalt", 5.6, cubic=True)
    write("rocksalt.xyz", crystal)
    Path("toys.py").write_text(TOYS, encoding="utf-8")
    model = ("toys.py:crystal", "rocksalt.xyz")
    whole, few = (through_the_input(*model, rule="octahedral", space_group=given) for given in (False, True))
    assert (len(few.rule), len(few.representatives)) == (48, 1)
    crystal.set_cell(1.02 * crystal.cell, scale_atoms=True)
    assert few.predict(crystal).energies[0] == pytest.approx(whole.predict(crystal).energies[0], abs=1e-10)
    crystal.rattle(0.1, seed=0)
    with pytest.raises(InputError, match="off the symmetry of its reference"):
        few.predict(crystal)


def test_an_error_in_ipi_names_the_structure_and_the_rotation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    face = pes("toys.py:failing", "ammonia.xyz", rule="klein")
    with pytest.raises(PotentialError, match=r": on ammonia.xyz, at element 4 .* of klein with inversion \(8\), inv"):
        face(CELL, ANGSTROM * LONE.positions)


def test_a_value_that_the_input_cannot_hold() -> None:
    with pytest.raises(InputError, match=r"cannot hold the model .*: a comma"):
        forcefield("a,b.pt", "molecule")


def test_the_command_prints_the_line_and_tries_the_model(run: Callable) -> None:
    code, out, err = run("ipi", *MODEL, "--rule", "klein")
    assert (code, err) == (0, "")
    assert out.strip() == forcefield(*MODEL, rule="klein")
    refused(run("ipi", "toys.py:broken", "ammonia.xyz"), "no weights")
    refused(run("ipi", *MODEL, "--option", "pull=1", "--option", "x=1"), "unexpected keyword argument")
    chosen = "--strategy tumble --seed 4 --proper --timestep 0.5 --period 300 --memory 900"
    code, out, _ = run("ipi", *MODEL, *shlex.split(chosen))
    tumbling = {"strategy": "tumble", "seed": 4, "proper": True, "timestep": 0.5, "period": 300.0, "memory": 900.0}
    assert (code, out.strip()) == (0, forcefield(*MODEL, **tumbling))
    refused(run("ipi", *MODEL, "--strategy", "random", "--key", "step"), "i-PI tells a potential no step")


def test_with_an_address_the_command_prints_the_line_for_drivers(run: Callable) -> None:
    code, out, err = run("ipi", *MODEL, "--rule", "klein", "--unix", "water", "--name", "averaged")
    assert (code, err) == (0, "")
    expected = '<ffsocket name="averaged" mode="unix"><address>water</address>'
    assert out.strip() == f"{expected}<consolidate_messages>False</consolidate_messages></ffsocket>"
    code, out, _ = run("ipi", *MODEL, "--address", "31415")
    ((_, node),) = xml_parse_string(out).fields
    field = InputFFSocket()
    field.parse(node)
    made = field.fetch().socket
    assert (made.mode, made.address, made.port, made.consolidate_messages) == ("inet", "localhost", 31415, False)
    refused(run("ipi", *MODEL, "--unix", "./water"), "give a NAME without a slash, not ./water")
    refused(run("ipi", *MODEL, "--unix", "water", "--address", "31415"), "one address, and two are given")
    refused(run("ipi", *MODEL, "--unix", "water", "--strategy", "tumble"), "i-PI tells its drivers no time")
    refused(run("ipi", "toys.py:broken", "ammonia.xyz", "--unix", "water"), "no weights")


def test_the_command_plans_once_and_names_the_rule(run: Callable) -> None:
    code, out, err = run("ipi", *MODEL, "--rule", "plan", "--force-tolerance", "300meV/Å")
    assert (code, err) == (0, "")
    springs = load("toys.py:springs")
    plan = goniometer.symmetrize(springs, "plan", force_tolerance="300meV/Å", structures="ammonia.xyz").plan
    assert out.strip() == forcefield(*MODEL, rule=plan.rule, inversion=plan.inversion)
    assert plan.rule != "identity"
    refused(run("ipi", *MODEL, "--rule", "plan"), "a planned rule needs a tolerance")
    refused(run("ipi", *MODEL, "--rule", "klein", "--force-tolerance", "1meV/Å"), "a tolerance goes with rule='plan'")


@pytest.mark.parametrize("strategy", ["random", "frozen"])
def test_turns_are_the_same_in_every_process_and_whatever_came_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.chdir(folder)
    first, second = (pes(*MODEL, strategy=strategy, seed=1) for _ in range(2))
    positions = ANGSTROM * LONE.positions
    first(CELL, positions + 0.01)
    np.testing.assert_array_equal(first(CELL, positions)[1], second(CELL, positions)[1])
    other, raw = pes(*MODEL, strategy=strategy, seed=2), pes(*MODEL)
    assert np.abs(first(CELL, positions)[1] - other(CELL, positions)[1]).max() > 1e-6
    assert np.abs(first(CELL, positions)[1] - raw(CELL, positions)[1]).max() > 1e-6


def test_a_frame_tumbles_with_the_structures_that_come(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    face = pes(*MODEL, strategy="tumble", timestep=0.5)
    positions = ANGSTROM * LONE.positions
    first = face(CELL, positions)[1]
    np.testing.assert_array_equal(first, face(CELL, positions)[1])  # the same structure again is no step
    assert face.potential.frame.step == 0
    face(CELL, positions + 0.01)
    assert face.potential.frame.step == 1
    assert np.abs(first - face(CELL, positions)[1]).max() > 0.0
    with pytest.raises(InputError, match="needs the time step"):
        pes(*MODEL, strategy="tumble")


def test_batches_do_not_depend_on_a_clock() -> None:
    assert pes("pet-water", "molecule").potential._sizes.fixed == 256
    assert pes("pet-water", "box").potential._sizes.fixed == 4
    assert pes("pet-water", "box", batch=2).potential._sizes.fixed == 2


# The page


def page_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = (block for block in page_blocks("python") if "input.xml" in block)
    exec(compile(example, PAGE.name, "exec"), {"__name__": "documentation"})
    finished(started([sys.executable, str(BIN / "i-pi"), "input.xml"], tmp_path))
    table = np.loadtxt(tmp_path / "simulation.out")
    assert len(table) == 6
    # Energy is conserved: with these steps by some meV, where the potential alone changes by more.
    assert np.ptp(table[:, 1]) < 0.02
    assert np.ptp(table[:, 2]) > 0.02


def test_the_commands_of_the_page_parse() -> None:
    group = typer.main.get_command(app)
    lines = [line for block in page_blocks("text") for line in block.splitlines() if line.startswith("goniometer ")]
    assert lines
    for line in lines:
        _, name, *rest = shlex.split(line, comments=True)
        group.commands[name].make_context(name, [each for each in rest if each != "&"])


@pytest.mark.nightly
def test_metatomic_model_over_two_drivers_is_that_in_process(tmp_path: Path) -> None:
    """The packaged model, averaged, in float64: two drivers and one process, to the last bit."""
    model = ("pet-water", "molecule")
    chosen = {"rule": "octahedral", "dtype": "float64"}
    atoms = goniometer.read_structures("molecule")[0].atoms
    write(tmp_path / "molecule.xyz", atoms)
    beads = BEADS.replace("ammonia.xyz", str(tmp_path / "molecule.xyz"))
    ours, theirs = tmp_path / "in_process", tmp_path / "sockets"
    ours.mkdir()
    theirs.mkdir()
    finished(start_ipi(ours, simulation(forcefield(*model, **chosen), beads, 20, OUTPUTS, STEP)), 300)
    command = [sys.executable, "-m", "goniometer.cli", "driver", *model, "--rule", "octahedral", "--dtype", "float64"]
    with unix_name() as name:
        server = start_ipi(theirs, simulation(socket_field(name), beads, 20, OUTPUTS, STEP))
        drivers = [started([*command, "--unix", name, "--wait", "60"], theirs) for _ in range(2)]
        finished(server, 300)
        counts = [int(re.search(r"(\d+) structures", finished(driver))[1]) for driver in drivers]
    assert min(counts) > 0
    assert same_trajectory(ours, theirs)


def test_an_answer_that_is_not_finite_does_not_reach_ipi() -> None:
    class Broken(PairToy):
        def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
            for part in super().turned(structure, matrices):
                yield Prediction(part.energies, np.nan * part.forces)

    with pytest.raises(PotentialError, match="PairToy gave forces that are not finite"):
        PotentialPES(Broken(), LONE)(CELL, ANGSTROM * LONE.positions)


def test_only_a_potential_is_needed() -> None:
    class Mine(Potential):
        name = "mine"

        def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
            for _ in matrices:
                yield Prediction(np.ones(1), np.zeros((1, len(structure), 3)))

    energy, forces, _, text = PotentialPES(Mine(), LONE)(CELL, ANGSTROM * LONE.positions)
    assert (energy, np.abs(forces).max(), text) == (ELECTRONVOLT, 0.0, "")
