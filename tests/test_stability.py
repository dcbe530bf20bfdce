"""Stability of models: broken bonds are seen, a run that was stopped ends as one that was not, numbers are known."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from goniometer.data import read_structures
from goniometer.potentials import load
from labels import BONDS

SCRIPT = Path(__file__).parents[1] / "scripts" / "stability.py"


@pytest.fixture
def stability(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with short blocks."""
    spec = importlib.util.spec_from_file_location("stability", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "stability", module)
    spec.loader.exec_module(module)
    module.BLOCK = 40
    return module


class Springs(Calculator):
    """One molecule of springs; with a push, its first bond is driven apart."""

    implemented_properties = ("energy", "forces")

    def __init__(self, push: float = 0.0) -> None:
        super().__init__()
        self.push = push

    def calculate(self, atoms=None, properties=None, system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        energy, forces = 0.0, np.zeros((3, 3))
        for a, b, rest, stiffness in BONDS:
            vector = self.atoms.positions[b] - self.atoms.positions[a]
            length = np.linalg.norm(vector)
            slope = stiffness * (length - rest) - self.push * (b == 1)
            energy += 0.5 * stiffness * (length - rest) ** 2 - self.push * (b == 1) * length
            forces[a] += slope * vector / length
            forces[b] -= slope * vector / length
        self.results = {"energy": energy, "forces": forces}


def quiet(*step: object) -> None:
    """No progress."""


def test_bonds_that_break_or_change_hands_are_seen(stability: ModuleType) -> None:
    box = read_structures("box")[0].atoms
    shortest, longest, whole = stability.bonds(box)
    distances = box.get_all_distances(mic=True)
    own = np.concatenate([distances[0::3, 1::3].diagonal(), distances[0::3, 2::3].diagonal()])
    assert (shortest, longest) == pytest.approx((own.min(), own.max()), abs=1e-12)
    assert whole
    # An atom that leaves through one face and comes in by the other is the same.
    wrapped = box.copy()
    wrapped.positions[4] += 2 * box.cell[0] - box.cell[2]
    assert stability.bonds(wrapped)[1:] == (pytest.approx(longest, abs=1e-12), True)
    far = box.copy()
    far.set_distance(0, 1, 1.41, fix=0)
    assert not stability.bonds(far)[2]
    # A hydrogen between two oxygens, nearer to the other, and closer to its own than 1.4 Å.
    shared = Atoms("OHHOHH", [[0, 0, 0], [1.25, 0, 0], [0, 0.96, 0], [2.4, 0, 0], [2.4, 0.96, 0], [3.3, 0, 0]])
    assert not stability.bonds(shared)[2]
    shared.positions[1, 0] = 1.15
    assert stability.bonds(shared)[2]


def test_a_run_ends_when_a_bond_breaks(stability: ModuleType, tmp_path: Path) -> None:
    plan = replace(stability.PLANS["molecule"], steps=200)
    # At rest where 40 (r − 0.96) = 40, at 1.96 Å.
    state = stability.run("molecule", plan, load(Springs(push=40.0)), tmp_path / "run.npz", quiet)
    found = stability.figures(plan, state)
    assert 0.0 < found["broken_at_ps"] == found["ran_ps"] < found["planned_ps"] == 0.1
    assert found["longest_bond"] > 1.4
    assert f"until {found['broken_at_ps']:.3f} ps" in stability.table({"molecule": found})
    # A broken run stays broken.
    assert stability.run("molecule", plan, load(Springs(push=40.0)), tmp_path / "run.npz", quiet).step == state.step
    whole = stability.run("molecule", plan, load(Springs()), tmp_path / "sound.npz", quiet)
    assert stability.figures(plan, whole)["broken_at_ps"] is None


@pytest.mark.parametrize("thermostat", [False, True])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    stability: ModuleType, tmp_path: Path, thermostat: bool
) -> None:
    plan = replace(stability.PLANS["molecule"], steps=110, thermostat=thermostat)
    potential = load("pet-water")

    def stop(done: int, *rest: object) -> None:
        if done == 80:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stability.run("molecule", plan, potential, tmp_path / "stopped.npz", stop)
    stopped = stability.run("molecule", plan, potential, tmp_path / "stopped.npz", quiet)
    whole = stability.run("molecule", plan, potential, tmp_path / "whole.npz", quiet)
    assert stopped.step == whole.step == 110
    for name, value in vars(whole).items():
        np.testing.assert_array_equal(value, getattr(stopped, name), err_msg=name)
    assert len(whole.rows) == 11
    other = stability.run("molecule", replace(plan, seed=1), potential, tmp_path / "other.npz", quiet)
    assert not np.array_equal(other.positions, whole.positions)


def test_the_conserved_energy_is_conserved_and_the_total_is_not(stability: ModuleType, tmp_path: Path) -> None:
    plan = replace(stability.PLANS["molecule"], steps=400, thermostat=True)
    state = stability.run("molecule", plan, load(Springs()), tmp_path / "run.npz", quiet)
    _, total, conserved, *_ = state.rows.T
    # Steps of a twentieth of a period scatter the energy by per cents of its kinetic part; the thermostat by all of it.
    assert 5 * np.std(conserved) < np.std(total)


def test_drift_temperature_and_first_peak_are_those_put_in(stability: ModuleType) -> None:
    times = np.arange(1, 101) * 0.005
    kinetic = 1.5 * 192 * 8.617330337217213e-05 * 300.0
    columns = [times, times, 3.0 + 64 * 2e-3 * times, np.full(100, kinetic), np.full(100, 0.9), np.full(100, 1.1)]
    spacing = 12.417126636680859 / 4
    lattice = Atoms("OHH" * 64, cell=4 * spacing * np.eye(3), pbc=True)
    lattice.positions[::3] = spacing * np.indices((4, 4, 4)).reshape(3, -1).T
    counts = np.tile(stability.oxygens(lattice), (100, 1))
    state = stability.State("toy", 1000, np.nan, 0.0, lattice.positions, lattice.positions, np.array(columns).T, counts)
    found = stability.figures(stability.PLANS["liquid"], state)
    assert found["drift_mev_per_molecule_ps"] == pytest.approx(2.0, rel=1e-9)
    assert found["scatter_mev_per_molecule"] == pytest.approx(0.0, abs=1e-9)
    assert found["temperature"] == pytest.approx(300.0, rel=1e-6)
    top = found["first_peak"]
    assert abs(top["distance"] - spacing) < 0.025
    # Six neighbors of 63 in a shell of 0.05 Å, against the volume of the box.
    shell = 4 / 3 * np.pi * ((top["distance"] + 0.025) ** 3 - (top["distance"] - 0.025) ** 3)
    assert top["height"] == pytest.approx(6 / 63 * lattice.get_volume() / shell, rel=1e-9)


def test_the_script_runs_and_refuses_a_folder_of_another_model(
    stability: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: list[Any] = ["pet-water", "-o", str(tmp_path / "out"), "--only", "molecule", "--steps", "20"]
    stability.main(arguments)
    assert "molecule      0.010  yes" in capsys.readouterr().out
    document = json.loads((tmp_path / "out" / "stability.json").read_text(encoding="utf-8"))
    assert document["schema"] == "goniometer/stability/1"
    assert document["runs"]["molecule"]["ran_ps"] == 0.01
    assert document["runs"]["molecule"]["first_peak"] is None
    # What another call has run stays in the document.
    stability.main(["pet-water", "-o", str(tmp_path / "out"), "--only", "liquid", "--steps", "2"])
    document = json.loads((tmp_path / "out" / "stability.json").read_text(encoding="utf-8"))
    assert list(document["runs"]) == ["molecule", "liquid"]
    with pytest.raises(SystemExit, match="is of another run"):
        stability.main([*arguments, "--seed", "1"])
