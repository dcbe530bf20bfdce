"""Ice: its rules, its protons, and relaxations that a kill does not change."""

from __future__ import annotations

import builtins
import re
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list
from typer.testing import CliRunner

from goniometer.cli.app import app
from goniometer.dynamics.optimization import Tolerances, relax
from goniometer.dynamics.relaxation import relax_all
from goniometer.errors import InputError
from goniometer.potentials.loading import load
from goniometer.strategies import symmetrize
from goniometer.structures import NamedStructure, read_structures
from goniometer.studies.experiments.ice import ice as experiment
from goniometer.studies.experiments.ice import relative_energies, summary
from goniometer.studies.experiments.numbers import ice_numbers
from goniometer.studies.ice_cells import ice
from goniometer.studies.plots.ice import ice_figure

pytest.importorskip("genice2")


def test_ice_keeps_its_rules_and_no_two_cells_their_protons() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    cells = ice(96, 3, seed=1)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    assert all(
        np.allclose(one.positions, other.positions) for one, other in zip(cells, ice(96, 3, seed=1), strict=True)
    )
    for atoms in cells:
        assert atoms.get_chemical_formula() == "H192O96"
        assert 0.9 < 96 * 18.015 * 1.66054 / atoms.get_volume() < 0.95
        centres, distances = neighbor_list("id", atoms, {("O", "H"): 2.1})
        for oxygen in np.flatnonzero(atoms.numbers == 8):
            near = np.sort(distances[centres == oxygen])
            assert len(near) == 4
            assert near[1] < 1.0 < 1.6 < near[2]
        arms = atoms.positions.reshape(-1, 3, 3)
        dipoles = arms[:, 1:].mean(axis=1) - arms[:, 0]
        # A single molecule that is turned changes this by one or more.
        assert np.linalg.norm((dipoles / np.linalg.norm(dipoles, axis=1, keepdims=True)).sum(axis=0)) < 0.3
    oxygens = [each.positions[::3] for each in cells]
    assert np.allclose(oxygens[0], oxygens[1])
    assert not np.allclose(cells[0].positions, cells[1].positions, atol=0.1)
    for wrong, said in (((95,), "a multiple of 16 molecules, not 95"), ((96, 0), "one cell or more")):
        with pytest.raises(InputError, match=said):
            ice(*wrong)
    with pytest.raises(InputError, match="was found in 50 trials: take more molecules or fewer cells"):
        ice(16, 1000)


def test_without_its_generator_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def none(name: str, *arguments: object, **options: object) -> object:
        if name.startswith("genice2"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", none)
    with pytest.raises(InputError, match=r"pip install 'goniometer\[ice\]'"):
        ice(16)


def rattled(seed: int = 0) -> Atoms:
    atoms = bulk("Cu", cubic=True).repeat(2)
    atoms.rattle(0.1, seed=seed)
    return atoms


def test_a_rattled_crystal_comes_to_rest() -> None:
    found = relax(rattled(), load(EMT()), Tolerances(energy=1e-9, force=1e-4, position=1e-4))
    assert found.converged
    assert np.abs(found.end.get_forces()).max() <= 1e-4
    perfect = bulk("Cu", cubic=True).repeat(2)
    perfect.calc = EMT()
    assert found.end.get_potential_energy() == pytest.approx(perfect.get_potential_energy(), abs=1e-5)
    assert found.start.get_potential_energy() > found.end.get_potential_energy() + 0.1
    assert not relax(rattled(), load(EMT()), steps=2).converged
    assert relax(rattled(), load(EMT()), steps=2).steps == 2
    with pytest.raises(InputError, match="another surface at every evaluation"):
        relax(rattled(), symmetrize(EMT(), "identity", inversion=False, strategy="random"))


def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    named = [NamedStructure(f"cell {each}", rattled(each)) for each in range(3)]
    told: list[str] = []

    class KilledError(Exception):
        pass

    def kill(done: int, whole: int, said: str) -> None:
        told.append(said)
        if done == 1 and "step 3" in said:
            raise KilledError

    with pytest.raises(KilledError):
        relax_all(named, load(EMT()), tmp_path, progress=kill)
    assert len(list(tmp_path.glob("*.extxyz"))) == 1
    told.clear()
    found = relax_all(named, load(EMT()), tmp_path, progress=lambda done, whole, said: told.append(said))
    assert all(each.startswith(("cell 1", "cell 2")) for each in told)
    alone = relax_all(named, load(EMT()), tmp_path / "undisturbed")
    for name, each in found.items():
        assert each.end.get_potential_energy() == alone[name].end.get_potential_energy()
        np.testing.assert_array_equal(each.end.positions, alone[name].end.positions)
    with pytest.raises(InputError, match="two structures have one name"):
        relax_all([named[0], named[0]], load(EMT()), tmp_path)


def test_the_experiment_tells_models_apart(tmp_path: Path) -> None:
    broken = experiment(tmp_path / "raw", model="pet-water-unaugmented", grids=("none", "i"), steps=4)
    control = experiment(tmp_path / "control", model="soap-bpnn-water", grids=("none", "i"), steps=4)
    at = {str(each): place for place, each in enumerate(broken.table.axes["quantity"].values)}
    for quantity, least in (("starting energy", 1e-3), ("starting forces", 1.0)):
        assert broken.table.values[at[quantity]] > least
        assert control.table.values[at[quantity]] < 0.05 * broken.table.values[at[quantity]]
    assert control.table.values[at["relaxed positions"]] < 1e-4
    assert broken.grids.values[0, 1] > broken.grids.values[1, 1]
    # Without relaxations the same is said of the starting structures, of cells of any number.
    start = experiment(tmp_path / "start", model="pet-water-unaugmented", grids=("none",), steps=0, molecules=[16, 32])
    assert [len(each.end) for each in start.raw.values()] == [48, 96]
    assert list(start.table.axes["quantity"].values) == ["starting energy", "starting forces"]
    first = next(iter(start.raw))
    assert start.raw[first].start.get_potential_energy() == broken.raw[first].start.get_potential_energy()
    assert len(summary(start)) == 4
    cells = relative_energies(broken)
    assert cells is not None
    assert cells.names == list(broken.raw)
    assert sum(cells.raw) == pytest.approx(0.0, abs=1e-9)
    spread = np.std(cells.averaged, ddof=1)
    assert spread == pytest.approx(broken.table.values[at["spread of relative energies"]])
    energies, errors = ice_figure(cells, broken.grids).axes
    drawn = energies.get_lines()[1].get_xydata()
    np.testing.assert_allclose(drawn[:, 0] + drawn[:, 1], 1e3 * np.array(cells.raw), atol=1e-9)
    assert [each.get_text() for each in errors.get_xticklabels()] == ["none", "i"]
    assert relative_energies(start) is None
    assert len(ice_figure(None, start.grids).axes) == 1
    alone = experiment(tmp_path / "alone", model="pet-water-unaugmented", grids=("none",), steps=1, molecules=16)
    assert np.isnan(alone.table.values[at["relative energy"]])
    assert ice_numbers(alone)["table"]["relative energy"]["value"] == [None, None]
    assert ice_numbers(start)["converged"] is None
    lines = summary(broken)
    assert lines[0] == "pet-water-unaugmented: 2 cells of ice, raw against averaged"
    assert lines[-1].startswith("  not all relaxations have converged")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": -1}, "'steps' is -1: give a whole number"),
        ({"steps": True}, "'steps' is True: give a whole number"),
        ({"molecules": []}, "'molecules' is []: give the whole number of each"),
        ({"molecules": [17]}, "a multiple of 16 molecules, not 17"),
        ({"size": "huge"}, "ice has no size 'huge'"),
    ],
)
def test_what_ice_cannot_be_made_of(tmp_path: Path, settings: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        experiment(tmp_path, **settings)


def test_commands(tmp_path: Path) -> None:
    run = CliRunner().invoke
    done = run(app, ["ice", "--molecules", "16", "--count", "2", "-o", str(tmp_path / "ice.xyz")])
    assert done.exit_code == 0, done.output
    assert len(ase.io.read(tmp_path / "ice.xyz", ":")) == 2
    (named, _) = read_structures(str(tmp_path / "ice.xyz"))
    assert len(named.atoms) == 48
    arguments = ["relax", str(tmp_path / "ice.xyz") + "@0", "-o", str(tmp_path / "relaxed"), "--rule", "identity"]
    done = run(app, [*arguments, "--steps", "3"])
    assert done.exit_code == 0, done.output
    assert "in 3 steps" in done.stdout
    assert (tmp_path / "relaxed" / "relaxed.json").exists()
