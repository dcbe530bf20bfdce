"""Stress and pressure: ideal gases, ASE's own, derivatives by differences, planted anisotropies, runs, what is kept."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.lj import LennardJones
from typer.testing import CliRunner

from goniometer.cli.app import app
from goniometer.comparison.runs import compare_runs
from goniometer.dynamics.description import Run
from goniometer.dynamics.run import run
from goniometer.errors import InputError
from goniometer.observables import observe
from goniometer.observables.stress import KEPT, MEGAPASCAL, Virials, pressure, stress
from goniometer.potentials import Potential
from goniometer.rotations import rule
from goniometer.sampling.reweighting import Part, reevaluate, reweighted
from goniometer.symmetrization import Averaged
from goniometer.testing.toys import PairToy, PeriodicToy
from goniometer.trajectories.h5md import Excerpt, Thinned, Trajectory, read_trajectory
from springs import Springs
from test_liquid import TRICLINIC, trajectory

KT = units.kB * 300.0
CRYSTAL = bulk("Ar", "fcc", a=3.2, cubic=True).repeat(2)
#: Seen along an axis of the laboratory that no plane of the crystal holds.
PLANTED = PeriodicToy(ell=4, strength=0.1, axis=(1.0, 2.0, 4.0))


def drawn(rng: np.random.Generator, masses: np.ndarray, count: int) -> np.ndarray:
    """Velocities at 300 K in Å/fs, (T, N, 3)."""
    scale = np.sqrt(KT / masses)[:, None] * units.fs
    return rng.standard_normal((count, len(masses), 3)) * scale


def shaken(folder: Path, structure: Atoms, count: int = 60, scale: float = 0.08) -> Trajectory:
    """Frames of independent displacements and velocities."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    positions = structure.positions + rng.normal(scale=scale, size=(count, len(structure), 3))
    return trajectory(folder, structure, positions, velocities=drawn(rng, structure.get_masses(), count))


def part(found: object, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Values and errors of a part of a stress."""
    place = found.axes["part"].values.tolist().index(name)
    return found.values[place], found.errors[place]


def resolved(found: object, name: str) -> float:
    """How many errors the largest component is away from zero."""
    values, errors = part(found, name)
    return float(np.nanmax(np.abs(values[errors > 0.0] / errors[errors > 0.0]), initial=0.0))


# ---- known answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [14.0 * np.eye(3), TRICLINIC], ids=["cubic", "triclinic"])
def test_an_ideal_gas_has_the_pressure_of_its_density(tmp_path: Path, cell: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    structure = Atoms("Ar50Kr30", rng.random((80, 3)) @ cell, cell=cell, pbc=True)
    velocities = drawn(rng, structure.get_masses(), 400)
    run = trajectory(tmp_path, structure, rng.random((400, 80, 3)) @ cell, velocities=velocities)
    nothing = PairToy(depth=0.0)
    found = pressure(run, model=nothing)
    exact = 80 * KT / structure.get_volume()
    assert abs(found.values - exact) < 4.0 * found.errors
    # 3 · 80 · 360 independent squares of a normal variable.
    assert found.errors == pytest.approx(exact * np.sqrt(2.0 / (3 * 80 * 360)), rel=0.3)
    tensor = stress(run, model=nothing)
    whole, errors = part(tensor, "whole")
    assert np.trace(whole) / 3.0 == pytest.approx(-found.values, rel=1e-12)
    assert (np.abs(whole + exact * np.eye(3)) < 4.5 * errors).all()
    assert resolved(tensor, "deviator") < 4.5
    assert np.abs(part(tensor, "antisymmetric")[0]).max() < 1e-12
    # The control: atoms that move along z alone.
    lame = trajectory(tmp_path, structure, rng.random((400, 80, 3)) @ cell, velocities=velocities * [0.9, 0.9, 1.2])
    assert resolved(stress(lame, model=nothing), "deviator") > 10.0


def test_the_pressure_is_what_compression_costs(tmp_path: Path) -> None:
    """At rest p = −dU/dV by differences, for pairs and for a potential with a direction of its own."""
    structure = CRYSTAL.copy()
    structure.rattle(0.1, seed=3)
    still = trajectory(tmp_path, structure, np.stack([structure.positions] * 5))
    for model in (PairToy(), PLANTED, Averaged(PLANTED, rule("octahedral"))):
        energies, volumes = [], []
        for factor in (1.0 - 1e-4, 1.0 + 1e-4):
            strained = structure.copy()
            strained.set_cell(structure.cell.array * factor, scale_atoms=True)
            energies.append(float(model.predict(strained).energies[0]))
            volumes.append(strained.get_volume())
        slope = (energies[1] - energies[0]) / (volumes[1] - volumes[0])
        found = pressure(still, model=model)
        assert found.values == pytest.approx(-slope, rel=1e-5)
        assert abs(found.values) * MEGAPASCAL > 10.0


def test_sign_and_units_are_those_of_ase(tmp_path: Path) -> None:
    structure = bulk("Ar", "fcc", a=5.3, cubic=True).repeat(3)
    made = shaken(tmp_path, structure, count=4, scale=0.2)
    calculator = LennardJones(sigma=3.4, epsilon=0.0104, rc=7.0, smooth=True)
    expected = []
    for atoms in made.structures():
        atoms.calc = calculator
        expected.append(atoms.get_stress(voigt=False, include_ideal_gas=True))
    found = stress(made, model=LennardJones(sigma=3.4, epsilon=0.0104, rc=7.0, smooth=True), discard=0.0)
    np.testing.assert_allclose(part(found, "whole")[0], np.mean(expected, axis=0), atol=1e-9)
    # Six components alone: of the antisymmetric part nothing is known.
    assert found.axes["part"].values.tolist() == ["whole", "deviator"]


def test_a_planted_direction_is_found_and_none_is_not(tmp_path: Path) -> None:
    made = shaken(tmp_path, CRYSTAL)
    planted, isotropic = (stress(made, model=each) for each in (PLANTED, PairToy()))
    for name in ("deviator", "antisymmetric"):
        assert resolved(planted, name) > 8.0
    assert resolved(isotropic, "deviator") < 4.5
    assert np.abs(part(isotropic, "antisymmetric")[0]).max() < 1e-9
    # The rotational gradient, by turning the frames.
    whole = part(planted, "antisymmetric")[0]
    torque = CRYSTAL.get_volume() * (whole[0, 1] - whole[1, 0])
    angle, turned = 1e-4, []
    for sign in (1.0, -1.0):
        c, s = np.cos(sign * angle), np.sin(sign * angle)
        matrix = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        later = list(made.structures())[6:]
        turned.append(np.mean([next(PLANTED.turned(each, matrix[None])).energies[0] for each in later]))
    assert torque == pytest.approx((turned[0] - turned[1]) / (2.0 * angle), rel=1e-4)
    # Averaged over a rule that is exact for it, nothing is left.
    mended = stress(made, model=Averaged(PLANTED, rule("icosahedral")))
    assert np.abs(part(mended, "antisymmetric")[0]).max() < 1e-9
    assert resolved(mended, "deviator") < 4.5


def test_cells_that_change_have_volumes_that_do(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    factors = 1.0 + 0.2 * rng.random(40)
    frames = []
    for factor in factors:
        atoms = CRYSTAL.copy()
        atoms.set_cell(CRYSTAL.cell.array * factor, scale_atoms=True)
        atoms.set_velocities(drawn(rng, atoms.get_masses(), 1)[0] / units.fs)
        frames.append(atoms)
    ase.io.write(tmp_path / "npt.traj", frames)
    found = pressure(read_trajectory(tmp_path / "npt.traj", 1.0), model=PairToy(depth=0.0), discard=0.0)
    kinetic = [each.get_kinetic_energy() for each in frames]
    exact = np.mean([2.0 * k / (3.0 * each.get_volume()) for k, each in zip(kinetic, frames, strict=True)])
    assert found.values == pytest.approx(exact, rel=1e-9)


# ---- runs ------------------------------------------------------------------------------------------------------------


def counted() -> Potential:
    """A model that is made where a description names it."""
    return PLANTED


def made(folder: Path, strategy: dict[str, object], **more: object) -> Path:
    ase.io.write(folder / "crystal.xyz", CRYSTAL)
    settings = {"structure": str(folder / "crystal.xyz"), "potential": {"model": "test_stress:counted"}, "length": 0.1}
    settings |= {"strategy": strategy, "timestep": 2.0, "frames_every": 4.0, "checks": {"molecules": None}, **more}
    return run(Run.model_validate(settings), folder).folder


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many structures the toy has evaluated."""
    calls: list[int] = []
    turned = PeriodicToy.turned

    def noted(self: PeriodicToy, structure: Atoms, matrices: np.ndarray):
        calls.append(len(matrices))
        return turned(self, structure, matrices)

    monkeypatch.setattr(PeriodicToy, "turned", noted)
    return calls


def test_a_run_is_evaluated_once_and_kept(tmp_path: Path, count: list[int]) -> None:
    folder = made(tmp_path, {"kind": "raw"})
    count.clear()
    told: list[tuple[int, int]] = []
    thinned = observe(
        read_trajectory(folder),
        "pressure",
        {"every": 3, "discard": 0.1},
        lambda done, whole, _: told.append((done, whole)),
    )
    assert told == [(each, 9) for each in range(1, 10)]
    assert len(count) == len(told)
    whole = observe(read_trajectory(folder), "pressure", {"discard": 0.1})
    assert whole.about["frames"] > 2 * thinned.about["frames"]
    before = len(count)
    again = pressure(read_trajectory(folder))
    assert len(count) == before
    assert again.values == whole.values
    assert stress(Excerpt(read_trajectory(folder), 5, 15)).about["frames"] == 9
    assert len(count) == before
    # What is kept is that of the model of the run, and another one is asked anew.
    other = pressure(read_trajectory(folder), model=PairToy())
    assert other.values != whole.values
    # A file that was cut off is made again, and one that cannot be written is done without.
    (folder / KEPT).write_bytes((folder / KEPT).read_bytes()[:100])
    assert pressure(read_trajectory(folder)).values == whole.values
    assert len(count) > before


@pytest.mark.parametrize(
    "strategy",
    [
        {"kind": "average", "rule": "octahedral"},
        {"kind": "mts", "rule": "octahedral", "ratio": 2},
        {"kind": "tumble", "rule": "tetrahedral", "inversion": False, "period": 300.0, "memory": 300.0},
        {"kind": "random"},
    ],
    ids=lambda each: each["kind"],
)
def test_runs_are_evaluated_as_their_strategy_was(tmp_path: Path, strategy: dict[str, object]) -> None:
    folder = made(tmp_path, strategy, timestep=1.0 if strategy["kind"] == "mts" else 2.0)
    read = read_trajectory(folder)
    found, raw = stress(read), stress(read, model=PLANTED)
    if strategy["kind"] in ("average", "mts"):
        # ℓ = 4 is what the octahedral group leaves.
        expected = stress(read, model=Averaged(PLANTED, rule("octahedral", True)))
        np.testing.assert_allclose(found.values, expected.values, atol=1e-12)
    assert np.abs(found.values - raw.values).max() > 1e-6
    if strategy["kind"] == "tumble":
        frames = read.frames()
        values = []
        for index in range(int(0.1 * len(frames)), len(frames)):
            atoms = CRYSTAL.copy()
            atoms.positions = frames.positions[index, 0]
            elements = rule("tetrahedral").matrices @ frames.observables["frame"][index, 0]
            said = np.concatenate([each.virials for each in PLANTED.turned(atoms, elements)])
            back = (elements.transpose(0, 2, 1) @ said @ elements).mean(axis=0)
            values.append(back / atoms.get_volume())
        assert found.values[2] == pytest.approx(0.5 * (np.mean(values, 0) - np.mean(values, 0).T), abs=1e-12)


def test_runs_are_compared_in_their_stress(tmp_path: Path) -> None:
    """Eight runs of the planted potential and of its average; pressures of a few frames tell nothing."""
    nvt = {"ensemble": "nvt", "thermostat": {"kind": "langevin", "time": 20.0}, "length": 0.12}
    sides = []
    for strategy in ({"kind": "raw"}, {"kind": "average", "rule": "icosahedral", "inversion": False}):
        sides.append([read_trajectory(made(tmp_path, strategy, seed=seed, **nvt)) for seed in range(4)])
    found = compare_runs(*sides, ("stress", "pressure"), discard=0.5)
    verdicts = {each.name: each for each in found.verdicts}
    assert found.compared["stress"].first.curves.shape == (4, 3, 3, 3)
    assert verdicts["stress"].p_differ <= 2 * 2 / 70 + 1e-9
    planted, averaged = (
        np.abs(each.curves[:, 2]).max() for each in (found.compared["stress"].first, found.compared["stress"].second)
    )
    assert averaged < 1e-9 < 1e-3 * planted


def test_a_model_that_is_another_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path, {"kind": "raw"})
    monkeypatch.setattr(PLANTED, "strength", 0.2)
    with pytest.raises(
        InputError, match=r"gives the frame of step \d+ of .* eV, and the run recorded .*: its model has changed since"
    ):
        pressure(read_trajectory(folder))


def test_what_has_no_stress_is_refused(tmp_path: Path) -> None:
    made = shaken(tmp_path, CRYSTAL, count=4)
    with pytest.raises(InputError, match=r"does not say which model made it: name one \(model\)"):
        pressure(made)
    with pytest.raises(InputError, match="'every' is 1 for all frames"):
        pressure(made, every=0, model=PairToy())
    with pytest.raises(InputError, match="has no virials: there is no stress"):
        stress(made, model=Springs(CRYSTAL))
    ase.io.write(tmp_path / "still.xyz", [CRYSTAL] * 4)
    with pytest.raises(InputError, match=r"step 0 .*holds no velocities, and the kinetic part of a stress needs them"):
        stress(read_trajectory(tmp_path / "still.xyz", 1.0), model=PairToy())
    lone = CRYSTAL.copy()
    lone.pbc = False
    ase.io.write(tmp_path / "lone.xyz", [lone] * 4)
    with pytest.raises(InputError, match="is not periodic in three directions: it has no volume"):
        stress(read_trajectory(tmp_path / "lone.xyz", 1.0), model=PairToy())


def test_the_command_says_megapascal(tmp_path: Path) -> None:
    folder = made(tmp_path, {"kind": "raw"})
    shown = CliRunner().invoke(
        app, ["observe", str(folder), "--observable", "pressure", "--set", "every=2", "--set", "discard=0.1"]
    )
    assert shown.exit_code == 0, shown.output
    found = pressure(read_trajectory(folder), every=2)
    expected = f"pressure = {float(found.values) * MEGAPASCAL:.4g} ± {float(found.errors) * MEGAPASCAL:.2g} MPa"
    assert shown.stdout.splitlines()[0] == expected
    assert "  autocorrelation_time_fs: " in shown.stdout
    shown = CliRunner().invoke(app, ["observe", str(folder), "--observable", "stress", "-o", str(tmp_path / "s.nc")])
    assert sum(line.startswith("stress deviator ") for line in shown.stdout.splitlines()) == 9
    assert (tmp_path / "s.nc").exists()


# ---- without a second run --------------------------------------------------------------------------------------------


def test_what_averaging_changes_in_the_stress(tmp_path: Path) -> None:
    """⟨σ_avg⟩_avg − ⟨σ_raw⟩_raw: the reweighted mean of the one less the mean of the other, frame by frame."""
    made = shaken(tmp_path, CRYSTAL, count=30)
    table = reevaluate(made, PLANTED, ("none", "i", "I"), frames=20)
    taken = made.taken(table.frames)
    for kind in ("pressure", "stress", "potential-energy"):
        raw, averaged = (table.static(made, kind, grid) for grid in ("none", "I"))
        found = reweighted([Part(raw.on(taken), table.correction("I"), averaged.on(taken))], 300.0)
        weights = np.exp(-(table.correction("I") - table.correction("I").mean()) / KT)
        weights /= weights.sum()
        said = [], []
        frames = made.frames()
        for number in table.frames.tolist():
            one = frames[number : number + 1]
            for held, of in zip(said, (averaged, raw), strict=True):
                held.append(of.samples(one)[0])
        exact = averaged.finish(np.tensordot(weights, np.array(said[0]), 1)) - raw.finish(np.mean(said[1], axis=0))
        np.testing.assert_allclose(found.values, exact, rtol=1e-9, atol=1e-15)
        # Inversion changes nothing of an even ℓ, the icosahedral group all of ℓ = 4.
        nothing = table.static(made, kind, "i")
        same = reweighted([Part(raw.on(taken), table.correction("i"), nothing.on(taken))], 300.0)
        assert np.abs(same.values).max() < 1e-9 * np.abs(found.values).max()
    plain, averaged = (table.static(made, "stress", grid) for grid in ("none", "I"))
    change = reweighted([Part(plain.on(taken), table.correction("I"), averaged.on(taken))], 300.0)
    assert resolved(change, "antisymmetric") > 5.0
    with pytest.raises(InputError, match="grid '3' was not evaluated; there are none, i, I"):
        table.static(made, "stress", "3")
    none = reevaluate(made, Springs(CRYSTAL), ("none",), frames=3)
    with pytest.raises(InputError, match="the potential has no virials: there is no pressure"):
        none.static(made, "pressure", "none")


def test_every_such_frame_whatever_the_parts(tmp_path: Path) -> None:
    made = shaken(tmp_path, CRYSTAL, count=23)
    thinned = Thinned(made, 4)
    assert len(thinned) == 6
    np.testing.assert_array_equal(thinned.frames().steps, np.arange(0, 23, 4))
    np.testing.assert_array_equal(np.concatenate([each.steps for each in thinned.chunks(5)]), np.arange(0, 23, 4))
    np.testing.assert_array_equal(thinned.times, made.times[::4])
    known = Virials(np.arange(23), np.zeros((23, 3, 3)), True, "none")
    assert known.at(thinned.frames()).shape == (6, 3, 3)
