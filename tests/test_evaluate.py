"""Evaluation against labelled data: known errors, known symmetry errors, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes

from goniometer.errors import InputError
from goniometer.potentials import load
from goniometer.structures.labelled import labelled
from goniometer.training.evaluate import GRIDS, evaluate, table
from labels import springs, toy_water

SAMPLES = [labelled(f"box#{number}", box) for number, box in enumerate(toy_water(3, molecules=2))]


class Wrong(Calculator):
    """The springs, with an energy that is off by a constant and a part that is odd, linear in the position (ℓ = 1)."""

    implemented_properties = ("energy", "forces")

    def __init__(self, shift: float = 0.0, field: float = 0.0) -> None:
        super().__init__()
        self.shift, self.field = shift, field

    def calculate(self, atoms=None, properties=None, system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        energy, forces = springs(self.atoms)
        # Along the bonds of the molecules, so that it does not depend on the origin.
        charges = np.tile([1.0, -0.5, -0.5], len(self.atoms) // 3)
        energy += self.shift * len(self.atoms) + self.field * float(charges @ self.atoms.positions[:, 2])
        forces[:, 2] -= self.field * charges
        self.results = {"energy": energy, "forces": forces}


def test_a_perfect_model_has_no_errors() -> None:
    found = evaluate(load(Wrong()), SAMPLES)
    assert found.force.rmse < 1e-12
    assert found.energy.rmse < 1e-9
    # Sums of some hundred terms of −940 eV in float64.
    assert max(grid.symmetry_energy for grid in found.grids) < 1e-9
    assert max(grid.symmetry_force for grid in found.grids) < 1e-12


def test_errors_are_those_put_in() -> None:
    found = evaluate(load(Wrong(shift=0.01, field=0.2)), SAMPLES)
    # The force is off in one of three components, by 0.2 on O and 0.1 on H.
    assert found.force.mae == pytest.approx((0.2 + 2 * 0.1) / 9, rel=1e-9)
    assert found.force_by_element["O"].mae == pytest.approx(0.2 / 3, rel=1e-9)
    assert found.force_by_element["H"].rmse == pytest.approx(0.1 / np.sqrt(3), rel=1e-9)
    dipoles = [float(np.tile([1.0, -0.5, -0.5], 2) @ sample.atoms.positions[:, 2]) for sample in SAMPLES]
    assert found.shift == pytest.approx(0.01 + 0.2 * np.mean(dipoles) / 6, rel=1e-6)
    grids = {grid.grid: grid for grid in found.grids}
    # What is odd and of ℓ = 1 is the symmetry error as given; inversion removes it, as does every grid of degree 1.
    assert grids["none"].symmetry_energy == pytest.approx(0.2 * np.mean(np.abs(dipoles)), rel=1e-9)
    assert grids["none"].symmetry_force == pytest.approx(found.force.mae, rel=1e-9)
    for name in ("i", "2", "2i", "3", "T", "O", "I"):
        assert grids[name].symmetry_force < 1e-12, name
        assert grids[name].force < 1e-12, name


def test_grids_have_the_sizes_of_the_paper() -> None:
    found = evaluate(load(Wrong()), SAMPLES[:1])
    assert [grid.rotations for grid in found.grids] == [1, 2, 18, 36, 75, 150, 12, 24, 60]
    assert [grid.grid for grid in found.grids] == list(GRIDS)
    assert evaluate(load(Wrong()), SAMPLES[:1], grids=()).grids == []


def test_structures_of_the_card_are_left_out() -> None:
    known = {SAMPLES[0].hash: "training", SAMPLES[2].hash: "validation"}
    found = evaluate(load(Wrong()), SAMPLES, known, grids=())
    assert found.structures == ["box#1"]
    assert found.left_out == {"training": ["box#0"], "validation": ["box#2"]}
    assert "left out, since the model's training saw them: 1 (box#0)" in table(found)
    assert "no card" not in table(found)
    assert "no card" in table(evaluate(load(Wrong()), SAMPLES, grids=()))
    with pytest.raises(InputError, match="on every one of these structures"):
        evaluate(load(Wrong()), SAMPLES, {sample.hash: "training" for sample in SAMPLES})


def test_an_unknown_grid_is_refused() -> None:
    with pytest.raises(InputError, match="there is no grid '4'; there are none, i, 2"):
        evaluate(load(Wrong()), SAMPLES, grids=("none", "4"))


def test_the_document_is_json() -> None:
    text = json.dumps(evaluate(load(Wrong(field=0.1)), SAMPLES).to_dict(), allow_nan=False)
    assert json.loads(text)["schema"] == "goniometer/evaluation/1"


def test_the_command_reads_the_card_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ase.io import write

    from goniometer.cli import main
    from goniometer.files.packaged import packaged_files

    model = tmp_path / "mine.pt"
    model.write_bytes(packaged_files("models", ".pt")["pet-water"].read_bytes())
    model.with_suffix(".md").write_text(f"```text training structures\n{SAMPLES[1].hash}\n```\n", encoding="utf-8")
    write(tmp_path / "water.xyz", [sample.atoms for sample in SAMPLES])
    arguments = ["evaluate", str(model), str(tmp_path / "water.xyz"), "--grids", "none,i", "--json", "e.json"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["goniometer", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    document = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    assert document["structures"] == ["water.xyz#0", "water.xyz#2"]
    assert document["left_out"] == {"training": ["water.xyz#1"]}
    assert "left out" in capsys.readouterr().out
