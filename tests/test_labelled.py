"""Labelled data: what is refused, what looks wrong, and what identifies a structure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.units import Bohr, Hartree

from goniometer.cli import main
from goniometer.errors import InputError
from goniometer.structures.labelled import Labelled, composition_baseline, labelled, read_labelled, structure_hash
from goniometer.structures.plausibility import look_for_trouble
from goniometer.training.split import held_back
from labels import PER_MOLECULE, relabelled, springs, toy_water

WATER = toy_water(12)


def samples(boxes: list[Atoms]) -> list[Labelled]:
    return [labelled(f"box#{number}", box) for number, box in enumerate(boxes)]


def test_labels_survive_a_file(tmp_path: Path) -> None:
    write(tmp_path / "water.xyz", WATER)
    found = read_labelled([tmp_path / "water.xyz"])
    for box, sample in zip(WATER, found, strict=True):
        energy, forces = springs(box)
        assert sample.energy == pytest.approx(energy, abs=1e-6)
        # Extended XYZ has eight digits behind the point.
        np.testing.assert_allclose(sample.forces, forces, atol=1e-7)
        assert sample.hash == structure_hash(box)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"energy": None}, "there is no energy"),
        ({"forces": None}, "there is no forces"),
        ({"energy": np.nan}, "the energy is not finite"),
        ({"forces": np.full((12, 3), np.inf)}, "the forces are not finite"),
        ({"forces": np.zeros((11, 3))}, r"the forces have the shape \(11, 3\); they must be \(12, 3\)"),
        ({"energy": np.zeros(2)}, r"the energy has the shape \(2,\)"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(change: dict[str, object], message: str) -> None:
    box = WATER[0].copy()
    box.calc = SinglePointCalculator(box)
    box.calc.results = {key: value for key, value in {**WATER[0].calc.results, **change}.items() if value is not None}
    with pytest.raises(InputError, match=f"box: {message}"):
        labelled("box", box)


def test_the_hash_is_of_the_geometry_alone() -> None:
    box = WATER[0]
    nudged, turned = box.copy(), box.copy()
    nudged.positions[3, 1] += 1e-4
    turned.set_cell(box.cell.array[[1, 2, 0]])
    assert structure_hash(relabelled(box, energy=2.0)) == structure_hash(box)
    assert len({structure_hash(each) for each in (box, nudged, turned, box[::-1])}) == 4


def test_good_data_raises_no_suspicion() -> None:
    findings = look_for_trouble(samples(WATER))
    assert (findings.structures, findings.atoms) == (12, 144)
    assert findings.lines() == []


def test_a_metal_raises_no_suspicion() -> None:
    generator = np.random.default_rng(1)
    boxes = []
    for _ in range(8):
        box = bulk("Cu", cubic=True) * 2
        box.positions += generator.normal(scale=generator.uniform(0.02, 0.15), size=box.positions.shape)
        box.calc = EMT()
        box.calc = SinglePointCalculator(box, energy=box.get_potential_energy(), forces=box.get_forces())
        boxes.append(box)
    assert look_for_trouble(samples(boxes)).lines() == []


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"lengths": 1 / Bohr, "energy": 1 / Hartree, "forces": Bohr / Hartree}, "are the positions in bohr"),
        ({"lengths": Bohr}, "were Å converted once too often"),
        ({"energy": 1 / Hartree}, "are the energies in hartree"),
        ({"forces": Bohr / Hartree}, "are the forces in hartree/bohr"),
    ],
)
def test_units_off_by_bohr_or_hartree_are_found(factors: dict[str, float], message: str) -> None:
    findings = look_for_trouble(samples([relabelled(box, **factors) for box in WATER]))
    assert any(message in line for line in findings.units)


def test_duplicates_and_net_forces_are_found() -> None:
    pulled = relabelled(WATER[1])
    pulled.calc.results["forces"] = pulled.calc.results["forces"] + [0.0, 0.0, 0.02]
    findings = look_for_trouble(samples([WATER[0], pulled, WATER[0]]))
    assert findings.duplicates == [("box#0", "box#2")]
    ((name, size),) = findings.net_forces
    assert name == "box#1"
    assert size == pytest.approx(0.02)


def test_the_baseline_leaves_nothing_of_a_sum_over_molecules() -> None:
    baseline = composition_baseline(samples(toy_water(3, spread=0.0)))
    # What is left is the strain of ASE's molecule against the springs.
    assert 2 * baseline[1] + baseline[8] == pytest.approx(PER_MOLECULE, abs=0.01)


def test_a_tenth_is_held_back_and_copies_stay_on_one_side() -> None:
    doubled = samples([*WATER, *WATER])
    training, held = held_back(doubled, seed=3)
    assert len(held) == 2
    assert not {s.hash for s in training} & {s.hash for s in held}
    assert [s.name for s in held_back(doubled, seed=3)[1]] == [s.name for s in held]


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["goniometer", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command_says_what_looks_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, twice, bare = tmp_path / "good.xyz", tmp_path / "twice.xyz", tmp_path / "bare.xyz"
    write(good, WATER)
    write(twice, [*WATER, WATER[4]])
    write(bare, [box.copy() for box in WATER])
    assert run(["data", "check", str(good)], monkeypatch) == 0
    assert "12 structures of 144 atoms" in capsys.readouterr().out
    assert run(["data", "check", str(twice)], monkeypatch) == 1
    assert "twice.xyz#12 is the same structure as twice.xyz#4" in capsys.readouterr().out
    assert run(["data", "check", str(bare)], monkeypatch) == 2
    assert "bare.xyz#0: there is no energy" in capsys.readouterr().err
