"""Observables of liquids against known answers: ideal gases, lattices, free particles, rotors, a harmonic solid."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from goniometer.cli.app import app
from goniometer.errors import InputError
from goniometer.observables import OBSERVABLES, STATICS, observe
from goniometer.observables.blocks import MOST, Blocks
from goniometer.observables.correlations import (
    diffusion,
    mean_squared_displacement,
    reorientation,
    velocity_autocorrelation,
    vibrations,
)
from goniometer.observables.molecules import find_molecules
from goniometer.observables.result import Observable
from goniometer.observables.statics import average, dipole_correlation, pair_distribution, pair_moments
from goniometer.structures import read_structures
from goniometer.trajectories.h5md import Excerpt, Frames, Trajectory, read_trajectory, write_segment

TRICLINIC = np.array([[17.0, 0.0, 0.0], [5.0, 16.0, 0.0], [-6.0, 4.0, 15.0]])
WATER = read_structures("molecule")[0].atoms


def trajectory(
    folder: Path,
    structure: Atoms,
    positions: np.ndarray,
    *,
    velocities: np.ndarray | None = None,
    spacing: float = 10.0,
    **observables: np.ndarray,
) -> Trajectory:
    """Positions (T, N, 3) as a run would have left them."""
    steps = np.arange(len(positions))
    moving = np.zeros_like(positions) if velocities is None else velocities
    frames = Frames(steps, steps * spacing, positions[:, None], moving[:, None], observables)
    path = folder / "frames-000000.h5"
    write_segment(path, structure, frames, {})
    return read_trajectory(folder)


def water(molecules: np.ndarray, cell: np.ndarray, rotations: Rotation | None = None) -> Atoms:
    """Molecules of water at places, turned."""
    body = WATER.positions - WATER.positions[0]
    turned = np.stack([body] * len(molecules)) if rotations is None else np.stack([r.apply(body) for r in rotations])
    atoms = Atoms("OHH" * len(molecules), (molecules[:, None] + turned).reshape(-1, 3), cell=cell, pbc=True)
    return atoms


# ---- pairs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [16.0 * np.eye(3), TRICLINIC], ids=["cubic", "triclinic"])
@pytest.mark.parametrize("pair", ["Ar-Ar", "Ar-Kr"])
def test_an_ideal_gas_has_no_structure(tmp_path: Path, cell: np.ndarray, pair: str) -> None:
    rng = np.random.default_rng(0)
    structure = Atoms("Ar60Kr30", rng.random((90, 3)) @ cell, cell=cell, pbc=True)
    run = trajectory(tmp_path, structure, rng.random((400, 90, 3)) @ cell)
    found = average(run, pair_distribution(run, pair))
    assert found.axes["r"].values[-1] <= 0.5 / np.linalg.norm(np.linalg.inv(cell), axis=0).max() + 1e-9
    beyond = found.axes["r"].values > 1.0
    deviations = (found.values - 1.0)[beyond] / found.errors[beyond]
    # Points a kernel apart are independent: some 60 of them.
    assert np.abs(deviations).max() < 4.5
    assert 0.6 < deviations.std() < 1.5
    # Three hundred thousand independent pairs.
    assert abs(np.average(found.values, weights=found.axes["r"].values ** 2) - 1.0) < 7e-3
    moments = average(run, pair_moments(run, pair))
    assert np.abs(moments.values[:, beyond] / moments.errors[:, beyond]).max() < 5.0


@pytest.mark.parametrize("skewed", [False, True])
def test_a_lattice_has_its_shells(tmp_path: Path, skewed: bool) -> None:
    structure = bulk("Ar", "fcc", a=5.2, cubic=True).repeat(4)
    if skewed:  # the same lattice in a cell that is not orthogonal
        structure = Atoms(structure.numbers, structure.positions, cell=structure.cell.array, pbc=True)
        structure.set_cell(structure.cell.array @ np.eye(3) + np.array([[0, 0, 0], [20.8, 0, 0], [0, 20.8, 0]]))
    run = trajectory(tmp_path, structure, np.repeat(structure.positions[None], 5, axis=0))
    found = average(run, pair_distribution(run, "Ar-Ar", kernel=0.05))
    r, g = found.axes["r"].values, found.values
    density = len(structure) / structure.get_volume() * (len(structure) - 1) / len(structure)
    counted = np.cumsum(4.0 * np.pi * r**2 * g * density) * (r[1] - r[0])
    nearest, within = 5.2 / np.sqrt(2.0), 0
    for multiplicity, distance in zip((12, 6, 24), (1.0, np.sqrt(2.0), np.sqrt(3.0)), strict=True):
        near = np.abs(r - distance * nearest) < 0.3
        if distance * nearest + 0.3 > r[-1]:
            continue
        within += 1
        assert r[near][np.argmax(g[near])] == pytest.approx(distance * nearest, abs=0.02)
        assert counted[near][-1] - counted[near][0] == pytest.approx(multiplicity, rel=5e-3)
    assert within == (2 if skewed else 3)


def test_smoothed_counts_are_those_of_a_loop_over_atoms(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    structure = Atoms("Ar30", rng.random((30, 3)) @ TRICLINIC, cell=TRICLINIC, pbc=True)
    run = trajectory(tmp_path, structure, structure.positions[None] + np.zeros((2, 1, 1)))
    of = pair_distribution(run, "Ar-Ar")
    width, points = 0.1 / 20, of.axes["r"].values
    bins = int(np.ceil((points[-1] + 0.6) / width))
    counts = np.zeros(bins)
    for one in range(30):
        for other in range(30):
            for shift in np.ndindex(3, 3, 3):
                vector = structure.positions[other] - structure.positions[one] + (np.array(shift) - 1) @ TRICLINIC
                length = np.linalg.norm(vector)
                if 1e-9 < length < bins * width:
                    counts[int(length / width)] += 1
    centres = (np.arange(bins) + 0.5) * width
    kernel = np.exp(-0.5 * ((points[:, None] - centres) / 0.1) ** 2) / (np.sqrt(2 * np.pi) * 0.1)
    fine = np.linspace(0.0, points[-1] + 1.5, 20001)
    shells = np.exp(-0.5 * ((points[:, None] - fine) / 0.1) ** 2) / (np.sqrt(2 * np.pi) * 0.1) * 4 * np.pi * fine**2
    expected = kernel @ counts * structure.get_volume() / (30 * 29) / np.trapezoid(shells, fine, axis=1)
    np.testing.assert_allclose(average(run, of).values, expected, rtol=1e-6, atol=1e-7)


def test_a_stretched_liquid_is_found_by_its_moments_alone(tmp_path: Path) -> None:
    """Repelling particles, squeezed along z by 4 %: the control is the same without."""
    rng = np.random.default_rng(2)
    cell = 12.0 * np.eye(3)
    frames = []
    for _ in range(60):
        places = [rng.random(3) * 12.0]
        while len(places) < 60:
            trial = rng.random(3) * 12.0
            away = np.array(places) - trial
            away -= 12.0 * np.round(away / 12.0)
            if (np.linalg.norm(away, axis=1) > 2.0).all():
                places.append(trial)
        frames.append(places)
    positions = np.array(frames)
    structure = Atoms("Ar60", positions[0], cell=cell, pbc=True)

    def largest(folder: str, factor: float) -> float:
        (tmp_path / folder).mkdir()
        squeezed = structure.copy()
        squeezed.set_cell(cell * np.array([1.0, 1.0, factor]))
        run = trajectory(tmp_path / folder, squeezed, positions * np.array([1.0, 1.0, factor]))
        found = average(run, pair_moments(run, "Ar-Ar"))
        near = np.abs(found.axes["r"].values - 2.0) < 0.3
        return float(np.abs(found.values[2, near] / found.errors[2, near]).max())

    assert largest("alike", 1.0) < 4.0
    assert largest("squeezed", 0.95) > 6.0


# ---- molecules ------------------------------------------------------------------------------------------------------


def test_molecules_are_found_wherever_the_cell_cuts_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) / 3.0 @ TRICLINIC
    structure = water(grid, TRICLINIC, Rotation.random(27, rng=rng))
    shuffled = rng.permutation(81)
    mixed = structure[shuffled]
    cut = mixed.copy()
    cut.positions += np.array([0.3, 0.2, -0.4])
    cut.wrap()
    directions = []
    for each in (structure, mixed, cut):
        (tmp_path / str(len(directions))).mkdir()
        run = trajectory(tmp_path / str(len(directions)), each, each.positions[None].repeat(2, axis=0))
        molecules = find_molecules(run.replica)
        assert len(molecules) == 27
        assert (run.replica.numbers[molecules.atoms] == [8, 1, 1]).all()
        found = molecules.directions(run.frames())[0]
        directions.append(found[np.lexsort(found.round(6).T)])
    np.testing.assert_allclose(directions[1], directions[0], atol=1e-12)
    np.testing.assert_allclose(directions[2], directions[0], atol=1e-12)
    np.testing.assert_array_equal(find_molecules(structure, size=3).atoms, np.arange(81).reshape(-1, 3))


def test_molecules_that_are_none_are_refused() -> None:
    oxygen = Atoms("O2", [[0, 0, 0], [0, 0, 1.2]])
    with pytest.raises(InputError, match="only water has a direction by default"):
        find_molecules(oxygen)
    find_molecules(oxygen, weights=(-1.0, 1.0))
    with pytest.raises(InputError, match="takes 2 weights, one an atom, that sum to zero"):
        find_molecules(oxygen, weights=(1.0, 1.0))
    with pytest.raises(InputError, match=r"not all alike: they have 1, 3 atoms"):
        find_molecules(WATER + Atoms("Ar", [[5.0, 0, 0]]))
    with pytest.raises(InputError, match="3 atoms are no molecules of 2 atoms in a row"):
        find_molecules(WATER, size=2)
    with pytest.raises(InputError, match="differ in their elements"):
        find_molecules(Atoms("OHHNHH", np.concatenate([WATER.positions, WATER.positions + 5.0])), size=3)


def test_dipoles_that_all_point_alike_are_correlated_as_geometry_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    cell = 14.0 * np.eye(3)
    frames = [water(rng.random((60, 3)) * 14.0, cell).positions for _ in range(50)]
    structure = water(rng.random((60, 3)) * 14.0, cell)
    structure.positions = frames[0]
    run = trajectory(tmp_path, structure, np.stack(frames))
    molecules = find_molecules(structure, size=3)
    found = average(run, dipole_correlation(run, molecules, closest=0.0))
    r = found.axes["r"].values
    longitudinal, transverse = found.values
    np.testing.assert_allclose((longitudinal + transverse)[r > 1.0], 1.0, atol=1e-9)
    assert longitudinal[r > 3.0].mean() == pytest.approx(1.0 / 3.0, abs=0.01)  # ⟨cos² θ⟩ of uniform places
    # Of water it is known where there are pairs: the rest of the curve is the same.
    far = average(run, dipole_correlation(run, molecules))
    np.testing.assert_array_equal(np.isnan(far.values).all(axis=0), r < 2.5)
    np.testing.assert_array_equal(far.values[:, r >= 2.5], found.values[:, r >= 2.5])
    assert far.about["closest"] == 2.5
    for wrong in (-1.0, 8.0):
        with pytest.raises(InputError, match="the closest distance is below the farthest"):
            dipole_correlation(run, molecules, closest=wrong)


def test_dipoles_that_point_anywhere_are_not_correlated(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    cell = 14.0 * np.eye(3)
    frames = np.stack(
        [water(rng.random((40, 3)) * 14.0, cell, Rotation.random(40, rng=rng)).positions for _ in range(80)]
    )
    structure = water(rng.random((40, 3)) * 14.0, cell)
    run = trajectory(tmp_path, structure, frames)
    molecules = find_molecules(structure, size=3)
    found = average(run, dipole_correlation(run, molecules, closest=0.0))
    beyond = found.axes["r"].values > 1.5
    assert np.abs(found.values / found.errors)[:, beyond].max() < 5.0
    fluctuation = average(run, STATICS["dipole-fluctuation"](run, molecules=molecules))
    np.testing.assert_allclose(np.diag(fluctuation.values), 1.0, atol=0.5)
    assert np.trace(fluctuation.values) / 3.0 == pytest.approx(1.0, abs=0.25)
    flat = average(run, STATICS["orientation"](run, molecules=molecules))
    assert np.abs(flat.values / flat.errors).max() < 5.0
    # Control: a planted preference for z is seen in the laboratory's frame.
    planted = frames.reshape(80, 40, 3, 3).copy()
    arms = planted - planted[:, :, :1]
    down = arms[..., 1:, 2].sum(axis=-1) < -0.3
    arms[down] *= np.array([1.0, 1.0, -1.0])
    (tmp_path / "planted").mkdir()
    biased = trajectory(tmp_path / "planted", structure, (planted[:, :, :1] + arms).reshape(80, -1, 3))
    moments = average(biased, STATICS["direction-moments"](biased, molecules=molecules))
    place = moments.axes["moment"].values.tolist().index("1,0")
    assert moments.values[place] > 10.0 * moments.errors[place]
    honest = average(run, STATICS["direction-moments"](run, molecules=molecules))
    assert np.abs(honest.values / honest.errors).max() < 4.5


def test_dipoles_of_the_cell_that_prefer_a_direction_are_found(tmp_path: Path) -> None:
    """Molecules that point up together or down together, in half of the frames each; the control: anywhere."""
    rng = np.random.default_rng(15)
    cell, count = 30.0 * np.eye(3), 27
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * 10.0
    structure = water(grid, cell)
    anywhere = np.stack([water(grid, cell, Rotation.random(count, rng=rng)).positions for _ in range(400)])

    def fluctuation(folder: str, positions: np.ndarray) -> np.ndarray:
        (tmp_path / folder).mkdir()
        run = trajectory(tmp_path / folder, structure, positions)
        found = average(run, STATICS["dipole-fluctuation"](run))
        isotropic = np.eye(3) * np.trace(found.values) / 3.0
        return np.asarray((found.values - isotropic) / found.errors)

    arms = anywhere.reshape(400, count, 3, 3) - anywhere.reshape(400, count, 3, 3)[:, :, :1]
    up = arms[:, :, 1:, 2].sum(axis=-1)
    wanted = np.where(rng.random(400) < 0.5, 1.0, -1.0)[:, None]
    arms[..., 2] *= np.where(up * wanted < 0.0, -1.0, 1.0)[..., None]
    planted = (grid[:, None] + arms).reshape(400, -1, 3)
    assert np.abs(fluctuation("alike", anywhere)).max() < 4.5
    biased = fluctuation("planted", planted)
    assert biased[2, 2] > 20.0
    # No mean dipole: the moments of odd degree do not see it.
    run = read_trajectory(tmp_path / "planted")
    moments = average(run, STATICS["direction-moments"](run, degree=1))
    assert np.abs(moments.values / moments.errors).max() < 4.5


def test_molecules_point_as_they_do_in_cells_that_change(tmp_path: Path) -> None:
    rng = np.random.default_rng(16)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) / 3.0
    factors, frames, exact = 1.0 + 0.1 * np.sin(np.arange(8)), [], []
    for factor in factors:
        cell = factor * TRICLINIC
        turns = Rotation.random(27, rng=rng)
        atoms = water((grid + 0.03 * rng.random((27, 3))) @ cell + rng.random(3), cell, turns)
        molecules = find_molecules(atoms)
        body = WATER.positions[1:].mean(axis=0) - WATER.positions[0]
        exact.append(turns.apply(body / np.linalg.norm(body)))
        atoms.wrap()
        frames.append(atoms)
    ase.io.write(tmp_path / "npt.traj", frames)
    found = molecules.directions(read_trajectory(tmp_path / "npt.traj", 1.0).frames())
    np.testing.assert_allclose(found, exact, atol=1e-9)


# ---- time -----------------------------------------------------------------------------------------------------------


def test_free_particles_move_ballistically(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    velocities = rng.standard_normal((40, 3)) * 0.01
    times = 10.0 * np.arange(200)
    positions = rng.random((40, 3)) * 12.0 + times[:, None, None] * velocities
    structure = Atoms("O40", positions[0], cell=12.0 * np.eye(3), pbc=True)
    run = trajectory(tmp_path, structure, positions, velocities=np.repeat(velocities[None], 200, axis=0))
    found = mean_squared_displacement(run, longest=500.0)
    lags = found.axes["time"].values
    assert lags.tolist() == (10.0 * np.arange(51)).tolist()
    tensor = np.einsum("ai,aj->ij", velocities, velocities) / 40
    expected = np.array([np.trace(tensor), *np.diag(tensor), tensor[1, 2], tensor[0, 2], tensor[0, 1]])
    np.testing.assert_allclose(found.values, expected[:, None] * lags**2, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(velocity_autocorrelation(run, longest=300.0).values, 1.0, atol=1e-9)


def anisotropy(found: Observable) -> float:
    """How many errors the diagonal of a displacement tensor is away from a third of its trace, at most."""
    trace, diagonal = found.values[0, 1:], found.values[1:4, 1:]
    return float(np.abs((diagonal - trace / 3.0) / found.errors[1:4, 1:]).max())


def test_a_random_walk_diffuses_as_its_steps_say(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    positions = np.cumsum(rng.standard_normal((4000, 20, 3)) * np.array([0.1, 0.1, 0.2]), axis=0)
    structure = Atoms("O20", positions[0], cell=12.0 * np.eye(3), pbc=True)
    run = trajectory(tmp_path, structure, positions, spacing=100.0)
    found = mean_squared_displacement(run, longest=5000.0)
    lags = np.arange(51)
    for component, square in zip(range(4), (0.06, 0.01, 0.01, 0.04), strict=True):
        at = 10
        deviation = found.values[component, at] - square * lags[at]
        assert abs(deviation) < 4.5 * found.errors[component, at]
        assert found.errors[component, at] < 0.1 * square * lags[at]
    assert np.abs(found.values[4:, 1:] / found.errors[4:, 1:]).max() < 5.0
    # Anisotropic, and the control of equal steps is not.
    assert anisotropy(found) > 8.0
    (tmp_path / "alike").mkdir()
    equal = np.cumsum(rng.standard_normal((4000, 20, 3)) * 0.1, axis=0)
    assert anisotropy(mean_squared_displacement(trajectory(tmp_path / "alike", structure, equal, spacing=100.0))) < 4.5
    slope = diffusion(run, start=500.0, end=4000.0)
    assert abs(slope.values - 0.06 / 6.0 / 0.1) < 4.0 * slope.errors
    corrected = diffusion(run, start=500.0, end=4000.0, viscosity=0.9e-3, temperature=300.0)
    with pytest.raises(InputError, match="does not say its temperature"):
        diffusion(run, start=500.0, end=4000.0, viscosity=0.9e-3)
    run.attributes["description"] = {"temperature": 300.0}
    assert diffusion(run, start=500.0, end=4000.0, viscosity=0.9e-3).values == corrected.values
    # k 300 K ξ / (6 π 0.9 mPa s 12 Å) = 5.77e-10 m²/s
    assert corrected.values - slope.values == pytest.approx(5.77e-2, rel=2e-3)


def test_long_trajectories_are_gone_through_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    positions = np.cumsum(rng.standard_normal((500, 5, 3)), axis=0)
    structure = Atoms("O5", positions[0], cell=12.0 * np.eye(3), pbc=True)
    run = trajectory(tmp_path, structure, positions)
    whole = mean_squared_displacement(run, longest=300.0)
    naive = [np.mean((positions[50 + lag :] - positions[50 : 500 - lag]) ** 2) * 3.0 for lag in range(31)]
    np.testing.assert_allclose(whole.values[0], naive, rtol=1e-9, atol=1e-12)
    monkeypatch.setattr("goniometer.trajectories.h5md._CHUNK_BYTES", 24 * 5 * 7)
    np.testing.assert_allclose(mean_squared_displacement(run, longest=300.0).values, whole.values, atol=1e-9)


@pytest.mark.nightly
def test_five_times_as_many_frames_take_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From some hundred stretches on, which is how many are kept."""
    rng = np.random.default_rng(22)
    places = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:12] * 3.5
    structure, runs = water(places, 10.5 * np.eye(3)), []
    for count in (3000, 15000):
        (tmp_path / str(count)).mkdir()
        positions = structure.positions + rng.normal(scale=0.02, size=(count, 36, 3))
        runs.append(trajectory(tmp_path / str(count), structure, positions, velocities=positions))
    monkeypatch.setattr("goniometer.trajectories.h5md._CHUNK_BYTES", 24 * 36 * 40)
    cases = {
        "pair-distribution": {"farthest": 3.0},
        "direction-moments": {},
        "displacement": {"longest": 50.0},
        "reorientation": {"longest": 50.0},
        "vibrations": {"window": 160.0, "highest": 1000.0},
    }
    for name, options in cases.items():
        peaks = []
        for each in runs:
            observe(each, name, options)  # what is imported, and known of a trajectory, is so before
            tracemalloc.start()
            observe(each, name, options)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < 1.3 * peaks[0] + 2**19, f"{name}: {peaks}"
        assert runs[1].frames().positions.nbytes > 3 * (peaks[1] - peaks[0]) + 2**20, "control: all frames at once"


def test_rotors_forget_as_their_steps_say(tmp_path: Path) -> None:
    """Molecules about z at one speed: c_1 = ⟨cos² θ + sin² θ cos ωt⟩, and one that never turns."""
    count, speed = 30, 2.0 * np.pi / 400.0
    cell = 30.0 * np.eye(3)
    rng = np.random.default_rng(9)
    places = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:count] * 7.0
    start = Rotation.random(count, rng=rng)
    frames = [water(places, cell, Rotation.from_rotvec([0, 0, speed * 10.0 * t]) * start).positions for t in range(250)]
    structure = water(places, cell, start)
    run = trajectory(tmp_path, structure, np.stack(frames))
    found = reorientation(run, longest=800.0)
    cosines = find_molecules(structure).directions(run.frames())[0, :, 2]
    time = found.axes["time"].values
    first = np.mean(cosines**2) + np.mean(1.0 - cosines**2) * np.cos(speed * time)
    np.testing.assert_allclose(found.values[0], first, atol=1e-9)
    each = cosines[:, None] ** 2 + (1.0 - cosines[:, None] ** 2) * np.cos(speed * time)
    np.testing.assert_allclose(found.values[1], np.mean(1.5 * each**2 - 0.5, axis=0), atol=1e-9)


def test_molecules_that_are_no_water_are_named_by_a_rule(tmp_path: Path) -> None:
    """Hydrogen chloride that turns about x, farther apart than any bond: c_1 = cos ωt."""
    places = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * 5.0
    angles = 2.0 * np.pi * np.arange(100) / 50.0
    arms = 2.0 * np.stack([np.zeros(100), np.cos(angles), np.sin(angles)], axis=1)
    positions = np.stack([places[None] + 0.0 * arms[:, None], places[None] + arms[:, None]], axis=2).reshape(100, -1, 3)
    run = trajectory(tmp_path, Atoms("ClH" * 27, positions[0], cell=15.0 * np.eye(3), pbc=True), positions)
    with pytest.raises(InputError, match="only water has a direction by default"):
        observe(run, "reorientation", {"molecules": {"size": 2}})
    found = observe(run, "reorientation", {"longest": 300.0, "molecules": {"size": 2, "weights": [-1, 1]}})
    np.testing.assert_allclose(found.values[0], np.cos(2.0 * np.pi * np.arange(31) / 50.0), atol=1e-9)
    command = ["observe", str(tmp_path), "--observable", "direction-moments"]
    shown = CliRunner().invoke(app, [*command, "--set", "molecules={size: 2, weights: [-1, 1]}"])
    assert shown.exit_code == 0, shown.exception


def test_a_harmonic_solid_vibrates_at_its_frequencies(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    wavenumbers = np.array([500.0, 1500.0])
    omega = 2.0 * np.pi * 2.99792458e-5 * np.repeat(wavenumbers, [30, 10])
    times = 2.0 * np.arange(4000)
    phases = rng.uniform(0.0, 2.0 * np.pi, (40, 3))
    velocities = 0.01 * np.cos(omega[:, None] * times[:, None, None] + phases)
    structure = Atoms("O40", rng.random((40, 3)) * 12.0, cell=12.0 * np.eye(3), pbc=True)
    run = trajectory(tmp_path, structure, np.zeros((4000, 40, 3)), velocities=velocities, spacing=2.0)
    found = vibrations(run, window=1000.0)
    grid = found.axes["wavenumber"].values
    for wavenumber, part in zip(wavenumbers, (0.75, 0.25), strict=True):
        near = np.abs(grid - wavenumber) < 150.0
        assert np.trapezoid(found.values[near], grid[near]) == pytest.approx(part, abs=0.01)
        assert grid[near][np.argmax(found.values[near])] == pytest.approx(wavenumber, abs=grid[1])
    assert found.about["autocorrelation_time_fs"] > 0.0
    # Of hydrogen, which moves alike, but weighs a sixteenth, there is a sixteenth in the sum.
    light = Atoms("O20H20", structure.positions, cell=structure.cell, pbc=True)
    (tmp_path / "light").mkdir()
    fast = velocities.copy()
    fast[:, 20:] = 0.01 * np.cos(omega[-1] * times[:, None, None] + phases[20:])
    slow = fast[:, :20] = 0.01 * np.cos(omega[0] * times[:, None, None] + phases[:20])
    weighed = trajectory(tmp_path / "light", light, np.zeros((4000, 40, 3)), velocities=fast, spacing=2.0)
    found = vibrations(weighed)
    heavy = np.trapezoid(found.values[grid < 1000.0], grid[grid < 1000.0])
    assert heavy == pytest.approx(15.999 / (15.999 + 1.008), abs=0.01)
    correlation = velocity_autocorrelation(weighed, longest=40.0)
    cosines = [np.cos(each * correlation.axes["time"].values) for each in (omega[0], omega[-1])]
    np.testing.assert_allclose(correlation.values, heavy * cosines[0] + (1.0 - heavy) * cosines[1], atol=0.03)
    assert slow.shape == (4000, 20, 3)


def test_frames_too_far_apart_for_vibrations_are_refused(tmp_path: Path) -> None:
    """20 fs apart, a stretch at 3400 cm⁻¹ would be seen at 64 cm⁻¹."""
    structure = Atoms("O4", np.zeros((4, 3)), cell=12.0 * np.eye(3), pbc=True)
    omega = 2.0 * np.pi * 2.99792458e-5 * 3400.0
    velocities = np.ones((2000, 4, 3)) * np.cos(omega * 20.0 * np.arange(2000))[:, None, None]
    run = trajectory(tmp_path, structure, np.zeros((2000, 4, 3)), velocities=velocities, spacing=20.0)
    with pytest.raises(InputError, match=r"than 834 cm\^-1 is folded back: up to 4000 takes frames 4.2 fs apart"):
        vibrations(run)
    blind = vibrations(run, highest=800.0)  # what it would be
    assert blind.axes["wavenumber"].values[np.argmax(blind.values)] < 100.0


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_errors_of_correlated_series_are_what_they_say() -> None:
    rng, inside = np.random.default_rng(11), 0
    for _ in range(200):
        series, noise = np.empty(2000), rng.standard_normal(2000)
        series[0] = noise[0] / np.sqrt(1.0 - 0.9**2)
        for index in range(1, 2000):
            series[index] = 0.9 * series[index - 1] + noise[index]
        blocks = Blocks()
        blocks.add(series[:, None])
        value, error, time = blocks.estimate(lambda mean: mean)
        inside += bool(abs(value[0]) < error[0])
    assert 0.58 < inside / 200 < 0.78  # 68 %, within 3 standard errors
    assert time == pytest.approx(9.5, rel=0.8)


def test_blocks_are_bounded_and_hold_the_mean() -> None:
    values = np.random.default_rng(12).standard_normal((5001, 3))
    blocks = Blocks()
    for part in np.array_split(values, 13):
        blocks.add(part)
    assert len(blocks) == 5001
    np.testing.assert_allclose(blocks.mean(), values.mean(axis=0), atol=1e-12)
    means = blocks.means()
    assert MOST <= len(means) <= 2 * MOST
    np.testing.assert_allclose(means[0], values[: blocks.size].mean(axis=0), atol=1e-12)


# ---- files of other programs ----------------------------------------------------------------------------------------


def walk(frames: int = 30) -> tuple[Atoms, np.ndarray]:
    rng = np.random.default_rng(13)
    start = rng.random((12, 3)) @ TRICLINIC
    positions = start + np.cumsum(rng.standard_normal((frames, 12, 3)) * 0.8, axis=0)
    return Atoms("O12", start, cell=TRICLINIC, pbc=True), positions


def written(
    path: Path, structure: Atoms, positions: np.ndarray, *, wrap: bool, cells: np.ndarray | None = None
) -> Path:
    frames = []
    for number, each in enumerate(positions):
        atoms = structure.copy()
        atoms.positions = each
        if cells is not None:
            atoms.set_cell(cells[number])
        if wrap:
            atoms.wrap()
        frames.append(atoms)
    ase.io.write(path, frames)
    return path


def test_wrapped_or_not_a_file_is_followed(tmp_path: Path) -> None:
    structure, positions = walk()
    wrapped = read_trajectory(written(tmp_path / "wrapped.xyz", structure, positions, wrap=True), spacing=10.0)
    open_ended = read_trajectory(written(tmp_path / "open.xyz", structure, positions, wrap=False), spacing=10.0)
    assert len(wrapped) == 30
    one, other = (mean_squared_displacement(each, longest=100.0) for each in (wrapped, open_ended))
    np.testing.assert_allclose(one.values, other.values, atol=1e-5)
    naive = positions[3:] - positions[3]
    assert (naive[10] ** 2).sum(axis=1).mean() > 10.0  # atoms did cross the boundary
    parts = [each.positions for each in wrapped.chunks(7)]
    np.testing.assert_allclose(np.concatenate(parts), wrapped.frames().positions, atol=1e-12)


def test_cells_may_change(tmp_path: Path) -> None:
    rng = np.random.default_rng(14)
    factors = 1.0 + 0.05 * np.sin(np.arange(200))
    scaled = rng.random((200, 80, 3))
    cells = factors[:, None, None] * TRICLINIC
    structure = Atoms("Ar80", scaled[0] @ TRICLINIC, cell=TRICLINIC, pbc=True)
    path = written(tmp_path / "npt.xyz", structure, np.einsum("tai,tij->taj", scaled, cells), wrap=False, cells=cells)
    run = read_trajectory(path)
    found = average(run, pair_distribution(run, "Ar-Ar", farthest=6.0))
    beyond = found.axes["r"].values > 1.5
    assert abs(found.values[beyond].mean() - 1.0) < 6e-3


def test_frames_that_do_not_fit_are_refused_by_number(tmp_path: Path) -> None:
    structure, positions = walk(6)
    good = [Atoms("O12", each, cell=TRICLINIC, pbc=True) for each in positions]
    fewer, other, open_ended = good[0][:-1], good[0].copy(), good[0].copy()
    other.numbers[3] = 7
    open_ended.pbc = (True, True, False)
    broken = good[0].copy()
    broken.positions[0, 0] = np.nan
    flat, unknown = good[0].copy(), good[0].copy()
    flat.set_cell(TRICLINIC * np.array([[1.0], [1.0], [0.0]]))
    unknown.set_cell(TRICLINIC * np.nan)
    cases = {
        "its cell has no volume": flat,
        "is periodic, and its cell has no volume": unknown,
        "has 11 atoms, and the first one 12": fewer,
        "has other elements": other,
        "periodic in other directions": open_ended,
        "not finite": broken,
    }
    for said, frame in cases.items():
        ase.io.write(tmp_path / "bad.traj", [*good[:4], frame, good[5]])
        with pytest.raises(InputError, match=rf"frame 4 of .*{said}"):
            read_trajectory(tmp_path / "bad.traj", 1.0).frames()
    path = written(tmp_path / "cut.xyz", structure, positions, wrap=False)
    text = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(text[:-5]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"frame 5 of .*cannot be read .*was it cut off\?"):
        read_trajectory(path, 1.0).frames()
    # Cut within its last number, every line can be read, and one says something else.
    path.write_text("\n".join(text)[:-3], encoding="utf-8")
    with pytest.raises(InputError, match=r"frame 5 of .*, the last one, stops within a line: it was cut off"):
        read_trajectory(path, 1.0).frames()
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    assert len(read_trajectory(path, 1.0).frames()) == 6
    # Readers that take a file as a whole fail before they give a frame.
    ase.io.write(tmp_path / "cut.pdb", good)
    whole = (tmp_path / "cut.pdb").read_text(encoding="utf-8")
    (tmp_path / "cut.pdb").write_text(whole[:-50], encoding="utf-8")
    with pytest.raises(InputError, match=r"the last frame of .*cut.pdb' cannot be read .*was it cut off\?"):
        read_trajectory(tmp_path / "cut.pdb", 1.0)
    ase.io.write(tmp_path / "cut.traj", good)
    (tmp_path / "cut.traj").write_bytes((tmp_path / "cut.traj").read_bytes()[:-9])
    with pytest.raises(InputError, match=r"frame 5 of .*cut.traj' cannot be read"):
        read_trajectory(tmp_path / "cut.traj", 1.0).frames()
    (tmp_path / "empty.xyz").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"empty.xyz"):
        read_trajectory(tmp_path / "empty.xyz")
    untimed = read_trajectory(written(tmp_path / "untimed.xyz", structure, positions, wrap=False))
    with pytest.raises(InputError, match=r"frame 0 of .* has no time: give the time between two frames"):
        mean_squared_displacement(untimed)
    timed = read_trajectory(tmp_path / "untimed.xyz", 1.0)
    with pytest.raises(InputError, match="holds no velocities"):
        velocity_autocorrelation(timed)


def segment(folder: Path, number: int, first: int, structure: Atoms, **changes: float) -> Path:
    """Five frames of a run."""
    folder.mkdir(exist_ok=True)
    steps = np.arange(first, first + 5)
    positions = np.repeat(structure.positions[None, None], 5, axis=0) + changes.get("shift", 0.0)
    path = folder / f"frames-{number:06d}.h5"
    write_segment(path, structure, Frames(steps, steps * 10.0, positions, 0.0 * positions, {}), {})
    return path


def test_segments_of_runs_that_do_not_fit_are_refused_by_number(tmp_path: Path) -> None:
    structure, _ = walk()
    run = tmp_path / "run"
    paths = [segment(run, each, 5 * each, structure) for each in range(3)]
    # What a killed run was about to write is no frame yet.
    (run / "frames-000003.h5.part").write_bytes(paths[0].read_bytes()[:1000])
    assert len(read_trajectory(run).frames()) == len(read_trajectory(run).times) == 15
    other = structure.copy()
    other.numbers[2] = 7
    nowhere = structure.copy()
    nowhere.positions[3] = np.nan
    cases = {
        r"frame 10 of .* \(frames-000002.h5\) has 11 atoms in 1 replicas, and the first one 12 in 1": structure[:-1],
        r"frame 10 of .* \(frames-000002.h5\) has other elements than the first one": other,
        "step 10 of .* has positions that are not finite": nowhere,
    }
    for said, changed in cases.items():
        segment(run, 2, 10, changed)
        with pytest.raises(InputError, match=said):
            read_trajectory(run).frames()
    whole = segment(run, 2, 10, structure).read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        paths[2].write_bytes(whole[:size])
        for read in (lambda: read_trajectory(run).frames(), lambda: read_trajectory(run).times):
            with pytest.raises(InputError, match=r"frames-000002.h5' cannot be read: .*; it would hold frame 10 and"):
                read()
    paths[2].write_bytes(whole)
    paths[1].unlink()
    with pytest.raises(InputError, match=r"frame 5 of .* and those after it are missing: there is no frames-000001.h5"):
        read_trajectory(run)
    with pytest.raises(InputError, match="holds no conserved_energy: it is no run of this program"):
        observe(read_trajectory(paths[0]), "drift")


def test_what_was_asked_for_is_named_when_it_is_not_there(tmp_path: Path) -> None:
    structure, positions = walk(6)
    run = trajectory(tmp_path, structure, positions)
    cases = {
        "there is no observable 'displacment'.*did you mean 'displacement'": ("displacment", {}),
        "'displacement' has no option 'elemnt'; its options are element, longest, discard": (
            "displacement",
            {"elemnt": "O"},
        ),
        "holds no H": ("pair-distribution", {"pair": "O-H"}),
        "a pair is two elements": ("pair-distribution", {"pair": "OH"}),
        "the degree is 2, 4": ("pair-moments", {"pair": "O-O", "degree": 3}),
        "holds no Xe": ("displacement", {"element": "Xe"}),
        "fewer than two times": ("diffusion", {"start": 1000.0, "discard": 0.1}),
        "is that of a cubic cell": ("diffusion", {"start": 10.0, "viscosity": 1e-3, "discard": 0.1}),
        "the temperature goes with the correction": ("diffusion", {"temperature": 300.0, "discard": 0.1}),
        "molecules is 3: write {size: 5, weights": ("reorientation", {"molecules": 3}),
        "atoms are no molecules of 5 atoms in a row": ("reorientation", {"molecules": {"size": 5}}),
        "holds no potential_energy": ("potential-energy", {}),
    }
    for said, (name, options) in cases.items():
        with pytest.raises(InputError, match=said):
            observe(run, name, options)
    assert set(STATICS) <= set(OBSERVABLES)


def test_excerpts_are_trajectories(tmp_path: Path) -> None:
    structure, positions = walk(20)
    run = trajectory(tmp_path, structure, positions)
    part = Excerpt(run, 5, 12)
    assert len(part) == 7
    np.testing.assert_array_equal(part.frames().positions[:, 0], positions[5:12])
    np.testing.assert_array_equal(np.concatenate([each.steps for each in part.chunks(3)]), np.arange(5, 12))
    assert part.frames().cells is not None


def test_ase_velocities_are_read_in_our_units(tmp_path: Path) -> None:
    atoms = WATER.copy()
    atoms.set_velocities(np.full((3, 3), 0.02) / units.fs)
    atoms.info["time"] = 3.0
    atoms.calc = SinglePointCalculator(atoms, energy=0.0)
    ase.io.write(tmp_path / "one.traj", [atoms, atoms])
    frames = read_trajectory(tmp_path / "one.traj").frames()
    np.testing.assert_allclose(frames.velocities, 0.02, atol=1e-12)
