"""Improper copies, and structures with a left-handed cell, reach a model as right-handed cells of their lattice."""

# TorchScript, and metatomic's check of a module's signature, want the types of `typing`, as they are.
# ruff: noqa: UP006, UP035, UP045

from pathlib import Path
from typing import Dict, List, Optional

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixScaledParametricRelations
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelMetadata,
    ModelOutput,
    NeighborListOptions,
    System,
    systems_to_torch,
)

import goniometer
from goniometer.potentials import AsePotential
from goniometer.rotations import rule
from goniometer.structures import right_handed, turned
from goniometer.symmetrization import response
from goniometer.symmetrization.export import export
from goniometer.symmetrization.random import fingerprint
from goniometer.testing import PeriodicToy, check_potential
from structures import crystal

KINDS = ("raise", "sign", "empty", "nan")


class Fussy(Calculator):
    """EMT behind a front end that mistreats cells of negative determinant in one of the ways that are found."""

    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.inner = kind, EMT()

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        copy = self.atoms.copy()
        copy.calc = self.inner
        energy, forces, stress = copy.get_potential_energy(), copy.get_forces(), copy.get_stress()
        if np.linalg.det(copy.cell.array) < 0:
            if self.kind == "raise":
                raise ValueError("unit cell must be right handed (negative volume)")
            factors = {"sign": (1, 1, -1), "empty": (0, 0, 0), "nan": (np.nan,) * 3}[self.kind]
            energy, forces, stress = (f * each for f, each in zip(factors, (energy, forces, stress), strict=True))
        self.results = {"energy": energy, "forces": forces, "stress": stress}


def copper() -> Atoms:
    structure = bulk("Cu", cubic=True) * (2, 1, 1)
    structure.rattle(0.06, seed=3)
    return structure


def reversed_cell(structure: Atoms) -> Atoms:
    copy = structure.copy()
    copy.cell = -structure.cell.array
    return copy


def swapped_cell(structure: Atoms) -> Atoms:
    copy = structure.copy()
    copy.cell = structure.cell.array[[1, 0, 2]]
    return copy


@pytest.mark.parametrize("strategy", ["average", "random", "frozen"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [Atoms.copy, reversed_cell, swapped_cell])
def test_front_ends_that_mistreat_left_handed_cells_give_the_right_average(kind, given, strategy) -> None:
    structure = given(copper())
    expected = EMT()
    copper_ = copper()
    copper_.calc = expected
    structure.calc = goniometer.symmetrize(AsePotential(Fussy(kind)), "octahedral", strategy=strategy).calculator()
    assert structure.get_potential_energy() == pytest.approx(copper_.get_potential_energy(), abs=1e-10)
    np.testing.assert_allclose(structure.get_forces(), copper_.get_forces(), atol=1e-10)
    np.testing.assert_allclose(structure.get_stress(), copper_.get_stress(), atol=1e-12)
    assert np.abs(copper_.get_stress()).max() > 1e-3


def test_the_elastic_constant_of_an_average_is_that_of_the_calculator() -> None:
    """C11 = ∂σ_xx/∂ε_xx: zero where stresses of left-handed copies cancel those of the others."""

    def c11(calculator: Calculator) -> float:
        stresses = []
        for strain in (1e-3, -1e-3):
            structure = bulk("Cu", cubic=True)
            structure.set_cell(structure.cell.array * [1 + strain, 1, 1], scale_atoms=True)
            structure.calc = calculator
            stresses.append(structure.get_stress()[0])
        return (stresses[0] - stresses[1]) / 2e-3

    averaged = goniometer.symmetrize(AsePotential(Fussy("sign")), "octahedral").calculator()
    assert c11(averaged) == pytest.approx(c11(EMT()), rel=1e-8)
    assert c11(EMT()) > 0.5


def test_no_calculator_is_handed_a_left_handed_cell() -> None:
    seen = []

    class Recording(EMT):
        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            seen.append((np.linalg.det(atoms.cell.array), atoms.get_all_distances(mic=True)))
            super().calculate(atoms, properties, system_changes)

    structure, over = copper(), rule("octahedral").turned_at_random(1)
    for given in (structure, swapped_cell(structure)):
        response(AsePotential(Recording()), given, over.matrices)
    assert len(seen) == 2 * len(over)
    for volume, distances in seen:
        assert volume == pytest.approx(structure.get_volume())
        np.testing.assert_allclose(distances, structure.get_all_distances(mic=True), atol=1e-10)


@pytest.mark.parametrize("given", [Atoms.copy, reversed_cell, swapped_cell])
def test_rotated_structures_have_right_handed_cells_of_the_same_lattice(given) -> None:
    structure = given(crystal())
    inverted = turned(structure, -np.eye(3))
    assert inverted.cell.array == pytest.approx(right_handed(structure.cell.array))
    assert np.linalg.det(inverted.cell.array) > 0
    np.testing.assert_array_equal(inverted.positions, -structure.positions)
    combination = inverted.cell.array @ np.linalg.inv(structure.cell.array)
    np.testing.assert_allclose(np.abs(combination), np.eye(3), atol=1e-12)
    # The key of a random rotation is the same however the copy came about.
    assert fingerprint(inverted) == fingerprint(structure, -np.eye(3))
    assert fingerprint(inverted) != fingerprint(structure)


def test_cells_of_fewer_vectors_keep_theirs() -> None:
    slab = crystal()
    slab.pbc = (True, True, False)
    slab.cell[2] = 0.0
    np.testing.assert_array_equal(turned(slab, -np.eye(3)).cell.array, -slab.cell.array)


def test_relations_of_scaled_coordinates_follow_the_cell() -> None:
    structure = crystal()
    scaled = structure.get_scaled_positions()[0]
    structure.set_constraint(FixScaledParametricRelations([0], np.zeros((3, 0)), scaled))
    copy = turned(structure, -np.eye(3))
    before = copy.positions.copy()
    copy.set_positions(before + 0.1)
    moved = np.linalg.solve(copy.cell.array.T, copy.positions[0] - before[0])
    np.testing.assert_allclose(moved, np.round(moved), atol=1e-10)  # ASE puts the atom into the cell
    assert np.abs(copy.positions[1] - before[1]).max() > 0.09


@pytest.mark.parametrize("parity", [1, -1])
def test_a_toy_of_any_parity_sees_the_lattice_and_not_the_cell(parity: int) -> None:
    toy, structure = PeriodicToy(2, parity, 0.1), crystal()
    for given in (reversed_cell(structure), swapped_cell(structure)):
        np.testing.assert_allclose(toy.predict(given).energies, toy.predict(structure).energies, atol=1e-12)
        assert check_potential(toy, given).passed


# ---- metatomic ------------------------------------------------------------------------------------------------------


class Strict(torch.nn.Module):
    """A pair energy of edges that are made anew from positions, cell and cell shifts, as PET makes them.

    It raises for a left-handed cell, and where the edges are not those of the neighbor list.
    """

    def __init__(self) -> None:
        super().__init__()
        self.options = NeighborListOptions(cutoff=4.0, full_list=True, strict=True, requestor="strict")

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        return [self.options]

    def forward(
        self, systems: List[System], outputs: Dict[str, ModelOutput], selected_atoms: Optional[Labels]
    ) -> Dict[str, TensorMap]:
        energies: List[torch.Tensor] = []
        for system in systems:
            if bool(torch.linalg.det(system.cell) < 0.0):
                raise ValueError("the cell is left-handed")
            pairs = system.get_neighbor_list(self.options)
            columns = pairs.samples.values.to(torch.long)
            shifts = columns[:, 2:].to(system.cell.dtype) @ system.cell
            edges = system.positions[columns[:, 1]] - system.positions[columns[:, 0]] + shifts
            if bool((edges - pairs.values[:, :, 0]).abs().max() > 1e-6):
                raise ValueError("the edges are not those of positions, cell and shifts")
            r = torch.linalg.norm(edges, dim=1)
            along = edges[:, 2] / r
            energies.append(((1.0 - (r / 4.0) ** 2) ** 3 * (1.0 + 0.3 * along + 0.2 * along**2) * columns[:, 0]).sum())
        samples = torch.arange(len(systems), dtype=torch.int32).reshape(-1, 1)
        block = TensorBlock(
            torch.stack(energies).reshape(-1, 1),
            Labels(["system"], samples),
            torch.jit.annotate(List[Labels], []),
            Labels(["energy"], torch.zeros((1, 1), dtype=torch.int32)),
        )
        return {"energy": TensorMap(Labels(["_"], torch.zeros((1, 1), dtype=torch.int32)), [block])}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    capabilities = ModelCapabilities(
        outputs={"energy": ModelOutput(unit="eV", sample_kind="system")},
        atomic_types=[11, 17],
        interaction_range=4.0,
        length_unit="angstrom",
        supported_devices=["cpu"],
        dtype="float64",
    )
    path = tmp_path_factory.mktemp("strict") / "strict.pt"
    AtomisticModel(Strict().eval(), ModelMetadata(), capabilities).save(str(path))
    return path


@pytest.mark.parametrize("given", [Atoms.copy, reversed_cell, swapped_cell])
def test_metatomic_copies_are_right_handed_and_their_edges_consistent(strict: Path, given) -> None:
    potential = goniometer.load(strict)
    over = rule("octahedral").turned_at_random(0)
    right, found = (response(potential, each, over.matrices) for each in (crystal(), given(crystal())))
    np.testing.assert_allclose(found.energies, right.energies, atol=1e-10)
    np.testing.assert_allclose(found.forces, right.forces, atol=1e-10)
    np.testing.assert_allclose(found.virials, right.virials, atol=1e-10)
    assert np.ptp(right.energies[: len(over) // 2] - right.energies[len(over) // 2 :]) > 1e-3  # odd, so not blind
    report = check_potential(potential, given(crystal()))
    assert report.passed, str(report)


@pytest.mark.parametrize("given", [Atoms.copy, reversed_cell, swapped_cell])
def test_an_exported_average_hands_its_model_right_handed_cells(strict: Path, tmp_path: Path, given) -> None:
    over = rule("octahedral").turned_at_random(0)
    path = export(strict, over, tmp_path / "averaged.pt", batch=5).path
    averaged = goniometer.load(path)
    expected = goniometer.symmetrize(strict, over).predict(crystal())
    found = averaged.predict(given(crystal()))
    np.testing.assert_allclose(found.energies, expected.energies, atol=1e-10)
    np.testing.assert_allclose(found.forces, expected.forces, atol=1e-10)
    np.testing.assert_allclose(found.virials, expected.virials, atol=1e-9)


@pytest.mark.parametrize("given", [Atoms.copy, reversed_cell])
def test_copies_for_training_are_right_handed_and_their_edges_consistent(given) -> None:
    neighbors = pytest.importorskip("metatrain.utils.neighbor_lists")
    from goniometer.training.network import turned as turned_system

    options = NeighborListOptions(cutoff=4.0, full_list=True, strict=True, requestor="test")
    system = systems_to_torch(given(crystal()), dtype=torch.float64)
    system = neighbors.get_system_with_neighbor_lists(system, [options])
    for matrix in rule("octahedral").turned_at_random(0).matrices[::9]:
        copy = turned_system(system, matrix)
        assert torch.linalg.det(copy.cell) > 0.0
        pairs = copy.get_neighbor_list(options)
        columns = pairs.samples.values.to(torch.long)
        edges = copy.positions[columns[:, 1]] - copy.positions[columns[:, 0]]
        edges = edges + columns[:, 2:].to(copy.cell.dtype) @ copy.cell
        np.testing.assert_allclose(edges, pairs.values[:, :, 0], atol=1e-10)
        assert columns[:, 2:].abs().max() > 0
