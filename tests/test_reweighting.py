"""Another potential's averages from the frames of this one's: exact answers, and what evaluating anew says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units

from goniometer.errors import InputError
from goniometer.observables.statics import Static
from goniometer.potentials import Potential, Prediction
from goniometer.potentials.base import inherit
from goniometer.rotations import rule
from goniometer.sampling.reweighting import Part, Reevaluated, reevaluate, reweighted, spread, symmetry_errors
from goniometer.symmetrization import Averaged
from goniometer.testing.toys import PeriodicToy
from goniometer.trajectories.h5md import Frames, Trajectory
from test_liquid import trajectory

KT = units.kB * 300.0


def squared() -> Static:
    """⟨x²⟩ and ⟨x⟩² of the first coordinate: what is linear in the mean, and what is not."""

    def samples(frames) -> np.ndarray:
        x = frames.positions[:, 0, 0, 0]
        return np.stack([x**2, x], axis=-1)

    return Static("x", "Angstrom^2", {}, samples, lambda mean: np.array([mean[0], mean[0] - mean[1] ** 2]))


def test_a_harmonic_oscillator_is_exact(tmp_path: Path) -> None:
    """V = ½ k x², ΔV = ½ κ x² − f x: ⟨x²⟩ = kT/(k + κ) + (f/(k + κ))², of which the first is the variance."""
    rng = np.random.default_rng(0)
    stiffness, more, force, count = 0.5, 0.05, 0.02, 8000
    x = rng.normal(scale=np.sqrt(KT / stiffness), size=count)
    positions = np.zeros((count, 1, 3))
    positions[:, 0, 0] = x
    run = trajectory(tmp_path, Atoms("H", [[0, 0, 0]], cell=9.0 * np.eye(3), pbc=True), positions)
    correction = 0.5 * more * x**2 - force * x
    found = reweighted([Part(squared().on(run.frames()), correction)], 300.0)
    variance = KT / (stiffness + more)
    expected = np.array([variance + (force / (stiffness + more)) ** 2, variance]) - KT / stiffness
    assert (np.abs(found.values - expected) < 4.0 * found.errors).all()
    # Two runs of as many frames could not have told.
    apart = KT / stiffness * np.sqrt(2.0 / count) * np.sqrt(2.0)
    assert (found.errors < 0.4 * apart).all()
    assert 0.9 < found.about["effective_share"] < 1.0
    # Controls: the wrong sign is found out, and a large correction says so itself.
    wrong = reweighted([Part(squared().on(run.frames()), -correction)], 300.0)
    assert abs(wrong.values[1] - expected[1]) > 10.0 * wrong.errors[1]
    assert reweighted([Part(squared().on(run.frames()), 20.0 * correction)], 300.0).about["effective_share"] < 0.5


def disordered(folder: Path, seed: int, frames: int) -> tuple[Atoms, np.ndarray, Trajectory]:
    """Eight atoms anywhere in a cube, the positions of frames about them, and their trajectory."""
    rng = np.random.default_rng(seed)
    structure = Atoms("Ar8", rng.random((8, 3)) * 9.0, cell=9.0 * np.eye(3), pbc=True)
    positions = structure.positions + rng.normal(scale=0.1, size=(frames, 8, 3))
    return structure, positions, trajectory(folder, structure, positions)


def test_frames_are_evaluated_anew_as_they_stand(tmp_path: Path) -> None:
    structure, positions, run = disordered(tmp_path, 1, 20)
    model = PeriodicToy(ell=2, strength=0.03)
    found = reevaluate(run, model, ("none", "i", "2i", "O", "T"), frames=5)
    assert found.frames.tolist() == spread(run, 5).tolist()
    assert found.frames[0] == 3
    for place, number in enumerate(found.frames):
        atoms = structure.copy()
        atoms.positions = positions[number]
        over = [
            None,
            *(rule(*each) for each in (("identity", True), ("legendre:2", True), ("octahedral",), ("tetrahedral",))),
        ]
        for column, each in enumerate(over):
            said = (model if each is None else Averaged(model, each)).predict(atoms)
            assert found.energies[place, column] == pytest.approx(said.energies[0], abs=1e-10)
            np.testing.assert_allclose(found.forces[place, column], said.forces[0], atol=1e-10)
            if said.virials is not None and found.virials is not None:
                np.testing.assert_allclose(found.virials[place, column], said.virials[0], atol=1e-10)
    assert found.virials is not None
    table = symmetry_errors([found], "2i")
    assert table.values[0, 0] == pytest.approx(np.abs(found.correction("2i")).mean())
    assert table.values[0, 1] > 1e-3
    assert (table.values[2] == 0.0).all()
    # What several grids hold is evaluated once, and all that these hold maps the lattice onto itself.
    copies = Counted(model)
    reevaluate(run, copies, ("none", "i", "O", "T"), frames=3)
    assert copies.evaluated == 3 * 48
    with pytest.raises(InputError, match="grid '3' was not evaluated; there are none, i, 2i"):
        found.correction("3")
    with pytest.raises(InputError, match="there is no grid '7'"):
        reevaluate(run, model, ("7",))


def test_errors_know_that_frames_remember_each_other() -> None:
    rng = np.random.default_rng(2)
    slow = np.repeat(rng.standard_normal(16), 16)
    energies = np.stack([slow, np.zeros(256)], axis=1)
    found = Reevaluated(np.arange(256), ("none", "3i"), energies, np.zeros((256, 2, 1, 3)))
    table = symmetry_errors([found])
    naive = np.abs(slow).std() / 16.0
    assert table.errors[0, 0] > 2.0 * naive


@pytest.mark.parametrize("memory", [0.0, 0.8, 1.0])
def test_runs_that_know_nothing_of_each_other_have_the_error_of_their_scatter(tmp_path: Path, memory: float) -> None:
    """V = ½ k x², ΔV = −f x, so that ⟨x⟩ = f/k; six runs of seven frames, which remember the one before, or all.

    As one series, which they are not, frames that remember have too small an error.
    """
    rng, stiffness, force, runs, count = np.random.default_rng(3), 0.5, 0.02, 6, 7
    width, exact = np.sqrt(KT / stiffness), force / stiffness
    place = Static("x", "Angstrom", {}, lambda frames: frames.positions[:, 0, 0, 0], np.asarray)
    found, joined = [], []
    for _ in range(200):
        x = width * np.stack([remembering(rng, count, memory) for _ in range(runs)])
        parts = [Part(place.on(some(each)), -force * each) for each in x]
        found.append(reweighted(parts, 300.0))
        joined.append(reweighted([Part(place.on(some(x.ravel())), -force * x.ravel())], 300.0))
    values = np.array([float(each.values) for each in found])
    errors, wrong = (np.sqrt(np.mean([float(each.errors) ** 2 for each in kind])) for kind in (found, joined))
    assert found[0].about["frames"] == runs * count
    assert abs(values.mean() - exact) < 4.0 * values.std() / np.sqrt(200) + 0.1 * exact
    assert 0.85 < errors / values.std() < 1.6
    if memory:
        assert wrong < 0.85 * values.std(), "control: one series"


class Counted(Potential):
    """Counts the copies that a potential evaluates."""

    def __init__(self, potential: Potential) -> None:
        self.potential, self.evaluated, self.name = potential, 0, "counted"
        inherit(self, potential)

    def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
        self.evaluated += len(matrices)
        return self.potential.turned(structure, matrices)


def remembering(rng: np.random.Generator, count: int, memory: float) -> np.ndarray:
    series = [rng.normal()]
    for _ in range(count - 1):
        series.append(memory * series[-1] + np.sqrt(1.0 - memory**2) * rng.normal())
    return np.array(series)


def some(x: np.ndarray) -> Frames:
    """Frames of one atom at such places."""
    positions = np.zeros((len(x), 1, 1, 3))
    positions[:, 0, 0, 0] = x
    return Frames(np.arange(len(x)), 1.0 * np.arange(len(x)), positions, np.zeros_like(positions), {})


def test_two_potentials_neither_of_which_made_the_frames(tmp_path: Path) -> None:
    """Under −f x and −f₀ x the means differ by (f − f₀)/k, which is known far better than either."""
    rng, stiffness, force, less, count = np.random.default_rng(11), 0.5, 0.03, 0.025, 4000
    place = Static("x", "Angstrom", {}, lambda frames: frames.positions[:, 0, 0, 0], np.asarray)
    x = np.sqrt(KT / stiffness) * rng.standard_normal(count)
    plain = place.on(some(x))
    found = reweighted([Part(plain, -force * x, base=-less * x)], 300.0)
    one, other = (reweighted([Part(plain, -each * x)], 300.0) for each in (force, less))
    assert float(found.values) == pytest.approx(float(one.values) - float(other.values), abs=1e-12)
    assert abs(float(found.values) - (force - less) / stiffness) < 4.0 * float(found.errors)
    assert float(found.errors) < 0.3 * min(float(each.errors) for each in (one, other))
    assert found.about["spread_meV"] == pytest.approx(1e3 * (force - less) * x.std())
    # Frames that say little of what it is compared with count for little.
    assert reweighted([Part(plain, -force * x, base=-20.0 * force * x)], 300.0).about["effective_share"] < 0.5
    # Of one potential with itself nothing is left, and A′ is that of the second.
    assert float(reweighted([Part(plain, -force * x, base=-force * x)], 300.0).values) == 0.0
    moved = reweighted([Part(plain, -force * x, replace(plain, samples=plain.samples + 1.0), -force * x)], 300.0)
    assert float(moved.values) == pytest.approx(1.0)


def test_parts_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    five = squared().on(some(np.zeros(5)))
    with pytest.raises(InputError, match="there are 5 frames and 4 corrections of their energy"):
        reweighted([Part(five, np.zeros(4))], 300.0)
    parts = [Part(five, np.zeros(5), other) for other in (None, five)]
    with pytest.raises(InputError, match="either of all parts what has changed, and a base, or of none"):
        reweighted(parts, 300.0)
    with pytest.raises(InputError, match="either of all parts what has changed, and a base, or of none"):
        reweighted([Part(five, np.zeros(5), base=each) for each in (None, np.zeros(5))], 300.0)
    uneven = Part(five, np.zeros(5), base=np.zeros(5))
    object.__setattr__(uneven, "base", np.zeros(6))  # here types are checked, and elsewhere not
    with pytest.raises(InputError, match="there are 5 frames and 6 corrections of their energy"):
        reweighted([uneven], 300.0)
    with pytest.raises(InputError, match="reweighting takes frames"):
        reweighted([], 300.0)
    structure = Atoms("H", [[0, 0, 0]], cell=9.0 * np.eye(3), pbc=True)
    run = trajectory(tmp_path, structure, np.arange(30.0).reshape(10, 1, 3))
    np.testing.assert_array_equal(run.taken(np.array([0, 3, 9])).positions[:, 0, 0, 0], [0.0, 9.0, 27.0])
    for wrong in ([3, 3], [4, 3], [9, 10], [-1, 2], []):
        with pytest.raises(InputError, match="by numbers that increase, from 0 to 9"):
            run.taken(np.array(wrong, dtype=np.int64))
    assert spread(run, 1, 0.0).tolist() == [5]
    assert spread(run, 3, 0.4).tolist() == [5, 7, 9]
    assert spread(run, 50, 0.0).tolist() == list(range(10))
