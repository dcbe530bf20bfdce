"""Tumbling: uniform, ergodic, smooth, restartable to the last bit, and with an account of its work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from goniometer import symmetrize
from goniometer.errors import InputError
from goniometer.potentials import AsePotential, Potential, Prediction
from goniometer.rotations import random_rotations, rule
from goniometer.rotations.characters import quadratic_forms
from goniometer.structures import read_structures
from goniometer.symmetrization import Frame, Tumbling
from goniometer.testing import MolecularToy, NonConservative, PairToy, PeriodicToy, check_potential
from structures import crystal

EPS = float(np.finfo(np.float64).eps)
IDENTITY = rule("identity")
FOREVER = 1e12


def water() -> Atoms:
    return read_structures("molecule")[0].atoms


class Counting(Potential):
    """Counts evaluations."""

    virial = "full"

    def __init__(self, potential: Potential) -> None:
        self.potential, self.name, self.count = potential, "counting", 0

    def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
        self.count += len(matrices)
        return self.potential.turned(structure, matrices)


def tumbling(potential: Potential | None = None, **options) -> Tumbling:
    chosen = {"timestep": 0.5, "period": 200.0, "memory": 400.0, "seed": 3} | options
    return Tumbling(potential or MolecularToy(2, 1, 0.05), IDENTITY, **chosen)


# The frame

SHORT = {"timestep": 20.0, "period": 200.0, "memory": 200.0}
STEPS, BLOCK = 12_000, 300


@cache
def trajectory(memory: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices, quaternions and velocities of a long run."""
    potential = tumbling(**SHORT | {"memory": memory})
    matrices, quaternions, velocities = [], [], []
    for _ in range(STEPS):
        potential.advance()
        matrices.append(potential.matrix)
        quaternions.append(potential.frame.quaternion)
        velocities.append(potential.frame.velocity)
    return np.array(matrices), np.array(quaternions), np.array(velocities)


def test_the_quaternion_keeps_its_length_and_the_frame_its_handedness() -> None:
    matrices, quaternions, _ = trajectory(SHORT["memory"])
    assert np.abs(np.linalg.norm(quaternions, axis=1) - 1.0).max() < 8 * EPS
    determinants = np.linalg.det(matrices)
    np.testing.assert_allclose(determinants, determinants[0], atol=1e-12)
    signs = {np.sign(np.linalg.det(tumbling(seed=seed).matrix)) for seed in range(20)}
    assert signs == {1.0, -1.0}
    assert {np.sign(np.linalg.det(tumbling(seed=seed, proper=True).matrix)) for seed in range(20)} == {1.0}


def test_the_frame_turns_by_its_velocity() -> None:
    potential = tumbling()
    before, velocity = potential.matrix, np.array(potential.frame.velocity)
    potential.advance()
    turned = Rotation.from_matrix(potential.matrix @ before.T).as_rotvec()
    np.testing.assert_allclose(turned, 0.5 * velocity, atol=1e-14)


def harmonics(matrices: np.ndarray) -> np.ndarray:
    """All elements of D¹ and D² in a real basis, (K, 34)."""
    root = np.sqrt([2.0, 6.0])
    basis = np.zeros((5, 3, 3))
    for k, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
        basis[k, a, b] = basis[k, b, a] = 1.0 / root[0]
    basis[3] = np.diag([1.0, -1.0, 0.0]) / root[0]
    basis[4] = np.diag([-1.0, -1.0, 2.0]) / root[1]
    turned = matrices[:, None] @ basis @ matrices[:, None].transpose(0, 1, 3, 2)
    second = np.einsum("aij,kbij->kab", basis, turned)
    return np.concatenate([matrices.reshape(-1, 9), second.reshape(-1, 25)], axis=1)


def test_a_long_run_comes_everywhere_and_a_constant_velocity_does_not() -> None:
    """⟨D^ℓ⟩ = 0 within its error, from blocks of 30 memories each."""
    wanders, circles = harmonics(trajectory(SHORT["memory"])[0]), harmonics(trajectory(FOREVER)[0])
    blocks = wanders.reshape(-1, BLOCK, 34).mean(axis=1)
    error = blocks.std(axis=0, ddof=1) / np.sqrt(len(blocks))
    # Of 34 numbers of t distribution with 39 degrees of freedom the largest is below 4 in 99 of 100 runs.
    assert (np.abs(blocks.mean(axis=0)) < 4.0 * error).all()
    assert error.max() < 0.04
    np.testing.assert_allclose((wanders**2).mean(axis=0), [1 / 3] * 9 + [1 / 5] * 25, atol=0.05)
    assert np.abs(circles.mean(axis=0)).max() > 0.3


def test_the_frame_is_uniform_at_every_time() -> None:
    """Over seeds: N (2ℓ+1) Σ_mn |mean D_mn|² is χ² of (2ℓ+1)² degrees of freedom."""
    potentials = [tumbling(seed=seed, **SHORT) for seed in range(300)]
    for steps in (0, 7):
        for potential in potentials:
            potential.advance(steps)
        matrices = np.array([potential.matrix for potential in potentials])
        even, odd = quadratic_forms(matrices, np.full(300, 1 / 300), 3)
        dimension = 2 * np.arange(4) + 1
        chances = chi2.sf(300 * dimension * np.array([even, odd]), dimension**2)
        assert min(chances[0, 1:].min(), chances[1].min()) > 1e-3
    # Control: all from one frame.
    matrices = np.array([potential.matrix for potential in potentials[:1] * 300])
    assert chi2.sf(300 * 3 * quadratic_forms(matrices, np.full(300, 1 / 300), 1)[0][1], 9) < 1e-6


def test_the_velocity_has_the_variance_and_the_memory_asked_for() -> None:
    sigma, memory = 2.0 * np.pi / SHORT["period"], SHORT["memory"]
    velocities = trajectory(memory)[2] / sigma
    independent = 3 * STEPS * SHORT["timestep"] / memory  # squares decay twice as fast
    assert np.mean(velocities**2) == pytest.approx(1.0, abs=4.0 * np.sqrt(2.0 / independent))
    assert np.abs(velocities.mean(axis=0)).max() < 4.0 * np.sqrt(2.0 * memory / (STEPS * SHORT["timestep"]))
    for lag in (5, 10, 20):
        found = np.mean(velocities[lag:] * velocities[:-lag])
        assert found == pytest.approx(np.exp(-lag * SHORT["timestep"] / memory), abs=4.0 * np.sqrt(2.0 / independent))
    across = np.mean(velocities[:, :, None] * velocities[:, None, :], axis=0)
    assert np.abs(across - np.diag(np.diag(across))).max() < 4.0 * np.sqrt(3.0 / independent)
    # Controls: another memory would be told from it, and one that never ends keeps its velocity.
    assert abs(np.exp(-1.0) - np.exp(-0.7)) > 4.0 * np.sqrt(2.0 / independent)
    assert np.ptp(trajectory(FOREVER)[2], axis=0).max() < 1e-2 * sigma


def test_an_orientation_is_forgotten_in_the_times_that_the_documentation_states() -> None:
    """τ_ℓ = ∫ ⟨χ_ℓ(R(0)ᵀR(t))⟩ dt / (2ℓ+1), for a memory of one period."""
    matrices, lags = trajectory(SHORT["memory"])[0], 60
    for ell, stated in ((1, 0.25), (2, 0.095)):
        values = harmonics(matrices)[:, :9] if ell == 1 else harmonics(matrices)[:, 9:]
        dimension = 2 * ell + 1
        curve = [np.mean(np.sum(values[lag:] * values[: STEPS - lag], axis=1)) / dimension for lag in range(lags)]
        assert curve[0] == pytest.approx(1.0)
        found = SHORT["timestep"] * (np.sum(curve) - 0.5)
        # The noise of 60 lags, of some thousand independent orientations.
        assert found / SHORT["period"] == pytest.approx(stated, abs=0.04)


def test_many_steps_at_once_are_the_same_steps() -> None:
    one, many = tumbling(), tumbling()
    for _ in range(1000):
        one.advance()
    many.advance(1000)
    assert one.frame == many.frame


def test_seeds_make_frames() -> None:
    assert tumbling().frame == tumbling().frame
    assert np.abs(tumbling(seed=4).matrix - tumbling().matrix).max() > 1e-3
    one, other = tumbling(), tumbling(seed=4)
    assert np.abs(np.subtract(one.frame.velocity, other.frame.velocity)).max() > 1e-6


# The potential


def test_it_is_the_potential_in_the_frame() -> None:
    toy, structure = MolecularToy(3, -1, 0.05), water()
    for seed in range(4):  # proper frames and improper ones
        potential = tumbling(toy, seed=seed)
        potential.advance(5)
        (there,) = toy.turned(structure, potential.matrix[None])
        here = potential.predict(structure)
        assert here.energies[0] == pytest.approx(there.energies[0], abs=1e3 * EPS)
        np.testing.assert_allclose(here.forces[0], there.forces[0] @ potential.matrix, atol=1e3 * EPS)
        assert potential.frame.step == 5, "an evaluation does not advance the frame"


def test_at_any_moment_it_keeps_the_contract_of_potentials() -> None:
    for potential, structure in (
        (tumbling(MolecularToy(3, -1, 0.1)), water()),
        (tumbling(PeriodicToy(2, 1, 0.1), seed=5), crystal()),
    ):
        potential.advance(3)
        report = check_potential(potential, structure)
        assert report.passed, str(report)
        assert "as far as can be told" not in report["forces"].sentence


def test_a_rule_within_the_frame_is_averaged_over() -> None:
    """Inversion in the rule removes what is odd, at every moment."""
    toy, exact = MolecularToy(1, -1, 0.05), PairToy().predict(water()).energies[0]
    for over, off in ((rule("identity", inversion=True), 0.0), (IDENTITY, 1e-3)):
        potential = Tumbling(toy, over, timestep=0.5, seed=1)
        found = []
        for _ in range(5):
            potential.advance(100)
            found.append(potential.predict(water()).energies[0])
        assert np.abs(np.array(found) - exact).max() < 1e-10 if off == 0.0 else np.ptp(found) > off


def test_the_mean_over_a_run_is_the_average() -> None:
    """Of a molecule that is held: ⟨E⟩ = E_avg within its error."""
    potential, exact = tumbling(**SHORT), PairToy().predict(water()).energies[0]
    energies = []
    for _ in range(400):
        potential.advance(5)
        energies.append(potential.predict(water()).energies[0] - exact)
    blocks = np.reshape(energies, (-1, 10)).mean(axis=1)
    error = blocks.std(ddof=1) / np.sqrt(len(blocks))
    assert abs(blocks.mean()) < 4.0 * error
    assert error < 0.1 * np.std(energies)
    assert np.std(energies) == pytest.approx(0.05 / np.sqrt(5.0), rel=0.15)


# Dynamics


def start(potential: Potential, timestep: float) -> tuple[Atoms, VelocityVerlet]:
    """Warm water: two stretches and a rotation, the same every time."""
    atoms = water()
    atoms.set_velocities(0.02 * np.random.default_rng(0).standard_normal((3, 3)))
    atoms.set_velocities(atoms.get_velocities() - atoms.get_momenta().sum(axis=0) / atoms.get_masses().sum())
    atoms.calc = potential.calculator()
    return atoms, VelocityVerlet(atoms, timestep * units.fs)


def test_one_evaluation_and_one_step_of_the_frame_for_each_step() -> None:
    counted = Counting(MolecularToy(2, 1, 0.05))
    potential = tumbling(counted)
    atoms, dynamics = start(potential, 0.5)
    potential.verify(atoms)
    tested, seen = counted.count, []

    def look() -> None:
        atoms.get_total_energy()
        atoms.get_forces()
        seen.append((potential.frame.step, counted.count))

    dynamics.attach(look)
    dynamics.run(12)
    assert seen == [(step, tested + step + 1) for step in range(13)]


def test_whoever_advances_the_frame_does_so_alone() -> None:
    potential = tumbling()
    atoms, _ = start(potential, 0.5)
    first = atoms.get_potential_energy()
    potential.advance(3)
    assert abs(atoms.get_potential_energy() - first) > 1e-8, "a moment that changed is evaluated anew"
    potential.advance()
    atoms.positions += 0.01
    atoms.get_potential_energy()
    assert potential.frame.step == 4
    atoms.positions += 0.01
    atoms.get_potential_energy()
    assert potential.frame.step == 5


def conservation(timestep: float, memory: float, time: float = 60.0) -> tuple[float, float]:
    """Peak to peak of H and of H − W over a run."""
    potential = tumbling(timestep=timestep, memory=memory)
    atoms, dynamics = start(potential, timestep)
    total, account = [], []
    for _ in range(round(time / timestep)):
        dynamics.run(1)
        total.append(atoms.get_total_energy())
        account.append(total[-1] - potential.work)
    return float(np.ptp(total)), float(np.ptp(account))


def test_energy_less_work_is_conserved_to_second_order_and_energy_is_not() -> None:
    # A velocity that never changes: the same path of the frame for every time step.
    coarse, fine = conservation(0.5, FOREVER), conservation(0.25, FOREVER)
    assert coarse[1] / fine[1] == pytest.approx(4.0, rel=0.15)
    assert fine[1] < 0.2 * fine[0]
    assert coarse[0] / fine[0] == pytest.approx(1.0, rel=0.3)  # the control does not get better


def test_energy_less_work_is_conserved_while_the_velocity_wanders() -> None:
    total, account = conservation(0.25, 400.0)
    assert account < 0.2 * total


def test_a_held_structure_gains_the_work() -> None:
    """E(t) − E(0) = W(t), whatever gives the torque: molecules, crystals, either handedness; second order."""
    cases = [
        (MolecularToy(2, 1, 0.05), water()),
        (MolecularToy(3, -1, 0.05), water()),
        (AsePotential(MolecularToy(2, 1, 0.05).calculator()), water()),
        (PeriodicToy(2, 1, 0.05), crystal()),
        (PeriodicToy(3, -1, 0.05), crystal()),
    ]
    for toy, structure in cases:
        for seed in (1, 5):
            misses = {}
            for timestep in (0.5, 0.25):
                potential = tumbling(toy, timestep=timestep, seed=seed, memory=FOREVER)
                energies, work = [potential.follow(structure).energies[0]], [0.0]
                for _ in range(round(10.0 / timestep)):
                    potential.advance()
                    energies.append(potential.follow(structure).energies[0])
                    work.append(potential.work)
                misses[timestep] = np.abs(np.array(energies) - energies[0] - work).max()
            assert np.ptp(energies) > 1e-4
            assert misses[0.25] < 3e-3 * np.ptp(energies)
            assert misses[0.25] < 0.3 * misses[0.5]
    signs = {np.sign(np.linalg.det(tumbling(seed=seed).matrix)) for seed in (1, 5)}
    assert signs == {1.0, -1.0}


def test_the_torque_is_the_slope_of_the_energy_with_the_frame() -> None:
    step = 1e-4
    for toy, structure in ((MolecularToy(3, -1, 0.05), water()), (PeriodicToy(3, -1, 0.05), crystal())):
        for seed in (1, 2, 3):
            potential = tumbling(toy, seed=seed)
            potential.follow(structure)
            frame, slopes = potential.frame, []
            for axis in np.eye(3):
                ends = []
                for sign in (1, -1):
                    turned = Rotation.from_rotvec(sign * step * axis) * Rotation.from_quat(frame.quaternion)
                    potential.frame = replace(frame, quaternion=tuple(turned.as_quat().tolist()))
                    ends.append(potential.predict(structure).energies[0])
                slopes.append((ends[0] - ends[1]) / (2 * step))
            # ℓ³ ε h² of the difference, and the rounding of some 10 eV over 2 h.
            np.testing.assert_allclose(slopes, frame.torque, atol=27 * 10 * step**2 + 100 * EPS / step)
            assert np.abs(frame.torque).max() > 1e-3


def test_where_no_torque_is_known_there_is_no_account() -> None:
    symmetric = AsePotential(PeriodicToy(2, 1, 0.05).calculator())
    assert symmetric.virial == "symmetric"
    for potential, structure in (
        (tumbling(symmetric), crystal()),
        (tumbling(NonConservative(MolecularToy(2, 1, 0.05))), water()),
    ):
        assert potential.work == 0.0
        for _ in range(2):
            potential.follow(structure)
            potential.advance()
            assert potential.work is None
    potential = tumbling(PeriodicToy(2, 1, 0.05))
    potential.follow(crystal())
    assert potential.work == 0.0


# Going on


def test_a_restarted_run_is_the_same_to_the_last_bit() -> None:
    whole = tumbling()
    atoms, dynamics = start(whole, 0.5)
    dynamics.run(60)
    first = tumbling()
    stopped, dynamics = start(first, 0.5)
    dynamics.run(25)
    text = json.dumps([first.state, stopped.positions.tolist(), stopped.get_momenta().tolist()])
    state, positions, momenta = json.loads(text)
    ends = []
    for restored in (True, False):
        second = tumbling()
        resumed, dynamics = start(second, 0.5)
        resumed.positions, resumed.arrays["momenta"] = np.array(positions), np.array(momenta)
        if restored:
            second.restore(state)
        dynamics.run(35)
        ends.append((second, resumed))
    (second, resumed), (control, lost) = ends
    assert second.frame == whole.frame
    assert (resumed.positions == atoms.positions).all()
    assert (resumed.get_momenta() == atoms.get_momenta()).all()
    assert control.frame != whole.frame
    assert (lost.positions != atoms.positions).any()


def test_a_state_says_all_of_a_frame() -> None:
    """Seed and handedness included: what is restored goes on as it would have, whoever restores it."""
    one = tumbling(seed=1)
    one.advance(10)
    other = next(tumbling(seed=seed) for seed in range(2, 9) if not tumbling(seed=seed).frame.improper)
    assert np.linalg.det(one.matrix) * np.linalg.det(other.matrix) < 0
    other.restore(json.loads(json.dumps(one.state)))
    one.advance(10)
    other.advance(10)
    assert other.frame == one.frame
    assert (other.matrix == one.matrix).all()


@pytest.mark.parametrize(("name", "value"), [("timestep", 0.25), ("period", 300.0), ("memory", 401.0)])
def test_the_state_of_other_times_is_refused(name: str, value: float) -> None:
    """It would go on as another process: the control."""
    one, other = tumbling(), tumbling(**{name: value})
    for potential in (one, other):
        potential.advance(10)
    before, state = other.frame, json.loads(json.dumps(one.state))
    with pytest.raises(InputError, match=f"a frame with a {name} of .* fs, and this one has {value} fs"):
        other.restore(state)
    assert other.frame == before
    other.restore(state | {name: value})
    one.advance()
    other.advance()
    assert other.frame != one.frame


def test_a_frame_refuses_structures_of_another_trajectory() -> None:
    """Other species or another number of atoms; the frame stays where it was."""
    potential = tumbling()
    lone, larger, other = water(), water() + Atoms("H", [[5.0, 0.0, 0.0]]), water()
    other.numbers[0] = 16
    lone.calc = potential.calculator()
    lone.get_forces()
    frame = potential.frame
    for structure, formula in ((larger, "H3O"), (other, "H2S")):
        structure.calc = potential.calculator()
        with pytest.raises(InputError, match=f"follows H2O and is given {formula}: a frame belongs to one trajectory"):
            structure.get_forces()
    assert potential.frame == frame
    again = tumbling()
    again.restore(json.loads(json.dumps(potential.state)))
    with pytest.raises(InputError, match="follows H2O and is given H3O"):
        again.follow(larger)
    lone.positions += 0.01
    lone.get_forces()
    assert potential.frame.step == frame.step + 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quaternion": [1.0, 0.0, 0.0]}, "quaternion must be 4 finite numbers"),
        ({"quaternion": [1.0, 0.0, 0.0, 1.0]}, "unit length"),
        ({"velocity": [0.0, 0.0, float("nan")]}, "velocity must be 3 finite numbers"),
        ({"torque": [1.0]}, "torque must be 3 finite numbers"),
        ({"step": -1}, "must be 0 or more"),
        ({"age": 3}, "age"),
    ],
)
def test_what_is_no_state_is_refused(change: dict, said: str) -> None:
    potential = tumbling()
    before = potential.frame
    with pytest.raises(InputError, match=f"not the state of a tumbling potential: .*{said}"):
        potential.restore(potential.state | change)
    with pytest.raises(InputError, match="not the state of a tumbling potential"):
        potential.restore({"step": 3})
    assert potential.frame == before
    assert isinstance(before, Frame)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timestep": 0.0}, "the time step of a tumbling potential is 0.0 fs; it must be a positive number"),
        ({"period": -1.0}, "the period"),
        ({"memory": float("inf")}, "the memory"),
        ({"memory": float("nan")}, "the memory"),
        ({"timestep": 30.0, "period": 200.0}, "too fast for a time step of 30 fs"),
        ({"seed": -2}, "0 or more, not -2"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        tumbling(**options)
    with pytest.raises(InputError, match="needs the time step"):
        symmetrize(PairToy(), "identity", strategy="tumble")


# Limits of fast and slow


def mean_of_second_legendre(period: float, memory: float, diffusion: float, steps: int, skip: int) -> tuple:
    """⟨P₂(m·a)⟩ of 300 rigid rotors that diffuse in one tumbling frame, m in the frame of the model; and its error.

    dQ = exp[D β τ dt + √(2 D dt) ξ] Q, τ the torque and β ε = 2.
    """
    strength, beta, timestep = 0.05, 40.0, 10.0
    molecule = Atoms("OH", [[0.0, 0.0, 0.0], [0.0, 0.0, 0.97]])
    toy = MolecularToy(2, 1, strength)
    frame = tumbling(toy, timestep=timestep, period=period, memory=memory, seed=2)
    base = PairToy().predict(molecule).energies[0]
    rng = np.random.default_rng(4)
    turns, found = random_rotations(300, rng), []
    for step in range(steps):
        (prediction,) = toy.turned(molecule, frame.matrix @ turns)
        if step >= skip:
            found.append((prediction.energies - base).mean() / strength)
        lever = molecule.positions @ turns.transpose(0, 2, 1)
        torque = np.cross(lever, prediction.forces @ frame.matrix).sum(axis=1)
        noise = np.sqrt(2.0 * diffusion * timestep) * rng.standard_normal((300, 3))
        turns = Rotation.from_rotvec(diffusion * beta * timestep * torque + noise).as_matrix() @ turns
        frame.advance()
    blocks = np.reshape(found, (10, -1)).mean(axis=1)
    return float(blocks.mean()), float(blocks.std(ddof=1) / np.sqrt(10))


def test_a_fast_frame_shows_the_average_and_a_slow_one_the_free_energy() -> None:
    """⟨∂V/∂ε⟩, V = ε P₂: the slope of V_avg = 0 if fast, of −kT ln⟨exp(−V/kT)⟩, the mean over Boltzmann, if slow."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    second = 1.5 * nodes**2 - 0.5
    boltzmann = weights * np.exp(-2.0 * second)
    slow = float(boltzmann @ second / boltzmann.sum())
    # Rotors relax within 1/6D: 20 steps of a frame that stands; 10⁴ steps of one that turns within 10.
    found, error = mean_of_second_legendre(1e8, 1e8, 1.0 / 1200.0, 300, 100)
    # The Euler step is of first order in 6 D dt = 1/20.
    assert found == pytest.approx(slow, abs=4.0 * error + 0.05 * abs(slow))
    assert error < 0.1 * abs(slow)
    fast, error = mean_of_second_legendre(100.0, 100.0, 1.0 / 6e5, 300, 0)
    assert abs(fast) < 4.0 * error + 0.02 * abs(slow)
    assert error < 0.1 * abs(slow)
