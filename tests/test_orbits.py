"""Frames in all orientations of their lattice: what an ensemble is, wherever a run has turned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.cell import Cell

from goniometer.observables.statics import (
    Static,
    dipole_correlation,
    direction_moments,
    pair_distribution,
    pair_moments,
)
from goniometer.rotations import Rule, grid_rule
from goniometer.sampling.orbits import Orbits, turned
from goniometer.sampling.reweighting import Reevaluated, evaluated_elements, reevaluate, reweighted
from goniometer.symmetrization import Averaged
from goniometer.symmetrization.crystal import lattice_elements
from goniometer.testing.toys import PeriodicToy
from goniometer.trajectories.h5md import Frames
from test_experiments import small_box
from test_liquid import trajectory
from test_reweighting import KT, disordered

CUBE = lattice_elements(Atoms("H", cell=9.0 * np.eye(3), pbc=True))


@pytest.mark.parametrize(
    ("cell", "count"),
    [
        ([9, 9, 9, 90, 90, 90], 48),
        ([9, 9, 8, 90, 90, 90], 16),
        ([9, 8, 7, 90, 90, 90], 8),
        ([9, 9, 8, 90, 90, 120], 24),
        ([9, 8, 7, 80, 75, 95], 2),
    ],
)
def test_elements_are_those_of_the_lattice(cell: list[float], count: int) -> None:
    structure = Atoms("H", cell=Cell.new(cell), pbc=True)
    found = lattice_elements(structure)
    assert len(found) == count
    np.testing.assert_allclose(found[0], np.eye(3), atol=1e-12)
    for matrix in found:  # whole numbers of cell vectors
        scaled = np.linalg.solve(structure.cell.array.T, matrix @ structure.cell.array.T)
        np.testing.assert_allclose(scaled, scaled.round(), atol=1e-9)
    products = np.einsum("aij,bjk->abik", found, found)[:, :, None]
    assert np.abs(products - found).max(axis=(3, 4)).min(axis=2).max() < 1e-9
    structure.pbc = False
    np.testing.assert_array_equal(lattice_elements(structure), [np.eye(3), -np.eye(3)])


def vectors(run_frames: Frames) -> np.ndarray:
    """d and |d| between two atoms."""
    d = run_frames.positions[:, 0, 1] - run_frames.positions[:, 0, 0]
    return np.column_stack([d, np.linalg.norm(d, axis=1)])


FIELD = 1.2 * KT


def table(d: np.ndarray, field: float = FIELD) -> Reevaluated:
    """V = −field d_z, its averages zero, on copies as well."""
    count = len(d)
    energies = np.column_stack([-field * d[:, 2], np.zeros((count, 2))])
    copies = Orbits(CUBE, -field * np.einsum("cj,fj->fc", CUBE[:, 2], d))
    steps = np.arange(count)
    return Reevaluated(steps, ("none", "i", "2i"), energies, np.zeros((count, 3, 2, 3)), None, True, steps, copies)


def drawn(rng: np.random.Generator, count: int) -> np.ndarray:
    """Vectors of two lengths, equally likely in the average, in equilibrium with V."""
    length = np.array([1.0, 2.0])
    x = FIELD * length / KT
    share = np.sinh(x) / x
    a = rng.choice(length, size=count, p=share / share.sum())
    b = FIELD * a / KT
    cosine = np.log(np.exp(-b) + rng.random(count) * (np.exp(b) - np.exp(-b))) / b
    angle = rng.uniform(0.0, 2.0 * np.pi, count)
    sine = np.sqrt(1.0 - cosine**2)
    return a[:, None] * np.column_stack([sine * np.cos(angle), sine * np.sin(angle), cosine])


def test_copies_give_the_ensemble_of_all_orientations(tmp_path: Path) -> None:
    """⟨d⟩ and ⟨|d|⟩ of a vector in a field: exact, from any copy of each frame; of the frames alone they are not."""
    rng, count = np.random.default_rng(3), 4000
    length = np.array([1.0, 2.0])
    x = FIELD * length / KT
    share = np.sinh(x) / x / (np.sinh(x) / x).sum()
    along = (share * length * (1.0 / np.tanh(x) - 1.0 / x)).sum()
    exact = np.array([0.0, 0.0, -along, length.mean() - (share * length).sum()])
    structure = Atoms("H2", np.zeros((2, 3)), cell=9.0 * np.eye(3), pbc=True)
    observable = Static("d", "Angstrom", {}, vectors, np.asarray)
    d = drawn(rng, count)
    # The copy of each frame whose d lies closest to (1, 0, 0): another that is as good.
    frozen = np.einsum("cij,fj->fci", CUBE, d)
    frozen = frozen[np.arange(count), frozen[:, :, 0].argmax(axis=1)]
    by_copies, alone = [], []
    for vector in (d, frozen):
        positions = np.zeros((count, 2, 3))
        positions[:, 1] = vector
        run, evaluated = trajectory(tmp_path, structure, positions), table(vector)
        sides = evaluated.sides_by_orbit(run, observable, evaluated.by_orbit("2i"), 300.0)
        by_copies.append(reweighted([sides["2i"].less(sides["none"])], 300.0))
        plain = {grid: evaluated.side(run, observable, grid) for grid in ("none", "2i")}
        alone.append(reweighted([plain["2i"].less(plain["none"])], 300.0))
        # Over the lattice the average is worked out, over 2i it is what was given.
        averaged = reweighted([sides["i"].less(sides["none"])], 300.0)
        np.testing.assert_allclose(averaged.values, by_copies[-1].values, atol=1e-12)
    assert (np.abs(by_copies[0].values - exact)[2:] < 4.0 * by_copies[0].errors[2:]).all()
    np.testing.assert_allclose(by_copies[0].values[:2], 0.0, atol=1e-12)
    np.testing.assert_allclose(by_copies[1].values, by_copies[0].values, atol=1e-12)
    assert (np.abs(alone[0].values - exact) < 4.0 * alone[0].errors).all()
    assert (by_copies[0].errors < 0.6 * alone[0].errors).all()
    assert abs(alone[1].values[2] - exact[2]) > 20.0 * alone[1].errors[2], "control: frames of one orientation"


def test_a_run_that_never_turned_is_right_to_leading_order(tmp_path: Path) -> None:
    """In a weak field, of vectors that stay within one domain of the cube about x; from the frames alone it is lost."""
    rng, count = np.random.default_rng(5), 40000
    vectors_of_all = rng.normal(size=(count, 3))
    length = np.linalg.norm(vectors_of_all, axis=1)
    vectors_of_all *= (rng.choice([1.0, 2.0], size=count) / length)[:, None]
    along_x = np.einsum("cij,fj->fci", CUBE, vectors_of_all)
    d = along_x[np.arange(count), along_x[:, :, 0].argmax(axis=1)]
    weak = 0.2 * KT
    accepted = rng.random(count) < np.exp(weak * (d[:, 2] - 2.0) / KT)
    d = d[accepted][:4000]
    positions = np.zeros((len(d), 2, 3))
    positions[:, 1] = d
    run = trajectory(tmp_path, Atoms("H2", np.zeros((2, 3)), cell=9.0 * np.eye(3), pbc=True), positions)
    evaluated = table(d, weak)
    observable = Static("d", "Angstrom", {}, vectors, np.asarray)
    sides = evaluated.sides_by_orbit(run, observable, evaluated.by_orbit("2i"), 300.0)
    found = reweighted([sides["2i"].less(sides["none"])], 300.0)
    plain = {grid: evaluated.side(run, observable, grid) for grid in ("none", "2i")}
    lost = reweighted([plain["2i"].less(plain["none"])], 300.0)
    x = weak * np.array([1.0, 2.0]) / KT
    share = np.sinh(x) / x / (np.sinh(x) / x).sum()
    along = (share * np.array([1.0, 2.0]) * (1.0 / np.tanh(x) - 1.0 / x)).sum()
    assert float(found.values[2]) == pytest.approx(-along, rel=0.1)
    assert abs(float(lost.values[2])) < 0.5 * along, "control: frames of one orientation"


def test_what_a_grid_leaves_of_mirror_images_is_not_lost() -> None:
    """Of a grid without inversion nothing is said of copies that it has not seen."""
    d = np.ones((3, 3))
    evaluated = table(d)
    assert set(evaluated.by_orbit("2i")) == {"none", "i", "2i"}
    renamed = replace(evaluated, grids=("none", "i", "2"))
    assert set(renamed.by_orbit("2")) == {"none", "i"}
    assert replace(evaluated, orbits=None).by_orbit("2i") == {}


def test_the_average_turns_first_by_the_copy_and_then_by_the_rule() -> None:
    """By quarter turns about z, which do not commute with the cube's."""
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    turns = np.stack([np.linalg.matrix_power(quarter, power) for power in range(4)])
    over = Rule("quarter turns", turns, np.full(4, 0.25), degree=0)
    rng = np.random.default_rng(6)
    axis, tensor = rng.normal(size=3), rng.normal(size=(3, 3))

    def energy(matrix: np.ndarray) -> float:
        return float((matrix @ axis)[0] ** 3 + (matrix @ axis)[2] * (matrix @ axis)[1] ** 2)

    def virial(matrix: np.ndarray) -> np.ndarray:
        return energy(matrix) * (matrix @ tensor @ matrix.T) @ np.diag([1.0, 2.0, 3.0])

    back = np.array([each.T @ virial(each) @ each for each in CUBE])
    orbits = Orbits(CUBE, np.array([[energy(each) for each in CUBE]]), back[None])
    found = orbits.average(over)
    assert found is not None
    assert found.virials is not None
    for copy, matrix in enumerate(CUBE):
        assert found.energies[0, copy] == pytest.approx(np.mean([energy(turn @ matrix) for turn in turns]))
        expected = np.mean([turn.T @ virial(turn @ matrix) @ turn for turn in turns], axis=0)
        np.testing.assert_allclose(matrix @ found.virials[0, copy] @ matrix.T, expected, atol=1e-12)
    wrong = np.mean([energy(CUBE[9] @ turn) for turn in turns])
    assert abs(found.energies[0, 9] - wrong) > 1e-3, "control: the other order"


def test_copies_are_evaluated_as_they_stand(tmp_path: Path) -> None:
    structure, positions, run = disordered(tmp_path, 1, 12)
    model = PeriodicToy(ell=2, strength=0.03)
    found = reevaluate(run, model, ("none", "i", "O", "2"), frames=2)
    assert found.orbits is not None
    known = found.by_orbit("2")
    assert set(known) == {"none", "i", "O"}
    for grid, seen in known.items():
        said_by = model if grid == "none" else Averaged(model, grid_rule(grid))
        for place, frame in enumerate(found.frames):
            for copy in (0, 5, 29):
                matrix = seen.matrices[copy]
                atoms = structure.copy()
                atoms.positions = positions[frame] @ matrix.T
                said = said_by.predict(atoms)
                assert seen.energies[place, copy] == pytest.approx(said.energies[0], abs=1e-10)
                assert said.virials is not None
                assert seen.virials is not None
                np.testing.assert_allclose(matrix @ seen.virials[place, copy] @ matrix.T, said.virials[0], atol=1e-9)
    assert np.ptp(found.orbits.energies[0]) > 1e-3  # the model tells them apart
    # The octahedron's rotations turn each copy into half of the others, which are all alike for it.
    assert all(len(set(each.round(9))) <= 2 for each in known["O"].energies)
    assert evaluated_elements(("none", "i", "O", "2"), structure) == len(grid_rule("2")) + 48


def test_energy_pressure_and_stress_are_those_of_copies(tmp_path: Path) -> None:
    _, _, run = disordered(tmp_path, 2, 12)
    found = reevaluate(run, PeriodicToy(ell=2, strength=0.03), ("none", "2i"), frames=3)
    assert found.orbits is not None
    weights = found.orbits.weights(300.0)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    known = found.by_orbit("2i")
    by_kind = {
        kind: found.sides_by_orbit(run, kind, known, 300.0) for kind in ("potential-energy", "pressure", "stress")
    }
    mean = (weights * found.orbits.energies).sum(axis=1) / 8
    np.testing.assert_allclose(by_kind["potential-energy"]["none"].sampled.samples, mean)
    np.testing.assert_allclose(by_kind["potential-energy"]["2i"].sampled.samples, found.energies[:, 1] / 8)
    frames = run.taken(found.frames)
    for grid in ("none", "2i"):
        stress = by_kind["stress"][grid].sampled.samples
        pressure = by_kind["pressure"][grid].sampled.samples
        np.testing.assert_allclose(pressure, -np.trace(stress, axis1=1, axis2=2) / 3.0, rtol=1e-9)
    # In the mean over a cube's copies the stress of what is the same in all of them has no direction.
    along = by_kind["pressure"]["2i"].sampled.samples[:, None, None] * -np.eye(3)
    np.testing.assert_allclose(by_kind["stress"]["2i"].sampled.samples, along, atol=1e-12)
    plain = found.side(run, "stress", "2i").sampled.samples
    assert np.abs(plain - along).max() > 1e-4, "control: of the frames alone it has"
    assert len(frames) == 3


def test_what_is_said_to_be_invariant_is(tmp_path: Path) -> None:
    from goniometer.structures.reading import read_structures

    atoms = read_structures(str(small_box(tmp_path / "box.xyz")))[0].atoms
    rng = np.random.default_rng(4)
    run = trajectory(tmp_path, atoms, atoms.positions + rng.normal(scale=0.05, size=(2, len(atoms), 3)))
    frames = run.frames()
    for made, invariant in (
        (pair_distribution(run), True),
        (pair_distribution(run, "O-H"), True),
        (dipole_correlation(run), True),
        (pair_moments(run), False),
        (direction_moments(run), False),
    ):
        assert made.invariant is invariant
        moved = [np.abs(made.samples(turned(frames, each)) - made.samples(frames)).max() for each in CUBE]
        size = np.abs(made.samples(frames)).max()
        assert bool(max(moved) < 1e-8 * size) is invariant
