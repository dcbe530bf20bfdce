"""Metatomic models: turned copies against whole structures, packed and batched copies, precision, refusals."""

# TorchScript, and metatomic's check of a module's signature, want the types of `typing`.
# ruff: noqa: UP006, UP035, UP045

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Dict, List, Optional

import numpy as np
import pytest
import torch
from ase import Atoms
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelMetadata,
    ModelOutput,
    NeighborListOptions,
    System,
    load_atomistic_model,
)

import goniometer
from goniometer.errors import InputError, PotentialError
from goniometer.files.packaged import packaged_files
from goniometer.potentials import Prediction
from goniometer.potentials.metatomic import MetatomicPotential
from goniometer.rotations import random_rotations, rule
from goniometer.structures import read_structures
from goniometer.structures.rotation import turned
from goniometer.symmetrization import response
from goniometer.testing import check_potential

EPS32 = float(np.finfo(np.float32).eps)
#: Of the packaged models the one that prefers directions the most: there is something to see.
NAME = "pet-water-unaugmented"
PET_WATER = packaged_files("models", ".pt")[NAME]


def molecule() -> Atoms:
    return read_structures("molecule")[0].atoms


@cache
def _box() -> Atoms:
    return read_structures("box")[0].atoms


def box() -> Atoms:
    return _box().copy()


def small_crystal(pbc: tuple[bool, bool, bool] = (True, True, True)) -> Atoms:
    """Eight water molecules, each turned at random, in a triclinic cell."""
    rng = np.random.default_rng(4)
    cell = np.array([[6.2, 0.0, 0.0], [0.5, 6.3, 0.0], [-0.4, 0.3, 6.1]])
    sites = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) / 2.0 @ cell
    water = molecule()
    centred = water.positions - water.positions.mean(axis=0)
    turns = random_rotations(len(sites), rng)
    positions = np.concatenate([site + centred @ turn.T for site, turn in zip(sites, turns, strict=True)])
    return Atoms("OH2" * len(sites), positions, cell=cell, pbc=pbc)


STRUCTURES = {
    "molecule": molecule,
    "crystal": small_crystal,
    "slab": lambda: small_crystal((True, True, False)),
    "cluster": lambda: small_crystal((False, False, False)),
}
structures = pytest.mark.parametrize("name", STRUCTURES)


def orientations(count: int, seed: int = 0) -> np.ndarray:
    """Uniform on O(3), proper and improper alternating."""
    return random_rotations(count, np.random.default_rng(seed)) * np.resize([1.0, -1.0], count)[:, None, None]


@cache
def pet(dtype: str = "float32", batch: int | None = 4) -> MetatomicPotential:
    potential = goniometer.load(NAME, dtype=dtype, batch=batch)
    assert isinstance(potential, MetatomicPotential)
    return potential


def rounding(structure: Atoms, dtype: str) -> float:
    """Roundings of some hundred operations per atom on numbers of a few eV and eV/Å, which add up at random."""
    return 100.0 * float(np.finfo(dtype).eps) * np.sqrt(len(structure))


def packs(potential: MetatomicPotential, structure: Atoms) -> bool:
    return potential._can_pack(structure, [potential._pairs(structure, each) for each in potential._neighbor_lists])


def alone(potential: MetatomicPotential, structure: Atoms) -> Prediction:
    """One structure as one system, never packed."""
    pairs = [potential._pairs(structure, each) for each in potential._neighbor_lists]
    return potential._batch(structure, structure.positions[None], np.eye(3)[None], pairs, packed=False)


@pytest.fixture(autouse=True)
def _no_specialisation() -> Iterator[None]:
    """Reference calculators would spend seconds on compiling for every new shape."""
    with torch.jit.optimized_execution(False):
        yield


# ---- pet-water ------------------------------------------------------------------------------------------------------


@structures
def test_turned_copies_agree_with_the_calculator_of_metatomic_on_whole_structures(name: str) -> None:
    calculators = pytest.importorskip("metatomic_ase")
    structure, matrices = STRUCTURES[name](), orientations(6)
    reference = calculators.MetatomicCalculator(PET_WATER, device="cpu", neighbor_skin=0.0)
    found = Prediction.joined(pet().turned(structure, matrices))
    energies, forces, stresses = [], [], []
    for matrix in matrices:
        whole = turned(structure, matrix)
        whole.calc = reference
        energies.append(whole.get_potential_energy())
        forces.append(whole.get_forces())
        if structure.pbc.all():
            stresses.append(whole.get_stress(voigt=False) * whole.get_volume())
    # The calculator's totals are float32, baseline and all.
    step = EPS32 * np.abs(energies).max()
    np.testing.assert_allclose(found.energies, energies, atol=4.0 * step, rtol=0.0)
    np.testing.assert_allclose(found.forces, forces, atol=rounding(structure, "float32"), rtol=0.0)
    if stresses:
        symmetric = (found.virials + found.virials.transpose(0, 2, 1)) / 2.0
        np.testing.assert_allclose(symmetric, stresses, atol=30.0 * rounding(structure, "float32"), rtol=0.0)
    # Control: there is something to agree on. Back-rotated forces differ between orientations by far more.
    assert np.ptp(found.forces @ matrices, axis=0).max() > 100.0 * rounding(structure, "float32")
    assert np.ptp(found.energies) > 1e-3


@structures
def test_single_batched_and_packed_copies_are_the_same(name: str) -> None:
    structure, matrices = STRUCTURES[name](), orientations(7)
    # In float64, gradients of a pair or two amplify roundings to 1e-10, whatever evaluates them.
    for dtype, tolerance in (("float32", rounding(structure, "float32")), ("float64", 1e-9)):
        ways = {batch: Prediction.joined(pet(dtype, batch).turned(structure, matrices)) for batch in (1, 3, 7)}
        ways[0] = Prediction.joined([alone(pet(dtype), turned(structure, matrix)) for matrix in matrices])
        for found in ways.values():
            np.testing.assert_allclose(found.energies, ways[1].energies, atol=tolerance, rtol=0.0)
            np.testing.assert_allclose(found.forces, ways[1].forces, atol=tolerance, rtol=0.0)
            np.testing.assert_allclose(found.virials, ways[1].virials, atol=30.0 * tolerance, rtol=0.0)
    assert packs(pet(), molecule())


def test_energies_hold_the_baseline_and_its_float64_digits() -> None:
    """Against the model as it is, in float64: baseline taken out and added changes nothing."""
    calculators = pytest.importorskip("metatomic_ase")
    reference = calculators.MetatomicCalculator(PET_WATER, device="cpu")
    for structure in (molecule(), small_crystal()):
        structure.calc = reference
        assert pet("float64").predict(structure).energies[0] == pytest.approx(
            structure.get_potential_energy(), rel=4.0 * EPS32
        )
        assert structure.get_potential_energy() < -100.0 * len(structure)  # control: there is a baseline


def test_a_model_is_not_changed_by_the_potentials_made_of_it() -> None:
    model = load_atomistic_model(str(PET_WATER))
    first = MetatomicPotential(model, dtype="float64")
    second = MetatomicPotential(model)
    assert second.dtype == "float32"
    energies = [each.predict(molecule()).energies[0] for each in (first, second, first)]
    assert energies[0] == energies[2]
    assert energies[1] == pytest.approx(energies[0], abs=1e-3)  # a lost baseline would be 469 eV


def symmetry_error(potential: MetatomicPotential, structure: Atoms, matrices: np.ndarray) -> np.ndarray:
    energies = response(potential, structure, matrices).energies
    return energies - energies.mean()


def replica(repeat: tuple[int, int, int], orientations_: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Symmetry errors of a replica of the box: in float32, in float64, and of naive float32 totals."""
    structure, matrices = box() * repeat, orientations(orientations_, seed=8)
    # The float64 evaluation is of the same model: the weights are float32 numbers in both.
    exact = symmetry_error(pet("float64", 1), structure, matrices)
    found = symmetry_error(pet("float32", 1), structure, matrices)
    baseline = pet()._baseline_of(structure).sum()
    naive = np.array([np.float32(baseline) + np.float32(error) for error in exact], dtype=np.float32).astype(float)
    return found, exact, naive - naive.mean()


def test_symmetry_errors_of_a_box_are_those_of_float64() -> None:
    found, exact, naive = replica((1, 1, 2), 4)
    assert exact.std() > 1e-3
    # 384 atoms: the roundings of each add up at random, to some hundredths of a meV.
    np.testing.assert_allclose(found, exact, atol=rounding(box() * (1, 1, 2), "float32"), rtol=0.0)
    assert np.abs(found - exact).max() < 0.05 * exact.std()
    # Control: float32 totals at −60 000 eV step by 4 meV.
    assert np.abs(naive - exact).max() > 10.0 * np.abs(found - exact).max()


on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
ELSEWHERE = [
    pytest.param("molecule", "cpu", "float64"),
    pytest.param("box", "cpu", "float64", marks=pytest.mark.nightly),
    pytest.param("molecule", "cuda", "float32", marks=on_cuda),
    pytest.param("box", "cuda", "float32", marks=on_cuda),
]


@pytest.mark.parametrize(("name", "device", "dtype"), ELSEWHERE)
def test_a_probe_gives_the_same_on_another_device(name: str, device: str, dtype: str) -> None:
    """Within the rounding of float32: of one evaluation for a mean or a single answer, and for an rms over it."""

    def probed(device: str, dtype: str) -> goniometer.probe:
        potential = goniometer.load(NAME, device=device, dtype=dtype)
        assert potential.device.type == device
        return goniometer.probe(potential, name, lmax=1, measured=()).structures[0]

    here, there = probed("cpu", "float32"), probed(device, dtype)
    (structure,) = read_structures(name)
    for quantity, size in (("energy", len(structure.atoms) ** 0.5), ("forces", 1.0), ("stress", 0.01)):
        one, other = getattr(here, quantity), getattr(there, quantity)
        if one is None:
            assert other is None
            continue
        tolerance = 100.0 * EPS32 * size
        # RMSNorm takes the ε of the dtype: in float64 all orientations have another energy, by the same amount.
        means = ("mean",) if quantity != "energy" or dtype == "float32" else ()
        for figure in (*means, "rms", "as_given", "max"):
            assert getattr(other, figure) == pytest.approx(getattr(one, figure), abs=tolerance), (quantity, figure)
        parts = [np.array([each.spectrum.plus[1:], each.spectrum.minus[1:]]) for each in (one, other)]
        roots = [np.sqrt(np.maximum(part, 0.0)) for part in parts]
        np.testing.assert_allclose(*roots, atol=3.0 * tolerance, rtol=0.0)  # (2ℓ+1) for white noise
        assert one.rms > 10.0 * tolerance  # there is something to compare


@pytest.mark.nightly
def test_symmetry_errors_of_512_molecules_are_those_of_float64() -> None:
    calculators = pytest.importorskip("metatomic_ase")
    found, exact, naive = replica((2, 2, 2), 6)
    np.testing.assert_allclose(found, exact, atol=rounding(box() * (2, 2, 2), "float32"), rtol=0.0)
    assert np.abs(found - exact).max() < 0.05 * exact.std()
    assert np.abs(naive - exact).max() > 3e-3
    # The same control with the totals as metatomic itself gives them.
    structure, totals = box() * (2, 2, 2), []
    for matrix in orientations(6, seed=8):
        whole = turned(structure, matrix)
        whole.calc = calculators.MetatomicCalculator(PET_WATER, device="cpu")
        totals.append(whole.get_potential_energy())
    assert np.abs(np.array(totals) - np.mean(totals) - exact).max() > 3e-3


def test_fixed_batches_repeat_to_the_last_bit() -> None:
    for structure in (molecule(), small_crystal()):
        potentials = [goniometer.load(NAME, batch=3) for _ in range(2)]
        runs = [Prediction.joined(each.turned(structure, orientations(7))) for each in potentials]
        for part in ("energies", "forces", "virials"):
            np.testing.assert_array_equal(getattr(runs[0], part), getattr(runs[1], part))


def test_pet_water_keeps_the_contract_of_a_potential() -> None:
    check_potential(pet("float32", None), [molecule(), small_crystal()]).raise_if_failed()


class EdgesOnly(MetatomicPotential):
    """Turns the pair vectors alone: a model that works out its edges from positions never sees a turn."""

    def turned(self, structure: Atoms, matrices: np.ndarray) -> Iterator[Prediction]:
        pairs = [self._pairs(structure, options) for options in self._neighbor_lists]
        for matrix in matrices:
            prediction = self._batch(structure, structure.positions[None], matrix[None], pairs, packed=False)
            forces, virials = prediction.forces @ matrix.T, matrix @ prediction.virials @ matrix.T
            yield Prediction(prediction.energies, forces, virials, prediction.atomic)


def test_a_wrapper_that_turns_edges_only_is_found_out() -> None:
    wrapper = EdgesOnly.from_file(PET_WATER)
    assert np.ptp(response(wrapper, molecule(), orientations(5)).energies) == 0.0  # the trap: it looks perfect
    report = check_potential(wrapper, molecule())
    assert {"turned copies", "orientations seen"} <= set(report.failed)


# ---- prediction and measurement -------------------------------------------------------------------------------------

COMPARED = ("octahedral", "icosahedral", "legendre:2", "legendre:3", "lebedev:4", "lebedev:5")


@cache
def probed() -> goniometer.probe:
    """The packaged model on the packaged molecule, resolved to ℓ = 6, each compared rule evaluated as well."""
    measured = [(name, inversion) for name in COMPARED for inversion in (False, True)]
    return goniometer.probe(pet("float32", 96), molecule(), lmax=6, measured=measured).structures[0]


def test_residuals_as_rules_stand_are_predicted() -> None:
    result = probed()
    rows = {(row.name, row.inversion): row for row in result.rules}
    for name in COMPARED:
        for inversion in (False, True):
            row = rows[name, inversion]
            for quantity in ("energy", "forces"):
                figure, residual = getattr(result, quantity), getattr(row, quantity)
                # Means over n elements and over the probe's nodes carry the noise of one evaluation over √n.
                noise = figure.floor * np.sqrt(1.0 / row.n + 1.0 / 60.0)
                difference = abs(residual.as_it_stands - residual.measured)
                assert difference < 1e-3 * residual.measured + 4.0 * noise + residual.tail, (name, quantity)
    # Control: there is something to predict, and rules differ.
    sizes = [rows[name, False].forces.measured for name in ("legendre:2", "octahedral", "icosahedral")]
    assert sizes[0] > 10.0 * sizes[1] > 10.0 * result.forces.floor / np.sqrt(24)


@pytest.mark.parametrize("name", COMPARED)
def test_residuals_over_random_turns_are_predicted(name: str) -> None:
    result, turns = probed(), 120
    row = next(row for row in result.rules if row.name == name and not row.inversion)
    averaged = rule(name)
    left, right = random_rotations(2 * turns, np.random.default_rng(11)).reshape(2, turns, 1, 3, 3)
    matrices = (left @ averaged.matrices @ right).reshape(-1, 3, 3)
    forces = response(pet("float32", 96), molecule(), matrices).forces.reshape(turns, len(averaged), -1)
    exact = mean_forces()
    square = np.mean((np.einsum("k,tkc->tc", averaged.weights, forces) - exact) ** 2, axis=1)
    noise = (result.forces.floor**2) * (1.0 / len(averaged) + 1.0 / 60.0)
    allowed = 4.2 * square.std(ddof=1) / np.sqrt(turns) + 4.0 * noise + row.forces.tail**2
    assert abs(square.mean() - row.forces.over_turns**2) < allowed
    if name in ("octahedral", "legendre:2"):  # control: it is resolved, and not the whole variance
        assert square.mean() > 2.0 * allowed
        assert square.mean() < 0.5 * result.forces.rms**2


@cache
def mean_forces() -> np.ndarray:
    nodes = rule("gauss:9", True).turned_at_random(1)
    forces = response(pet("float32", 96), molecule(), nodes.matrices).forces.reshape(len(nodes), -1)
    return nodes.weights @ forces


# ---- models of our own ----------------------------------------------------------------------------------------------

CUTOFF = 3.0


class Tiny(torch.nn.Module):
    """A smooth local pair energy of anisotropy ε P_2(cos θ), with one of several peculiarities.

    ``half``: it asks for a half list; ``pooled``: each energy depends on the mean over the system; ``all pairs``: every
    atom of the system sees every other, from positions; ``places``: an atom's energy depends on its place in the
    system, that of a diatomic molecule does not; ``nan``: the answer is not a number; ``raise``: it fails.
    Energies are made from the pair vectors themselves.
    """

    def __init__(self, kind: str, anisotropy: float, length: float, unit: float, by_system: bool) -> None:
        super().__init__()
        self.kind, self.anisotropy, self.length, self.unit, self.by_system = kind, anisotropy, length, unit, by_system
        unit_name = "angstrom" if length == 1.0 else "bohr"
        self.options = NeighborListOptions(
            cutoff=CUTOFF * length, full_list=kind != "half", strict=True, requestor=f"tiny in {unit_name}"
        )

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        return [self.options]

    def forward(
        self, systems: List[System], outputs: Dict[str, ModelOutput], selected_atoms: Optional[Labels]
    ) -> Dict[str, TensorMap]:
        if self.kind == "raise":
            raise ValueError("this model is not in the mood")
        energies: List[torch.Tensor] = []
        forces: List[torch.Tensor] = []
        samples: List[torch.Tensor] = []
        for index, system in enumerate(systems):
            pairs = system.get_neighbor_list(self.options)
            vectors = pairs.values[:, :, 0] / self.length
            r = torch.linalg.norm(vectors, dim=1)
            cosine = vectors[:, 2] / r
            first = pairs.samples.column("first_atom").to(torch.long)
            envelope = (1.0 - (r / 3.0) ** 2) ** 3
            term = envelope * (1.0 + self.anisotropy * (1.5 * cosine**2 - 0.5))
            if self.kind == "half":
                term = 2.0 * term
            local = torch.zeros(len(system), dtype=term.dtype, device=term.device).index_add(0, first, term)
            if self.kind == "pooled":
                local = local + local.mean() ** 2
            if self.kind == "all pairs":
                apart = system.positions[None] - system.positions[:, None]
                local = local + torch.exp(-0.1 * (apart**2).sum(dim=2)).sum(dim=1)
            if self.kind == "places":
                # Of a diatomic copy the two places cancel, whichever copy it is.
                place = torch.arange(len(system), device=term.device) % 4
                local = local + 0.1 * torch.tensor([1.0, -1.0, 2.0, -2.0], dtype=term.dtype, device=term.device)[place]
            if self.kind == "nan":
                local = local * torch.nan
            energies.append(local)
            push = envelope[:, None] * (vectors + self.anisotropy * vectors[:, 2:] * torch.ones_like(vectors))
            forces.append(torch.zeros((len(system), 3), dtype=term.dtype, device=term.device).index_add(0, first, push))
            atoms = torch.arange(len(system), dtype=torch.int32)
            samples.append(torch.stack([torch.full_like(atoms, index), atoms], dim=1))
        zero = torch.zeros((1, 1), dtype=torch.int32)
        key = Labels(["_"], zero)
        by_atom = Labels(["system", "atom"], torch.cat(samples))
        values = self.unit * torch.cat(energies).reshape(-1, 1)
        kept = by_atom
        if self.by_system:
            values = self.unit * torch.stack([each.sum() for each in energies]).reshape(-1, 1)
            kept = Labels(["system"], torch.arange(len(systems), dtype=torch.int32).reshape(-1, 1))
        none = torch.jit.annotate(List[Labels], [])
        found = {"energy": TensorMap(key, [TensorBlock(values, kept, none, Labels(["energy"], zero))])}
        if "non_conservative_force" in outputs:
            block = TensorBlock(
                torch.cat(forces)[:, :, None],
                by_atom,
                [Labels(["xyz"], torch.arange(3, dtype=torch.int32).reshape(-1, 1))],
                Labels(["non_conservative_force"], zero),
            )
            found["non_conservative_force"] = TensorMap(key, [block])
        return found


def tiny(
    folder: Path,
    kind: str = "local",
    *,
    anisotropy: float = 0.1,
    bohr: bool = False,
    by_system: bool = False,
    dtype: str = "float64",
    options: dict | None = None,
) -> MetatomicPotential:
    """A model of ours, exported and loaded again."""
    length, unit = (1.8897261246257702, 1.0 / 27.211386245988) if bohr else (1.0, 1.0)
    capabilities = ModelCapabilities(
        outputs={
            "energy": ModelOutput(unit="hartree" if bohr else "eV", sample_kind="system" if by_system else "atom"),
            "non_conservative_force": ModelOutput(unit="hartree/bohr" if bohr else "eV/A", sample_kind="atom"),
        },
        atomic_types=[1, 8],
        interaction_range=CUTOFF * length,
        length_unit="bohr" if bohr else "angstrom",
        dtype=dtype,
        supported_devices=["cpu"],
    )
    module = Tiny(kind, anisotropy, length, unit, by_system)
    path = folder / "tiny.pt"
    AtomisticModel(module.eval(), ModelMetadata(), capabilities).save(str(path))
    return MetatomicPotential.from_file(path, **(options or {}))


def test_a_local_model_is_packed(tmp_path: Path) -> None:
    assert packs(tiny(tmp_path), molecule())


@pytest.mark.parametrize("kind", ["pooled", "all pairs"])
def test_a_model_whose_answer_changes_by_packing_is_not_packed(kind: str, tmp_path: Path) -> None:
    potential = tiny(tmp_path, kind)
    assert not packs(potential, molecule())
    check_potential(potential, molecule()).raise_if_failed()


def test_energies_are_compared_atom_by_atom(tmp_path: Path) -> None:
    """Totals and forces of the packed copies are those of single ones, the energies of their atoms are not."""
    diatomic, potential = molecule()[:2], tiny(tmp_path, "places")
    assert not packs(potential, diatomic)
    potential._agreeing = {b"packed" + diatomic.numbers.tobytes(): True}
    assert packs(potential, diatomic)
    single, twice = alone(potential, diatomic), np.stack([np.eye(3)] * 2)
    packed = Prediction.joined(potential.turned(diatomic, twice))
    np.testing.assert_allclose(packed.energies, np.repeat(single.energies, 2), rtol=1e-14)
    assert packs(tiny(tmp_path), diatomic)


def test_what_a_single_atom_shows_does_not_decide_for_molecules(tmp_path: Path) -> None:
    """The mean over copies of one lonely atom is what each copy has: packed, it gives the same."""
    potential = tiny(tmp_path, "pooled")
    assert packs(potential, Atoms("O", [[0.1, 0.2, 0.3]]))
    assert not packs(potential, molecule())


@pytest.mark.parametrize("habit", [{}, {"kind": "half"}, {"bohr": True}, {"by_system": True}, {"dtype": "float32"}])
def test_models_of_other_habits_keep_the_contract(habit: dict, tmp_path: Path) -> None:
    potential = tiny(tmp_path, **habit)
    check_potential(potential, [molecule(), small_crystal((True, True, False))]).raise_if_failed()
    reference = tiny(tmp_path)
    for structure in (molecule(), small_crystal()):
        one, other = potential.predict(structure), reference.predict(structure)
        tolerance = rounding(structure, potential.dtype) + (1e-6 if "bohr" in habit else 0.0)  # of unit tables
        np.testing.assert_allclose(one.energies, other.energies, atol=10 * tolerance, rtol=0.0)
        np.testing.assert_allclose(one.forces, other.forces, atol=10 * tolerance, rtol=0.0)
        np.testing.assert_allclose(one.virials, other.virials, atol=100 * tolerance, rtol=0.0)
    assert np.ptp(response(potential, small_crystal(), orientations(5)).energies) > 1e-3  # control: anisotropic


def test_pair_vectors_that_are_used_are_turned(tmp_path: Path) -> None:
    """A spectrum at ℓ = 2 alone, even under inversion; nothing of it in an isotropic model."""
    result = goniometer.probe(tiny(tmp_path), small_crystal(), lmax=3, measured=()).structures[0]
    assert result.energy.spectrum.plus[2] == pytest.approx(result.energy.rms**2, rel=1e-9)
    assert result.stress.spectrum.plus[2] == pytest.approx(result.stress.rms**2, rel=1e-9)
    assert result.torque.rms == pytest.approx(result.torque.expected, rel=1e-9)
    isotropic = goniometer.probe(tiny(tmp_path, anisotropy=0.0), small_crystal(), lmax=3, measured=()).structures[0]
    for figure in (isotropic.energy, isotropic.forces, isotropic.stress, isotropic.torque):
        assert figure.at_floor
    assert not any(figure.at_floor for figure in (result.energy, result.forces, result.stress, result.torque))


def test_non_conservative_forces_are_probed(tmp_path: Path) -> None:
    """F = Σ f (r + a z (1,1,1)): turned back, the anisotropic part has ℓ = 1 and 2 from two vectors, or ℓ = 0."""
    potential = tiny(tmp_path, anisotropy=0.2, options={"forces": "non-conservative"})
    assert not potential.conservative
    for structure in (molecule(), small_crystal()):
        result = goniometer.probe(potential, structure, lmax=3, measured=()).structures[0]
        plus = np.array(result.forces.spectrum.plus)
        assert plus[1] + plus[2] == pytest.approx(result.forces.rms**2, rel=1e-9)
        assert min(plus[1], plus[2]) > 1e-3 * result.forces.rms**2
        assert result.stress is None
        assert result.torque.rms is None  # forces that are no gradient do not tell it: finite rotations do
        assert result.torque.norm > 10.0 * result.torque.floor
    isotropic = tiny(tmp_path, anisotropy=0.0, options={"forces": "non-conservative"})
    assert goniometer.probe(isotropic, molecule(), lmax=2, measured=()).structures[0].forces.at_floor
    report = check_potential(potential, molecule())
    report.raise_if_failed()
    assert "not conservative" in report["forces"].sentence


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_an_unknown_element_is_refused() -> None:
    with pytest.raises(InputError, match=r"does not know Na.*H, O"):
        pet().predict(Atoms("NaH", [[0, 0, 0], [0, 0, 1.9]]))


def test_a_model_that_fails_is_reported(tmp_path: Path) -> None:
    for kind, said in (("raise", "not in the mood"), ("nan", "not finite")):
        potential = tiny(tmp_path, kind)
        for structure in (molecule(), small_crystal()):
            with pytest.raises(PotentialError, match=said) as caught:
                potential.predict(structure)
            assert "\n" not in str(caught.value)


def test_a_failing_structure_does_not_take_the_others_with_it() -> None:
    result = goniometer.probe(pet(), [molecule(), Atoms("NaH", [[0, 0, 0], [0, 0, 1.9]])], lmax=1, measured=())
    assert [each.n_atoms for each in result.structures] == [3]
    assert "does not know Na" in result.failures[0].error


def test_what_a_model_lacks_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no non-conservative forces"):
        goniometer.load(NAME, forces="non-conservative")
    with pytest.raises(InputError, match="float16"):
        tiny(tmp_path, options={"dtype": "float16"})
    with pytest.raises(InputError, match="cuda"):
        MetatomicPotential.from_file(tmp_path / "tiny.pt", device="cuda")
    (tmp_path / "none.pt").write_bytes(b"not a model")
    with pytest.raises(InputError, match="not an exported metatomic model"):
        MetatomicPotential.from_file(tmp_path / "none.pt")
